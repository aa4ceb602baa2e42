# SPDX-License-Identifier: LGPL-2.1-or-later
"""A way to a server that can be cut while other ways to it stay."""

import socket
import threading
import urllib.parse

PIECE = 1 << 18


class Detour:
    """Stands before the server of a URL, at ``url``, which differs in host and port."""

    def __init__(self, case, url):
        parts = urllib.parse.urlsplit(url)
        self.target = parts.hostname, parts.port
        self.passable = threading.Event()
        self.passable.set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = parts._replace(netloc="127.0.0.1:%d" % self.listener.getsockname()[1]).geturl()
        case.addCleanup(self.close)
        threading.Thread(target=self.serve, daemon=True).start()

    def cut(self):
        """Nothing passes any more; nobody is told. Connections are taken and stay silent."""
        self.passable.clear()

    def join(self):
        """Ends a cut; what was held up passes."""
        self.passable.set()

    def close(self):
        """Takes no more connections; ends those that were cut."""
        self.listener.close()
        self.passable.set()

    def serve(self):
        """Takes connections until it is closed."""
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.converse, args=(near,), daemon=True).start()

    def converse(self, near):
        """One connection."""
        self.passable.wait()
        try:
            far = socket.create_connection(self.target)
        except OSError:
            near.close()
            return
        threading.Thread(target=self.pump, args=(far, near), daemon=True).start()
        self.pump(near, far)

    def pump(self, source, sink):
        """Copies one direction until it ends; then both are over."""
        try:
            while piece := source.recv(PIECE):
                self.passable.wait()
                sink.sendall(piece)
        except OSError:
            pass
        self.passable.wait()
        for side in (source, sink):
            try:
                side.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            side.close()
