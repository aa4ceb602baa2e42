# SPDX-License-Identifier: LGPL-2.1-or-later
"""Repositories of format version 1 that every later library and reader must read.

golden-v1/sealed is encrypted: an incremental point of two grown disks whose base was deleted, a
point of another VM with an empty disk, an aborted session and a fenced one. golden-v1/clear is not
encrypted and has chunks of 1 MiB. They are never made anew: a change that needs that breaks stored
backups.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from case import FormatCase  # noqa: E402
from library import Image, Refused, backup  # noqa: E402
from reader import Verifier  # noqa: E402
from repository import read_passphrase  # noqa: E402

GOLDEN = os.path.join(HERE, "golden-v1")
PASSPHRASE_FILE = os.path.join(GOLDEN, "passphrase")


def digest(path):
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


class Golden(FormatCase):
    """The encrypted repository."""

    name = "sealed"

    def setUp(self):
        super().setUp()
        shutil.copytree(os.path.join(GOLDEN, self.name), self.path)
        with open(os.path.join(GOLDEN, "expected.json"), encoding="utf-8") as file:
            self.expected = json.load(file)[self.name]
        if self.encrypted:
            self.passphrase_file = PASSPHRASE_FILE
            self.passphrase = read_passphrase(PASSPHRASE_FILE)
        self.out = os.path.join(self.folder, "out")

    def test_reader(self):
        notes = []
        repository = self.read(notes)
        self.assertEqual(Verifier(repository, notes).run(), [])
        journal = repository.journal
        self.assertEqual({"id": repository.id.hex(), "chunk": repository.config.chunk,
                          "entries": journal.entries, "fenced": len(journal.fenced),
                          "deleted": sorted(journal.deleted)},
                         {member: self.expected[member] for member in (
                             "id", "chunk", "entries", "fenced", "deleted")})
        for row in self.expected["points"]:
            point = repository.point(row["point"])
            for index, expected in enumerate(row["disks"]):
                disk = point.disk(str(index))
                self.assertEqual((disk.key, disk.device, disk.size),
                                 (expected["key"], expected["device"], expected["size"]))
                self.assertEqual(repository.runs(disk), expected["runs"])
                repository.extract(disk, self.out)
                self.assertEqual(digest(self.out), expected["sha256"])

    def test_library(self):
        library = self.opened()
        self.assertEqual(library.id, self.expected["id"])
        self.points = {row["point"]: None for row in self.expected["points"]}
        self.assert_listed_alike(library, self.read())
        self.assertEqual(library("verify"), "0")
        chunk = self.expected["chunk"]
        for row in self.expected["points"]:
            for index, disk in enumerate(row["disks"]):
                extents = [[first * chunk, min(count * chunk, disk["size"] - first * chunk), kind]
                           for first, count, kind in disk["runs"]]
                self.assertEqual(json.loads(library("extents", row["point"], index)), extents)
                library("restore", row["point"], index, self.out)
                self.assertEqual(digest(self.out), disk["sha256"])

    def test_library_goes_on(self):
        """A later library still adds points, on top of the old ones as well."""
        library = self.opened()
        row = self.expected["points"][0]
        disk, chunk = row["disks"][0], self.expected["chunk"]
        image = Image(disk["key"], disk["size"] + chunk, chunk)
        image.base_index = 0
        image.step("keep", 0, disk["size"] // chunk)
        image.put(disk["size"] // chunk, 2)
        point = backup(library, [image], self.source, base=row["point"], taken=1800000000000)
        self.assertEqual(library("verify"), "0")
        notes = []
        repository = self.read(notes)
        self.assertEqual(Verifier(repository, notes).run(), [])
        self.assertEqual(repository.point(point).document["base"], row["point"])


class Clear(Golden):
    """The repository without encryption."""

    name = "clear"
    encrypted = False

    def test_passphrase_is_refused(self):
        """Who gives a passphrase expects encryption."""
        with self.assertRaises(Refused):
            self.passphrase_file = PASSPHRASE_FILE
            self.opened()


class CommandLine(unittest.TestCase):
    """The reader as a program."""

    def run_reader(self, *words):
        """Runs the reader on the encrypted repository."""
        return subprocess.run([sys.executable, os.path.join(HERE, "reader.py"),
                               os.path.join(GOLDEN, "sealed"), *words],
                              capture_output=True, text=True, check=False)

    def test_list_and_verify(self):
        result = self.run_reader("--passphrase-file", PASSPHRASE_FILE, "--list")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(len(json.loads(result.stdout)), 2)
        result = self.run_reader("--passphrase-file", PASSPHRASE_FILE, "--verify")
        self.assertEqual(result.returncode, 0, result.stdout)
        self.assertEqual(json.loads(result.stdout)["faults"], 0)

    def test_wrong_passphrase(self):
        other = os.path.join(GOLDEN, "expected.json")
        result = self.run_reader("--passphrase-file", other, "--list")
        self.assertEqual(result.returncode, 1)
        self.assertIn("passphrase", result.stderr)
        self.assertEqual(self.run_reader("--list").returncode, 1)


if __name__ == "__main__":
    unittest.main()
