#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tests of the simulator's storage and data plane: store, CBT, NBD, export and import.

NBD is checked with libnbd's nbdinfo and nbdcopy, VHD and qcow2 with qemu-img; where those tools
are missing the tests that need them are skipped.
"""

import contextlib
import io
import os
import random
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import unittest
import uuid

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from sim import cbt, chunkdir, nbd, transfer, vhd  # noqa: E402
from sim.errors import ApiError, CutConnection  # noqa: E402
from sim.storage import CbtError, Store, StoreError  # noqa: E402

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


class StoreTest(TemporaryStore):
    def test_new_disk_is_sparse_and_zero(self):
        self.store.create("a", 1 << 40)
        self.assertEqual(self.store.size("a"), 1 << 40)
        self.assertEqual(self.store.allocated("a"), 0)
        self.assertEqual(self.store.extents("a"), [])
        self.assertEqual(self.store.read("a", (1 << 40) - 512, 512), bytes(512))

    def test_writes_are_read_back_and_extents_cover_them(self):
        self.store.create("a", 64 * MIB)
        self.store.write("a", 5 * MIB + 3, b"hello")
        self.assertEqual(self.store.read("a", 5 * MIB, 10), b"\0\0\0hello\0\0")
        (offset, length), = self.store.extents("a")
        self.assertTrue(offset <= 5 * MIB and offset + length >= 5 * MIB + 8)
        self.store.discard("a", 4 * MIB, 2 * MIB)
        self.assertEqual(self.store.read("a", 5 * MIB, 10), bytes(10))
        self.assertEqual(self.store.extents("a"), [])

    def test_ranges_outside_are_refused(self):
        self.store.create("a", MIB)
        for call in (lambda: self.store.write("a", MIB - 1, b"xx"),
                     lambda: self.store.read("a", MIB, 1),
                     lambda: self.store.track("a", -1, 1),
                     lambda: self.store.resize("a", 512),
                     lambda: self.store.create("a", 1),
                     lambda: self.store.size("missing")):
            self.assertRaises(StoreError, call)

    def test_copies_are_independent(self):
        self.store.create("a", 1 << 30)
        self.store.write("a", 700 * MIB, b"one")
        self.store.snapshot("a", "s")
        self.store.clone("s", "c")
        self.store.write("a", 700 * MIB, b"two")
        self.store.write("c", 0, b"three")
        self.assertEqual(self.store.read("s", 700 * MIB, 3), b"one")
        self.assertEqual(self.store.read("c", 700 * MIB, 3), b"one")
        self.assertEqual(self.store.read("s", 0, 5), bytes(5))
        self.assertLess(self.store.allocated("s"), MIB)
        self.store.copy_into("a", "c")
        self.assertEqual(self.store.read("c", 0, 5), bytes(5))
        self.assertEqual(self.store.read("c", 700 * MIB, 3), b"two")

    def test_state_survives_restart_and_leftovers_are_swept(self):
        self.store.create("a", MIB)
        self.store.cbt_enable("a")
        self.store.snapshot("a", "s")
        self.store.write("a", 70000, b"x")
        self.store.snapshot("a", "t")
        self.store.data_destroy("s")
        for name in ("orphan.raw", "orphan.log"):
            with open(os.path.join(self.store.directory, name), "wb"):
                pass
        self.reopen()
        self.assertEqual(sorted(self.store.list()), ["a", "s", "t"])
        self.assertEqual(self.store.changed_blocks("s", "t"), b"\x40\0")
        self.assertFalse(self.store.has_data("s"))
        self.assertRaises(StoreError, self.store.path, "s")
        names = os.listdir(self.store.directory)
        self.assertFalse([name for name in names if name.startswith("orphan")])

    def test_a_directory_has_one_owner(self):
        self.assertRaises(StoreError, Store, self.store.directory)

    def test_failed_copy_leaves_nothing(self):
        self.store.create("a", MIB)
        os.truncate(self.store.path("a"), 0)
        os.unlink(self.store.path("a"))
        self.assertRaises(OSError, self.store.snapshot, "a", "s")
        self.assertFalse(self.store.exists("s"))
        self.assertNotIn("s.raw", os.listdir(self.store.directory))

    def test_parallel_writers_lose_no_bit(self):
        self.store.create("a", 64 * MIB)
        self.store.cbt_enable("a")
        self.store.snapshot("a", "s")

        def write(first):
            for block in range(first, 1024, 8):
                self.store.write("a", block * cbt.BLOCK_SIZE, b"x")
        threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.store.snapshot("a", "t")
        self.assertEqual(self.store.changed_blocks("s", "t"), b"\xff" * 128)


class CbtTest(TemporaryStore):
    def setUp(self):
        super().setUp()
        self.store.create("a", 10 * MIB)
        self.store.cbt_enable("a")

    def fault(self, older, newer):
        with self.assertRaises(CbtError) as caught:
            self.store.changed_blocks(older, newer)
        return caught.exception.fault

    def test_bit_order_and_length(self):
        self.store.snapshot("a", "s")
        self.store.write("a", 0, b"x")
        self.store.write("a", 9 * 65536 - 1, b"xy")
        self.store.snapshot("a", "t")
        bitmap = self.store.changed_blocks("s", "t")
        self.assertEqual(len(bitmap), 20)
        self.assertEqual(bitmap, b"\x80\xc0" + bytes(18))

    def test_length_of_odd_sizes(self):
        for size, length in ((0, 0), (1, 1), (65536, 1), (8 * 65536, 1), (8 * 65536 + 512, 2)):
            self.assertEqual(cbt.bitmap_length(size), length)

    def test_faults(self):
        self.store.snapshot("a", "s")
        self.store.snapshot("a", "t")
        self.store.create("other", MIB)
        self.assertEqual(self.fault("t", "s"), 460)
        self.assertEqual(self.fault("s", "s"), 460)
        self.assertEqual(self.fault("s", "other"), 460)
        self.assertEqual(self.fault("other", "t"), 460)
        self.store.mark_inconsistent("t")
        self.assertEqual(self.fault("s", "t"), 459)
        self.store.lose_log("t")
        self.assertEqual(self.fault("s", "t"), 460)

    def test_lost_log_of_the_live_disk_is_found_later(self):
        self.store.snapshot("a", "s")
        self.store.lose_log("a")
        self.store.write("a", 0, b"x")
        self.assertFalse(self.store.cbt_activate("a"))
        self.assertFalse(self.store.cbt_enabled("a"))

    def test_disable_and_enable_breaks_the_chain(self):
        self.store.snapshot("a", "s")
        self.store.cbt_disable("a")
        self.assertTrue(self.store.cbt_enabled("s"))
        self.store.cbt_enable("a")
        self.store.snapshot("a", "t")
        self.assertEqual(self.fault("s", "t"), 460)

    def test_failed_split_and_failed_growth_switch_tracking_off(self):
        self.assertFalse(self.store.snapshot("a", "s", break_cbt=True))
        self.assertFalse(self.store.cbt_enabled("a"))
        self.assertTrue(self.store.cbt_enabled("s"))
        self.store.cbt_enable("a")
        self.assertFalse(self.store.resize("a", 20 * MIB, break_cbt=True))
        self.assertFalse(self.store.cbt_enabled("a"))
        self.assertEqual(self.store.size("a"), 20 * MIB)

    def test_activation_drops_an_inconsistent_log(self):
        self.assertTrue(self.store.cbt_activate("a"))
        self.store.snapshot("a", "s")
        self.store.mark_inconsistent("a")
        self.assertFalse(self.store.cbt_activate("a"))
        self.assertFalse(self.store.cbt_enabled("a"))

    def test_lying_bitmap(self):
        self.store.snapshot("a", "s")
        self.store.write("a", 0, bytes(MIB))
        self.store.drop_bits("a", [1, 3, 99999])
        self.store.snapshot("a", "t")
        self.assertEqual(self.store.changed_blocks("s", "t")[:2], b"\xaf\xff")

    def test_live_disk_as_target(self):
        self.store.snapshot("a", "s")
        self.store.write("a", 65536, b"x")
        self.assertEqual(self.store.changed_blocks("s", "a")[0], 0x40)

    def test_grown_disk_is_zero_extended(self):
        self.store.snapshot("a", "s")
        self.store.write("a", 0, b"x")
        self.store.snapshot("a", "t")
        self.store.resize("a", 20 * MIB)
        self.store.write("a", 20 * MIB - 1, b"x")
        self.store.snapshot("a", "u")
        bitmap = self.store.changed_blocks("s", "u")
        self.assertEqual(bitmap, b"\x80" + bytes(38) + b"\x01")


class Model:
    """Changed blocks computed the slow way: from the history of writes."""

    def __init__(self, size):
        self.size = size
        self.history = []  # blocks written, or ("snapshot", uuid) where one was taken
        self.alive = []    # (uuid, size) of snapshots of the present chain, oldest first

    def write(self, offset, length):
        self.history += range(offset // 65536, (offset + length - 1) // 65536 + 1)

    def snapshot(self, name):
        self.history.append(("snapshot", name))
        self.alive.append((name, self.size))

    def expected(self, older, newer):
        sizes = dict(self.alive)
        begin = self.history.index(("snapshot", older))
        end = self.history.index(("snapshot", newer))
        blocks = {item for item in self.history[begin:end] if not isinstance(item, tuple)}
        bitmap = bytearray(((sizes[newer] + 65535) // 65536 + 7) // 8)
        for block in blocks:
            bitmap[block // 8] |= 0x80 >> block % 8
        return bytes(bitmap)


class RandomCbtTest(TemporaryStore):
    """Random operations on the store and on the model; every pair of snapshots must agree."""

    def test_against_the_model(self):
        for seed in range(12):
            with self.subTest(seed=seed):
                self.run_history(random.Random(seed), f"disk{seed}")

    def run_history(self, rng, live):
        size = rng.randrange(512, 4 * MIB, 512)
        self.store.create(live, size)
        self.store.cbt_enable(live)
        model, count = Model(size), 0
        for _ in range(120):
            action = rng.choices(("write", "snapshot", "destroy", "data", "grow", "reset", "open"),
                                 (60, 15, 8, 5, 4, 1, 1))[0]
            if action == "write":
                offset = rng.randrange(model.size)
                length = min(rng.choice((1, 512, 70000, 400000)), model.size - offset)
                self.store.write(live, offset, bytes(length))
                model.write(offset, length)
            elif action == "snapshot":
                count += 1
                self.store.snapshot(live, f"{live}-{count}")
                model.snapshot(f"{live}-{count}")
            elif action == "destroy" and model.alive:
                name, _ = model.alive.pop(rng.randrange(len(model.alive)))
                self.store.destroy(name)
            elif action == "data" and model.alive:
                self.store.data_destroy(rng.choice(model.alive)[0])
            elif action == "grow":
                model.size += rng.randrange(512, MIB, 512)
                self.store.resize(live, model.size)
            elif action == "reset":
                self.store.cbt_disable(live)
                self.store.cbt_enable(live)
                model.alive = []
            elif action == "open":
                self.reopen()
            self.compare(rng, model)

    def compare(self, rng, model):
        if len(model.alive) < 2:
            return
        first, second = sorted(rng.sample(range(len(model.alive)), 2))
        older, newer = model.alive[first][0], model.alive[second][0]
        self.assertEqual(self.store.changed_blocks(older, newer), model.expected(older, newer))
        with self.assertRaises(CbtError):
            self.store.changed_blocks(newer, older)


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
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
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


class FakeRequest:
    """One request; what the handler sends is collected through a real socket pair."""

    def __init__(self, method, query, body=b"", **headers):
        self.method, self.query = method, query
        self.path = "/export_raw_vdi" if method == "GET" else "/import_raw_vdi"
        pairs = "&".join(f"{key}={value}" for key, value in query.items())
        self.target = f"{self.path}?{pairs}"
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.rfile = io.BytesIO(body)
        self.sock, self._peer = socket.socketpair()
        self.wfile = self.sock.makefile("wb")
        self._parts = []
        self._thread = threading.Thread(target=self._collect)
        self._thread.start()

    def _collect(self):
        while part := self._peer.recv(MIB):
            self._parts.append(part)

    def finish(self):
        with contextlib.suppress(OSError):
            self.wfile.close()
        self.sock.close()
        self._thread.join()
        self._peer.close()
        return b"".join(self._parts).partition(b"\r\n\r\n")[::2]


class Record:
    def __init__(self, uuid, size, image_format):
        self.uuid, self.ref, self.sr = uuid, f"OpaqueRef:{uuid}", "OpaqueRef:sr"
        self.size, self.image_format = size, image_format


class FakeContext:
    """The owner of the disks: no sessions, one storage repository, tasks in a dict."""

    def __init__(self, store):
        self.store, self.attached, self.tasks = store, [], {}
        self.redirect, self.late_error, self.image_format = None, None, "vhd"

    def authenticate(self, request):
        if "session_id" not in request.query:
            raise ApiError("SESSION_AUTHENTICATION_FAILED", "", "")
        if request.query["session_id"] == "weak":
            raise ApiError("RBAC_PERMISSION_DENIED", "http/put_import_raw_vdi", "No permission")

    def find_vdi(self, key):
        uuid = key.removeprefix("OpaqueRef:")
        if not self.store.exists(uuid):
            raise ApiError("UUID_INVALID", "VDI", key)
        return Record(uuid, self.store.size(uuid), self.image_format)

    def find_sr(self, key):
        return key

    def redirect_target(self, sr):
        return self.redirect

    def create_vdi(self, sr, size, task):
        self.store.create("created", size)
        return "OpaqueRef:created"

    def attach(self, ref, mode, task):
        if self.late_error is not None:
            raise self.late_error
        return Handle(self, ref.removeprefix("OpaqueRef:"))

    def task_start(self, request, label):
        task = request.query.get("task_id", "OpaqueRef:temporary")
        self.tasks[task] = ("pending",)
        return task

    def task_progress(self, task, done, total):
        if self.tasks[task][0] == "cut":
            raise CutConnection()

    def task_complete(self, task, result):
        self.tasks[task] = ("success", result)

    def task_fail(self, task, error):
        self.tasks[task] = ("failure", error.code, *error.params)


class TransferTest(TemporaryStore):
    def setUp(self):
        super().setUp()
        self.uuid = str(uuid.uuid4())
        self.store.create(self.uuid, 9 * MIB)
        self.store.write(self.uuid, 4 * MIB - 512, os.urandom(MIB))
        self.content = self.store.read(self.uuid, 0, 9 * MIB)
        self.context = FakeContext(self.store)

    def call(self, method, body=b"", headers=None, session_id="good", **query):
        query = {"session_id": session_id, "task_id": "T", **query}
        request = FakeRequest(method, query, body, **(headers or {}))
        handler = transfer.export_raw_vdi if method == "GET" else transfer.import_raw_vdi
        try:
            handler(request, self.context)
        finally:
            head, reply = request.finish()
        self.assertEqual(self.context.attached, [])
        return head.decode(), reply

    def export(self, **query):
        return self.call("GET", vdi=self.uuid, **query)

    def upload(self, body, length=None, headers=None, **query):
        headers = dict(headers or {}, content_length=str(len(body) if length is None else length))
        return self.call("PUT", body, headers, **query)

    def task(self):
        return self.context.tasks["T"]

    def test_raw_export(self):
        head, body = self.export()
        self.assertEqual(head.split("\r\n"), [
            "HTTP/1.1 200 OK", "Connection: close", "Cache-Control: no-cache, no-store",
            "task-id:T", "content-type:application/octet-stream",
            f'content-disposition: attachment; filename="{self.uuid}.raw"'])
        self.assertEqual(body, self.content)
        self.assertEqual(self.task(), ("success", ""))

    @needs("qemu-img")
    def test_vhd_export_is_a_vhd(self):
        head, body = self.export(format="VHD")
        self.assertIn("content-type:application/vhd", head)
        # Blocks 1 and 2 hold data; 2048 + table + 2 blocks + footer
        self.assertEqual(len(body), 2048 + 512 + 2 * 2097664 + 512)
        self.assertEqual(len(body), vhd.stream_size(9 * MIB, 2))
        self.assertEqual(body[:512], body[-512:])
        with open(self.file("disk.vhd"), "wb") as file:
            file.write(body)
        subprocess.run(["qemu-img", "convert", "-O", "raw", "--image-opts",
                        "driver=vpc,force_size_calc=current_size,"
                        f"file.driver=file,file.filename={self.file('disk.vhd')}",
                        self.file("disk.raw")], check=True)
        with open(self.file("disk.raw"), "rb") as file:
            self.assertEqual(file.read(), self.content)
        self.assertEqual(self.task(), ("success", ""))

    def test_vhd_goes_around(self):
        body = self.export(format="vhd")[1]
        self.store.create("new", 9 * MIB)
        head, reply = self.upload(body, vdi="new", format="vhd")
        self.assertEqual((head.split("\r\n")[0], reply), ("HTTP/1.1 200 OK", b""))
        self.assertEqual(self.task(), ("success", "OpaqueRef:new"))
        self.assertEqual(self.store.read("new", 0, 9 * MIB), self.content)

    def test_differencing_vhd_applied_to_the_base(self):
        newer = str(uuid.uuid4())
        self.store.snapshot(self.uuid, newer)
        self.store.write(newer, 8 * MIB + 512, b"changed")
        self.store.discard(newer, 4 * MIB, 4096)
        body = self.call("GET", vdi=newer, base=self.uuid, format="vhd")[1]
        self.assertEqual(len(body), vhd.stream_size(9 * MIB, 2))
        self.assertEqual(struct.unpack_from(">I", body, 60)[0], 4)
        self.assertEqual(body[552:568], uuid.UUID(self.uuid).bytes)
        self.upload(body, vdi=self.uuid, format="vhd")
        self.assertEqual(self.task()[0], "success")
        self.assertEqual(self.store.read(self.uuid, 0, 9 * MIB), self.store.read(newer, 0, 9 * MIB))

    def test_base_of_another_format_fails_late(self):
        self.context.image_format = "raw"
        reply = self.export(base=self.uuid, format="vhd")[1]
        self.assertTrue(reply.startswith(b"HTTP/1.1 500 Internal Error\r\n"))
        self.assertEqual(self.task()[:2], ("failure", "VDI_IO_ERROR"))

    def test_sector_bitmaps_are_honoured(self):
        stream = bytearray(self.export(format="vhd")[1])
        first = 2048 + 512
        stream[first:first + 512] = bytes(511) + b"\x01"
        self.store.create("new", 9 * MIB)
        self.upload(bytes(stream), vdi="new", format="vhd")
        self.assertEqual(self.store.read("new", 2 * MIB, 2 * MIB - 512), bytes(2 * MIB - 512))
        self.assertEqual(self.store.read("new", 4 * MIB - 512, 5 * MIB + 512),
                         self.content[4 * MIB - 512:])

    def test_damaged_vhd(self):
        stream = self.export(format="vhd")[1]
        self.store.create("new", 9 * MIB)
        self.store.create("small", 2 * MIB)
        cases = {"cookie": (b"x" + stream[1:], "new"), "checksum": (stream[:70] + b"x" + stream[71:], "new"),
                 "header": (stream[:520] + b"x" + stream[521:], "new"), "cut": (stream[:-600], "new"),
                 "no footer": (stream[:-512] + bytes(512), "new"), "too big": (stream, "small"),
                 "empty": (b"", "new")}
        for name, (body, target) in cases.items():
            with self.subTest(name):
                reply = self.upload(body, vdi=target, format="vhd")[1]
                self.assertTrue(reply.startswith(b"HTTP/1.1 400 Bad Request\r\n"))
                self.assertIn(b"HTTP/1.1 500 Internal Error\r\n", reply)
                self.assertEqual(self.task(), ("failure", "VDI_IO_ERROR", "Device I/O errors"))

    @needs("qemu-img")
    def test_qcow2_goes_around(self):
        body = self.export(format="qcow2")[1]
        self.assertEqual(body[:4], b"QFI\xfb")
        self.store.create("new", 9 * MIB)
        self.upload(body, vdi="new", format="qcow2")
        self.assertEqual(self.store.read("new", 0, 9 * MIB), self.content)

    def test_tar_goes_around(self):
        body = self.export(format="tar")[1]
        self.store.create("new", 9 * MIB)
        self.upload(body, vdi="new", format="tar")
        self.assertEqual(self.task()[0], "success")
        self.assertEqual(self.store.read("new", 0, 9 * MIB), self.content)
        damaged = body[:600] + b"x" + body[601:]
        self.upload(damaged, vdi="new", format="tar")
        self.assertEqual(self.task()[:2], ("failure", "VDI_IO_ERROR"))

    def test_portable_checksum(self):
        for length in (0, 1, 5, 31, 32, 1000):
            data = random.Random(length).randbytes(length)
            self.assertEqual(f"{chunkdir._portable(data):016X}".encode(), chunkdir.checksum(data))

    def test_raw_import_is_tracked(self):
        self.store.create("new", 9 * MIB)
        self.store.cbt_enable("new")
        self.store.snapshot("new", "before")
        self.upload(self.content[:5 * MIB + 100], vdi="new")
        self.assertEqual(self.task(), ("success", "OpaqueRef:new"))
        self.assertEqual(self.store.read("new", 0, 9 * MIB),
                         self.content[:5 * MIB + 100] + bytes(4 * MIB - 100))
        bitmap = self.store.changed_blocks("before", "new")
        self.assertEqual(bitmap, b"\xff" * 10 + b"\x80" + bytes(7))

    def test_raw_import_without_vdi(self):
        self.upload(self.content, sr_id="OpaqueRef:sr")
        self.assertEqual(self.task(), ("success", "OpaqueRef:created"))
        self.assertEqual(self.store.read("created", 0, 9 * MIB), self.content)

    def test_cut_and_overlong_uploads(self):
        for body, length in ((self.content[:MIB], 9 * MIB), (self.content + bytes(512), None)):
            reply = self.upload(body, length, vdi=self.uuid)[1]
            self.assertIn(b"VDI_IO_ERROR: [ Device I/O errors ]", reply)
            self.assertEqual(self.task(), ("failure", "VDI_IO_ERROR", "Device I/O errors"))

    @staticmethod
    def record(offset, data):
        return struct.pack("<QI", offset, len(data)) + data

    def test_chunked_import(self):
        self.store.create("new", 9 * MIB)
        body = (self.record(4 * MIB, self.content[4 * MIB:6 * MIB]) + self.record(0, b"a" * 512)
                + self.record(9 * MIB - 512, b"z" * 512) + bytes(12))
        self.upload(body, vdi="new", chunked="false")
        self.assertEqual(self.task(), ("success", "OpaqueRef:new"))
        expected = bytearray(9 * MIB)
        expected[4 * MIB:6 * MIB] = self.content[4 * MIB:6 * MIB]
        expected[:512], expected[-512:] = b"a" * 512, b"z" * 512
        self.assertEqual(self.store.read("new", 0, 9 * MIB), bytes(expected))

    def test_bad_chunks(self):
        for body in (self.record(9 * MIB, bytes(512)) + bytes(12), self.record(1, bytes(512)),
                     self.record(0, bytes(100)), self.record(0, bytes(512)), b""):
            self.upload(body, vdi=self.uuid, chunked="")
            self.assertEqual(self.task(), ("failure", "VDI_IO_ERROR", "Device I/O errors"))

    def test_refusals_before_the_work(self):
        not_found = "HTTP/1.0 404 Not Found"
        cases = [
            (lambda: self.export(format="zip"), not_found, "INTERNAL_ERROR"),
            (lambda: self.upload(b"", vdi=self.uuid, format="zip"), not_found, "INTERNAL_ERROR"),
            (lambda: self.upload(b"", vdi=self.uuid, format="vhd", chunked="1"), not_found, "INTERNAL_ERROR"),
            (lambda: self.upload(b"", headers={"transfer_encoding": "chunked"}, vdi=self.uuid), not_found,
             "INTERNAL_ERROR"),
            (lambda: self.upload(b""), "HTTP/1.1 400 Bad Request", "VDI_MISSING"),
            (lambda: self.upload(b"", sr_id="sr", format="vhd"), "HTTP/1.1 400 Bad Request",
             "INTERNAL_ERROR"),
            (lambda: self.call("PUT", sr_uuid="sr"), "HTTP/1.1 400 Bad Request", "INTERNAL_ERROR"),
            (lambda: self.export(session_id="weak"), "HTTP/1.1 403 Forbidden",
             "RBAC_PERMISSION_DENIED"),
        ]
        for number, (call, status, code) in enumerate(cases):
            with self.subTest(number):
                self.assertEqual(call()[0].split("\r\n")[0], status)
                self.assertEqual(self.task()[:2], ("failure", code))

    def test_errors_that_leave_the_task_alone(self):
        for query in ({}, {"vdi": "nothing"}, {"vdi": self.uuid, "base": "nothing"}):
            head, body = self.call("GET", **query)
            self.assertTrue(head.startswith("HTTP/1.1 500 Internal Error\r\n"))
            self.assertIn(b"Additional information", body)
        self.assertEqual(self.context.tasks, {})

    def test_no_session(self):
        request = FakeRequest("GET", {"vdi": self.uuid})
        transfer.export_raw_vdi(request, self.context)
        head, body = request.finish()
        self.assertIn(b'WWW-Authenticate: Basic realm="get_export_raw_vdi"', head)
        self.assertIn(f"content-length: {len(body)}".encode(), head)

    def test_redirect_keeps_the_query(self):
        for address, host in (("10.0.0.2", "10.0.0.2"), ("fe80::1", "[fe80::1]")):
            self.context.redirect = address
            head = self.export(format="raw")[0]
            self.assertTrue(head.startswith("HTTP/1.1 302 Found\r\n"))
            self.assertIn(f"Location: https://{host}/export_raw_vdi?session_id=good&task_id=T&"
                          f"vdi={self.uuid}&format=raw", head)
        self.assertEqual(self.context.tasks, {})

    def test_late_failure_is_a_second_message(self):
        self.context.late_error = ApiError("VDI_IN_USE", self.uuid, "attach")
        head, body = self.export()
        self.assertTrue(head.startswith("HTTP/1.1 200 OK"))
        self.assertTrue(body.startswith(b"HTTP/1.1 500 Internal Error\r\n"))
        self.assertEqual(self.task(), ("failure", "VDI_IN_USE", self.uuid, "attach"))

    def test_cut_by_the_simulator(self):
        self.context.task_start = lambda request, label: self.context.tasks.update(T=("cut",)) or "T"
        self.assertRaises(CutConnection, self.export)
        self.assertEqual(self.task()[:2], ("failure", "VDI_IO_ERROR"))


if __name__ == "__main__":
    unittest.main()
