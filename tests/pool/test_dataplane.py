#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tests of the data paths of a whole simulated pool, as a client meets them."""

import base64
import contextlib
import hashlib
import http.client
import os
import random
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
import unittest
import xmlrpc.client

from store_case import MIB, needs
from sim import scenario
from sim.simulator import Simulator

SCENARIO = {
    "name": "data", "hosts": [{"name": "host1"}, {"name": "host2"}],
    "srs": [{"name": "shared", "type": "nfs", "shared": True, "size": "1 GiB", "default": True},
            {"name": "local", "type": "ext", "hosts": ["host2"], "size": "1 GiB"}],
    "networks": [{"name": "net", "purpose": ["nbd"]}],
    "vms": [{"name": "vm", "power_state": "Running", "host": "host1",
             "disks": [{"name": "disk", "sr": "shared", "size": "16 MiB", "cbt": True,
                        "generate": {"seed": 1, "bytes": 4194304}},
                       {"name": "far", "sr": "local", "size": "4 MiB"}]}],
}


class Failure(Exception):
    """A XenAPI error description."""


class DataPlaneTest(unittest.TestCase):
    options = {}

    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="dataplane-test-")
        self.addCleanup(shutil.rmtree, self.directory)
        plan = scenario.check({**SCENARIO, "options": self.options})
        self.simulator = Simulator(plan, self.directory, ("127.0.0.1", 0))
        self.simulator.start()
        self.addCleanup(self.simulator.stop)
        self.ready = self.simulator.ready()
        self.proxy = xmlrpc.client.ServerProxy(self.ready["coordinator"])
        self.addCleanup(self.proxy("close"))
        self.session = self.call("session.login_with_password", "root", "password", "1.0", "test",
                                 session=False)
        self.disk = self.by_name("disk")

    def call(self, method, *parameters, session=True):
        function = self.proxy
        for part in method.split("."):
            function = getattr(function, part)
        answer = function(*([self.session] if session else []), *parameters)
        if answer["Status"] != "Success":
            raise Failure(*answer["ErrorDescription"])
        return answer.get("Value")

    def control(self, action, **arguments):
        return self.simulator.control.run(action, arguments)

    def by_name(self, name):
        return self.call("VDI.get_by_name_label", name)[0]

    def row(self, cls, ref):
        return self.simulator.pool.db.record(cls, ref)

    def wait_until(self, condition):
        with self.simulator.pool.lock:
            self.assertTrue(self.simulator.pool.db.changed.wait_for(condition, timeout=20))

    @contextlib.contextmanager
    def fails(self, *description):
        with self.assertRaises(Failure) as caught:
            yield
        self.assertEqual(caught.exception.args[:len(description)], description)

    def snapshot(self):
        return self.call("VDI.snapshot", self.disk, {})

    def content(self, vdi):
        uuid = self.call("VDI.get_uuid", vdi)
        return self.simulator.pool.store.read(uuid, 0, self.simulator.pool.store.size(uuid))

    def transfer(self, method, action, vdi, body=None, host=0, **query):
        """One HTTP transfer with a task; returns (response, body, task status, task's error).

        The response is None where the connection was reset."""
        task = self.call("task.create", "transfer", "")
        member = self.ready["hosts"][host]
        connection = http.client.HTTPConnection(member["address"], member["port"], timeout=30)
        parameters = {"session_id": self.session, "task_id": task, "vdi": vdi, **query}
        text = "&".join(f"{key}={value}" for key, value in parameters.items())
        response, data = None, b""
        with contextlib.closing(connection):
            # A host that fails in the middle of an upload closes with the rest unread: a reset.
            with contextlib.suppress(ConnectionError):
                connection.request(method, f"/{action}?{text}", body)
                response = connection.getresponse()
                data = response.read()
        self.wait_until(lambda: self.row("task", task)["status"] != "pending"
                        or response is not None)
        return (response, data, self.call("task.get_status", task),
                self.call("task.get_error_info", task))

    def new_disk(self, size=16 * MIB):
        sr = self.call("SR.get_by_name_label", "shared")[0]
        return self.call("VDI.create", {
            "SR": sr, "virtual_size": str(size), "type": "user", "sharable": False,
            "read_only": False, "other_config": {}, "name_label": "new"})

    def nbd_uri(self, info):
        with open(os.path.join(self.directory, "ca-cert.pem"), "w", encoding="ascii") as file:
            file.write(info["cert"])
        name = info["exportname"].replace("?", "%3F")
        return (f"nbds://{info['address']}:{info['port']}/{name}"
                f"?tls-certificates={self.directory}")

    def nbd_attach(self, info):
        """A TLS connection that has chosen its export."""
        sock = socket.create_connection((info["address"], int(info["port"])), timeout=30)
        self.addCleanup(sock.close)
        self.assertEqual(sock.recv(18, socket.MSG_WAITALL)[:8], b"NBDMAGIC")
        sock.sendall(struct.pack(">I8sII", 1, b"IHAVEOPT", 5, 0))
        self.assertEqual(len(sock.recv(20, socket.MSG_WAITALL)), 20)
        context = ssl.create_default_context(cadata=info["cert"])
        sock = context.wrap_socket(sock, server_hostname=info["address"])
        self.addCleanup(sock.close)
        name = info["exportname"].encode()
        sock.sendall(struct.pack(">8sII", b"IHAVEOPT", 1, len(name)) + name)
        self.assertEqual(len(sock.recv(10)), 10)
        return sock


class BackupTest(DataPlaneTest):
    def test_changed_blocks_are_those_written(self):
        first = self.snapshot()
        rng, expected = random.Random(5), bytearray(32)
        for _ in range(40):
            offset, length = rng.randrange(16 * MIB - 300000), rng.randrange(1, 300000)
            self.control("disk/write", vdi=self.disk, offset=offset, length=length, random_seed=1)
            for block in range(offset // 65536, (offset + length - 1) // 65536 + 1):
                expected[block // 8] |= 0x80 >> block % 8
        second = self.snapshot()
        bitmap = base64.b64decode(self.call("VDI.list_changed_blocks", first, second))
        self.assertEqual(bitmap, bytes(expected))
        self.call("VDI.data_destroy", first)
        again = base64.b64decode(self.call("VDI.list_changed_blocks", first, second))
        self.assertEqual(again, bitmap)
        with self.fails("SR_BACKEND_FAILURE_460"):
            self.call("VDI.list_changed_blocks", second, first)

    def test_a_lying_bitmap(self):
        first = self.snapshot()
        self.control("disk/write", vdi=self.disk, offset=0, length=4 * 65536, random_seed=2)
        self.control("disk/lie-cbt", vdi=self.disk, blocks=[1])
        bitmap = base64.b64decode(self.call("VDI.list_changed_blocks", first, self.snapshot()))
        self.assertEqual(bitmap[0], 0xB0)

    @needs("nbdcopy")
    def test_backup_over_nbd(self):
        snapshot = self.snapshot()
        before = self.content(self.disk)
        self.control("disk/write", vdi=self.disk, offset=0, length=MIB, random_seed=3)
        infos = self.call("VDI.get_nbd_info", snapshot)
        self.assertEqual(len(infos), 2)
        for info in infos:
            target = os.path.join(self.directory, "copy")
            subprocess.run(["nbdcopy", self.nbd_uri(info), target], check=True)
            with open(target, "rb") as file:
                self.assertEqual(hashlib.sha256(file.read()).digest(),
                                 hashlib.sha256(before).digest())

    def test_a_served_disk_is_in_use(self):
        first, second = self.snapshot(), self.snapshot()
        info = self.call("VDI.get_nbd_info", second)[0]
        sock = self.nbd_attach(info)
        with self.fails("VDI_IN_USE", second, "list_changed_blocks"):
            self.call("VDI.list_changed_blocks", first, second)
        with self.fails("VDI_IN_USE", second, "destroy"):
            self.call("VDI.destroy", second)
        vbd, = self.call("VDI.get_VBDs", second)
        self.assertTrue(self.call("VM.get_is_control_domain", self.call("VBD.get_VM", vbd)))
        self.assertEqual(self.call("VBD.get_mode", vbd), "RO")
        sock.close()
        self.wait_until(lambda: not self.row("VDI", second)["VBDs"])
        self.call("VDI.list_changed_blocks", first, second)
        self.call("VDI.destroy", second)

    def test_sixteen_connections_a_host(self):
        snapshot = self.snapshot()
        first, second = self.call("VDI.get_nbd_info", snapshot)
        for _ in range(16):
            self.nbd_attach(first)
        with socket.create_connection((first["address"], int(first["port"])), 30) as sock:
            self.assertEqual(sock.recv(1), b"")
        self.nbd_attach(second)
        self.assertEqual(len(self.call("VDI.get_VBDs", snapshot)), 17)

    def test_a_session_must_be_valid_when_the_export_is_chosen(self):
        info = self.call("VDI.get_nbd_info", self.snapshot())[0]
        sock = self.nbd_attach(info)
        self.call("session.logout")
        with self.assertRaises((AssertionError, OSError)):
            self.nbd_attach(info)
        # The one that is attached lives on.
        sock.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, 1, 0, 512))
        data = b""
        while len(data) < 124 + 16 + 512:
            part = sock.recv(4096)
            self.assertTrue(part)
            data += part

    def test_a_dead_host_leaves_its_attachments_until_it_returns(self):
        snapshot = self.snapshot()
        info = [i for i in self.call("VDI.get_nbd_info", snapshot)
                if i["address"] == self.ready["hosts"][1]["address"]][0]
        sock = self.nbd_attach(info)
        self.control("host/kill", host="host2")
        with contextlib.suppress(ConnectionError):
            while sock.recv(1 << 16):
                pass
        self.assertEqual(len(self.call("VDI.get_VBDs", snapshot)), 1)
        with self.fails("VDI_IN_USE"):
            self.call("VDI.destroy", snapshot)
        self.control("host/revive", host="host2")
        self.assertEqual(self.call("VDI.get_VBDs", snapshot), [])
        self.call("VDI.destroy", snapshot)


class TransferTest(DataPlaneTest):
    def test_export_and_import(self):
        snapshot, new = self.snapshot(), self.new_disk()
        for form in ("raw", "vhd", "tar"):
            response, body, status, _ = self.transfer("GET", "export_raw_vdi", snapshot,
                                                      format=form)
            self.assertEqual((response.status, status), (200, "success"))
            self.control("disk/write", vdi=new, offset=0, length=16 * MIB)
            _, rest, status, _ = self.transfer("PUT", "import_raw_vdi", new, body, format=form)
            self.assertEqual((rest, status), (b"", "success"))
            self.assertEqual(self.content(new), self.content(snapshot))

    def test_chunked_import(self):
        new = self.new_disk()
        body = struct.pack("<QI", MIB, 4096) + b"a" * 4096 + bytes(12)
        self.assertEqual(self.transfer("PUT", "import_raw_vdi", new, body, chunked="")[2],
                         "success")
        expected = bytes(MIB) + b"a" * 4096 + bytes(15 * MIB - 4096)
        self.assertEqual(self.content(new), expected)

    def test_export_of_a_running_disk_fails_late(self):
        response, body, status, error = self.transfer("GET", "export_raw_vdi", self.disk)
        self.assertEqual((response.status, status, error[0]), (200, "failure", "VDI_IN_USE"))
        self.assertTrue(body.startswith(b"HTTP/1.1 500 Internal Error\r\n"))

    def test_redirect_to_a_host_that_reaches_the_disk(self):
        far = self.call("VDI.snapshot", self.by_name("far"), {})
        response, _, status, _ = self.transfer("GET", "export_raw_vdi", far)
        self.assertEqual((response.status, status), (302, "pending"))
        location = response.getheader("Location")
        self.assertTrue(location.startswith(self.ready["hosts"][1]["url"] + "/export_raw_vdi?"))
        response, body, status, _ = self.transfer("GET", "export_raw_vdi", far, host=1)
        self.assertEqual((response.status, len(body), status), (200, 4 * MIB, "success"))

    def test_full_storage(self):
        new = self.new_disk(256 * MIB)
        sr = self.call("VDI.get_SR", new)
        self.control("sr/fill", sr=sr, free=4 * MIB)
        body = os.urandom(32 * MIB)
        _, _, status, error = self.transfer("PUT", "import_raw_vdi", new, body)
        self.assertEqual((status, error), ("failure", ["VDI_IO_ERROR", "Device I/O errors"]))

    def test_injected_failure_in_the_middle(self):
        snapshot = self.snapshot()
        self.control("fault/add", method="transfer", nth=5, error=["VDI_IO_ERROR", "injected"])
        _, body, status, error = self.transfer("GET", "export_raw_vdi", snapshot)
        self.assertEqual((status, error), ("failure", ["VDI_IO_ERROR", "injected"]))
        self.assertEqual(body[:4 * MIB], self.content(snapshot)[:4 * MIB])
        self.assertTrue(body[4 * MIB:].startswith(b"HTTP/1.1 500"))
        self.assertEqual(self.call("VDI.get_VBDs", snapshot), [])


class ExternalNbdTest(DataPlaneTest):
    options = {"nbd": "nbdkit"}

    @needs("nbdkit")
    @needs("nbdcopy")
    def test_a_disk_has_its_own_port(self):
        snapshot = self.snapshot()
        infos = self.call("VDI.get_nbd_info", snapshot)
        target = os.path.join(self.directory, "copy")
        for info in infos:
            subprocess.run(["nbdcopy", self.nbd_uri(info), target], check=True)
            with open(target, "rb") as file:
                self.assertEqual(file.read(), self.content(snapshot))
        self.call("VDI.destroy", snapshot)
        with self.assertRaises(OSError):
            socket.create_connection((infos[0]["address"], int(infos[0]["port"])))


if __name__ == "__main__":
    unittest.main()
