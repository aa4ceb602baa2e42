# SPDX-License-Identifier: LGPL-2.1-or-later
"""Sparse files: where their data is, copies that stay sparse, and holes."""

import contextlib
import ctypes
import errno
import fcntl
import os

FICLONE = 0x40049409
FALLOC_PUNCH_HOLE_KEEP_SIZE = 3
COPY_CHUNK = 8 << 20
NO_COPY_FILE_RANGE = {errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM}

_libc = ctypes.CDLL(None, use_errno=True)


def data_extents(fd, start, end):
    """Yields (offset, length) of the ranges of an open file that hold data, in ascending order."""
    position = start
    while position < end:
        try:
            begin = os.lseek(fd, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        if begin >= end:
            return
        position = min(os.lseek(fd, begin, os.SEEK_HOLE), end)
        yield begin, position - begin


def copy_range(source, target, offset, length):
    """Copies a range between two open files at the same offset."""
    end = offset + length
    while offset < end:
        try:
            count = os.copy_file_range(source, target, min(end - offset, 1 << 30), offset, offset)
        except OSError as error:
            if error.errno not in NO_COPY_FILE_RANGE:
                raise
            data = os.pread(source, min(end - offset, COPY_CHUNK), offset)
            count = os.pwrite(target, data, offset)
        if count == 0:
            raise OSError(errno.EIO, f"file ended at {offset} while it was copied")
        offset += count


def copy_sparse(source, target, size):
    """Makes the empty file ``target`` a copy of ``source``: a reflink, else its data only."""
    try:
        fcntl.ioctl(target, FICLONE, source)
        return
    except OSError:
        pass  # not a file system with reflinks
    os.ftruncate(target, size)
    for offset, length in data_extents(source, 0, size):
        copy_range(source, target, offset, length)


def punch(fd, offset, length):
    """Makes a range of an open file read as zeros, without storage where the file system can."""
    if length <= 0:
        return
    arguments = (fd, FALLOC_PUNCH_HOLE_KEEP_SIZE, ctypes.c_int64(offset), ctypes.c_int64(length))
    if _libc.fallocate(*arguments) == 0:
        return
    if ctypes.get_errno() != errno.EOPNOTSUPP:
        raise OSError(ctypes.get_errno(), f"can't punch {length} bytes at {offset}")
    while length:
        count = os.pwrite(fd, bytes(min(length, COPY_CHUNK)), offset)
        offset, length = offset + count, length - count


@contextlib.contextmanager
def opened(path, flags):
    """An open file descriptor for the time of a ``with`` block."""
    fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)
