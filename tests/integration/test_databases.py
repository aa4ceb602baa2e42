# SPDX-License-Identifier: LGPL-2.1-or-later
"""Databases of real pools, served by the simulator and listed by the tool."""

import glob
import os
import shutil
import tempfile
import unittest

from deployment import Deployment
from harness import SHARED
from simpool import SimPool

FILES = sorted(glob.glob(os.path.join(SHARED, "fixtures", "xapi-db", "*")))


def is_listed(vm):
    """Whether a VM is one that users see."""
    return not vm["is_a_template"] and not vm["is_a_snapshot"]


@unittest.skipUnless(FILES, "the databases of real pools are not here")
class Databases(unittest.TestCase):
    """Each database is served and its inventory compared with the simulator's own overview."""

    def show(self, path):
        """The inventory of a database, and the state of the simulator."""
        folder = tempfile.mkdtemp(prefix="xvsa-db-")
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        pool = SimPool(os.path.join(folder, "pool"), xapi_db=path)
        self.addCleanup(pool.stop)
        site = Deployment(os.path.join(folder, "site"), pool, proxies=())
        result = site.run("pool", "show")
        self.assertEqual(result.code, 0, str(result))
        return result.document, pool.sim("state")

    def compare(self, path):
        """Counts and names are alike."""
        document, state = self.show(path)
        vms = [vm for vm in state["vms"] if is_listed(vm)]
        self.assertEqual(document["pool"]["uuid"], state["pool"])
        for name, rows, label in (("hosts", state["hosts"], "uuid"), ("srs", state["srs"], "uuid"),
                                  ("vms", vms, "uuid")):
            self.assertEqual(sorted(row["uuid"] for row in document[name]),
                             sorted(row[label] for row in rows), name)
        self.assertEqual(len(document["networks"]), state["counts"].get("network", 0))
        disks = {vm["uuid"]: len([disk for disk in vm["disks"]
                                  if disk["type"] == "Disk" and disk["vdi"]]) for vm in vms}
        self.assertEqual({vm["uuid"]: len(vm["disks"]) for vm in document["vms"]}, disks)
        names = {sr["uuid"]: sr["name_label"] for sr in state["srs"]}
        self.assertEqual({sr["uuid"]: sr["name"] for sr in document["srs"]}, names)


def add_test(path):
    """Makes a test of its own for a database."""
    name = os.path.basename(path).replace("-", "_").replace(".", "_")
    setattr(Databases, "test_" + name, lambda self: self.compare(path))


for file_path in FILES:
    add_test(file_path)
if not FILES:
    Databases.test_present = lambda self: None


if __name__ == "__main__":
    unittest.main()
