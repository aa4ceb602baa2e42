# SPDX-License-Identifier: LGPL-2.1-or-later
"""A terminal with a program at it, and somebody who reads and types."""

import os
import pty
import select
import subprocess
import time

SECONDS = 60


class Terminal:
    """A program as the only one at a terminal of its own."""

    def __init__(self, *words, output=None):
        self.seen = ""
        self.master, slave = pty.openpty()

        def become_owner():
            os.setsid()
            os.close(os.open(os.ttyname(slave), os.O_RDWR))

        self.process = subprocess.Popen(
            list(words), stdin=slave, stdout=output or slave, stderr=slave,
            preexec_fn=become_owner)
        os.close(slave)

    def expect(self, text):
        """Reads until a text appears."""
        deadline = time.monotonic() + SECONDS
        while text not in self.seen:
            if time.monotonic() > deadline or not self.read(1):
                self.process.kill()
                self.process.wait()
                raise AssertionError(f"\"{text}\" did not appear in: {self.seen}")

    def read(self, seconds):
        """Takes what is there; False at the end."""
        if not select.select([self.master], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.master, 65536)
        except OSError:
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)

    def type(self, text):
        """Types a text."""
        os.write(self.master, text.encode())

    def end(self):
        """Reads to the end; returns the exit code."""
        deadline = time.monotonic() + SECONDS
        while self.read(0.2) and time.monotonic() < deadline:
            if self.process.poll() is not None and not select.select([self.master], [], [], 0)[0]:
                break
        try:
            return self.process.wait(SECONDS)
        finally:
            os.close(self.master)
