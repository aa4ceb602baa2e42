# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the transfer handlers and the NBD servers need of the pool: sessions, disks, dom0 VBDs."""

import base64
import binascii
import os
import types
import urllib.parse

from . import session as sessions, sr as srs, transfer, vbd as vbds, vdi as vdis, vdi_cbt, xva
from .database import new_uuid
from .errors import ApiError, CutConnection
from .model import NULL


NEARLY_FULL = 1 << 30  # an SR with less room is looked at before each write


class Attachment:
    """A disk attached to a control domain; detach() may be called from any thread."""

    def __init__(self, pool, host, vdi, mode, vbd):
        self.pool, self.host, self.vdi, self.mode, self.vbd = pool, host, vdi, mode, vbd
        self.uuid = pool.db.get("VDI", vdi, "uuid")
        self.path = (pool.store.writable_path if mode == "RW" else pool.store.path)(self.uuid)
        self.size = pool.store.size(self.uuid)
        self.detached = False

    def write(self, offset, data):
        pool = self.pool
        with pool.lock:
            sr = pool.db.get("VDI", self.vdi, "SR")
            if pool.filled.get(sr) or srs.free_space(pool, sr) < NEARLY_FULL:
                srs.update_space(pool, sr)
                if srs.free_space(pool, sr) < len(data):
                    raise OSError(28, os.strerror(28))
        pool.store.write(self.uuid, offset, data)

    def detach(self):
        if self.detached:
            return
        self.detached = True
        if not self.pool.hosts[self.host].alive:
            return  # nobody is left to clean up: the VBD stays until the host is back
        delay = self.pool.options["hot_unplug_delay"]
        if delay > 0:
            self.pool.later(delay, self._gone)
            return
        with self.pool.lock:
            self._gone()

    def _gone(self):
        pool = self.pool
        pool.attachments.pop(self.vbd, None)
        if pool.db.has("VBD", self.vbd):
            pool.db.delete("VBD", self.vbd)
        if pool.db.has("VDI", self.vdi):
            pool.refresh_vdi(self.vdi)
            if self.mode == "RW":
                srs.update_space(pool, pool.db.get("VDI", self.vdi, "SR"))


def attach_to_control_domain(pool, host, vdi, mode, note):
    """Attach a disk in a host's dom0; the pool's lock is held."""
    record = pool.db.record("VDI", vdi)
    if record["type"] == "cbt_metadata" or not pool.store.has_data(record["uuid"]):
        raise ApiError("VDI_INCOMPATIBLE_TYPE", vdi, "CBT metadata")
    if not srs.reaches(pool, host, record["SR"]):
        raise ApiError("VM_REQUIRES_SR", pool.control_domain(host), record["SR"])
    for ref in record["VBDs"]:
        vbd = pool.db.record("VBD", ref)
        if vbd["currently_attached"] and "RW" in (mode, vbd["mode"]) and not record["sharable"] \
                and pool.db.get("VM", vbd["VM"], "power_state") != "Suspended" \
                and not pool.db.get("VM", vbd["VM"], "is_a_snapshot"):
            raise ApiError("VDI_IN_USE", vdi, "attach")
    pool.faults.hit("SM.vdi_attach", [vdi, record["uuid"]], pool.hosts[host].uuid)
    dom0 = pool.control_domain(host)
    with pool.acting_as(None, None):
        ref = pool.db.create("VBD", {
            "VM": dom0, "VDI": vdi, "userdevice": vbds.free_positions(pool, dom0)[0],
            "mode": mode, "type": "Disk", "unpluggable": True, "other_config": note,
            "metrics": "OpaqueRef:" + new_uuid()})
    vbds.attach(pool, ref)
    attachment = Attachment(pool, host, vdi, mode, ref)
    pool.attachments[ref] = attachment
    return attachment


def assert_coordinator(pool):
    """Members ask the coordinator about sessions; without it they can only hang up."""
    if not pool.hosts[pool.coordinator()].alive:
        raise CutConnection()


class TransferContext:
    """The owner's side of one HTTP transfer at one host; see transfer.py for the contract."""

    def __init__(self, pool, host):
        self.pool, self.host = pool, host
        self.session = None
        self.temporary = None

    def authenticate(self, request):
        with self.pool.lock:
            if self.host.emergency:
                raise ApiError(*self.host.emergency)
            assert_coordinator(self.pool)
            self.session = self._session(request)
            sessions.assert_allowed(self.session.user, "va", "http/%s_%s" % (
                request.method.lower(), request.path.strip("/")))

    def _session(self, request):
        ref = request.cookies.get("session_id") or request.query.get("session_id")
        if ref is not None:
            return sessions.check(self.pool, ref)
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                name, _, password = base64.b64decode(text).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError) as error:
                raise ApiError("SESSION_AUTHENTICATION_FAILED", "", "bad header") from error
            user = sessions.authenticate(self.pool, name, password)
            return sessions.Session(NULL, user, "http")
        raise ApiError("SESSION_INVALID", "")

    def _reference(self, cls, text):
        if self.pool.db.has(cls, text):
            return text
        return self.pool.db.by_uuid(cls, text)

    def find_vdi(self, text):
        with self.pool.lock:
            ref = self._reference("VDI", text)
            record = self.pool.db.record("VDI", ref)
            type_ = self.pool.db.get("SR", record["SR"], "type")
            image = "vhd" if type_ in srs.VHD_TYPES else "raw"
            return types.SimpleNamespace(
                ref=ref, uuid=record["uuid"], sr=record["SR"], size=record["virtual_size"],
                image_format=record["sm_config"].get("image-format", image))

    def find_sr(self, text):
        with self.pool.lock:
            return self._reference("SR", text)

    def redirect_target(self, sr):
        with self.pool.lock:
            hosts = srs.attached_hosts(self.pool, sr)
            if self.host.ref in hosts:
                return None
            alive = [h for h in hosts if self.pool.host_live(h)]
            if not alive:
                raise ApiError("NO_HOSTS_AVAILABLE")
            return self.pool.hosts[alive[0]].url()

    def create_vdi(self, sr, size, task):
        with self.pool.lock, self.pool.acting_as(self.session.originator, "import_raw_vdi"):
            size = vdis.rounded(self.pool, sr, size)
            srs.assert_space(self.pool, sr, size)
            return vdis.make(self.pool, sr, size, {"name_label": "Imported VDI", "type": "user"})

    def attach(self, vdi_ref, mode, task):
        with self.pool.lock:
            return attach_to_control_domain(self.pool, self.host.ref, vdi_ref, mode,
                                            {"task_id": task})

    def task_start(self, request, label):
        with self.pool.lock, self.pool.acting_as(self.session.originator, label):
            given = request.query.get("task_id") or request.cookies.get("task_id")
            if given is not None:
                task = self.pool.tasks.get(given)
                task.host = self.host.ref
            else:
                task = self.pool.tasks.create(label, "", self.session, host=self.host.ref)
                self.temporary = task.ref
            self.pool.faults.hit(request.path.strip("/"), [request.target], self.host.uuid)
            return task.ref

    def task_progress(self, task, done, total):
        pool = self.pool
        with pool.lock:
            if not self.host.alive or pool.stopping:
                raise CutConnection()
            known = pool.tasks.known.get(task)
            if known:
                known.check_cancelled()
                if total:
                    known.progress(min(1.0, done / total))
            pool.faults.hit("transfer", [task, str(done)], self.host.uuid)

    def task_complete(self, task, result):
        with self.pool.lock:
            if not self.host.alive:
                return  # a dead host tells nobody
            known = self.pool.tasks.known.get(task)
            if known:
                known.complete("<value>%s</value>" % result if result else "")
            self._drop(task)

    def task_fail(self, task, error):
        with self.pool.lock:
            if not self.host.alive:
                return
            known = self.pool.tasks.known.get(task)
            if known:
                known.fail(error.description())
            self._drop(task)

    def _drop(self, task):
        """Without a task of the client the outcome is lost, as on a server."""
        if task == self.temporary:
            self.pool.tasks.remove(task)


def adapt(request):
    """What the transfer handlers want beyond a plain request."""
    request.sock = request.connection.sock
    for name in ("session_id", "task_id"):
        if name in request.cookies:
            request.query[name] = request.cookies[name]


def handlers(pool):
    """The bulk handlers by method and path: functions of a request and the host that got it."""
    def served(function):
        def handler(request, host):
            adapt(request)
            function(request, TransferContext(pool, host))
        return handler

    return {("GET", "/export_raw_vdi"): served(transfer.export_raw_vdi),
            ("PUT", "/import_raw_vdi"): served(transfer.import_raw_vdi),
            ("GET", "/export"): served(xva.export), ("PUT", "/import"): served(xva.import_),
            ("GET", "/export_metadata"): served(xva.export_metadata),
            ("PUT", "/import_metadata"): served(xva.import_metadata)}


class NbdResolver:
    """What a host's NBD server asks of the pool."""

    def __init__(self, pool, host):
        self.pool, self.host = pool, host

    def purpose(self):
        with self.pool.lock:
            self.pool.faults.hit("nbd.connect", [], self.host.uuid)
            return vdi_cbt.nbd_purpose(self.pool)

    def attach(self, exportname, peer):
        parts = urllib.parse.urlsplit(exportname)
        query = urllib.parse.parse_qs(parts.query)
        with self.pool.lock:
            assert_coordinator(self.pool)
            session = sessions.check(self.pool, query.get("session_id", [""])[0])
            with self.pool.acting_as(session.originator, "nbd"):
                self.pool.faults.hit("nbd.attach", [exportname], self.host.uuid)
                vdi = self.pool.db.by_uuid("VDI", parts.path.strip("/"))
                return attach_to_control_domain(self.pool, self.host.ref, vdi, "RO",
                                                {"nbd": "true"})
