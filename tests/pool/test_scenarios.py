#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The scenario files: each is valid, and the deployments are what they claim to be."""

import os
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from sim import scenario  # noqa: E402

FOLDER = os.path.join(HERE, "scenarios")


def load(name):
    """A checked scenario by name."""
    return scenario.load(os.path.join(FOLDER, name + ".json"))


class Files(unittest.TestCase):
    """Every file of the folder."""

    def test_all_are_valid(self):
        names = sorted(os.listdir(FOLDER))
        self.assertIn("deployment-1.json", names)
        for name in names:
            with self.subTest(name):
                self.assertTrue(scenario.load(os.path.join(FOLDER, name))["hosts"])


class Deployments(unittest.TestCase):
    """The deployments with several proxies."""

    def reach(self, name):
        """SRs that each proxy reaches, in the order of proxies; none may be out of place."""
        plan = load(name)
        attached = {host["name"]: {sr["name"] for sr in plan["srs"] if host["name"] in sr["hosts"]}
                    for host in plan["hosts"]}
        for vm in plan["vms"]:
            if vm["host"]:
                self.assertLessEqual({disk["sr"] for disk in vm["disks"]}, attached[vm["host"]],
                                     "%s runs where its disks are not" % vm["name"])
        return [(vm["host"], sorted(attached[vm["host"]])) for vm in plan["vms"]
                if "proxy" in vm["tags"]]

    def test_one_pool_two_hosts(self):
        self.assertEqual(self.reach("deployment-1"), [("host-1", ["SR-1"]), ("host-2", ["SR-1"])])

    def test_two_pools(self):
        self.assertEqual(self.reach("deployment-2a"),
                         [("host-1", ["SR-A1"]), ("host-2", ["SR-A1"]), ("host-3", ["SR-A2"]),
                          ("host-4", ["SR-A2"])])
        self.assertEqual(self.reach("deployment-2b"),
                         [("host-5", ["SR-B1"]), ("host-5", ["SR-B1"]), ("host-6", ["SR-B1"]),
                          ("host-6", ["SR-B1"]), ("host-7", ["Local storage of host-7"])])

    def test_every_host_runs_guests_and_some_are_halted(self):
        for name in ("deployment-1", "deployment-2a", "deployment-2b"):
            plan = load(name)
            guests = [vm for vm in plan["vms"] if "backup" in vm["tags"]]
            self.assertEqual({vm["host"] for vm in guests},
                             {host["name"] for host in plan["hosts"]} | {""})

    def test_some_guests_are_on_two_storages(self):
        for name in ("deployment-2a", "deployment-2b"):
            split = [vm["name"] for vm in load(name)["vms"]
                     if len({disk["sr"] for disk in vm["disks"]}) > 1]
            self.assertEqual(split, ["%s-split" % name[-1]])


if __name__ == "__main__":
    unittest.main()
