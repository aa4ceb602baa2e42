# SPDX-License-Identifier: LGPL-2.1-or-later
"""Without a state file: what a crash left is found by the name of the job."""

import time
import unittest

from harness import PoolCase, leftovers
from scenes import MIB, disk, scene, vm

SLOW = 16 * MIB


class MemoryState(PoolCase):
    """A job with a name, whose state is nowhere but in its process."""

    scene = scene(vm("slow", disk(SLOW, seed=1, data=SLOW)), vm("db", disk(seed=2)))

    def setUp(self):
        super().setUp()
        del self.site.config["state"]
        self.site.config["jobs"] = [
            {"name": name, "job": {"type": "backup", "selection": {"vms": [{"name": one}]}}}
            for name, one in (("nightly", "slow"), ("other", "db"))]
        self.site.write_config()

    def kill_nightly(self):
        """Kills the job while its disk moves."""
        for host in ("host-a", "host-b"):
            self.pool.nbd(host, delay=0.2)
        asked = self.pool.called("VDI.get_nbd_info")
        running = self.site.start("backup", "--job", "nightly")
        self.pool.await_call("VDI.get_nbd_info", asked + 1)
        time.sleep(0.2)
        running.kill()
        self.pool.calm()

    def test_next_run_of_the_name_cleans_up(self):
        self.kill_nightly()
        self.assertNotEqual(leftovers(self.pool, (), [self.site]), [])
        report = self.backup("--job", "nightly")
        self.assert_point(report.point("slow"), "slow")
        self.assert_clean()

    def test_another_name_leaves_it_alone(self):
        self.kill_nightly()
        self.backup("--job", "other")
        self.assertTrue([row for row in leftovers(self.pool, (), [self.site])
                         if "VM.snapshot" in row])
        self.backup("--job", "nightly")
        self.assert_clean()


if __name__ == "__main__":
    unittest.main()
