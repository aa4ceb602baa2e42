# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests of the simulator's data plane share: a store in a temporary directory."""

import os
import shutil
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from sim.storage import Store  # noqa: E402

MIB = 1 << 20


def needs(tool):
    return unittest.skipIf(shutil.which(tool) is None, f"{tool} is not installed")


class TemporaryStore(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="storage-test-")
        self.addCleanup(shutil.rmtree, self.directory)
        self.store = Store(os.path.join(self.directory, "store"))
        self.addCleanup(lambda: self.store.close())

    def reopen(self):
        self.store.close()
        self.store = Store(self.store.directory)

    def file(self, name):
        return os.path.join(self.directory, name)


class Handle:
    """An attached disk; counts what is still attached."""

    def __init__(self, owner, uuid):
        self.owner, self.uuid = owner, uuid
        self.path, self.size = owner.store.path(uuid), owner.store.size(uuid)
        owner.attached.append(uuid)

    def write(self, offset, data):
        self.owner.store.write(self.uuid, offset, data)

    def detach(self):
        self.owner.attached.remove(self.uuid)
