# SPDX-License-Identifier: LGPL-2.1-or-later
"""Real etcd servers on loopback, processes that use them, and connections that can be disturbed."""

import base64
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.request

for folder in ("integration", "site"):
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", folder))

from cluster import free_ports  # noqa: E402

SOON = 60  # seconds; what is waited for comes much earlier
PREFIX = "/xvsa/1/test/"


def wait_for(condition, what, seconds=SOON):
    """Waits until condition() is true and returns what it gave."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        result = condition()
        if result:
            return result
        time.sleep(0.05)
    raise AssertionError("waited in vain for " + what)


def b64(text):
    """As etcd's gateway wants it."""
    return base64.b64encode(text.encode()).decode()


class Server:
    """One etcd process."""

    def __init__(self, cluster, index, client, peer):
        self.cluster = cluster
        self.name = f"n{index}"
        self.url = f"{cluster.scheme}://127.0.0.1:{client}"
        self.port = client
        self.peer = f"http://127.0.0.1:{peer}"
        self.folder = os.path.join(cluster.folder, self.name)
        self.process = None

    def start(self, initial):
        """Starts it; all of a new cluster know each other from the beginning."""
        command = ["etcd", "--name", self.name, "--data-dir", self.folder,
                   "--listen-client-urls", self.url, "--advertise-client-urls", self.url,
                   "--listen-peer-urls", self.peer, "--initial-advertise-peer-urls", self.peer,
                   "--initial-cluster", initial, "--logger", "zap", "--log-outputs",
                   self.folder + ".log", *self.cluster.options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)

    def kill(self):
        """As a power failure does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def signal(self, number):
        """Sends a signal."""
        self.process.send_signal(number)

    def call(self, path, body, timeout=10, token=None):
        """One request of the gateway; the answer or None."""
        headers = {"Authorization": token} if token else {}
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=timeout,
                                        context=self.cluster.context) as answer:
                return json.load(answer)
        except (OSError, ValueError):
            return None

    def answers(self):
        """Whether it answers a request at all, be it with an error."""
        try:
            urllib.request.urlopen(self.url + "/v3/kv/range", b"{}", timeout=10,
                                   context=self.cluster.context).close()
        except urllib.error.HTTPError as error:
            error.close()
        except (OSError, ValueError):
            return False
        return True


class Cluster:
    """Some etcd servers that form one store."""

    def __init__(self, case, size, *options, tls=None):
        if not shutil.which("etcd"):
            case.skipTest("no etcd program is installed")
        self.folder = tempfile.mkdtemp(prefix="xvsa-etcd-")
        case.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        case.addCleanup(self.kill)
        self.options = list(options)
        self.scheme = "https" if tls else "http"
        self.context = tls
        ports = free_ports(2 * size)
        self.servers = [Server(self, i, ports[2 * i], ports[2 * i + 1]) for i in range(size)]
        self.start()

    def start(self):
        """Starts all and waits until they serve."""
        initial = ",".join(f"{each.name}={each.peer}" for each in self.servers)
        for each in self.servers:
            each.start(initial)
        wait_for(self.serves, "etcd to serve")

    def serves(self):
        """Whether a linearizable reading succeeds at each server."""
        return all(each.call("/v3/kv/range", {"key": b64("x")}) is not None
                   or self.scheme == "https" for each in self.servers)

    def kill(self):
        """Kills all."""
        for each in self.servers:
            each.kill()

    def wipe(self):
        """All of it is lost; a new one begins under the same addresses."""
        self.kill()
        for each in self.servers:
            shutil.rmtree(each.folder)
        self.start()

    def address(self, servers=None):
        """For the library."""
        return "etcd:" + ",".join(each.url for each in servers or self.servers)

    def leader(self):
        """The server that leads; waits for one."""
        def find():
            for each in self.servers:
                status = each.call("/v3/maintenance/status", {}) if each.process else None
                if status and status.get("leader") == status["header"]["member_id"]:
                    return each
            return None
        return wait_for(find, "a leader")

    def keys(self, prefix):
        """What is below a prefix, as etcd tells it: by key."""
        start = PREFIX + prefix
        end = start[:-1] + chr(ord(start[-1]) + 1)
        body = {"key": b64(start), "range_end": b64(end)}
        answer = wait_for(lambda: next(filter(None, (
            each.call("/v3/kv/range", body) for each in self.servers if each.process)), None),
            "an answer of etcd")
        return {base64.b64decode(pair["key"]).decode()[len(PREFIX):]: pair
                for pair in answer.get("kvs", [])}


class Relay:
    """Stands before a server. Loses answers, and lets requests arrive late, by chance."""

    def __init__(self, case, port, lose=0.0, delay=0.0, seconds=0.0):
        self.target = port
        self.lose, self.delay, self.seconds = lose, delay, seconds
        self.chance = random.Random(port)
        self.lost = self.delayed = 0
        self.hold = 0  # so many of the next requests are late for certain
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        case.addCleanup(self.listener.close)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        """Takes connections until the listener is closed."""
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.relay, args=(client,), daemon=True).start()

    def relay(self, client):
        """One connection: a request, its answer, the next request..."""
        try:
            with client, socket.create_connection(("127.0.0.1", self.target)) as server:
                while True:
                    request = client.recv(1 << 20)
                    if not request:
                        return
                    if self.hold > 0 or self.chance.random() < self.delay:
                        self.hold = max(0, self.hold - 1)
                        self.delayed += 1
                        client.close()
                        time.sleep(self.seconds)
                        server.sendall(request)
                        server.recv(1 << 20)
                        return
                    server.sendall(request)
                    answer = server.recv(1 << 20)
                    if self.chance.random() < self.lose:
                        self.lost += 1
                        return
                    client.sendall(answer)
        except OSError:
            pass


class Drive:
    """A process that uses the store."""

    def __init__(self, case, url, prefix=PREFIX, command=(), **options):
        program = os.path.join(os.environ["XVSA_BUILD"], "tests", "coord", "coord-drive")
        self.case = case
        self.process = subprocess.Popen([*command, program], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        case.addCleanup(self.kill)
        self.opened = self.ask(do="open", url=url, prefix=prefix, **options)

    def send(self, **command):
        """Sends a command whose answer is read later."""
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def read(self):
        """Reads an answer."""
        line = self.process.stdout.readline()
        self.case.assertTrue(line, "the process ended")
        return json.loads(line)

    def ask(self, **command):
        """A command and its answer."""
        self.send(**command)
        return self.read()

    def good(self, **command):
        """A command that has to succeed."""
        answer = self.ask(**command)
        self.case.assertEqual(answer["rc"], "OK", (command, answer))
        return answer

    def kill(self):
        """Ends it with SIGKILL."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def close(self):
        """Lets it end by itself."""
        self.process.stdin.close()
        self.case.assertEqual(self.process.wait(SOON), 0)
        self.process.stdout.close()
        self.process.stdin = open(os.devnull, "w", encoding="ascii")


class StoreCase(unittest.TestCase):
    """Tests against real etcd servers."""

    def drive(self, url, **options):
        """A process with the store open."""
        drive = Drive(self, url, **options)
        self.assertEqual(drive.opened["rc"], "OK", drive.opened)
        return drive

    def assert_once(self, cluster, name, work):
        """Every transaction of a work was done once and whole, and its outcome told as it was."""
        self.assertEqual(work["rc"], "OK", work)
        kept = {kind: cluster.keys(f"{kind}/{name}/") for kind in "abc"}
        unknown = set(work["unknown"])
        self.assertEqual(work["refused"], [], "done, but told as not done")
        for kind, pairs in kept.items():
            for key, pair in pairs.items():
                self.assertEqual(pair["version"], "1", f"{key} was put more than once")
            self.assertLessEqual(len(pairs), work["done"])
            self.assertGreaterEqual(len(pairs), work["done"] - len(unknown), kind)
        numbers = [{key[2:] for key in kept[kind]} for kind in "ab"]
        self.assertEqual(numbers[0], numbers[1], "half of a transaction")
        for key, pair in kept["a"].items():
            twin = kept["b"]["b" + key[1:]]
            self.assertEqual(pair["mod_revision"], twin["mod_revision"], "not at once")
        return unknown

    def members(self, url, count, ttl_ms=5000, **options):
        """Processes that joined one pool, in order."""
        drives = []
        for i in range(count):
            drive = self.drive(url, **options)
            drive.good(do="join", name=f"m{i}", pool="pool-1", ttl_ms=ttl_ms)
            drives.append(drive)
            time.sleep(0.01)
        return drives

    def elect(self, drives, what="a coordinator"):
        """Lets all try until one has the place; returns it and its term. Never two at a time."""
        def attempt():
            # A term that is not the present one any more was over before another one began.
            terms = [(drive, drive.ask(do="elect", timeout_ms=5000).get("term", 0))
                     for drive in drives]
            held = [pair for pair in terms if pair[1] > 0]
            return held[-1] if held else None
        return wait_for(attempt, what)

    def decides(self, drive, term, value="x"):
        """Whether a decision of a term is accepted."""
        return drive.good(do="decide", term=term, key="decision", value=value)["succeeded"]

    def assert_one_decides(self, terms):
        """Of several (process, term), exactly the last one may still decide."""
        accepted = [self.decides(drive, term) for drive, term in terms]
        self.assertEqual(accepted, [False] * (len(terms) - 1) + [True])
