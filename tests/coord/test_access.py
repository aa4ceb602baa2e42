# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who may use the store: users and tokens, certificates; and a minority that is cut off."""

import os
import subprocess
import tempfile
import shutil
import time
import unittest

from store_case import Cluster, Drive, PREFIX, StoreCase, b64, free_ports, tls_context, wait_for

PASSWORD = 'a "quoted" \\ pass-word'
USER = {"user": "xvsa", "password": PASSWORD}


def enable_users(server):
    """Users root and xvsa; the latter may use the tests' prefix."""
    def call(path, **body):
        answer = server.call("/v3/auth/" + path, body)
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

    def openssl(self, *arguments):
        """Runs openssl in the folder of the certificates."""
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def authority(self, name):
        """A CA; returns its certificate."""
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                     "-nodes", "-keyout", name + ".key", "-out", name + ".pem", "-days", "2",
                     "-subj", "/CN=" + name)
        return os.path.join(self.folder, name + ".pem")

    def certificate(self, name, authority, usage):
        """A certificate for this machine; returns it and its key."""
        with open(os.path.join(self.folder, name + ".ext"), "w", encoding="ascii") as file:
            file.write(f"subjectAltName=IP:127.0.0.1\nextendedKeyUsage={usage}\n")
        self.openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                     "-keyout", name + ".key", "-out", name + ".csr", "-subj", "/CN=" + name)
        self.openssl("x509", "-req", "-in", name + ".csr", "-CA", authority + ".pem", "-CAkey",
                     authority + ".key", "-CAcreateserial", "-out", name + ".pem", "-days", "2",
                     "-extfile", name + ".ext")
        return [os.path.join(self.folder, name + end) for end in (".pem", ".key")]

    def test_mutual(self):
        self.folder = tempfile.mkdtemp(prefix="xvsa-tls-")
        self.addCleanup(shutil.rmtree, self.folder)
        good, bad = self.authority("good"), self.authority("bad")
        server = self.certificate("server", "good", "serverAuth,clientAuth")
        client = self.certificate("client", "good", "clientAuth")
        stranger = self.certificate("stranger", "bad", "clientAuth")
        cluster = Cluster(self, 1, "--cert-file", server[0], "--key-file", server[1],
                          "--trusted-ca-file", good, "--client-cert-auth",
                          tls=tls_context(*client, good))
        wait_for(lambda: cluster.servers[0].call("/v3/kv/range", {"key": b64("x")}), "etcd")
        ours = {"ca": good, "certificate": client[0], "key": client[1]}
        drive = self.drive(cluster.address(), **ours)
        drive.good(do="watch", key="w/")
        drive.good(do="put", key="w/a", value="1")
        self.assertTrue(drive.good(do="wait", timeout_ms=30000)["changed"])
        self.assertEqual(drive.good(do="work", name="w", count=30)["refused"], [])
        untrusted = Drive(self, cluster.address(), **{**ours, "ca": bad})
        self.assertEqual(untrusted.opened["rc"], "TLS", untrusted.opened)
        lame = self.certificate("lame", "good", "serverAuth")
        other = Cluster(self, 1, "--cert-file", lame[0], "--key-file", lame[1],
                        "--trusted-ca-file", good, "--client-cert-auth",
                        tls=tls_context(*client, good))
        blind = Drive(self, other.address(), timeout_ms=5000, **ours)
        self.assertEqual(blind.opened["rc"], "TIMEOUT", blind.opened)
        self.assertIn("clientAuth", blind.opened["error"])
        for certificate in (None, stranger):
            pair = dict(zip(("certificate", "key"), certificate or ()))
            refused = Drive(self, cluster.address(), ca=good, timeout_ms=4000, **pair)
            self.assertIn(refused.opened["rc"], ("TLS", "NETWORK", "TIMEOUT"), refused.opened)
            self.assertIn("certificate", refused.opened["error"].lower())


def may_make_namespaces():
    """Whether this process may make network namespaces; leaves none."""
    if not shutil.which("ip"):
        return False
    name = f"xvsa-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL).returncode == 0
    if made:
        subprocess.run(["ip", "netns", "del", name], check=False)
    return made


@unittest.skipUnless(shutil.which("etcd"), "no etcd program is installed")
@unittest.skipUnless(may_make_namespaces(), "network namespaces cannot be made here")
class Partition(StoreCase):
    """Three servers, each in a network of its own; one is cut off from the others."""

    def ip(self, *arguments):
        """Runs ip."""
        subprocess.run(["ip", *arguments], check=True)

    def setUp(self):
        self.base = f"xv{os.getpid() % 100000}"
        self.net = f"10.{77 + os.getpid() % 100}.0"
        self.spaces = [f"{self.base}n{i}" for i in range(4)]
        for space in self.spaces:
            self.ip("netns", "add", space)
            self.addCleanup(subprocess.run, ["ip", "netns", "del", space], check=False)
            self.ip("-n", space, "link", "set", "lo", "up")
        hub = self.spaces[0]
        self.ip("-n", hub, "link", "add", "br0", "type", "bridge")
        self.ip("-n", hub, "addr", "add", f"{self.net}.254/24", "dev", "br0")
        self.ip("-n", hub, "link", "set", "br0", "up")
        for i in (1, 2, 3):
            self.ip("-n", hub, "link", "add", f"v{i}", "type", "veth", "peer", "name", "e0",
                    "netns", self.spaces[i])
            self.ip("-n", hub, "link", "set", f"v{i}", "master", "br0")
            self.ip("-n", hub, "link", "set", f"v{i}", "up")
            self.ip("-n", self.spaces[i], "addr", "add", f"{self.net}.{i}/24", "dev", "e0")
            self.ip("-n", self.spaces[i], "link", "set", "e0", "up")
        self.start_servers()

    def start_servers(self):
        """One etcd in each of the three."""
        folder = tempfile.mkdtemp(prefix="xvsa-net-")
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        client, peer = free_ports(2)
        self.urls = [f"http://{self.net}.{i}:{client}" for i in (1, 2, 3)]
        peers = [f"http://{self.net}.{i}:{peer}" for i in (1, 2, 3)]
        cluster = ",".join(f"n{i}={url}" for i, url in enumerate(peers))
        for i in range(3):
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.spaces[i + 1], "etcd", "--name", f"n{i}",
                 "--data-dir", f"{folder}/n{i}", "--listen-client-urls", self.urls[i],
                 "--advertise-client-urls", self.urls[i], "--listen-peer-urls", peers[i],
                 "--initial-advertise-peer-urls", peers[i], "--initial-cluster", cluster,
                 "--logger", "zap", "--log-outputs", f"{folder}/n{i}.log"],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self.addCleanup(process.wait)
            self.addCleanup(process.kill)

    def inside(self, space, urls=None):
        """A member in a namespace."""
        return self.drive("etcd:" + ",".join(urls or self.urls),
                          command=["ip", "netns", "exec", self.spaces[space]])

    def test_minority_decides_nothing(self):
        lone = self.inside(1)  # prefers the server beside it
        others = [self.inside(0), self.inside(0)]
        lone.good(do="join", name="lone", pool="pool-1", ttl_ms=4000)
        for i, drive in enumerate(others):
            drive.good(do="join", name=f"m{i}", pool="pool-1", ttl_ms=4000)
        first, term = self.elect([lone, *others])
        self.assertIs(first, lone)
        lone.good(do="watch", key="w/")
        while lone.good(do="wait", timeout_ms=500)["changed"]:
            pass
        self.ip("-n", self.spaces[0], "link", "set", "v1", "down")
        second, next_term = self.elect(others)
        self.assertTrue(self.decides(second, next_term))
        wait_for(lambda: lone.good(do="state")["state"] == "suspect", "suspicion")
        self.assertEqual(lone.good(do="elect")["term"], 0)
        answer = lone.ask(do="decide", term=term, key="decision", value="late", timeout_ms=6000)
        self.assertIn(answer["rc"], ("UNKNOWN_OUTCOME", "TIMEOUT"), answer)
        second.good(do="put", key="w/a", value="1")
        self.ip("-n", self.spaces[0], "link", "set", "v1", "up")
        # The stream that hung is noticed, and nothing of the old term comes through.
        self.assertTrue(lone.good(do="wait", timeout_ms=60000)["changed"])
        wait_for(lambda: lone.good(do="state")["generation"] == 2, "the lone one to join again")
        self.assertFalse(lone.good(do="decide", term=term, key="decision", value="late",
                                   timeout_ms=30000)["succeeded"])
        self.assertEqual(second.good(do="range", key="decision")["pairs"], {"decision": "x"})


if __name__ == "__main__":
    unittest.main()
