# SPDX-License-Identifier: LGPL-2.1-or-later
"""Starts and ends the pool simulator for one replay."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.parse

POOLSIM = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "poolsim")
START_TIMEOUT = 60.0  # seconds until the simulator must be ready


def wait_until_ready(process, path, log):
    """Waits for the ready file; returns its text."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                text = file.read()
            if text.endswith("\n"):
                return text
        if process.poll() is not None:
            break
        time.sleep(0.02)
    with open(log, encoding="utf-8", errors="replace") as file:
        raise RuntimeError(f"the simulator did not become ready:\n{file.read()[-4000:]}")


@contextlib.contextmanager
def running(source, path):
    """Runs the simulator on source ("--scenario" or "--xapi-db") path; yields (host, port).

    The simulator keeps its disks in a temporary folder that goes with it.
    """
    with tempfile.TemporaryDirectory(prefix="compare-") as folder:
        ready, log = os.path.join(folder, "ready"), os.path.join(folder, "log")
        command = [sys.executable, POOLSIM, source, path, "--data", os.path.join(folder, "data"),
                   "--listen", "127.0.0.1:0", "--ready-file", ready]
        with open(log, "w", encoding="utf-8") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            yield address_in(wait_until_ready(process, ready, log))
        finally:
            process.terminate()
            process.wait(timeout=60)


def address_in(text):
    """Reads the coordinator's (host, port) out of the ready file."""
    url = urllib.parse.urlsplit(json.loads(text)["coordinator"])
    return url.hostname, url.port
