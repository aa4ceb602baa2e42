# SPDX-License-Identifier: LGPL-2.1-or-later
"""NBD by nbdkit or qemu-nbd, in place of the simulator's own server.

Where speed or the protocol's newer half matters (GO, structured replies, block status, several
connections) ``VDI.get_nbd_info`` can name the port of such a server: one process serves one export
until it is released. What the pool's own server adds is then gone: no session is checked, no
connection counted, no disk attached; ``busy`` tells whether a client is connected.
"""

import concurrent.futures
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

START_TIMEOUT = 60.0
ESTABLISHED = "01"  # in /proc/net/tcp

# Runs in the child: hands it the listening socket as systemd would, and asks the kernel to end it
# together with the thread that started it.
LAUNCHER = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execvp(sys.argv[2], sys.argv[2:])
"""


class ExternalNbdError(Exception):
    """The program is missing or did not start."""


def release(members, path):
    """Ends what hosts with external servers still do with a file that goes away."""
    for member in members:
        if isinstance(member.nbd, ExternalNbd):
            member.nbd.release(path)


class _Server:
    def __init__(self, process, port, path):
        self.process, self.port, self.path = process, port, path


class ExternalNbd:
    """Starts and ends the servers of one host. Every method may be called from any thread.

    ``program`` is "nbdkit" or "qemu-nbd"; ``address`` is where they listen; ``certificate`` the
    path of a PEM file with certificate and key, or None for plain connections.
    """

    def __init__(self, program, address, certificate=None):
        if shutil.which(program) is None:
            raise ExternalNbdError(f"{program} is not installed")
        self.program, self.address = program, address
        self._servers = {}  # by export name; guarded by _lock
        self._lock = threading.Lock()
        self._credentials = None
        if certificate is not None:
            self._credentials = tempfile.mkdtemp(prefix="nbd-credentials-")
            for name in ("ca-cert.pem", "server-cert.pem", "server-key.pem"):
                shutil.copy(certificate, os.path.join(self._credentials, name))
        # The children end with the thread that started them, so that thread lives as long as this.
        self._starter = concurrent.futures.ThreadPoolExecutor(max_workers=1)

    def _command(self, exportname, path):
        tls = self._credentials
        if self.program == "nbdkit":
            security = [f"--tls-certificates={tls}", "--tls=require"] if tls else ["--tls=off"]
            return ["nbdkit", "--foreground", "--readonly", *security, "file", path]
        # The certificate is its own authority here, which qemu-nbd would otherwise refuse.
        credentials = ("tls-creds-x509,id=tls,endpoint=server,verify-peer=no,sanity-check=no,"
                       f"dir={tls}")
        security = ["--object", credentials, "--tls-creds", "tls"] if tls else []
        return ["qemu-nbd", "--read-only", "--persistent", "--shared=0", "--format=raw",
                "--export-name", exportname, *security, path]

    def serve(self, exportname, path):
        """Serves a raw file read-only under a name, and returns the port.

        nbdkit takes any export name; qemu-nbd only this one. A name already served keeps its port.
        """
        with self._lock:
            server = self._servers.get(exportname)
            if server is None or server.process.poll() is not None:
                server = self._starter.submit(self._start, exportname, path).result()
                self._servers[exportname] = server
            return server.port

    def _start(self, exportname, path):
        with socket.create_server((self.address, 0), backlog=32) as listener:
            port = listener.getsockname()[1]
            descriptor = listener.fileno()
            command = [sys.executable, "-c", LAUNCHER, str(descriptor),
                       *self._command(exportname, path)]
            with tempfile.TemporaryFile() as errors:
                process = subprocess.Popen(command, pass_fds=[descriptor], stdin=subprocess.DEVNULL,
                                           stdout=subprocess.DEVNULL, stderr=errors)
                self._await_greeting(process, port, errors)
        return _Server(process, port, path)

    def _await_greeting(self, process, port, errors):
        deadline = time.monotonic() + START_TIMEOUT
        with socket.create_connection((self.address, port), START_TIMEOUT) as sock:
            sock.settimeout(0.2)
            while process.poll() is None and time.monotonic() < deadline:
                with contextlib.suppress(TimeoutError, ConnectionError):
                    if sock.recv(8) == b"NBDMAGIC":
                        return
        process.kill()
        process.wait()
        errors.seek(0)
        raise ExternalNbdError(f"{self.program} did not start: "
                               f"{errors.read(2000).decode(errors='replace').strip()}")

    def busy(self, path):
        """Whether a client is connected to a server of this file."""
        with self._lock:
            ports = {f"{server.port:04X}" for server in self._servers.values()
                     if server.path == path}
        if not ports:
            return False
        with open("/proc/net/tcp", encoding="ascii") as table:
            next(table)
            for line in table:
                local, state = line.split()[1], line.split()[3]
                if state == ESTABLISHED and local.rpartition(":")[2] in ports:
                    return True
        return False

    def release(self, path):
        """Ends the servers of a file; clients are cut."""
        with self._lock:
            names = [name for name, server in self._servers.items() if server.path == path]
            servers = [self._servers.pop(name) for name in names]
        for server in servers:
            self._end(server)

    @staticmethod
    def _end(server):
        server.process.terminate()
        try:
            server.process.wait(5)
        except subprocess.TimeoutExpired:
            server.process.kill()
            server.process.wait()

    def stop(self, detach=True):
        """Ends all servers; like NbdServer's, but there is never anything attached."""
        with self._lock:
            servers = list(self._servers.values())
            self._servers.clear()
        for server in servers:
            self._end(server)
        self._starter.shutdown()
        if self._credentials is not None:
            shutil.rmtree(self._credentials)
