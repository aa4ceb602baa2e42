# SPDX-License-Identifier: LGPL-2.1-or-later
"""Members of a site back up and restore a pool together, and take over from each other."""

import contextlib
import os
import shutil
import sqlite3
import tempfile
import time
import unittest

import cluster
import losses
from members import SiteCase
from scenes import LOCAL_B, MIB, disk, scene, vm
from simpool import SimPool

RATE = losses.RATE


class Together(SiteCase):
    """Two members and what they make of jobs when nothing happens to them."""

    scene = scene(vm("web", disk(16 * MIB, seed=1, data=12 * MIB)),
                  vm("db", disk(16 * MIB, seed=2, data=12 * MIB), disk(4 * MIB, seed=3)),
                  vm("far", disk(4 * MIB, seed=4, sr=LOCAL_B)))

    def test_backup(self):
        self.start_members("a", "b")
        document = self.ended(self.submit("web", "db"))
        self.assert_backed_up(document, "web", "db")
        self.assertEqual(document["summary"]["succeeded"], 2)

    def test_second_backup_is_incremental(self):
        self.start_members("a", "b")
        self.ended(self.submit("web"))
        self.pool.write(self.pool.disks("web")[0], 1 * MIB, 64 << 10)
        document = self.ended(self.submit("web"))
        entry = self.entry(document, "web")
        self.assertEqual(entry["disks"][0]["mode"], "incremental")
        self.assert_point(entry["point"], "web")
        self.assert_clean()

    def test_last_point_is_damaged(self):
        self.start_members("a", "b")
        point = self.entry(self.ended(self.submit("web")), "web")["point"]
        path, = [os.path.join(folder, name) for folder, _, names in os.walk(self.site.repo)
                 for name in names if point in name]
        os.truncate(path, os.path.getsize(path) - 1)
        document = self.ended(self.submit("web", "db"))
        codes = [reason["code"] for reason in self.entry(document, "web")["reasons"]]
        self.assertIn("BASE_POINT_DAMAGED", codes)
        self.assert_point(self.entry(document, "web")["point"], "web")

    def test_vm_that_nobody_reaches(self):
        self.start_members("a")
        document = self.ended(self.submit("web", "far"), "partial")
        self.assertEqual(self.entry(document, "far")["state"], "refused")
        codes = [reason["code"] for reason in self.entry(document, "far")["reasons"]]
        self.assertIn("NO_PROXY_REACHES_SR", codes)
        self.assert_point(self.entry(document, "web")["point"], "web")
        self.assert_clean()

    def test_retry_of_what_was_not_done(self):
        self.start_members("a")
        first = self.submit("web", "far")
        self.ended(first, "partial")
        self.start_members("b")
        again = self.run_tool("job", "retry", first).document["job"]
        document = self.ended(again)
        self.assertEqual([entry["name"] for entry in document["vms"]], ["far"])
        self.assertEqual(document["retry_of"], first)
        self.assert_point(self.entry(document, "far")["point"], "far")
        self.run_tool("job", "retry", again, code=1)

    def test_restore(self):
        self.start_members("a", "b")
        point = self.entry(self.ended(self.submit("db")), "db")["point"]
        document = self.ended(self.submit(document={
            "type": "restore", "points": [point], "vm_name": "db again", "mac": "renew"}))
        entry = document["vms"][0]
        self.addCleanup(self.forget, entry["new_uuid"])
        for old, new in zip(self.pool.disks("db"), self.pool.disks(entry["new_uuid"])):
            self.assert_same(self.pool.content(old), self.pool.content(new), "db")
        self.assert_clean(restored=[entry["new_uuid"]])

    def test_verify(self):
        self.start_members("a", "b")
        self.ended(self.submit("web"))
        document = self.ended(self.submit(document={"type": "verify"}))
        self.assertEqual(document["vms"][0]["faults"], [])
        self.assertEqual(document["vms"][0]["verified"]["points"], 1)

    def test_documents_and_pages(self):
        first, second = self.start_members("a", "b")
        site = self.site_document()
        self.assertEqual([member["name"] for member in site["members"]], ["proxy-a", "proxy-b"])
        self.coordinator()
        self.assertEqual(self.site_document()["pools"][0]["coordinator"], "proxy-a")
        self.assertEqual(first.get("/health")[0], 200)
        # A renewal or an answer of the pool may be late at any time.
        self.eventually(lambda: first.get("/ready")[0] == 200, "it to be ready")
        self.assertEqual(first.get("/nothing")[0], 404)
        self.eventually(lambda: second.status()["state"] == "joined", "the other one to be in")
        status, text = first.get("/metrics")
        self.assertEqual(status, 200)
        self.assertIn('xvsa_up{member="proxy-a"', text)
        job = self.submit("web")
        self.ended(job)
        self.assertEqual(self.run_tool("job", "list").document[0]["id"], job)
        self.run_tool("job", "wait", job[:6])
        self.run_tool("job", "wait", "0000", code=1)
        self.run_tool("job", "cancel", job, code=1)

    def test_member_drains(self):
        first, second = self.start_members("a", "b")
        first.terminate()
        self.assertEqual(first.wait(), 0, first.log())
        site = self.site_document()
        self.assertEqual([member["name"] for member in site["members"]], ["proxy-b"])
        self.assertIs(self.coordinator(), second)


class TwoPools(SiteCase):
    """A job of two pools, each with members of its own."""

    scene = scene(vm("web", disk(8 * MIB, seed=1, data=6 * MIB)))

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        machines = scene(vm("mail", disk(8 * MIB, seed=9, data=6 * MIB)))
        machines["name"] = "second"
        for machine in machines["vms"]:
            machine["name"] = machine["name"].replace("proxy-", "proxy-2")
        cls.second = SimPool(os.path.join(cls.class_folder, "second"), machines)
        cls.addClassCleanup(cls.second.stop)

    def deploy(self, name="site", init=None, **options):
        site = super().deploy(name, False, **options)
        proxies = [{"name": one, "vm_uuid": self.second.uuid("VM", one)}
                   for one in ("proxy-2a", "proxy-2b")]
        site.config["pools"].append({**site.config["pools"][0], "name": "second",
                                     "urls": self.second.urls, "proxies": proxies,
                                     "fingerprints": self.second.fingerprints})
        site.write_config()
        return site.init()

    def test_backup_of_both(self):
        self.start_members("a", pool="pool")
        self.start_members("2a", "2b", pool="second")
        job = self.submit("web", "mail", "--pool", "pool", "--pool", "second")
        document = self.ended(job)
        self.assertEqual(len(document["parts"]), 2)
        self.assertEqual({entry["name"] for entry in document["vms"]}, {"web", "mail"})
        self.assert_point(self.entry(document, "web")["point"], "web")
        content = self.second.content(self.second.disks("mail")[0])
        self.assert_same(content, self.site.read_disk(self.entry(document, "mail")["point"]),
                         "mail")
        self.assert_clean()

    def test_cancelled_while_a_pool_has_no_members(self):
        self.start_members("a", pool="pool")
        job = self.submit("web", "mail", "--pool", "pool", "--pool", self.second.ready["pool"])
        self.eventually(lambda: (self.task(job, "web") or {}).get("state") == "succeeded",
                        "the first pool's part")
        self.assertFalse(self.job(job)["ended_ms"])
        self.control(job, "cancel")
        document = self.ended(job, "cancelled", seconds=60)
        self.assertEqual({part["state"] for part in document["parts"]}, {"ended"})
        self.assertEqual(len(document["parts"]), 2)

    def test_vm_that_no_pool_has(self):
        self.start_members("a", pool="pool")
        self.start_members("2a", pool="second")
        job = self.submit("web", "nobody", "--pool", "pool", "--pool", "second")
        document = self.ended(job, "partial")
        self.assertEqual([entry["name"] for entry in document["vms"]], ["web"])


class Control(SiteCase):
    """Jobs that are told what to do while data are moved."""

    rate = 2 * MIB  # nothing is done before it was told
    scene = scene(vm("web", disk(40 * MIB, seed=1, data=40 * MIB)),
                  vm("db", disk(40 * MIB, seed=2, data=40 * MIB)))

    def test_suspend_and_resume(self):
        self.start_members("a", "b")
        began = self.read_so_far()
        job = self.submit("web", "db")
        self.moving(job, "web")
        self.control(job, "suspend")
        self.eventually(lambda: all(entry["state"] in ("waiting", "parked", "succeeded")
                                    for entry in self.job(job)["vms"]), "everything parked")
        self.eventually(self.at_rest, "those who help to stop")
        self.assertLess(self.read_so_far() - began, 80 * MIB)
        self.assertEqual(self.job(job)["state"], "suspended")
        self.limit(RATE)
        self.control(job, "resume")
        self.assert_backed_up(self.ended(job), "web", "db")

    def test_cancel_finishes_what_is_under_way(self):
        self.start_members("a", max_disks=1)
        job = self.submit("web", "db")
        first = self.eventually(lambda: next((entry for entry in self.job(job)["vms"]
                                              if entry["state"] == "running"), None), "a start")
        self.control(job, "cancel")
        self.limit(RATE)
        document = self.ended(job, "cancelled")
        states = {entry["name"]: entry["state"] for entry in document["vms"]}
        self.assertEqual(states.pop(first["name"]), "succeeded")
        self.assertEqual(list(states.values()), ["cancelled"])
        self.assert_clean()

    def test_cancel_now(self):
        self.start_members("a", "b")
        job = self.submit("web", "db")
        self.moving(job, "web")
        self.control(job, "cancel", "--now")
        document = self.ended(job, "cancelled")
        self.assertEqual(document["error"]["code"], "CANCELLED")
        self.assertNotIn("checkpoint: ", self.site.logs(), "who cancelled is not warned")
        self.assertEqual(self.site.points(), [])
        self.assert_clean()

    def test_cancel_while_suspended(self):
        self.start_members("a", "b")
        job = self.submit("web")
        self.moving(job, "web")
        self.control(job, "suspend")
        self.eventually(lambda: self.task(job, "web")["state"] == "parked", "the task parked")
        self.control(job, "cancel")
        self.ended(job, "cancelled")
        self.assert_clean()

    def test_time_limit(self):
        self.start_members("a")
        job = self.submit("web", "db", "--time-limit", "3")
        document = self.ended(job, "failed")
        self.assertEqual(document["error"]["code"], "TIMEOUT")
        self.assert_clean()

    def test_window(self):
        now = time.gmtime()
        window = {"from": "%02d:%02d" % ((now.tm_hour - 2) % 24, now.tm_min),
                  "to": "%02d:%02d" % ((now.tm_hour + 2) % 24, now.tm_min)}
        document = {"type": "backup", "selection": {"vms": [{"name": "web"}]},
                    "limits": {"windows": [window], "rate": 64 * MIB}}
        member, = self.start_members("a", env={"TZ": "FAR+12"})
        job = self.submit(document=document)
        self.eventually(lambda: self.holds(job) == ["OUTSIDE_WINDOW"], "the job to be held")
        self.assertEqual(self.job(job)["state"], "queued")
        self.move(member, "UTC0")
        self.moving(job, "web", least=8 * MIB)
        self.move(member, "FAR+12")
        self.eventually(lambda: self.holds(job) == ["OUTSIDE_WINDOW"], "the end")
        self.eventually(lambda: self.task(job, "web")["state"] == "waiting", "the task to wait")
        self.limit(RATE)
        self.move(member, "UTC0")
        self.assert_backed_up(self.ended(job), "web")

    def holds(self, job):
        """Why nothing is moved of its parts now."""
        return [part.get("hold") for part in self.job(job)["parts"]]

    def move(self, member, zone):
        """To another time zone, where it may be outside the window."""
        member.kill()
        member.env = {"TZ": zone}
        self.restart(member)

    def test_priority(self):
        self.start_members("a", max_disks=1)
        first = self.submit("web")
        self.moving(first, "web")
        low = self.submit("db", "--priority", "-5")
        high = self.submit("web", "--priority", "5")
        self.limit(RATE)
        ended = [self.ended(job)["vms"][0]["started_ms"] for job in (high, low)]
        self.assertLess(*ended)

    def test_draining_member_leaves_its_work(self):
        self.site.config["serve"]["drain_ms"] = 500
        self.site.write_config()
        self.start_members("a", "b")
        job = self.submit("web")
        owner = self.owner(job, "web")
        owner.terminate()
        self.assertEqual(owner.wait(), 0, owner.log())
        self.limit(RATE)
        document = self.ended(job)
        self.assertGreater(self.entry(document, "web")["attempt"], 1)
        self.assert_backed_up(document, "web")


class Losses(losses.LossCase):
    """Losses of members whose store is one file."""

    def wipe(self):
        path = os.path.join(self.site.folder, "site.db")
        with contextlib.closing(sqlite3.connect(path, timeout=30)) as store, store:
            for table in ("kv", "leases", "changes"):
                store.execute("DELETE FROM " + table)
            store.execute("UPDATE state SET revision = 1")


@unittest.skipIf(cluster.why_not(), cluster.why_not())
class EtcdLosses(losses.LossCase):
    """The same, and losses in the store itself, with three members of etcd."""

    @classmethod
    def setUpClass(cls):
        folder = tempfile.mkdtemp(prefix="xvsa-etcd-")
        cls.addClassCleanup(shutil.rmtree, folder, ignore_errors=True)
        cls.cluster = cluster.Cluster(os.path.join(folder, "etcd"))
        cls.addClassCleanup(cls.cluster.close)
        cls.store = cls.cluster.store()
        super().setUpClass()

    def deploy(self, name="site", init=None, **options):
        site = super().deploy(name, init, **options)
        site.config["site"]["name"] = "test%d" % self.count
        site.write_config()
        return site

    def wipe(self):
        self.cluster.wipe()

    def test_leader_of_the_store_killed(self):
        self.start_members("a", "b")
        job = self.submit("web", "db")
        self.moving(job, "web")
        leader = self.cluster.leader()
        leader.kill()
        self.addCleanup(self.cluster.wait)
        self.addCleanup(leader.start)
        self.assert_backed_up(self.ended(job), "web", "db")


if __name__ == "__main__":
    unittest.main()
