# SPDX-License-Identifier: LGPL-2.1-or-later
"""Members of a site back up and restore a pool together, and take over from each other."""

import unittest

from members import TTL_MS, SiteCase
from scenes import MIB, disk, scene, vm

RATE = 12 * MIB


class Together(SiteCase):
    """Two members and what they make of jobs when nothing happens to them."""

    scene = scene(vm("web", disk(16 * MIB, seed=1, data=12 * MIB)),
                  vm("db", disk(16 * MIB, seed=2, data=12 * MIB), disk(4 * MIB, seed=3)))

    def test_backup(self):
        self.start_members("a", "b")
        job = self.submit("web", "db")
        document = self.ended(job)
        self.assert_backed_up(document, "web", "db")
        self.assertEqual(document["summary"]["succeeded"], 2)


if __name__ == "__main__":
    unittest.main()
