# SPDX-License-Identifier: LGPL-2.1-or-later
"""Deployments with several proxies, each proxy a process, any one and any two of which are lost while
they back up and while they restore; the tests are in test_deployment_*.py.

XVSA_LOSSES chooses: "each" (default) loses every single proxy, both of host 5, and a few pairs;
"all" loses every pair, too; or names such as "proxy-1+proxy-4,proxy-7" choose themselves.
"""

import hashlib
import itertools
import json
import os
import random
import shutil
import tempfile
import time
import unittest

from members import CHECKPOINT_MS, JOB_SECONDS, SiteDeployment, TTL_MS
from estate import Estate, guests_of, proxies_of
from harness import OK, leftovers

MIB = 1 << 20
RATE = 12 * MIB  # bytes a second of each host's link
SEED = int(os.environ.get("XVSA_SEED", "1"))
CHOICE = os.environ.get("XVSA_LOSSES", "each")
# What a member may have read since its last checkpoint: the links' rate over the interval and over the
# time that a checkpoint takes itself, and what is on its way through its memory.
UNACKNOWLEDGED = int(RATE * (CHECKPOINT_MS / 1000.0 + 1.0)) + 8 * MIB


class DeploymentSite(SiteDeployment):
    """One configuration for all pools; each member serves the pool of its VM."""

    def __init__(self, folder, estate):
        self.estate = estate
        names = list(estate.pools)
        super().__init__(folder, estate.pools[names[0]], name=names[0],
                         proxies=proxies_of(estate.scenes[names[0]]))
        for name in names[1:]:
            self.add_pool(name, estate.pools[name], proxies_of(estate.scenes[name]))

    def member(self, name, **options):
        pool = next(pool for pool, scene in self.estate.scenes.items()
                    if "proxy-" + name in proxies_of(scene))
        return super().member(name, pool=pool, **options)


class LossCase(unittest.TestCase):
    """What every deployment must stand. `number` is the deployment's."""

    number = 0
    spoilt = False  # a set failed in this estate
    needed = None  # bytes that are read when nobody is lost
    maxDiff = 4000

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="xvsa-losses-")
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        cls.open_estate()
        cls.addClassCleanup(lambda: cls.estate.stop())
        cls.proxies = [p for scene in cls.estate.scenes.values() for p in proxies_of(scene)]
        cls.guests = {name: guests_of(scene) for name, scene in cls.estate.scenes.items()}
        cls.count = 0

    @classmethod
    def open_estate(cls):
        cls.estate = Estate(tempfile.mkdtemp(prefix="estate", dir=cls.folder), cls.number, scale=2)
        for pool in cls.estate.pools.values():
            for host in pool.ready["hosts"]:
                pool.nbd(host["name"], rate=RATE)

    # ---- what is asked of the site ----

    def make_site(self):
        type(self).count += 1
        folder = os.path.join(self.folder, "site%d" % self.count)
        self.site = DeploymentSite(folder, self.estate)
        self.site.init()
        self.members = {}
        for proxy in self.proxies:
            self.members[proxy] = self.site.member(proxy.replace("proxy-", "", 1)).start()
        for member in self.members.values():
            member.await_serving()
        self.before = {name: {row["ref"] for row in
                              pool.sim("made", leftovers=True)["objects"]}
                       for name, pool in self.estate.pools.items()}

    def close_site(self):
        self.site.close()
        shutil.rmtree(self.site.folder, ignore_errors=True)

    def ask(self, *words, code=OK):
        result = self.site.run(*words)
        self.assertEqual(result.code, code, "%s\n%s" % (result, self.site.logs()))
        return result.document

    def submit(self, document):
        path = os.path.join(self.site.folder, "job.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(document, file)
        return self.ask("job", "submit", "--document", path)["job"]

    def await_end(self, job):
        deadline = time.monotonic() + JOB_SECONDS
        while True:
            document = self.ask("job", "show", job)
            if document["ended_ms"]:
                return document
            if time.monotonic() > deadline:
                self.fail("job %s does not end\n%s\n%s" % (
                    job, json.dumps(document)[-6000:], self.site.logs()))
            time.sleep(0.1)

    def sent(self):
        """Bytes that all hosts sent of disks."""
        return sum(pool.nbd(host["name"])["bytes"] for pool in self.estate.pools.values()
                   for host in pool.ready["hosts"])

    def lose(self, lost):
        for proxy in lost:
            self.members[proxy].kill()

    def leaves_nobody(self, lost):
        """Whether some pool has no proxy left: it waits until they come back."""
        return any(set(proxies_of(scene)) <= set(lost) for scene in self.estate.scenes.values())

    def revive(self, lost):
        for proxy in lost:
            self.members[proxy].start()
        for proxy in lost:
            self.members[proxy].await_serving()

    # ---- what is known before ----

    def advice(self):
        """By VM's name: for each disk the proxies that reach it, as the deployment's advice says."""
        document = self.ask("plan", "--deployment")
        found = {}
        for pool in document["pools"]:
            for vm in pool["vms"]:
                found[vm["name"]] = [{p for route in disk["routes"] if route["tier"] != "network"
                                      for p in route["proxies"]}
                                     for disk in vm["disks"] if not disk["skipped"]]
        return document, found

    @staticmethod
    def survives(disks, lost):
        """Whether the proxies that are left reach every disk."""
        return all(reach - set(lost) for reach in disks)

    def check_advice(self, document, reach, lost):
        """Before any data moved, the loss of a single proxy was said to cost what it costs."""
        told = {loss["proxy"]: {vm["name"] for vm in loss["vms"]}
                for pool in document["pools"] for loss in pool["losses"]["proxies"]}
        for proxy in lost:
            expected = {vm for vm, disks in reach.items()
                        if self.survives(disks, ()) and not self.survives(disks, (proxy,))}
            self.assertEqual(told.get(proxy, set()), expected, proxy)

    # ---- what must be so afterwards ----

    def check_backup(self, document, reach, lost):
        points = {}
        for vm in document["vms"]:
            name = vm["name"]
            if self.survives(reach[name], lost):
                self.assertEqual(vm["state"], "succeeded", "%s: %s\n%s" % (
                    name, json.dumps(vm, indent=1)[-3000:], self.site.logs()))
            elif vm["state"] != "succeeded":  # it may have been done before the loss
                self.assertIn("NO_PROXY_REACHES_SR", json.dumps(vm), name)
            if vm["state"] == "succeeded":
                points[name] = vm["point"]
                self.check_movers(vm, reach[name])
        listed = sorted((p["vm"]["name"], p["id"]) for p in self.site.points())
        self.assertEqual(listed, sorted(points.items()), "restore points")
        self.assertEqual({vm["name"] for vm in document["vms"]},
                         {name for names in self.guests.values() for name in names})
        return points

    def check_movers(self, vm, reach):
        """Whoever moved a disk reaches its SR, or the report says that it was otherwise."""
        for disk, near in zip(vm["disks"], reach):
            if {mover["proxy"] for mover in disk["movers"]} - near:
                self.assertIn("READ_OVER_NETWORK", [r["code"] for r in disk["reasons"]],
                              "%s: %s" % (vm["name"], disk))

    def check_points(self, points):
        for pool_name, pool in self.estate.pools.items():
            for name in set(points) & set(self.guests[pool_name]):
                for device, vdi in pool.devices(name):
                    self.assertEqual(hashlib.sha256(pool.content(vdi)).digest(),
                                     hashlib.sha256(self.site.read_disk(points[name],
                                                                        device)).digest(),
                                     "disk %d of %s" % (device, name))
        self.ask("repo", "verify")

    def check_clean(self, restored):
        for name, pool in self.estate.pools.items():
            deadline = time.monotonic() + 60
            while True:
                left = leftovers(pool, restored.get(name, ()), [self.site], self.before[name])
                if not left or time.monotonic() > deadline:
                    break
                time.sleep(0.2)
            self.assertEqual(left, [], "left in %s\n%s" % (name, self.site.logs()))

    def check_economy(self, read, lost):
        """Nothing that was acknowledged before the loss was read again."""
        if not lost:
            type(self).needed = read
        elif self.needed is not None:
            self.assertLessEqual(read, self.needed + len(lost) * UNACKNOWLEDGED,
                                 "bytes read; %d without a loss" % self.needed)

    # ---- the runs ----

    def back_up(self, lost, rng, total):
        document, reach = self.advice()
        self.check_advice(document, reach, lost)
        began = self.sent()
        job = self.submit({"type": "backup", "name": "losses", "pools": list(self.estate.pools),
                           "selection": {"vms": [{"tag": "backup"}]}})
        moment = rng.uniform(0.02, 0.9) * total
        deadline = time.monotonic() + JOB_SECONDS
        while lost and self.sent() - began < moment and time.monotonic() < deadline:
            time.sleep(0.02)
        self.lose(lost)
        if self.leaves_nobody(lost):
            time.sleep(2 * TTL_MS / 1000)
            self.revive(lost)
        ended = self.await_end(job)
        self.check_economy(self.sent() - began, lost)
        lost = () if self.leaves_nobody(lost) else lost
        points = self.check_backup(ended, reach, lost)
        self.check_points(points)
        self.check_clean({})
        return points, reach

    def restore(self, lost, rng, points, reach):
        for pool_name, pool in self.estate.pools.items():
            mine = {name: points[name] for name in self.guests[pool_name] if name in points}
            gone = [proxy for proxy in lost if proxy in proxies_of(self.estate.scenes[pool_name])]
            if not gone or not mine:
                continue
            job = self.submit({"type": "restore", "pool": pool_name, "vm_name": "{name} again",
                               "points": list(mine.values()), "mac": "renew"})
            time.sleep(rng.uniform(0.2, 2.0))
            self.lose(gone)
            if self.leaves_nobody(gone):
                time.sleep(2 * TTL_MS / 1000)
                self.revive(gone)
            document = self.await_end(job)
            new = {}
            for vm in document["vms"]:
                name = vm["name"].replace(" again", "")
                if self.leaves_nobody(gone) or self.survives(reach[name], gone):
                    self.assertEqual(vm["state"], "succeeded", "%s\n%s" % (
                        json.dumps(vm, indent=1)[-3000:], self.site.logs()))
                if vm["state"] == "succeeded":
                    new[name] = vm["new_uuid"]
            for name, uuid in new.items():
                for old, copy in zip(pool.disks(name), pool.disks(uuid)):
                    self.assertEqual(hashlib.sha256(pool.content(old)).digest(),
                                     hashlib.sha256(pool.content(copy)).digest(), name)
            self.check_clean({pool_name: list(new.values())})
            for uuid in new.values():
                self.forget(pool, uuid)
            if not self.leaves_nobody(gone):
                self.revive(gone)

    @staticmethod
    def forget(pool, uuid):
        record, disks = pool.record("VM", uuid), pool.disks(uuid)
        for cls, refs in (("VBD", record["VBDs"]), ("VIF", record["VIFs"]), ("VDI", disks)):
            for ref in refs:
                pool.sim("record/delete", cls=cls, name=ref)
        pool.sim("record/delete", cls="VM", name=uuid)

    def lose_and_go_on(self, lost):
        rng = random.Random("%d %s" % (SEED, "+".join(lost)))
        self.make_site()
        try:
            total = sum(disk["generate"]["bytes"] for scene in self.estate.scenes.values()
                        for vm in scene["vms"] for disk in vm["disks"] if "generate" in disk)
            points, reach = self.back_up(lost, rng, total)
            if not self.leaves_nobody(lost):
                self.revive(lost)
            self.restore(lost, rng, points, reach)
        except BaseException:
            self.spoilt = True  # what it left in the pools is nothing to the sets after it
            raise
        finally:
            self.close_site()

    def sets(self):
        """Which proxies are lost together, one set after the other."""
        singles = [()] + [(proxy,) for proxy in self.proxies]
        pairs = list(itertools.combinations(self.proxies, 2))
        if CHOICE == "all":
            return singles + pairs
        if CHOICE != "each":
            return [()] + [tuple(names.split("+")) for names in CHOICE.split(",")
                    if set(names.split("+")) <= set(self.proxies)]
        few = random.Random(SEED).sample(pairs, min(3, len(pairs)))
        host_5 = [pair for pair in pairs if pair == ("proxy-5a", "proxy-5b")]
        return singles + host_5 + [pair for pair in few if pair not in host_5]

    def test_losses(self):
        for lost in self.sets():
            with self.subTest(lost="+".join(lost) or "nobody"):
                if self.spoilt:
                    self.estate.stop()
                    self.open_estate()
                    self.spoilt = False
                self.lose_and_go_on(lost)
