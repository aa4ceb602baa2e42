# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests of the format share: a repository in a folder, read by both sides."""

import filecmp
import json
import os
import shutil
import tempfile
import unittest

from library import DATA, Library, backup
from reader import Verifier, list_points
from repository import Repository

CHUNK = 65536
PASSPHRASE = "a passphrase for tests"
WHOLE = 64 << 20  # disks up to here are compared as a whole


class FormatCase(unittest.TestCase):
    """A repository that the library writes and the reader must read."""

    encrypted = True
    chunk = CHUNK

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="xvsa-format-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.path = os.path.join(self.folder, "repo")
        self.source = os.path.join(self.folder, "source")
        self.passphrase_file = None
        self.passphrase = None
        if self.encrypted:
            self.passphrase_file = os.path.join(self.folder, "passphrase")
            self.passphrase = PASSPHRASE.encode()
            with open(self.passphrase_file, "w", encoding="utf-8") as file:
                file.write(PASSPHRASE + "\n")
        self.points = {}  # live: id -> images

    def make(self):
        """A new repository, opened by the library."""
        return self.opened(self.chunk)

    def opened(self, chunk=None):
        """The repository opened by the library."""
        library = Library(self.path, self.passphrase_file, chunk)
        self.addCleanup(library.close)
        return library

    def backup(self, library, images, **options):
        """A point that both sides must have from now on."""
        point = backup(library, images, self.source, **options)
        self.points[point] = images
        return point

    def read(self, notes=None):
        """The repository opened by the reader."""
        return Repository(self.path, self.passphrase, notes)

    def assert_listed_alike(self, library, repository):
        """Both sides list the same points; the library lists the oldest first."""
        listed = [{"id": row["id"], "vm": row["vm"], "pool": row["pool"],
                   "taken_ms": row["taken_ms"], "disk_count": row["disk_count"],
                   "size": row["size"], "bytes_stored": row["bytes_stored"]}
                  for row in library.listing()]
        read = [{"id": row["point"], "vm": {"uuid": row["vm_uuid"], "name": row["vm_name"]},
                 "pool": row["pool_uuid"], "taken_ms": row["taken"],
                 "disk_count": len(row["disks"]),
                 "size": sum(disk["size"] for disk in row["disks"]),
                 "bytes_stored": row["stored"]} for row in list_points(repository)]
        self.assertEqual(listed, sorted(read, key=lambda row: row["taken_ms"]))
        self.assertEqual(set(self.points), {row["id"] for row in listed})

    def assert_sound(self, library):
        """The reader explains every byte and both sides read what was given."""
        notes = []
        repository = self.read(notes)
        verifier = Verifier(repository, notes)
        self.assertEqual(verifier.run(), [])
        self.assertEqual(verifier.counts["points"], len(self.points))
        self.assertEqual(repository.journal.skipped, [])
        self.assert_listed_alike(library, repository)
        for point, images in self.points.items():
            document = repository.point(point)
            self.assertEqual(document.document["stored"],
                             verifier.stored[document.document["session"]])
            self.assertEqual([disk.key for disk in document.disks], [image.key for image in images])
            for index, image in enumerate(images):
                with self.subTest(point=point, disk=image.key):
                    self.assert_disk(library, repository, document, index, image)
        self.assertEqual(library("verify"), "0")
        return repository, verifier

    def assert_disk(self, library, repository, point, index, image):
        """A disk holds what the image does, for both sides, with the same kinds."""
        disk = point.disk(str(index))
        self.assertEqual(disk.size, image.size)
        runs = image.runs()
        self.assertEqual(repository.runs(disk), runs)
        if len(runs) <= 64:
            size = image.chunk
            extents = [[first * size, min(count * size, image.size - first * size), kind]
                       for first, count, kind in runs]
            self.assertEqual(json.loads(library("extents", point.id, index)), extents)
        for number, _, entry in repository.chunks(disk):
            if entry.kind == DATA:
                self.assertEqual(repository.read_entry(entry), image.contents[number])
        if image.size <= WHOLE:
            self.assert_files(library, repository, point, index, image)

    def assert_files(self, library, repository, point, index, image):
        """Files that both sides extract are the original."""
        paths = [os.path.join(self.folder, name) for name in ("original", "read", "restored")]
        image.write(paths[0])
        repository.extract(point.disk(image.key), paths[1])
        library("restore", point.id, index, paths[2])
        for path in paths[1:]:
            self.assertTrue(filecmp.cmp(paths[0], path, shallow=False), path)
