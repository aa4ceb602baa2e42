#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tests of the simulator's storage: disks, copies, restarts, changed block tracking."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
import unittest

from store_case import MIB, TemporaryStore
from sim import cbt
from sim.storage import CbtError, Store, StoreError


class StoreTest(TemporaryStore):
    def test_new_disk_is_sparse_and_zero(self):
        self.store.create("a", 1 << 40)
        self.assertEqual(self.store.size("a"), 1 << 40)
        self.assertEqual(self.store.allocated("a"), 0)
        self.assertEqual(self.store.extents("a"), [])
        self.assertEqual(self.store.read("a", (1 << 40) - 512, 512), bytes(512))

    def test_writes_are_read_back_and_extents_cover_them(self):
        self.store.create("a", 64 * MIB)
        self.store.write("a", 5 * MIB + 3, b"hello")
        self.assertEqual(self.store.read("a", 5 * MIB, 10), b"\0\0\0hello\0\0")
        (offset, length), = self.store.extents("a")
        self.assertTrue(offset <= 5 * MIB and offset + length >= 5 * MIB + 8)
        self.store.discard("a", 4 * MIB, 2 * MIB)
        self.assertEqual(self.store.read("a", 5 * MIB, 10), bytes(10))
        self.assertEqual(self.store.extents("a"), [])

    def test_ranges_outside_are_refused(self):
        self.store.create("a", MIB)
        for call in (lambda: self.store.write("a", MIB - 1, b"xx"),
                     lambda: self.store.read("a", MIB, 1),
                     lambda: self.store.track("a", -1, 1),
                     lambda: self.store.resize("a", 512),
                     lambda: self.store.create("a", 1),
                     lambda: self.store.size("missing")):
            self.assertRaises(StoreError, call)

    def test_copies_are_independent(self):
        self.store.create("a", 1 << 30)
        self.store.write("a", 700 * MIB, b"one")
        self.store.snapshot("a", "s")
        self.store.clone("s", "c")
        self.store.write("a", 700 * MIB, b"two")
        self.store.write("c", 0, b"three")
        self.assertEqual(self.store.read("s", 700 * MIB, 3), b"one")
        self.assertEqual(self.store.read("c", 700 * MIB, 3), b"one")
        self.assertEqual(self.store.read("s", 0, 5), bytes(5))
        self.assertLess(self.store.allocated("s"), MIB)
        self.store.copy_into("a", "c")
        self.assertEqual(self.store.read("c", 0, 5), bytes(5))
        self.assertEqual(self.store.read("c", 700 * MIB, 3), b"two")

    def test_shared_data_are_separated_by_the_next_write(self):
        changes = {"write": lambda disk: self.store.write(disk, 5, b"new"),
                   "discard": lambda disk: self.store.discard(disk, 0, MIB),
                   "resize": lambda disk: self.store.resize(disk, 3 * MIB),
                   "copy_into": lambda disk: self.store.copy_into("other", disk),
                   "outside": self.write_outside}
        self.store.create("other", MIB)
        for name, change in changes.items():
            for victim in ("live", "snapshot"):
                with self.subTest(name, of=victim):
                    for disk in ("live", "snapshot"):
                        if self.store.exists(disk):
                            self.store.destroy(disk)
                    self.store.create("live", 2 * MIB)
                    self.store.write("live", 0, b"old" * 1000)
                    self.store.snapshot("live", "snapshot")
                    self.assertTrue(os.path.samefile(self.store.path("live"),
                                                     self.store.path("snapshot")))
                    before = self.store.read("live", 0, 2 * MIB)
                    change(victim)
                    kept = "live" if victim == "snapshot" else "snapshot"
                    self.assertEqual(self.store.read(kept, 0, 2 * MIB), before)
                    self.assertEqual(self.store.size(kept), 2 * MIB)
                    if name != "resize":
                        self.assertNotEqual(self.store.read(victim, 0, 2 * MIB), before)
                    self.assertFalse([f for f in os.listdir(self.store.directory) if "own-" in f])

    def write_outside(self, disk):
        with open(self.store.writable_path(disk), "r+b") as file:
            file.write(b"outside")
        self.store.snapshot(disk, "later")
        self.assertFalse(os.path.samefile(self.store.path(disk), self.store.path("later")))
        self.store.destroy("later")

    def test_state_survives_restart_and_leftovers_are_swept(self):
        self.store.create("a", MIB)
        self.store.cbt_enable("a")
        self.store.snapshot("a", "s")
        self.store.write("a", 70000, b"x")
        self.store.snapshot("a", "t")
        self.store.data_destroy("s")
        for name in ("orphan.raw", "orphan.log"):
            with open(os.path.join(self.store.directory, name), "wb"):
                pass
        self.reopen()
        self.assertEqual(sorted(self.store.list()), ["a", "s", "t"])
        self.assertEqual(self.store.changed_blocks("s", "t"), b"\x40\0")
        self.assertFalse(self.store.has_data("s"))
        self.assertRaises(StoreError, self.store.path, "s")
        names = os.listdir(self.store.directory)
        self.assertFalse([name for name in names if name.startswith("orphan")])

    def test_unrecorded_growth_is_undone(self):
        self.store.create("a", MIB)
        self.store.cbt_enable("a")
        self.store.snapshot("a", "s")
        log = os.path.join(self.store.directory, self.store._disk("a").log)
        os.truncate(self.store.path("a"), 2 * MIB)
        os.truncate(log, 4)
        self.reopen()
        self.assertEqual(os.stat(self.store.path("a")).st_size, MIB)
        self.assertEqual(self.store.changed_blocks("s", "a"), bytes(2))

    def test_a_directory_has_one_owner(self):
        self.assertRaises(StoreError, Store, self.store.directory)

    def test_failed_copy_leaves_nothing(self):
        self.store.create("a", MIB)
        os.truncate(self.store.path("a"), 0)
        os.unlink(self.store.path("a"))
        self.assertRaises(OSError, self.store.snapshot, "a", "s")
        self.assertFalse(self.store.exists("s"))
        self.assertNotIn("s.raw", os.listdir(self.store.directory))

    def test_parallel_writers_lose_no_bit(self):
        self.store.create("a", 64 * MIB)
        self.store.cbt_enable("a")
        self.store.snapshot("a", "s")

        def write(first):
            for block in range(first, 1024, 8):
                self.store.write("a", block * cbt.BLOCK_SIZE, b"x")
        threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.store.snapshot("a", "t")
        self.assertEqual(self.store.changed_blocks("s", "t"), b"\xff" * 128)


class CbtTest(TemporaryStore):
    def setUp(self):
        super().setUp()
        self.store.create("a", 10 * MIB)
        self.store.cbt_enable("a")

    def fault(self, older, newer):
        with self.assertRaises(CbtError) as caught:
            self.store.changed_blocks(older, newer)
        return caught.exception.fault

    def test_bit_order_and_length(self):
        self.store.snapshot("a", "s")
        self.store.write("a", 0, b"x")
        self.store.write("a", 9 * 65536 - 1, b"xy")
        self.store.snapshot("a", "t")
        bitmap = self.store.changed_blocks("s", "t")
        self.assertEqual(len(bitmap), 20)
        self.assertEqual(bitmap, b"\x80\xc0" + bytes(18))

    def test_length_of_odd_sizes(self):
        for size, length in ((0, 0), (1, 1), (65536, 1), (8 * 65536, 1), (8 * 65536 + 512, 2)):
            self.assertEqual(cbt.bitmap_length(size), length)

    def test_faults(self):
        self.store.snapshot("a", "s")
        self.store.snapshot("a", "t")
        self.store.create("other", MIB)
        self.assertEqual(self.fault("t", "s"), 460)
        self.assertEqual(self.fault("s", "s"), 460)
        self.assertEqual(self.fault("s", "other"), 460)
        self.assertEqual(self.fault("other", "t"), 460)
        self.store.mark_inconsistent("t")
        self.assertEqual(self.fault("s", "t"), 459)
        self.store.lose_log("t")
        self.assertEqual(self.fault("s", "t"), 460)

    def test_lost_log_of_the_live_disk_is_found_later(self):
        self.store.snapshot("a", "s")
        self.store.lose_log("a")
        self.store.write("a", 0, b"x")
        self.assertFalse(self.store.cbt_activate("a"))
        self.assertFalse(self.store.cbt_enabled("a"))

    def test_disable_and_enable_breaks_the_chain(self):
        self.store.snapshot("a", "s")
        self.store.cbt_disable("a")
        self.assertTrue(self.store.cbt_enabled("s"))
        self.store.cbt_enable("a")
        self.store.snapshot("a", "t")
        self.assertEqual(self.fault("s", "t"), 460)

    def test_failed_split_and_failed_growth_switch_tracking_off(self):
        self.assertFalse(self.store.snapshot("a", "s", break_cbt=True))
        self.assertFalse(self.store.cbt_enabled("a"))
        self.assertTrue(self.store.cbt_enabled("s"))
        self.store.cbt_enable("a")
        self.assertFalse(self.store.resize("a", 20 * MIB, break_cbt=True))
        self.assertFalse(self.store.cbt_enabled("a"))
        self.assertEqual(self.store.size("a"), 20 * MIB)

    def test_activation_drops_an_inconsistent_log(self):
        self.assertTrue(self.store.cbt_activate("a"))
        self.store.snapshot("a", "s")
        self.store.mark_inconsistent("a")
        self.assertFalse(self.store.cbt_activate("a"))
        self.assertFalse(self.store.cbt_enabled("a"))

    def test_lying_bitmap(self):
        self.store.snapshot("a", "s")
        self.store.write("a", 0, bytes(MIB))
        self.store.drop_bits("a", [1, 3, 99999])
        self.store.snapshot("a", "t")
        self.assertEqual(self.store.changed_blocks("s", "t")[:2], b"\xaf\xff")

    def test_live_disk_as_target(self):
        self.store.snapshot("a", "s")
        self.store.write("a", 65536, b"x")
        self.assertEqual(self.store.changed_blocks("s", "a")[0], 0x40)

    def test_grown_disk_is_zero_extended(self):
        self.store.snapshot("a", "s")
        self.store.write("a", 0, b"x")
        self.store.snapshot("a", "t")
        self.store.resize("a", 20 * MIB)
        self.store.write("a", 20 * MIB - 1, b"x")
        self.store.snapshot("a", "u")
        bitmap = self.store.changed_blocks("s", "u")
        self.assertEqual(bitmap, b"\x80" + bytes(38) + b"\x01")


class Model:
    """Changed blocks computed the slow way: from the history of writes."""

    def __init__(self, size):
        self.size = size
        self.history = []  # blocks written, or ("snapshot", uuid) where one was taken
        self.alive = []    # (uuid, size) of snapshots of the present chain, oldest first

    def write(self, offset, length):
        self.history += range(offset // 65536, (offset + length - 1) // 65536 + 1)

    def snapshot(self, name):
        self.history.append(("snapshot", name))
        self.alive.append((name, self.size))

    def expected(self, older, newer):
        sizes = dict(self.alive)
        begin = self.history.index(("snapshot", older))
        end = self.history.index(("snapshot", newer))
        blocks = {item for item in self.history[begin:end] if not isinstance(item, tuple)}
        bitmap = bytearray(((sizes[newer] + 65535) // 65536 + 7) // 8)
        for block in blocks:
            bitmap[block // 8] |= 0x80 >> block % 8
        return bytes(bitmap)


class RandomCbtTest(TemporaryStore):
    """Random operations on the store and on the model; every pair of snapshots must agree."""

    def test_against_the_model(self):
        for seed in range(12):
            with self.subTest(seed=seed):
                self.run_history(random.Random(seed), f"disk{seed}")

    def run_history(self, rng, live):
        size = rng.randrange(512, 4 * MIB, 512)
        self.store.create(live, size)
        self.store.cbt_enable(live)
        model, count = Model(size), 0
        for _ in range(120):
            action = rng.choices(("write", "snapshot", "destroy", "data", "grow", "reset", "open"),
                                 (60, 15, 8, 5, 4, 1, 1))[0]
            if action == "write":
                offset = rng.randrange(model.size)
                length = min(rng.choice((1, 512, 70000, 400000)), model.size - offset)
                self.store.write(live, offset, bytes(length))
                model.write(offset, length)
            elif action == "snapshot":
                count += 1
                self.store.snapshot(live, f"{live}-{count}")
                model.snapshot(f"{live}-{count}")
            elif action == "destroy" and model.alive:
                name, _ = model.alive.pop(rng.randrange(len(model.alive)))
                self.store.destroy(name)
            elif action == "data" and model.alive:
                self.store.data_destroy(rng.choice(model.alive)[0])
            elif action == "grow":
                model.size += rng.randrange(512, MIB, 512)
                self.store.resize(live, model.size)
            elif action == "reset":
                self.store.cbt_disable(live)
                self.store.cbt_enable(live)
                model.alive = []
            elif action == "open":
                self.reopen()
            self.compare(rng, model)

    def compare(self, rng, model):
        if len(model.alive) < 2:
            return
        first, second = sorted(rng.sample(range(len(model.alive)), 2))
        older, newer = model.alive[first][0], model.alive[second][0]
        self.assertEqual(self.store.changed_blocks(older, newer), model.expected(older, newer))
        with self.assertRaises(CbtError):
            self.store.changed_blocks(newer, older)
WRITER = """
import random, sys
sys.path.insert(0, sys.argv[1])
from sim.storage import Store
store, rng = Store(sys.argv[2]), random.Random(int(sys.argv[3]))
if not store.exists("live"):
    store.create("live", 6 << 20)
    store.cbt_enable("live")
count = max([0] + [int(name) for name in store.list() if name != "live"])
print("ready", flush=True)
while True:
    offset = rng.randrange(0, store.size("live") - 200000)
    store.write("live", offset, rng.randbytes(rng.randrange(1, 200000)))
    action = rng.randrange(10)
    snapshots = sorted((int(name) for name in store.list() if name != "live"), reverse=True)
    if action < 3:
        count += 1
        store.snapshot("live", str(count))
    elif action < 6 and len(snapshots) > 4:
        store.destroy(str(rng.choice(snapshots)))
    elif action == 6:
        store.resize("live", store.size("live") + 70000)
"""


class KillTest(TemporaryStore):
    """Killed at any moment, a store opens again and its bitmaps still cover every difference."""

    def test_kill_and_reopen(self):
        self.store.close()
        rng = random.Random(1)
        for seed in range(6):
            command = [sys.executable, "-c", WRITER, os.path.dirname(os.path.abspath(__file__)),
                       self.store.directory, str(seed)]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
                self.assertEqual(writer.stdout.readline(), b"ready\n")
                time.sleep(rng.uniform(0.05, 0.3))
                writer.send_signal(signal.SIGKILL)
            self.store = Store(self.store.directory)
            self.check()
            if seed < 5:
                self.store.close()

    def check(self):
        snapshots = sorted((name for name in self.store.list() if name != "live"), key=int)
        chain = snapshots + ["live"]
        for older, newer in zip(chain, chain[1:]):
            bitmap = self.store.changed_blocks(older, newer)
            size = self.store.size(newer)
            self.assertEqual(len(bitmap), cbt.bitmap_length(size))
            self.assertEqual(os.stat(self.store.path(newer)).st_size, size)
            left = self.store.read(older, 0, self.store.size(older)).ljust(size, b"\0")
            right = self.store.read(newer, 0, size)
            for block in range(cbt.block_count(size)):
                part = slice(block * cbt.BLOCK_SIZE, (block + 1) * cbt.BLOCK_SIZE)
                if left[part] != right[part]:
                    self.assertTrue(bitmap[block // 8] & 0x80 >> block % 8, (older, newer, block))


if __name__ == "__main__":
    unittest.main()
