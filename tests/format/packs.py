# SPDX-License-Identifier: LGPL-2.1-or-later
"""Packs, frames, tree nodes and index segments (docs/format.md, sections 5, 6 and 8)."""

import struct
from collections import namedtuple

import zstandard

from store import (CHUNKS, HEADER, NODES, Damage, Header, mac, note, pack_name, read_whole,
                   unseal, xxh3)

HOLE, ZERO, DATA = range(3)
FAN_OUT = 128
MAX_FRAME = 4 << 20
MAX_OBJECT = 64 << 20
HEAD = 96
TAIL = 64

# Where a chunk or node is: number of the pack's kind, handle, offset and length of the frame, slot.
Location = namedtuple("Location", "kind handle offset length slot")
Entry = namedtuple("Entry", "kind id location")
HOLE_ENTRY = Entry(HOLE, None, None)


class FrameHeader:
    """What precedes a frame's stored bytes."""

    def __init__(self, name, data, offset):
        """data begins with the header, which says that it is at offset of its pack."""
        what = f"{name}, frame at {offset}"
        if len(data) < 24:
            raise Damage(what, "header is cut short")
        magic, self.number, self.count, at, self.raw_length, self.stored, self.compression = (
            struct.unpack("<4sHHIIII", data[:24]))
        bound = 24 + 36 * self.count
        self.length = bound + 16
        if magic != b"XVFR" or not 1 <= self.count <= 1024 or len(data) < self.length:
            raise Damage(what, "is no frame")
        if xxh3(data[:bound + 8]) != data[bound + 8:bound + 16]:
            raise Damage(what, "checksum of the header")
        if at != offset:
            raise Damage(what, f"says that it is at {at}")
        self.raw = data[:self.length]
        self.bound = data[:bound]
        self.checksum = data[bound:bound + 8]
        self.entries = [(data[at:at + 32], int.from_bytes(data[at + 32:at + 36], "little"))
                        for at in range(24, bound, 36)]
        if 0 in (length for _, length in self.entries):
            raise Damage(what, "has an empty entry")
        if self.raw_length != sum(length for _, length in self.entries):
            raise Damage(what, "raw length is not the sum of its entries")
        if self.raw_length > MAX_FRAME or self.compression not in (0, 1):
            raise Damage(what, "raw length or compression")
        self.offset = offset
        self.total = self.length + self.stored

    def open(self, name, stored, cipher, key, repository, handle):
        """Contents of the entries, from the stored bytes."""
        what = f"{name}, frame at {self.offset}"
        if xxh3(stored) != self.checksum:
            raise Damage(what, "checksum of the stored bytes")
        nonce = self.number.to_bytes(4, "little") + bytes(8)
        raw = unseal(cipher, key, nonce, repository + handle + self.bound, stored, what)
        if self.compression == 1:
            raw = expand(what, raw, self.raw_length)
        if len(raw) != self.raw_length:
            raise Damage(what, f"decodes to {len(raw)} bytes instead of {self.raw_length}")
        contents, at = [], 0
        for _, length in self.entries:
            contents.append(raw[at:at + length])
            at += length
        return contents


def expand(what, data, length):
    """Decompresses exactly one zstd frame."""
    decompressor = zstandard.ZstdDecompressor().decompressobj()
    try:
        raw = decompressor.decompress(data)
    except zstandard.ZstdError as error:
        raise Damage(what, f"does not decompress: {error}") from None
    if decompressor.unused_data:
        raise Damage(what, "more than one zstd frame")
    if not data or len(raw) > length:
        raise Damage(what, "decompresses to another length")
    return raw


class Pack:
    """A whole pack."""

    def __init__(self, repository, kind, handle, notes=None):
        self.kind, self.handle, self.repository = kind, handle, repository
        self.name = pack_name(kind, handle)
        self.data = repository.store.read(self.name)
        data, name = self.data, self.name
        if len(data) < HEAD + TAIL or len(data) > MAX_OBJECT:
            raise Damage(name, f"has {len(data)} bytes")
        header = Header(name, data, notes)
        if header.repository != repository.id or HEADER + header.body != len(data):
            raise Damage(name, "repository or length in the header")
        tail = data[-TAIL:]
        magic, version, reserved, count, length, offset = struct.unpack("<4sHHIIQ", tail[:24])
        if magic != b"XVPF" or version != 1:
            raise Damage(name, "has no tail")
        if offset < HEAD or offset + length + TAIL != len(data):
            raise Damage(name, "table is not before the tail")
        self.table = data[offset:offset + length]
        if xxh3(self.table) != tail[24:32]:
            raise Damage(name, "checksum of the table")
        covered = name.encode() + data[:HEAD] + self.table + tail[:32]
        if mac(repository.keys.mac, covered) != tail[32:]:
            raise Damage(name, "MAC of head, table and tail")
        self.session = data[64:80]
        if 1 << data[80] != repository.config.chunk or data[81] != repository.config.cipher:
            raise Damage(name, "chunk size or cipher of another repository")
        self.frames = self.read_table(count, offset)
        note(notes, name, reserved == 0 and not any(data[82:HEAD]), "reserved bytes")

    def read_table(self, count, end):
        """The frames' headers, which lie one right after the other up to the table."""
        if not 1 <= count <= 65536:
            raise Damage(self.name, f"{count} frames")
        frames, at, offset = [], 0, HEAD
        for number in range(count):
            frame = FrameHeader(self.name, self.table[at:], offset)
            if frame.number != number:
                raise Damage(self.name, f"frame {number} has number {frame.number}")
            if self.data[offset:offset + frame.length] != frame.raw:
                raise Damage(self.name, f"header of frame {number} is not the table's")
            if self.kind == NODES and frame.count != 1:
                raise Damage(self.name, f"frame {number} has {frame.count} nodes")
            frames.append(frame)
            at += frame.length
            offset += frame.total
        if at != len(self.table) or offset != end:
            raise Damage(self.name, "frames and table do not fill the pack")
        return frames

    def open_frame(self, frame):
        """Contents of a frame."""
        repo = self.repository
        stored = self.data[frame.offset + frame.length:frame.offset + frame.total]
        return frame.open(self.name, stored, repo.config.cipher, repo.keys.of_pack(self.handle),
                          repo.id, self.handle)


class Node:
    """A node of a disk's tree."""

    def __init__(self, repository, data, what):
        if len(data) < 36:
            raise Damage(what, "node is cut short")
        version, self.level, packs = struct.unpack("<BBH", data[:4])
        if version != 1 or self.level > 6:
            raise Damage(what, f"node of version {version}, level {self.level}")
        kinds = data[4:36]
        self.kinds = [kinds[e // 4] >> (2 * (e % 4)) & 3 for e in range(FAN_OUT)]
        if 3 in self.kinds:
            raise Damage(what, "node has an entry of kind 3")
        start = 36 + 16 * packs
        if len(data) != start + 44 * self.kinds.count(DATA):
            raise Damage(what, "length of the node")
        handles = [data[at:at + 16] for at in range(36, start, 16)]
        self.entries, ids, used, at = [], [], set(), start
        for kind in self.kinds:
            if kind != DATA:
                self.entries.append(Entry(kind, None, None))
                continue
            name, pack, slot, offset, length = struct.unpack("<32sHHII", data[at:at + 44])
            at += 44
            if pack >= packs:
                raise Damage(what, "node names a pack that it does not list")
            used.add(pack)
            ids.append(name)
            self.entries.append(Entry(DATA, name, Location(
                CHUNKS if self.level == 0 else NODES, handles[pack], offset, length, slot)))
        self.tidy = len(used) == packs and len(set(handles)) == packs
        self.id = mac(repository.keys.node, b"XVN1" + bytes([self.level]) + kinds + b"".join(ids))


class Segment:
    """An index segment: entries is a list of ids with locations."""

    def __init__(self, repository, name, notes=None):
        self.name = name
        header, body, data = read_whole(repository.store, name, notes)
        if header.repository != repository.id:
            raise Damage(name, "is of another repository")
        if len(body) < 16:
            raise Damage(name, "is cut short")
        self.length = len(data)
        self.blocks, self.count, self.packs, tables = struct.unpack("<IIII", body[:16])
        self.head = HEADER + 16 + tables
        if not 1 <= self.count <= 1048576 or self.blocks != -(-self.count // 85):
            raise Damage(name, "number of entries or blocks")
        if len(body) != 16 + tables + 4096 * self.blocks:
            raise Damage(name, "length of the body")
        key, cipher = repository.keys.of_object(name), repository.config.cipher
        bound = header.raw[:56] + name.encode() + body[:16]

        def open_part(number, at, length):
            return unseal(cipher, key, number.to_bytes(4, "little") + bytes(8), bound,
                          body[at:at + length], f"{name}, part {number}")
        self.read_tables(open_part(0xffffffff, 16, tables), notes)
        blocks = [open_part(number, 16 + tables + 4096 * number, 4096)
                  for number in range(self.blocks)]
        self.read_blocks(blocks, notes)

    def read_tables(self, tables, notes):
        """Packs, first ids of the blocks, filter."""
        filter_at = 20 * self.packs + 8 * self.blocks
        if len(tables) < filter_at + 4:
            raise Damage(self.name, "tables are cut short")
        self.handles = []
        for at in range(0, 20 * self.packs, 20):
            if tables[at + 16] > 1:
                raise Damage(self.name, f"pack of kind {tables[at + 16]}")
            note(notes, self.name, not any(tables[at + 17:at + 20]), "reserved bytes of a pack")
            self.handles.append((NODES if tables[at + 16] else CHUNKS, tables[at:at + 16]))
        self.firsts = [tables[at:at + 8] for at in range(20 * self.packs, filter_at, 8)]
        self.filter_blocks = int.from_bytes(tables[filter_at:filter_at + 4], "little")
        self.filter = tables[filter_at + 4:]
        if len(self.filter) != 32 * self.filter_blocks or not self.filter_blocks:
            raise Damage(self.name, "length of the filter")

    def read_blocks(self, blocks, notes):
        """Entries in order of ids."""
        self.entries = []
        previous = b""
        for number, block in enumerate(blocks):
            count = min(85, self.count - 85 * number)
            if block[:8] != self.firsts[number]:
                raise Damage(self.name, f"first id of block {number}")
            if any(block[48 * count:]):
                raise Damage(self.name, f"block {number} is not filled up with zeros")
            for at in range(0, 48 * count, 48):
                name, pack, offset, length, slot, reserved = struct.unpack(
                    "<32sIIIHH", block[at:at + 48])
                if name < previous:
                    raise Damage(self.name, "ids are out of order")
                if pack >= self.packs:
                    raise Damage(self.name, "an entry names a pack that is not listed")
                if not self.may_hold(name):
                    raise Damage(self.name, "the filter denies an id of the segment")
                note(notes, self.name, reserved == 0, "reserved bytes of an entry")
                kind, handle = self.handles[pack]
                self.entries.append((name, Location(kind, handle, offset, length, slot)))
                previous = name

    def may_hold(self, name):
        """What the split-block Bloom filter says about an id."""
        place, bits = struct.unpack("<II", name[8:16])
        block = 32 * ((place * self.filter_blocks) >> 32)
        words = struct.unpack("<8I", self.filter[block:block + 32])
        return all(word >> ((bits * salt & 0xffffffff) >> 27) & 1
                   for word, salt in zip(words, SALTS))


SALTS = (0x47b6137b, 0x44974d91, 0x8824ad5b, 0xa2b7289d, 0x705495c7,
         0x2df1424b, 0x9efc4947, 0x5c6bfb31)
