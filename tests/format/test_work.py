#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Works: both sides read the same maps and the same progress."""

import json
import os
import shutil
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from case import CHUNK, FormatCase  # noqa: E402
from library import Image, fill  # noqa: E402
from progress import disk_map, done  # noqa: E402

WORK = "0123456789abcdef" * 2


class Works(FormatCase):
    """Sessions of a work, whose objects the reader must understand."""

    def put(self, library, slot, image, ranges):
        """Puts ranges of chunks into a disk of the session and makes a checkpoint."""
        image.write(self.source)
        library("disk", slot, image.key, image.size, image.base_index)
        for first, count in ranges:
            start = first * CHUNK
            library("put", slot, start, min(count * CHUNK, image.size - start), self.source)
        library("checkpoint", slot)

    def assert_alike(self, library, key):
        """Both sides read the same progress."""
        repository = self.read([])
        self.assertEqual(json.loads(library("done", WORK, key)), done(repository, WORK, key))
        self.assertEqual(json.loads(library("read-map", WORK, key)),
                         disk_map(repository, WORK, key))
        return repository

    def test_shared(self):
        """An increment that a part does half of, and a successor of the owner finishes."""
        library, helper = self.make(), self.opened()
        old = Image("vdi", 40 * CHUNK + 17, CHUNK).put(0, 41)
        base = self.backup(library, [old])
        image = Image("vdi", 40 * CHUNK + 17, CHUNK, 2).keep(old, 0, 0, 20)
        image.put(20, 3, zeros=True).put(23, 5).put(28, 4, content=old.contents[28]).put(32, 9)
        read, keep = (20 * CHUNK, 20 * CHUNK + 17), (0, 20 * CHUNK)
        library("work", 0, "pool/vm-1", 9, base, WORK, "backup")
        library("map", 0, "vdi", image.size, 0, *keep, *read)
        library("map", 0, "vdi", image.size, 0, *read, *keep)
        self.assertEqual(self.assert_alike(library, "vdi").journal.works[WORK].key, "pool/vm-1")
        helper("work", 0, "pool/vm-1#" + WORK + "#m", 0, base, WORK, "part")
        self.put(helper, 0, image, [(20, 4), (30, 11)])
        repository = self.assert_alike(library, "vdi")
        self.assertEqual(done(repository, WORK, "vdi"),
                         [[20 * CHUNK, 4 * CHUNK], [30 * CHUNK, 10 * CHUNK + 17]])
        self.put(library, 0, image, [(24, 2)])
        library("park", 0)
        self.assert_alike(helper, "vdi")
        repository, verifier = self.assert_sound(library)
        self.assertGreater(verifier.counts["progress"], 3)
        library("work", 1, "pool/vm-1", 12, base, WORK, "backup")
        library("disk", 1, "vdi", image.size, 0)
        library("keep", 1, *keep)
        self.assertEqual(int(library("adopt", 1)), 16 * CHUNK + 17)
        library("put", 1, 26 * CHUNK, 4 * CHUNK, self.source)
        library("checkpoint", 1)
        self.assertEqual(int(library("adopt", 1)), read[1])
        library("finish", 1)
        self.points[library("commit", 1, "vm-1", "name", 2000)] = [image]
        repository, verifier = self.assert_sound(library)
        self.assertEqual((repository.journal.works, verifier.counts["progress"]), ({}, 0))

    def test_several_disks(self):
        """Each disk has its own progress, a damaged object is a fault for the reader alone."""
        library = self.make()
        images = [Image(f"vdi-{i}", 5 * CHUNK, CHUNK, i).put(0, 5) for i in range(3)]
        library("work", 0, "pool/vm-1", 0, "-", WORK, "backup")
        for image in images[:2]:
            library("map", 0, image.key, image.size, "-", 0, image.size, 0, 0)
            self.put(library, 0, image, [(1, 2)])
            self.assert_alike(library, image.key)
        self.assertEqual(done(self.read(), WORK, "vdi-2"), [])
        self.assert_sound(library)
        shutil.rmtree(os.path.join(self.path, "w"))
        library.close()
        library = self.opened()
        library("work", 1, "pool/vm-1", 0, "-", WORK, "backup")
        library("disk", 1, "vdi-0", images[0].size, "-")
        self.assertEqual(library("adopt", 1), "0")
        library("abort", 1)
        library("begin", 2, "pool/vm-1", 0, "-")
        fill(library, 2, images, self.source)
        self.points[library("commit", 2, "vm-1", "name", 1)] = images
        self.assert_sound(library)


class Clear(Works):
    """The same without encryption."""

    encrypted = False


if __name__ == "__main__":
    unittest.main()
