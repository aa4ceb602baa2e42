# SPDX-License-Identifier: LGPL-2.1-or-later
"""Changed block tracking: bitmaps, their files, and the walk along a chain of logs.

A bit stands for 64 KiB of virtual disk, most significant bit first: block i is
``bytes[i // 8] & (0x80 >> i % 8)``. Padding bits after the last block are zero.

A log belongs to one disk or snapshot and holds what was written since its parent in the chain was
taken. Logs are linked by uuid: ``parent`` is the next older one, ``child`` the next newer one.
"""

import mmap
import os

BLOCK_SIZE = 65536

# Faults of the storage manager that a client sees as SR_BACKEND_FAILURE_<fault>.
FAULT_INCONSISTENT = 459
FAULT_CHANGED_BLOCKS = 460


class CbtError(Exception):
    """A refused request for changed blocks. ``fault`` is the storage manager's number."""

    def __init__(self, fault, detail):
        super().__init__(f"fault {fault}: {detail}")
        self.fault = fault
        self.detail = detail


def block_count(size):
    """Number of 64 KiB blocks of a disk of ``size`` bytes."""
    return (size + BLOCK_SIZE - 1) // BLOCK_SIZE


def bitmap_length(size):
    """Bytes of the bitmap of a disk of ``size`` bytes."""
    return (block_count(size) + 7) // 8


def set_range(bitmap, offset, length):
    """Marks every block touched by ``length`` bytes written at ``offset``."""
    if length <= 0:
        return
    first, last = offset // BLOCK_SIZE, (offset + length - 1) // BLOCK_SIZE
    head, tail = first // 8, last // 8
    head_bits = 0xFF >> (first % 8)
    tail_bits = (0xFF << (7 - last % 8)) & 0xFF
    if head == tail:
        bitmap[head] |= head_bits & tail_bits
        return
    bitmap[head] |= head_bits
    bitmap[head + 1:tail] = b"\xff" * (tail - head - 1)
    bitmap[tail] |= tail_bits


def clear_blocks(bitmap, blocks):
    """Clears the bits of the given block numbers; numbers outside of the bitmap are ignored."""
    for block in blocks:
        if 0 <= block // 8 < len(bitmap):
            bitmap[block // 8] &= ~(0x80 >> (block % 8)) & 0xFF


def merge(older, newer):
    """The union of two bitmaps, as long as the longer one (the shorter is zero-extended)."""
    length = max(len(older), len(newer))
    left = int.from_bytes(bytes(older).ljust(length, b"\0"), "big")
    right = int.from_bytes(bytes(newer).ljust(length, b"\0"), "big")
    return (left | right).to_bytes(length, "big")


def changed_blocks(find_log, read_bitmap, from_uuid, to_uuid):
    """The union of the logs after ``from_uuid`` up to and including ``to_uuid``.

    ``find_log(uuid)`` gives a log (``size``, ``child``, ``consistent``) or None where tracking is
    off; ``read_bitmap(uuid)`` gives a log's bytes or raises OSError.
    """
    start, end = find_log(from_uuid), find_log(to_uuid)
    if start is None or end is None:
        missing = from_uuid if start is None else to_uuid
        raise CbtError(FAULT_CHANGED_BLOCKS, f"changed block tracking is off on {missing}")
    result = b""
    seen = {from_uuid}
    uuid = start.child
    while uuid is not None and uuid not in seen:
        seen.add(uuid)
        node = find_log(uuid)
        if node is None:
            break
        try:
            bitmap = read_bitmap(uuid)
        except OSError as error:
            raise CbtError(FAULT_CHANGED_BLOCKS, f"log of {uuid} is missing: {error}") from error
        fits = len(result) <= len(bitmap) == bitmap_length(node.size)
        if not node.consistent or not fits:
            raise CbtError(FAULT_INCONSISTENT, f"log of {uuid} is inconsistent")
        result = merge(result, bitmap)
        if uuid == to_uuid:
            return result
        uuid = node.child
    raise CbtError(FAULT_CHANGED_BLOCKS,
                   f"{to_uuid} does not follow {from_uuid} in a chain of logs")


class LogFile:
    """A bitmap file mapped into memory, so that every bit set survives the end of the process.

    Not thread-safe: the owner serialises access.
    """

    def __init__(self, path, size):
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._length = 0
        self._map = None
        try:
            if os.fstat(self._fd).st_size != bitmap_length(size):
                raise CbtError(FAULT_INCONSISTENT, f"{path} does not fit a disk of {size} bytes")
            self._remap(size)
        except Exception:
            os.close(self._fd)
            raise

    def _remap(self, size):
        if self._map is not None:
            self._map.close()
            self._map = None
        self._length = bitmap_length(size)
        if self._length:
            self._map = mmap.mmap(self._fd, self._length)

    @staticmethod
    def create(path, content):
        """Writes a new bitmap file holding ``content``."""
        with open(path, "xb") as file:
            file.write(content)

    def mark(self, offset, length):
        """Marks the blocks of a write."""
        if self._map is not None:
            set_range(self._map, offset, length)

    def clear(self, blocks):
        """Forgets the given blocks: a tracker that lies."""
        if self._map is not None:
            clear_blocks(self._map, blocks)

    def include(self, bitmap):
        """Adds the bits of an older log, which is never longer than this one."""
        if self._map is not None:
            self._map[:] = merge(bitmap, self._map)

    def content(self):
        """The bitmap's bytes."""
        return bytes(self._map) if self._map is not None else b""

    def resize(self, size):
        """Grows the bitmap with zeros to that of a disk of ``size`` bytes."""
        os.ftruncate(self._fd, bitmap_length(size))
        self._remap(size)

    def close(self):
        """Releases the file; the content stays on disk."""
        if self._map is not None:
            self._map.close()
            self._map = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
