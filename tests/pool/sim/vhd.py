# SPDX-License-Identifier: LGPL-2.1-or-later
"""VHD streams as pools send and take them.

Written: footer copy at 0, dynamic header at 512, an empty sector at 1536, the block table at 2048
(padded to a sector), then per block in ascending order a sector bitmap of all ones and 2 MiB of
data, and the footer. Without a base the disk is dynamic, with one it is differencing.

Read: any dynamic or differencing stream whose tables come before its blocks; sector bitmaps count.
All numbers are big-endian.
"""

import os
import struct
import time
import uuid as uuids

SECTOR = 512
BLOCK_SIZE = 2 << 20
BITMAP_SIZE = SECTOR
TABLE_OFFSET = 2048
UNUSED = 0xFFFFFFFF
TYPE_DYNAMIC = 3
TYPE_DIFFERENCING = 4
MAX_SIZE = 2040 << 30
EPOCH = 946684800  # 2000-01-01, where VHD time stamps begin
NO_OFFSET = 0xFFFFFFFFFFFFFFFF

# cookie, features, version, data offset, time, creator (application, version, system), original
# size, current size, geometry (cylinders, heads, sectors), type, checksum, uuid, saved state
FOOTER = struct.Struct(">8sIIQI4sI4sQQHBBII16sB427x")
# cookie, data offset, table offset, version, entries, block size, checksum, parent uuid, parent
# time, reserved, parent name; eight parent locators follow and stay empty
HEADER = struct.Struct(">8sQQIIII16sII512s192x256x")
FOOTER_CHECKSUM_AT = 64
HEADER_CHECKSUM_AT = 36


class VhdError(Exception):
    """A stream that is no VHD, or one that can't be taken as a stream."""


def checksum(data, field):
    """One's complement of the sum of all bytes, those of the checksum field taken as zero."""
    return ~(sum(data) - sum(data[field:field + 4])) & 0xFFFFFFFF


def _with_checksum(data, field):
    return data[:field] + struct.pack(">I", checksum(data, field)) + data[field + 4:]


def _round_up(value, unit):
    return (value + unit - 1) // unit * unit


def geometry(size):
    """Cylinders, heads and sectors per track of a disk, as the VHD specification computes them."""
    sectors = min(size // SECTOR, 65535 * 16 * 255)
    if sectors >= 65535 * 16 * 63:
        return sectors // 255 // 16, 16, 255
    track = 17
    cylinder_heads = sectors // track
    heads = max(4, (cylinder_heads + 1023) // 1024)
    if cylinder_heads >= heads * 1024 or heads > 16:
        track, heads = 31, 16
        cylinder_heads = sectors // track
    if cylinder_heads >= heads * 1024:
        track, heads = 63, 16
        cylinder_heads = sectors // track
    return cylinder_heads // heads, heads, track


def footer(size, disk_type, unique_id):
    """The 512 bytes that begin and end a stream."""
    now = max(0, int(time.time()) - EPOCH)
    packed = FOOTER.pack(b"conectix", 2, 0x10000, SECTOR, now, b"caml", 1, b"Wi2k", size, size,
                         *geometry(size), disk_type, 0, unique_id, 0)
    return _with_checksum(packed, FOOTER_CHECKSUM_AT)


def header(entries, parent_id=bytes(16), parent_name=""):
    """The 1024-byte dynamic header."""
    name = parent_name.encode("utf-16-be")[:512]
    packed = HEADER.pack(b"cxsparse", NO_OFFSET, TABLE_OFFSET, 0x10000, entries, BLOCK_SIZE, 0,
                         parent_id, 0, 0, name)
    return _with_checksum(packed, HEADER_CHECKSUM_AT)


def blocks_of(extents):
    """The numbers of the 2 MiB blocks that (offset, length) ranges touch, ascending."""
    last = -1
    for offset, length in extents:
        first = max(last + 1, offset // BLOCK_SIZE)
        for block in range(first, (offset + length - 1) // BLOCK_SIZE + 1):
            yield block
            last = block


def stream_size(size, allocated):
    """Length of the stream of a disk of ``size`` bytes with so many allocated blocks."""
    table = _round_up(4 * _round_up(size, BLOCK_SIZE) // BLOCK_SIZE, SECTOR)
    return TABLE_OFFSET + table + allocated * (BITMAP_SIZE + BLOCK_SIZE) + SECTOR


def write_stream(write, fd, size, blocks, unique_id, parent_id=None):
    """Sends the listed blocks of an open raw file; ``write`` takes bytes-like pieces.

    ``unique_id`` and ``parent_id`` are uuid texts; a parent makes the disk differencing.
    """
    if size > MAX_SIZE:
        raise VhdError(f"{size} bytes are more than a VHD can hold")
    entries = _round_up(size, BLOCK_SIZE) // BLOCK_SIZE
    table_size = _round_up(4 * entries, SECTOR)
    table = bytearray(b"\xff" * table_size)
    position = TABLE_OFFSET + table_size
    for index, block in enumerate(blocks):
        sector = (position + index * (BITMAP_SIZE + BLOCK_SIZE)) // SECTOR
        struct.pack_into(">I", table, 4 * block, sector)
    kind = TYPE_DYNAMIC if parent_id is None else TYPE_DIFFERENCING
    end = footer(size, kind, uuids.UUID(unique_id).bytes)
    parent = (uuids.UUID(parent_id).bytes, f"{parent_id}.vhd") if parent_id else ()
    write(end + header(entries, *parent) + bytes(SECTOR) + table)
    buffer = bytearray(b"\xff" * BITMAP_SIZE + bytes(BLOCK_SIZE))
    view = memoryview(buffer)
    for block in blocks:
        offset = block * BLOCK_SIZE
        count = min(BLOCK_SIZE, size - offset)
        if os.preadv(fd, [view[BITMAP_SIZE:BITMAP_SIZE + count]], offset) != count:
            raise VhdError(f"the disk ended at {offset} while it was sent")
        buffer[BITMAP_SIZE + count:] = bytes(BLOCK_SIZE - count)
        write(view)
    write(end)


class Stream:
    """The tables of a VHD stream, read from its beginning by ``read(count)``.

    ``read`` returns exactly ``count`` bytes or raises.
    """

    MAX_ENTRIES = 1 << 22

    def __init__(self, read):
        self._read = read
        self._position = 0
        self._parse_footer(self._take(SECTOR))
        self._skip_to(self._header_offset)
        self._parse_header(self._take(HEADER.size))
        self._skip_to(self._table_offset)
        self._table = struct.unpack(f">{self.entries}I", self._take(4 * self.entries))

    def _take(self, count):
        data = self._read(count)
        self._position += count
        return data

    def _skip_to(self, offset):
        if offset < self._position:
            raise VhdError(f"a table at {offset} comes before {self._position}: not a stream")
        while self._position < offset:
            self._take(min(offset - self._position, BLOCK_SIZE))

    def _parse_footer(self, data):
        fields = FOOTER.unpack(data)
        if fields[0] != b"conectix" or fields[14] != checksum(data, FOOTER_CHECKSUM_AT):
            raise VhdError("the footer copy at the beginning is damaged")
        self.footer, self._header_offset = data, fields[3]
        self.size, self.type = fields[9], fields[13]
        if self.type not in (TYPE_DYNAMIC, TYPE_DIFFERENCING):
            raise VhdError(f"disk type {self.type} can't be streamed")

    def _parse_header(self, data):
        fields = HEADER.unpack(data)
        if fields[0] != b"cxsparse" or fields[6] != checksum(data, HEADER_CHECKSUM_AT):
            raise VhdError("the dynamic header is damaged")
        self._table_offset, self.entries, self.block_size = fields[2], fields[4], fields[5]
        bad_block = self.block_size < SECTOR or self.block_size & (self.block_size - 1)
        if bad_block or self.block_size > 64 << 20 or self.entries > self.MAX_ENTRIES:
            raise VhdError(f"{self.entries} blocks of {self.block_size} bytes are not plausible")
        if self.entries * self.block_size < self.size:
            raise VhdError(f"{self.entries} blocks don't cover {self.size} bytes")

    def allocated(self):
        """Number of blocks in the stream."""
        return sum(1 for sector in self._table if sector != UNUSED)

    def apply(self, write, length=None):
        """Writes every present sector with ``write(offset, data)``, to the end of the stream.

        ``length`` is that of the whole stream; what follows the last block up to there is read,
        and must end with the footer.
        """
        order = sorted((sector, block) for block, sector in enumerate(self._table)
                       if sector != UNUSED)
        bitmap_size = _round_up(self.block_size // SECTOR // 8, SECTOR)
        for sector, block in order:
            self._skip_to(sector * SECTOR)
            bitmap = self._take(bitmap_size)
            data = memoryview(self._take(self.block_size))
            start = block * self.block_size
            for first, last in runs(bitmap, self.block_size // SECTOR):
                end = min(start + last * SECTOR, self.size)
                if start + first * SECTOR < end:
                    write(start + first * SECTOR, data[first * SECTOR:end - start])
        if length is not None:
            self._skip_to(length - SECTOR)
            if self._take(SECTOR)[:8] != self.footer[:8]:
                raise VhdError("there is no footer at the end of the stream")


def runs(bitmap, sectors):
    """Yields (first, last + 1) for each run of set bits, most significant first."""
    if bitmap.startswith(b"\xff" * (sectors // 8)) and sectors % 8 == 0:
        yield 0, sectors
        return
    first = None
    for sector in range(sectors):
        present = bitmap[sector // 8] & (0x80 >> sector % 8)
        if present and first is None:
            first = sector
        elif not present and first is not None:
            yield first, sector
            first = None
    if first is not None:
        yield first, sectors
