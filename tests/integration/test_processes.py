# SPDX-License-Identifier: LGPL-2.1-or-later
"""Several processes at once, cancellation, and repositories that can't be written."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

from harness import CANCELLED, DENIED, FAILED, OK, PoolCase
from scenes import CHUNK, MIB, disk, scene, vm

SLOW = 32 * MIB


class Processes(PoolCase):
    """More than one user of a pool and a repository."""

    scene = scene(vm("web", disk(seed=1), disk(seed=2)), vm("db", disk(seed=3), host="host-b"),
                  vm("slow", disk(SLOW, seed=4, data=SLOW)),
                  vm("slow-2", disk(SLOW, seed=5, data=SLOW)))

    def start_slow(self, *words, site=None):
        """Starts a command whose disks move slowly, until the pool is calm; returns when data moves."""
        for host in ("host-a", "host-b"):
            self.pool.nbd(host, delay=0.2)
        asked = self.pool.called("VDI.get_nbd_info")
        running = (site or self.site).start(*words)
        self.addCleanup(lambda: running.process.poll() is None and running.kill())
        self.pool.await_call("VDI.get_nbd_info", asked + 1)
        time.sleep(0.3)
        return running

    def test_different_vms_at_once(self):
        first, second = self.site.start("backup", "web"), self.site.start("backup", "db")
        for name, running in (("web", first), ("db", second)):
            result = running.wait()
            self.assertEqual(result.code, OK, str(result))
            self.assert_point(result.point(name), name)
        self.assertEqual(len(self.site.points()), 2)
        self.assert_clean()
        self.assert_verified()

    def test_same_vm_at_once(self):
        running = self.start_slow("backup", "slow")
        second = self.site.run("backup", "slow")
        self.pool.calm()
        first = running.wait()
        self.assertIn(OK, (first.code, second.code), "%s\n%s" % (first, second))
        for result in (first, second):
            if result.code != OK:
                self.assertRegex(result.err + result.out, "FENCED|BUSY")
        for point in self.site.points():
            self.assert_point(point["id"], "slow")
        self.assert_clean()
        self.assert_verified()
        self.pool.write(self.pool.disks("slow")[0], MIB, CHUNK)
        self.pool.calm()
        self.assert_point(self.backup("slow").point("slow"), "slow")

    def test_objects_of_a_running_job_stay(self):
        """Another process that starts does not clean up after one that still runs."""
        running = self.start_slow("backup", "slow")
        self.run_tool("pool", "show")
        self.run_tool("backup", "db")
        self.pool.calm()
        result = running.wait()
        self.assertEqual(result.code, OK, str(result))
        self.assert_point(result.point("slow"), "slow")
        self.assert_clean()

    def test_reading_while_a_backup_runs(self):
        point = self.backup("web").point("web")
        running = self.start_slow("backup", "slow")
        self.assertEqual([entry["id"] for entry in self.site.points()], [point])
        self.assert_point(point, "web")
        self.assert_verified()
        self.pool.calm()
        self.assertEqual(running.wait().code, OK)

    def test_base_of_a_running_backup_is_not_deleted(self):
        base = self.backup("slow").point("slow")
        self.pool.write(self.pool.disks("slow")[0], 0, SLOW, seed=9)
        running = self.start_slow("backup", "slow")
        deleted = self.site.run("point", "delete", base, "--yes")
        self.pool.calm()
        result = running.wait()
        self.assertEqual(result.code, OK, str(result))
        self.assertNotEqual(deleted.code, OK, str(deleted))
        self.assertIn("BUSY", deleted.err)
        self.assert_point(result.point("slow"), "slow")
        self.assert_verified()

    # ---- cancelling ----

    def assert_cancelled(self, result):
        """The command was cancelled and left nothing behind."""
        self.assertEqual(result.code, CANCELLED, str(result))
        self.pool.calm()
        self.assert_clean()
        self.assert_verified()

    def test_terminate_a_backup(self):
        running = self.start_slow("backup", "slow")
        running.signal(signal.SIGTERM)
        self.assert_cancelled(running.wait(30))
        self.assertEqual(self.site.points(), [])
        self.assert_point(self.backup("slow").point("slow"), "slow")

    def test_interrupt_twice(self):
        running = self.start_slow("backup", "slow")
        running.signal(signal.SIGINT)
        time.sleep(1)  # or it might see one signal only
        running.signal(signal.SIGINT)
        self.assert_cancelled(running.wait(30))

    def test_interrupt_finishes_what_is_under_way(self):
        running = self.start_slow("backup", "slow", "slow-2", "--parallel", "1")
        running.signal(signal.SIGINT)
        self.pool.calm()
        result = running.wait()
        self.assert_cancelled(result)
        points = self.site.points()
        self.assertEqual(len(points), 1)
        self.assert_point(points[0]["id"], points[0]["vm"]["name"])

    def test_terminate_a_restore(self):
        self.backup("slow")
        self.pool.fault("transfer", count=0, delay=0.2)
        created = self.pool.called("Async.VDI.create")
        running = self.site.start("restore", "latest:slow", "--name", "never")
        self.addCleanup(lambda: running.process.poll() is None and running.kill())
        self.pool.await_call("Async.VDI.create", created + 1)
        time.sleep(0.2)
        running.signal(signal.SIGTERM)
        self.assert_cancelled(running.wait(30))
        self.assertEqual(self.pool.vms("never"), [])

    def test_terminate_while_a_call_hangs(self):
        fault = self.pool.fault("VM.snapshot", hang=True)
        asked = self.pool.called("Async.VM.snapshot")
        running = self.site.start("backup", "web")
        self.addCleanup(lambda: running.process.poll() is None and running.kill())
        self.pool.await_call("Async.VM.snapshot", asked + 1)
        running.signal(signal.SIGTERM)
        result = running.wait(60)
        self.assertEqual(result.code, CANCELLED, str(result))
        self.pool.sim("fault/remove", id=fault)
        time.sleep(3)  # the pool does what it was asked for
        self.run_tool("pool", "show")
        self.assert_clean()


class Places(PoolCase):
    """Folders of repositories that are read only, full or no repository."""

    scene = scene(vm("web", disk(seed=1)), vm("big", disk(SLOW, seed=2, data=SLOW)))

    def test_second_init(self):
        result = self.run_tool("repo", "init", code=FAILED)
        self.assertIn("EXISTS", result.err)
        self.backup("web")

    def test_no_repository(self):
        shutil.rmtree(self.site.repo)
        os.mkdir(self.site.repo)
        for words in (["backup", "web"], ["points"], ["repo", "verify"]):
            self.assertIn("NOT_FOUND", self.run_tool(*words, code=FAILED).err)

    def test_missing_folder(self):
        shutil.rmtree(self.site.repo)
        self.assertIn(self.site.repo, self.run_tool("points", code=FAILED).err)

    def test_files_of_others_in_the_folder(self):
        self.backup("web")
        with open(os.path.join(self.site.repo, "README"), "w", encoding="utf-8") as file:
            file.write("not ours\n")
        self.assert_verified()
        self.backup("web")
        self.assertTrue(os.path.exists(os.path.join(self.site.repo, "README")))

    def test_read_only_configuration(self):
        point = self.backup("web").point("web")
        self.site.config["repositories"][0]["read_only"] = True
        self.site.write_config()
        before = self.site.objects()
        self.assert_point(point, "web")
        self.assert_verified()
        result = self.site.run("backup", "web")
        self.assertNotEqual(result.code, OK, str(result))
        self.assertEqual(self.site.objects(), before)
        self.assert_clean()

    def mount(self, *options):
        """Mounts a small file system where the repository is to be."""
        if os.geteuid() != 0:
            self.skipTest("needs root to mount a file system")
        place = tempfile.mkdtemp(prefix="xvsa-mount-")
        self.addCleanup(os.rmdir, place)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "xvsa-test", place],
                              capture_output=True, text=True, check=False)
        if done.returncode != 0:
            self.skipTest("no file system can be mounted: " + done.stderr.strip())
        self.addCleanup(subprocess.run, ["umount", "-l", place], check=True)
        return place

    def site_at(self, place):
        """A deployment whose repository is in a folder."""
        site = self.deploy("mounted", init=False)
        site.repo = os.path.join(place, "repo")
        site.config["repositories"][0]["url"] = "file://" + site.repo
        site.write_config()
        return site.init()

    def test_full_file_system(self):
        site = self.site_at(self.mount("size=10m"))
        point = self.backup("web", site=site).point("web")
        result = self.run_tool("backup", "big", site=site, code=FAILED)
        self.assertIn("SPACE", result.err + result.out)
        self.assertEqual([entry["id"] for entry in site.points()], [point])
        self.assert_point(point, "web", site=site)
        self.assert_clean()
        self.assert_verified(site=site)

    def test_read_only_file_system(self):
        place = self.mount("size=64m")
        site = self.site_at(place)
        point = self.backup("web", site=site).point("web")
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        result = site.run("backup", "web")
        self.assertIn(result.code, (FAILED, DENIED), str(result))
        self.assertIn("Read-only file system", result.err)
        site.config["repositories"][0]["read_only"] = True
        site.write_config()
        self.assert_point(point, "web", site=site)
        self.assert_clean()
        self.assert_verified(site=site)


if __name__ == "__main__":
    unittest.main()
