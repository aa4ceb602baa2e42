# SPDX-License-Identifier: LGPL-2.1-or-later
"""Processes that freeze, at moments at which a machine may."""

import contextlib
import os
import random
import signal
import sqlite3
import time


def freeze(process):
    """Stops a process, each of its threads once it can; returns when all are."""
    process.send_signal(signal.SIGSTOP)
    while process.poll() is None and not is_frozen(process):
        time.sleep(0.001)


def is_frozen(process):
    """Whether all of its threads are stopped."""
    folder = "/proc/%d/task" % process.pid
    for thread in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError), \
                open(os.path.join(folder, thread, "stat"), encoding="ascii") as file:
            if file.read().rpartition(")")[2].split()[0] != "T":
                return False
    return True


def is_free(path):
    """Whether nobody is writing to an SQLite file."""
    with contextlib.closing(sqlite3.connect(path, timeout=0.3, isolation_level=None)) as store:
        try:
            store.execute("BEGIN IMMEDIATE")
            store.execute("ROLLBACK")
            return True
        except sqlite3.OperationalError:
            return False


def freeze_off(process, path):
    """Stops a process at a moment when it does not hold the lock of a store that is a file: what a
    machine that freezes cannot do to the store of others."""
    while True:
        freeze(process)
        if is_free(path):
            return
        process.send_signal(signal.SIGCONT)
        # Uneven, or it might meet a process that writes again and again at the same point always.
        time.sleep(random.uniform(0.01, 0.1))
