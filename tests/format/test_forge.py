# SPDX-License-Identifier: LGPL-2.1-or-later
"""The other direction: what is written by docs/format.md alone is read by the library.

It writes what the library itself would not: locations that lead nowhere, frames without
compression, several chunks of short content, several key slots.
"""

import hashlib
import os
import random
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import forge  # noqa: E402
from case import CHUNK, FormatCase  # noqa: E402
from journal import INDEX_ADD, RP_COMMIT, SESSION_BEGIN, SESSION_END  # noqa: E402
from library import Refused  # noqa: E402
from reader import Verifier  # noqa: E402
from store import CHUNKS, NODES, POINT, mac  # noqa: E402

SESSION, POINT_ID, SEGMENT_ID = "5e" * 16, "b0" * 16, "1d" * 16
SIZE = 130 * CHUNK + 10


class Written(FormatCase):
    """A repository whose config and key are the library's, and everything else is forged."""

    def setUp(self):
        super().setUp()
        self.make().close()
        self.repository = self.read()
        rng = random.Random(3)
        self.contents = {0: rng.randbytes(CHUNK), 1: b"short", 2: b"text" * 100,
                         129: b"\x01" * CHUNK, 130: rng.randbytes(10)}

    def write(self, misplaced=False, later=False):
        """Writes a point of one disk.

        misplaced: locations of chunks in the tree lead nowhere. later: with a later minor version
        and values in reserved bytes.
        """
        repo = self.repository
        pack = forge.PackWriter(repo, CHUNKS, SESSION, later)
        ids = {number: mac(repo.keys.chunk, data) for number, data in self.contents.items()}
        places = {}
        for numbers, compressed in (((0,), False), ((1, 2, 129), True), ((130,), False)):
            offset, length = pack.add([(ids[n], self.contents[n]) for n in numbers], compressed)
            for slot, number in enumerate(numbers):
                places[number] = (pack.handle, slot, offset, length)
        stored = pack.finish()
        locations = {ids[n]: (CHUNKS, pack.handle, offset, length, slot)
                     for n, (_, slot, offset, length) in places.items()}
        if misplaced:
            places[0] = (os.urandom(16), 0, 96, 1000)                    # no such pack
            places[2] = (*places[2][:1], 0, *places[2][2:])              # another slot
            places[130] = (pack.handle, 0, 97, places[130][3])           # no frame there
        nodes = forge.PackWriter(repo, NODES, SESSION, later)
        first = {n: (ids[n], *places[n]) for n in (0, 1, 2)}
        first[5] = 1
        second = {n - 128: (ids[n], *places[n]) for n in (129, 130)}
        second[0] = 1
        children = {}
        for number, entries in enumerate((first, second)):
            identity, data = forge.node(repo, 0, entries)
            place = nodes.add([(identity, data)], number == 0)
            children[number] = (identity, nodes.handle, 0, *place)
        identity, data = forge.node(repo, 1, children)
        offset, length = nodes.add([(identity, data)], False)
        stored += nodes.finish()
        root = {"kind": 2, "level": 1, "id": identity.hex(), "pack": nodes.handle.hex(),
                "offset": offset, "length": length}
        self.commit(root, stored, forge.segment(repo, SEGMENT_ID, locations), later)

    def commit(self, root, stored, segment, later):
        """Point and journal."""
        facts = {"session": SESSION, "point": POINT_ID, "vm_uuid": "vm", "vm_name": "web",
                 "pool_uuid": "pool", "taken": 5, "stored": stored}
        disk = {"key": "vdi", "device": "0", "size": SIZE, "metadata": "{}", "stats": {},
                "root": root}
        point = forge.sealed_object(self.repository, "rp/" + POINT_ID, POINT, {
            **facts, "job_id": "job", "metadata": "{}", "disks": [disk]}, later)
        journal = forge.JournalWriter(self.repository)
        journal.append([{"type": SESSION_BEGIN, "flags": 0, "session": SESSION, "kind": "backup",
                         "key": "k", "token": 1, "owner": "", "pins": []}])
        journal.append([{"type": INDEX_ADD, "flags": 0, "session": SESSION, "segments": [segment]}])
        journal.append([{"type": RP_COMMIT, "flags": 0, **facts, "size": SIZE, "disks": 1,
                         "digest": hashlib.sha256(point).hexdigest()},
                        {"type": SESSION_END, "flags": 0, "session": SESSION, "outcome": "ok"}])
        self.points = {POINT_ID: None}

    def expected(self):
        """Bytes of the disk."""
        disk = bytearray(SIZE)
        for number, data in self.contents.items():
            disk[number * CHUNK:number * CHUNK + len(data)] = data
        return disk

    def assert_restored(self):
        """Both sides read the disk's bytes; returns the library."""
        library, repository = self.opened(), self.read()
        self.assert_listed_alike(library, repository)
        path = os.path.join(self.folder, "out")
        library("restore", POINT_ID, 0, path)
        with open(path, "rb") as file:
            self.assertEqual(file.read(), self.expected())
        repository.extract(repository.point(POINT_ID).disk("0"), path)
        with open(path, "rb") as file:
            self.assertEqual(file.read(), self.expected())
        return library

    def test_point(self):
        self.write()
        library = self.assert_restored()
        self.assertEqual(library("verify"), "0")
        notes = []
        self.assertEqual(Verifier(self.read(notes), notes).run(), [])

    def test_later_minor_version(self):
        """Minor versions and reserved bytes are ignored; a strict reader remarks them."""
        self.write(later=True)
        library = self.assert_restored()
        self.assertEqual(library("verify"), "0")
        notes = []
        self.assertNotEqual(Verifier(self.read(notes), notes).run(), [])

    def test_locations_are_hints(self):
        self.write(misplaced=True)
        self.assert_restored()

    def test_key_slots(self):
        """A second passphrase, and a slot of another repository."""
        self.write()
        forge.key_slot(self.repository, self.repository.master, b"second", "key/" + "0" * 16,
                       "zweite Passphrase für alle Fälle".encode())
        forge.key_slot(self.repository, bytes(32), b"third", "key/" + "1" * 16, owner=b"x" * 16)
        self.assert_restored()
        for passphrase, good in (("second", True), ("third", False)):
            with open(self.passphrase_file, "w", encoding="utf-8") as file:
                file.write(passphrase + "\n")
            self.passphrase = passphrase.encode()
            if good:
                self.assert_restored()
                continue
            with self.assertRaises(Refused) as caught:
                self.opened()
            self.assertEqual(caught.exception.code, "AUTH")


class ClearWritten(Written):
    """Without encryption."""

    encrypted = False

    def test_key_slots(self):
        self.skipTest("there is no passphrase")


if __name__ == "__main__":
    unittest.main()
