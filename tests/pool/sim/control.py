# SPDX-License-Identifier: LGPL-2.1-or-later
"""The control interface under /sim/: what tests do to the pool behind the clients' backs.

Every request is a POST (or GET for questions) with a JSON object; every answer is JSON. Errors are
status 400 with {"error": text}. The calls are documented in ../README.md.
"""

import hashlib
import inspect
import json
import random
import sys
import threading
import traceback

from . import build, chain, codec, control_state, hosts, power, snapshot, sr as srs
from .calls import Context
from .dispatch import Dispatcher
from .errors import ApiError, CutConnection, ScenarioError
from .httpd import Server
from .model import NULL
from .storage import StoreError

ACTIONS = {}
PATTERN_PIECE = 1 << 20


def action(name):
    def register(function):
        ACTIONS[name] = function
        return function
    return register


class Control:
    """Answers /sim/ requests at its own address, never over TLS."""

    def __init__(self, simulator, address):
        self.simulator, self.pool = simulator, simulator.pool
        self.server = Server(address, 0, self.handle)
        self.url = "http://%s:%d/sim/" % (address, self.server.port)

    def start(self):
        self.server.start()

    def stop(self):
        self.server.stop()

    def handle(self, request):
        name = request.path.partition("/sim/")[2].strip("/")
        body = request.rfile.read(request.length or 0)
        try:
            arguments = json.loads(body) if body else dict(request.query)
            status, answer = 200, self.run(name, arguments)
        except (ScenarioError, ApiError, StoreError, OSError, ValueError, TypeError,
                KeyError) as error:
            status, answer = 400, {"error": "%s: %s" % (type(error).__name__, error)}
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            status, answer = 400, {"error": "%s: %s" % (type(error).__name__, error)}
        request.reply(status, json.dumps(answer), content_type="application/json")

    def run(self, name, arguments):
        if name not in ACTIONS:
            raise ScenarioError("unknown action %r (known: %s)" % (
                name, ", ".join(sorted(ACTIONS))))
        function = ACTIONS[name]
        parameters = list(inspect.signature(function).parameters.values())[1:]
        known = [p.name for p in parameters]
        free = any(p.kind is p.VAR_KEYWORD for p in parameters)
        unknown = set() if free else set(arguments) - set(known)
        if unknown:
            raise ScenarioError("%s: unknown argument %s (known: %s)" % (
                name, ", ".join(sorted(unknown)), ", ".join(known)))
        answer = function(self, **arguments)
        return {} if answer is None else answer

    # ---- names ----

    def host(self, name):
        """A host by uuid, name, address or reference."""
        for member in self.pool.hosts.values():
            if name in (member.uuid, member.name, member.address, member.ref):
                return member
        raise ScenarioError("no host %r" % name)

    def find(self, cls, name):
        """A row by uuid, reference or name_label."""
        db = self.pool.db
        if db.has(cls, name):
            return name
        if name in db.uuids[cls]:
            return db.uuids[cls][name]
        found = db.find(cls, name_label=name) if "name_label" in self.pool.model.classes[
            cls].fields else []
        if len(found) != 1:
            raise ScenarioError("%d objects of class %s are called %r" % (len(found), cls, name))
        return found[0]

    def uuid(self, vdi):
        """A disk's uuid in the store; unknown to the database is fine."""
        if self.pool.store.exists(vdi):
            return vdi
        with self.pool.lock:
            return self.pool.db.get("VDI", self.find("VDI", vdi), "uuid")

    def context(self):
        return Context(self.pool, self.pool.coordinator(), None, None, "sim")


def start(simulator, address):
    return Control(simulator, address)


# ---- disks ----

@action("disk/write")
def disk_write(control, vdi, offset=0, data=None, pattern=None, random_seed=None, length=None,
               file=None, repeat=1):
    """Write to a disk as its guest would; tracked by CBT."""
    import base64
    uuid, store = control.uuid(vdi), control.pool.store
    if file is not None:
        return {"written": build.copy_in(store, uuid, file, offset) - offset}
    if data is not None:
        block = base64.b64decode(data) * int(repeat)
        store.write(uuid, offset, block)
        return {"written": len(block)}
    if length is None:
        raise ScenarioError("disk/write: data, file, or length with pattern or random_seed")
    rng = random.Random(random_seed)
    unit = (pattern or "").encode("latin-1")
    done = 0
    while done < length:
        count = min(PATTERN_PIECE, length - done)
        if random_seed is not None:
            block = rng.randbytes(count)
        elif unit:
            block = (unit * (count // len(unit) + 2))[done % len(unit):][:count]
        else:
            block = bytes(count)
        store.write(uuid, offset + done, block)
        done += count
    return {"written": done}


@action("disk/read")
def disk_read(control, vdi, offset=0, length=None):
    import base64
    uuid = control.uuid(vdi)
    length = control.pool.store.size(uuid) - offset if length is None else length
    if length > 64 << 20:
        raise ScenarioError("disk/read: at most 64 MiB at once; use disk/path")
    return {"data": base64.b64encode(control.pool.store.read(uuid, offset, length)).decode()}


@action("disk/checksum")
def disk_checksum(control, vdi, length=None):
    """SHA-256 of the whole disk or its first bytes."""
    uuid = control.uuid(vdi)
    size = control.pool.store.size(uuid) if length is None else length
    digest = hashlib.sha256()
    with open(control.pool.store.path(uuid), "rb") as source:
        while size > 0:
            piece = source.read(min(1 << 20, size))
            if not piece:
                break
            digest.update(piece)
            size -= len(piece)
    return {"sha256": digest.hexdigest()}


@action("disk/path")
def disk_path(control, vdi):
    """The file with the disk's bytes. Write through disk/write, or tell disk/touched after."""
    uuid = control.uuid(vdi)
    return {"path": control.pool.store.writable_path(uuid), "uuid": uuid,
            "size": control.pool.store.size(uuid)}


@action("disk/touched")
def disk_touched(control, vdi, offset, length):
    """Somebody wrote the file directly: mark the range as changed."""
    control.pool.store.track(control.uuid(vdi), offset, length)


@action("disk/break-cbt")
def break_cbt(control, vdi, how="lost"):
    """Damage tracking; see README.md for the ways."""
    pool, uuid = control.pool, control.uuid(vdi)
    with pool.lock:
        ref = control.find("VDI", uuid)
        if how == "lost":
            pool.store.lose_log(uuid)
        elif how == "inconsistent":
            pool.store.mark_inconsistent(uuid)
        elif how == "reset":
            pool.store.cbt_disable(uuid)
            pool.store.cbt_enable(uuid)
        elif how == "snapshot":
            pool.cbt_snapshot_fails.add(ref)
        elif how == "resize":
            pool.cbt_resize_fails.add(ref)
        elif how == "off":
            pool.store.cbt_disable(uuid)
            pool.db.set("VDI", ref, "cbt_enabled", False)
        else:
            raise ScenarioError("disk/break-cbt: 'how' is lost, inconsistent, reset, snapshot, "
                                "resize or off")


@action("disk/lie-cbt")
def lie_cbt(control, vdi, blocks):
    """Forget that these 64 KiB blocks were written: a tracker that misses writes."""
    control.pool.store.drop_bits(control.uuid(vdi), blocks)


# ---- faults ----

@action("fault/add")
def fault_add(control, **rule):
    with control.pool.lock:
        return {"id": control.pool.faults.add(rule)}


@action("fault/remove")
def fault_remove(control, id):
    with control.pool.lock:
        return {"removed": control.pool.faults.remove(id)}


@action("fault/clear")
def fault_clear(control):
    with control.pool.lock:
        control.pool.faults.clear()


@action("fault/list")
def fault_list(control):
    with control.pool.lock:
        return {"faults": control.pool.faults.describe()}


# ---- hosts ----

@action("host/kill")
def host_kill(control, host):
    control.simulator.kill(control.host(host))


@action("host/revive")
def host_revive(control, host, emergency=None):
    control.simulator.revive(control.host(host), emergency)


@action("host/emergency")
def host_emergency(control, host, error=None):
    """Let a member answer everything with one error; without `error` back to normal."""
    with control.pool.lock:
        control.host(host).emergency = [error] if isinstance(error, str) else error


@action("host/toolstack")
def host_toolstack(control, host=None, seconds=0.2):
    with control.pool.lock:
        member = control.host(host or control.pool.coordinator())
    control.simulator.restart_toolstack(member, float(seconds))


@action("coordinator")
def coordinator(control, host):
    """Move the coordinator, as HA or an administrator does."""
    with control.pool.lock:
        hosts.move_coordinator(control.pool, control.host(host))


@action("host/live")
def host_live(control, host, live):
    """What the coordinator believes of a host."""
    with control.pool.lock:
        member = control.host(host)
        metrics = control.pool.db.get("host", member.ref, "metrics")
        control.pool.db.set("host_metrics", metrics, "live", bool(live))


@action("nbd")
def nbd(control, host, connections=None, **faults):
    """Faults of a host's NBD server: members of nbd.Faults, or cut all connections."""
    member = control.host(host)
    if member.nbd is None:
        raise ScenarioError("host %s has no NBD server" % member.name)
    if connections == "drop":
        member.nbd.drop_connections()
    for name, value in faults.items():
        if not hasattr(member.nbd.faults, name):
            raise ScenarioError("nbd: unknown fault %r" % name)
        setattr(member.nbd.faults, name, value)
    stats = member.nbd.stats() if hasattr(member.nbd, "stats") else None
    return {"closed": [str(c) for c in list(member.nbd.closed)[-20:]],
            "bytes": stats.bytes if stats else None, "peak": stats.peak if stats else None}


# ---- storage repositories ----

@action("sr/fill")
def sr_fill(control, sr, free=None, used=None):
    """Leave `free` bytes (or take `used` bytes) of an SR."""
    pool = control.pool
    with pool.lock:
        ref = control.find("SR", sr)
        pool.filled[ref] = 0
        srs.update_space(pool, ref)
        if free is not None:
            record = pool.db.record("SR", ref)
            pool.filled[ref] = max(0, record["physical_size"] - record["physical_utilisation"]
                                   - int(free))
        else:
            pool.filled[ref] = int(used or 0)
        srs.update_space(pool, ref)
        return {"free": srs.free_space(pool, ref)}


@action("sr/coalesce")
def sr_coalesce(control, sr):
    with control.pool.lock:
        return {"merged": chain.coalesce(control.pool, control.find("SR", sr))}


@action("sr/plug")
def sr_plug(control, sr, host, attached=True):
    pool = control.pool
    with pool.lock:
        ref, member = control.find("SR", sr), control.host(host)
        for pbd in pool.db.get("SR", ref, "PBDs"):
            if pool.db.get("PBD", pbd, "host") == member.ref:
                pool.db.set("PBD", pbd, "currently_attached", bool(attached))
        srs.refresh(pool, ref)


# ---- virtual machines and records ----

@action("vm/power")
def vm_power(control, vm, operation, host=None):
    """start, shutdown, crash, pause, unpause, suspend, resume or move a VM, without checks."""
    pool = control.pool
    with pool.lock:
        ref, ctx = control.find("VM", vm), control.context()
        if operation == "start":
            power.run_on(pool, ref, control.host(host).ref if host else power.choose_host(ctx, ref))
        elif operation in ("shutdown", "crash"):
            power.stop(pool, ref, crash=operation == "crash")
        elif operation in ("pause", "unpause"):
            pool.db.set("VM", ref, "power_state", "Paused" if operation == "pause" else "Running")
            pool.refresh_vm(ref)
        elif operation == "suspend":
            power.suspend_to_disk(ctx, ref)
        elif operation == "resume":
            power.wake(ctx, ref, power.choose_host(ctx, ref), False)
        elif operation == "move":
            pool.db.set("VM", ref, "resident_on", control.host(host).ref)
        elif operation == "snapshot":
            return {"ref": snapshot.make_snapshot(ctx, ref, "by the administrator", set())}
        else:
            raise ScenarioError("vm/power: unknown operation %r" % operation)


@action("record/get")
def record_get(control, cls, name):
    with control.pool.lock:
        ref = control.find(cls, name)
        return {"ref": ref, "record": control.pool.db.record(cls, ref)}


@action("record/set")
def record_set(control, cls, name, fields, raw=False):
    """Overwrite fields of any record, as a broken or strange server would; `raw`: unchecked."""
    pool = control.pool
    with pool.lock:
        ref = control.find(cls, name)
        types = pool.model.classes[cls].fields
        for field, value in fields.items():
            if field not in types:
                raise ScenarioError("class %s has no field %r" % (cls, field))
            if not raw:
                value = codec.decode(types[field].type, value, pool.model)
            pool.db.set(cls, ref, field, value)
        if cls == "VM":
            pool.refresh_vm(ref)


@action("record/delete")
def record_delete(control, cls, name):
    with control.pool.lock:
        control.pool.db.delete(cls, control.find(cls, name))


@action("vdi/rescan")
def vdi_rescan(control, vdi):
    """A scan lost and found the disk: same uuid, new reference, what only XenAPI knew is gone."""
    pool = control.pool
    with pool.lock:
        old = control.find("VDI", vdi)
        record = dict(pool.db.record("VDI", old))
        vbds = list(record["VBDs"])
        record.update(other_config={}, tags=[], xenstore_data={}, current_operations={},
                      snapshot_of=NULL)
        pool.db.delete("VDI", old)
        new = pool.db.create("VDI", record)
        for vbd in vbds:
            pool.db.set("VBD", vbd, "VDI", new)
        pool.refresh_vdi(new)
        return {"ref": new}


@action("vbd/refuse-detach")
def refuse_detach(control, vbd, refuse=True):
    with control.pool.lock:
        ref = control.find("VBD", vbd)
        (control.pool.detach_refused.add if refuse else control.pool.detach_refused.discard)(ref)


@action("session/expire")
def session_expire(control, originator=None):
    """End sessions, all or those of one originator."""
    from .session import close_session
    pool = control.pool
    with pool.lock:
        victims = [s.ref for s in pool.sessions.values()
                   if originator in (None, s.originator)]
        for ref in victims:
            close_session(pool, ref)
        pool.db.changed.notify_all()
        return {"ended": len(victims)}


@action("task/forget")
def task_forget(control, task=None):
    with control.pool.lock:
        if task:
            control.pool.tasks.remove(control.find("task", task))
        else:
            control.pool.tasks.forget_all()


@action("option")
def option(control, name, value):
    """Change an option while the pool runs."""
    from .scenario import check_options
    check_options({name: value})
    with control.pool.lock:
        control.pool.options[name] = value


# ---- questions ----

@action("state")
def state(control):
    return control_state.state(control.simulator)


@action("calls")
def calls(control, since=0, method=None, originator=None):
    return control_state.calls(control.pool, since, method, originator)


@action("made")
def made(control, originator=None, leftovers=False):
    return control_state.made(control.pool, originator, leftovers)


@action("call")
def call_(control, method, params=()):
    """Any XenAPI call as the local root, without a session: [parameters]."""
    pool = control.pool
    dispatcher = Dispatcher(pool)
    with pool.lock:
        from .session import User, Session
        call, _ = dispatcher.lookup(method)
        _, named = dispatcher.bind(call, method, [""] + list(params) if call.session else
                                   list(params))
        ctx = Context(pool, pool.coordinator(), Session(NULL, User("root", "", "pa"), ""), None,
                      method)
        try:
            value = dispatcher.perform(ctx, call, named)
        except CutConnection as error:
            raise ScenarioError("a fault cut the call") from error
        return {"value": codec.json_value(call.result, value, pool.model)
                if value is not None else None}


@action("shutdown")
def shutdown(control):
    threading.Timer(0.05, control.simulator.stop).start()
