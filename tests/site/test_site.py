# SPDX-License-Identifier: LGPL-2.1-or-later
"""Members of a site back up and restore a pool together, and take over from each other."""

import os
import sqlite3
import time
import unittest

from members import TTL_MS, SiteCase
from scenes import LOCAL_B, MIB, disk, scene, vm

RATE = 6 * MIB


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
        self.assertEqual(first.get("/ready")[0], 200)
        self.assertEqual(first.get("/nothing")[0], 404)
        self.assertEqual(second.status()["state"], "joined")
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


class Control(SiteCase):
    """Jobs that are told what to do while data are moved."""

    rate = RATE
    scene = scene(vm("web", disk(40 * MIB, seed=1, data=40 * MIB)),
                  vm("db", disk(40 * MIB, seed=2, data=40 * MIB)))

    def test_suspend_and_resume(self):
        self.start_members("a", "b")
        job = self.submit("web", "db")
        self.moving(job, "web")
        self.control(job, "suspend")
        self.eventually(lambda: all(entry["state"] in ("waiting", "parked", "succeeded")
                                    for entry in self.job(job)["vms"]), "everything parked")
        before = self.read_so_far()
        time.sleep(1)
        self.assertEqual(self.read_so_far(), before)
        self.assertEqual(self.job(job)["state"], "suspended")
        self.control(job, "resume")
        self.assert_backed_up(self.ended(job), "web", "db")

    def test_cancel_finishes_what_is_under_way(self):
        self.start_members("a", max_disks=1)
        job = self.submit("web", "db")
        first = self.eventually(lambda: next((entry for entry in self.job(job)["vms"]
                                              if entry["state"] == "running"), None), "a start")
        self.control(job, "cancel")
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

    def test_priority(self):
        self.start_members("a", max_disks=1)
        first = self.submit("web")
        self.moving(first, "web")
        low = self.submit("db", "--priority", "-5")
        high = self.submit("web", "--priority", "5")
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
        document = self.ended(job)
        self.assertGreater(self.entry(document, "web")["attempt"], 1)
        self.assert_backed_up(document, "web")


class Losses(SiteCase):
    """Members that die or freeze while data are moved."""

    rate = RATE
    scene = scene(vm("web", disk(48 * MIB, seed=1, data=48 * MIB)),
                  vm("db", disk(32 * MIB, seed=2, data=32 * MIB)))

    def assert_economic(self, began, total, losses):
        """Nothing that a checkpoint acknowledged was read again."""
        interval = 2 * RATE * 0.3 * 4 + 8 * 2 * MIB
        self.assertLessEqual(self.read_so_far() - began, total + losses * interval + 4 * MIB)

    def test_owner_killed(self):
        self.start_members("a", "b")
        began = self.read_so_far()
        job = self.submit("web")
        owner = self.owner(job, "web", least=12 * MIB)
        owner.kill()
        document = self.ended(job)
        entry = self.entry(document, "web")
        self.assertGreater(entry["attempt"], 1)
        self.assertNotEqual(entry["owner"], "proxy-" + owner.name)
        self.assert_backed_up(document, "web")
        self.assert_economic(began, 48 * MIB, 1)

    def test_helper_killed(self):
        first, second = self.start_members("a", "b")
        job = self.submit("web")
        owner = self.owner(job, "web", least=8 * MIB)
        helper = second if owner is first else first
        self.eventually(lambda: helper.status()["units"] > 0, "help")
        helper.kill()
        document = self.ended(job)
        self.assertEqual(self.entry(document, "web")["attempt"], 1)
        self.assert_backed_up(document, "web")

    def test_coordinator_killed(self):
        self.start_members("a", "b")
        job = self.submit("web", "db")
        self.moving(job, "web")
        coordinator = self.coordinator()
        coordinator.kill()
        document = self.ended(job)
        self.assert_backed_up(document, "web", "db")
        self.assertIsNot(self.coordinator(), coordinator)

    def test_member_comes_back(self):
        self.start_members("a", "b")
        job = self.submit("web", "db")
        owner = self.owner(job, "web")
        owner.kill()
        self.restart(owner)
        self.assert_backed_up(self.ended(job), "web", "db")

    def test_alone_killed_and_started_again(self):
        member, = self.start_members("a")
        job = self.submit("web")
        self.moving(job, "web", least=8 * MIB)
        member.kill()
        self.restart(member)
        self.assert_backed_up(self.ended(job), "web")

    def test_frozen_owner_is_fenced(self):
        first, second = self.start_members("a", "b")
        job = self.submit("web")
        owner = self.owner(job, "web", least=8 * MIB)
        self.freeze(owner)
        other = second if owner is first else first
        self.eventually(lambda: self.task(job, "web")["owner"] == "proxy-" + other.name,
                        "the other one to take over")
        time.sleep(2 * TTL_MS / 1000)
        owner.cont()
        document = self.ended(job)
        self.assert_backed_up(document, "web")
        self.eventually(lambda: "lost v/" in owner.log(), "the zombie to notice")
        self.eventually(lambda: owner.status()["state"] == "joined", "it to join again")

    def test_restore_with_owner_killed(self):
        self.start_members("a", "b")
        self.limit(0)
        point = self.entry(self.ended(self.submit("web")), "web")["point"]
        job = self.submit(document={"type": "restore", "points": [point], "vm_name": "again",
                                    "mac": "renew"})
        entry = self.eventually(lambda: next((vm for vm in self.job(job)["vms"]
                                              if vm["state"] == "running"), None), "the restore")
        self.member_of(entry["owner"]).kill()
        document = self.ended(job)
        new = document["vms"][0]["new_uuid"]
        self.addCleanup(self.forget, new)
        for old, copy in zip(self.pool.disks("web"), self.pool.disks(new)):
            self.assert_same(self.pool.content(old), self.pool.content(copy), "web")
        self.assert_clean(restored=[new])

    def test_store_lost(self):
        self.start_members("a", "b")
        job = self.submit("web", "db")
        self.moving(job, "web", least=8 * MIB)
        self.wipe()
        document = self.ended(job)
        self.assert_backed_up(document, "web", "db")

    def wipe(self):
        """Everything in the store is gone, as a new one would be."""
        path = os.path.join(self.site.folder, "site.db")
        with sqlite3.connect(path, timeout=30) as store:
            for table in ("kv", "leases", "changes"):
                store.execute("DELETE FROM " + table)
            store.execute("UPDATE state SET revision = 1")


if __name__ == "__main__":
    unittest.main()
