# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who may use the store: users and tokens, certificates; and a minority that is cut off."""

import shutil
import ssl
import tempfile
import time
import unittest

from store_case import Cluster, Drive, PREFIX, StoreCase, b64, wait_for

import cluster as etcd
import network
from certificates import Authority

PASSWORD = 'a "quoted" \\ pass-word'
USER = {"user": "xvsa", "password": PASSWORD}


def enable_users(server):
    """Users root and xvsa; the latter may use the tests' prefix."""
    def call(path, **body):
        answer = server.call("/v3/auth/" + path, body, timeout=30)
        assert answer is not None, path
    end = PREFIX[:-1] + "0"
    call("user/add", name="root", password="root")
    call("role/add", name="root")
    call("user/grant", user="root", role="root")
    call("user/add", name="xvsa", password=PASSWORD)
    call("role/add", name="xvsa")
    call("role/grant", name="xvsa",
         perm={"permType": "READWRITE", "key": b64(PREFIX), "range_end": b64(end)})
    call("user/grant", user="xvsa", role="xvsa")
    call("enable")


class Users(StoreCase):
    """A server that asks for a user and a password."""

    def setUp(self):
        self.cluster = Cluster(self, 1, "--auth-token-ttl", "2")
        enable_users(self.cluster.servers[0])

    def test_tokens_expire(self):
        drive = self.drive(self.cluster.address(), **USER)
        drive.good(do="watch", key="w/")
        for i in range(3):
            drive.good(do="put", key="a", value=str(i))
            time.sleep(3)
            self.assertEqual(drive.good(do="range", key="a")["pairs"], {"a": str(i)})
            drive.good(do="lease", key=f"l/{i}", ttl_ms=5000)
        drive.good(do="put", key="w/a", value="1")
        self.assertTrue(drive.good(do="wait", timeout_ms=30000)["changed"])
        self.assertEqual(drive.good(do="work", name="w", count=50)["unknown"], [])

    def test_expired_token_of_a_watch(self):
        drive = self.drive(self.cluster.address(), **USER)
        time.sleep(3)
        drive.good(do="watch", key="w/")
        self.assertTrue(drive.good(do="wait", timeout_ms=30000)["changed"])

    def test_outside_of_the_prefix(self):
        drive = Drive(self, self.cluster.address(), prefix="/other/", **USER)
        self.assertEqual(drive.opened["rc"], "DENIED", drive.opened)
        self.assertIn("readwrite on the prefix", drive.opened["error"])

    def test_rights_taken_away(self):
        drive = self.drive(self.cluster.address(), **USER)
        server = self.cluster.servers[0]
        token = server.call("/v3/auth/authenticate", {"name": "root", "password": "root"})["token"]
        end = PREFIX[:-1] + "0"
        answer = server.call("/v3/auth/role/revoke", {
            "role": "xvsa", "key": b64(PREFIX), "range_end": b64(end)}, token=token)
        self.assertIsNotNone(answer)
        for command in ({"do": "range", "key": "a"}, {"do": "put", "key": "a", "value": "1"}):
            answer = drive.ask(**command)
            self.assertEqual(answer["rc"], "DENIED", answer)
            self.assertNotIn(PASSWORD, answer["error"])
        drive.good(do="watch", key="w/")
        answer = drive.ask(do="wait", timeout_ms=30000)
        self.assertEqual(answer["rc"], "DENIED", answer)

    def test_wrong_password(self):
        wrong = Drive(self, self.cluster.address(), user="xvsa", password="guessed-wrong")
        self.assertEqual(wrong.opened["rc"], "AUTH", wrong.opened)
        self.assertNotIn("guessed-wrong", wrong.opened["error"])
        nobody = Drive(self, self.cluster.address())
        self.assertEqual(nobody.opened["rc"], "AUTH", nobody.opened)

    def test_server_without_users(self):
        plain = Cluster(self, 1)
        drive = self.drive(plain.address(), **USER)
        drive.good(do="put", key="a", value="1")
        enable_users(plain.servers[0])
        drive.good(do="put", key="a", value="2")


class Certificates(StoreCase):
    """A server that asks for certificates."""

    def test_mutual(self):
        folder = tempfile.mkdtemp(prefix="xvsa-tls-")
        self.addCleanup(shutil.rmtree, folder)
        good, bad = Authority(folder, "good"), Authority(folder, "bad")
        server = good.sign("server", "serverAuth,clientAuth")
        client = good.sign("client", "clientAuth")
        stranger = bad.sign("stranger", "clientAuth")
        context = ssl.create_default_context(cafile=good.ca)
        context.load_cert_chain(*client)
        cluster = Cluster(self, 1, "--cert-file", server[0], "--key-file", server[1],
                          "--trusted-ca-file", good.ca, "--client-cert-auth", tls=context)
        wait_for(lambda: cluster.servers[0].call("/v3/kv/range", {"key": b64("x")}), "etcd")
        ours = {"ca": good.ca, "certificate": client[0], "key": client[1]}
        drive = self.drive(cluster.address(), **ours)
        drive.good(do="watch", key="w/")
        drive.good(do="put", key="w/a", value="1")
        self.assertTrue(drive.good(do="wait", timeout_ms=30000)["changed"])
        self.assertEqual(drive.good(do="work", name="w", count=30)["refused"], [])
        untrusted = Drive(self, cluster.address(), **{**ours, "ca": bad.ca})
        self.assertEqual(untrusted.opened["rc"], "TLS", untrusted.opened)
        lame = good.sign("lame", "serverAuth")
        other = Cluster(self, 1, "--cert-file", lame[0], "--key-file", lame[1],
                        "--trusted-ca-file", good.ca, "--client-cert-auth", tls=context)
        wait_for(other.servers[0].answers, "etcd that is no client of itself")
        blind = Drive(self, other.address(), timeout_ms=5000, **ours)
        self.assertEqual(blind.opened["rc"], "TIMEOUT", blind.opened)
        self.assertIn("clientAuth", blind.opened["error"])
        for certificate in (None, stranger):
            pair = dict(zip(("certificate", "key"), certificate or ()))
            refused = Drive(self, cluster.address(), ca=good.ca, timeout_ms=4000, **pair)
            self.assertIn(refused.opened["rc"], ("TLS", "NETWORK", "TIMEOUT"), refused.opened)
            self.assertIn("certificate", refused.opened["error"].lower())


class Partition(StoreCase):
    """Three servers, each in a network node of its own; one is cut off from the others."""

    @classmethod
    def setUpClass(cls):
        for why in (etcd.why_not(), network.why_not()):
            if why:
                raise unittest.SkipTest(why)

    def setUp(self):
        folder = tempfile.mkdtemp(prefix="xvsa-net-")
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        self.net = network.Network()
        self.addCleanup(self.net.close)
        self.cluster = etcd.Cluster(folder, net=self.net)
        self.addCleanup(self.cluster.close)

    def inside(self, command):
        """A process in a node or in the hub."""
        return self.drive(self.cluster.store(), command=command([]))

    def test_minority_decides_nothing(self):
        node = self.cluster.members[0].node
        lone = self.inside(node.command)  # prefers the server beside it
        others = [self.inside(self.net.hub_command), self.inside(self.net.hub_command)]
        lone.good(do="join", name="lone", pool="pool-1", ttl_ms=4000)
        for i, drive in enumerate(others):
            drive.good(do="join", name=f"m{i}", pool="pool-1", ttl_ms=4000)
        first, term = self.elect([lone, *others])
        self.assertIs(first, lone)
        lone.good(do="watch", key="w/")
        while lone.good(do="wait", timeout_ms=500)["changed"]:
            pass
        self.net.cut(node)
        second, next_term = self.elect(others)
        self.assertTrue(self.decides(second, next_term))
        wait_for(lambda: lone.good(do="state")["state"] == "suspect", "suspicion")
        self.assertEqual(lone.good(do="elect")["term"], 0)
        answer = lone.ask(do="decide", term=term, key="decision", value="late", timeout_ms=6000)
        self.assertIn(answer["rc"], ("UNKNOWN_OUTCOME", "TIMEOUT"), answer)
        second.good(do="put", key="w/a", value="1")
        self.net.join(node)
        # The stream that hung is noticed, and nothing of the old term comes through.
        self.assertTrue(lone.good(do="wait", timeout_ms=60000)["changed"])
        wait_for(lambda: lone.good(do="state")["generation"] >= 2, "the lone one to join again")
        self.assertFalse(lone.good(do="decide", term=term, key="decision", value="late",
                                   timeout_ms=30000)["succeeded"])
        self.assertEqual(second.good(do="range", key="decision")["pairs"], {"decision": "x"})


if __name__ == "__main__":
    unittest.main()
