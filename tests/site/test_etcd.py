# SPDX-License-Identifier: LGPL-2.1-or-later
"""Backups go on and end complete whatever happens to the etcd cluster behind a site."""

import time
import unittest

from etcd_case import EtcdCase
from scenes import MIB, disk, scene, vm

RATE = 5 * MIB
TTL = 2.0
SCENE = scene(vm("web", disk(40 * MIB, seed=1, data=40 * MIB)),
              vm("db", disk(32 * MIB, seed=2, data=32 * MIB)))


class Servers(EtcdCase):
    """Servers that die, freeze, lose everything."""

    rate = RATE
    scene = SCENE

    def begin(self, *members):
        """A job with data on their way; its id."""
        self.start_members(*(members or ("a", "b")))
        job = self.submit("web", "db")
        self.moving(job, "web", least=4 * MIB)
        return job

    def test_leader_killed(self):
        job = self.begin()
        leader = self.etcd.leader()
        leader.kill()
        self.assertIsNot(self.etcd.leader(), leader)
        document = self.ended(job)
        leader.start()
        self.etcd.wait()
        self.assert_done_well(document, "web", "db")

    def test_leader_killed_and_started_again(self):
        job = self.begin()
        for _ in range(3):
            leader = self.etcd.leader()
            leader.kill()
            time.sleep(1)
            leader.start()
            self.etcd.wait()
        self.assert_done_well(self.ended(job), "web", "db")

    def test_leader_frozen(self):
        job = self.begin()
        leader = self.etcd.leader()
        leader.freeze()
        time.sleep(2 * TTL)
        leader.thaw()
        self.assert_done_well(self.ended(job), "web", "db")

    def test_majority_away_for_long(self):
        """Nothing can be decided; running transfers end, and what they did counts."""
        # Once there is a majority again leases live for so long: members are back before that.
        self.site.config["site"]["lease_ttl_ms"] = 15000
        job = self.begin()
        self.moving(job, "db")
        for member in self.etcd.members[:2]:
            member.kill()
        self.eventually(lambda: len(self.site.points()) == 2, "both restore points")
        self.eventually(lambda: all(member.status()["state"] != "joined"
                                    for member in self.running()), "members to be in doubt")
        for member in self.etcd.members[:2]:
            member.start()
        self.etcd.wait()
        document = self.ended(job)
        self.assert_done_well(document, "web", "db")
        self.assertEqual({self.entry(document, name)["attempt"] for name in ("web", "db")}, {1})

    def test_wait_for_a_job_while_the_store_is_away(self):
        job = self.begin()
        self.limit(MIB)
        waiting = [self.site.start("job", word, job) for word in ("wait", "watch")]
        time.sleep(5)  # they have asked for it
        self.limit(RATE)
        for member in self.etcd.members:
            member.kill()
        time.sleep(2 * TTL)
        for member in self.etcd.members:
            member.start()
        self.etcd.wait()
        self.assertEqual([each.wait().code for each in waiting], [0, 0])
        self.assert_done_well(self.ended(job), "web", "db")

    def test_terminated_while_the_store_is_away(self):
        self.site.config["serve"]["drain_ms"] = 1000
        self.site.write_config()
        job = self.begin()
        for member in self.etcd.members:
            member.kill()
        time.sleep(1)
        members = self.running()
        for member in members:
            member.terminate()
        for member in members:
            self.assertEqual(member.wait(60), 0, member.log())
        for server in self.etcd.members:
            server.start()
        self.etcd.wait()
        for member in members:
            self.restart(member)
        self.assert_done_well(self.ended(job), "web", "db")

    def test_all_lost(self):
        job = self.begin()
        self.wipe()
        self.assert_done_well(self.ended(job), "web", "db")
        self.assertEqual({member.status()["generation"] for member in self.running()}, {2})

    def test_all_lost_with_an_owner(self):
        """Nobody tells the site what the lost owner had done but the repository."""
        job = self.begin("a", "b")
        owner = self.owner(job, "web")
        owner.kill()
        self.wipe()
        self.assert_done_well(self.ended(job), "web", "db")

    def test_reads_of_a_quiet_site(self):
        """What no decision rests on changes all the time; nobody reads the site again for it."""
        self.site.config["site"]["lease_ttl_ms"] = 15000  # renewals read, too
        self.start_members("a", "b")
        coordinator = self.coordinator()
        before = self.etcd.count_reads()
        rounds, began = 40, time.monotonic()
        for number in range(rounds):
            self.assertTrue(self.etcd.put("/xvsa/1/test/p/job/pool/vm", b'{"n": %d}' % number))
            time.sleep(0.15)
        reads, seconds = self.etcd.count_reads() - before, time.monotonic() - began
        # Idle members read about four times a second together.
        self.assertLess(reads, 2 * rounds + 6 * seconds)
        self.assertEqual(coordinator, self.coordinator())

    def test_compaction(self):
        job = self.begin()
        count = 0
        while not self.job(job)["ended_ms"]:
            self.etcd.compact()
            count += 1
            time.sleep(0.2)
        self.assertGreater(count, 1)
        self.assert_done_well(self.ended(job), "web", "db")


if __name__ == "__main__":
    unittest.main()
