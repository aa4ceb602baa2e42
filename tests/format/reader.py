#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reads a repository of libxvsa by docs/format.md alone, sharing nothing with the library.

    reader.py DIR [--passphrase-file F] [--list] [--verify] [--extract POINT DISK OUT]

--list prints the live points as JSON. --verify checks every object, every reachable chunk, and that
nothing is there that the specification does not explain; it prints each fault and ends with 1 if
there are any. --extract writes a disk (its position or key) to a sparse file.
"""

import argparse
import json
import sys

from packs import DATA, Pack, Segment
from progress import Progress, named
from repository import Repository, Point, read_passphrase
from store import (CHUNKS, NODES, POINT, PROGRESS, SEGMENT, Damage, Refusal, note, pack_name,
                   type_of)


class Verifier:
    """Checks everything that a repository holds."""

    def __init__(self, repository, notes):
        self.repository, self.faults = repository, notes
        self.frames = {}    # (kind, handle, offset) -> ids of the frame's entries, length
        self.stored = {}    # session -> bytes of its packs
        self.verified = set()
        self.counts = dict.fromkeys(("objects", "points", "nodes", "chunks", "reachable",
                                     "indexed", "progress"), 0)

    def guard(self, check, *arguments):
        """Runs a check; damage becomes a fault."""
        try:
            check(*arguments)
        except Damage as damage:
            self.faults.append(str(damage))

    def run(self):
        """Checks all; returns the faults."""
        names = self.repository.store.names()
        checks = {CHUNKS: self.check_pack, NODES: self.check_pack, SEGMENT: self.check_segment,
                  POINT: self.check_point_object, PROGRESS: self.check_progress}
        for kind in (CHUNKS, NODES, SEGMENT, POINT, PROGRESS):
            for name in names:
                if type_of(name) == kind:
                    self.guard(checks[kind], name)
        for name in names:
            known = type_of(name) is not None or name.startswith("probe/")
            note(self.faults, name, known, "is not explained by the specification")
            self.counts["objects"] += 1
        for identity in self.repository.journal.segments:
            self.guard(self.repository.segment, identity)
        for identity in self.repository.journal.points:
            self.guard(self.check_point, identity)
        for work in self.repository.journal.works:
            for content in ("map", "done"):
                self.guard(list, named(self.repository, work, content, self.faults))
        return self.faults

    def check_pack(self, name):
        """A pack with all of its frames; the contents are compared with their ids."""
        kind, handle = type_of(name), bytes.fromhex(name[5:])
        pack = Pack(self.repository, kind, handle, self.faults)
        session = pack.session.hex()
        self.stored[session] = self.stored.get(session, 0) + len(pack.data)
        for frame in pack.frames:
            for (identity, _), content in zip(frame.entries, pack.open_frame(frame)):
                self.repository.check_content(name, kind, identity, content)
                self.counts["chunks" if kind == CHUNKS else "nodes"] += 1
            self.frames[kind, handle, frame.offset] = (
                [identity for identity, _ in frame.entries], frame.total)

    def check_segment(self, name):
        """A segment, named by the journal or not; every entry must lead to its id."""
        segment = Segment(self.repository, name, self.faults)
        for identity, location in segment.entries:
            self.counts["indexed"] += 1
            self.check_location(name, identity, location)

    def check_progress(self, name):
        """An object of a work, named by the journal or not; its chunks are where it says."""
        progress = Progress(self.repository, name[2:], self.faults)
        self.counts["progress"] += 1
        for identity, location in progress.references:
            self.check_location(name, identity, location)

    def check_location(self, name, identity, location):
        """A location leads to a frame that holds the id."""
        ids, length = self.frames.get(location[:3], ((), 0))
        if length != location.length or location.slot >= len(ids) or ids[location.slot] != identity:
            raise Damage(name, f"{identity.hex()} is not where it says, in "
                               f"{pack_name(location.kind, location.handle)} at {location.offset}")

    def check_point_object(self, name):
        """The object of a point, live or not."""
        Point(self.repository, name[3:], self.faults)

    def check_point(self, identity):
        """A live point: all of its trees, all of its chunks."""
        point = self.repository.point(identity)
        self.counts["points"] += 1
        for disk in point.disks:
            self.guard(self.check_disk, point, disk)

    def check_disk(self, point, disk):
        """A disk: every location is right (not only found by the index) and every chunk fits."""
        def seen(entry):
            self.check_location(point.name, entry.id, entry.location)
        size = self.repository.config.chunk
        for number, _, entry in self.repository.chunks(disk, seen, self.faults):
            if entry.kind != DATA:
                continue
            self.counts["reachable"] += 1
            self.check_location(point.name, entry.id, entry.location)
            if entry not in self.verified:
                content = self.repository.read_entry(entry)
                self.verified.add(entry)
                if not any(content):
                    self.faults.append(f"{point.name}: chunk {number} of {disk.key} holds zeros")
            if number == disk.chunks - 1:
                if number * size + len(self.repository.read_entry(entry)) > disk.size:
                    raise Damage(point.name, f"chunk {number} of {disk.key} is too long")


def list_points(repository):
    """Live points, as JSON values in the order of their commits."""
    return [{"point": point.id, **{member: point.document.get(member) for member in (
        "vm_uuid", "vm_name", "pool_uuid", "job_id", "taken", "base", "stored")},
             "disks": [{"key": disk.key, "device": disk.device, "size": disk.size}
                       for disk in point.disks]}
            for point in map(repository.point, repository.journal.points)]


def main():
    """Command line."""
    parser = argparse.ArgumentParser(prog="reader.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory")
    parser.add_argument("--passphrase-file", metavar="F")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--verify", action="store_true")
    parser.add_argument("--extract", nargs=3, metavar=("POINT", "DISK", "OUT"))
    options = parser.parse_args()
    passphrase = read_passphrase(options.passphrase_file) if options.passphrase_file else None
    notes = []
    try:
        repository = Repository(options.directory, passphrase, notes)
        damage = repository.journal.damage
        if damage:
            print(f"reader.py: {damage}; entries from there on do not count", file=sys.stderr)
        if options.list:
            print(json.dumps(list_points(repository), indent=2))
        if options.extract:
            point, disk, out = options.extract
            repository.extract(repository.point(point).disk(disk), out)
        if options.verify:
            verifier = Verifier(repository, notes)
            for fault in verifier.run():
                print(fault)
            print(json.dumps({**verifier.counts, "faults": len(verifier.faults)}))
            return 1 if verifier.faults else 0
    except (Damage, Refusal) as error:
        print(f"reader.py: {error}", file=sys.stderr)
        return 1
    return 1 if damage else 0


if __name__ == "__main__":
    sys.exit(main())
