# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every way to do less than asked has its reason, and policy can refuse it."""

import os
import time
import unittest

from harness import OK, PARTIAL, REFUSED, PoolCase
from scenes import CHUNK, MIB, NETWORK, SHARED_SR, disk, scene, vm

SIZE = 8 * MIB


class Tracking(PoolCase):
    """Changed block tracking that is off, lost, interrupted or wrong."""

    scene = scene(vm("web", disk(seed=1, data=SIZE, cbt=True)), vm("new", disk(seed=2)),
                  vm("spare", disk(seed=5)),
                  vm("two", disk(seed=3), disk(seed=4), host="host-b"))

    def setUp(self):
        super().setUp()
        self.vdi = self.pool.disks("web")[0]
        ref = self.pool.sim("record/get", cls="VDI", name=self.vdi)["ref"]
        self.pool.sim("call", method="VDI.enable_cbt", params=[ref])

    def change(self):
        self.pool.write(self.vdi, 3 * MIB, 2 * CHUNK, seed=type(self).count)

    def assert_compared(self, reason, *words):
        """A second backup reads all, tells why, stores the right bytes; the third is cheap."""
        report = self.backup("web", *words)
        self.assertEqual(report.disk("web")["mode"], "compare", str(report))
        self.assertIn(reason, report.reasons("web", 0))
        self.assertLess(report.disk("web")["bytes"]["new"], MIB)
        self.assert_point(report.point("web"), "web")
        self.change()
        third = self.backup("web")
        self.assertEqual(third.disk("web")["mode"], "incremental", str(third))
        self.assert_point(third.point("web"), "web")
        self.assert_clean()
        return report

    def test_switched_on_where_possible(self):
        vdi = self.pool.disks("new")[0]
        report = self.backup("new")
        self.assertIn("CBT_ENABLED", report.reasons("new", 0))
        self.assertTrue(self.pool.record("VDI", vdi)["cbt_enabled"])
        self.pool.write(vdi, 0, CHUNK)
        report = self.backup("new")
        self.assertEqual(report.disk("new")["mode"], "incremental", str(report))
        self.assert_point(report.point("new"), "new")

    def test_not_switched_on_unless_wanted(self):
        for vdi in self.pool.disks("two"):
            self.assertFalse(self.pool.record("VDI", vdi)["cbt_enabled"])
        self.backup("two", "--cbt", "use")
        report = self.backup("two", "--cbt", "use")
        self.assertIn("CBT_NOT_ENABLED", report.reasons("two", 0))
        self.assertEqual(report.disk("two")["mode"], "compare")
        for vdi in self.pool.disks("two"):
            self.assertFalse(self.pool.record("VDI", vdi)["cbt_enabled"])
        self.assert_clean()

    def test_not_used_on_request(self):
        self.backup("web", "--cbt", "off")
        self.change()
        report = self.backup("web", "--cbt", "off")
        self.assertIn("CBT_DISABLED_BY_POLICY", report.reasons("web", 0))
        self.assertEqual(report.disk("web")["mode"], "compare")
        self.assert_point(report.point("web"), "web")
        self.assert_clean()

    def test_no_licence(self):
        ref = self.pool.sim("record/get", cls="VDI", name=self.vdi)["ref"]
        self.pool.sim("call", method="VDI.disable_cbt", params=[ref])
        pool = self.pool.ready["pool"]
        before = self.pool.record("pool", pool)["restrictions"]
        self.pool.sim("option", name="cbt_licence", value=False)
        self.pool.set("pool", pool, restrictions={**before, "restrict_cbt": "true"})
        self.addCleanup(self.pool.sim, "option", name="cbt_licence", value=True)
        self.addCleanup(self.pool.set, "pool", pool, restrictions=before)
        report = self.backup("web")
        self.assertIn("CBT_NOT_LICENSED", report.reasons("web", 0))
        self.assert_point(report.point("web"), "web")

    def test_off_and_on_again(self):
        self.backup("web")
        self.change()
        self.pool.sim("disk/break-cbt", vdi=self.vdi, how="reset")
        self.change()
        report = self.backup("web")
        self.assertEqual(report.disk("web")["mode"], "compare", str(report))
        self.assertTrue(report.reasons("web", 0) & {"CBT_RESET", "CBT_LIST_FAILED"}, str(report))
        self.assert_point(report.point("web"), "web")
        self.assert_clean()

    def test_off(self):
        self.backup("web")
        self.change()
        self.pool.sim("disk/break-cbt", vdi=self.vdi, how="off")
        self.assert_compared("CBT_NOT_ENABLED")

    def test_snapshot_of_the_base_gone(self):
        self.backup("web")
        snapshot = self.run_tool("point", "show", "latest:web").document["disks"][0]["metadata"][
            "snapshot"]
        ref = self.pool.sim("record/get", cls="VDI", name=snapshot)["ref"]
        self.pool.sim("call", method="VDI.destroy", params=[ref])
        self.change()
        self.assert_compared("CBT_BASE_GONE")

    def test_point_to_compare_with_is_damaged(self):
        point = self.backup("web", "spare").point("web")
        self.damage(point)
        report = self.backup("web", "spare")
        self.assertEqual(report.disk("web")["mode"], "full", str(report))
        self.assertIn("BASE_POINT_DAMAGED", report.reasons("web"))
        self.assertNotEqual(report.disk("spare")["mode"], "full", str(report))
        self.assert_point(report.point("web"), "web")

    def damage(self, point):
        """Changes a byte of a restore point's object."""
        path, = [os.path.join(folder, name) for folder, _, names in os.walk(self.site.repo)
                 for name in names if point in name]
        with open(path, "r+b") as file:
            file.seek(-40, os.SEEK_END)
            byte = file.read(1)[0]
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte ^ 1]))

    def test_list_of_changes_fails(self):
        self.backup("web")
        self.change()
        self.pool.fault("VDI.list_changed_blocks", count=0,
                        error=["SR_BACKEND_FAILURE_459", "", "log is inconsistent", ""])
        report = self.backup("web")
        self.assertEqual(report.disk("web")["mode"], "compare", str(report))
        self.assertIn("CBT_LIST_FAILED", report.reasons("web", 0))
        self.assert_point(report.point("web"), "web")
        self.assert_clean()

    def test_log_lost(self):
        self.backup("web")
        self.change()
        self.pool.sim("disk/break-cbt", vdi=self.vdi, how="lost")
        report = self.backup("web")
        self.assertEqual(report.disk("web")["mode"], "compare", str(report))
        self.assert_point(report.point("web"), "web")
        self.assert_clean()

    def test_tracking_that_lies(self):
        self.backup("web")
        self.pool.write(self.vdi, 0, SIZE, seed=99)
        self.pool.sim("disk/lie-cbt", vdi=self.vdi, blocks=list(range(1, SIZE // CHUNK)))
        report = self.backup("web")
        self.assertIn("CBT_LIED", report.reasons("web", 0))
        self.assert_point(report.point("web"), "web")
        report = self.backup("web")
        self.assert_point(report.point("web"), "web")
        self.assert_verified()

    def test_policy_refuses_what_the_plan_knows(self):
        self.backup("web")
        self.pool.sim("disk/break-cbt", vdi=self.vdi, how="off")
        plan = self.run_tool("plan", "backup", "web", "--refuse", "CBT_NOT_ENABLED")
        self.assertEqual(plan.vm("web")["action"], "refuse")
        result = self.run_tool("backup", "web", "--refuse", "CBT_NOT_ENABLED", code=REFUSED)
        self.assertIn("CBT_NOT_ENABLED", result.err)
        self.assertEqual(len(self.site.points()), 1)
        report = self.backup("web", "two", "--refuse", "CBT_NOT_ENABLED", code=PARTIAL)
        self.assertEqual(report.vm("web")["state"], "refused")
        self.assertEqual(report.vm("two")["state"], "succeeded")

    def test_policy_refuses_what_shows_later(self):
        self.backup("web")
        self.change()
        self.pool.fault("VDI.list_changed_blocks", count=0,
                        error=["SR_BACKEND_FAILURE_459", "", "log is inconsistent", ""])
        result = self.backup("web", "--refuse", "CBT_LIST_FAILED", code=REFUSED)
        self.assertIn("CBT_LIST_FAILED", result.err)
        self.assertEqual(len(self.site.points()), 1)
        self.assert_clean()

    def test_enabling_fails(self):
        self.pool.fault("VDI.enable_cbt", count=0, error=["SR_BACKEND_FAILURE_24", "", "", ""])
        for vdi in self.pool.disks("two"):
            self.pool.sim("disk/break-cbt", vdi=vdi, how="off")
        report = self.backup("two")
        self.assertIn("CBT_ENABLE_FAILED", report.reasons("two", 0))
        self.assert_point(report.point("two"), "two")
        self.assert_clean()

    def test_replaced_disk(self):
        self.backup("two")
        vbd = self.pool.record("VM", "two")["VBDs"][1]
        old = self.pool.disks("two")[1]
        spare = self.pool.disks("spare")[0]
        ref = self.pool.sim("record/get", cls="VDI", name=spare)["ref"]
        before = self.pool.record("VBD", vbd)["VDI"]
        self.pool.set("VBD", vbd, VDI=ref)
        self.addCleanup(self.pool.set, "VBD", vbd, VDI=before)
        report = self.backup("two")
        self.assertIn("DISK_REPLACED", report.reasons("two", 1))
        self.assertIn(old, report.detail("two", "DISK_REPLACED"))
        self.assert_same(self.pool.content(spare), self.site.read_disk(report.point("two"), 1),
                         "replaced disk")


class OtherStorage(PoolCase):
    """Storage that can't track changes."""

    scene = scene(vm("plain", disk(seed=1)),
                  srs=[{"name": SHARED_SR, "type": "linstor", "shared": True, "size": "1 TiB",
                        "default": True}])

    def test_unsupported(self):
        self.backup("plain")
        self.pool.write(self.pool.disks("plain")[0], MIB, CHUNK)
        report = self.backup("plain")
        self.assertEqual(report.disk("plain")["mode"], "compare")
        self.assertIn("CBT_UNSUPPORTED_SR", report.reasons("plain", 0))
        self.assertIn("linstor", report.detail("plain", "CBT_UNSUPPORTED_SR"))
        self.assert_point(report.point("plain"), "plain")
        self.assert_restored(self.restore("latest:plain", "--name", "again"), "plain")


class Transport(PoolCase):
    """NBD that is not offered, insecure, refused or broken."""

    scene = scene(vm("web", disk(seed=1), disk(seed=2)))

    def set_purpose(self, *purpose):
        self.pool.set("network", NETWORK, purpose=list(purpose))
        self.addCleanup(self.pool.set, "network", NETWORK, purpose=["nbd"])

    def assert_http(self, reason, *words):
        report = self.backup("web", *words)
        for index in range(2):
            self.assertEqual(report.disk("web", index)["transport"], "http")
            self.assertIn(reason, report.reasons("web", index))
        self.assert_point(report.point("web"), "web")
        self.assert_clean()

    def test_nbd_not_offered(self):
        self.set_purpose()
        self.assert_http("NBD_NOT_ENABLED")

    def test_nbd_not_wanted(self):
        self.assert_http("NBD_REFUSED_BY_POLICY", "--transport", "http")

    def test_http_not_wanted(self):
        self.set_purpose()
        result = self.site.run("backup", "web", "--transport", "nbd")
        self.assertNotEqual(result.code, OK, str(result))
        self.assertEqual(self.site.points(), [])
        self.assert_clean()

    def test_insecure_nbd_not_used(self):
        self.set_purpose("insecure_nbd")
        self.assert_http("NBD_NOT_ENABLED")

    def test_insecure_nbd_on_request(self):
        self.set_purpose("insecure_nbd")
        report = self.backup("web", "--insecure-nbd")
        self.assertEqual(report.disk("web")["transport"], "nbd", str(report))
        self.assert_point(report.point("web"), "web")
        self.assert_clean()

    def test_incremental_over_http(self):
        self.backup("web", "--transport", "http")
        self.pool.write(self.pool.disks("web")[0], 5 * MIB, CHUNK)
        report = self.backup("web", "--transport", "http")
        self.assert_point(report.point("web"), "web")
        self.assert_clean()

    def test_nbd_addresses_not_told(self):
        self.pool.fault("VDI.get_nbd_info", count=0, error=["HOST_OFFLINE", "OpaqueRef:x"])
        self.assert_http("NBD_FAILED")

    def test_nbd_refuses_connections(self):
        for host in ("host-a", "host-b"):
            self.pool.nbd(host, refuse=True)
        self.assert_http("NBD_FAILED")

    def test_nbd_answers_with_errors(self):
        for host in ("host-a", "host-b"):
            self.pool.nbd(host, error_after=3)
        report = self.backup("web")
        self.assert_point(report.point("web"), "web")
        self.assert_clean()

    def test_policy_insists_on_nbd(self):
        for host in ("host-a", "host-b"):
            self.pool.nbd(host, refuse=True)
        result = self.backup("web", "--refuse", "NBD_FAILED", code=REFUSED)
        self.assertIn("NBD_FAILED", result.err)
        self.assertEqual(self.site.points(), [])
        self.assert_clean()


class Admission(PoolCase):
    """Snapshots that their storage repository should not be asked for."""

    scene = scene(
        vm("thick", disk(seed=1, size=24 * MIB, sr="LVM")), vm("deep", disk(seed=2)),
        vm("thin", disk(seed=3)),
        srs=[{"name": SHARED_SR, "type": "nfs", "shared": True, "size": "1 TiB", "default": True},
             {"name": "LVM", "type": "lvmoiscsi", "shared": True, "size": "1 GiB"}],
        options={"coalesce_delay": -1})

    def test_thick_storage_is_full(self):
        self.pool.sim("sr/fill", sr="LVM", free=10 * MIB)
        self.addCleanup(self.pool.sim, "sr/fill", sr="LVM", free=512 * MIB)
        plan = self.run_tool("plan", "backup", "thick", "thin")
        self.assertEqual(plan.vm("thick")["action"], "refuse")
        self.assertIn("10485760 bytes are free", plan.detail("thick", "SR_SPACE_LOW"))
        self.assertEqual(plan.vm("thin")["action"], "backup")
        self.backup("thick", code=REFUSED)
        self.assertEqual(self.pool.called("VM.snapshot"), 0)
        self.pool.sim("sr/fill", sr="LVM", free=512 * MIB)
        self.backup("thick")
        self.assert_clean()

    def test_chains_stay_short(self):
        self.pool.sim("option", name="coalesce_delay", value=0.0)
        self.addCleanup(self.pool.sim, "option", name="coalesce_delay", value=-1.0)
        for number in range(3):
            self.backup("thin", site=self.deploy("other%d" % number))
        vdi = self.pool.disks("thin")[0]

        def parent():
            return self.pool.record("VDI", vdi)["sm_config"].get("vhd-parent")
        deadline = time.monotonic() + 60
        while parent() and time.monotonic() < deadline:
            time.sleep(0.1)
        self.assertIsNone(parent())

    def test_deep_chain(self):
        vdi = self.pool.disks("deep")[0]
        ref = self.pool.sim("record/get", cls="VDI", name=vdi)["ref"]
        made = [self.pool.sim("call", method="VDI.snapshot", params=[ref, {}])["value"]
                for _ in range(26)]
        self.addCleanup(lambda: [self.pool.sim("call", method="VDI.destroy", params=[one])
                                 for one in made])
        plan = self.run_tool("plan", "backup", "deep", "thick")
        self.assertEqual(plan.vm("deep")["action"], "refuse")
        self.assertIn("27 nodes", plan.detail("deep", "CHAIN_TOO_DEEP"))
        self.assertEqual(plan.vm("thick")["action"], "backup")
        document = self.run_tool("pool", "show").document
        entry = next(one for one in document["vms"] if one["name"] == "deep")
        self.assertEqual(entry["disks"][0]["chain"], 27)


if __name__ == "__main__":
    unittest.main()
