# SPDX-License-Identifier: LGPL-2.1-or-later
"""Backups and restores of one VM that several processes share, lose and go on with."""

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time
import unittest
import uuid

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))

import frozen  # noqa: E402
from deployment import PASSPHRASE  # noqa: E402
from harness import PoolCase  # noqa: E402
from scenes import MIB, disk, scene, vm  # noqa: E402

DRIVE = os.path.join(os.environ.get("XVSA_BUILD", "."), "tests", "tasks", "task-drive")
CHECKPOINT_MS = 300
UNIT = 2 * MIB
RATE = 24 * MIB
SLOW = 2 * MIB  # where it is told how much a loss costs, and where something happens before the end
LIMIT_SECONDS = 120
OK, FENCED, STOPPED = 0, 3, 5
SEED = int(os.environ.get("XVSA_SEED", "0")) or int(time.time())


class Process:
    """An owner or helper under way."""

    def __init__(self, kind, config, folder):
        self.name = os.path.join(folder, uuid.uuid4().hex)
        with open(self.name + ".json", "w", encoding="utf-8") as file:
            json.dump(config, file)
        with open(self.name + ".log", "w", encoding="utf-8") as log, \
                open(self.name + ".out", "w", encoding="utf-8") as out:
            self.process = subprocess.Popen([DRIVE, kind, self.name + ".json"], stdout=out,
                                            stderr=log, stdin=subprocess.DEVNULL)

    def log(self):
        """What it said."""
        with open(self.name + ".log", encoding="utf-8", errors="replace") as file:
            return file.read()

    def wait(self):
        """Its exit code."""
        try:
            return self.process.wait(LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)
            self.process.wait()
            raise AssertionError("still running: " + self.log()) from None

    def report(self):
        """The report of an owner that ended."""
        with open(self.name + ".out", encoding="utf-8") as file:
            return json.load(file)

    def kill(self):
        """Ends it at once, wherever it is."""
        self.process.kill()
        self.process.wait()

    def signal(self, number):
        """Sends a signal."""
        self.process.send_signal(number)


class Task:
    """One task with its board; starts processes that work on it."""

    def __init__(self, case, name, spec=None):
        self.case = case
        self.folder = os.path.join(case.folder, "board-" + uuid.uuid4().hex[:8])
        os.makedirs(self.folder)
        self.vm = case.pool.uuid("VM", name)
        self.attempt = 0
        self.processes = []
        job = uuid.uuid4().hex
        self.config = {
            "url": case.pool.urls[0], "fingerprint": case.pool.fingerprints[0],
            "repo": "file://" + case.site.repo, "passphrase": PASSPHRASE,
            "proxies": [{"name": proxy, "vm": case.pool.uuid("VM", proxy)}
                        for proxy in ("proxy-a", "proxy-b")],
            "job": job, "tag": "xvsa:%s.%s:s%016x" % (job, self.vm[:8], 7),
            "work": uuid.uuid4().hex, "unit_bytes": UNIT, "checkpoint_ms": CHECKPOINT_MS,
            "board": self.folder, "keys": case.pool.disks(name),
            "key": "%s/%s" % (case.pool.ready["pool"], self.vm),
            "spec": json.dumps(spec or {"type": "backup",
                                        "selection": {"vms": [{"uuid": self.vm}]}})}

    def own(self, proxy="proxy-a", **more):
        """Starts one more attempt."""
        self.attempt += 1
        config = {**self.config, "proxy": proxy, "attempt": self.attempt,
                  "token": 100 + self.attempt, **more}
        if self.attempt > 1:
            config["earlier"] = "another"
        return self.start("own", config)

    def help(self, proxy="proxy-b"):
        """Starts a helper."""
        return self.start("help", {**self.config, "proxy": proxy,
                                   "proxy_vm": self.case.pool.uuid("VM", proxy)})

    def start(self, kind, config):
        """Starts a process."""
        process = Process(kind, config, self.folder)
        self.processes.append(process)
        return process

    def touch(self, name):
        """Makes a file on the board."""
        with open(os.path.join(self.folder, name), "w", encoding="utf-8"):
            pass

    def untouch(self, name):
        """Takes it away."""
        os.unlink(os.path.join(self.folder, name))

    def freeze(self, process):
        """Stops a process while it does not hold the board."""
        with open(os.path.join(self.folder, "lock"), "a", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            frozen.freeze(process.process)

    def done(self):
        """How many units are done."""
        return sum(".d." in name for name in os.listdir(self.folder))

    def await_done(self, count, process):
        """Waits until units are done."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while self.done() < count:
            if time.monotonic() > deadline or process.process.poll() is not None:
                raise AssertionError("only %d units: %s" % (self.done(), process.log()))
            time.sleep(0.01)

    def close(self):
        """Ends what still runs."""
        for process in self.processes:
            if process.process.poll() is None:
                process.kill()


class TaskCase(PoolCase):
    """A VM with two disks, read over links of limited speed."""

    scene = scene(vm("web", disk(24 * MIB, seed=1, data=24 * MIB),
                     disk(8 * MIB, seed=2, data=6 * MIB)))
    total = 30 * MIB

    def setUp(self):
        super().setUp()
        self.random = random.Random(SEED)
        self.limit(RATE)
        self.began = self.read_so_far()

    def task(self, name="web", spec=None):
        """A new task."""
        task = Task(self, name, spec)
        self.addCleanup(task.close)
        return task

    def finish(self, task, process, code=OK):
        """The report of an owner that ends with a code."""
        found = process.wait()
        self.assertEqual(found, code, "seed %d: %s" % (SEED, process.log()))
        if code == OK:
            task.touch("over")
            for other in task.processes:
                other.wait()
        return process.report()["vms"][0]

    def assert_economic(self, losses):
        """No more was read than once, and one checkpoint interval and a unit for each loss."""
        spare = losses * (RATE * CHECKPOINT_MS // 1000 * 2 + 2 * UNIT) + 4 * MIB
        self.assertLessEqual(self.read_so_far() - self.began, self.total + spare,
                             "seed %d" % SEED)

    def assert_went_on(self, read):
        """After a loss when so much had been read, most of it was not read again: only what the links
        give in a second or so, which is what a checkpoint takes on a slow machine, and units on their way."""
        again = self.read_so_far() - self.began - self.total
        spare = 2 * SLOW + 4 * UNIT + 4 * MIB
        self.assertGreater(read, spare, "lost too early to tell")
        self.assertLessEqual(again, spare, "seed %d" % SEED)

    def assert_done(self, entry):
        """One whole restore point, nothing left in the pool."""
        self.assertEqual(len(self.site.points()), 1)
        self.assert_point(entry["point"], "web")
        self.assert_clean()
        self.assert_verified()


class Owners(TaskCase):
    """Owners that end in every way."""

    def test_alone(self):
        task = self.task()
        entry = self.finish(task, task.own())
        self.assert_done(entry)
        self.assert_economic(0)

    def test_killed_and_taken_over(self):
        task = self.task()
        losses = 0
        for _ in range(3):
            owner = task.own(proxy=self.random.choice(["proxy-a", "proxy-b"]))
            time.sleep(self.random.uniform(0.1, 1.2))
            owner.kill()
            losses += 1
        entry = self.finish(task, task.own())
        self.assert_done(entry)
        self.assert_economic(losses)

    def test_parked_and_continued(self):
        self.limit(SLOW)
        task = self.task()
        owner = task.own()
        task.await_done(10, owner)
        owner.signal(signal.SIGUSR1)
        entry = self.finish(task, owner, STOPPED)
        read = self.read_so_far() - self.began
        self.limit(RATE)
        self.assertEqual(entry["state"], "parked")
        self.assertEqual(owner.report()["state"], "parked")
        snapshots = [one for one in self.pool.sim("state")["vms"] if one["is_a_snapshot"]]
        self.assertEqual(len(snapshots), 1)
        self.assert_done(self.finish(task, task.own("proxy-b")))
        self.assert_went_on(read)

    def test_zombie_is_fenced(self):
        self.limit(SLOW)
        task = self.task()
        first = task.own()
        task.await_done(2, first)
        task.freeze(first)
        self.limit(RATE)
        entry = self.finish_alone(task, task.own("proxy-b"))
        first.signal(signal.SIGCONT)
        self.assertEqual(first.wait(), FENCED, first.log())
        self.assertIn("fenced: ", first.log())
        self.assertIn("token 101", first.log())
        self.assert_done(entry)

    def finish_alone(self, task, process):
        """Like finish, while others of the task are frozen: their claims are given to nobody."""
        for name in os.listdir(task.folder):
            if ".c." in name:
                os.unlink(os.path.join(task.folder, name))
        self.assertEqual(process.wait(), OK, process.log())
        return process.report()["vms"][0]

    def test_store_out_of_reach(self):
        self.limit(SLOW)
        task = self.task()
        owner = task.own()
        task.await_done(2, owner)
        task.touch("down")
        self.limit(RATE)
        entry = self.finish(task, owner)
        self.assertIn("STORE_UNREACHABLE", {reason["code"] for reason in entry["reasons"]})
        self.assert_done(entry)

    def test_hands_off_the_pool(self):
        task = self.task()
        task.touch("hands-off")
        owner = task.own()
        time.sleep(1)
        self.assertEqual([one for one in self.pool.sim("state")["vms"] if one["is_a_snapshot"]],
                         [])
        task.untouch("hands-off")
        self.assert_done(self.finish(task, owner))

    def assert_begun_anew(self, task):
        """Without its snapshot the next attempt takes a new one, and mixes nothing of the old one into it."""
        for one in self.pool.sim("state")["vms"]:
            if one["is_a_snapshot"]:
                self.forget(one["uuid"])
        self.pool.write(self.pool.disks("web")[0], 0, 4 * MIB, seed=99)
        entry = self.finish(task, task.own())
        self.assertIn("SNAPSHOT_RETAKEN", {reason["code"] for reason in entry["reasons"]})
        self.assert_done(entry)

    def test_snapshot_lost_between_attempts(self):
        self.limit(SLOW)
        task = self.task()
        owner = task.own()
        task.await_done(3, owner)
        owner.kill()
        self.limit(RATE)
        self.assert_begun_anew(task)

    def test_snapshot_and_map_lost_between_attempts(self):
        self.limit(SLOW)
        task = self.task()
        owner = task.own()
        task.await_done(3, owner)
        owner.kill()
        self.limit(RATE)
        folder = os.path.join(self.site.repo, "w")
        # The VM's map is the first object of a work.
        os.unlink(min((os.path.join(folder, name) for name in os.listdir(folder)),
                      key=lambda path: os.stat(path).st_mtime_ns))
        self.assert_begun_anew(task)

    def test_committed_but_not_told(self):
        task = self.task()
        first = self.finish(task, task.own())
        task.untouch("over")
        second = self.finish(task, task.own("proxy-b"))
        self.assertEqual(second["point"], first["point"])
        self.assert_done(second)
        self.assertEqual(self.run_tool("repo", "info").document["sessions"], [])

    def test_cancelled(self):
        self.limit(SLOW)
        task = self.task()
        owner = task.own()
        task.await_done(2, owner)
        owner.signal(signal.SIGTERM)
        self.finish(task, owner, STOPPED)
        self.assertEqual(self.site.points(), [])
        self.assert_clean()


class Sources(TaskCase):
    """Sources that fail on the way."""

    def test_exports_are_named_by_a_session_that_ended(self):
        self.limit(SLOW)
        task = self.task()
        owner = task.own()
        task.await_done(2, owner)
        self.pool.sim("session/expire")
        for host in ("host-a", "host-b"):
            self.pool.nbd(host, connections="drop")
        self.limit(RATE)
        entry = self.finish(task, owner)
        self.assertNotIn("NBD_FAILED", {reason["code"] for one in entry["disks"]
                                        for reason in one["reasons"]}, owner.log())
        self.assert_done(entry)

    def test_nbd_fails_for_good(self):
        self.limit(SLOW)
        task = self.task()
        owner = task.own()
        task.await_done(2, owner)
        for host in ("host-a", "host-b"):
            self.pool.nbd(host, connections="drop", refuse=True)
        entry = self.finish(task, owner)
        self.assertIn("NBD_FAILED", {reason["code"] for one in entry["disks"]
                                     for reason in one["reasons"]})
        self.assert_done(entry)


class Helpers(TaskCase):
    """Helpers that come and go."""

    def test_two_share_the_work(self):
        self.limit(SLOW)
        task = self.task()
        helper = task.help()
        entry = self.finish(task, task.own())
        movers = {row["proxy"] for one in entry["disks"] for row in one["movers"]}
        self.assertEqual(movers, {"proxy-a", "proxy-b"}, helper.log())
        self.assert_done(entry)
        self.assert_economic(0)

    def test_helper_killed(self):
        task = self.task()
        helper = task.help()
        owner = task.own()
        task.await_done(2, owner)
        time.sleep(self.random.uniform(0.05, 0.4))
        helper.kill()
        self.assert_done(self.finish(task, owner))
        self.assert_economic(1)

    def test_both_killed(self):
        self.limit(SLOW)
        task = self.task()
        helper = task.help()
        owner = task.own()
        task.await_done(10, owner)
        time.sleep(self.random.uniform(0.05, 0.3))
        owner.kill()
        helper.kill()
        read = self.read_so_far() - self.began
        self.limit(RATE)
        task.help()
        self.assert_done(self.finish(task, task.own("proxy-b")))
        self.assert_went_on(read)

    def test_owner_killed_while_helped(self):
        self.limit(SLOW)
        task = self.task()
        task.help()
        owner = task.own()
        task.await_done(10, owner)
        owner.kill()
        read = self.read_so_far() - self.began
        self.limit(RATE)
        self.assert_done(self.finish(task, task.own()))
        self.assert_went_on(read)


class Restores(TaskCase):
    """Restores that are lost and gone on with."""

    segments = (24 + 6) // 2

    def setUp(self):
        super().setUp()
        self.limit(0)
        self.point = self.backup("web").point("web")
        self.made = self.pool.called("task.create")

    def restoring(self):
        """A task that restores the point."""
        return self.task(spec={"type": "restore", "points": [self.point], "vm_name": "back",
                               "mac": "renew"})

    def facts(self, task):
        """What was noted, by disk."""
        try:
            with open(os.path.join(task.folder, "facts"), encoding="utf-8") as file:
                return json.load(file)["disks"]
        except FileNotFoundError:
            return {}

    def slow_down(self):
        """Lets every piece, 32 a MiB, take its time, for something to happen before the end; until ``go_on``."""
        self.slow = self.pool.fault("transfer", count=0, delay=0.25)

    def go_on(self):
        """Restores are as fast as they can be again."""
        self.pool.sim("fault/remove", id=self.slow)

    def await_offset(self, task, process, offset):
        """Waits until the first disk is acknowledged so far."""
        deadline = time.monotonic() + LIMIT_SECONDS
        first = self.pool.disks("web")[0]
        while self.facts(task).get(first, {"offset": 0})["offset"] < offset:
            if time.monotonic() > deadline or process.process.poll() is not None:
                raise AssertionError(process.log())
            time.sleep(0.005)

    def assert_restored_once(self, entry, losses):
        """One VM whose disks are those of the original; segments were sent again only when they were lost."""
        self.addCleanup(self.forget, entry["new_uuid"])
        self.assertEqual(self.pool.vms("back"), [entry["new_uuid"]])
        for original, copy in zip(self.pool.disks("web"), self.pool.disks(entry["new_uuid"])):
            self.assert_same(self.pool.content(original), self.pool.content(copy), "web")
        self.assert_clean(restored=[entry["new_uuid"]])
        self.assertLessEqual(self.pool.called("task.create") - self.made,
                             self.segments + 2 * losses, "seed %d" % SEED)

    def test_alone(self):
        task = self.restoring()
        self.assert_restored_once(self.finish(task, task.own()), 0)

    def test_killed_and_taken_over(self):
        task = self.restoring()
        for _ in range(3):
            owner = task.own(proxy=self.random.choice(["proxy-a", "proxy-b"]))
            time.sleep(self.random.uniform(0.1, 0.7))
            owner.kill()
        self.assert_restored_once(self.finish(task, task.own()), 3)

    def test_killed_on_the_way(self):
        self.slow_down()
        task = self.restoring()
        owner = task.own()
        self.await_offset(task, owner, 8 * MIB)
        owner.kill()
        self.go_on()
        offset = self.facts(task)[self.pool.disks("web")[0]]["offset"]
        entry = self.finish(task, task.own("proxy-b"))
        self.assertLessEqual(entry["disks"][0]["bytes"]["written"], 24 * MIB - offset)
        self.assert_restored_once(entry, 1)

    def test_parked_and_continued(self):
        self.slow_down()
        task = self.restoring()
        owner = task.own()
        self.await_offset(task, owner, 4 * MIB)
        owner.signal(signal.SIGUSR1)
        self.assertEqual(self.finish(task, owner, STOPPED)["state"], "parked")
        self.go_on()
        self.assert_restored_once(self.finish(task, task.own("proxy-b")), 1)

    def test_cancelled_when_it_was_complete(self):
        task = self.restoring()
        entry = self.finish(task, task.own())
        task.untouch("over")
        fault = self.pool.fault("VM.set_name_label", delay=3.0)
        second = task.own("proxy-b")
        deadline = time.monotonic() + LIMIT_SECONDS
        while not self.pool.hits(fault) and time.monotonic() < deadline:
            time.sleep(0.02)
        second.signal(signal.SIGTERM)
        self.finish(task, second, STOPPED)
        self.assert_restored_once(entry, 0)

    def test_two_points_of_a_vm_in_one_job(self):
        first, second = self.restoring(), self.restoring()
        second.config["job"] = first.config["job"]
        second.config["tag"] = "xvsa:%s.other:s%016x" % (first.config["job"], 7)
        second.config["spec"] = json.dumps({
            **json.loads(second.config["spec"]), "points": [self.backup("web").point("web")],
            "vm_name": "other"})
        owner = first.own(token=202)
        self.await_offset(first, owner, 2 * MIB)
        other = second.own(token=201)
        entries = [self.finish(first, owner), self.finish(second, other)]
        for entry in entries:
            self.addCleanup(self.forget, entry["new_uuid"])
        self.assert_clean(restored=[entry["new_uuid"] for entry in entries])

    def test_parked_while_it_must_not_touch_the_pool(self):
        self.slow_down()
        task = self.restoring()
        owner = task.own()
        self.await_offset(task, owner, 4 * MIB)
        task.touch("hands-off")
        owner.signal(signal.SIGUSR1)
        self.assertEqual(self.finish(task, owner, STOPPED)["state"], "parked")
        self.go_on()
        task.untouch("hands-off")
        self.assert_restored_once(self.finish(task, task.own("proxy-b")), 1)

    def test_zombie_keeps_off(self):
        self.slow_down()
        task = self.restoring()
        first = task.own()
        self.await_offset(task, first, 4 * MIB)
        task.freeze(first)
        self.go_on()
        second = task.own("proxy-b")
        self.assertEqual(second.wait(), OK, second.log())
        first.signal(signal.SIGCONT)
        self.assertNotEqual(first.wait(), OK, first.log())
        self.assert_restored_once(second.report()["vms"][0], 1)

    def test_session_ends_before_a_request(self):
        task = self.restoring()
        fault = self.pool.fault("task.create", delay=1.0, after=True, nth=3)
        owner = task.own()
        deadline = time.monotonic() + LIMIT_SECONDS
        while not self.pool.hits(fault) and time.monotonic() < deadline:
            time.sleep(0.02)
        self.pool.sim("session/expire")
        self.assert_restored_once(self.finish(task, owner), 2)

    def test_cancelled(self):
        self.slow_down()
        task = self.restoring()
        owner = task.own()
        self.await_offset(task, owner, 4 * MIB)
        owner.signal(signal.SIGTERM)
        self.finish(task, owner, STOPPED)
        self.assert_clean()


if __name__ == "__main__":
    unittest.main()
