#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tests of the simulator's disk export and import; qemu-img reads what is exported."""

import contextlib
import io
import os
import random
import socket
import struct
import subprocess
import threading
import unittest
import uuid

from store_case import MIB, Handle, TemporaryStore, needs
from sim import chunkdir, transfer, vhd
from sim.errors import ApiError, CutConnection


def flipped(data, position):
    """The data with one byte that is certainly another one: much of a stream is random."""
    return data[:position] + bytes([data[position] ^ 0xff]) + data[position + 1:]


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

    @needs("qemu-img")
    def test_vhd_of_another_maker(self):
        with open(self.file("disk.raw"), "wb") as file:
            file.write(self.content)
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "vpc", "-o", "force_size=on",
                        self.file("disk.raw"), self.file("disk.vhd")], check=True)
        with open(self.file("disk.vhd"), "rb") as file:
            body = file.read()
        self.store.create("new", 9 * MIB)
        self.upload(body, vdi="new", format="vhd")
        self.assertEqual(self.task(), ("success", "OpaqueRef:new"))
        self.assertEqual(self.store.read("new", 0, 9 * MIB), self.content)

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
        cases = {"cookie": (b"x" + stream[1:], "new"),
                 "checksum": (flipped(stream, 70), "new"),
                 "header": (flipped(stream, 520), "new"),
                 "cut": (stream[:-600], "new"),
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
        self.upload(flipped(body, 600), vdi="new", format="tar")
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
            (lambda: self.upload(b"", vdi=self.uuid, format="vhd", chunked="1"), not_found,
             "INTERNAL_ERROR"),
            (lambda: self.upload(b"", headers={"transfer_encoding": "chunked"}, vdi=self.uuid),
             not_found, "INTERNAL_ERROR"),
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
        self.context.redirect = "https://[fe80::1]:8443"
        head = self.export(format="raw")[0]
        self.assertTrue(head.startswith("HTTP/1.1 302 Found\r\n"))
        self.assertIn("Location: https://[fe80::1]:8443/export_raw_vdi?session_id=good&task_id=T&"
                      f"vdi={self.uuid}&format=raw", head)
        self.assertEqual(self.context.tasks, {})

    def test_late_failure_is_a_second_message(self):
        self.context.late_error = ApiError("VDI_IN_USE", self.uuid, "attach")
        head, body = self.export()
        self.assertTrue(head.startswith("HTTP/1.1 200 OK"))
        self.assertTrue(body.startswith(b"HTTP/1.1 500 Internal Error\r\n"))
        self.assertEqual(self.task(), ("failure", "VDI_IN_USE", self.uuid, "attach"))

    def test_cut_by_the_simulator(self):
        def start(request, label):
            self.context.tasks["T"] = ("cut",)
            return "T"
        self.context.task_start = start
        self.assertRaises(CutConnection, self.export)
        self.assertEqual(self.task()[:2], ("failure", "VDI_IO_ERROR"))

if __name__ == "__main__":
    unittest.main()
