# SPDX-License-Identifier: LGPL-2.1-or-later
"""The simulator's storage: one sparse raw file per virtual disk, and changed block tracking.

A store is a directory owned by one process at a time:

    store.db      which disks exist, and the chain of their tracking logs (SQLite)
    <uuid>.raw    a disk's data, sparse
    <id>.log      a tracking bitmap (see ``cbt``)

Files are made before the transaction that names them and removed after the one that forgets them,
so a process killed at any moment leaves a consistent store; opening it sweeps files nobody names.
The store survives the end of its process, not a power cut: nothing is flushed to the medium.

A snapshot or clone costs nothing at first, as on an SR of VHD files: it is a hard link to the file of
its source, and whichever of them is written to next gets a file of its own before. Disks that are
written by others than this class (``writable_path``) are copied at once.

Locks: ``_lock`` guards the records, the database and every bitmap; a disk's own lock serialises its
writes, copies and removal, and is always taken before ``_lock``. Readers take neither while they
read data. A tracking bit is set before its data is written: a bitmap may say too much, never too
little.
"""

import contextlib
import dataclasses
import fcntl
import os
import secrets
import sqlite3
import threading

from . import cbt
from .cbt import CbtError
from .sparse import copy_range, copy_sparse, data_extents, opened, punch

__all__ = ["CbtError", "Store", "StoreError"]

SCHEMA = """
CREATE TABLE IF NOT EXISTS disk (
    uuid TEXT PRIMARY KEY, size INTEGER NOT NULL, has_data INTEGER NOT NULL,
    log TEXT, parent TEXT, child TEXT, consistent INTEGER NOT NULL)
"""


class StoreError(Exception):
    """A request the store can't fulfil: unknown or existing disk, range outside of a disk."""


@dataclasses.dataclass
class Disk:
    """What the store remembers of a disk; ``log`` is None where tracking is off."""

    uuid: str
    size: int
    has_data: bool = True
    log: str = None
    parent: str = None
    child: str = None
    consistent: bool = True


class Store:
    """All disks of a simulated pool. Every method may be called from any thread."""

    def __init__(self, directory):
        self.directory = os.path.abspath(directory)
        os.makedirs(self.directory, exist_ok=True)
        self._lock = threading.RLock()
        self._disk_locks = {}
        self._written_outside = set()  # disks whose writable path is known to others
        self._owner = os.open(os.path.join(self.directory, "store.lock"),
                              os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._owner)
            raise StoreError(f"{self.directory} is in use by another process") from error
        self._db = sqlite3.connect(os.path.join(self.directory, "store.db"),
                                   check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.execute(SCHEMA)
        self._disks = {row[0]: Disk(row[0], row[1], bool(row[2]), *row[3:6], bool(row[6]))
                       for row in self._db.execute("SELECT * FROM disk")}
        self._sweep()
        self._undo_growth()

    def close(self):
        """Gives the directory back; the store can't be used afterwards."""
        with self._lock:
            self._db.close()
            os.close(self._owner)

    def _sweep(self):
        named = {disk.log for disk in self._disks.values()}
        named |= {f"{disk.uuid}.raw" for disk in self._disks.values() if disk.has_data}
        for name in os.listdir(self.directory):
            if name.endswith((".raw", ".log")) and name not in named:
                os.unlink(os.path.join(self.directory, name))

    def _undo_growth(self):
        """Cuts files back to their disk's size: a resize that was never recorded."""
        for disk in self._disks.values():
            lengths = {disk.log: cbt.bitmap_length(disk.size)} if disk.log is not None else {}
            if disk.has_data:
                lengths[f"{disk.uuid}.raw"] = disk.size
            for name, length in lengths.items():
                with contextlib.suppress(FileNotFoundError):
                    if os.stat(self._file(name)).st_size > length:
                        os.truncate(self._file(name), length)

    # Records

    def _file(self, name):
        return os.path.join(self.directory, name)

    def _disk(self, uuid):
        with self._lock:
            disk = self._disks.get(uuid)
            if disk is None:
                raise StoreError(f"no disk {uuid} in the store")
            return disk

    def _with_data(self, uuid):
        disk = self._disk(uuid)
        if not disk.has_data:
            raise StoreError(f"the data of disk {uuid} was destroyed")
        return disk

    def _save(self, *disks, remove=()):
        """Stores the given records, and removes others, in one transaction. Needs ``_lock``."""
        with self._db:
            for disk in disks:
                self._db.execute("INSERT OR REPLACE INTO disk VALUES (?,?,?,?,?,?,?)",
                                 dataclasses.astuple(disk))
            for uuid in remove:
                self._db.execute("DELETE FROM disk WHERE uuid = ?", (uuid,))
        for disk in disks:
            self._disks[disk.uuid] = disk
        for uuid in remove:
            del self._disks[uuid]

    @contextlib.contextmanager
    def _exclusive(self, *uuids):
        with contextlib.ExitStack() as stack:
            for uuid in sorted(set(uuids)):
                with self._lock:
                    lock = self._disk_locks.setdefault(uuid, threading.RLock())
                stack.enter_context(lock)
            yield

    def _new_data(self, uuid, fill):
        """Makes the data file of a new disk with ``fill(fd)``; no file is left if that fails."""
        if uuid in self._disks:
            raise StoreError(f"disk {uuid} exists")
        path = self._file(f"{uuid}.raw")
        try:
            with opened(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC) as fd:
                fill(fd)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            raise

    # Disks

    def create(self, uuid, virtual_size):
        """Makes an empty disk of ``virtual_size`` bytes that reads as zeros."""
        with self._exclusive(uuid):
            self._new_data(uuid, lambda fd: os.ftruncate(fd, virtual_size))
            with self._lock:
                self._save(Disk(uuid, virtual_size))

    def adopt(self, uuid, path):
        """Makes a disk with the content of the file at ``path``, which stays as it is."""
        with self._exclusive(uuid), opened(path, os.O_RDONLY) as source:
            size = os.fstat(source).st_size
            self._new_data(uuid, lambda fd: copy_sparse(source, fd, size))
            with self._lock:
                self._save(Disk(uuid, size))

    def clone(self, src, new):
        """Makes an independent disk with the content of ``src``, not tracked."""
        with self._exclusive(src, new):
            disk = self._with_data(src)
            self._duplicate(disk, new)
            with self._lock:
                self._save(Disk(new, disk.size))

    def _duplicate(self, disk, new):
        """Makes the data file of a new disk with the content of another one. Needs both locks."""
        if disk.uuid in self._written_outside:
            with opened(self.path(disk.uuid), os.O_RDONLY) as source:
                self._new_data(new, lambda fd: copy_sparse(source, fd, disk.size))
            return
        if new in self._disks:
            raise StoreError(f"disk {new} exists")
        path = self._file(f"{new}.raw")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        os.link(self.path(disk.uuid), path)

    def _own(self, uuid):
        """Gives a disk a data file that no other disk shares. Needs the disk's lock."""
        path = self.path(uuid)
        if os.stat(path).st_nlink == 1:
            return
        new = self._file(f"own-{uuid}.raw")  # swept like any file that nobody names
        with opened(path, os.O_RDONLY) as source, \
                opened(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC) as target:
            copy_sparse(source, target, os.fstat(source).st_size)
        os.replace(new, path)

    def snapshot(self, src_uuid, new_uuid, break_cbt=False):
        """Makes a snapshot, which takes over the log of a tracked disk; the disk gets an empty one.

        With ``break_cbt`` the new log can't be made: the snapshot succeeds and tracking of the disk
        is off. Returns whether tracking is as it was.
        """
        with self._exclusive(src_uuid, new_uuid):
            disk = self._with_data(src_uuid)
            self._duplicate(disk, new_uuid)
            with self._lock:
                disk = self._disk(src_uuid)
                if disk.log is None:
                    self._save(Disk(new_uuid, disk.size))
                    return True
                self._split(disk, new_uuid, break_cbt)
                return not break_cbt

    def _split(self, disk, new_uuid, break_cbt):
        snapshot = dataclasses.replace(disk, uuid=new_uuid, consistent=True,
                                       child=None if break_cbt else disk.uuid)
        log = None if break_cbt else self._new_log(disk.size)
        leaf = dataclasses.replace(disk, log=log, parent=None if break_cbt else new_uuid)
        changed = [snapshot, leaf]
        parent = self._log_of(disk.parent)
        if parent is not None:
            changed.append(dataclasses.replace(parent, child=new_uuid))
        self._save(*changed)

    def destroy(self, uuid):
        """Removes a disk. Its log's bits are added to those of its child, and the chain closed."""
        with self._exclusive(uuid), self._lock:
            disk = self._disk(uuid)
            changed = self._unlink_log(disk, merge=True)
            self._save(*changed, remove=[uuid])
            self._remove_files(disk.log, f"{uuid}.raw")
            self._disk_locks.pop(uuid, None)
            self._written_outside.discard(uuid)

    def data_destroy(self, uuid):
        """Removes a snapshot's data and keeps its log."""
        with self._exclusive(uuid), self._lock:
            disk = self._disk(uuid)
            if disk.log is None:
                raise StoreError(f"disk {uuid} has no log to keep")
            self._save(dataclasses.replace(disk, has_data=False))
            self._remove_files(f"{uuid}.raw")

    def _remove_files(self, *names):
        for name in names:
            if name is not None:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._file(name))

    def resize(self, uuid, size, break_cbt=False):
        """Grows a disk; its log grows with zeros. With ``break_cbt`` the log can't be grown and
        tracking goes off. Returns whether tracking is as it was."""
        with self._exclusive(uuid), self._lock:
            disk = self._with_data(uuid)
            if size < disk.size:
                raise StoreError(f"disk {uuid} of {disk.size} bytes can't shrink to {size}")
            self._own(uuid)
            os.truncate(self.path(uuid), size)
            grown = dataclasses.replace(disk, size=size)
            if disk.log is not None and break_cbt:
                self._save(grown)
                self.cbt_disable(uuid)
                return False
            if disk.log is not None:
                with contextlib.closing(self._open_log(disk)) as log:
                    log.resize(size)
            self._save(grown)
            return True

    def copy_into(self, src, dst):
        """Overwrites the beginning of ``dst`` with the whole of ``src``."""
        with self._exclusive(src, dst):
            disk, target = self._with_data(src), self._with_data(dst)
            if target.size < disk.size:
                raise StoreError(f"{disk.size} bytes of {src} don't fit into {dst}")
            self.track(dst, 0, disk.size)
            self._own(dst)
            with opened(self.path(src), os.O_RDONLY) as source, \
                    opened(self.path(dst), os.O_RDWR) as fd:
                punch(fd, 0, disk.size)
                for offset, length in data_extents(source, 0, disk.size):
                    copy_range(source, fd, offset, length)

    # Data

    def path(self, uuid):
        """The raw file of a disk, to read."""
        self._with_data(uuid)
        return self._file(f"{uuid}.raw")

    def writable_path(self, uuid):
        """The raw file of a disk, the disk's own. Whoever writes to it calls ``track`` before."""
        with self._exclusive(uuid):
            self._own(uuid)
            with self._lock:
                self._written_outside.add(uuid)
            return self.path(uuid)

    def exists(self, uuid):
        """Whether the store knows the disk."""
        with self._lock:
            return uuid in self._disks

    def list(self):
        """The uuids of all disks."""
        with self._lock:
            return list(self._disks)

    def size(self, uuid):
        """Virtual size in bytes."""
        return self._disk(uuid).size

    def allocated(self, uuid):
        """Bytes the disk's data takes; 0 when only the log is left."""
        if not self._disk(uuid).has_data:
            return 0
        return os.stat(self.path(uuid)).st_blocks * 512

    def extents(self, uuid):
        """The (offset, length) ranges that hold data, ascending; everything else is zero."""
        size = self.size(uuid)
        with opened(self.path(uuid), os.O_RDONLY) as fd:
            return list(data_extents(fd, 0, size))

    def _check_range(self, uuid, offset, length):
        disk = self._with_data(uuid)
        if offset < 0 or length < 0 or offset + length > disk.size:
            raise StoreError(f"{length} bytes at {offset} are outside of disk {uuid} "
                             f"of {disk.size} bytes")
        return disk

    def read(self, uuid, offset, length):
        """Bytes of a disk."""
        self._check_range(uuid, offset, length)
        with opened(self.path(uuid), os.O_RDONLY) as fd:
            parts, position = [], offset
            while position < offset + length:
                part = os.pread(fd, offset + length - position, position)
                if not part:
                    raise StoreError(f"the file of disk {uuid} is shorter than the disk")
                parts.append(part)
                position += len(part)
        return b"".join(parts)

    def write(self, uuid, offset, data):
        """Writes into a disk; the blocks are marked as changed."""
        with self._exclusive(uuid):
            self.track(uuid, offset, len(data))
            self._own(uuid)
            with opened(self.path(uuid), os.O_WRONLY) as fd:
                view = memoryview(data)
                while view:
                    count = os.pwrite(fd, view, offset)
                    view, offset = view[count:], offset + count

    def discard(self, uuid, offset, length):
        """Makes a range read as zeros, as a guest's TRIM does; it counts as changed."""
        with self._exclusive(uuid):
            self.track(uuid, offset, length)
            self._own(uuid)
            with opened(self.path(uuid), os.O_RDWR) as fd:
                punch(fd, offset, length)

    # Changed block tracking

    def _new_log(self, size):
        name = f"{secrets.token_hex(16)}.log"
        cbt.LogFile.create(self._file(name), bytes(cbt.bitmap_length(size)))
        return name

    def _open_log(self, disk):
        return cbt.LogFile(self._file(disk.log), disk.size)

    def _log_of(self, uuid):
        disk = self._disks.get(uuid)
        return disk if disk is not None and disk.log is not None else None

    def _unlink_log(self, disk, merge):
        """Takes a disk's log out of its chain. Returns the neighbours' new records.

        With ``merge`` the log's bits go to the child and the neighbours are joined; without, the
        chain ends at both sides.
        """
        if disk.log is None:
            return []
        changed = []
        parent, child = self._log_of(disk.parent), self._log_of(disk.child)
        if child is not None and merge:
            self._merge_into(disk, child)
        if parent is not None:
            next_child = child.uuid if child is not None and merge else None
            changed.append(dataclasses.replace(parent, child=next_child))
        if child is not None:
            next_parent = parent.uuid if parent is not None and merge else None
            changed.append(dataclasses.replace(child, parent=next_parent))
        return changed

    def _merge_into(self, disk, child):
        try:
            with contextlib.closing(self._open_log(disk)) as log:
                bitmap = log.content()
            with contextlib.closing(self._open_log(child)) as log:
                log.include(bitmap)
        except (CbtError, OSError):
            # Bits are lost, so the child can no longer answer for this part of the chain.
            child.consistent = False

    def track(self, uuid, offset, length):
        """Marks a range as changed; for writes that others make to ``path(uuid)``."""
        with self._lock:
            disk = self._check_range(uuid, offset, length)
            if disk.log is None:
                return
            try:
                with contextlib.closing(self._open_log(disk)) as log:
                    log.mark(offset, length)
            except (CbtError, OSError):
                # A broken log must not hinder the guest; the next attach or listing reports it.
                self._save(dataclasses.replace(disk, consistent=False))

    def cbt_enable(self, uuid):
        """Starts tracking with an empty log and no chain; nothing happens if it is on."""
        with self._lock:
            disk = self._with_data(uuid)
            if disk.log is None:
                self._save(dataclasses.replace(disk, log=self._new_log(disk.size), parent=None,
                                               child=None, consistent=True))

    def cbt_disable(self, uuid):
        """Stops tracking and deletes the log; older logs remain, connected to nothing newer."""
        with self._lock:
            disk = self._disk(uuid)
            if disk.log is None:
                return
            changed = self._unlink_log(disk, merge=False)
            self._save(*changed, dataclasses.replace(disk, log=None, parent=None, child=None,
                                                     consistent=True))
            self._remove_files(disk.log)

    def cbt_enabled(self, uuid):
        """Whether the disk or snapshot has a log."""
        return self._disk(uuid).log is not None

    def has_data(self, uuid):
        """False once ``data_destroy`` has left only the log."""
        return self._disk(uuid).has_data

    def changed_blocks(self, from_uuid, to_uuid):
        """The bitmap of blocks written after ``from_uuid`` up to ``to_uuid``; see ``cbt``.

        Raises CbtError with ``fault`` 460 (no chain from one to the other) or 459 (damaged log).
        """
        with self._lock:
            self._disk(from_uuid)
            self._disk(to_uuid)
            return cbt.changed_blocks(self._log_of, self._read_log, from_uuid, to_uuid)

    def _read_log(self, uuid):
        with open(self._file(self._disks[uuid].log), "rb") as file:
            return file.read()

    def cbt_activate(self, uuid):
        """What the storage manager does when a disk is attached: drops an inconsistent log.

        Returns False if tracking went off by that.
        """
        with self._lock:
            disk = self._disk(uuid)
            if disk.log is None or disk.consistent:
                return True
            self.cbt_disable(uuid)
            return False

    # Injected damage

    def mark_inconsistent(self, uuid):
        """Leaves the log as after a crash of the host that had the disk attached."""
        with self._lock:
            disk = self._disk(uuid)
            if disk.log is not None:
                self._save(dataclasses.replace(disk, consistent=False))

    def drop_bits(self, uuid, blocks):
        """Makes the log lie: the given blocks, as far as marked now, no longer count as changed."""
        with self._lock:
            disk = self._disk(uuid)
            if disk.log is None:
                raise StoreError(f"disk {uuid} has no log")
            with contextlib.closing(self._open_log(disk)) as log:
                log.clear(blocks)

    def lose_log(self, uuid):
        """Deletes the log file behind the records' back."""
        with self._lock:
            self._remove_files(self._disk(uuid).log)
