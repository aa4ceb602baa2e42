# SPDX-License-Identifier: LGPL-2.1-or-later
"""A running pool of scenario single.json for the simulator's own tests."""

import json
import os
import shutil
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from pool_client import Client, control  # noqa: E402
from sim import scenario, simulator  # noqa: E402

NULL = "OpaqueRef:NULL"
SINGLE = os.path.join(HERE, "scenarios", "single.json")


class PoolCase(unittest.TestCase):
    """A pool of scenario single.json for each test class."""

    options = {}
    tls = False

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="test-sim-")
        with open(SINGLE, encoding="utf-8") as source:
            data = json.load(source)
        cls.change(data)
        data.setdefault("options", {}).update(cls.options)
        cls.running = simulator.Simulator(scenario.check(data), cls.folder, ("127.0.0.1", 0),
                                          cls.tls)
        cls.running.start()
        cls.ready = cls.running.ready()

    @classmethod
    def change(cls, data):
        """Subclasses alter the scenario here."""

    @classmethod
    def tearDownClass(cls):
        cls.running.stop()
        shutil.rmtree(cls.folder, ignore_errors=True)

    def setUp(self):
        self.x = Client(self.ready["coordinator"])
        self.sim("fault/clear")

    def tearDown(self):
        self.x.connection.close()

    def sim(self, action, **arguments):
        return control(self.ready["sim"], action, **arguments)

    def hold(self, method, **more):
        """A fault that keeps what meets it waiting until it is cleared; its id."""
        return self.sim("fault/add", method=method, hang=True, **more)["id"]

    def wait_until(self, condition):
        """Waits for a condition with a limit far beyond what a slow machine needs."""
        deadline = time.monotonic() + 60
        while not condition():
            self.assertLess(time.monotonic(), deadline, "what was waited for did not happen")
            time.sleep(0.02)

    def wait_for_hit(self, fault):
        """Waits until somebody waits at a fault of hold()."""
        self.wait_until(lambda: any(rule["id"] == fault and rule["hits"]
                                    for rule in self.sim("fault/list")["faults"]))

    def disks(self, vm):
        """Position -> VDI of a VM."""
        found = {}
        for vbd in self.x("VM.get_VBDs", vm):
            record = self.x("VBD.get_record", vbd)
            if record["type"] == "Disk":
                found[record["userdevice"]] = record["VDI"]
        return found

    def new_vdi(self, size=4 << 20, **more):
        return self.x("VDI.create", {
            "name_label": "new", "SR": self.x("SR.get_all")[0], "virtual_size": size,
            "type": "user", "sharable": False, "read_only": False, "other_config": {}, **more})

    def new_vbd(self, vm, vdi, **more):
        return self.x("VBD.create", {
            "VM": vm, "VDI": vdi, "userdevice": "autodetect", "bootable": False, "mode": "RW",
            "type": "Disk", "empty": False, "unpluggable": True, "other_config": {},
            "qos_algorithm_type": "", "qos_algorithm_params": {}, **more})
