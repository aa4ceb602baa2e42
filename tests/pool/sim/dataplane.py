# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where a host's data servers meet the pool: control-domain attachments, NBD, disk transfers.

Serving a disk attaches it to the host's control domain through a temporary VBD, which is what makes
the disk "in use" for clients. Data moves without the pool's lock.
"""

import base64
import contextlib
import errno
import random
import time

from . import hosts, session as sessions, sr as srs, transfer, vbd as vbds, vdi as vdis, vdi_checks
from .errors import ApiError
from .nbd import NbdServer
from .nbd_external import ExternalNbd
from .vdi_cbt import nbd_purpose

PERMISSION_ROLE = "va"
SPACE_CHECK = 16 << 20  # bytes written between two looks at the SR's free space
PROGRESS_INTERVAL = 0.3  # seconds between two writes of a task's progress


class Attachment:
    """A disk attached to a control domain; `path` and `size` describe its raw file."""

    def __init__(self, pool, host, vdi, mode, other_config):
        self.pool, self.vdi = pool, vdi
        with pool.lock, pool.acting_as(None, None):
            record = pool.db.record("VDI", vdi)
            if record["type"] == "cbt_metadata":
                raise vdi_checks.incompatible(vdi, record)
            if not srs.reaches(pool, host.ref, record["SR"]):
                raise ApiError("SR_HAS_NO_PBDS", record["SR"])
            pool.faults.hit("SM.vdi_attach", [vdi, record["uuid"]], host.uuid)
            self.sr, self.uuid = record["SR"], record["uuid"]
            self.path, self.size = pool.store.path(self.uuid), pool.store.size(self.uuid)
            self.vbd = self._plug(host, mode, other_config)
            pool.attachments[self.vbd] = self
        self._unchecked = SPACE_CHECK  # so that the first write looks at the free space

    def _plug(self, host, mode, other_config):
        pool, domain = self.pool, self.pool.control_domain(host.ref)
        if not pool.db.has("VM", domain):
            raise ApiError("INTERNAL_ERROR", "host %s has no control domain" % host.uuid)
        values = {"VM": domain, "VDI": self.vdi, "mode": mode, "type": "Disk", "bootable": False,
                  "empty": False, "unpluggable": True, "other_config": other_config,
                  "userdevice": vbds.choose_position(pool, domain, "autodetect")}
        vbds.check_disk(pool, None, values)
        vbd = pool.db.create("VBD", values)
        vbds.attach(pool, vbd)
        return vbd

    def write(self, offset, data):
        """Write to the disk; a full SR fails like a full disk."""
        self._unchecked += len(data)
        if self._unchecked >= SPACE_CHECK:
            self._unchecked = 0
            with self.pool.lock:
                srs.update_space(self.pool, self.sr)
                if srs.free_space(self.pool, self.sr) < len(data) \
                        and not srs.thick(self.pool, self.sr):
                    raise OSError(errno.ENOSPC, "the SR is full")
        self.pool.store.write(self.uuid, offset, data)

    def detach(self):
        """Unplug and remove the VBD; it may linger, and a host's restart may have removed it."""
        pool = self.pool
        with pool.lock, pool.acting_as(None, None):
            pool.sleep(pool.options["hot_unplug_delay"])
            pool.attachments.pop(self.vbd, None)
            if pool.db.has("VBD", self.vbd):
                vbds.detach(pool, self.vbd)
                pool.db.delete("VBD", self.vbd)
                pool.refresh_vdi(self.vdi)
            if pool.db.has("SR", self.sr):
                srs.update_space(pool, self.sr)


class NbdResolver:
    """What a host's NBD daemon asks the pool."""

    def __init__(self, pool, host):
        self.pool, self.host = pool, host

    def purpose(self):
        with self.pool.lock:
            return nbd_purpose(self.pool)

    def attach(self, exportname, peer):
        """The attached disk of "/<uuid>?session_id=<session>"."""
        uuid, question, query = exportname.lstrip("/").partition("?")
        name, _, session = query.partition("=")
        if not question or name != "session_id":
            raise ApiError("INTERNAL_ERROR", "export name without a session")
        with self.pool.lock:
            sessions.check(self.pool, session)
            self.pool.faults.hit("NBD.attach", [uuid], self.host.uuid)
            vdi = self.pool.db.by_uuid("VDI", uuid)
        return Attachment(self.pool, self.host, vdi, "RO", {})


class HostNbd:
    """The NBD service of one host: the pool's own kind of server, or nbdkit or qemu-nbd."""

    def __init__(self, pool, host):
        self.pool, self.host = pool, host
        self.server = self.external = None

    def start(self):
        """Begin to serve; `host.nbd_port` tells the port (0 with an external server)."""
        pool, host, kind = self.pool, self.host, self.pool.options["nbd"]
        if kind == "off":
            return
        if kind == "python":
            port = host.nbd_port or pool.options["nbd_port"]
            self.server = NbdServer(host.address, port, lambda: hosts.tls_context(host),
                                    NbdResolver(pool, host), pool.options["nbd_connections"])
            host.nbd_port = self.server.start().port
        else:
            tls = nbd_purpose(pool) != "insecure_nbd"
            self.external = ExternalNbd(kind, host.address, host.certificate if tls else None)

    def stop(self, killed=False):
        """End the service. Killed daemons leave their attachments to the host's next start.

        The pool's lock must not be held: connections that end want it."""
        server, self.server = self.server, None
        external, self.external = self.external, None
        if server:
            server.stop(detach=not killed)
        if external:
            external.stop()

    def port(self, uuid, exportname):
        """Where a disk is served."""
        if self.external is None:
            return self.host.nbd_port
        return self.external.serve(exportname, self.pool.store.path(uuid))

    def release(self, path):
        """A disk's data goes away: end what an external server still does with it."""
        if self.external is not None:
            self.external.release(path)


class TransferRequest:
    """A request as the transfer handlers want it: cookies count as parameters."""

    def __init__(self, request):
        self.method, self.target, self.path = request.method, request.target, request.path
        self.path = self.path.rstrip("/")
        self.headers, self.rfile, self.wfile = request.headers, request.rfile, request.wfile
        self.sock = request.connection.sock
        self.query = {**request.cookies, **request.query}


class Disk:
    """What a transfer needs to know of a disk."""

    def __init__(self, pool, ref):
        record = pool.db.record("VDI", ref)
        self.ref, self.uuid, self.sr, self.size = (ref, record["uuid"], record["SR"],
                                                   record["virtual_size"])
        vhd_like = pool.db.get("SR", self.sr, "type") in srs.VHD_TYPES
        self.image_format = record["sm_config"].get("image-format", "vhd" if vhd_like else "raw")


class TransferContext:
    """The pool as one transfer on one host sees it."""

    def __init__(self, pool, host, action):
        self.pool, self.host, self.action = pool, host, action
        self.user = self.session = None
        self._tasks = {}  # reference -> (task, whether it goes away with the request)
        self._reported = 0.0

    def authenticate(self, request):
        with self.pool.lock:
            self.session, self.user = request_user(self.pool, request)
            sessions.assert_allowed(self.user, PERMISSION_ROLE, "http/" + self.action)

    def find_vdi(self, key):
        with self.pool.lock:
            ref = key if key.startswith("OpaqueRef:") else self.pool.db.by_uuid("VDI", key)
            if not self.pool.db.has("VDI", ref):
                raise ApiError("INTERNAL_ERROR",
                               'Db_exn.DBCache_NotFound("missing row", "VDI", "%s")' % ref)
            return Disk(self.pool, ref)

    def find_sr(self, key):
        with self.pool.lock:
            ref = key if key.startswith("OpaqueRef:") else self.pool.db.by_uuid("SR", key)
            self.pool.db.row("SR", ref)
            return ref

    def redirect_target(self, sr):
        with self.pool.lock:
            if srs.reaches(self.pool, self.host.ref, sr):
                return None
            able = [h for h in srs.attached_hosts(self.pool, sr) if self.pool.host_live(h)]
            if not able:
                raise ApiError("NO_HOSTS_AVAILABLE")
            return self.pool.hosts[random.choice(able)].url()

    def create_vdi(self, sr, size, task):
        pool = self.pool
        originator = self.session.originator if self.session else None
        with pool.lock, pool.acting_as(originator, self.action):
            size = vdis.rounded(pool, sr, size)
            srs.assert_space(pool, sr, size)
            return vdis.make(pool, sr, size, {"name_label": "Imported VDI", "type": "user"})

    def attach(self, vdi, mode, task):
        return Attachment(self.pool, self.host, vdi, mode, {"task_id": task})

    def task_start(self, request, label):
        with self.pool.lock:
            if "task_id" in request.query:
                task, temporary = self.pool.tasks.get(request.query["task_id"]), False
            else:
                task = self.pool.tasks.create(label, session=self.session, host=self.host.ref)
                temporary = True
            self._tasks[task.ref] = task, temporary
            return task.ref

    def task_progress(self, task, done, total):
        with self.pool.lock:
            self.pool.faults.hit("SM." + self.action, [task], self.host.uuid)
            known, _ = self._tasks[task]
            known.check_cancelled()
            if total and time.monotonic() - self._reported > PROGRESS_INTERVAL:
                self._reported = time.monotonic()
                known.progress(min(1.0, done / total))

    def task_complete(self, task, result):
        with self.pool.lock:
            known, temporary = self._tasks[task]
            known.complete("<value>%s</value>" % result if result else "")
            if temporary:
                self.pool.tasks.remove(task)

    def task_fail(self, task, error):
        with self.pool.lock:
            known, temporary = self._tasks.get(task) or (self.pool.tasks.get(task), False)
            known.fail(error.description())
            if temporary:
                self.pool.tasks.remove(task)


def request_user(pool, request):
    """(session or None, user) of an HTTP request: a session's reference, else Basic credentials.

    The pool's lock is held. Anything wrong is SESSION_AUTHENTICATION_FAILED."""
    failure = ApiError("SESSION_AUTHENTICATION_FAILED")
    reference = request.query.get("session_id")
    if reference:
        try:
            session = sessions.check(pool, reference)
        except ApiError as error:
            raise failure from error
        return session, session.user
    kind, _, text = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "basic":
        raise failure
    try:
        name, _, password = base64.b64decode(text, validate=True).decode().partition(":")
        return None, sessions.authenticate(pool, name, password)
    except (ValueError, ApiError) as error:
        raise failure from error


def serve_transfer(pool, host, request):
    """Answer GET /export_raw_vdi or PUT /import_raw_vdi; the connection ends with it."""
    request.keep_alive = False
    handler, action = {"GET": (transfer.export_raw_vdi, "get_export_raw_vdi"),
                       "PUT": (transfer.import_raw_vdi, "put_import_raw_vdi")}[request.method]
    with contextlib.suppress(ConnectionError):
        handler(TransferRequest(request), TransferContext(pool, host, action))
