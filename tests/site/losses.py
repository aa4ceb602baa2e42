# SPDX-License-Identifier: LGPL-2.1-or-later
"""What happens to members while they move data, whatever the coordination store is."""

import time

from members import TTL_MS, SiteCase
from scenes import MIB, disk, scene, vm

RATE = 6 * MIB
SLOW = MIB
# What two slow links give while a checkpoint is made, on a slow machine too, and what is on its way.
UNACKNOWLEDGED = 3 * 2 * SLOW + 16 * MIB


class LossCase(SiteCase):
    """Members that die or freeze while data are moved."""

    rate = RATE
    scene = scene(vm("web", disk(48 * MIB, seed=1, data=48 * MIB)),
                  vm("db", disk(32 * MIB, seed=2, data=32 * MIB)))

    def test_owner_killed(self):
        self.start_members("a", "b")
        began = self.read_so_far()
        job = self.submit("web")
        self.moving(job, "web", least=8 * MIB)
        self.limit(SLOW)
        owner = self.owner(job, "web", least=28 * MIB)
        owner.kill()
        read = self.read_so_far() - began
        self.limit(RATE)
        document = self.ended(job)
        entry = self.entry(document, "web")
        self.assertGreater(entry["attempt"], 1)
        self.assertNotEqual(entry["owner"], "proxy-" + owner.name)
        # Nothing that a checkpoint acknowledged was read again; all again would be noticed.
        self.assertGreater(read, UNACKNOWLEDGED)
        self.assertLessEqual(self.read_so_far() - began, 48 * MIB + UNACKNOWLEDGED)
        self.assert_backed_up(document, "web")

    def test_helper_killed(self):
        self.site.config["site"]["lease_ttl_ms"] = 6000  # the owner is not to lose its lease
        first, second = self.start_members("a", "b")
        job = self.submit("web")
        owner = self.owner(job, "web", least=8 * MIB)
        helper = second if owner is first else first
        self.limit(SLOW)  # it is not done before there was help
        self.eventually(lambda: helper.status()["units"] > 0, "help")
        helper.kill()
        self.limit(RATE)
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
        self.limit(SLOW)  # it is not done before it is frozen
        owner.stop()
        self.limit(RATE)
        other = second if owner is first else first
        self.eventually(lambda: self.task(job, "web")["owner"] == "proxy-" + other.name,
                        "the other one to take over")
        time.sleep(2 * TTL_MS / 1000)
        owner.cont()
        document = self.ended(job)
        self.assert_backed_up(document, "web")
        self.eventually(lambda: "lost v/" in owner.log() or "fenced: job " + job in owner.log(),
                        "the zombie to notice, by the store or by the journal")
        self.eventually(lambda: owner.status()["state"] == "joined", "it to join again")

    def test_restore_with_owner_killed(self):
        self.start_members("a", "b")
        self.limit(0)
        point = self.entry(self.ended(self.submit("web")), "web")["point"]
        held = self.pool.fault("transfer", count=0, delay=0.2)  # a piece, 32 a MiB
        job = self.submit(document={"type": "restore", "points": [point], "vm_name": "again",
                                    "mac": "renew"})
        entry = self.eventually(lambda: next((vm for vm in self.job(job)["vms"]
                                              if vm["state"] == "running"), None), "the restore")
        self.member_of(entry["owner"]).kill()
        self.pool.sim("fault/remove", id=held)
        document = self.ended(job)
        new = document["vms"][0]["new_uuid"]
        self.addCleanup(self.forget, new)
        for old, copy in zip(self.pool.disks("web"), self.pool.disks(new)):
            self.assert_same(self.pool.content(old), self.pool.content(copy), "web")
        self.assert_clean(restored=[new])

    def test_restore_cancelled_after_its_owner_was_killed(self):
        self.start_members("a", "b")
        self.limit(0)
        point = self.entry(self.ended(self.submit("web")), "web")["point"]
        self.pool.fault("transfer", count=0, delay=0.2)  # it does not end by itself
        job = self.submit(document={"type": "restore", "points": [point], "vm_name": "again",
                                    "mac": "renew"})
        entry = self.eventually(lambda: next((vm for vm in self.job(job)["vms"]
                                              if vm["state"] == "running"), None), "the restore")
        owner = self.member_of(entry["owner"])
        self.eventually(lambda: self.run_tool("repo", "info").document["sessions"], "the pin")
        owner.kill()
        self.control(job, "cancel", "--now")
        self.ended(job, "cancelled")
        self.assertEqual(self.run_tool("repo", "info").document["sessions"], [])
        self.assert_clean()

    def test_store_lost(self):
        self.start_members("a", "b")
        job = self.submit("web", "db")
        self.moving(job, "web", least=8 * MIB)
        self.wipe()
        document = self.ended(job)
        self.assert_backed_up(document, "web", "db")

    def wipe(self):
        """Everything in the store is gone, as a new one would be."""
        raise NotImplementedError
