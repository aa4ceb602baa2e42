# SPDX-License-Identifier: LGPL-2.1-or-later
"""Limits of jobs: what members of a site do at once, how fast, and when."""

import contextlib
import os
import sqlite3
import time
import unittest

from members import SiteCase
from scenes import HOSTS, MIB, disk, scene, vm

DATA = 24 * MIB
# What a bucket may let through at once: a piece for each disk and member, and what was saved up.
SLACK = 8 * MIB


def neighbours(made):
    """The scenario with both proxies on the first host."""
    for machine in made["vms"]:
        machine["host"] = HOSTS[0]
    return made


class LimitCase(SiteCase):
    """Jobs with limits."""

    def submit_with(self, limits, *names):
        """Submits a backup of VMs with limits; its id."""
        return self.submit(document={
            "type": "backup", "selection": {"vms": [{"name": name} for name in names]},
            "limits": limits})

    def part(self, job):
        """The pool's part of a job, once there is one."""
        return next(iter(self.job(job)["parts"]), {})

    def keys(self, prefix):
        """Keys of the store below a prefix."""
        path = os.path.join(self.site.folder, "site.db")
        with contextlib.closing(sqlite3.connect(path, timeout=30)) as store:
            rows = store.execute("SELECT key FROM kv WHERE key LIKE ?",
                                 ("/xvsa/1/test/" + prefix + "%",))
            return [row[0] for row in rows]


class Rates(LimitCase):
    """How fast."""

    scene = scene(vm("web", disk(DATA, seed=1, data=DATA)), vm("db", disk(DATA, seed=2, data=DATA)))

    def assert_no_faster(self, began, rate, read):
        """Data moved in no less time than the rate asks for."""
        least = (read - SLACK) / rate
        self.assertGreaterEqual(time.monotonic() - began, least)

    def test_members_share_a_rate(self):
        rate = 8 * MIB
        self.start_members("a", "b")
        before, began = self.read_so_far(), time.monotonic()
        job = self.submit_with({"rate": rate}, "web", "db")
        self.moving(job, "web")
        self.eventually(lambda: self.part(job).get("rate") == rate, "the rate to be told")
        self.eventually(lambda: len(self.keys("rt/%s/" % job)) == 2, "both to share the rate")
        document = self.ended(job)
        self.assert_no_faster(began, rate, self.read_so_far() - before)
        self.assert_backed_up(document, "web", "db")
        self.eventually(lambda: not self.keys("rt/"), "the rate to be given up")

    def test_restore_keeps_to_a_rate(self):
        rate = 6 * MIB
        self.start_members("a")
        point = self.entry(self.ended(self.submit("web")), "web")["point"]
        began = time.monotonic()
        document = self.ended(self.submit(document={
            "type": "restore", "points": [point], "vm_name": "web again", "mac": "renew",
            "limits": {"rate": rate, "sr_transfers": 1}}))
        self.assert_no_faster(began, rate, DATA)
        entry = document["vms"][0]
        self.addCleanup(self.forget, entry["new_uuid"])
        self.assert_same(self.pool.content(self.pool.disks("web")[0]),
                         self.pool.content(self.pool.disks(entry["new_uuid"])[0]), "web")
        self.eventually(lambda: not self.keys("t/"), "the turns to be given back")

    def test_window_that_ends_and_opens_again(self):
        """Takes up to three minutes: windows begin and end with minutes."""
        end = int(time.time()) // 60 * 60 + 60
        if end - time.time() < 40:  # members start in it and move some data
            end += 60
        left = end - time.time()

        def at(instant):
            return time.strftime("%H:%M", time.gmtime(instant))
        windows = [{"from": at(end - 7200), "to": at(end)},
                   {"from": at(end + 60), "to": at(end + 7200)}]
        slow = {"from": at(end - 7200), "to": at(end), "rate": int(DATA / left / 2)}
        self.start_members("a", "b", env={"TZ": "UTC0"})
        began = self.read_so_far()
        job = self.submit_with({"windows": windows, "rates": [slow], "sr_transfers": 1},
                               "web", "db")
        self.eventually(lambda: self.read_so_far() - began > 2 * MIB, "data to be moved")
        self.eventually(lambda: self.part(job).get("hold"), "the end of the window", 180)
        part = self.part(job)
        self.assertEqual(part["hold"], "OUTSIDE_WINDOW")
        self.assertEqual(part["hold_until_ms"], (end + 60) * 1000)
        self.assertEqual([reason["code"] for reason in part["reasons"]], ["OUTSIDE_WINDOW"])
        self.eventually(lambda: all(entry["state"] in ("waiting", "parked", "succeeded")
                                    for entry in self.job(job)["vms"]), "everything parked")
        self.eventually(lambda: not self.keys("t/"), "the turn to be given back")
        self.eventually(self.at_rest, "reading to end", 15)
        self.assertLess(time.time(), end + 60)
        document = self.ended(job)
        self.assertGreaterEqual(time.time(), end + 60)
        self.assert_backed_up(document, "web", "db")


class AtOnce(LimitCase):
    """How much."""

    rate = 8 * MIB
    scene = neighbours(scene(vm("web", *(disk(8 * MIB, seed=i, data=8 * MIB) for i in range(3))),
                             vm("db", disk(8 * MIB, seed=9, data=8 * MIB))))

    def test_transfers_of_an_sr(self):
        self.start_members("a", "b")
        job = self.submit_with({"sr_transfers": 1}, "web", "db")
        most, ended = 0, False
        while not ended:
            # "c/<job>/<VM>/<disk>/<unit>"
            moving = {key.rsplit("/", 1)[0] for key in self.keys("c/%s/" % job)}
            most = max(most, len(moving), len(self.keys("t/%s/" % job)))
            ended = bool(self.job(job)["ended_ms"])
        self.assertEqual(most, 1)
        self.assert_backed_up(self.ended(job), "web", "db")
        self.eventually(lambda: not self.keys("t/"), "the turns to be given back")

    def test_connections_of_a_host(self):
        self.start_members("a", "b")
        before = self.pool.nbd(HOSTS[0])["peak"]
        self.assertEqual(before, 0)
        document = self.ended(self.submit_with({"host_connections": 3}, "web", "db"))
        self.assert_backed_up(document, "web", "db")
        self.assertIn(self.pool.nbd(HOSTS[0])["peak"], (1, 2, 3))

    def test_vms(self):
        self.start_members("a", "b")
        job = self.submit_with({"vms": 1}, "web", "db")
        most, ended = 0, False
        while not ended:
            document = self.job(job)
            most = max(most, sum(entry["state"] in ("assigned", "running")
                                 for entry in document["vms"]))
            ended = bool(document["ended_ms"])
        self.assertEqual(most, 1)
        self.assert_backed_up(self.ended(job), "web", "db")


if __name__ == "__main__":
    unittest.main()
