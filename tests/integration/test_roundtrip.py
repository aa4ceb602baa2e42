# SPDX-License-Identifier: LGPL-2.1-or-later
"""Backup, change, incremental backup, restore and comparison."""

import random
import unittest

from harness import DAMAGED, FAILED, OK, PoolCase
from scenes import CHUNK, LOCAL_A, MIB, disk, scene, vm

LARGE = 96 * MIB


class RoundTrip(PoolCase):
    """VMs of several shapes on a pool that offers everything."""

    scene = scene(
        vm("web", disk(LARGE, seed=1, data=LARGE)),
        vm("db", disk(seed=2), disk(4 * MIB, seed=3, data=4 * MIB), host="host-b"),
        vm("grow", disk(seed=4)),
        vm("empty"),
        vm("sparse", disk(64 * MIB, seed=5, data=0)),
        vm("off", disk(seed=6), power_state="Halted"),
        vm("local", disk(seed=7, sr=LOCAL_A)))

    def change(self, vdi, chunks, seed):
        """Writes a few bytes into some chunks; returns how many chunks."""
        places = random.Random(seed).sample(range(LARGE // CHUNK), chunks)
        for place in places:
            self.pool.write(vdi, place * CHUNK + 512 * (place % 100), 3000, seed=place)
        return len(places)

    def test_full_change_incremental_restore(self):
        first = self.backup("web")
        self.assertEqual(first.disk("web")["mode"], "full")
        self.assertEqual(first.disk("web")["transport"], "nbd")
        self.assertEqual(first.reasons("web", 0) - {"CBT_ENABLED", "CBT_NOT_ENABLED"},
                         {"FIRST_BACKUP"})
        vdi = self.pool.disks("web")[0]
        before = self.pool.content(vdi)
        changed = self.change(vdi, 150, seed=1) * CHUNK
        second = self.backup("web")
        self.assertEqual(second.disk("web")["mode"], "incremental")
        read = second.disk("web")["bytes"]["read"]
        self.assertGreaterEqual(read, changed)
        self.assertLessEqual(read, 1.1 * changed)
        self.assert_same(before, self.site.read_disk(first.point("web")), "first point")
        self.assert_point(second.point("web"), "web")
        self.assert_restored(self.restore("latest:web", "--name", "web again"), "web")
        self.assert_verified()

    def test_unchanged_vm_reads_almost_nothing(self):
        self.backup("web")
        second = self.backup("web")
        self.assertEqual(second.disk("web")["mode"], "incremental")
        self.assertLess(second.disk("web")["bytes"]["read"], LARGE / 10)
        self.assert_point(second.point("web"), "web")
        self.assert_clean()

    def test_several_disks(self):
        report = self.backup("db")
        self.assertEqual(len(report.vm("db")["disks"]), 2)
        for vdi in self.pool.disks("db"):
            self.pool.write(vdi, 3 * MIB, CHUNK)
        self.backup("db")
        self.assert_restored(self.restore("latest:db", "--name", "db again"), "db")

    def test_grown_disk(self):
        first = self.backup("grow")
        vdi = self.pool.disks("grow")[0]
        before = self.pool.content(vdi)
        self.pool.sim("vm/power", vm="grow", operation="shutdown")
        ref = self.pool.sim("record/get", cls="VDI", name=vdi)["ref"]
        self.pool.sim("call", method="VDI.resize", params=[ref, 12 * MIB])
        self.pool.write(vdi, 12 * MIB - 5000, 5000)
        self.pool.write(vdi, 8 * MIB - 100, 200)
        second = self.backup("grow")
        self.assertEqual(second.disk("grow")["size"], 12 * MIB)
        self.assertEqual(second.disk("grow")["mode"], "incremental", second)
        self.assert_point(second.point("grow"), "grow")
        self.assert_same(before, self.site.read_disk(first.point("grow")), "first point")
        self.assert_restored(self.restore("latest:grow", "--name", "grown"), "grow")

    def test_vm_without_disks(self):
        report = self.backup("empty")
        self.assertIn("VM_HAS_NO_DISKS", report.reasons("empty"))
        self.assert_restored(self.restore("latest:empty", "--name", "empty again"), "empty")

    def test_disk_of_zeros(self):
        report = self.backup("sparse")
        self.assertLess(report.disk("sparse")["bytes"]["stored"], MIB)
        self.assert_point(report.point("sparse"), "sparse")
        self.assert_restored(self.restore("latest:sparse", "--name", "zeros"), "sparse")

    def test_halted_vm(self):
        report = self.backup("off")
        self.assertNotIn("CRASH_CONSISTENT", report.reasons("off"))
        self.assert_restored(self.restore("latest:off", "--name", "off again"), "off")

    def test_local_storage_with_a_proxy_on_its_host(self):
        report = self.backup("local")
        self.assertEqual(report.disk("local")["proxy"], "proxy-a")
        self.assert_restored(self.restore("latest:local", "--name", "local again"), "local")

    def test_deleted_point(self):
        first = self.backup("db")
        self.pool.write(self.pool.disks("db")[0], 0, CHUNK, seed=77)
        second = self.backup("db")
        self.run_tool("point", "delete", first.point("db"), "--yes")
        self.assertEqual([point["id"] for point in self.site.points()], [second.point("db")])
        self.run_tool("point", "show", first.point("db"), code=FAILED)
        self.assert_point(second.point("db"), "db")
        third = self.backup("db")
        self.assertEqual(third.disk("db")["mode"], "incremental")
        self.run_tool("point", "delete", third.point("db"), "--yes")
        self.assert_verified()
        fourth = self.backup("db")
        self.assert_point(fourth.point("db"), "db")
        self.assert_verified()

    def test_all_points_deleted(self):
        self.run_tool("point", "delete", self.backup("db").point("db"), "--yes")
        self.assertEqual(self.site.points(), [])
        report = self.backup("db")
        self.assertIn("FIRST_BACKUP", report.reasons("db"))
        self.assert_point(report.point("db"), "db")

    def test_two_repositories_track_apart(self):
        other = self.deploy("other")
        self.backup("web")
        self.backup("web", site=other)
        vdi = self.pool.disks("web")[0]
        self.pool.write(vdi, 5 * MIB, MIB)
        for site in (self.site, other):
            report = self.backup("web", site=site)
            self.assertEqual(report.disk("web")["mode"], "incremental", str(report))
            self.assert_point(report.point("web"), "web", site=site)
        self.assert_clean()

    def test_without_encryption(self):
        site = self.deploy("plain", init=False)
        site.config["repositories"][0] = {"name": "repo", "url": "file://" + site.repo,
                                          "no_encryption": True}
        site.write_config()
        site.init()
        report = self.backup("db", site=site)
        self.assert_point(report.point("db"), "db", site=site)
        self.assert_verified(site=site)

    def test_jobs_are_listed(self):
        self.backup("db", "--name", "nightly")
        self.run_tool("repo", "verify")
        jobs = self.run_tool("jobs").document
        self.assertEqual([job["type"] for job in jobs], ["verify", "backup"])
        self.assertEqual([job["state"] for job in jobs], ["succeeded", "succeeded"])
        self.assertEqual(jobs[1]["name"], "nightly")

    def test_plan_changes_nothing(self):
        calls = len(self.pool.sim("made")["objects"])
        plan = self.run_tool("plan", "backup", "--all")
        self.assertGreater(len(plan.document["vms"]), 5)
        self.assertEqual(len(self.pool.sim("made")["objects"]), calls)
        self.assertEqual(self.site.points(), [])


class OddSizes(PoolCase):
    """Storage that rounds nothing: disks whose size is no multiple of a chunk."""

    scene = scene(vm("odd", disk(3 * MIB + 512, seed=1, data=3 * MIB),
                     disk(CHUNK + 1024, seed=2, data=CHUNK + 1024)),
                  srs=[{"name": "Shared storage", "type": "nfs", "shared": True, "size": "1 TiB",
                        "default": True}],
                  options={"round": 512})

    def test_odd_sizes(self):
        self.backup("odd")
        first, second = self.pool.disks("odd")
        self.pool.write(first, 3 * MIB - 100, 612)
        self.pool.write(second, CHUNK + 512, 512)
        report = self.backup("odd")
        self.assertEqual(report.disk("odd")["mode"], "incremental")
        self.assert_point(report.point("odd"), "odd")
        self.assert_restored(self.restore("latest:odd", "--name", "odd again"), "odd")
        self.assert_verified()


class PlainHttp(PoolCase):
    """A pool without TLS, on request only."""

    scene = scene(vm("web", disk(seed=1)))
    tls = False

    def deploy(self, name="site", init=None, **options):
        return super().deploy(name, init, allow_plain_http=True, **options)

    def test_round_trip(self):
        self.backup("web")
        self.assert_restored(self.restore("latest:web", "--name", "web again"), "web")

    def test_refused_by_default(self):
        self.site.config["pools"][0]["allow_plain_http"] = False
        self.site.write_config()
        result = self.site.run("pool", "show")
        self.assertNotIn(result.code, (OK, DAMAGED), str(result))
        self.assertIn("http", result.err)


if __name__ == "__main__":
    unittest.main()
