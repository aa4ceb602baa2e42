# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which VMs and disks a backup is about."""

import unittest

from harness import FAILED, OK, USAGE, PoolCase
from scenes import CHUNK, MIB, SHARED_SR, disk, scene, vm


class Selection(PoolCase):
    """VMs by name, uuid, tag, pattern; exclusions of VMs and disks."""

    scene = scene(
        vm("web-1", disk(seed=1), tags=["gold", "web"]),
        vm("web-2", disk(seed=2), tags=["web"]),
        vm("db", disk(seed=3), disk(4 * MIB, seed=4, name="scratch"), tags=["gold"]),
        vm("twin", disk(seed=5), power_state="Halted"),
        {"name": "a template", "template": True, "disks": [disk(seed=6)]},
        vm("with [brackets]", power_state="Halted"))

    def planned(self, *words, code=OK):
        """Names of the VMs in a plan."""
        plan = self.run_tool("plan", "backup", *words, code=code)
        return sorted(entry["name"] for entry in plan.document["vms"])

    def test_name(self):
        self.assertEqual(self.planned("web-1"), ["web-1"])
        self.assertEqual(self.planned("with [brackets]"), ["with [brackets]"])

    def test_several_names(self):
        self.assertEqual(self.planned("web-1", "db", "db"), ["db", "web-1"])

    def test_uuid(self):
        self.assertEqual(self.planned(self.pool.uuid("VM", "db")), ["db"])
        self.assertEqual(self.planned(self.pool.uuid("VM", "db").upper()), ["db"])

    def test_tag(self):
        self.assertEqual(self.planned("--tag", "gold"), ["db", "web-1"])
        self.assertEqual(self.planned("--tag", "gold", "--tag", "web"), ["db", "web-1", "web-2"])

    def test_pattern(self):
        self.assertEqual(self.planned("--pattern", "web-*"), ["web-1", "web-2"])
        self.assertEqual(self.planned("--pattern", "[dt]*"), ["db", "twin"])

    def test_all(self):
        self.assertEqual(self.planned("--all"), ["db", "proxy-a", "proxy-b", "twin", "web-1",
                                                 "web-2", "with [brackets]"])

    def test_exclusions(self):
        self.assertEqual(self.planned("--all", "--exclude", "proxy-*", "--exclude", "twin",
                                      "--exclude-tag", "web"), ["db", "with [brackets]"])
        self.assertEqual(self.planned("--pattern", "web-*", "--exclude",
                                      self.pool.uuid("VM", "web-1")), ["web-2"])

    def test_unknown(self):
        for word in ("nobody", "a template", "01234567-89ab-cdef-0123-456789abcdef"):
            result = self.run_tool("plan", "backup", word, code=FAILED)
            self.assertIn(word, result.err)
            self.assertIn("NOT_FOUND", result.err)

    def test_nothing_selected(self):
        self.run_tool("plan", "backup", code=USAGE)
        self.assertEqual(self.planned("--tag", "no such tag"), [])

    def test_wrong_option_values(self):
        for words in (["--transport", "pigeon"], ["--cbt", "maybe"], ["--refuse", "NO_SUCH"],
                      ["--parallel", "-3"], ["--parallel", "many"]):
            result = self.site.run("plan", "backup", "--all", *words)
            self.assertNotEqual(result.code, OK, str(result))
            self.assertNotIn("internal", result.err.lower())

    def test_backup_of_several(self):
        report = self.backup("--tag", "gold", "twin")
        for name in ("web-1", "db", "twin"):
            self.assert_point(report.point(name), name)
        self.assertEqual(len(self.site.points()), 3)
        self.assertEqual(len(self.site.points("db")), 1)
        self.assert_clean()

    def test_excluded_disk(self):
        for word in ("db:1", "scratch", self.pool.disks("db")[1]):
            plan = self.run_tool("plan", "backup", "db", "--exclude-disk", word)
            self.assertEqual([entry["action"] for entry in plan.vm("db")["disks"]],
                             ["backup", "skip"], word)
        report = self.backup("db", "--exclude-disk", "db:1")
        self.assertIn("DISK_EXCLUDED", report.reasons("db", 1))
        again = self.restore("latest:db", "--name", "half")
        uuid = self.new_vm(again, "db")
        original, copies = self.pool.disks("db")[0], self.pool.disks(uuid)
        self.assertEqual(len(copies), 1)
        self.assert_same(self.pool.content(original), self.pool.content(copies[0]), "db")
        self.assert_clean(restored=[uuid])

    def test_excluded_disk_of_another_vm(self):
        plan = self.run_tool("plan", "backup", "db", "web-1", "--exclude-disk", "web-1:0")
        self.assertEqual([entry["action"] for entry in plan.vm("db")["disks"]], ["backup"] * 2)
        self.assertEqual([entry["action"] for entry in plan.vm("web-1")["disks"]], ["skip"])

    def test_disk_included_later(self):
        self.backup("db", "--exclude-disk", "db:1")
        report = self.backup("db")
        self.assertIn("DISK_NEW", report.reasons("db", 1))
        self.assertEqual(report.disk("db", 0)["mode"], "incremental")
        self.assert_point(report.point("db"), "db")

    def test_job_of_the_configuration(self):
        selection = {"vms": [{"regex": "^web-[0-9]$"}], "exclude": {"vms": [{"name": "web-2"}]}}
        self.site.config["jobs"] = [{"name": "nightly", "pool": "pool", "repository": "repo",
                                     "job": {"type": "backup", "selection": selection}}]
        self.site.write_config()
        report = self.backup("--job", "nightly")
        self.assertEqual([entry["name"] for entry in report.document["vms"]], ["web-1"])


class SpecialDisks(PoolCase):
    """Disks that are shared, reset at boot, missing, or read only."""

    scene = scene(
        vm("left", disk(seed=1), disk(seed=2, name="common", sharable=True)),
        vm("right", disk(seed=3), {"shared_with": "common", "sr": SHARED_SR}),
        vm("volatile", disk(seed=4), disk(seed=5, on_boot="reset"), power_state="Halted"),
        vm("lost", disk(seed=6), disk(seed=7)),
        vm("readonly", disk(seed=8), disk(seed=9, mode="RO")))

    def test_shared_disk(self):
        for name in ("left", "right"):
            report = self.backup(name)
            self.assertIn("DISK_SHARED", report.reasons(name, 1))
            self.assertEqual(report.disk(name, 0)["mode"], "full")
        self.assert_clean()

    def test_shared_disk_refused_by_policy(self):
        report = self.run_tool("plan", "backup", "left", "--refuse", "DISK_SHARED")
        self.assertEqual(report.vm("left")["action"], "refuse")

    def test_disk_reset_at_boot(self):
        """The pool makes no snapshot of such a VM, whether the disk is left out or not."""
        for words in ([], ["--exclude-disk", "volatile:1"]):
            plan = self.run_tool("plan", "backup", "volatile", *words)
            self.assertEqual(plan.vm("volatile")["action"], "refuse")
            self.assertIn("DISK_RESET_ON_BOOT", plan.reasons("volatile", 1))

    def test_missing_disk(self):
        vdi = self.pool.disks("lost")[1]
        self.pool.set("VDI", vdi, missing=True)
        self.addCleanup(self.pool.set, "VDI", vdi, missing=False)
        report = self.backup("lost")
        self.assertIn("DISK_MISSING", report.reasons("lost", 1))

    def test_read_only_disk(self):
        report = self.backup("readonly")
        self.pool.write(self.pool.disks("readonly")[0], 0, CHUNK)
        self.assert_restored(self.restore(self.backup("readonly").point("readonly"), "--name",
                                          "again"), "readonly")
        self.assertEqual(len(report.vm("readonly")["disks"]), 2)


if __name__ == "__main__":
    unittest.main()
