#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tests of the pool simulator: wire, sessions, records, events, tasks, scenarios."""

import copy
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import unittest.mock

from pool_case import HERE, SINGLE, PoolCase
from pool_client import Client, XenError, control, method_call
from sim import scenario, simulator
from sim.errors import ScenarioError


class Wire(PoolCase):
    def test_values_are_bare(self):
        body = self.x.body("VM.get_VCPUs_max", self.x.session, self.x.named("VM", "web"))
        self.assertEqual(body, b'<?xml version="1.0"?><methodResponse><params><param><value>'
                         b'<struct><member><name>Status</name><value>Success</value></member>'
                         b'<member><name>Value</name><value>2</value></member></struct></value>'
                         b'</param></params></methodResponse>')

    def test_map_keys_are_not_escaped(self):
        vm = self.x.named("VM", "archive")
        self.x("VM.set_xenstore_data", vm, {"a&b": "c&d"})
        body = self.x.body("VM.get_xenstore_data", self.x.session, vm)
        self.assertIn(b"<name>a&b</name><value>c&amp;d</value>", body)
        reply = self.json("VM.get_xenstore_data", [self.x.session, vm])
        self.assertEqual(reply["result"], {"a&b": "c&d"})
        self.x("VM.set_xenstore_data", vm, {})

    def json(self, method, params, **more):
        body = json.dumps({"method": method, "params": params, "id": 1, "jsonrpc": "2.0", **more})
        self.x.connection.request("POST", "/jsonrpc", body)
        return json.loads(self.x.connection.getresponse().read())

    def test_json(self):
        vm = self.x.named("VM", "web")
        self.assertEqual(self.json("VM.get_VCPUs_max", [self.x.session, vm])["result"], 2)
        error = self.json("VM.get_record", [self.x.session, "x"])["error"]
        self.assertEqual(error, {"code": 1, "message": "HANDLE_INVALID", "data": ["VM", "x"]})

    def test_strict_types(self):
        vm = self.x.named("VM", "web")
        self.assertEqual(self.x.fails("VM.set_is_a_template", vm, "false")[0], "INTERNAL_ERROR")
        self.assertEqual(self.x.fails("VM.get_record"),
                         ["MESSAGE_PARAMETER_COUNT_MISMATCH", "VM.get_record", "1", "0"])
        self.assertEqual(self.x.fails("VM.nothing"), ["MESSAGE_METHOD_UNKNOWN", "VM.nothing"])

    def send(self, data):
        with socket.create_connection(self.x.address, timeout=10) as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            reply = b""
            while piece := sock.recv(65536):
                reply += piece
        return reply

    def test_head_limit(self):
        fits = b"POST / HTTP/1.1\r\nContent-Length: 0\r\nX: " + b"a" * 970 + b"\r\n\r\n"
        self.assertTrue(self.send(fits).startswith(b"HTTP/1.1 500"))
        large = b"POST / HTTP/1.1\r\nContent-Length: 0\r\nX: " + b"a" * 1000 + b"\r\n\r\n"
        self.assertTrue(self.send(large).startswith(b"HTTP/1.1 431"))

    def test_body_limit_and_chunked(self):
        size = 300 * 1024 + 1
        reply = self.send(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size)
        self.assertTrue(reply.startswith(b"HTTP/1.1 500"))
        reply = self.send(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        self.assertTrue(reply.startswith(b"HTTP/1.1 500"))

    def test_invalid_unicode(self):
        vm = self.x.named("VM", "web")
        body = method_call("VM.set_name_description", [self.x.session, vm, "X"]).encode()
        self.x.connection.request("POST", "/", body.replace(b"<string>X<", b"<string>\xff<"))
        self.assertIn(b"<value>INVALID_VALUE</value>", self.x.connection.getresponse().read())

    def test_hostile_reply(self):
        reply = "HTTP/1.1 200 OK\r\ncontent-length: 2147483647\r\n\r\n<?xml"
        self.sim("fault/add", method="pool.get_all", reply=reply)
        body = method_call("pool.get_all", [self.x.session]).encode()
        answer = self.send(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        self.assertEqual(answer, reply.encode())

    def test_strange_enum(self):
        vm = self.x.named("VM", "web")
        self.sim("record/set", cls="VM", name="web", raw=True, fields={"domain_type": "new"})
        self.assertEqual(self.x("VM.get_domain_type", vm), "new")
        self.sim("record/set", cls="VM", name="web", fields={"domain_type": "hvm"})

    def test_other_verbs(self):
        self.assertTrue(self.send(b"DELETE / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 501"))
        self.assertTrue(self.send(b"PUT /nothing HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 403"))

    def test_list_methods(self):
        self.assertIn("VM.snapshot", self.x.raw("system.listMethods"))


class Sessions(PoolCase):
    options = {"session_quota": 3, "version": "26.17.0"}

    def test_wrong_password(self):
        with self.assertRaises(XenError) as caught:
            Client(self.ready["coordinator"], password="wrong")
        self.assertEqual(caught.exception.code, "SESSION_AUTHENTICATION_FAILED")

    def test_logout_ends_event_from(self):
        client, found = Client(self.ready["coordinator"]), []
        token = client("event.from", ["pool"], "", 0.1)["token"]

        def listen():
            found.append(client.fails("event.from", ["vlan"], token, 20.0)[0])

        thread = threading.Thread(target=listen)
        thread.start()
        time.sleep(0.4)  # a call that comes after the logout fails alike
        self.x.raw("session.logout", client.session)
        thread.join(60)
        self.assertEqual(found, ["SESSION_INVALID"])

    def test_quota(self):
        clients = [Client(self.ready["coordinator"], originator="many") for _ in range(4)]
        self.assertEqual(clients[0].fails("pool.get_all")[0], "SESSION_INVALID")
        self.assertEqual(len(clients[3]("pool.get_all")), 1)

    def test_roles(self):
        reader = Client(self.ready["coordinator"], "reader", "reader")
        vm = reader.named("VM", "archive")
        self.assertEqual(reader.fails("VM.set_name_label", vm, "x")[0], "RBAC_PERMISSION_DENIED")
        record = reader.wait("VM.snapshot", vm, "x")
        self.assertEqual(record["error_info"][0], "RBAC_PERMISSION_DENIED")
        backup = Client(self.ready["coordinator"], "backup", "backup")
        vtpm = backup("VTPM.get_all")[0]
        self.assertEqual(backup.fails("VTPM.get_contents", vtpm)[0], "RBAC_PERMISSION_DENIED")
        self.assertEqual(self.x("VTPM.get_contents", vtpm), "dnRwbSBzdGF0ZQ==")

    def test_versions(self):
        vm = self.x("VM.get_record", self.x.named("VM", "web"))
        self.assertIn("groups", vm)
        self.assertEqual(self.x("host.get_API_version_minor", self.x("host.get_all")[0]), "23")


class OldServer(PoolCase):
    options = {"version": "stockholm"}

    def test_ignore_vdis_is_unknown(self):
        vm = self.x.named("VM", "archive")
        error = self.x.fails("VM.snapshot", vm, "s", [])
        self.assertEqual(error, ["MESSAGE_PARAMETER_COUNT_MISMATCH", "VM.snapshot", "2", "3"])
        self.assertNotIn("pending_guidances_full", self.x("VM.get_record", vm))


class Database(PoolCase):
    def test_maps(self):
        vm = self.x.named("VM", "archive")
        self.x("VM.add_to_xenstore_data", vm, "k", "v")
        self.assertEqual(self.x.fails("VM.add_to_xenstore_data", vm, "k", "v"),
                         ["MAP_DUPLICATE_KEY", "VM", "xenstore_data", vm, "k"])
        self.x("VM.remove_from_xenstore_data", vm, "k")
        self.x("VM.remove_from_xenstore_data", vm, "k")
        self.assertEqual(self.x.fails("VM.get_by_uuid", "x"), ["UUID_INVALID", "VM", "x"])

    def test_where(self):
        found = self.x("VM.get_all_records_where",
                       'field "power_state"="Running" and not (field "is_control_domain"="true")')
        self.assertEqual({r["name_label"] for r in found.values()}, {"web", "db"})
        self.assertEqual(self.x.fails("VM.get_all_records_where", "field")[0], "INVALID_VALUE")

    def test_events(self):
        first = self.x("event.from", ["*"], "", 1.0)
        self.assertTrue(all(e["operation"] == "add" for e in first["events"]))
        self.assertEqual(first["valid_ref_counts"]["host"], 2)
        self.assertRegex(first["token"], r"^\d{20},\d{20}$")
        idle = self.x("event.from", ["vm"], first["token"], 0.1)
        self.assertEqual(idle["events"], [])
        vm = self.x.named("VM", "web")
        self.x("VM.add_tags", vm, "new")
        vdi = self.new_vdi()
        change = self.x("event.from", ["vm", "VDI/" + vdi], first["token"], 5.0)
        kinds = {(e["class"], e["operation"]) for e in change["events"]}
        self.assertEqual(kinds, {("vm", "mod"), ("vdi", "add")})
        self.x("VDI.destroy", vdi)
        gone = self.x("event.from", ["vdi"], change["token"], 5.0)
        self.assertIn((vdi, "del"), {(e["ref"], e["operation"]) for e in gone["events"]})
        self.assertNotIn("snapshot", [e for e in gone["events"] if e["ref"] == vdi][0])
        self.x("VM.remove_tags", vm, "new")
        self.assertEqual(self.x.fails("event.from", ["vm"], "nonsense", 0.1)[0],
                         "EVENT_FROM_TOKEN_PARSE_FAILURE")

    def test_inject(self):
        pool = self.x("pool.get_all")[0]
        token = self.x("event.inject", "pool", pool)
        events = self.x("event.from", ["pool"], token, 1.0)["events"]
        self.assertEqual([e["operation"] for e in events], ["mod"])


class Tasks(PoolCase):
    options = {"task_limit": 6}

    def test_results(self):
        vdi = self.new_vdi()
        record = self.x.wait("VDI.snapshot", vdi)
        self.assertRegex(record["result"], "^<value>OpaqueRef:[0-9a-f-]+</value>$")
        record = self.x.wait("VDI.set_name_label", vdi, "y")
        self.assertEqual((record["result"], record["progress"]), ("<value></value>", 1.0))
        record = self.x.wait("VDI.data_destroy", vdi)
        self.assertEqual(record["error_info"][0], "OPERATION_NOT_ALLOWED")
        self.assertEqual(self.x.fails("Async.VM.get_uuid", vdi)[0], "Fault")
        self.assertEqual(self.x.fails("Async.VDI.snapshot")[0], "MESSAGE_PARAMETER_COUNT_MISMATCH")

    def test_destroy_of_pending(self):
        task = self.x("task.create", "l", "d")
        self.x("task.destroy", task)
        self.assertEqual(self.x("task.get_status", task), "pending")
        self.x("task.set_status", task, "cancelled")
        self.assertEqual(self.x.fails("task.get_status", task)[0], "HANDLE_INVALID")

    def test_cancel(self):
        fault = self.hold("SM.vdi_snapshot")
        task = self.x("Async.VM.snapshot", self.x.named("VM", "db"), "cancelled")
        self.wait_for_hit(fault)
        self.x("task.cancel", task)
        self.sim("fault/clear")
        self.assertEqual(self.x.finish(task)["status"], "cancelled")

    def test_trimmed(self):
        tasks = [self.x("task.create", str(i), "") for i in range(8)]
        for task in tasks:
            self.x("task.set_status", task, "success")
        self.x("task.create", "one more", "")
        self.assertEqual(self.x.fails("task.get_record", tasks[0])[0], "HANDLE_INVALID")
        self.x("task.get_record", tasks[7])


class Generated(unittest.TestCase):
    def test_many(self):
        data = {"name": "many", "generate": {"hosts": 3, "vms": 60, "disks_per_vm": 2, "srs": 2}}
        with tempfile.TemporaryDirectory() as folder:
            running = simulator.Simulator(scenario.check(data), folder, ("127.0.0.1", 0))
            running.start()
            try:
                client = Client(running.ready()["coordinator"])
                self.assertEqual(len(client("VM.get_all_records")), 63)
                self.assertEqual(len(client("VDI.get_all_records")), 120)
                client.connection.close()
            finally:
                running.stop()

    def test_disks_survive(self):
        with open(SINGLE, encoding="utf-8") as source:
            data = json.load(source)
        with tempfile.TemporaryDirectory() as folder:
            sums = []
            for _ in range(2):
                running = simulator.Simulator(scenario.check(copy.deepcopy(data)), folder,
                                              ("127.0.0.1", 0))
                running.start()
                url = running.ready()["sim"]
                if not sums:
                    control(url, "disk/write", vdi="web disk 0", offset=0, length=100, pattern="z")
                sums.append(control(url, "disk/checksum", vdi="web disk 0"))
                running.stop()
        self.assertEqual(sums[0], sums[1])

    def test_a_port_is_given_once(self):
        port = simulator.free_port(["127.0.0.1"])
        with unittest.mock.patch.object(simulator.random, "randrange", return_value=port):
            with self.assertRaisesRegex(ScenarioError, "no port is free"):
                simulator.free_port(["127.0.0.1"])
        code = ("import sys; sys.path.insert(0, sys.argv[1])\n"
                "from sim import simulator; print(simulator.claim(int(sys.argv[2])))")
        said = subprocess.run([sys.executable, "-c", code, HERE, str(port)], check=True,
                              stdout=subprocess.PIPE).stdout
        self.assertEqual(said, b"False\n")

    def test_bad_scenarios(self):
        good = {"hosts": [{"name": "h"}]}
        for change, text in (({"hosts": []}, "at least one host"),
                             ({"nonsense": 1}, "unknown member nonsense"),
                             ({"srs": [{"name": "s", "type": "x"}]}, "unknown type"),
                             ({"srs": [{"name": "s", "size": "many"}]}, "is not a size"),
                             ({"vms": [{"name": "v", "host": "other"}]}, "no host 'other'"),
                             ({"vms": [{"name": "v", "disks": [{"sr": "s", "size": 1}]}]},
                              "no SR 's'"),
                             ({"options": {"fast": "yes"}}, "must be bool"),
                             ({"options": {"fats": True}}, "unknown option")):
            with self.subTest(text), self.assertRaisesRegex(ScenarioError, text):
                scenario.check({**good, **change})


if __name__ == "__main__":
    unittest.main()
