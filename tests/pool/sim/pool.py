# SPDX-License-Identifier: LGPL-2.1-or-later
"""The simulated pool: its database, hosts, disks, options, and the record of what clients did.

One lock, that of the database, guards everything here. Calls run with it held; slow storage work
runs inside `unlocked()`, and waiting for a change is `db.changed.wait()`, which lets others in.
"""

import contextlib
import threading
import time
from collections import deque

from . import clock, hosts, session as sessions, vbd as vbds, vdi_checks, vif as vifs, vm_checks
from .chain import Coalescer
from .database import Database
from .errors import ApiError, CutConnection
from .faults import Faults
from .model import Model, NULL, release_key
from .tasks import Tasks

DEFAULTS = {
    "version": "24.11.0",        # of xapi: decides fields, calls and error forms
    "fast": True,                # waits take milliseconds where a real server takes seconds
    "password": "password",      # of root
    "login_delay": 0.0,          # seconds, after a wrong password
    "cbt_licence": True,
    "restrictions": {},          # more pool.restrictions entries
    "nbd": "python",             # python | nbdkit | qemu-nbd | off
    "nbd_connections": 16,       # per host, as the real daemon
    "nbd_port": 0,               # 0: any free one
    "nbd_rate": 0.0,             # bytes a second of each host's own NBD server; 0: no limit
    "lock_wait": 5.0,            # seconds a call waits for a busy object (7200 on a real server)
    "base_copies": True,         # VHD-like SRs make hidden "base copy" nodes
    "chain_limit": 30,
    "coalesce_delay": 0.5,       # seconds from a destroy or scan to the merge; negative: never
    "round": 2097152,            # virtual sizes are rounded up to this on VHD-like SRs
    "task_keep": 3900.0,         # seconds a finished task is kept
    "task_limit": 200,
    "session_idle": 86400.0,
    "session_quota": 500,
    "event_batch": 0.05,         # seconds changes are gathered before event.from answers
    "pending_limit": 100,        # threads waiting for locks before TOO_MANY_PENDING_TASKS
    "host_dead_after": 0.0,      # seconds from a host's death until the coordinator notices
    "ha_failover": 0.0,          # seconds until another member takes over; 0: no high availability
    "hot_unplug_delay": 0.0,     # seconds a closed NBD or HTTP attachment lingers
    "data_destroy_wait": 0.2,    # seconds data_destroy waits for VBDs to go (4 on a real server)
    "time_scale": 1.0,
    "rolling_upgrade": False,    # hosts of different versions: most operations are refused
}


# Rows the server makes on its own account while it executes a client's call.
SERVERS_OWN = {"VM_metrics", "VM_guest_metrics"}


class Host:
    """One member: its addresses and whether it answers."""

    def __init__(self, ref, uuid_, name):
        self.ref, self.uuid, self.name = ref, uuid_, name
        self.address, self.port, self.nbd_port = "", 0, 0
        self.alive = True
        self.emergency = None      # the stored error of emergency mode, a list
        self.listener = self.nbd = None
        self.certificate = None    # path of the PEM file with certificate and key
        self.fingerprint = None
        self.tls = False

    def url(self, path=""):
        return "%s://%s:%d%s" % ("https" if self.tls else "http", self.address, self.port, path)

    def certificate_text(self):
        return hosts.certificate_text(self)

    def subject(self):
        return self.name


class Pool:
    def __init__(self, options, store):
        self.options = {**DEFAULTS, **options}
        self.model = Model(self.options["version"])
        self.db = Database(self.model)
        self.db.on_create = self._created
        self.lock = self.db.lock
        self.store = store
        self.hosts = {}
        self.users = {}
        self.faults = Faults(self)
        self.calls = deque(maxlen=20000)
        self.made = []               # rows clients made: dicts, see control.py
        self.marks = []              # map entries clients set
        self.local = threading.local()
        self.waiting = 0
        self.secrets = {}            # contents of VTPMs by reference
        self.messages_generation = 0
        self.stopping = False
        self.epoch = 1               # grows when the coordinator goes down: its calls end then
        self.guests = None           # folder where guests' devices show up, see vbd.py
        self.loading = False         # while a scenario is built: allowed_operations come last
        self.sessions = {}           # reference -> Session (session.py)
        self.next_domid = 1
        self.attachments = {}        # VBD reference -> what a dom0 attachment serves
        self.filled = {}             # SR reference -> bytes taken by something else
        self.cbt_snapshot_fails = set()  # disks whose next snapshot loses tracking
        self.cbt_resize_fails = set()
        self.detach_refused = set()  # VBDs the guest will not let go
        self.coalescer = Coalescer(self)
        self.tasks = Tasks(self)

    # ---- facts ----

    def pool_ref(self):
        return next(iter(self.db.tables["pool"]))

    def coordinator(self):
        return self.db.get("pool", self.pool_ref(), "master")

    def newer(self, release):
        return self.model.key >= release_key(release)

    def host_live(self, ref):
        if ref not in self.hosts:
            return False
        metrics = self.db.get("host", ref, "metrics")
        return self.db.has("host_metrics", metrics) and self.db.get("host_metrics", metrics, "live")

    def assert_host(self, ref):
        """A call forwarded to a host: dead ones answer as the coordinator knows them."""
        if not self.host_live(ref):
            raise ApiError("HOST_OFFLINE", ref)
        if not self.hosts[ref].alive:
            raise ApiError("CANNOT_CONTACT_HOST", ref)

    def control_domain(self, host):
        return self.db.record("host", host).get("control_domain", NULL)

    def schedule_coalesce(self, sr):
        self.coalescer.schedule(sr)

    def refresh_vm(self, vm):
        if not self.loading:
            vm_checks.refresh(self, vm)

    def refresh_vdi(self, vdi):
        if not self.loading:
            vdi_checks.refresh(self, vdi)

    def refresh_vbd(self, vbd):
        if not self.loading:
            vbds.changed(self, vbd)

    def refresh_vif(self, vif):
        vifs.refresh(self, vif)

    def derive_mac(self, vm, device):
        return vifs.derive_mac(self, vm, device)

    # ---- what clients did ----

    @property
    def originator(self):
        return getattr(self.local, "originator", None)

    @contextlib.contextmanager
    def acting_as(self, originator, method):
        saved = (getattr(self.local, "originator", None), getattr(self.local, "method", None))
        self.local.originator, self.local.method = originator, method
        try:
            yield
        finally:
            self.local.originator, self.local.method = saved

    @contextlib.contextmanager
    def under_way(self):
        """A call is executed: it ends where it stands when the coordinator goes down."""
        self.local.epoch = self.epoch
        try:
            yield
        finally:
            self.local.epoch = None

    def assert_under_way(self):
        if getattr(self.local, "epoch", None) not in (None, self.epoch):
            raise CutConnection()

    def _created(self, row):
        if self.originator is None or row.cls in SERVERS_OWN:
            return
        self.made.append({"originator": self.originator, "method": self.local.method,
                          "class": row.cls, "ref": row.ref, "uuid": row.values.get("uuid"),
                          "time": time.time()})

    def mark(self, cls, ref, field, key):
        """Remember a map entry a client set, so that leftovers can be listed."""
        if self.originator is not None:
            self.marks.append({"originator": self.originator, "class": cls, "ref": ref,
                               "field": field, "key": key})

    # ---- waiting ----

    @contextlib.contextmanager
    def unlocked(self):
        """Let other threads in during slow work; what was read before may be gone after."""
        state = self.db.changed._release_save()
        try:
            yield
        finally:
            self.db.changed._acquire_restore(state)

    def sleep(self, seconds):
        """Sleep with the lock released; ends early when the simulator stops."""
        deadline = time.monotonic() + seconds
        while not self.stopping:
            left = deadline - time.monotonic()
            if left <= 0:
                return
            with self.unlocked():
                time.sleep(min(left, 0.05))

    def retry(self, attempt, task=None):
        """Run `attempt` until it stops raising OTHER_OPERATION_IN_PROGRESS or patience ends."""
        deadline = time.monotonic() + float(self.options["lock_wait"])
        waiting = False
        try:
            while True:
                try:
                    return attempt()
                except ApiError as error:
                    left = deadline - time.monotonic()
                    if error.code != "OTHER_OPERATION_IN_PROGRESS" or left <= 0:
                        raise
                    if not waiting:
                        if self.waiting >= self.options["pending_limit"]:
                            raise ApiError("TOO_MANY_PENDING_TASKS") from error
                        waiting = True
                        self.waiting += 1
                self.assert_under_way()
                if task is not None:
                    task.check_cancelled()
                self.db.changed.wait(min(left, 0.02 if self.options["fast"] else 1.0))
        finally:
            if waiting:
                self.waiting -= 1

    def busy(self, cls, ref, operation, key):
        """The error for an object in use; its form depends on the version."""
        if self.newer("25.27.0"):
            return ApiError("OTHER_OPERATION_IN_PROGRESS", cls, ref, operation, key)
        return ApiError("OTHER_OPERATION_IN_PROGRESS", cls, ref)

    def later(self, seconds, action):
        """Run `action` with the lock held after a while."""
        def body():
            with self.lock:
                if not self.stopping:
                    action()
        timer = threading.Timer(seconds, body)
        timer.daemon = True
        timer.start()

    def collect(self):
        """Background work: expiry of sessions and tasks, coalescing."""
        while not self.stopping:
            time.sleep(0.1)
            with self.lock:
                sessions.expire(self)
                self.tasks.collect()
                self.coalescer.run()

    # ---- alerts ----

    def message(self, name, priority, cls, obj_uuid, body):
        """Raise an alert; alerts have an event generation of their own."""
        maker = self.originator if getattr(self.local, "method", "") == "message.create" else None
        with self.acting_as(maker, "message.create"):
            ref = self.db.create("message", {
                "name": name, "priority": priority, "cls": cls, "obj_uuid": obj_uuid,
                "timestamp": clock.text(), "body": body})
        self.messages_generation += 1
        return ref
