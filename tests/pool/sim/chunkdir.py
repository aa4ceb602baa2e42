# SPDX-License-Identifier: LGPL-2.1-or-later
"""Chunk directories: disks inside tar archives, as the tar export and XVA files hold them.

A disk is a folder of 1 MiB files named by number, each followed by its checksum: the XXH64 of the
data as 16 upper-case hexadecimal digits. Chunks of zeros are left out, save the first and the last.
"""

import ctypes
import ctypes.util
import os
import re
import tarfile

CHUNK = 1 << 20
TAR_BLOCK = 512
END = bytes(2 * TAR_BLOCK)
NAME = re.compile(r"(?:.*/)?(\d{8,})(\.xxhash|\.checksum)?\Z")
_ZEROS = bytes(CHUNK)
_MASK = (1 << 64) - 1
_PRIMES = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63,
           0x27D4EB2F165667C5)


class ChunkError(Exception):
    """An archive that holds no disk, or a damaged one."""


def _load_xxhash():
    name = ctypes.util.find_library("xxhash") or "libxxhash.so.0"
    try:
        function = ctypes.CDLL(name).XXH64
    except (OSError, AttributeError):
        return None
    function.restype = ctypes.c_uint64
    function.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64)
    return function


_native = _load_xxhash()


def _rotate(value, bits):
    return (value << bits | value >> (64 - bits)) & _MASK


def _round(accumulator, lane):
    one, two = _PRIMES[0], _PRIMES[1]
    return _rotate((accumulator + lane * two) & _MASK, 31) * one & _MASK


def _portable(data):
    """XXH64 with seed 0, for machines without the library: slow, and the same."""
    one, two, three, four, five = _PRIMES
    stripes = len(data) // 32 * 32
    if stripes:
        lanes = [one + two & _MASK, two, 0, -one & _MASK]
        for at in range(0, stripes, 32):
            for lane in range(4):
                word = int.from_bytes(data[at + 8 * lane:at + 8 * lane + 8], "little")
                lanes[lane] = _round(lanes[lane], word)
        result = sum(_rotate(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18))) & _MASK
        for lane in lanes:
            result = ((result ^ _round(0, lane)) * one + four) & _MASK
    else:
        result = five
    result = (result + len(data)) & _MASK
    at = stripes
    while at + 8 <= len(data):
        word = int.from_bytes(data[at:at + 8], "little")
        result = (_rotate(result ^ _round(0, word), 27) * one + four) & _MASK
        at += 8
    if at + 4 <= len(data):
        word = int.from_bytes(data[at:at + 4], "little")
        result = (_rotate(result ^ word * one & _MASK, 23) * two + three) & _MASK
        at += 4
    for byte in data[at:]:
        result = _rotate(result ^ byte * five & _MASK, 11) * one & _MASK
    result = (result ^ result >> 33) * two & _MASK
    result = (result ^ result >> 29) * three & _MASK
    return result ^ result >> 32


def checksum(data):
    """The text that follows a chunk."""
    value = _native(data, len(data), 0) if _native is not None else _portable(data)
    return f"{value:016X}".encode()


def chunks(fd, size):
    """Yields (number, data) of the chunks an archive holds."""
    last = max(0, (size - 1) // CHUNK)
    for number in range(last + 1):
        data = os.pread(fd, min(CHUNK, size - number * CHUNK), number * CHUNK)
        if number in (0, last) or data != _ZEROS:
            yield number, data


def _entry(name, data):
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o400
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % TAR_BLOCK)


def archive_size(fd, size):
    """About how long an archive of the disk is, for progress: as if no chunk was of zeros."""
    return size + (size // CHUNK + 1) * 3 * TAR_BLOCK + len(END)


def write_archive(write, folder, fd, size):
    """Sends a tar archive with one disk of ``size`` bytes, read from an open file."""
    for number, data in chunks(fd, size):
        name = f"{folder}/{number:08d}"
        write(_entry(name, data) + _entry(f"{name}.xxhash", checksum(data)))
    write(END)


def read_archive(read, write):
    """Takes an archive with one disk: ``read(count)`` gives exactly so many bytes of it.

    ``write(offset, data)`` gets each chunk once its checksum, if one follows, proved right.
    """
    pending = None
    while True:
        head = read(TAR_BLOCK)
        if head == bytes(TAR_BLOCK):
            break
        try:
            info = tarfile.TarInfo.frombuf(head, "utf-8", "strict")
        except tarfile.HeaderError as error:
            raise ChunkError(f"damaged tar header: {error}") from error
        match = NAME.match(info.name)
        if match is None or info.size > CHUNK:
            raise ChunkError(f"unexpected file {info.name} of {info.size} bytes")
        data = read(info.size + -info.size % TAR_BLOCK)[:info.size]
        if match[2] is None:
            _flush(pending, write)
            pending = int(match[1]), data
        elif match[2] == ".xxhash" and (pending is None or data != checksum(pending[1])):
            raise ChunkError(f"checksum of chunk {match[1]} is wrong")
    _flush(pending, write)


def _flush(pending, write):
    if pending is not None and pending[1]:
        write(pending[0] * CHUNK, pending[1])
