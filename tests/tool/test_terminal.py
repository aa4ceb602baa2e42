# SPDX-License-Identifier: LGPL-2.1-or-later
"""The tool at a terminal: prompts without echo, progress bars, Ctrl-C; and away from one."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import termios
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "integration"))

from simpool import SimPool  # noqa: E402
from terminal import SECONDS, Terminal  # noqa: E402

PASSWORD = "password"
PASSPHRASE = "a secret passphrase"
TOOL = os.path.join(os.environ["XVSA_BUILD"], "tools", "xvsa")

class ToolCase(unittest.TestCase):
    """A pool with one VM of a large disk."""

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="xvsa-test-")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = folder.name
        disk = {"sr": "shared", "size": "96 MiB", "generate": {"seed": 1, "bytes": 64 << 20}}
        small = {"sr": "shared", "size": "4 MiB", "generate": {"seed": 2, "bytes": 1 << 20}}
        cls.pool = SimPool(os.path.join(cls.folder, "pool"), {
            "name": "terminal", "hosts": [{"name": "host1"}],
            "srs": [{"name": "shared", "type": "nfs", "shared": True, "default": True}],
            "networks": [{"name": "net", "bridge": "xenbr0", "purpose": ["nbd"]}],
            "vms": [{"name": "big", "power_state": "Running", "host": "host1", "disks": [disk]},
                    {"name": "small", "power_state": "Running", "host": "host1",
                     "disks": [small]}]})
        cls.addClassCleanup(cls.pool.stop)

    def setUp(self):
        self.count = getattr(type(self), "count", 0) + 1
        type(self).count = self.count
        self.home = os.path.join(self.folder, f"home{self.count}")
        os.mkdir(self.home)
        self.addCleanup(self.pool.calm)

    def secret(self, name, text):
        """A private file."""
        path = os.path.join(self.home, name)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(text + "\n")
        return path

    def repo(self):
        """Options of the repository."""
        return ["--repo", f"file://{self.home}/repository", "--passphrase-file",
                self.secret("passphrase", PASSPHRASE)]

    def login(self, password=True):
        """Options of the pool."""
        words = ["--pool", self.pool.ready["coordinator"], "--ca-file", self.pool.ready["ca"],
                 "--state", os.path.join(self.home, "state.db"), "--proxy",
                 self.pool.vms("small")[0]]
        return words + (["--password-file", self.secret("password", PASSWORD)] if password else [])

    def tool(self, *words, **options):
        """Runs the tool away from a terminal."""
        return subprocess.run([TOOL, *words],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=SECONDS, check=False, start_new_session=True, **options)

    def init(self):
        """Makes the repository."""
        result = self.tool("repo", "init", "--kdf-cost", "10", *self.repo())
        self.assertEqual(result.returncode, 0, result.stderr)


class Prompts(ToolCase):
    """Secrets typed at a terminal."""

    def test_password(self):
        """The prompt names the account; what is typed is not shown."""
        terminal = Terminal(TOOL, "pool", "show", *self.login(password=False))
        terminal.expect("password of root")
        terminal.type(PASSWORD + "\n")
        self.assertEqual(terminal.end(), 0, terminal.seen)
        self.assertIn("big", terminal.seen)
        self.assertNotIn(PASSWORD + "\r", terminal.seen)

    def test_new_passphrase_twice(self):
        """A new passphrase is asked for twice, and must be the same."""
        url = f"file://{self.home}/repository"
        for second, code in (("other", 2), (PASSPHRASE, 0)):
            terminal = Terminal(TOOL, "repo", "init", "--kdf-cost", "10", "--repo", url)
            terminal.expect("passphrase of")
            terminal.type(PASSPHRASE + "\n")
            terminal.expect("Again")
            terminal.type(second + "\n")
            self.assertEqual(terminal.end(), code, terminal.seen)
            self.assertNotIn(PASSPHRASE, terminal.seen)

    def test_interrupt_at_prompt(self):
        """Ctrl-C at a prompt ends it, and the echo is on again."""
        terminal = Terminal(TOOL, "pool", "show", *self.login(password=False))
        terminal.expect("password of root")
        terminal.type("\x03")
        deadline = time.monotonic() + SECONDS
        while terminal.process.poll() is None and time.monotonic() < deadline:
            terminal.read(0.1)
        self.assertTrue(termios.tcgetattr(terminal.master)[3] & termios.ECHO)
        self.assertEqual(terminal.end(), 5)

    def test_nobody_to_ask(self):
        """Without a terminal the tool says what to give."""
        result = self.tool("pool", "show", *self.login(password=False))
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertIn("a file or a descriptor", result.stderr)

    def test_descriptor(self):
        """A password from a pipe."""
        reader, writer = os.pipe()
        os.write(writer, PASSWORD.encode())
        os.close(writer)
        result = self.tool("pool", "show", "--json", "--password-fd", str(reader),
                           *self.login(password=False), pass_fds=(reader,))
        os.close(reader)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(len(json.loads(result.stdout)["vms"]), 2)

    def test_loose_file(self):
        """A password file that others can read is warned of."""
        path = self.secret("loose", PASSWORD)
        os.chmod(path, 0o644)
        result = self.tool("pool", "show", "--password-file", path, *self.login(password=False))
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("can be read by other users", result.stderr)


class Progress(ToolCase):
    """How far a job is."""

    def test_bar(self):
        """A bar with rate on a terminal, and the document alone on the standard output."""
        self.init()
        with open(os.path.join(self.home, "out"), "w+b") as output:
            terminal = Terminal(TOOL, "backup", "--all", "--json", *self.login(), *self.repo(),
                                output=output)
            self.assertEqual(terminal.end(), 0, terminal.seen)
            output.seek(0)
            self.assertEqual(json.load(output)["state"], "succeeded")
        self.assertRegex(terminal.seen, r"backup \[#*\.*\] +\d+ %  \d/2 VMs .*/s")

    def test_plain(self):
        """Plain lines elsewhere, none when quiet."""
        self.init()
        result = self.tool("backup", "--all", *self.login(), *self.repo())
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertNotIn("\r", result.stderr)
        self.assertIn("big: succeeded", result.stderr)
        quiet = self.tool("backup", "--all", "--quiet", *self.login(), *self.repo())
        self.assertEqual(quiet.returncode, 0, quiet.stderr)
        self.assertEqual(quiet.stderr, "")

    def start_slow_backup(self):
        """A backup that is reading its disk slowly."""
        self.init()
        self.pool.nbd("host1", delay=0.1)
        terminal = Terminal(TOOL, "backup", "big", "--transport", "nbd", *self.login(), *self.repo())
        terminal.expect("big: started")
        terminal.expect("MiB/s")
        return terminal

    def test_graceful(self):
        """One Ctrl-C lets the VM under way be finished."""
        terminal = self.start_slow_backup()
        terminal.type("\x03")
        terminal.expect("once more stops at once")
        self.pool.calm()
        code = terminal.end()
        self.assertIn(code, (0, 5), terminal.seen)
        self.assertIn("big: succeeded", terminal.seen)

    def test_now(self):
        """A second one stops at once, and leaves nothing in the pool."""
        terminal = self.start_slow_backup()
        terminal.type("\x03")
        terminal.expect("once more stops at once")
        terminal.type("\x03")
        self.assertEqual(terminal.end(), 5, terminal.seen)
        made = self.pool.sim("made", originator="xvsa", leftovers=True)["objects"]
        left = [row for row in made if row["exists"] and row["class"] in ("VM", "VBD")]
        self.assertEqual(left, [])

    def test_terminated(self):
        """SIGTERM stops at once."""
        terminal = self.start_slow_backup()
        terminal.process.send_signal(signal.SIGTERM)
        self.assertEqual(terminal.end(), 5, terminal.seen)


class Output(ToolCase):
    """Results."""

    def test_disk_read(self):
        """A disk as a sparse file, as a stream, in parts; never over an existing file."""
        self.init()
        result = self.tool("backup", "big", *self.login(), *self.repo())
        self.assertEqual(result.returncode, 0, result.stderr)
        expected = self.pool.content(self.pool.disks("big")[0])
        path = os.path.join(self.home, "disk")
        read = ["disk", "read", "latest:big", "0", *self.repo()]
        self.assertEqual(self.tool(*read, "--output", path).returncode, 0)
        with open(path, "rb") as file:
            self.assertTrue(file.read() == expected)
        self.assertLess(os.stat(path).st_blocks * 512, len(expected))
        self.assertEqual(self.tool(*read, "--output", path).returncode, 2)
        self.assertEqual(self.tool(*read, "--output", path, "--force").returncode, 0)
        part = subprocess.run([TOOL, *read,
                               "--offset", "1M", "--length", "3000001"],
                              stdin=subprocess.DEVNULL, capture_output=True, check=True)
        self.assertTrue(part.stdout == expected[1 << 20:(1 << 20) + 3000001])

    def test_full_output(self):
        """A result that cannot be written is a failure."""
        with open("/dev/full", "w", encoding="utf-8") as full:
            result = subprocess.run(
                [TOOL, "pool", "show",
                 *self.login()], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        self.assertEqual(result.returncode, 1)
        self.assertIn("cannot be written", result.stderr)

    def test_delete_asks(self):
        """A point is deleted when somebody agrees, or with --yes."""
        self.init()
        self.assertEqual(self.tool("backup", "small", *self.login(), *self.repo()).returncode, 0)
        refused = self.tool("point", "delete", "latest:small", *self.repo())
        self.assertEqual(refused.returncode, 2)
        terminal = Terminal(TOOL, "point", "delete", "latest:small", *self.repo())
        terminal.expect("[y/N]")
        terminal.type("n\n")
        self.assertEqual(terminal.end(), 5, terminal.seen)
        gone = self.tool("point", "delete", "latest:small", "--yes", *self.repo())
        self.assertEqual(gone.returncode, 0, gone.stderr)
        points = self.tool("points", "--json", *self.repo())
        self.assertEqual(re.sub(r"\s", "", points.stdout), "[]")


if __name__ == "__main__":
    unittest.main()
