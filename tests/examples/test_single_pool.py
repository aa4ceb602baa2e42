# SPDX-License-Identifier: LGPL-2.1-or-later
"""examples/single_pool.c against a simulated pool of two hosts."""

import json
import os
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "integration"))

from simpool import SimPool  # noqa: E402

LINES = 150


def scene():
    """Two hosts, one shared storage repository, a VM with two disks, a proxy's VM on each host."""
    disk = {"sr": "shared", "size": "8 MiB", "generate": {"seed": 1, "bytes": 3 << 20}}
    return {
        "name": "example", "hosts": [{"name": "host1"}, {"name": "host2"}],
        "srs": [{"name": "shared", "type": "nfs", "shared": True, "default": True}],
        "networks": [{"name": "net", "bridge": "xenbr0", "purpose": ["nbd"]}],
        "vms": [{"name": "web", "power_state": "Running", "host": "host1", "disks": [disk, disk]},
                {"name": "proxy1", "power_state": "Running", "host": "host1", "disks": [disk]},
                {"name": "proxy2", "power_state": "Running", "host": "host2", "disks": [disk]}]}


class SinglePool(unittest.TestCase):
    """The example as a newcomer runs it."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="xvsa-test-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.pool = SimPool(os.path.join(self.folder, "pool"), scene())
        self.addCleanup(self.pool.stop)

    def secret(self, name, text):
        """A file with a secret."""
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text + "\n")
        return path

    def run_example(self, password="password", passphrase="passphrase"):
        """Runs the example; returns its result."""
        proxies = [self.pool.vms(name)[0] for name in ("proxy1", "proxy2")]
        program = os.path.join(os.environ["XVSA_BUILD"], "examples", "single_pool")
        return subprocess.run(
            [program, self.pool.ready["coordinator"], self.pool.ready["ca"],
             self.secret("password", password), self.folder,
             self.secret("passphrase", passphrase), *proxies],
            capture_output=True, text=True, timeout=120, check=False)

    def test_two_backups(self):
        """The first backup makes the repository, the second one uses it."""
        for _ in range(2):
            result = self.run_example()
            self.assertEqual(result.returncode, 0, result.stderr)
            report = json.loads(result.stdout)
            self.assertEqual(report["state"], "succeeded")
            self.assertEqual(sorted(vm["name"] for vm in report["vms"]),
                             ["proxy1", "proxy2", "web"])
            used = {disk["proxy"] for vm in report["vms"] for disk in vm["disks"]}
            self.assertEqual(used, {"proxy1", "proxy2"})
        self.assertLess(report["summary"]["bytes_read"], 4 << 20)

    def test_wrong_password(self):
        """A clear error without the password."""
        result = self.run_example(password="not-the-password")
        self.assertEqual(result.returncode, 1)
        self.assertIn("failed: ", result.stderr)
        self.assertNotIn("not-the-password", result.stderr)

    def test_wrong_passphrase(self):
        """A repository is not made anew when it cannot be opened."""
        self.assertEqual(self.run_example().returncode, 0)
        result = self.run_example(passphrase="another one")
        self.assertEqual(result.returncode, 1)
        self.assertNotIn("another one", result.stderr)

    def test_short(self):
        """A newcomer reads it in one sitting."""
        path = os.path.join(HERE, "..", "..", "examples", "single_pool.c")
        with open(path, encoding="utf-8") as file:
            self.assertLess(len(file.readlines()), LINES)


if __name__ == "__main__":
    unittest.main()
