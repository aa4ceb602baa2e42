# SPDX-License-Identifier: LGPL-2.1-or-later
"""A pool's coordinator dies or freezes in the middle of a job, and while it owns tasks itself.

XVSA_FREEZE_SECONDS says how long it is frozen (60).
"""

import os
import time
import unittest

from etcd_case import EtcdCase
from scenes import HOSTS, MIB, disk, proxy, scene, vm

RATE = 4 * MIB
FREEZE_SECONDS = float(os.environ.get("XVSA_FREEZE_SECONDS", "60"))
SIZES = {"web": 40, "db": 32, "app": 24}
VMS = tuple(SIZES)


class Coordinator(EtcdCase):
    """Three members; the first is the coordinator."""

    rate = RATE
    scene = scene(*(vm(name, disk(size * MIB, seed=size, data=size * MIB))
                    for name, size in SIZES.items()), proxy("proxy-c", HOSTS[0]))

    def begin(self):
        """A job under way; its id and the coordinator."""
        self.start_members("a", "b", "c")
        job = self.submit(*VMS)
        self.moving(job, "web", least=2 * MIB)
        return job, self.coordinator()

    def own_task(self, member, share):
        """A task that a member owns and has done a share of; its entry in the member's status."""
        def look():
            for task in member.status()["tasks"]:
                if task["bytes_total"] and task["bytes_done"] >= share * task["bytes_total"]:
                    return task
            return None
        return self.eventually(look, "member %s to have done %d %%" % (member.name, share * 100))

    def is_taken_over(self, job, task):
        """Whether a task is another attempt's by now."""
        entry = self.task(job, task["subject"])
        return entry["attempt"] > task["attempt"] and entry["owner"]

    def test_killed(self):
        job, coordinator = self.begin()
        coordinator.kill()
        document = self.ended(job)
        self.assertIsNot(self.coordinator(), coordinator)
        self.assert_done_well(document, *VMS)

    def test_killed_one_after_the_other(self):
        job, coordinator = self.begin()
        for _ in range(2):
            coordinator.kill()
            successor = self.coordinator()
            self.assertIsNot(successor, coordinator)
            self.restart(coordinator)
            coordinator = successor
        self.assert_done_well(self.ended(job), *VMS)

    def freeze_and_go_on(self, job, coordinator, task):
        """Freezes it, waits until others took the task over, lets it go on; the job's document."""
        coordinator.stop()
        began = time.monotonic()
        self.eventually(lambda: self.is_taken_over(job, task), "another one to take over")
        self.limit(self.rate)
        ended = None
        while time.monotonic() - began < FREEZE_SECONDS:
            time.sleep(0.5)
            if ended is None and self.job(job)["ended_ms"]:
                ended = self.ended(job)
        points = self.site.points()
        coordinator.cont()
        document = self.ended(job)
        self.eventually(lambda: coordinator.status()["state"] == "joined", "it to join again")
        if ended is not None:
            self.eventually(lambda: "lost v/" in coordinator.log() or
                            "fenced: job " + job in coordinator.log(), "the zombie to notice")
            self.assertEqual(self.site.points(), points)
        return document

    def assert_refused(self, job, task, zombie):
        """The journal refused what the zombie's attempt still wanted to write, and it says so; it also
        knows that its term is over."""
        said = "fenced: job %s, VM %s, attempt %d, token %d" % (
            job, task["subject"], task["attempt"], task["token"])
        self.eventually(lambda: said in zombie.log(), "it to say: " + said)
        term = "any more (term %d)" % self.terms()[zombie.name][0]
        self.eventually(lambda: term in zombie.log(), "it to say: " + term)

    def assert_useful(self, member):
        """A member does the whole of a job that is submitted now."""
        for other in self.running():
            if other is not member:
                other.terminate()
                self.assertEqual(other.wait(), 0, other.log())
        self.limit(0)
        document = self.ended(self.submit("app"))
        self.assertEqual(self.entry(document, "app")["owner"], "proxy-" + member.name)

    def test_frozen(self):
        job, coordinator = self.begin()
        task = self.own_task(coordinator, 0.2)
        document = self.freeze_and_go_on(job, coordinator, task)
        self.assert_done_well(document, *VMS)
        self.assert_refused(job, task, coordinator)
        self.assert_useful(coordinator)

    def test_frozen_shortly_before_its_commit(self):
        job, coordinator = self.begin()
        self.own_task(coordinator, 0.4)
        self.limit(MIB)  # so that there is time to see how far it is
        task = self.own_task(coordinator, 0.8)
        document = self.freeze_and_go_on(job, coordinator, task)
        self.assert_done_well(document, *VMS)
        self.assert_refused(job, task, coordinator)
        self.assert_useful(coordinator)


if __name__ == "__main__":
    unittest.main()
