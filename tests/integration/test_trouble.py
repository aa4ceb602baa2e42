# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pools that fail, move and restart while they are worked with."""

import time
import unittest

from harness import FAILED, OK, PARTIAL, REFUSED, PoolCase
from scenes import CHUNK, LOCAL_A, LOCAL_B, MIB, disk, scene, vm

SLOW = 32 * MIB


class Trouble(PoolCase):
    """One trouble in each test; the pool is calm again after it."""

    scene = scene(
        vm("web", disk(seed=1), disk(seed=2)),
        vm("slow", disk(SLOW, seed=3, data=SLOW)),
        vm("local-b", disk(SLOW, seed=4, data=SLOW, sr=LOCAL_B), host="host-b"),
        vm("local-a", disk(seed=5, sr=LOCAL_A)),
        options={"lock_wait": 0.5})

    def slow_backup(self, *words, host="host-a", vm="slow"):
        """A backup whose disk moves slowly; returns when data moves."""
        for one in (host, "host-b"):
            self.pool.nbd(one, delay=0.05)
        attached = self.pool.called("VDI.get_nbd_info")
        running = self.site.start("backup", vm, *words)
        self.addCleanup(lambda: running.process.poll() is None and running.kill())
        self.pool.await_call("VDI.get_nbd_info", attached + 1)
        time.sleep(0.3)
        return running

    def assert_done(self, result, *names):
        """A backup succeeded and its points are right."""
        self.assertEqual(result.code, OK, str(result))
        for name in names:
            self.assertEqual(len(self.site.points(name)), 1)
            self.assert_point("latest:" + name, name)
        self.assert_clean()

    def assert_failed_cleanly(self, result, *texts, code=FAILED):
        """A backup failed with a message; it left nothing and stored no point."""
        self.assertEqual(result.code, code, str(result))
        for text in texts:
            self.assertIn(text, result.err + result.out)
        self.assertEqual(self.site.points(), [])
        self.assert_clean()
        self.assert_verified()

    # ---- snapshots ----

    def test_snapshot_fails_on_the_second_disk(self):
        self.pool.fault("VDI.snapshot", nth=2, count=0,
                        error=["SR_BACKEND_FAILURE_44", "", "There is insufficient space", ""])
        self.assert_failed_cleanly(self.site.run("backup", "web"), "SR_BACKEND_FAILURE_44", "web")

    def test_storage_is_full_already(self):
        self.pool.sim("sr/fill", sr=LOCAL_A, free=0)
        self.addCleanup(self.pool.sim, "sr/fill", sr=LOCAL_A, used=0)
        result = self.run_tool("backup", "local-a", code=REFUSED)
        self.assertIn("SR_SPACE_LOW", result.err + result.out)
        self.assert_clean()

    def test_storage_fills_up_meanwhile(self):
        self.pool.fault("SM.vdi_snapshot", count=0,
                        error=["SR_BACKEND_FAILURE_44", "", "There is insufficient space", ""])
        self.assert_failed_cleanly(self.site.run("backup", "local-a"), "SR_BACKEND_FAILURE_44")

    def test_busy_vm_for_a_while(self):
        self.pool.fault("VM.snapshot", count=2, error=[
            "OTHER_OPERATION_IN_PROGRESS", "VM", "OpaqueRef:x", "clone", "OpaqueRef:y"])
        self.assert_done(self.site.run("backup", "web"), "web")

    def test_snapshot_comes_too_late(self):
        """What the pool makes after the job gave up is removed by the next start."""
        job = {"type": "backup", "selection": {"vms": [{"name": "web"}]},
               "snapshot_timeout_ms": 3000}
        self.site.config["jobs"] = [{"name": "hurried", "job": job}]
        self.site.write_config()
        fault = self.pool.fault("VM.snapshot", hang=True)
        result = self.site.run("backup", "--job", "hurried")
        self.assertEqual(result.code, FAILED, str(result))
        self.assertIn("TIMEOUT", result.err)
        self.pool.sim("fault/remove", id=fault)
        time.sleep(3)  # the pool does what it was asked for
        self.run_tool("pool", "show")
        self.assert_clean()
        self.assertEqual(self.site.points(), [])

    def test_task_of_the_snapshot_is_forgotten(self):
        """Nobody tells whether the snapshot was made: it must not stay."""
        self.pool.fault("VM.snapshot", delay=1.5, after=True)
        asked = self.pool.called("Async.VM.snapshot")
        running = self.site.start("backup", "web")
        self.addCleanup(lambda: running.process.poll() is None and running.kill())
        self.pool.await_call("Async.VM.snapshot", asked + 1)
        time.sleep(0.3)
        self.pool.sim("task/forget")
        result = running.wait()
        if result.code == OK:
            self.assert_done(result, "web")
        else:
            self.assert_failed_cleanly(result)

    def test_one_vm_fails_and_others_are_done(self):
        ref = self.pool.sim("record/get", cls="VM", name="web")["ref"]
        self.pool.fault("VM.snapshot", ref=ref, count=0,
                        error=["VM_BAD_POWER_STATE", ref, "x", "y"])
        report = self.backup("web", "local-a", code=PARTIAL)
        self.assertEqual(report.vm("web")["state"], "failed")
        self.assertEqual(report.vm("web")["error"]["xenapi"]["code"], "VM_BAD_POWER_STATE")
        self.assert_point(report.point("local-a"), "local-a")
        self.assert_clean()

    def test_snapshot_hangs(self):
        fault = self.pool.fault("VM.snapshot", hang=True)
        running = self.site.start("backup", "web")
        self.addCleanup(lambda: running.process.poll() is None and running.kill())
        time.sleep(1.5)
        self.pool.sim("fault/remove", id=fault)
        self.assert_done(running.wait(), "web")

    def test_cleaning_up_fails(self):
        """What can't be removed now is no failure, is told, and is removed by the next start."""
        fault = self.pool.fault("VDI.data_destroy|VDI.destroy|VM.destroy", count=0,
                                error=["SR_BACKEND_FAILURE_46", "", "busy", ""])
        report = self.backup("web")
        self.assertIn("CLEANUP_PENDING", report.reasons("web"))
        self.assert_point(report.point("web"), "web")
        self.pool.sim("fault/remove", id=fault)
        self.run_tool("pool", "show")
        self.assert_clean()
        self.pool.write(self.pool.disks("web")[0], MIB, CHUNK)
        self.assert_point(self.backup("web").point("web"), "web")

    # ---- sessions and coordinators ----

    def test_session_expires(self):
        running = self.slow_backup()
        self.pool.sim("session/expire")
        self.assert_done(running.wait(), "slow")

    def test_coordinator_moved_before(self):
        self.backup("web")
        self.pool.sim("coordinator", host="host-b")
        self.addCleanup(self.pool.sim, "coordinator", host="host-a")
        self.pool.write(self.pool.disks("web")[0], MIB, CHUNK)
        report = self.backup("web")
        self.assertEqual(report.disk("web")["mode"], "incremental")
        self.assert_point(report.point("web"), "web")
        self.assert_clean()

    def test_coordinator_known_by_one_member_only(self):
        self.site.config["pools"][0]["urls"] = [self.pool.host("host-b")["url"]]
        self.site.write_config()
        self.assert_done(self.site.run("backup", "web"), "web")

    def test_coordinator_moves_during_a_backup(self):
        running = self.slow_backup()
        self.pool.sim("coordinator", host="host-b")
        self.addCleanup(self.pool.sim, "coordinator", host="host-a")
        self.settle(running.wait())

    def test_toolstack_restarts_during_a_backup(self):
        running = self.slow_backup()
        self.pool.sim("host/toolstack", seconds=1.0)
        self.settle(running.wait())

    def settle(self, result):
        """Either all went well, or it failed cleanly and the next backup is right."""
        if result.code == OK:
            self.assert_done(result, "slow")
            return
        self.assertEqual(result.code, FAILED, str(result))
        self.assertIn("slow", result.err + result.out)
        self.pool.calm()
        self.assert_done(self.site.run("backup", "slow"), "slow")

    def test_toolstack_restarts_between(self):
        self.backup("web")
        self.pool.sim("host/toolstack", seconds=0.2)
        self.pool.write(self.pool.disks("web")[1], MIB, CHUNK)
        time.sleep(0.5)
        report = self.backup("web")
        self.assertEqual(report.disk("web", 1)["mode"], "incremental")
        self.assert_point(report.point("web"), "web")

    def test_event_calls_fail(self):
        self.pool.fault("event.from", count=0, error=["EVENTS_LOST"])
        self.assert_done(self.site.run("backup", "web"), "web")

    def test_vm_moves_during_a_backup(self):
        running = self.slow_backup()
        self.pool.sim("vm/power", vm="slow", operation="move", host="host-b")
        self.addCleanup(self.pool.sim, "vm/power", vm="slow", operation="move", host="host-a")
        self.assert_done(running.wait(), "slow")

    def test_migration_is_blocked_meanwhile(self):
        running = self.slow_backup()
        blocked = self.pool.record("VM", "slow")["blocked_operations"]
        self.assertIn("pool_migrate", blocked)
        self.assert_done(running.wait(), "slow")
        self.assertEqual(self.pool.record("VM", "slow")["blocked_operations"], {})

    def test_migration_is_left_alone_on_request(self):
        running = self.slow_backup("--allow-migration")
        self.assertEqual(self.pool.record("VM", "slow")["blocked_operations"], {})
        self.assert_done(running.wait(), "slow")

    def test_operations_that_others_block_stay_blocked(self):
        blocked = {"pool_migrate": "by the administrator"}
        self.pool.set("VM", "web", blocked_operations=blocked)
        self.addCleanup(self.pool.set, "VM", "web", blocked_operations={})
        result = self.site.run("backup", "web")
        self.assertEqual(self.pool.record("VM", "web")["blocked_operations"], blocked)
        self.pool.set("VM", "web", blocked_operations={})
        self.assert_done(result, "web")

    # ---- data ----

    def test_connections_are_cut(self):
        running = self.slow_backup()
        for _ in range(3):
            for host in ("host-a", "host-b"):
                self.pool.nbd(host, connections="drop")
            time.sleep(0.2)
        self.assert_done(running.wait(), "slow")

    def test_connections_end_after_some_requests(self):
        for host in ("host-a", "host-b"):
            self.pool.nbd(host, close_after=10)
        self.assert_done(self.site.run("backup", "slow"), "slow")

    def test_replies_of_one_host_are_cut(self):
        self.pool.nbd("host-a", cut_after=100000)
        self.assert_done(self.site.run("backup", "web"), "web")

    def test_replies_of_all_hosts_are_cut(self):
        for host in ("host-a", "host-b"):
            self.pool.nbd(host, cut_after=100000)
        report = self.backup("web")
        self.assertIn("NBD_FAILED", report.reasons("web"))
        self.assert_done(report, "web")

    def test_host_dies_while_its_nbd_serves(self):
        running = self.slow_backup()
        self.pool.sim("host/kill", host="host-b")
        self.assert_done(running.wait(), "slow")

    def test_only_host_of_a_local_disk_dies(self):
        running = self.slow_backup(vm="local-b")
        self.pool.sim("host/kill", host="host-b")
        result = running.wait()
        self.assertEqual(result.code, FAILED, str(result))
        self.assertIn("local-b", result.err + result.out)
        self.assertEqual(self.site.points(), [])
        self.pool.calm()
        self.run_tool("pool", "show")
        self.assert_clean()

    def test_dead_member_before_a_backup(self):
        self.pool.sim("host/kill", host="host-b")
        result = self.site.run("backup", "web")
        self.pool.calm()
        self.assert_done(result, "web")

    def test_export_fails_late(self):
        self.pool.fault("transfer", nth=3, count=0, error=["VDI_IO_ERROR", "OpaqueRef:x"])
        self.assert_failed_cleanly(self.site.run("backup", "slow", "--transport", "http"), "slow")

    def test_export_is_cut_once(self):
        self.pool.fault("transfer", nth=4, cut=True)
        result = self.site.run("backup", "slow", "--transport", "http")
        if result.code == OK:
            self.assert_done(result, "slow")
        else:
            self.assert_failed_cleanly(result, "slow")

    def test_export_refused(self):
        self.pool.fault("export_raw_vdi", count=0, error=["VDI_IN_USE", "OpaqueRef:x", "attach"])
        self.assert_failed_cleanly(self.site.run("backup", "web", "--transport", "http"), "web")


if __name__ == "__main__":
    unittest.main()
