# SPDX-License-Identifier: LGPL-2.1-or-later
"""A network that is cut: servers of etcd, members, and both on the same side."""

import time
import unittest

from etcd_case import NetworkCase
from scenes import HOSTS, MIB, disk, proxy, scene, vm

RATE = 5 * MIB
SCENE = scene(vm("web", disk(40 * MIB, seed=1, data=40 * MIB)),
              vm("db", disk(32 * MIB, seed=2, data=32 * MIB)),
              proxy("proxy-c", HOSTS[0]))


class Minority(NetworkCase):
    """One server of etcd is cut off."""

    rate = RATE
    scene = SCENE

    def test_leader_cut_off(self):
        nodes = {name: self.node(name) for name in ("a", "b")}
        self.start_members("a", "b", nodes=nodes)
        job = self.submit("web", "db")
        self.moving(job, "web", least=4 * MIB)
        leader = self.etcd.leader()
        self.net.cut(leader.node)
        self.assertIsNot(self.etcd.leader(), leader)
        document = self.ended(job)
        self.net.join(leader.node)
        self.etcd.wait()
        self.assert_done_well(document, "web", "db")

    def test_member_on_the_side_of_the_minority(self):
        """It reaches that server and its repository, neither the pool nor the majority."""
        leader = self.etcd.leader()
        lonely, = self.start_members("a", nodes={"a": leader.node})
        job = self.submit("web", "db")
        self.moving(job, "web", least=4 * MIB)
        self.limit(MIB // 2)  # it is not done before the others are there
        self.start_members("b", "c", nodes={name: self.node(name) for name in ("b", "c")})
        self.cut(lonely)
        self.eventually(lambda: self.task(job, "web")["owner"] not in ("proxy-a", "", None),
                        "another one to take over")
        self.limit(self.rate)
        document = self.ended(job)
        self.assertNotEqual(lonely.status()["state"], "joined")
        self.join(lonely)
        self.etcd.wait()
        self.eventually(lambda: lonely.status()["state"] == "joined", "it to join again")
        self.assert_done_well(document, "web", "db")


class Coordinator(NetworkCase):
    """The coordinator, which owns a task, is cut off from pool and store."""

    rate = RATE
    scene = SCENE

    def test_cut_off_and_joined(self):
        members = self.start_members("a", "b", "c",
                                     nodes={name: self.node(name) for name in ("a", "b", "c")})
        job = self.submit("web", "db")
        coordinator = self.coordinator()
        self.assertIs(coordinator, members[0])
        task = self.eventually(lambda: next(
            (task for task in coordinator.status()["tasks"] if task["bytes_done"] > 8 * MIB), None),
            "a task of the coordinator")
        self.cut(coordinator)
        self.eventually(lambda: self.task(job, task["subject"])["owner"]
                        not in ("proxy-a", "", None), "another one to take over")
        time.sleep(1)
        document = self.ended(job)
        self.join(coordinator)
        self.eventually(lambda: coordinator.status()["state"] == "joined", "it to join again")
        self.eventually(lambda: "fenced: job " + job in coordinator.log(), "it to say so")
        self.assert_done_well(document, "web", "db")
        # It is of use again.
        for member in members[1:]:
            member.terminate()
        for member in members[1:]:
            self.assertEqual(member.wait(), 0)
        self.ended(self.submit("web"))


if __name__ == "__main__":
    unittest.main()
