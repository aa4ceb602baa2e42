# SPDX-License-Identifier: LGPL-2.1-or-later
"""The reader's checks can fail: what is changed, missing, misplaced or unexplained is found."""

import os
import random
import shutil
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from case import CHUNK, FormatCase  # noqa: E402
from library import Image, Refused  # noqa: E402
from reader import Verifier  # noqa: E402
from store import Damage, Refusal  # noqa: E402

PLACES = 24  # bytes flipped in each object besides the first and the last


class Flips(FormatCase):
    """One byte changed, one object missing, cut, or under another name."""

    def setUp(self):
        super().setUp()
        library = self.make()
        full = Image("vdi", 130 * CHUNK + 9, CHUNK).put(0, 2, repeat=True).put(130)
        base = self.backup(library, [full])
        later = Image("vdi", 130 * CHUNK + 9, CHUNK, 1).keep(full, 0, 0, 130).put(130)
        self.backup(library, [later], base=base, taken=2000)
        self.assert_sound(library)
        library.close()
        self.names = self.read().store.names()

    def is_found(self):
        """Whether the reader's verify finds a fault."""
        notes = []
        try:
            return bool(Verifier(self.read(notes), notes).run())
        except (Damage, Refusal):
            return True

    def is_found_by_library(self):
        """Whether the library refuses the repository or its verify finds a fault."""
        try:
            library = self.opened()
            found = library("verify") != "0"
            library.close()
            return found
        except Refused:
            return True

    def write(self, name, data):
        """Replaces an object."""
        path = os.path.join(self.path, name)
        os.chmod(path, 0o600)
        with open(path, "wb") as file:
            file.write(data)

    def test_flips(self):
        rng = random.Random(7)
        self.assertFalse(self.is_found())
        for name in self.names:
            good = self.read().store.read(name)
            places = {0, len(good) - 1, *(rng.randrange(len(good)) for _ in range(PLACES))}
            for place in sorted(places):
                bad = bytearray(good)
                bad[place] ^= 1 << rng.randrange(8)
                self.write(name, bad)
                with self.subTest(object=name, offset=place):
                    self.assertTrue(self.is_found())
            self.write(name, good)
        self.assertFalse(self.is_found())

    def test_both_find_the_same(self):
        """What is missing, cut short, empty or longer is found by both sides."""
        for name in self.names:
            good = self.read().store.read(name)
            for what, bad in (("cut", good[:-1]), ("empty", b""), ("longer", good + b"\0")):
                self.write(name, bad)
                with self.subTest(object=name, what=what):
                    self.assertTrue(self.is_found())
                    self.assertTrue(self.is_found_by_library())
            os.unlink(os.path.join(self.path, name))
            # The last entry of a journal leaves no gap behind.
            if name != max(name for name in self.names if name.startswith("j/")):
                with self.subTest(object=name, what="missing"):
                    self.assertTrue(self.is_found())
                    self.assertTrue(self.is_found_by_library())
            with open(os.path.join(self.path, name), "wb") as file:
                file.write(good)
        self.assertFalse(self.is_found())
        self.assertFalse(self.is_found_by_library())

    def test_swapped(self):
        """Objects are bound to their names."""
        for prefix in ("n/", "p/", "ix/", "rp/", "j/"):
            one, two = [name for name in self.names if name.startswith(prefix)][:2]
            first, second = map(self.read().store.read, (one, two))
            self.write(one, second)
            self.write(two, first)
            with self.subTest(prefix=prefix):
                self.assertTrue(self.is_found())
                self.assertTrue(self.is_found_by_library())
            self.write(one, first)
            self.write(two, second)

    def test_unexplained(self):
        """A file that the specification does not name."""
        shutil.copy(os.path.join(self.path, "config"), os.path.join(self.path, "konfig"))
        self.assertTrue(self.is_found())


class ClearFlips(Flips):
    """Without encryption checksums find what is changed by accident."""

    encrypted = False


if __name__ == "__main__":
    unittest.main()
