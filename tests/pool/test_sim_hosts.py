#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tests of the pool simulator: bulk transfers, members and their failures, TLS."""

import base64
import os
import socket
import struct
import threading
import time
import unittest

from pool_case import PoolCase
from pool_client import Client, XenError


class Transfers(PoolCase):
    def test_raw_round_trip(self):
        vdi = self.new_vdi(2 << 20)
        data = os.urandom(2 << 20)
        task = self.x("task.create", "import", "")
        status, _, body = self.x.http("PUT", "/import_raw_vdi", data, session_id=self.x.session,
                                      vdi=vdi, task_id=task)
        self.assertEqual((status, body), (200, b""))
        self.assertEqual(self.x.finish(task)["result"], "<value>%s</value>" % vdi)
        task = self.x("task.create", "export", "")
        status, _, body = self.x.http("GET", "/export_raw_vdi", session_id=self.x.session,
                                      vdi=vdi, task_id=task)
        self.assertEqual(body, data)
        self.assertEqual(self.x.finish(task)["status"], "success")
        self.assertEqual(self.x("VDI.get_VBDs", vdi), [])

    def test_attach_failure_comes_late(self):
        vdi = self.new_vdi(2 << 20)
        self.sim("fault/add", method="SM.vdi_attach", error=["SR_BACKEND_FAILURE_46", "", "x", ""])
        task = self.x("task.create", "export", "")
        status, _, body = self.x.http("GET", "/export_raw_vdi", session_id=self.x.session,
                                      vdi=vdi, task_id=task)
        self.assertEqual(status, 200)
        self.assertTrue(body.startswith(b"HTTP/1.1 500"))
        self.assertEqual(self.x.finish(task)["error_info"][0], "SR_BACKEND_FAILURE_46")

    def test_metadata(self):
        vm = self.x.named("VM", "archive")
        old = self.x("VM.get_record", vm)
        status, headers, data = self.x.http("GET", "/export_metadata", session_id=self.x.session,
                                            ref=vm)
        self.assertEqual((status, int(headers["Content-Length"])), (200, len(data)))
        self.x("VM.destroy", vm)
        task = self.x("task.create", "import", "")
        self.x.http("PUT", "/import_metadata", data, session_id=self.x.session, task_id=task,
                    restore="true")
        record = self.x.finish(task)
        self.assertEqual(record["status"], "success", record["error_info"])
        new = self.x("VM.get_record", self.x("VM.get_by_uuid", old["uuid"]))
        for field in ("name_label", "NVRAM", "other_config", "memory_static_max", "domain_type"):
            self.assertEqual(new[field], old[field], field)
        self.assertEqual(self.x("VTPM.get_contents", new["VTPMs"][0]), "dnRwbSBzdGF0ZQ==")
        self.assertEqual(len(new["VBDs"]), 1)

    def test_metadata_with_new_disks(self):
        vm = self.x.named("VM", "db")
        disks = self.disks(vm)
        _, _, data = self.x.http("GET", "/export_metadata", session_id=self.x.session, ref=vm)
        new = [self.new_vdi() for _ in disks]
        mapping = {"vdi:" + self.x("VDI.get_uuid", d): self.x("VDI.get_uuid", n)
                   for d, n in zip(disks.values(), new)}
        task = self.x("task.create", "import", "")
        self.x.http("PUT", "/import_metadata", data, session_id=self.x.session, task_id=task,
                    **mapping)
        record = self.x.finish(task)
        self.assertEqual(record["status"], "success", record["error_info"])
        copy = record["result"].split("<value>")[2].split("<")[0]
        self.assertEqual(set(self.disks(copy).values()), set(new))
        self.assertNotEqual(self.x("VM.get_uuid", copy), self.x("VM.get_uuid", vm))
        bad = {k: "00000000-0000-0000-0000-000000000000" for k in mapping}
        task = self.x("task.create", "import", "")
        self.x.http("PUT", "/import_metadata", data, session_id=self.x.session, task_id=task,
                    **bad)
        self.assertEqual(self.x.finish(task)["error_info"], ["VDI_CONTENT_ID_MISSING"])
        self.x("VM.destroy", copy)

    def test_not_authorised(self):
        task = self.x("task.create", "export", "")
        status, headers, _ = self.x.http("GET", "/export_raw_vdi", session_id="OpaqueRef:x",
                                         vdi="x", task_id=task)
        self.assertEqual(status, 401)
        self.assertIn("WWW-Authenticate", headers)
        self.assertEqual(self.x.finish(task)["status"], "failure")
        reader = Client(self.ready["coordinator"], "reader", "reader")
        status, _, _ = self.x.http("GET", "/export_raw_vdi", session_id=reader.session, vdi="x")
        self.assertEqual(status, 403)

    def test_killed_host_cuts_transfer(self):
        vdi = self.new_vdi(64 << 20)
        fault = self.hold("transfer", nth=3)
        task = self.x("task.create", "export", "")
        second = Client(self.ready["hosts"][1]["url"], login=False)

        def kill():
            self.wait_for_hit(fault)
            self.sim("host/kill", host="host2")

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            data = second.http("GET", "/export_raw_vdi", session_id=self.x.session, vdi=vdi,
                               task_id=task)[2]
        except OSError:
            data = b""
        killer.join()
        self.sim("fault/clear")
        self.assertLess(len(data), 64 << 20)
        self.assertEqual(len(self.x("VDI.get_VBDs", vdi)), 1)
        self.assertEqual(self.x.fails("VDI.destroy", vdi)[0], "VDI_IN_USE")
        self.sim("host/revive", host="host2")
        self.assertEqual(self.x("VDI.get_VBDs", vdi), [])
        self.x("VDI.destroy", vdi)

    def test_xva(self):
        vm = self.x.named("VM", "archive")
        status, _, data = self.x.http("GET", "/export", session_id=self.x.session, ref=vm)
        self.assertEqual(status, 200)
        task = self.x("task.create", "import", "")
        self.x.http("PUT", "/import", data, session_id=self.x.session, task_id=task)
        record = self.x.finish(task)
        self.assertEqual(record["status"], "success", record["error_info"])
        new = record["result"].split("<value>")[2].split("<")[0]
        sums = [self.sim("disk/checksum", vdi=self.x("VDI.get_uuid", self.disks(v)["0"]))
                for v in (vm, new)]
        self.assertEqual(sums[0], sums[1])

    def test_what_clients_made(self):
        client = Client(self.ready["coordinator"], originator="maker")
        vm = client.named("VM", "archive")
        client("VM.add_to_other_config", vm, "mine", "1")
        snapshot = client("VM.snapshot", vm, "left behind")
        made = self.sim("made", originator="maker", leftovers=True)
        self.assertIn(snapshot, {o["ref"] for o in made["objects"]})
        self.assertEqual([e["key"] for e in made["entries"]], ["mine"])
        client("VM.remove_from_other_config", vm, "mine")
        self.assertEqual(self.sim("made", originator="maker", leftovers=True)["entries"], [])


class Nbd(PoolCase):
    @classmethod
    def change(cls, data):
        data["networks"][0]["purpose"] = ["insecure_nbd"]

    def connect(self, entry):
        """A connection in transmission, and the export's size; ConnectionError when refused."""
        sock = socket.create_connection((entry["address"], int(entry["port"])), timeout=10)
        self.addCleanup(sock.close)
        stream = sock.makefile("rwb")
        if stream.read(18) != b"NBDMAGICIHAVEOPT\0\1":
            raise ConnectionError
        name = entry["exportname"].encode()
        stream.write(struct.pack(">I8sII", 1, b"IHAVEOPT", 1, len(name)) + name)
        stream.flush()
        reply = stream.read(134)
        if len(reply) < 134:
            raise ConnectionError
        return sock, stream, struct.unpack(">QH", reply[:10])

    def test_export(self):
        vdi = self.disks(self.x.named("VM", "archive"))["0"]
        snapshot = self.x("VDI.snapshot", vdi)
        entries = self.x("VDI.get_nbd_info", snapshot)
        self.assertEqual([e["address"] for e in entries], ["127.0.0.1", "127.0.0.2"])
        sock, stream, (size, flags) = self.connect(entries[1])
        self.assertEqual((size, flags), (16 << 20, 3))
        stream.write(struct.pack(">IHHQQI", 0x25609513, 0, 0, 7, 512, 4096))
        stream.flush()
        self.assertEqual(struct.unpack(">IIQ", stream.read(16)), (0x67446698, 0, 7))
        data = base64.b64decode(self.sim("disk/read", vdi=self.x("VDI.get_uuid", snapshot),
                                         offset=512, length=4096)["data"])
        self.assertEqual(stream.read(4096), data)
        (vbd,) = self.x("VDI.get_VBDs", snapshot)
        dom0 = self.x("VBD.get_VM", vbd)
        self.assertEqual(self.x("VM.get_resident_on", dom0), self.x.named("host", "host2"))
        self.assertEqual(self.x.fails("VDI.destroy", snapshot)[0], "VDI_IN_USE")
        sock.close()
        stream.close()
        self.wait_until(lambda: not self.x("VDI.get_VBDs", snapshot))
        self.x("VDI.destroy", snapshot)

    def test_refused(self):
        vdi = self.disks(self.x.named("VM", "archive"))["0"]
        entry = self.x("VDI.get_nbd_info", vdi)[0]
        with self.assertRaises(ConnectionError):
            self.connect({**entry, "exportname": entry["exportname"] + "x"})
        network = self.x("network.get_all")[0]
        self.assertEqual(self.x.fails("network.add_purpose", network, "nbd")[0],
                         "NETWORK_INCOMPATIBLE_PURPOSES")


class Hosts(PoolCase):
    def test_call_ends_with_its_coordinator(self):
        vm = self.x.named("VM", "db")
        fault = self.hold("SM.vdi_snapshot", nth=2)
        before = len(self.x("VM.get_all"))
        task = self.x("Async.VM.snapshot", vm, "unfinished")
        self.wait_for_hit(fault)
        self.sim("host/toolstack", seconds=0.1)
        self.sim("fault/clear")
        time.sleep(0.6)  # for the call to go on, as it must not
        again = Client(self.ready["coordinator"], originator="again")
        self.assertEqual(again.fails("task.get_record", task)[0], "HANDLE_INVALID")
        self.assertEqual(len(again("VM.get_all")), before)
        self.assertEqual(again("VM.get_current_operations", vm), {})
        left = [v for v in again("VDI.get_snapshots", self.disks_of(again, vm)["0"])]
        self.assertEqual(len(left), 1)
        again("VDI.destroy", left[0])

    def disks_of(self, client, vm):
        self.x = client
        return self.disks(vm)

    def test_rolling_upgrade(self):
        self.sim("option", name="rolling_upgrade", value=True)
        vm = self.x.named("VM", "archive")
        self.assertEqual(self.x.fails("VM.snapshot", vm, "s"), ["NOT_SUPPORTED_DURING_UPGRADE"])
        self.assertEqual(self.x.fails("VDI.enable_cbt", self.disks(vm)["0"]),
                         ["NOT_SUPPORTED_DURING_UPGRADE"])
        self.sim("option", name="rolling_upgrade", value=False)

    def test_slave(self):
        client = Client(self.ready["hosts"][1]["url"], login=False)
        with self.assertRaises(XenError) as caught:
            client.raw("session.login_with_password", "root", "password")
        self.assertEqual(caught.exception.args[0], ["HOST_IS_SLAVE", "127.0.0.1"])

    def test_emergency(self):
        self.sim("host/emergency", host="host2", error="HOST_STILL_BOOTING")
        client = Client(self.ready["hosts"][1]["url"], login=False)
        with self.assertRaises(XenError) as caught:
            client.raw("session.login_with_password", "root", "password")
        self.assertEqual(caught.exception.code, "HOST_STILL_BOOTING")
        self.sim("host/emergency", host="host2")

    def test_dead_member(self):
        vdi = self.disks(self.x.named("VM", "archive"))["0"]
        self.assertEqual(len(self.x("VDI.get_nbd_info", vdi)), 2)
        self.sim("host/kill", host="host2")
        host = self.x.named("host", "host2")
        self.assertEqual(self.x.fails("VDI.get_nbd_info", vdi), ["HOST_OFFLINE", host])
        self.assertEqual(self.x("VM.get_power_state", self.x.named("VM", "db")), "Running")
        self.assertEqual(self.x.fails("VM.clean_shutdown", self.x.named("VM", "db"))[0],
                         "HOST_OFFLINE")
        with self.assertRaises(OSError):
            Client(self.ready["hosts"][1]["url"])
        self.sim("host/revive", host="host2")
        self.assertEqual(self.x("VM.get_power_state", self.x.named("VM", "db")), "Halted")
        self.x("VM.start", self.x.named("VM", "db"), False, False)
        self.assertEqual(len(self.x("VDI.get_nbd_info", vdi)), 2)

    def test_failover(self):
        first, second = self.ready["hosts"]
        self.sim("host/kill", host="host1")
        client = Client(second["url"], login=False)
        with self.assertRaises(XenError) as caught:
            client.raw("session.login_with_password", "root", "password")
        self.assertEqual(caught.exception.args[0], ["HOST_IS_SLAVE", "127.0.0.1"])
        self.sim("coordinator", host="host2")
        fresh = Client(second["url"])
        self.assertEqual(fresh("pool.get_master", fresh("pool.get_all")[0]),
                         fresh.named("host", "host2"))
        fresh.session = self.x.session
        self.assertEqual(fresh.fails("pool.get_all")[0], "SESSION_INVALID")
        self.sim("host/revive", host="host1")
        self.sim("coordinator", host="host1")
        self.assertEqual(len(Client(first["url"])("host.get_all")), 2)
        for name in ("web", "db"):
            if self.sim("record/get", cls="VM", name=name)["record"]["power_state"] == "Halted":
                self.sim("vm/power", vm=name, operation="start", host="host1")

    def test_toolstack(self):
        task = self.x("task.create", "l", "d")
        self.sim("host/toolstack", seconds=0.1)
        again = Client(self.ready["coordinator"], login=False)
        again.session = self.x.session
        self.assertEqual(again.fails("task.get_record", task)[0], "HANDLE_INVALID")

    def test_faults(self):
        self.sim("fault/add", method="VM.get_all", cut=True)
        with self.assertRaises(OSError):
            self.x("VM.get_all")
        self.x = Client(self.ready["coordinator"])
        self.sim("fault/add", method="VDI.create", cut=True, after=True)
        count = len(self.x("VDI.get_all"))
        with self.assertRaises(OSError):
            self.new_vdi()
        self.x = Client(self.ready["coordinator"])
        self.assertEqual(len(self.x("VDI.get_all")), count + 1)
        id_ = self.sim("fault/add", method="VM.get_all", hang=True, count=0)["id"]
        done = []
        client = Client(self.ready["coordinator"])
        thread = threading.Thread(target=lambda: done.append(client("VM.get_all")))
        thread.start()
        time.sleep(0.2)
        self.assertEqual(done, [])
        self.sim("fault/remove", id=id_)
        thread.join(60)
        self.assertEqual(len(done), 1)


class HighAvailability(PoolCase):
    options = {"ha_failover": 0.2}

    def test_election(self):
        self.assertTrue(self.x("pool.get_ha_enabled", self.x("pool.get_all")[0]))
        self.sim("host/kill", host="host1")
        for _ in range(1200):
            try:
                client = Client(self.ready["hosts"][1]["url"])
                break
            except XenError as error:
                self.assertEqual(error.code, "HOST_IS_SLAVE")
                time.sleep(0.05)
        self.assertEqual(client("pool.get_master", client("pool.get_all")[0]),
                         client.named("host", "host2"))


class Tls(PoolCase):
    tls = True

    def test_certificates(self):
        client = Client(self.ready["coordinator"], ca=self.ready["ca"])
        text = client("host.get_server_certificate", client.named("host", "host2"))
        with open(self.ready["hosts"][1]["certificate"], encoding="ascii") as source:
            self.assertEqual(text, source.read())
        records = client("Certificate.get_all_records").values()
        self.assertEqual({r["fingerprint"] for r in records},
                         {h["fingerprint_sha256"] for h in self.ready["hosts"]})
        client.connection.close()

    def setUp(self):
        self.x = Client(self.ready["coordinator"], ca=self.ready["ca"])


if __name__ == "__main__":
    unittest.main()
