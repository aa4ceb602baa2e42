# SPDX-License-Identifier: LGPL-2.1-or-later
"""Progress of works: maps and what is done (docs/format.md, section 12)."""

import struct

from journal import read_message
from packs import DATA, Location
from store import CHUNKS, Damage, note

MAP, DONE = 1, 2
READ, KEEP = 1, 2
GAP = 3
FIXED = 88
REFERENCE = 48
NO_BASE = 0xffffffff
CONTENTS = {"map": MAP, "done": DONE}


class Progress:
    """An object w/<id>."""

    def __init__(self, repository, identity, notes=None):
        self.name = "w/" + identity
        self.chunk = repository.config.chunk
        body, self.digest = read_message(repository, self.name, notes)
        self.length = repository.store.length(self.name)
        if len(body) < FIXED:
            raise Damage(self.name, "is cut short")
        (version, self.content, reserved, self.base_index, self.session, self.base, self.size,
         self.first, self.end, *lengths) = struct.unpack("<BBHI16s16sQQQ6I", body[:FIXED])
        if version != 1 or self.content not in (MAP, DONE):
            raise Damage(self.name, f"version {version}, content {self.content}")
        note(notes, self.name, reserved == 0, "reserved bytes")
        sizes = [*lengths[:3], 16 * lengths[3], REFERENCE * lengths[4], lengths[5]]
        if FIXED + sum(sizes) != len(body):
            raise Damage(self.name, "parts do not fill the message")
        if not self.first <= self.end <= -(-self.size // self.chunk):
            raise Damage(self.name, "covers more than its disk")
        at, parts = FIXED, []
        for size in sizes:
            parts.append(body[at:at + size])
            at += size
        self.key, self.device, self.facts = (part.decode() for part in parts[:3])
        self.packs = [parts[3][i:i + 16] for i in range(0, sizes[3], 16)]
        self.references = [self.read_reference(parts[4][i:i + REFERENCE], notes)
                           for i in range(0, sizes[4], REFERENCE)]
        self.runs = list(self.read_runs(parts[5]))

    def read_reference(self, data, notes):
        """Id and location of a chunk."""
        pack, offset, length, slot, reserved = struct.unpack("<IIIHH", data[32:])
        if pack >= len(self.packs):
            raise Damage(self.name, f"pack {pack} is not listed")
        note(notes, self.name, reserved == 0, "reserved bytes of a reference")
        return data[:32], Location(CHUNKS, self.packs[pack], offset, length, slot)

    def read_runs(self, data):
        """(first chunk, count, kind, references); together they cover [first, end)."""
        at, chunk, used = 0, self.first, 0
        while at < len(data):
            value = shift = 0
            while True:
                if at == len(data) or shift > 56:
                    raise Damage(self.name, "a run is cut short or too long")
                value |= (data[at] & 0x7f) << shift
                shift += 7
                at += 1
                if data[at - 1] < 0x80:
                    break
            kind, count = value & 3, value >> 2
            places = count if self.content == DONE and kind == DATA else 0
            if not count or chunk + count > self.end or used + places > len(self.references):
                raise Damage(self.name, "a run does not fit")
            yield chunk, count, kind, self.references[used:used + places]
            chunk, used = chunk + count, used + places
        if chunk != self.end or used != len(self.references):
            raise Damage(self.name, "runs do not cover what they should")

    def ranges(self, wanted):
        """Byte ranges of the runs whose kind is wanted."""
        return [(first * self.chunk, min(count * self.chunk, self.size - first * self.chunk))
                for first, count, kind, _ in self.runs if wanted(kind)]


def join(ranges):
    """Sorted ranges without overlaps, as lists."""
    joined = []
    for offset, length in sorted(ranges):
        if joined and offset <= sum(joined[-1]):
            joined[-1][1] = max(sum(joined[-1]), offset + length) - joined[-1][0]
        else:
            joined.append([offset, length])
    return joined


def named(repository, work, content, notes=None):
    """Objects of an open work that the journal names, record by record."""
    for record in repository.journal.works[work].records:
        objects = []
        for row in record["objects"]:
            if row["content"] != content:
                continue
            progress = Progress(repository, row["id"], notes)
            said = (row["digest"], row["length"], row["key"], CONTENTS[row["content"]])
            if said != (progress.digest, progress.length, progress.key, progress.content):
                raise Damage(progress.name, "is not what the journal says")
            objects.append(progress)
        if objects:
            yield objects


def done(repository, work, key):
    """Byte ranges of a disk that are done."""
    return join(part for objects in named(repository, work, "done") for progress in objects
                if progress.key == key for part in progress.ranges(lambda kind: kind != GAP))


def disk_map(repository, work, key):
    """The latest map of a disk, as the library's test program tells it; None when there is none."""
    latest = None
    for objects in named(repository, work, "map"):
        latest = [part for part in objects if part.key == key] or latest
    if latest is None:
        return None
    head = latest[0]
    return {"key": key, "device": head.device, "facts": head.facts, "size": head.size,
            "base": head.base.hex() if any(head.base) else "",
            "base_index": -1 if head.base_index == NO_BASE else head.base_index,
            "read": join(r for part in latest for r in part.ranges(lambda kind: kind & READ)),
            "keep": join(r for part in latest for r in part.ranges(lambda kind: kind & KEEP))}
