# SPDX-License-Identifier: LGPL-2.1-or-later
"""The deployments with several proxies, worked by one process."""

import os
import shutil
import tempfile
import unittest

from estate import Estate, guests_of
from harness import OK, ORIGINATOR


class EstateCase(unittest.TestCase):
    """The pools of deployment `number`, and a configuration with an empty repository."""

    number = None

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="xvsa-estate-")
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        cls.estate = Estate(cls.folder, cls.number)
        cls.addClassCleanup(cls.estate.stop)
        cls.site = cls.estate.deploy(os.path.join(cls.folder, "site")).init()

    def backup_all(self):
        """Backs up every guest of every pool; each disk goes to a proxy that reaches it."""
        for name, pool in self.estate.pools.items():
            report = self.site.run("backup", "--pool", name, "--tag", "backup")
            self.assertEqual(report.code, OK, str(report))
            guests = guests_of(self.estate.scenes[name])
            self.assertEqual(sorted(vm["name"] for vm in report.document["vms"]), sorted(guests))
            for guest in guests:
                for device, vdi in pool.devices(guest):
                    self.assertEqual(self.site.read_disk(report.point(guest), device),
                                     pool.content(vdi), "disk %d of %s" % (device, guest))
            made = pool.sim("made", originator=ORIGINATOR, leftovers=True)
            self.assertEqual(made["attachments"], [])


class OnePool(EstateCase):
    """Two hosts that share an SR."""

    number = 1

    def test_backup(self):
        self.backup_all()


class TwoPools(EstateCase):
    """Storage that only some hosts, or one, reach."""

    number = 2

    def test_backup(self):
        self.backup_all()

    def test_the_split_guests_need_two_proxies(self):
        for name, guest in (("deployment-2a", "a-split"), ("deployment-2b", "b-split")):
            plan = self.site.run("plan", "backup", guest, "--pool", name)
            self.assertEqual(plan.code, OK, str(plan))
            proxies = [disk["proxy"] for disk in plan.vm(guest)["disks"]]
            self.assertEqual(len(set(proxies)), 2, proxies)


if __name__ == "__main__":
    unittest.main()
