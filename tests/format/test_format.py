# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the library writes is what docs/format.md says, read by a reader that knows only that."""

import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from case import CHUNK, FormatCase  # noqa: E402
from library import Image, Refused, fill  # noqa: E402

MIB = 1 << 20


class Points(FormatCase):
    """Points of every kind of content."""

    def image(self, key, size, seed=0):
        """A disk of this repository's chunk size."""
        return Image(key, size, self.chunk, seed)

    def chunks(self, count, rest=0):
        """A size in bytes."""
        return count * self.chunk + rest

    def day(self, library):
        """A full backup and two incremental ones of two disks; the disks grow."""
        system = self.image("system", self.chunks(20, 777)).put(0, 6).put(8, 2, zeros=True)
        system.put(12, 4, repeat=True).put(18, 3)
        data = self.image("data", self.chunks(3)).put(0, 3)
        full = self.backup(library, [system, data])
        later = self.image("system", self.chunks(20, 777), 1).keep(system, 0, 0, 4).put(4, 2)
        later.keep(system, 0, 6, 15)
        grown = self.image("data", self.chunks(5, 1)).keep(data, 1, 0, 5)
        second = self.backup(library, [later, grown], base=full, taken=2000)
        longer = self.image("system", self.chunks(30, 9)).keep(later, 0, 0, 21).put(25, 6)
        self.backup(library, [longer], base=second, taken=3000)
        return full

    def test_days(self):
        library = self.make()
        full = self.day(library)
        repository, verifier = self.assert_sound(library)
        self.assertEqual(repository.config.chunk, self.chunk)
        self.assertGreater(verifier.counts["reachable"], 0)
        self.assertGreater(verifier.counts["indexed"], 0)
        del self.points[full]
        library("delete", full)
        repository, _ = self.assert_sound(library)
        self.assertEqual(repository.journal.deleted, {full})

    def test_odd_sizes(self):
        library = self.make()
        images = [self.image("empty", 0), self.image("byte", 1).put(0),
                  self.image("hole", self.chunks(2, 3)), self.image("exact", self.chunks(1)).put(0),
                  self.image("short", self.chunks(1, 1)).put(1),
                  self.image("zeros", self.chunks(2, 5)).put(0, 3, zeros=True)]
        self.backup(library, images)
        self.assert_sound(library)

    def test_shrunk_inside_a_chunk(self):
        """What is kept of a chunk that the disk's new end cuts is not longer than its place."""
        library = self.make()
        old = self.image("vdi", self.chunks(3)).put(0, 3)
        base = self.backup(library, [old])
        new = self.image("vdi", self.chunks(2, 100), 1).keep(old, 0, 0, 2).put(2)
        kept = self.image("vdi", self.chunks(2, 100), 2).keep(old, 0, 0, 3)
        self.backup(library, [new], base=base, taken=2000)
        self.assert_sound(library)
        library("begin", 0, "pool/vm-1", 0, base)
        with self.assertRaises(Refused) as caught:
            fill(library, 0, [kept], self.source)
        self.assertEqual(caught.exception.code, "INVALID")
        library("abort", 0)
        self.assert_sound(library)

    def test_same_content_elsewhere(self):
        library = self.make()
        one = self.image("one", self.chunks(9)).put(0, 9)
        self.backup(library, [one])
        two = self.image("two", self.chunks(9))
        for number in range(9):
            two.put(number, content=one.contents[8 - number])
        point = self.backup(library, [two], key="pool/vm-2", vm="vm-2", taken=2000)
        repository, _ = self.assert_sound(library)
        packs = {entry.location.handle for _, _, entry in
                 repository.chunks(repository.point(point).disk("two"))}
        self.assertEqual(len(packs), 1)
        self.assertLess(repository.point(point).document["stored"], self.chunk)

    def test_equal_disks(self):
        """Equal disks of one session: the ids of their nodes occur twice in the index."""
        library = self.make()
        one, two = self.image("one", self.chunks(3)).put(0, 3), self.image("two", self.chunks(3))
        for number in range(3):
            two.put(number, content=one.contents[number])
        self.backup(library, [one, two])
        self.assert_sound(library)

    def test_several_segments(self):
        library = self.make()
        image = self.image("vdi", self.chunks(200)).put(0, 90, repeat=True)
        library("begin", 0, "pool/vm-1", 0, "-")
        library("disk", 0, image.key, image.size, "-")
        image.put(100, 3)
        image.write(self.source)
        for word, start, length in image.steps:
            library(word, 0, start, length, self.source)
            library("checkpoint", 0)
        library("finish", 0)
        self.points[library("commit", 0, "vm-1", "name", 5)] = [image]
        repository, verifier = self.assert_sound(library)
        self.assertGreater(len(repository.journal.segments), 1)
        self.assertGreaterEqual(verifier.counts["indexed"], 93)


class LargerChunks(Points):
    """Chunks of 1 MiB."""

    chunk = MIB

    def test_several_segments(self):
        self.skipTest("the same at every chunk size")


class LargestChunks(FormatCase):
    """Chunks as long as a frame may be."""

    chunk = 4 * MIB

    def test_frames(self):
        library = self.make()
        self.backup(library, [Image("vdi", 9 * MIB, self.chunk).put(0, 3)])
        self.assert_sound(library)


class Clear(Points):
    """A repository without encryption."""

    encrypted = False

    def test_cipher(self):
        self.make()
        self.assertEqual(self.read().config.cipher, 0)


class Trees(FormatCase):
    """Trees of several levels."""

    def store(self, *images):
        """Backs up images and checks them."""
        library = self.make()
        self.backup(library, list(images))
        return self.assert_sound(library)[0]

    def test_levels(self):
        leaf, two, three = 128, 128 ** 2, 128 ** 3
        images = [Image("leaf", leaf * CHUNK, CHUNK).put(127),
                  Image("above", (leaf + 1) * CHUNK, CHUNK).put(128),
                  Image("two", two * CHUNK, CHUNK).put(0).put(two - 1),
                  Image("three", (two + 1) * CHUNK, CHUNK).put(two),
                  Image("four", three * CHUNK + 5, CHUNK).put(3).put(three - 1, 2)]
        repository = self.store(*images)
        point = repository.point(next(iter(self.points)))
        self.assertEqual([disk.level for disk in point.disks], [0, 1, 1, 2, 3])

    def test_zeros(self):
        """Leaves of zeros, of zeros up to the end of the disk, of zeros and holes."""
        self.store(Image("all", 256 * CHUNK, CHUNK).put(0, 256, zeros=True),
                   Image("end", 130 * CHUNK, CHUNK).put(0, 130, zeros=True),
                   Image("mixed", 300 * CHUNK, CHUNK).put(0, 140, zeros=True).put(299),
                   Image("few", 300 * CHUNK, CHUNK).put(130, 2, zeros=True))

    def test_kept_trees(self):
        """Kept ranges that end inside and between leaves, on a disk that grows by a level."""
        library = self.make()
        old = Image("vdi", 300 * CHUNK + 100, CHUNK).put(0, 20).put(120, 16).put(250, 51)
        base = self.backup(library, [old])
        new = Image("vdi", 17000 * CHUNK, CHUNK).keep(old, 0, 0, 125).put(125, 2)
        new.keep(old, 0, 128, 200).put(16999)
        self.backup(library, [new], base=base, taken=2000)
        small = Image("vdi", 126 * CHUNK, CHUNK).keep(new, 0, 0, 126)
        self.backup(library, [small], base="latest:vm-1", taken=3000)
        self.assert_sound(library)


if __name__ == "__main__":
    unittest.main()
