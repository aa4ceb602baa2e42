# SPDX-License-Identifier: LGPL-2.1-or-later
"""The library under test, driven through format-repo, and models of the disks given to it."""

import json
import os
import random
import subprocess

PROGRAM = os.path.join(os.environ.get("XVSA_BUILD", "."), "tests", "format", "format-repo")
HOLE, ZERO, DATA = range(3)


class Refused(Exception):
    """The library refused a command; code is the name of its error."""

    def __init__(self, code, message):
        super().__init__(f"{code}: {message}")
        self.code = code


class Library:
    """One process with a repository opened by the library; see repo.c for the commands."""

    def __init__(self, path, passphrase_file, chunk=None):
        """chunk: makes a repository of this chunk size; None: opens one."""
        self.process = subprocess.Popen(
            [PROGRAM, path, "open" if chunk is None else "init", passphrase_file or "-",
             str(chunk or 0)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            self.id = self.answer()
        except Exception:
            self.close()
            raise

    def answer(self):
        """The value that the program answers with."""
        line = self.process.stdout.readline().rstrip("\n")
        word, _, rest = line.partition(" ")
        if word == "error":
            raise Refused(*rest.split(" ", 1))
        if word != "ok":
            raise AssertionError(f"format-repo ended: {line!r}")
        return rest

    def __call__(self, *words):
        """Gives a command."""
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def listing(self):
        """The points that the library lists."""
        return json.loads(self("list"))

    def close(self):
        """Ends the program without ending its sessions."""
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Image:
    """What a disk holds, chunk by chunk, and how a backup gets it: put, kept, or a hole."""

    def __init__(self, key, size, chunk, seed=0):
        self.key, self.size, self.chunk = key, size, chunk
        self.count = -(-size // chunk)
        self.contents = {}  # number -> bytes that were put; others are holes
        self.steps = []
        self.rng = random.Random(f"{key}/{size}/{seed}")
        self.base_index = "-"

    def length(self, number):
        """Bytes of a chunk's place."""
        return min(self.chunk, self.size - number * self.chunk)

    def put(self, first, count=1, zeros=False, repeat=False, content=None):
        """Puts chunks: random, of zeros, compressible, or of a given content."""
        for number in range(first, min(first + count, self.count)):
            length = self.length(number)
            data = content or (bytes(length) if zeros else self.rng.randbytes(8) * (length // 8 + 1)
                               if repeat else self.rng.randbytes(length))
            self.contents[number] = data[:length]
        self.step("put", first, count)
        return self

    def keep(self, base, index, first, count):
        """Keeps chunks of a disk of the base, which stands at index there."""
        self.base_index = index
        for number in range(first, min(first + count, self.count)):
            if number in base.contents:
                self.contents[number] = base.contents[number]
        self.step("keep", first, count)
        return self

    def step(self, word, first, count):
        """Notes a step, cut at the end of the disk."""
        start = first * self.chunk
        self.steps.append((word, start, min(count * self.chunk, self.size - start)))

    def kind(self, number):
        """Kind of a chunk."""
        if number not in self.contents:
            return HOLE
        return DATA if any(self.contents[number]) else ZERO

    def runs(self):
        """Kinds as [[first, count, kind]]."""
        joined = []
        at = 0
        for number in [*sorted(self.contents), self.count]:
            for first, count, kind in ((at, number - at, HOLE), (number, 1, self.kind(number))):
                if first + count > self.count or not count:
                    continue
                if joined and joined[-1][2] == kind:
                    joined[-1][1] += count
                else:
                    joined.append([first, count, kind])
            at = number + 1
        return joined

    def write(self, path):
        """Writes the disk to a sparse file."""
        with open(path, "wb") as out:
            for number, data in self.contents.items():
                if any(data):
                    out.seek(number * self.chunk)
                    out.write(data)
            out.truncate(self.size)


def fill(library, session, images, path):
    """Gives disks to a session; path: of a file to write them to."""
    for image in images:
        library("disk", session, image.key, image.size, image.base_index)
        image.write(path)
        for word, start, length in image.steps:
            library(word, session, start, length, *([path] if word == "put" else []))
        library("finish", session)


def backup(library, images, path, key="pool/vm-1", base="-", vm="vm-1", taken=1000, token=0):
    """A whole session; returns the point."""
    library("begin", 0, key, token, base)
    fill(library, 0, images, path)
    return library("commit", 0, vm, "name-of-" + vm, taken)
