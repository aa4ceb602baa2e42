# SPDX-License-Identifier: LGPL-2.1-or-later
"""Restore points and the trees of their disks (docs/format.md, sections 6, 7 and 11)."""

import functools
import re

from journal import check_members, read_document, replay
from packs import (DATA, FAN_OUT, HOLE_ENTRY, Entry, FrameHeader, Location, Node, Segment)
from store import (KEY, NODES, Config, Damage, Directory, Keys, Refusal, Slot, mac, note,
                   pack_name, type_of)

POINT = {"point": 32, "session": 32, "vm_uuid": str, "vm_name": str, "pool_uuid": str,
         "job_id": str, "taken": int, "base": 32, "metadata": str, "stored": int, "disks": list}
DISK = {"key": str, "device": str, "size": int, "metadata": str, "stats": dict, "root": dict}
ROOT = {"kind": int, "level": int}
ROOT_DATA = {**ROOT, "id": 64, "pack": 32, "offset": int, "length": int}


class Disk:
    """A disk of a restore point."""

    def __init__(self, name, document, chunk, notes=None):
        check_members(name, document, DISK, (), notes)
        self.key, self.device, self.size = (document[m] for m in ("key", "device", "size"))
        root = document["root"]
        is_data = isinstance(root, dict) and root.get("kind") == DATA
        check_members(name, root, ROOT_DATA if is_data else ROOT, (), notes)
        self.chunks = -(-self.size // chunk)
        self.level = 0
        while FAN_OUT ** (self.level + 1) < self.chunks:
            self.level += 1
        if root["kind"] not in range(3) or root["level"] != self.level or self.size < 0:
            raise Damage(name, f"root or size of disk {self.key}")
        self.root = Entry(root["kind"], None, None)
        if is_data:
            self.root = Entry(DATA, bytes.fromhex(root["id"]), Location(
                NODES, bytes.fromhex(root["pack"]), root["offset"], root["length"], 0))


class Point:
    """A restore point."""

    def __init__(self, repository, identity, notes=None):
        self.id, self.name = identity, "rp/" + identity
        self.document, self.digest = read_document(repository, self.name, notes)
        check_members(self.name, self.document, POINT, ("base",), notes)
        if self.document["point"] != identity:
            raise Damage(self.name, f"is point {self.document['point']}")
        self.disks = [Disk(self.name, disk, repository.config.chunk, notes)
                      for disk in self.document["disks"]]

    def compare(self, commit):
        """Compares the point with its RP_COMMIT."""
        if self.digest != commit["digest"]:
            raise Damage(self.name, "is not what was committed")
        expected = {member: self.document[member] for member in (
            "session", "vm_uuid", "vm_name", "pool_uuid", "taken", "stored")}
        expected.update(size=sum(disk.size for disk in self.disks), disks=len(self.disks))
        for member, value in expected.items():
            if commit[member] != value:
                raise Damage(self.name, f"{member} differs from what was committed")

    def disk(self, wanted):
        """A disk by its position or its key."""
        for index, disk in enumerate(self.disks):
            if wanted in (str(index), disk.key):
                return disk
        raise Refusal(f"point {self.id} has no disk {wanted}")


class Repository:
    """A repository opened for reading."""

    def __init__(self, path, passphrase, notes=None):
        """passphrase: bytes, or None for a repository without encryption."""
        self.store = Directory(path)
        self.config = Config(self.store, notes)
        self.id = self.config.repository
        self.keys = self.unlock(passphrase, notes)
        self.journal = replay(self, notes)
        self.read_frame = functools.lru_cache(64)(self.fetch_frame)

    def unlock(self, passphrase, notes):
        """Keys of the slot that the passphrase opens."""
        slots = [Slot(self.store, name, notes) for name in self.store.names()
                 if type_of(name) == KEY]
        for slot in slots:
            if slot.header.repository != self.id:
                continue
            master = slot.unwrap(passphrase, self.config.cipher)
            if master is not None:
                self.master = master
                keys = Keys(master, self.id)
                if mac(keys.mac, self.config.authenticated) != self.config.mac:
                    raise Damage("config", "MAC")
                return keys
        raise Refusal("no key slot opens with this passphrase")

    @functools.cached_property
    def index(self):
        """Lists of locations by id, of every segment that the journal names."""
        found = {}
        for segment in self.journal.segments:
            for identity, location in self.segment(segment).entries:
                found.setdefault(identity, []).append(location)
        return found

    def segment(self, identity, notes=None):
        """An index segment, compared with what the journal says about it."""
        segment, listed = Segment(self, "ix/" + identity, notes), self.journal.segments[identity]
        if (segment.length, segment.head, segment.count) != (
                listed["length"], listed["head"], listed["entries"]):
            raise Damage(segment.name, "is not as the journal says")
        return segment

    def point(self, identity, notes=None):
        """A live point, compared with its commit."""
        if identity not in self.journal.points:
            raise Refusal(f"there is no point {identity}")
        point = Point(self, identity, notes)
        point.compare(self.journal.points[identity])
        return point

    def fetch_frame(self, kind, handle, offset, length):
        """Ids and contents of the entries of a frame; each entry is checked against its id."""
        name = pack_name(kind, handle)
        data = self.store.read(name, offset, length)
        frame = FrameHeader(name, data, offset)
        if frame.total != length:
            raise Damage(name, f"frame at {offset} has {frame.total} bytes instead of {length}")
        contents = frame.open(name, data[frame.length:], self.config.cipher,
                              self.keys.of_pack(handle), self.id, handle)
        what = f"{name}, frame at {offset}"
        return [(identity, self.check_content(what, kind, identity, content))
                for (identity, _), content in zip(frame.entries, contents)]

    def check_content(self, what, kind, identity, content):
        """Content of an entry: bytes of a chunk or a Node; compared with its id."""
        if kind == NODES:
            content = Node(self, content, what)
        computed = content.id if kind == NODES else mac(self.keys.chunk, content)
        if computed != identity:
            raise Damage(what, "an entry has not the content that its id stands for")
        return content

    def read_entry(self, entry):
        """Content that an entry of a tree refers to; its location is a hint."""
        try:
            return self.read_at(entry.location, entry.id)
        except Damage as damage:
            for location in self.index.get(entry.id, ()):
                try:
                    return self.read_at(location, entry.id)
                except Damage:
                    continue
            raise damage

    def read_at(self, location, identity):
        """Content with an id at a location."""
        contents = self.read_frame(*location[:4])
        if location.slot >= len(contents) or contents[location.slot][0] != identity:
            raise Damage(pack_name(location.kind, location.handle),
                         f"frame at {location.offset} does not hold {identity.hex()}")
        return contents[location.slot][1]

    def chunks(self, disk, seen=None, notes=None):
        """A disk's chunks in order: first, count, entry; runs without nodes have a count above 1.

        seen: called with the entry of every node met.
        """
        def walk(entry, level, first):
            span = FAN_OUT ** level
            if level == 0:
                yield first, 1, entry
            elif entry.kind != DATA:
                yield first, min(span, disk.chunks - first), entry
            else:
                node = self.read_entry(entry)
                if node.level != level - 1:
                    raise Damage(pack_name(NODES, entry.location.handle), "node of a wrong level")
                note(notes, entry.id.hex(), node.tidy, "node lists packs that it does not use")
                if seen:
                    seen(entry)
                for number, child in enumerate(node.entries):
                    at = first + number * (span // FAN_OUT)
                    if at < disk.chunks:
                        yield from walk(child, level - 1, at)
                    elif child != HOLE_ENTRY:
                        raise Damage(entry.id.hex(), "node has entries beyond the disk's end")
        yield from walk(disk.root, disk.level + 1, 0)

    def extract(self, disk, path):
        """Writes a disk to a sparse file."""
        size = self.config.chunk
        with open(path, "wb") as out:
            out.truncate(disk.size)
            for number, _, entry in self.chunks(disk):
                if entry.kind == DATA:
                    content = self.read_entry(entry)
                    if number * size + len(content) > disk.size or len(content) > size:
                        raise Damage(entry.id.hex(), "chunk is longer than its place")
                    out.seek(number * size)
                    out.write(content)

    def runs(self, disk):
        """Kinds of a disk's chunks as [[first, count, kind]], neighbours of one kind joined."""
        joined = []
        for first, count, entry in self.chunks(disk):
            if joined and joined[-1][2] == entry.kind:
                joined[-1][1] += count
            elif count:
                joined.append([first, count, entry.kind])
        return joined


def read_passphrase(path):
    """Passphrase of a file: its content without one line end."""
    with open(path, "rb") as file:
        return re.sub(rb"\r?\n\Z", b"", file.read())
