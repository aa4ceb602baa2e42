# SPDX-License-Identifier: LGPL-2.1-or-later
"""The quickstart with --pool, where a user answers its questions; the pool is simulated here too.

The quickstart with a pool of its own is a suite of tests/run.
"""

import os
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.join(HERE, "..", "..")
sys.path[:0] = [os.path.join(SOURCE, "tests", name) for name in ("integration", "tool")]

from simpool import SimPool  # noqa: E402
from terminal import Terminal  # noqa: E402
from test_single_pool import scene  # noqa: E402


class RealPool(unittest.TestCase):
    """A pool that the quickstart did not start."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="xvsa-test-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.pool = SimPool(os.path.join(self.folder, "pool"), scene())
        self.addCleanup(self.pool.stop)

    def start(self):
        """The quickstart at a terminal."""
        program = os.path.join(SOURCE, "examples", "quickstart.py")
        return Terminal(sys.executable, program, "--build", os.environ["XVSA_BUILD"], "--pool",
                        self.pool.ready["coordinator"])

    def test_story(self):
        """From the password to a restored VM that is the same."""
        terminal = self.start()
        terminal.expect("Password of root")
        terminal.type("password\n")
        digits = self.pool.ready["fingerprint_sha256"].replace(":", "").lower()
        terminal.expect("fingerprint " + digits)
        terminal.expect("right one?")
        terminal.type("yes\n")
        terminal.expect("Folder for the repository")
        terminal.type(os.path.join(self.folder, "backup") + "\n")
        terminal.expect("carry a proxy")
        terminal.type("proxy1, proxy2\n")
        terminal.expect("VMs to back up")
        terminal.type("web\n")
        self.assertEqual(terminal.end(), 0, terminal.seen)
        for text in ("proved: the pool has the new VM", "proved: disk 0 is the same",
                     "proved: disk 1 is the same", "Proved in"):
            self.assertIn(text, terminal.seen)
        self.assertEqual(len(self.pool.vms("web (quickstart)")), 1)

    def test_certificate_not_trusted(self):
        """Nothing happens when the user does not know the certificate."""
        terminal = self.start()
        terminal.expect("Password of root")
        terminal.type("password\n")
        terminal.expect("right one?")
        terminal.type("no\n")
        self.assertEqual(terminal.end(), 1, terminal.seen)
        self.assertIn("is not trusted", terminal.seen)


if __name__ == "__main__":
    unittest.main()
