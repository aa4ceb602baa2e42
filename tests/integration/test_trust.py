# SPDX-License-Identifier: LGPL-2.1-or-later
"""Wrong secrets, wrong certificates and servers that answer nonsense."""

import http.server
import ssl
import threading
import time
import unittest

from deployment import PASSPHRASE
from harness import DENIED, FAILED, OK, USAGE, PoolCase
from scenes import disk, scene, vm

# No command may take longer than this against a server that answers nonsense.
DEADLINE = 100
LIMIT = 60


class Secrets(PoolCase):
    """Passwords, passphrases and fingerprints."""

    scene = scene(vm("web", disk(seed=1)),
                  users=[{"name": "reader", "password": "reader", "role": "read-only"}])

    def pool_member(self, **members):
        """Changes the pool in the configuration."""
        self.site.config["pools"][0].update(members)
        self.site.write_config()

    def test_wrong_password(self):
        self.site.secret("password", "guess")
        result = self.run_tool("pool", "show", code=DENIED)
        self.assertIn("AUTH", result.err)
        self.assertNotIn("guess", result.err + result.out)

    def test_unknown_user(self):
        self.pool_member(username="nobody")
        self.run_tool("pool", "show", code=DENIED)

    def test_account_without_the_right(self):
        self.pool_member(username="reader")
        self.site.secret("password", "reader")
        self.run_tool("pool", "show")
        result = self.site.run("backup", "web")
        self.assertIn(result.code, (FAILED, DENIED), str(result))
        self.assertIn("RBAC_PERMISSION_DENIED", result.err + result.out)
        self.assertEqual(self.site.points(), [])
        self.assert_clean()

    def test_wrong_certificate(self):
        self.pool_member(fingerprints=["ab" * 32])
        result = self.run_tool("pool", "show", code=DENIED)
        self.assertIn("TLS", result.err)

    def test_certificate_of_another_member(self):
        self.pool_member(fingerprints=self.pool.fingerprints[1:], urls=self.pool.urls[:1])
        self.run_tool("pool", "show", code=DENIED)

    def test_no_trust_given(self):
        del self.site.config["pools"][0]["fingerprints"]
        self.site.write_config()
        self.run_tool("pool", "show", code=DENIED)

    def test_authority(self):
        del self.site.config["pools"][0]["fingerprints"]
        self.pool_member(ca_file=self.pool.ready["ca"])
        self.run_tool("pool", "show")
        self.pool_member(ca_file=self.pool.host("host-b")["certificate"])
        self.pool_member(urls=self.pool.urls[:1])
        self.run_tool("pool", "show", code=DENIED)

    def test_trust_on_first_use(self):
        del self.site.config["pools"][0]["fingerprints"]
        self.pool_member(trust_on_first_use=True)
        result = self.run_tool("pool", "show")
        shown = self.pool.fingerprints[0].replace(":", "").lower()
        self.assertIn(shown, result.err)

    def test_another_pool(self):
        self.pool_member(pool_uuid="01234567-89ab-cdef-0123-456789abcdef")
        result = self.run_tool("pool", "show", code=FAILED)
        self.assertIn("CONFLICT", result.err)

    def test_wrong_passphrase(self):
        self.backup("web")
        self.site.secret("passphrase", "wrong horse")
        for words in (["points"], ["restore", "latest:web"], ["backup", "web"],
                      ["repo", "verify"]):
            result = self.run_tool(*words, code=DENIED)
            self.assertIn("AUTH", result.err)
            self.assertNotIn("wrong horse", result.err)
        self.site.secret("passphrase", PASSPHRASE)
        self.assertEqual(len(self.site.points()), 1)

    def test_empty_password_file(self):
        self.site.secret("password", "")
        self.run_tool("pool", "show", code=USAGE)

    def test_secrets_are_not_in_the_repository_or_state(self):
        self.backup("web")
        for name in self.site.objects():
            with open(self.site.repo + "/" + name, "rb") as file:
                content = file.read()
            self.assertNotIn(PASSPHRASE.encode(), content, name)
            self.assertNotIn(b"web disk 0", content, name)
        with open(self.site.folder + "/state.db", "rb") as file:
            self.assertNotIn(PASSPHRASE.encode(), file.read())

    def test_messages_hold_no_secrets(self):
        result = self.run_tool("backup", "web", "--log-level", "debug")
        self.assertNotIn(PASSPHRASE, result.err + result.out)
        self.assertNotIn("OpaqueRef:session", result.err)


class Nonsense(http.server.BaseHTTPRequestHandler):
    """Answers every request with what the server's `answer` says."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        """Every call."""
        length = int(self.headers.get("Content-Length", 0))
        self.rfile.read(length)
        self.server.requests += 1
        self.server.answer(self)
        self.close_connection = True

    do_GET = do_PUT = do_POST

    def log_message(self, *_words):
        """Keeps quiet."""


def reply(body, status="200 OK", length=None, *headers):
    """An answer of these bytes."""
    def answer(handler):
        head = "HTTP/1.1 %s\r\nContent-Length: %d\r\nContent-Type: text/xml\r\n%s\r\n" % (
            status, len(body) if length is None else length,
            "".join(header + "\r\n" for header in headers))
        handler.wfile.write(head.encode() + body)
    return answer


def endless(handler):
    """A body without an end."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\n\r\n")
    piece = b"<value>" * 10000
    for _ in range(100000):
        handler.wfile.write(piece)


def endless_head(handler):
    """Headers without an end."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(10000000):
        handler.wfile.write(b"X-%d: %s\r\n" % (number, b"y" * 1000))


def silence(handler):
    """No answer at all for long."""
    handler.server.quiet.wait(300)


RESPONSE = (b"<?xml version='1.0'?><methodResponse><params><param><value><struct>%s</struct>"
            b"</value></param></params></methodResponse>")
FAULT = RESPONSE % (
    b"<member><name>Status</name><value>Failure</value></member><member><name>ErrorDescription"
    b"</name><value><array><data><value>HOST_IS_SLAVE</value><value>%s</value></data></array>"
    b"</value></member>")
SUCCESS = RESPONSE % (b"<member><name>Status</name><value>Success</value></member><member>"
                      b"<name>Value</name><value>%s</value></member>")
BOMB = (b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a 'aaaaaaaaaa'>"
        + b"".join(b"<!ENTITY %c '%s'>" % (98 + i, b"&%c;" % (97 + i) * 10) for i in range(9))
        + b"]><methodResponse><params><param><value>&j;</value></param></params></methodResponse>")


class Hostile(PoolCase):
    """Servers that take part in no conversation, on TLS with a trusted certificate."""

    scene = scene(vm("web", disk(seed=1)))
    init = False

    def serve(self, address, answer, port=0):
        """A server of nonsense with the certificate of a member."""
        server = http.server.ThreadingHTTPServer((address, port), Nonsense)
        server.daemon_threads = True
        server.answer, server.requests, server.quiet = answer, 0, threading.Event()
        member = self.pool.ready["hosts"][0]
        pem = member["certificate"].rsplit(".", 1)[0] + ".pem"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        server.socket = context.wrap_socket(server.socket, server_side=True,
                                            do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        self.addCleanup(server.quiet.set)
        return server

    def ask(self, *servers):
        """Shows a pool whose members are these; returns the result, which came in time."""
        self.site.config["pools"][0]["urls"] = [
            "https://%s:%d" % server.server_address[:2] for server in servers]
        self.site.config["pools"][0]["proxies"] = []
        self.site.write_config()
        begin = time.monotonic()
        result = self.site.run("pool", "show", seconds=DEADLINE)
        self.assertLess(time.monotonic() - begin, LIMIT)
        self.assertNotEqual(result.code, OK, str(result))
        self.assertNotIn(result.code, (None, USAGE), str(result))
        self.assertGreaterEqual(result.code, 0, str(result))
        self.assertNotIn("INTERNAL", result.err)
        return result

    def test_truncated_reply(self):
        result = self.ask(self.serve("127.0.0.1", reply(SUCCESS[:100], length=5000)))
        self.assertRegex(result.err, "NETWORK|PROTOCOL")

    def test_truncated_document(self):
        self.assertIn("PROTOCOL", self.ask(self.serve("127.0.0.1", reply(SUCCESS[:150]))).err)

    def test_wrong_types(self):
        for value in (b"<array><data/></array>", b"<struct/>", b"<i4>7</i4>",
                      b"<boolean>1</boolean>"):
            self.assertIn("PROTOCOL",
                          self.ask(self.serve("127.0.0.1", reply(SUCCESS % value))).err)

    def test_announced_length_of_2_gib(self):
        result = self.ask(self.serve("127.0.0.1", reply(SUCCESS[:50], length=1 << 31)))
        self.assertRegex(result.err, "LIMIT|NETWORK|PROTOCOL")

    def test_endless_body(self):
        self.assertRegex(self.ask(self.serve("127.0.0.1", endless)).err, "LIMIT|PROTOCOL")

    def test_endless_head(self):
        self.assertRegex(self.ask(self.serve("127.0.0.1", endless_head)).err,
                         "LIMIT|PROTOCOL|NETWORK")

    def test_entity_bomb(self):
        self.assertRegex(self.ask(self.serve("127.0.0.1", reply(BOMB))).err, "PROTOCOL|LIMIT")

    def test_deep_nesting(self):
        deep = b"<array><data><value>" * 5000
        self.assertRegex(self.ask(self.serve("127.0.0.1", reply(SUCCESS % deep))).err,
                         "PROTOCOL|LIMIT")

    def test_no_xml(self):
        for body in (b"<html>hello</html>", b"\x00\xff\xfe", b""):
            self.assertIn("PROTOCOL", self.ask(self.serve("127.0.0.1", reply(body))).err)

    def test_http_errors(self):
        result = self.ask(self.serve("127.0.0.1", reply(b"", "500 Internal Server Error")))
        self.assertIn("500", result.err)

    def test_redirect_loop_over_http(self):
        first = self.serve("127.0.0.1", None)
        second = self.serve("127.0.0.2", None)
        for one, other in ((first, second), (second, first)):
            one.answer = reply(b"", "302 Found", None, "Location: https://%s:%d/" % (
                other.server_address[:2]))
        self.ask(first, second)
        self.assertLess(first.requests + second.requests, 100)

    def test_two_members_that_name_each_other_coordinator(self):
        first = self.serve("127.0.0.1", reply(FAULT % b"127.0.0.2"))
        second = self.serve("127.0.0.2", reply(FAULT % b"127.0.0.1"), first.server_address[1])
        result = self.ask(first, second)
        self.assertIn("coordinator", result.err.lower())
        self.assertLess(first.requests + second.requests, 100)

    def test_nobody_listens(self):
        server = self.serve("127.0.0.1", silence)
        server.shutdown()
        server.server_close()
        self.assertIn("NETWORK", self.ask(server).err)


class Cuts(PoolCase):
    """A simulated pool whose answers break off."""

    scene = scene(vm("web", disk(seed=1)))

    def test_one_cut_is_repeated(self):
        self.pool.fault("VM.get_all_records", cut=True)
        self.run_tool("pool", "show")

    def test_all_cut(self):
        self.pool.fault("VM.get_all_records", cut=True, count=0)
        result = self.site.run("pool", "show", seconds=DEADLINE)
        self.assertEqual(result.code, FAILED, str(result))
        self.assertIn("NETWORK", result.err)

    def test_members_that_still_boot(self):
        for host in ("host-a", "host-b"):
            self.pool.sim("host/emergency", host=host, error="HOST_STILL_BOOTING")
        running = self.site.start("pool", "show")
        time.sleep(2)
        self.assertIsNone(running.process.poll())
        for host in ("host-a", "host-b"):
            self.pool.sim("host/emergency", host=host)
        result = running.wait(LIMIT)
        self.assertEqual(result.code, OK, str(result))


if __name__ == "__main__":
    unittest.main()
