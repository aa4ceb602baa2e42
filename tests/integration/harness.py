# SPDX-License-Identifier: LGPL-2.1-or-later
"""Base of the integration tests: a simulated pool for a class of tests, a deployment for each test.

Needs XVSA_BUILD, the folder of a build; XVSA_POOLSIM names another simulator program.
"""

import os
import shutil
import tempfile
import time
import unittest

from deployment import Deployment
from simpool import SOURCE, SimPool

SHARED = os.environ.get("XVSA_SHARED", os.path.join(SOURCE, "..", "shared"))
ORIGINATOR = "xvsa"

# Exit codes of the tool.
OK, FAILED, USAGE, PARTIAL, REFUSED, CANCELLED, DAMAGED, DENIED = range(8)

SETTLE_SECONDS = 30
TAG_KEY = "xvsa"
BASE_TAG = "xvsa-base:"


class PoolCase(unittest.TestCase):
    """A pool of the scenario `scene`; `self.site` is a deployment with an empty repository."""

    scene = None
    tls = True
    init = True
    maxDiff = 2000

    @classmethod
    def setUpClass(cls):
        cls.class_folder = tempfile.mkdtemp(prefix="xvsa-test-")
        cls.addClassCleanup(shutil.rmtree, cls.class_folder, ignore_errors=True)
        cls.pool = SimPool(os.path.join(cls.class_folder, "pool"), cls.scene, tls=cls.tls)
        cls.addClassCleanup(cls.pool.stop)
        cls.count = 0

    def setUp(self):
        type(self).count += 1
        self.folder = os.path.join(self.class_folder, "test%d" % self.count)
        self.sites = []
        self.before = {row["ref"] for row in self.pool.sim("made", leftovers=True)["objects"]}
        self.site = self.deploy()
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.addCleanup(self.pool.calm)

    def deploy(self, name="site", init=None, **options):
        """Another deployment."""
        site = Deployment(os.path.join(self.folder, name), self.pool, **options)
        self.sites.append(site)
        return site.init() if (self.init if init is None else init) else site

    # ---- running ----

    def run_tool(self, *words, code=OK, site=None, **options):
        """Runs a command that must end with an exit code."""
        result = (site or self.site).run(*words, **options)
        self.assertEqual(result.code, code, str(result))
        return result

    def backup(self, *words, code=OK, **options):
        """Backs up; the report comes back."""
        return self.run_tool("backup", *words, code=code, **options)

    def restore(self, point, *words, code=OK, **options):
        """Restores a point to a new VM, named so that it can be found and is removed again."""
        return self.run_tool("restore", point, *words, code=code, **options)

    def new_vm(self, report, name):
        """Uuid of the VM that a restore made of a point of VM `name`; destroyed after the test."""
        uuid = report.vm(name)["new_uuid"]
        self.addCleanup(self.forget, uuid)
        return uuid

    def forget(self, uuid):
        """Removes a VM with its disks from the pool."""
        record = self.pool.record("VM", uuid)
        disks = self.pool.disks(uuid)
        for cls, refs in (("VBD", record["VBDs"]), ("VIF", record["VIFs"]), ("VDI", disks)):
            for ref in refs:
                self.pool.sim("record/delete", cls=cls, name=ref)
        self.pool.sim("record/delete", cls="VM", name=uuid)

    # ---- links ----

    def limit(self, rate):
        """Limits the NBD links of all hosts, bytes a second each; 0: no limit."""
        for host in self.pool.ready["hosts"]:
            self.pool.nbd(host["name"], rate=rate)

    def read_so_far(self):
        """Bytes that the hosts' NBD servers sent."""
        return sum(self.pool.nbd(host["name"])["bytes"] for host in self.pool.ready["hosts"])

    def at_rest(self, seconds=1):
        """Whether nothing is read of disks for a while."""
        before = self.read_so_far()
        time.sleep(seconds)
        return self.read_so_far() == before

    # ---- facts ----

    def assert_restored(self, report, name):
        """Every disk of the restored VM equals the disk it was made of; returns its uuid."""
        uuid = self.new_vm(report, name)
        originals, copies = self.pool.disks(name), self.pool.disks(uuid)
        self.assertEqual(len(originals), len(copies))
        for original, copy in zip(originals, copies):
            self.assert_same(self.pool.content(original), self.pool.content(copy), name)
        self.assert_clean(restored=[uuid])
        return uuid

    def assert_same(self, expected, found, what):
        """Bytes are equal; tells the first difference."""
        self.assertEqual(len(expected), len(found), "%s: size" % what)
        if expected != found:
            place = next(i for i in range(len(expected)) if expected[i] != found[i])
            self.fail("%s: differs from byte %d on" % (what, place))

    def assert_point(self, point, name, site=None):
        """The disks in a restore point equal those of the VM now."""
        for device, vdi in self.pool.devices(name):
            self.assert_same(self.pool.content(vdi),
                             (site or self.site).read_disk(point, device),
                             "disk %d of %s" % (device, name))

    def assert_clean(self, restored=()):
        """The pool holds nothing of ours but restored VMs and what changed block tracking needs."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            left = leftovers(self.pool, restored, self.sites, self.before)
            if not left or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        self.assertEqual(left, [], "left in the pool")

    def assert_verified(self, site=None):
        """The whole repository is free of faults."""
        return self.run_tool("repo", "verify", site=site)


def tracking_snapshots(sites):
    """Uuids of the snapshots that the last restore points track from."""
    found = set()
    for site in sites:
        if not site.objects():
            continue
        for vm in {point["vm"]["uuid"] for point in site.points()}:
            point = site.run("point", "show", "latest:" + vm).document
            found |= {disk["metadata"]["snapshot"] for disk in point["disks"]}
    return found


def parts_of(pool, vm):
    """References of a VM and of all that belongs to it."""
    record = pool.record("VM", vm)
    parts = {pool.sim("record/get", cls="VM", name=vm)["ref"], record["metrics"],
             record["guest_metrics"], *record["VIFs"], *record["VTPMs"], *record["consoles"]}
    for vbd in record["VBDs"]:
        fields = pool.record("VBD", vbd)
        parts |= {vbd, fields["metrics"], fields["VDI"]}
    for vif in record["VIFs"]:
        parts.add(pool.record("VIF", vif)["metrics"])
    return parts


def leftovers(pool, restored, sites, before=(), base_tags=False):
    """What clients of the library left in the pool, in words.

    References in `before` are not looked at. `base_tags` also admits metadata that a former point
    was tracked from: the next backup removes it.
    """
    made = pool.sim("made", originator=ORIGINATOR, leftovers=True)
    rows = [row for row in made["objects"] if row["ref"] not in before]
    allowed = set().union(*(parts_of(pool, vm) for vm in restored))
    tracked = tracking_nodes(pool, rows, tracking_snapshots(sites), base_tags)
    left = []
    for row in rows:
        if row["ref"] in tracked or is_hidden(pool, row) or is_finished_task(pool, row):
            continue
        if row["ref"] not in allowed:
            left.append("%s %s made by %s" % (row["class"], row["uuid"], row["method"]))
        elif row["class"] in ("VM", "VDI") and \
                TAG_KEY in pool.record(row["class"], row["ref"])["other_config"]:
            left.append("tag of %s %s" % (row["class"], row["uuid"]))
    known = tracked | set(before)
    left += ["%s of %s %s: %s" % (entry["field"], entry["class"], entry["ref"], entry["key"])
             for entry in made["entries"] if is_mark(entry) and entry["ref"] not in known]
    left += ["attachment of %s" % attachment["vdi"] for attachment in made["attachments"]]
    return left


def tracking_nodes(pool, rows, snapshots, base_tags):
    """References of the changed block metadata that restore points name."""
    found = set()
    for row in rows:
        if row["class"] != "VDI":
            continue
        record = pool.record("VDI", row["ref"])
        tag = record["other_config"].get(TAG_KEY, "")
        named = row["uuid"] in snapshots or (base_tags and tag.startswith(BASE_TAG))
        if named and record["type"] == "cbt_metadata":
            found.add(row["ref"])
    return found


def is_finished_task(pool, row):
    """Whether it is a task that has ended: the server collects these by itself."""
    return row["class"] == "task" and pool.record("task", row["ref"])["status"] != "pending"


def is_hidden(pool, row):
    """Whether it is an inner node that the storage made and removes by itself."""
    return row["class"] == "VDI" and not pool.record("VDI", row["ref"])["managed"]


def is_mark(entry):
    """Whether an entry of a map is one that a job sets and takes back."""
    return entry["field"] == "blocked_operations" or entry["key"].startswith(TAG_KEY)
