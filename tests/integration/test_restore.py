# SPDX-License-Identifier: LGPL-2.1-or-later
"""Restores to chosen places, with names and addresses as wished, and restores that fail."""

import time
import unittest

from harness import FAILED, OK, REFUSED, PoolCase
from scenes import LOCAL_A, MIB, NETWORK, SHARED_SR, disk, scene, vm

MAC = "02:00:00:00:00:11"
SLOW = 32 * MIB


class Restore(PoolCase):
    """Points of VMs that still exist, restored beside them."""

    scene = scene(
        vm("web", disk(seed=1), disk(seed=2, sr=LOCAL_A),
           vifs=[{"network": NETWORK, "mac": MAC}, {"network": "Storage network"}],
           NVRAM={"EFI-variables": "AAECAwQ="}, tags=["gold"], description="the web server",
           platform={"videoram": "16"}, other_config={"folder": "/servers"}, vcpus=2),
        vm("slow", disk(SLOW, seed=3, data=SLOW), power_state="Halted"),
        vm("gone", disk(seed=4), vifs=[{"network": NETWORK, "mac": "02:00:00:00:00:22"}],
           power_state="Halted"),
        networks=[{"name": NETWORK, "purpose": ["nbd"]}, {"name": "Storage network"},
                  {"name": "Test network"}])

    def setUp(self):
        super().setUp()
        self.point = self.backup("web").point("web")

    def network_names(self, uuid):
        """Networks of a VM's interfaces in the order of their positions."""
        vifs = [self.pool.record("VIF", vif) for vif in self.pool.record("VM", uuid)["VIFs"]]
        return [self.pool.record("network", vif["network"])["name_label"]
                for vif in sorted(vifs, key=lambda vif: int(vif["device"]))]

    def macs(self, uuid):
        """MAC addresses of a VM."""
        vifs = [self.pool.record("VIF", vif) for vif in self.pool.record("VM", uuid)["VIFs"]]
        return [vif["MAC"] for vif in sorted(vifs, key=lambda vif: int(vif["device"]))]

    def storage(self, uuid):
        """Names of the storage repositories of a VM's disks."""
        return [self.pool.record("SR", self.pool.record("VDI", vdi)["SR"])["name_label"]
                for vdi in self.pool.disks(uuid)]

    def test_everything_as_it_was(self):
        report = self.restore(self.point, "--name", "{name} restored")
        uuid = self.assert_restored(report, "web")
        old, new = self.pool.record("VM", self.pool.vms("web")[0]), self.pool.record("VM", uuid)
        self.assertEqual(new["name_label"], "web restored")
        self.assertEqual(new["power_state"], "Halted")
        self.assertFalse(new["is_a_template"] or new["is_a_snapshot"])
        for field in ("name_description", "tags", "NVRAM", "VCPUs_max", "memory_static_max",
                      "HVM_boot_policy", "HVM_boot_params", "PV_args"):
            self.assertEqual(new[field], old[field], field)
        self.assertEqual(new["platform"]["videoram"], "16")
        self.assertEqual(new["other_config"]["folder"], "/servers")
        self.assertEqual(new["blocked_operations"], {})
        self.assertEqual(self.storage(uuid), [SHARED_SR, LOCAL_A])
        self.assertEqual(self.network_names(uuid), [NETWORK, "Storage network"])
        names = [self.pool.record("VDI", vdi)["name_label"] for vdi in self.pool.disks(uuid)]
        self.assertEqual(names, ["web disk 0", "web disk 1"])

    def test_restored_vm_starts(self):
        uuid = self.assert_restored(self.restore(self.point, "--name", "starts"), "web")
        ref = self.pool.sim("record/get", cls="VM", name=uuid)["ref"]
        self.pool.sim("call", method="VM.start", params=[ref, False, False])
        self.assertEqual(self.pool.record("VM", uuid)["power_state"], "Running")
        self.pool.sim("vm/power", vm=uuid, operation="shutdown")

    def test_mac_in_use_is_renewed(self):
        report = self.restore(self.point, "--name", "auto")
        self.assertIn("MAC_RENEWED", report.reasons("web"))
        self.assertNotIn(MAC, self.macs(self.assert_restored(report, "web")))

    def test_mac_kept(self):
        report = self.restore(self.point, "--name", "keep", "--mac", "keep")
        self.assertIn("MAC_DUPLICATE", report.reasons("web"))
        self.assertEqual(self.macs(self.assert_restored(report, "web"))[0], MAC)

    def test_mac_of_a_deleted_vm_is_kept(self):
        point = self.backup("gone").point("gone")
        self.forget("gone")
        report = self.restore(point)
        uuid = report.vm("gone")["new_uuid"]
        self.assertEqual(self.macs(uuid), ["02:00:00:00:00:22"])
        self.assertEqual(self.pool.record("VM", uuid)["name_label"], "gone")
        self.assert_same(self.pool.content(self.pool.disks(uuid)[0]), self.site.read_disk(point),
                         "gone")

    def test_mac_renewed(self):
        uuid = self.assert_restored(self.restore(self.point, "--name", "renew", "--mac", "renew"),
                                    "web")
        self.assertFalse(set(self.macs(uuid)) & set(self.macs("web")))

    def test_chosen_storage(self):
        uuid = self.assert_restored(self.restore(self.point, "--name", "x", "--sr", SHARED_SR),
                                    "web")
        self.assertEqual(self.storage(uuid), [SHARED_SR] * 2)

    def test_storage_by_map(self):
        uuid = self.assert_restored(
            self.restore(self.point, "--name", "x", "--sr-map", LOCAL_A + "=" + SHARED_SR), "web")
        self.assertEqual(self.storage(uuid), [SHARED_SR] * 2)

    def test_storage_of_one_disk(self):
        vdi = self.pool.disks("web")[0]
        uuid = self.assert_restored(
            self.restore(self.point, "--name", "x", "--disk-map",
                         vdi + "=" + self.pool.uuid("SR", LOCAL_A)), "web")
        self.assertEqual(self.storage(uuid), [LOCAL_A] * 2)

    def test_chosen_network(self):
        uuid = self.assert_restored(
            self.restore(self.point, "--name", "x", "--network", NETWORK + "=Test network"), "web")
        self.assertEqual(self.network_names(uuid), ["Test network", "Storage network"])

    def test_network_left_out(self):
        report = self.restore(self.point, "--name", "x", "--network", "Storage network=")
        self.assertIn("NETWORK_SKIPPED", report.reasons("web"))
        self.assertEqual(self.network_names(self.assert_restored(report, "web")), [NETWORK])

    def test_several_points_at_once(self):
        other = self.backup("slow").point("slow")
        report = self.run_tool("restore", self.point, other, "--name", "{name} copy")
        uuids = [report.vm(name)["new_uuid"] for name in ("web", "slow")]
        for uuid in uuids:
            self.addCleanup(self.forget, uuid)
        for name, uuid in zip(("web", "slow"), uuids):
            for original, copy in zip(self.pool.disks(name), self.pool.disks(uuid)):
                self.assert_same(self.pool.content(original), self.pool.content(copy), name)
        self.assert_clean(restored=uuids)

    def test_plan_equals_the_run(self):
        plan = self.run_tool("plan", "restore", self.point, "--name", "planned").vm("web")
        report = self.restore(self.point, "--name", "planned")
        uuid = self.assert_restored(report, "web")
        self.assertEqual(plan["new_name"], self.pool.record("VM", uuid)["name_label"])
        self.assertEqual([entry["sr"]["name"] for entry in plan["disks"]], self.storage(uuid))
        self.assertEqual([entry["network"]["name"] for entry in plan["vifs"]],
                         self.network_names(uuid))

    def test_name_template(self):
        report = self.restore(self.point, "--name", "{name} {point} {date}")
        name = self.pool.record("VM", self.assert_restored(report, "web"))["name_label"]
        self.assertRegex(name, "^web " + self.point[:8] + r" \d{4}-\d\d-\d\dT")

    # ---- refusals ----

    def assert_refused(self, *words, code, texts):
        """A restore is refused with a message; nothing is made."""
        result = self.run_tool("restore", self.point, "--name", "never", *words, code=code)
        for text in texts:
            self.assertIn(text, result.err)
        self.assertEqual(self.pool.vms("never"), [])
        self.assert_clean()

    def test_ambiguous_storage(self):
        self.pool.set("SR", LOCAL_A, name_label=SHARED_SR)
        uuids = [sr["uuid"] for sr in self.pool.sim("state")["srs"]
                 if sr["name_label"] == SHARED_SR]
        self.addCleanup(self.rename_back, uuids)
        self.assertEqual(len(uuids), 2)
        self.assert_refused("--sr", SHARED_SR, code=REFUSED, texts=["SR_AMBIGUOUS", *uuids])

    def rename_back(self, uuids):
        """Gives the local storage its name again."""
        for uuid in uuids:
            if not self.pool.record("SR", uuid)["shared"]:
                self.pool.set("SR", uuid, name_label=LOCAL_A)

    def test_unknown_storage(self):
        self.assert_refused("--sr", "nowhere", code=REFUSED,
                            texts=["SR_NOT_FOUND", "nowhere", SHARED_SR])

    def test_unknown_network(self):
        self.assert_refused("--network", NETWORK + "=nowhere", code=REFUSED,
                            texts=["NETWORK_NOT_FOUND", "nowhere", "Test network"])

    def test_too_small_storage(self):
        self.pool.sim("sr/fill", sr=LOCAL_A, free=MIB)
        self.addCleanup(self.pool.sim, "sr/fill", sr=LOCAL_A, used=0)
        self.assert_refused("--sr", LOCAL_A, code=REFUSED, texts=["SR_TOO_SMALL", LOCAL_A])

    def test_unknown_point(self):
        for point in ("0123456789abcdef0123456789abcdef", "latest:nobody", "zz"):
            result = self.site.run("restore", point)
            self.assertNotEqual(result.code, OK)
            self.assertIn(point, result.err)

    def test_no_points_given(self):
        self.run_tool("restore", code=2)

    # ---- failures ----

    def assert_failed(self, result, *texts):
        """A restore failed with a message and left nothing."""
        self.assertEqual(result.code, FAILED, str(result))
        for text in texts:
            self.assertIn(text, result.err + result.out)
        self.assertEqual(self.pool.vms("never"), [])
        self.assert_clean()

    def test_second_disk_cannot_be_made(self):
        self.pool.fault("VDI.create", nth=2, count=0,
                        error=["SR_BACKEND_FAILURE_44", "", "There is insufficient space", ""])
        self.assert_failed(self.site.run("restore", self.point, "--name", "never"),
                           "SR_BACKEND_FAILURE_44")

    def test_import_fails_late(self):
        self.pool.fault("transfer", nth=5, count=0, error=["VDI_IO_ERROR", "OpaqueRef:x"])
        self.assert_failed(self.site.run("restore", self.point, "--name", "never"))

    def test_import_is_cut(self):
        self.pool.fault("transfer", nth=5, cut=True)
        result = self.site.run("restore", self.point, "--name", "never")
        if result.code == OK:
            self.assert_restored(result, "web")
        else:
            self.assert_failed(result)

    def test_vm_cannot_be_made(self):
        self.pool.fault("VM.create", count=0, error=["LICENCE_RESTRICTION", "x"])
        self.assert_failed(self.site.run("restore", self.point, "--name", "never"),
                           "LICENCE_RESTRICTION")

    def test_interface_cannot_be_made(self):
        self.pool.fault("VIF.create", count=0, error=["NETWORK_NOT_ATTACHED", "x"])
        result = self.site.run("restore", self.point, "--name", "never")
        if result.code == OK:
            self.assertTrue(result.reasons("web") & {"VM_PART_NOT_RESTORED"}, str(result))
            self.assert_restored(result, "web")
        else:
            self.assert_failed(result, "NETWORK_NOT_ATTACHED")

    def test_interface_without_locking(self):
        """A pool whose licence does not allow address locking: the report says so."""
        interface = self.pool.record("VM", "web")["VIFs"][0]
        self.pool.set("VIF", interface, locking_mode="locked")
        point = self.backup("web").point("web")
        self.pool.fault("VIF.create", error=["LICENCE_RESTRICTION", "x"])
        result = self.site.run("restore", point, "--name", "unlocked")
        self.assertEqual(result.code, OK, str(result))
        self.assertIn("VM_PART_NOT_RESTORED", result.reasons("web"))
        self.assertIn("address locking", str(result))

    def test_storage_fills_up(self):
        self.backup("slow")
        self.pool.fault("transfer", count=0, delay=0.2)
        running = self.site.start("restore", "latest:slow", "--name", "never")
        self.addCleanup(lambda: running.process.poll() is None and running.kill())
        self.pool.await_call("Async.VDI.create", self.pool.called("Async.VDI.create"))
        time.sleep(0.5)
        self.pool.fault("transfer", count=0, error=["SR_BACKEND_FAILURE_44", "", "full", ""])
        self.pool.sim("fault/remove", id=self.pool.sim("fault/list")["faults"][0]["id"])
        result = running.wait()
        self.pool.sim("fault/clear")
        self.assert_failed(result, "SR_BACKEND_FAILURE_44")

    def test_session_expires(self):
        self.backup("slow")
        self.pool.fault("transfer", count=0, delay=0.02)
        created = self.pool.called("Async.VDI.create")
        running = self.site.start("restore", "latest:slow", "--name", "late")
        self.addCleanup(lambda: running.process.poll() is None and running.kill())
        self.pool.await_call("Async.VDI.create", created + 1)
        time.sleep(0.5)
        self.pool.sim("session/expire")
        result = running.wait()
        self.assertEqual(result.code, OK, str(result))
        self.assert_restored(result, "slow")


if __name__ == "__main__":
    unittest.main()
