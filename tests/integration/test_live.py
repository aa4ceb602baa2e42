# SPDX-License-Identifier: LGPL-2.1-or-later
"""What happens in a pool is noticed through its events: who is where, and who reaches what."""

import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
import time
import unittest

from scenes import HOSTS, LOCAL_A, PROXIES, SHARED_SR, disk, scene, vm
from simpool import SimPool
from harness import PoolCase

PATIENCE = 90


class Watcher:
    """The program that prints what the library knows whenever it learns something."""

    def __init__(self, pool):
        program = os.path.join(os.environ["XVSA_BUILD"], "tests", "integration",
                               "integration-watcher")
        self.process = subprocess.Popen(
            [program, pool.urls[0], pool.fingerprints[0] or "-", "password"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.states, self.messages = queue.Queue(), []
        self.state = None
        self.readers = [threading.Thread(target=self._read), threading.Thread(target=self._listen)]
        for reader in self.readers:
            reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.states.put(json.loads(line))
        self.states.put(None)

    def _listen(self):
        self.messages.extend(self.process.stderr)

    def until(self, test, patience=PATIENCE):
        """The first state, the present one included, that passes a test."""
        deadline = time.monotonic() + patience
        while self.state is None or not test(self.state):
            try:
                self.state = self.states.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                self.state = self.state or {}
                raise AssertionError("not noticed; last known: %s\n%s" % (
                    json.dumps(self.state, indent=1), "".join(self.messages))) from None
            if self.state is None:
                raise AssertionError("the watcher ended:\n" + "".join(self.messages))
        return self.state

    def settle(self, seconds=1.0):
        """Takes what was said so far and for a while."""
        while True:
            try:
                self.state = self.states.get(timeout=seconds) or self.state
            except queue.Empty:
                return self.state

    def close(self):
        """Ends it, which it does well and soon."""
        self.process.stdin.close()
        code = self.process.wait(PATIENCE)
        for reader in self.readers:
            reader.join()
        self.process.stdout.close()
        self.process.stderr.close()
        if code != 0:
            raise AssertionError("the watcher ended with %d:\n%s" % (code,
                                                                     "".join(self.messages)))


class Live(PoolCase):
    """One pool for all; every test leaves it as it was."""

    scene = scene(vm("web", disk()), vm("off", disk(), power_state="Halted"),
                  options={"host_dead_after": 0, "ha_failover": 0})
    init = False

    def setUp(self):
        super().setUp()
        self.watcher = Watcher(self.pool)
        self.addCleanup(self.watcher.close)
        self.watcher.until(lambda state: state["vms"])
        self.first = self.watcher.settle()

    def noticed(self, test):
        state = self.watcher.until(test)
        self.assertGreater(state["any"], self.first["any"])
        return state

    def reach_noticed(self, test):
        state = self.noticed(test)
        self.assertGreater(state["reach"], self.first["reach"])
        return state

    def test_first_reading(self):
        self.assertEqual(self.first["hosts"], {
            HOSTS[0]: {"live": True, "coordinator": True},
            HOSTS[1]: {"live": True, "coordinator": False}})
        self.assertEqual(sorted(self.first["srs"][SHARED_SR]["hosts"]), list(HOSTS))
        self.assertEqual(self.first["vms"][PROXIES[1]]["host"], HOSTS[1])

    def test_proxy_migrates(self):
        self.pool.sim("vm/power", vm=PROXIES[0], operation="move", host=HOSTS[1])
        self.reach_noticed(lambda state: state["vms"][PROXIES[0]]["host"] == HOSTS[1])
        self.pool.sim("vm/power", vm=PROXIES[0], operation="move", host=HOSTS[0])
        self.reach_noticed(lambda state: state["vms"][PROXIES[0]]["host"] == HOSTS[0])

    def test_pbd_unplugged_and_plugged(self):
        self.pool.sim("sr/plug", sr=SHARED_SR, host=HOSTS[1], attached=False)
        self.reach_noticed(lambda state: state["srs"][SHARED_SR]["hosts"] == [HOSTS[0]])
        self.pool.sim("sr/plug", sr=SHARED_SR, host=HOSTS[1], attached=True)
        self.reach_noticed(lambda state: len(state["srs"][SHARED_SR]["hosts"]) == 2)

    def test_sr_shared(self):
        self.pool.set("SR", LOCAL_A, shared=True)
        self.reach_noticed(lambda state: state["srs"][LOCAL_A]["shared"])
        self.pool.set("SR", LOCAL_A, shared=False)
        self.reach_noticed(lambda state: not state["srs"][LOCAL_A]["shared"])

    def test_host_dead_and_alive(self):
        self.pool.sim("host/kill", host=HOSTS[1])
        self.pool.sim("host/live", host=HOSTS[1], live=False)
        state = self.reach_noticed(lambda state: not state["hosts"][HOSTS[1]]["live"])
        self.assertEqual(state["srs"][SHARED_SR]["hosts"], [HOSTS[0]])
        self.pool.calm()
        self.reach_noticed(lambda state: state["hosts"][HOSTS[1]]["live"])

    def test_vm_started_and_stopped(self):
        self.pool.sim("vm/power", vm="off", operation="start", host=HOSTS[1])
        self.noticed(lambda state: state["vms"]["off"]["power_state"] == "Running"
                     and state["vms"]["off"]["host"] == HOSTS[1])
        self.pool.sim("vm/power", vm="off", operation="shutdown")
        self.noticed(lambda state: state["vms"]["off"]["host"] is None)

    def test_objects_come_and_go(self):
        before = self.first["vms"]["web"]["disks"]
        web = self.pool.sim("call", method="VM.get_by_name_label", params=["web"])["value"][0]
        snapshot = self.pool.sim("call", method="VM.snapshot", params=[web, "held"])["value"]
        state = self.noticed(lambda state: "held" in state["vms"])
        self.assertEqual(state["vms"]["held"]["disks"], before)
        self.assertEqual(state["reach"], self.first["reach"])
        self.pool.sim("call", method="VM.destroy", params=[snapshot])
        self.noticed(lambda state: "held" not in state["vms"])

    def test_nothing_said_without_a_change(self):
        # A new text in a member that the inventory does not keep.
        self.pool.set("VM", "web", name_description="changed")
        state = self.watcher.settle(2.0)
        self.assertEqual(state["any"], self.first["any"])

    def test_session_expired(self):
        self.pool.sim("session/expire")
        self.pool.sim("sr/plug", sr=SHARED_SR, host=HOSTS[1], attached=False)
        self.reach_noticed(lambda state: state["srs"][SHARED_SR]["hosts"] == [HOSTS[0]])
        self.pool.sim("sr/plug", sr=SHARED_SR, host=HOSTS[1], attached=True)
        self.reach_noticed(lambda state: len(state["srs"][SHARED_SR]["hosts"]) == 2)

    def test_toolstack_restarts(self):
        self.pool.sim("host/toolstack", host=HOSTS[0], seconds=2)
        self.pool.sim("sr/plug", sr=SHARED_SR, host=HOSTS[1], attached=False)
        self.reach_noticed(lambda state: state["srs"][SHARED_SR]["hosts"] == [HOSTS[0]])
        self.pool.sim("sr/plug", sr=SHARED_SR, host=HOSTS[1], attached=True)
        self.reach_noticed(lambda state: len(state["srs"][SHARED_SR]["hosts"]) == 2)


class Failover(unittest.TestCase):
    """The coordinator moves, or dies."""

    def setUp(self):
        folder = tempfile.mkdtemp(prefix="xvsa-test-")
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        self.pool = SimPool(folder, scene(vm("web", disk())))
        self.addCleanup(self.pool.stop)
        self.watcher = Watcher(self.pool)
        self.addCleanup(self.watcher.close)
        self.watcher.until(lambda state: state["vms"])

    def test_coordinator_moves(self):
        self.pool.sim("coordinator", host=HOSTS[1])
        self.watcher.until(lambda state: state["hosts"][HOSTS[1]]["coordinator"])
        self.pool.sim("vm/power", vm=PROXIES[1], operation="move", host=HOSTS[0])
        self.watcher.until(lambda state: state["vms"][PROXIES[1]]["host"] == HOSTS[0])

    def test_coordinator_dies(self):
        self.pool.sim("host/kill", host=HOSTS[0])
        self.pool.sim("coordinator", host=HOSTS[1])
        self.pool.sim("host/live", host=HOSTS[0], live=False)
        state = self.watcher.until(lambda state: state["hosts"][HOSTS[1]]["coordinator"]
                                   and not state["hosts"][HOSTS[0]]["live"])
        self.assertEqual(state["srs"][SHARED_SR]["hosts"], [HOSTS[1]])


if __name__ == "__main__":
    unittest.main()
