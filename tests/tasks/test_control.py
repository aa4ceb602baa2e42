# SPDX-License-Identifier: LGPL-2.1-or-later
"""Jobs of one process that are suspended, resumed, limited and repeated."""

import json
import os
import signal
import time
import unittest

from test_tasks import OK, SLOW, STOPPED, TaskCase

FAILED = 1
SUSPENDED = "state 7"


class ControlCase(TaskCase):
    """A job of its own process."""

    def start(self, **spec):
        """Starts a job."""
        task = self.task(spec={"type": "backup", "selection": {"vms": [{"name": "web"}]}, **spec})
        task.config["state"] = os.path.join(self.folder, "state.db")
        return task.start("job", task.config)

    def await_log(self, process, text):
        """Waits until the process said something."""
        deadline = time.monotonic() + 60
        while text not in process.log():
            self.assertLess(time.monotonic(), deadline, process.log())
            time.sleep(0.02)

    def end(self, process, code):
        """The report of a job that ends with a code."""
        self.assertEqual(process.wait(), code, process.log())
        return process.report()

    def events(self, process):
        """Types of the events."""
        return [json.loads(line[6:])["type"] for line in process.log().splitlines()
                if line.startswith("event ")]


class Pauses(ControlCase):
    """Suspended jobs."""

    def test_suspended_and_resumed(self):
        self.limit(SLOW)
        process = self.start()
        self.await_log(process, "disk_started")
        process.signal(signal.SIGUSR1)
        self.await_log(process, SUSPENDED)
        self.limit(0)
        deadline = time.monotonic() + 60
        while not self.at_rest():
            self.assertLess(time.monotonic(), deadline, process.log())
        # What fits into its memory may have been read; none of it is dealt with.
        self.assertNotIn("vm_finished", self.events(process))
        self.assertIsNone(process.process.poll())
        process.signal(signal.SIGUSR2)
        report = self.end(process, OK)
        self.assert_done(report["vms"][0])
        kinds = self.events(process)
        self.assertLess(kinds.index("suspended"), kinds.index("resumed"))
        self.assertGreater(report["summary"]["shares"]["waiting"], 0)

    def test_cancelled_while_suspended(self):
        self.limit(SLOW)
        process = self.start()
        self.await_log(process, "disk_started")
        process.signal(signal.SIGUSR1)
        self.await_log(process, SUSPENDED)
        process.signal(signal.SIGTERM)
        self.assertEqual(self.end(process, STOPPED)["state"], "cancelled")
        self.assert_clean()


class Limits(ControlCase):
    """Time limits and repetitions."""

    def test_time_limit(self):
        self.limit(4 << 20)
        report = self.end(self.start(time_limit_ms=1500), STOPPED)
        self.assertEqual(report["state"], "cancelled")
        self.assertIn("time limit", report["error"]["message"])
        self.assertIn("TIME_LIMIT", {row["code"] for row in report["vms"][0]["reasons"]})
        self.assert_clean()

    def test_failed_vm_is_done_again(self):
        self.limit(0)
        fault = self.pool.fault("VM.snapshot", error=["TOO_BUSY"], count=1)
        # So little time that a pool that is busy is not asked again by the attempt itself; the snapshot may
        # take longer than that.
        process = self.start(retry={"attempts": 10, "delay_ms": 100},
                             snapshot_timeout_ms=1000)
        report = self.end(process, OK)
        self.assertEqual(self.pool.hits(fault), 1)
        self.assertGreaterEqual(report["vms"][0]["attempts"], 2, process.log())
        self.assertIn("vm_retry", self.events(process))
        self.assert_done(report["vms"][0])

    def test_only_what_failed_before(self):
        self.limit(0)
        self.pool.fault("VM.snapshot", error=["INTERNAL_ERROR", "no"], count=1)
        first = self.end(self.start(), FAILED)
        again = self.end(self.start(only_failed_of=first["job"]), OK)
        self.assertEqual([vm["name"] for vm in again["vms"]], ["web"])
        process = self.start(only_failed_of=again["job"])
        self.assertNotIn(process.wait(), (OK,))
        self.assertIn("names no VM", process.log())
        process = self.start(only_failed_of="0" * 32)
        process.wait()
        self.assertIn("knows no job", process.log())


if __name__ == "__main__":
    unittest.main()
