#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tests of the simulator's NBD servers, byte by byte and with libnbd's nbdinfo and nbdcopy."""

import os
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
import unittest

from store_case import MIB, Handle, TemporaryStore, needs
from sim import nbd
from sim.errors import ApiError
from sim.nbd_external import ExternalNbd, ExternalNbdError


class Resolver:
    """Serves /<uuid>?session_id=good of a store."""

    def __init__(self, store, purpose):
        self.store, self.kind, self.attached = store, purpose, []

    def purpose(self):
        return self.kind

    def attach(self, exportname, peer):
        name, _, session = exportname.lstrip("/").partition("?session_id=")
        if session != "good":
            raise ApiError("SESSION_INVALID", session)
        return Handle(self, name)


def make_certificate(directory):
    """A self-signed certificate and key in one PEM file."""
    path = os.path.join(directory, "server.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                    "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
                    "-keyout", path + ".key", "-out", path + ".crt"],
                   check=True, capture_output=True)
    return path + ".crt", path + ".key"


class NbdClient:
    """Speaks the protocol byte by byte, to see what a library would hide."""

    def __init__(self, server, flags=1):
        self.sock = socket.create_connection((server.address, server.port))
        self.sock.settimeout(20)
        greeting = self.take(18)
        assert greeting == b"NBDMAGICIHAVEOPT\0\1", greeting
        self.sock.sendall(struct.pack(">I", flags))

    def take(self, count):
        data = b""
        while len(data) < count:
            part = self.sock.recv(count - len(data))
            if not part:
                raise EOFError(data)
            data += part
        return data

    def option(self, number, payload=b""):
        self.sock.sendall(struct.pack(">8sII", b"IHAVEOPT", number, len(payload)) + payload)

    def answer(self):
        magic, option, kind, length = struct.unpack(">QIII", self.take(20))
        assert magic == 0x3E889045565A9
        self.take(length)
        return option, kind

    def export(self, name):
        self.option(1, name.encode())
        return struct.unpack(">QH124s", self.take(134))

    def request(self, kind, offset, length, cookie=7):
        self.sock.sendall(struct.pack(">IHHQQI", 0x25609513, 0, kind, cookie, offset, length))

    def reply(self):
        magic, error, cookie = struct.unpack(">IIQ", self.take(16))
        assert magic == 0x67446698 and cookie == 7
        return error

    def closed(self):
        try:
            return self.sock.recv(1) == b""
        except ConnectionError:
            return True

    def close(self):
        self.sock.close()


class NbdTest(TemporaryStore):
    def setUp(self):
        super().setUp()
        self.store.create("disk", 8 * MIB + 512)
        self.store.write("disk", 0, os.urandom(5 * MIB))

    def serve(self, purpose="insecure_nbd"):
        certificate, key = make_certificate(self.directory) if purpose == "nbd" else (None, None)

        def context():
            made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            made.load_cert_chain(certificate, key)
            return made
        self.resolver = Resolver(self.store, purpose)
        server = nbd.NbdServer("127.0.0.1", 0, context, self.resolver).start()
        self.addCleanup(server.stop)
        return server

    def client(self, server, **options):
        client = NbdClient(server, **options)
        self.addCleanup(client.close)
        return client

    def wait_until(self, condition):
        for _ in range(400):
            if condition():
                return
            threading.Event().wait(0.05)
        self.fail("condition not reached")

    @needs("nbdcopy")
    def test_nbdcopy_plain(self):
        server = self.serve()
        uri = f"nbd://127.0.0.1:{server.port}//disk?session_id=good"
        # libnbd takes the query of an URI for its own parameters, so the name is escaped.
        uri = uri.replace("?session_id=", "%3Fsession_id=")
        subprocess.run(["nbdcopy", uri, self.file("copy")], check=True)
        with open(self.file("copy"), "rb") as copy:
            self.assertEqual(copy.read(), self.store.read("disk", 0, 8 * MIB + 512))
        self.wait_until(lambda: not self.resolver.attached)

    def test_rate_is_shared_by_all_connections(self):
        server = self.serve()
        server.faults.rate = 8 * MIB
        clients = [self.client(server) for _ in range(2)]
        for client in clients:
            client.export("/disk?session_id=good")
        begin = time.monotonic()
        for client in clients:
            client.request(0, 0, 2 * MIB)
        for client in clients:
            client.take(16 + 2 * MIB)
        # A limit makes things late, never early.
        self.assertGreaterEqual(time.monotonic() - begin, 4 / 8 - 0.01)

    @needs("nbdcopy")
    def test_nbdcopy_tls(self):
        server = self.serve("nbd")
        shutil.copy(self.file("server.pem.crt"), self.file("ca-cert.pem"))
        uri = (f"nbds://localhost:{server.port}//disk%3Fsession_id=good"
               f"?tls-certificates={self.directory}")
        subprocess.run(["nbdcopy", uri, self.file("copy")], check=True)
        with open(self.file("copy"), "rb") as copy:
            self.assertEqual(copy.read(), self.store.read("disk", 0, 8 * MIB + 512))

    @needs("nbdinfo")
    def test_nbdinfo_sees_a_minimal_server(self):
        server = self.serve()
        uri = f"nbd://127.0.0.1:{server.port}//disk%3Fsession_id=good"
        text = subprocess.run(["nbdinfo", uri], check=True, capture_output=True, text=True).stdout
        self.assertIn("using simple packets", text)
        self.assertIn("is_read_only: true", text)
        self.assertIn("can_multi_conn: false", text)
        self.assertIn(f"export-size: {8 * MIB + 512}", text)

    def test_options_in_the_clear(self):
        client = self.client(self.serve())
        for option, kind in ((7, 0x80000001), (6, 0x80000001), (8, 0x80000001), (3, 0x80000002),
                             (5, 0x80000002), (10, 0x80000001), (999, 0x80000001)):
            client.option(option, b"payload")
            self.assertEqual(client.answer(), (option, kind))
        self.assertEqual(client.export("/disk?session_id=good"), (8 * MIB + 512, 3, bytes(124)))

    def test_no_zeroes_flag_changes_nothing(self):
        client = self.client(self.serve(), flags=3)
        self.assertEqual(client.export("/disk?session_id=good")[2], bytes(124))

    def test_abort(self):
        client = self.client(self.serve())
        client.option(2)
        self.assertEqual(client.answer(), (2, 1))
        self.assertTrue(client.closed())

    def test_tls_is_demanded(self):
        server = self.serve("nbd")
        client = self.client(server)
        client.option(7, b"")
        self.assertEqual(client.answer(), (7, 0x80000005))
        client.option(1, b"/disk?session_id=good")
        self.assertTrue(client.closed())

    def test_only_tls_1_2(self):
        server = self.serve("nbd")
        for version, works in ((ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_3, False)):
            client = self.client(server)
            client.option(5)
            self.assertEqual(client.answer(), (5, 1))
            context = ssl.create_default_context(cafile=self.file("server.pem.crt"))
            context.minimum_version = context.maximum_version = version
            if not works:
                self.assertRaises(OSError, context.wrap_socket, client.sock,
                                  server_hostname="localhost")
                continue
            client.sock = context.wrap_socket(client.sock, server_hostname="localhost")
            client.option(5)
            self.assertEqual(client.answer(), (5, 0x80000003))
            self.assertEqual(client.export("/disk?session_id=good")[1], 3)
            client.request(0, 512, 3 * MIB)
            self.assertEqual(client.reply(), 0)
            self.assertEqual(client.take(3 * MIB), self.store.read("disk", 512, 3 * MIB))

    def test_no_purpose_or_both_is_silence(self):
        for purpose in (None, "both"):
            server = self.serve(purpose)
            with socket.create_connection((server.address, server.port)) as sock:
                sock.settimeout(20)
                self.assertEqual(sock.recv(1), b"")

    def test_bad_names_are_closed(self):
        server = self.serve()
        for name in ("/disk", "/disk?session_id=bad", "/none?session_id=good", ""):
            client = self.client(server)
            client.option(1, name.encode())
            self.assertTrue(client.closed())

    def attached_client(self, server):
        client = self.client(server)
        client.export("/disk?session_id=good")
        return client

    def test_broken_rules_end_the_connection(self):
        server = self.serve()
        for kind, offset, length, error in ((0, 1, 512, 22), (0, 512, 100, 22), (1, 0, 512, 1),
                                            (3, 0, 0, 22), (7, 0, 512, 22)):
            client = self.attached_client(server)
            client.request(kind, offset, length)
            self.assertEqual(client.reply(), error)
            self.assertTrue(client.closed())
        client = self.attached_client(server)
        client.sock.sendall(bytes(28))
        self.assertTrue(client.closed())

    def test_read_past_the_end_succeeds_and_breaks_off(self):
        client = self.attached_client(self.serve())
        client.request(0, 8 * MIB, 4096)
        self.assertEqual(client.reply(), 0)
        self.assertEqual(client.take(512), bytes(512))
        self.assertTrue(client.closed())

    def test_pipelined_requests_are_answered_in_order(self):
        client = self.attached_client(self.serve())
        for offset in range(0, 5 * MIB, 64 * 1024):
            client.request(0, offset, 64 * 1024)
        for offset in range(0, 5 * MIB, 64 * 1024):
            self.assertEqual(client.reply(), 0)
            self.assertEqual(client.take(64 * 1024), self.store.read("disk", offset, 64 * 1024))
        client.request(2, 0, 0)
        self.assertTrue(client.closed())
        self.wait_until(lambda: not self.resolver.attached)

    def test_sixteen_connections(self):
        server = self.serve()
        clients = [self.attached_client(server) for _ in range(16)]
        with socket.create_connection((server.address, server.port)) as sock:
            sock.settimeout(20)
            self.assertEqual(sock.recv(1), b"")
        clients[0].close()
        self.wait_until(lambda: server.active() < 16)
        self.attached_client(server)
        self.assertEqual(server.stats().refused, 1)

    def test_stop_leaves_attachments_when_told(self):
        server = nbd.NbdServer("127.0.0.1", 0, None, Resolver(self.store, "insecure_nbd")).start()
        client = self.attached_client(server)
        server.stop(detach=False)
        self.assertTrue(client.closed())
        self.assertEqual(server.resolver.attached, ["disk"])

    def test_injected_faults(self):
        server = self.serve()
        server.faults = nbd.Faults(close_after=2)
        client = self.attached_client(server)
        for _ in range(2):
            client.request(0, 0, 512)
            client.reply()
            client.take(512)
        client.request(0, 0, 512)
        self.assertTrue(client.closed())
        server.faults = nbd.Faults(cut_after=100)
        client = self.attached_client(server)
        client.request(0, 0, 512)
        client.reply()
        client.take(100)
        self.assertTrue(client.closed())
        server.faults = nbd.Faults(error_after=0, export="other")
        client = self.attached_client(server)
        client.request(0, 0, 512)
        self.assertEqual(client.reply(), 0)
        client.take(512)
        server.faults = nbd.Faults(stall_after=0)
        client.request(0, 0, 512)
        client.sock.settimeout(0.3)
        self.assertRaises(TimeoutError, client.sock.recv, 1)
        server.faults = nbd.Faults()
        client.sock.settimeout(20)
        self.assertEqual(client.reply(), 0)

class ExternalTest(TemporaryStore):
    def setUp(self):
        super().setUp()
        self.store.create("disk", 4 * MIB)
        self.store.write("disk", MIB, os.urandom(MIB))

    def copy_from(self, program, tls):
        certificate = None
        if tls:
            certificate, key = make_certificate(self.directory)
            shutil.copy(certificate, self.file("ca-cert.pem"))
            with open(key, encoding="ascii") as source, open(certificate, "a") as target:
                target.write(source.read())
        servers = ExternalNbd(program, "127.0.0.1", certificate)
        self.addCleanup(servers.stop)
        path = self.store.path("disk")
        port = servers.serve("/disk?session_id=good", path)
        self.assertEqual(servers.serve("/disk?session_id=good", path), port)
        uri = f"://localhost:{port}//disk%3Fsession_id=good"
        uri = f"nbds{uri}?tls-certificates={self.directory}" if tls else f"nbd{uri}"
        subprocess.run(["nbdcopy", uri, self.file("copy")], check=True)
        with open(self.file("copy"), "rb") as copy:
            self.assertEqual(copy.read(), self.store.read("disk", 0, 4 * MIB))
        with socket.create_connection(("127.0.0.1", port)):
            self.assertTrue(servers.busy(path))
        servers.release(path)
        self.assertFalse(servers.busy(path))
        with self.assertRaises(OSError):
            socket.create_connection(("127.0.0.1", port))

    @needs("nbdkit")
    @needs("nbdcopy")
    def test_nbdkit(self):
        self.copy_from("nbdkit", tls=False)

    @needs("nbdkit")
    @needs("nbdcopy")
    def test_nbdkit_tls(self):
        self.copy_from("nbdkit", tls=True)

    @needs("qemu-nbd")
    @needs("nbdcopy")
    def test_qemu_nbd(self):
        self.copy_from("qemu-nbd", tls=False)

    @needs("qemu-nbd")
    @needs("nbdcopy")
    def test_qemu_nbd_tls(self):
        self.copy_from("qemu-nbd", tls=True)

    @needs("nbdkit")
    def test_failures_are_told(self):
        servers = ExternalNbd("nbdkit", "127.0.0.1")
        self.addCleanup(servers.stop)
        with self.assertRaisesRegex(ExternalNbdError, "No such file"):
            servers.serve("/x", self.file("missing"))
        self.assertRaises(ExternalNbdError, ExternalNbd, "no-such-program", "127.0.0.1")


if __name__ == "__main__":
    unittest.main()
