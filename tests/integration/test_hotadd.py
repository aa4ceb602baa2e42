# SPDX-License-Identifier: LGPL-2.1-or-later
"""Disks attached to the proxy's own VM: backups and restores through its devices, and what stands in the way."""

import os
import unittest

from harness import OK, PARTIAL, REFUSED, FAILED, PoolCase
from scenes import LOCAL_B, MIB, NETWORK, disk, proxy, scene, vm

HVM, PV = "proxy-a", "proxy-b"


def machines():
    """A proxy that takes writable disks only, one that takes both, and what they back up."""
    fine = vm("web", disk(seed=11, data=3 * MIB, cbt=True), disk(size=6 * MIB, seed=12))
    return [vm(HVM, disk(size=2 * MIB, seed=13)),
            vm(PV, disk(size=2 * MIB, seed=14), hvm=False), fine]


class HotAddCase(PoolCase):
    """One proxy that runs here; `self.guest(VM)` is the folder of its devices."""

    scene = scene(*machines(), proxies=False)
    options = {}

    def guest(self, name):
        """Where the devices of a VM show up."""
        return os.path.join(self.pool.ready["guests"], self.pool.uuid("VM", name))

    def here(self, name, **members):
        """Makes a VM the only proxy, on which the tool runs."""
        self.site.config["pools"][0]["proxies"] = [
            {"name": name, "vm_uuid": self.pool.uuid("VM", name), "here": True,
             "device_path": self.guest(name), **members}]
        self.site.write_config()

    def setUp(self):
        super().setUp()
        self.here(HVM)

    def borrowed(self, name):
        """The VBDs that a VM has for a transfer."""
        records = [self.pool.record("VBD", ref) for ref in self.pool.record("VM", name)["VBDs"]]
        return [record for record in records if "xvsa" in record["other_config"]]

    def assert_detached(self):
        """No proxy has a disk any more."""
        for name in (HVM, PV):
            self.assertEqual([], self.borrowed(name))
            folder = self.guest(name)
            own = len(self.pool.disks(name))
            self.assertEqual(own, len(os.listdir(folder)) if os.path.isdir(folder) else 0)
        self.assert_clean()

    def backed_up(self, *words, transport="hotadd", **options):
        """Backs the VM up; checks transport and bytes."""
        report = self.backup("web", *words, **options)
        for index in range(2):
            self.assertEqual(transport, report.disk("web", index)["transport"], report)
        self.assert_point(report.point("web"), "web")
        self.assert_detached()
        return report


class BackupTest(HotAddCase):
    """What is read from a device."""

    def test_clone_for_a_proxy_with_writable_disks(self):
        clones = self.pool.called("Async.VDI.clone")
        report = self.backed_up()
        self.assertEqual(clones + 2, self.pool.called("Async.VDI.clone"))
        self.assertIn("HOTADD_HVM_CLONE", report.reasons("web"))

    def test_read_only_disk(self):
        self.here(PV)
        clones = self.pool.called("Async.VDI.clone")
        report = self.backed_up()
        self.assertEqual(clones, self.pool.called("Async.VDI.clone"))
        self.assertNotIn("HOTADD_HVM_CLONE", report.reasons("web"))

    def test_incremental(self):
        self.backed_up()
        self.pool.write(self.pool.disks("web")[0], 5 * MIB, 70000)
        report = self.backed_up()
        first = report.disk("web")
        self.assertEqual("incremental", first["mode"])
        self.assertGreater(first["bytes"]["audited"], 0)
        self.assertLess(first["bytes"]["read"], MIB)

    def test_plan_tells(self):
        plan = self.run_tool("plan", "backup", "web")
        self.assertEqual("hotadd", plan.disk("web")["transport"])

    def test_policy_against_clones(self):
        report = self.backup("web", "--refuse", "HOTADD_HVM_CLONE", code=REFUSED)
        self.assertIn("HOTADD_HVM_CLONE", str(report))
        self.assert_detached()

    def test_unplug_is_insisted_on(self):
        refused = self.pool.fault("VBD.unplug", count=2,
                                  error=["DEVICE_DETACH_REJECTED", "VBD", "ref", "in use"])
        self.backed_up()
        self.assertEqual(2, self.pool.hits(refused))

    def test_disk_that_stays_is_swept(self):
        """What closing cannot detach is swept at the end of the VM's backup."""
        self.pool.fault("VBD.unplug", error=["INTERNAL_ERROR", "no"])
        report = self.backup("web")
        self.assertIn("CLEANUP_PENDING", report.reasons("web"))
        self.assert_detached()

    def test_killed_while_attached(self):
        hold = self.pool.fault("VBD.unplug", error=["DEVICE_DETACH_REJECTED", "VBD", "r", "held"],
                               count=0)
        running = self.site.start("backup", "web")
        self.pool.await_call("Async.VBD.unplug", self.pool.called("Async.VBD.unplug") + 1)
        running.kill()
        self.assertNotEqual([], self.borrowed(HVM))
        self.pool.sim("fault/remove", id=hold)
        self.backed_up()


class ObstacleTest(HotAddCase):
    """What is done instead, and why."""

    def falls_back(self, reason, *words, transport="nbd"):
        """A backup over another transport, with the reason."""
        report = self.backed_up(*words, transport=transport)
        self.assertIn(reason, report.reasons("web"))
        return report

    def test_process_elsewhere(self):
        self.here(HVM, here=False)
        del self.site.config["pools"][0]["proxies"][0]["device_path"]
        self.site.write_config()
        words = [w for name in ("hotadd", "nbd", "http") for w in ("--transport", name)]
        self.falls_back("HOTADD_NOT_LOCAL", *words)
        report = self.backed_up(transport="nbd")
        self.assertNotIn("HOTADD_NOT_LOCAL", report.reasons("web"))
        report = self.backup("web", *words, "--refuse", "HOTADD_NOT_LOCAL", code=REFUSED)
        self.assertIn("HOTADD_NOT_LOCAL", str(report))

    def test_device_of_another_machine(self):
        """A process that is not where it says must not read what it finds there."""
        self.here(HVM, device_path=os.path.join(self.folder, "elsewhere"))
        os.mkdir(os.path.join(self.folder, "elsewhere"))
        for letter in "abcdefgh":
            with open(os.path.join(self.folder, "elsewhere", "xvd" + letter), "wb") as file:
                file.truncate(8 * MIB)
        report = self.falls_back("HOTADD_FAILED")
        self.assertIn("does not run on that VM", report.detail("web", "HOTADD_FAILED"))

    def test_no_position(self):
        self.pool.fault("VBD.create", error=["DEVICE_ALREADY_EXISTS", "autodetect"], count=0)
        self.falls_back("HOTADD_NO_DEVICE")

    def test_storage_not_reached(self):
        self.pool.fault("VBD.plug", error=["VM_REQUIRES_SR", "vm", "sr"], count=0)
        self.falls_back("HOTADD_SR_NOT_REACHED")

    def test_no_drivers(self):
        self.pool.fault("VBD.plug", error=["VM_MISSING_PV_DRIVERS", "vm"], count=0)
        report = self.falls_back("HOTADD_FAILED")
        self.assertIn("VM_MISSING_PV_DRIVERS", report.detail("web", "HOTADD_FAILED"))

    def test_no_room_for_a_clone(self):
        self.pool.fault("VDI.clone", error=["SR_BACKEND_FAILURE_44", "", "full", ""], count=0)
        self.falls_back("HOTADD_FAILED")

    def test_refused_fall_back(self):
        self.pool.fault("VBD.plug", error=["VM_MISSING_PV_DRIVERS", "vm"], count=0)
        report = self.backup("web", "--refuse", "HOTADD_FAILED", code=REFUSED)
        self.assertIn("HOTADD_FAILED", str(report))
        self.assert_detached()

    def test_only_hot_add(self):
        self.pool.fault("VBD.plug", error=["VM_MISSING_PV_DRIVERS", "vm"], count=0)
        report = self.backup("web", "--transport", "hotadd", code=FAILED)
        self.assertIn("VM_MISSING_PV_DRIVERS", str(report))
        self.assert_detached()

    def test_own_vm(self):
        """A proxy's own disks are read over the network, and those of others are not backed up with it."""
        report = self.backup(HVM, "web")
        self.assertIn("HOTADD_PROXY_VM", report.reasons(HVM))
        self.assertEqual(HVM, report.document["vms"][0]["name"])
        self.assertEqual("hotadd", report.disk("web")["transport"])
        self.assert_detached()


class ForeignDiskTest(HotAddCase):
    """The proxy's VM is backed up while it has a disk of another job."""

    def test_left_out(self):
        hold = self.pool.fault("VBD.unplug", error=["DEVICE_DETACH_REJECTED", "VBD", "r", "held"],
                               count=0)
        running = self.site.start("backup", "web")
        self.pool.await_call("Async.VBD.unplug", self.pool.called("Async.VBD.unplug") + 1)
        other = self.deploy("other")
        report = self.backup(HVM, site=other)
        self.pool.sim("fault/remove", id=hold)
        self.assertEqual(OK, running.wait().code)
        self.assertIn("PROXY_DISKS_LEFT_OUT", report.reasons(HVM))
        self.assertEqual(len(self.pool.disks(HVM)), len(report.vm(HVM)["disks"]))
        self.assert_point(report.point(HVM), HVM, site=other)
        self.assert_detached()


class RestoreTest(HotAddCase):
    """New disks are written as devices."""

    def check_restore(self):
        point = self.backup("web").point("web")
        report = self.restore(point, "--name", "copy", "--transport", "hotadd")
        self.assertEqual("hotadd", report.disk("web")["transport"])
        self.assert_restored(report, "web")

    def test_restore(self):
        self.check_restore()

    def test_restore_without_hvm(self):
        self.here(PV)
        self.check_restore()

    def test_disk_that_stays_is_swept(self):
        point = self.backup("web").point("web")
        self.pool.fault("VBD.unplug", error=["INTERNAL_ERROR", "no"])
        report = self.restore(point, "--name", "copy")
        self.assertIn("CLEANUP_PENDING", report.reasons("web"))
        uuid = self.assert_restored(report, "web")
        self.assertEqual([], self.borrowed(HVM))
        self.assertEqual(2, len(self.pool.disks(uuid)))

    def test_falls_back(self):
        point = self.backup("web").point("web")
        self.pool.fault("VBD.plug", error=["VM_MISSING_PV_DRIVERS", "vm"], count=0)
        report = self.restore(point, "--name", "copy")
        self.assertEqual("http", report.disk("web")["transport"])
        self.assertIn("HOTADD_FAILED", report.reasons("web"))
        self.assert_restored(report, "web")

    def test_killed(self):
        point = self.backup("web").point("web")
        hold = self.pool.fault("VBD.unplug", error=["DEVICE_DETACH_REJECTED", "VBD", "r", "held"],
                               count=0)
        running = self.site.start("restore", point, "--name", "copy")
        self.pool.await_call("Async.VBD.unplug", self.pool.called("Async.VBD.unplug") + 1)
        running.kill()
        self.pool.sim("fault/remove", id=hold)
        self.assert_restored(self.restore(point, "--name", "copy"), "web")
        self.assertEqual([], self.borrowed(HVM))


class ReachTest(HotAddCase):
    """A disk on storage that only another host has."""

    scene = scene(proxy(HVM, "host-a"), proxy(PV, "host-a"),
                  vm("web", disk(seed=3), disk(seed=4, size=4 * MIB)),
                  vm("far", disk(sr=LOCAL_B, seed=5), host="host-b"), proxies=False,
                  networks=[{"name": NETWORK, "purpose": []}])

    def test_not_reached(self):
        report = self.backup("web", "far", code=PARTIAL)
        self.assertEqual("refused", report.vm("far")["state"])
        self.assertEqual("hotadd", report.disk("web")["transport"])
        self.assertNotIn("NBD_NOT_ENABLED", report.reasons("web"))
        self.assert_detached()

    def test_http_when_nothing_else_is_left(self):
        self.pool.fault("VBD.plug", error=["VM_MISSING_PV_DRIVERS", "vm"], count=0)
        self.assertIn("HOTADD_FAILED", self.backed_up(transport="http").reasons("web"))


if __name__ == "__main__":
    unittest.main()
