#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tests of the pool simulator: snapshots, changed blocks, devices."""

import base64
import os
import unittest

from pool_case import NULL, PoolCase
from pool_client import XenError


class Snapshots(PoolCase):
    def test_record(self):
        vm = self.x.named("VM", "web")
        self.x("VM.add_to_other_config", vm, "marker", "1")
        snapshot = self.x("VM.snapshot", vm, "s")
        record = self.x("VM.get_record", snapshot)
        self.assertTrue(record["is_a_snapshot"] and record["is_a_template"])
        self.assertEqual(record["snapshot_info"], {"power-state-at-snapshot": "Running",
                                                   "disk-snapshot-type": "crash_consistent"})
        self.assertEqual(record["other_config"]["marker"], "1")
        self.assertEqual(self.x("VM.get_parent", vm), snapshot)
        (vdi,) = self.disks(snapshot).values()
        disk = self.x("VDI.get_record", vdi)
        self.assertEqual((disk["is_a_snapshot"], disk["snapshot_of"], disk["cbt_enabled"]),
                         (True, self.disks(vm)["0"], True))
        self.assertEqual(self.x.fails("VM.start", snapshot, False, False)[0], "VM_IS_SNAPSHOT")
        self.x("VM.destroy", snapshot)
        self.x("VDI.destroy", vdi)
        self.x("VM.remove_from_other_config", vm, "marker")

    def test_failing_disk_leaves_nothing(self):
        vm = self.x.named("VM", "db")
        before = set(self.x("VDI.get_all"))
        self.sim("fault/add", method="SM.vdi_snapshot", nth=2, error=["SR_BACKEND_FAILURE_82", "",
                                                                       "text", ""])
        record = self.x.wait("VM.snapshot", vm, "bad")
        self.assertEqual(record["error_info"][0], "SR_BACKEND_FAILURE_82")
        left = set(self.x("VDI.get_all")) - before
        self.assertFalse([v for v in left if self.x("VDI.get_managed", v)])

    def test_ignored_disk(self):
        vm = self.x.named("VM", "db")
        snapshot = self.x("VM.snapshot", vm, "partial", [self.disks(vm)["1"]])
        self.assertEqual(list(self.disks(snapshot)), ["0"])

    def test_blocked(self):
        vm = self.x.named("VM", "archive")
        self.x("VM.add_to_blocked_operations", vm, "snapshot", "why")
        self.assertEqual(self.x.fails("VM.snapshot", vm, "s"), ["OPERATION_BLOCKED", vm, "why"])
        self.x("VM.remove_from_blocked_operations", vm, "snapshot")

    def test_chain(self):
        self.sim("option", name="chain_limit", value=3)
        self.sim("option", name="coalesce_delay", value=-1.0)
        vdi = self.new_vdi()
        snapshots = [self.x("VDI.snapshot", vdi) for _ in range(2)]
        self.assertEqual(self.x.fails("VDI.snapshot", vdi)[0], "SR_BACKEND_FAILURE_109")
        for snapshot in snapshots:
            self.x("VDI.destroy", snapshot)
        self.assertIn("vhd-parent", self.x("VDI.get_sm_config", vdi))
        self.sim("sr/coalesce", sr="Shared NFS")
        self.assertNotIn("vhd-parent", self.x("VDI.get_sm_config", vdi))
        self.x("VDI.destroy", vdi)
        self.sim("option", name="chain_limit", value=30)
        self.sim("option", name="coalesce_delay", value=0.5)

    def test_revert(self):
        vm = self.x.named("VM", "archive")
        (vdi,) = self.disks(vm).values()
        old = self.sim("disk/checksum", vdi=self.x("VDI.get_uuid", vdi))
        snapshot = self.x("VM.snapshot", vm, "before")
        self.sim("disk/write", vdi=self.x("VDI.get_uuid", vdi), offset=0, length=4096,
                 random_seed=9)
        self.x("VM.revert", snapshot)
        (new,) = self.disks(vm).values()
        self.assertNotEqual(new, vdi)
        self.assertEqual(self.sim("disk/checksum", vdi=self.x("VDI.get_uuid", new)), old)

    def test_space(self):
        self.sim("sr/fill", sr="Shared NFS", free=0)
        self.assertEqual(self.x.fails("VM.snapshot", self.x.named("VM", "web"), "s")[0],
                         "SR_BACKEND_FAILURE_44")
        self.sim("sr/fill", sr="Shared NFS", used=0)

    def test_checkpoint(self):
        vm = self.x.named("VM", "web")
        snapshot = self.x("VM.checkpoint", vm, "cp")
        record = self.x("VM.get_record", snapshot)
        self.assertEqual(record["power_state"], "Suspended")
        self.assertNotEqual(record["suspend_VDI"], NULL)
        self.assertEqual(self.x("VM.get_power_state", vm), "Running")


class Cbt(PoolCase):
    def bits(self, first, last):
        data = base64.b64decode(self.x("VDI.list_changed_blocks", first, last))
        return [i for i in range(len(data) * 8) if data[i // 8] & (0x80 >> i % 8)]

    def test_chain(self):
        vdi = self.new_vdi(8 << 20)
        uuid = self.x("VDI.get_uuid", vdi)
        self.x("VDI.enable_cbt", vdi)
        one = self.x("VDI.snapshot", vdi)
        self.sim("disk/write", vdi=uuid, offset=65536 * 3 + 10, length=65536, pattern="x")
        two = self.x("VDI.snapshot", vdi)
        self.sim("disk/write", vdi=uuid, offset=65536 * 9, length=1, pattern="y")
        three = self.x("VDI.snapshot", vdi)
        self.assertEqual(self.bits(one, two), [3, 4])
        self.assertEqual(self.bits(one, three), [3, 4, 9])
        self.assertEqual(self.x.fails("VDI.list_changed_blocks", two, one)[0],
                         "SR_BACKEND_FAILURE_460")
        self.x("VDI.data_destroy", one)
        self.assertEqual(self.x("VDI.get_type", one), "cbt_metadata")
        self.x("VDI.destroy", two)
        self.assertEqual(self.bits(one, three), [3, 4, 9])
        self.assertEqual(self.x.fails("VDI.clone", one), ["VDI_INCOMPATIBLE_TYPE", one,
                                                          "CBT metadata"])
        self.sim("disk/break-cbt", vdi=uuid, how="reset")
        four = self.x("VDI.snapshot", vdi)
        self.assertEqual(self.x.fails("VDI.list_changed_blocks", three, four)[0],
                         "SR_BACKEND_FAILURE_460")

    def test_rules(self):
        vdi = self.new_vdi()
        snapshot = self.x("VDI.snapshot", vdi)
        self.assertEqual(self.x.fails("VDI.enable_cbt", snapshot)[0], "OPERATION_NOT_ALLOWED")
        self.assertEqual(self.x.fails("VDI.data_destroy", vdi)[0], "OPERATION_NOT_ALLOWED")
        self.assertEqual(self.x.fails("VDI.data_destroy", snapshot), ["VDI_NO_CBT_METADATA",
                                                                      snapshot])
        self.sim("option", name="cbt_licence", value=False)
        self.assertEqual(self.x.fails("VDI.enable_cbt", vdi), ["LICENCE_RESTRICTION", "CBT"])
        self.sim("option", name="cbt_licence", value=True)
        web = self.disks(self.x.named("VM", "web"))["0"]
        self.assertEqual(self.x.fails("VDI.list_changed_blocks", web, web),
                         ["VDI_IN_USE", web, "list_changed_blocks"])

    def test_crash_loses_tracking(self):
        vm = self.x.named("VM", "db")
        vdi = self.disks(vm)["0"]
        self.x("VDI.enable_cbt", vdi)
        self.sim("vm/power", vm="db", operation="crash")
        self.x("VM.start", vm, False, False)
        self.assertFalse(self.x("VDI.get_cbt_enabled", vdi))
        names = [m["name"] for m in self.x("message.get_all_records").values()]
        self.assertIn("VDI_CBT_METADATA_INCONSISTENT", names)


class Devices(PoolCase):
    def test_hot_add(self):
        vm = self.x.named("VM", "web")
        source = self.disks(self.x.named("VM", "archive"))["0"]
        snapshot = self.x("VDI.snapshot", source)
        read_only = self.new_vbd(vm, snapshot, mode="RO")
        self.assertEqual(self.x.fails("VBD.plug", read_only)[0],
                         "DISK_VBD_MUST_BE_READWRITE_FOR_HVM")
        self.x("VBD.destroy", read_only)
        vbd = self.new_vbd(vm, snapshot)
        self.x("VBD.plug", vbd)
        self.assertEqual(self.x("VBD.get_device", vbd), "xvdb")
        self.assertEqual(self.x.fails("VBD.plug", vbd)[0], "DEVICE_ALREADY_ATTACHED")
        self.assertEqual(self.x.fails("VDI.destroy", snapshot), ["VDI_IN_USE", snapshot,
                                                                 "destroy"])
        self.assertEqual(self.x.fails("VBD.destroy", vbd)[0], "OPERATION_NOT_ALLOWED")
        path = self.sim("disk/path", vdi=self.x("VDI.get_uuid", snapshot))["path"]
        self.assertEqual(os.path.getsize(path), 16 << 20)
        device = os.path.join(self.ready["guests"], self.x("VM.get_uuid", vm), "xvdb")
        self.assertEqual(os.path.realpath(device), os.path.realpath(path))
        self.sim("vbd/refuse-detach", vbd=vbd)
        self.assertEqual(self.x.fails("VBD.unplug", vbd)[0], "DEVICE_DETACH_REJECTED")
        self.sim("vbd/refuse-detach", vbd=vbd, refuse=False)
        self.x("VBD.unplug", vbd)
        self.assertFalse(os.path.lexists(device))
        self.x("VBD.destroy", vbd)
        self.x("VDI.destroy", snapshot)

    def test_create_checks(self):
        vm, vdi = self.x.named("VM", "archive"), self.new_vdi()
        for more, code in (({"userdevice": "0"}, "DEVICE_ALREADY_EXISTS"),
                           ({"userdevice": "x"}, "INVALID_DEVICE"),
                           ({"type": "CD"}, "VBD_CDS_MUST_BE_READONLY"),
                           ({"empty": True}, "VBD_NOT_REMOVABLE_MEDIA"),
                           ({"VDI": "OpaqueRef:x"}, "HANDLE_INVALID")):
            with self.subTest(more), self.assertRaises(XenError) as caught:
                self.new_vbd(vm, more.pop("VDI", vdi), **more)
            self.assertEqual(caught.exception.code, code)
        network = self.x("network.get_all")[0]
        vif = {"VM": vm, "network": network, "device": "5", "MAC": "", "MTU": 1500,
               "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}}
        ref = self.x("VIF.create", vif)
        self.assertTrue(self.x("VIF.get_MAC_autogenerated", ref))
        self.assertEqual(self.x.fails("VIF.create", vif), ["DEVICE_ALREADY_EXISTS", "5"])
        self.assertEqual(self.x.fails("VIF.create", {**vif, "device": "6", "MAC": "z"}),
                         ["MAC_INVALID", "z"])
        self.x("VIF.destroy", ref)

    def test_create_vm(self):
        source = self.x("VM.get_record", self.x.named("VM", "archive"))
        values = {k: v for k, v in source.items() if k not in ("NVRAM",)}
        values["blocked_operations"] = {"start": "no"}
        ref = self.x("VM.create", {**values, "name_label": "restored",
                                   "NVRAM": {"EFI-variables": "AA=="}})
        record = self.x("VM.get_record", ref)
        self.assertEqual(record["NVRAM"], {"EFI-variables": "AA=="})
        self.assertEqual(record["blocked_operations"], {})
        self.assertNotEqual(record["uuid"], source["uuid"])
        self.assertEqual(record["memory_static_max"], source["memory_static_max"])
        values.pop("PV_args")
        self.assertEqual(self.x.fails("VM.create", values)[1],
                         'Server_helpers.Dispatcher_FieldNotFound("PV_args")')
        vtpm = self.x("VTPM.create", ref, False)
        self.x("VTPM.set_contents", vtpm, "YWJj")
        self.assertEqual(self.x("VTPM.get_contents", vtpm), "YWJj")
        self.assertEqual(self.x.fails("VTPM.create", ref, False),
                         ["VTPM_MAX_AMOUNT_REACHED", "1"])
        self.x("VM.destroy", ref)

    def test_life(self):
        vm = self.x.named("VM", "archive")
        self.x("VM.start", vm, False, False)
        self.assertNotEqual(self.x("VM.get_resident_on", vm), NULL)
        self.assertEqual(self.x.fails("VM.destroy", vm),
                         ["VM_BAD_POWER_STATE", vm, "halted, suspended", "running"])
        self.x("VM.suspend", vm)
        self.x("VM.resume", vm, False, False)
        self.x("VM.clean_reboot", vm)
        self.x("VM.hard_shutdown", vm)
        self.assertEqual(self.x("VM.get_power_state", vm), "Halted")

    def test_busy_sr(self):
        self.sim("option", name="lock_wait", value=0.2)
        fault = self.hold("SM.vdi_snapshot")
        vdi = self.new_vdi()
        task = self.x("Async.VDI.snapshot", vdi)
        self.wait_for_hit(fault)
        self.assertEqual(self.x.fails("SR.scan", self.x("SR.get_all")[0])[0],
                         "OTHER_OPERATION_IN_PROGRESS")
        self.sim("option", name="lock_wait", value=60.0)
        self.sim("fault/clear")
        self.x("SR.scan", self.x("SR.get_all")[0])
        self.assertEqual(self.x.finish(task)["status"], "success")

    def test_copy(self):
        vdi = self.disks(self.x.named("VM", "archive"))["0"]
        copied = self.x("VDI.copy", vdi, self.x("SR.get_all")[0])
        sums = [self.sim("disk/checksum", vdi=self.x("VDI.get_uuid", v)) for v in (vdi, copied)]
        self.assertEqual(sums[0], sums[1])
        small = self.new_vdi()
        self.assertEqual(self.x.fails("VDI.copy", vdi, NULL, NULL, small)[0], "VDI_TOO_SMALL")


if __name__ == "__main__":
    unittest.main()
