#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Serves one file with the pool simulator's NBD server, for the unit tests of the library's client.

Arguments: the file, the only export name that is known, a file that is made once the port is open and
holds it, and optionally certificate and key for TLS. Ends when standard input does.
"""

import os
import ssl
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "pool"))

from sim import nbd  # noqa: E402


class Handle:
    def __init__(self, path):
        self.path = path
        self.size = os.path.getsize(path)

    def detach(self):
        pass


class Resolver:
    def __init__(self, path, export, tls):
        self.path, self.export, self.tls = path, export, tls

    def purpose(self):
        return "nbd" if self.tls else "insecure_nbd"

    def attach(self, exportname, peer):
        if exportname != self.export:
            raise KeyError("unknown export")
        return Handle(self.path)


def main():
    path, export, ready, *tls = sys.argv[1:]

    def context():
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(*tls)
        return made

    server = nbd.NbdServer("127.0.0.1", 0, context, Resolver(path, export, tls)).start()
    with open(ready + ".new", "w", encoding="ascii") as file:
        file.write(str(server.port))
    os.rename(ready + ".new", ready)
    sys.stdin.read()
    server.stop()


main()
