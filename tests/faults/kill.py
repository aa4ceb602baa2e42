#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Kills backups and restores with SIGKILL at random moments and checks the next start.

After each kill: the next start leaves nothing of ours in the pool, only complete points are listed,
they hold the bytes of their instant, verify finds no fault, the next incremental backup is right.

    XVSA_BUILD=DIR tests/faults/kill.py [--count N] [--seed N]
"""

import argparse
import hashlib
import os
import random
import shutil
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))

from deployment import Deployment  # noqa: E402
from harness import leftovers  # noqa: E402
from scenes import CHUNK, MIB, disk, scene, vm  # noqa: E402
from simpool import SimPool  # noqa: E402

SIZE = 8 * MIB
SETTLE_SECONDS = 60
SCENE = scene(vm("web", disk(SIZE, seed=1, data=SIZE), disk(4 * MIB, seed=2, data=MIB)),
              vm("db", disk(SIZE, seed=3), host="host-b"))
NAMES = ("web", "db")


class Fault(Exception):
    """What is not as it has to be after a kill."""


def require(condition, text):
    """Fails with a text unless a condition holds."""
    if not condition:
        raise Fault(text)


class Loop:
    """A pool, a repository, and what every restore point must hold."""

    def __init__(self, folder, seed):
        self.random = random.Random(seed)
        self.pool = SimPool(os.path.join(folder, "pool"), SCENE)
        self.site = Deployment(os.path.join(folder, "site"), self.pool).init()
        self.expected = {}  # restore point -> digests of its disks
        self.latest = None  # digests of web's disks in its last point of a whole backup
        self.seconds = {"backup": 1.0, "restore": 1.0}
        self.killed = {"backup": 0, "restore": 0}

    def close(self):
        """Ends the simulator."""
        self.pool.stop()

    def tool(self, *words):
        """Runs a command that must succeed."""
        result = self.site.run(*words)
        require(result.code == 0, str(result))
        return result

    def digests(self, name):
        """Digests of a VM's disks now."""
        return [hashlib.sha256(self.pool.content(vdi)).hexdigest()
                for vdi in self.pool.disks(name)]

    def change(self):
        """Writes into every disk."""
        for name in NAMES:
            for vdi in self.pool.disks(name):
                size = self.pool.sim("disk/path", vdi=vdi)["size"]
                place = self.random.randrange(size // 512 - 256) * 512
                self.pool.write(vdi, place, 2 * CHUNK, seed=self.random.randrange(1 << 30))

    def whole_backup(self):
        """A backup that is left alone; its points must hold what the disks hold."""
        digests = {name: self.digests(name) for name in NAMES}
        begin = time.monotonic()
        report = self.tool("backup", *NAMES)
        self.seconds["backup"] = time.monotonic() - begin
        for name in NAMES:
            self.expected[report.point(name)] = digests[name]
        self.latest = digests["web"]
        return report

    def whole_restore(self):
        """A restore that is left alone, for its duration."""
        begin = time.monotonic()
        report = self.tool("restore", "latest:web", "--name", "restored")
        self.seconds["restore"] = time.monotonic() - begin
        uuid = report.vm("web")["new_uuid"]
        require(self.digests(uuid) == self.digests("web"), "the restored disks differ")
        self.forget(uuid)

    def forget(self, uuid):
        """Removes a restored VM."""
        record = self.pool.record("VM", uuid)
        disks = self.pool.disks(uuid)
        for cls, refs in (("VBD", record["VBDs"]), ("VIF", record["VIFs"]), ("VDI", disks)):
            for ref in refs:
                self.pool.sim("record/delete", cls=cls, name=ref)
        self.pool.sim("record/delete", cls="VM", name=uuid)

    def kill(self, kind):
        """Starts a command and kills it somewhere on its way; returns whether it was under way."""
        words = ["backup", *NAMES] if kind == "backup" else ["restore", "latest:web", "--name",
                                                             "restored"]
        running = self.site.start(*words)
        time.sleep(self.random.random() * self.seconds[kind] * 1.05)
        alive = running.process.poll() is None
        running.kill()
        self.killed[kind] += alive
        return alive

    def next_start(self):
        """The next command that logs in cleans up."""
        self.tool("pool", "show")

    def finished(self):
        """VMs that a killed restore had finished: they are the user's."""
        found = self.pool.vms("restored")
        for uuid in found:
            require(self.digests(uuid) == self.latest, "a finished restored VM differs")
            require(not self.pool.record("VM", uuid)["blocked_operations"],
                    "a finished restored VM has blocked operations")
        return found

    def check_pool(self, between):
        """Nothing of ours is left; `between` start and next backup the previous base may stay."""
        restored = self.finished()
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            left = leftovers(self.pool, restored, [self.site], base_tags=between)
            if not left or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        require(not left, "left in the pool: %s" % left)
        for uuid in restored:
            self.forget(uuid)

    def check_points(self, now):
        """Only whole points are listed: known ones, and those that the killed backup completed."""
        listed = {point["id"]: point["vm"]["name"] for point in self.site.points()}
        missing = set(self.expected) - set(listed)
        require(not missing, "restore points are gone: %s" % missing)
        for point, name in listed.items():
            if point not in self.expected:
                self.expected[point] = now[name]
                self.check_content(point)

    def check_content(self, point):
        """The bytes of a restore point."""
        found = [hashlib.sha256(self.site.read_disk(point, index)).hexdigest()
                 for index in range(len(self.expected[point]))]
        require(found == self.expected[point], "restore point %s holds other bytes" % point)

    def round(self, kind):
        """Kill, next start, checks, and an incremental backup on top."""
        self.change()
        now = {name: self.digests(name) for name in NAMES}
        self.kill(kind)
        self.next_start()
        self.check_pool(between=True)
        self.check_points(now)
        self.tool("repo", "verify")
        self.change()
        report = self.whole_backup()
        for name in NAMES:
            self.check_content(report.point(name))
        self.check_pool(between=False)

    def forget_old_points(self):
        """Keeps the repository small."""
        listed = [point["id"] for point in self.site.points()]
        for point in listed[:-4]:
            self.tool("point", "delete", point, "--yes")
            del self.expected[point]


def run(count, seed, tell=print):
    """Kills `count` commands; raises Fault at the first thing that is wrong."""
    tell("seed %d" % seed)
    folder = tempfile.mkdtemp(prefix="xvsa-kill-")
    loop = None
    try:
        loop = Loop(folder, seed)
        loop.whole_backup()
        loop.whole_restore()
        loop.change()
        loop.whole_backup()
        number = 0
        while sum(loop.killed.values()) < count:
            kind = ("backup", "backup", "restore")[number % 3]
            before = sum(loop.killed.values())
            try:
                loop.round(kind)
            except (Fault, AssertionError) as error:
                raise Fault("seed %d, round %d (%s): %s" % (seed, number, kind, error)) from error
            number += 1
            if sum(loop.killed.values()) > before:
                tell("%d of %d kills, %s" % (sum(loop.killed.values()), count, kind))
            if number % 10 == 0:
                loop.forget_old_points()
        for point in loop.expected:
            loop.check_content(point)
    finally:
        if loop is not None:
            loop.close()
        shutil.rmtree(folder, ignore_errors=True)


def main():
    """Runs the loop; 0 when every round was right."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--count", type=int, default=100, help="kills (100)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the random moments")
    options = parser.parse_args()
    try:
        run(options.count, options.seed, lambda text: print(text, flush=True))
    except Fault as fault:
        print("FAULT: %s" % fault)
        return 1
    print("%d kills, no fault" % options.count)
    return 0


if __name__ == "__main__":
    sys.exit(main())
