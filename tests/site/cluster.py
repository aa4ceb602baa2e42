# SPDX-License-Identifier: LGPL-2.1-or-later
"""A real etcd cluster: members that can be killed, frozen, cut off, or lose everything.

On loopback, each member has two free ports; on a ``network.Network`` each runs in a node of its own
and can be cut off from the others. With ``tls`` clients need certificates.
"""

import base64
import json
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request

from certificates import Authority

START_TIMEOUT = 60.0
CLIENT_PORT, PEER_PORT = 2379, 2380  # in a node of its own


def why_not():
    """Why there can be no cluster here, or None."""
    return None if shutil.which("etcd") else "etcd is not installed"


def free_ports(count):
    """Ports that are free on loopback now, all different. Not of those that the system gives to
    connections: such a connection would have the port when a server that was away comes back."""
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
        end = int(file.read().split()[0])
    first = min(20000, end // 2)
    sockets = []
    try:
        while len(sockets) < count:
            sockets.append(socket.socket())
            try:
                sockets[-1].bind(("127.0.0.1", random.randrange(first, end)))
            except OSError:
                sockets.pop().close()
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


class Member:
    """One etcd process and its folder."""

    def __init__(self, cluster, name, address, ports, node=None):
        self.cluster, self.name, self.address, self.node = cluster, name, address, node
        self.client_port, self.peer_port = ports
        self.folder = os.path.join(cluster.folder, name)
        self.process = None

    @property
    def url(self):
        return "%s://%s:%d" % ("https" if self.cluster.tls else "http", self.address,
                               self.client_port)

    @property
    def peer_url(self):
        return "http://%s:%d" % (self.address, self.peer_port)

    def start(self):
        """Starts the process; it joins as it was, or begins with nothing in an empty folder."""
        argv = ["etcd", "--name", self.name, "--data-dir", self.folder,
                "--listen-client-urls", self.url, "--advertise-client-urls", self.url,
                "--listen-peer-urls", self.peer_url,
                "--initial-advertise-peer-urls", self.peer_url,
                "--initial-cluster", self.cluster.members_text(),
                "--initial-cluster-token", self.cluster.token, "--logger", "zap",
                "--log-outputs", self.folder + ".log", *self.cluster.tls_options(),
                *self.cluster.options]
        if self.node is not None:
            argv = self.node.command(argv)
        self.process = subprocess.Popen(argv, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)

    def kill(self):
        """Ends the process at once, as a lost machine."""
        self.thaw()
        self.process.kill()
        self.process.wait()

    def freeze(self):
        """Stops the process for a while; it knows nothing of it."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        """Ends freezing."""
        self.process.send_signal(signal.SIGCONT)

    def call(self, path, body, timeout=10.0, token=None):
        """POSTs JSON from where the member is reached and returns the answer."""
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = token
        if self.node is not None:
            argv = ["curl", "-s", "-m", str(timeout), "-d", json.dumps(body), self.url + path]
            if self.cluster.tls:
                argv += ["--cacert", self.cluster.ca, "--cert", self.cluster.client[0], "--key",
                         self.cluster.client[1]]
            done = subprocess.run(self.node.network.hub_command(argv), capture_output=True,
                                  check=False)
            if done.returncode != 0:
                raise OSError("%s%s: curl ended with %d" % (self.url, path, done.returncode))
            return json.loads(done.stdout)
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)
        context = self.cluster.client_context()
        with urllib.request.urlopen(request, timeout=timeout, context=context) as answer:
            return json.load(answer)


class Cluster:
    """Members in ``folder``. ``options`` are further arguments of etcd. ``close`` ends all.

    With ``tls``, ``ca`` is the authority's file and ``client`` the files of a certificate and key.
    """

    def __init__(self, folder, count=3, net=None, options=(), tls=False):
        self.folder, self.options, self.members, self.tls = folder, list(options), [], tls
        self.token = "xvsa-%d-%s" % (os.getpid(), os.path.basename(folder))
        os.makedirs(folder, exist_ok=True)
        ports = free_ports(2 * count) if net is None else []
        for index in range(count):
            name = "e%d" % (index + 1)
            if net is None:
                member = Member(self, name, "127.0.0.1", ports[2 * index:2 * index + 2])
            else:
                node = net.nodes.get(name) or net.add(name)
                member = Member(self, name, node.address, (CLIENT_PORT, PEER_PORT), node)
            self.members.append(member)
        if tls:
            authority = Authority(os.path.join(folder, "tls"))
            self.ca = authority.ca
            self.server = authority.sign("server", "serverAuth,clientAuth",
                                         [member.address for member in self.members])
            self.client = authority.sign("client", "clientAuth")
        try:
            for member in self.members:
                member.start()
            self.wait()
        except BaseException:
            self.close()
            raise

    def tls_options(self):
        """Arguments of etcd."""
        return ["--client-cert-auth", "--trusted-ca-file", self.ca, "--cert-file", self.server[0],
                "--key-file", self.server[1]] if self.tls else []

    def client_context(self):
        """How tests themselves talk to it."""
        if not self.tls:
            return None
        context = ssl.create_default_context(cafile=self.ca)
        context.load_cert_chain(*self.client)
        return context

    def members_text(self):
        return ",".join("%s=%s" % (m.name, m.peer_url) for m in self.members)

    def store(self, members=None):
        """The URL of the store for those who use the cluster."""
        return "etcd:" + ",".join(m.url for m in members or self.members)

    def wait(self, members=None):
        """Waits until each of the members knows a leader."""
        deadline = time.monotonic() + START_TIMEOUT
        for member in members or self.members:
            while True:
                try:
                    if int(member.call("/v3/maintenance/status", {}, 2.0).get("leader", 0)):
                        break
                except (OSError, ValueError, urllib.error.URLError):
                    pass
                if time.monotonic() > deadline:
                    raise AssertionError("etcd member %s does not come up" % member.name)
                time.sleep(0.05)

    def leader(self):
        """The member that leads now."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            for member in self.members:
                try:
                    status = member.call("/v3/maintenance/status", {}, 2.0)
                except (OSError, ValueError, urllib.error.URLError):
                    continue
                if status.get("leader") == status["header"]["member_id"]:
                    return member
            time.sleep(0.1)
        raise AssertionError("the cluster has no leader")

    def enable_users(self, user, password, prefix):
        """Users root, and one who may read and write the keys that begin with a prefix."""
        def call(action, **body):
            self.leader().call("/v3/auth/" + action, body)
        ends = [base64.b64encode(text.encode()).decode()
                for text in (prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1))]
        for name, secret in (("root", "root"), (user, password)):
            call("user/add", name=name, password=secret)
            call("role/add", name=name)
            call("user/grant", user=name, role=name)
        call("role/grant", name=user,
             perm={"permType": "READWRITE", "key": ends[0], "range_end": ends[1]})
        call("enable")

    def put(self, key, value):
        """Writes a key; False when the cluster has no room for it."""
        body = {"key": base64.b64encode(key.encode()).decode(),
                "value": base64.b64encode(value).decode()}
        try:
            self.leader().call("/v3/kv/put", body)
        except urllib.error.HTTPError as error:
            if b"space exceeded" in error.read():
                return False
            raise
        return True

    def delete(self, key):
        """Removes a key."""
        self.leader().call("/v3/kv/deleterange", {"key": base64.b64encode(key.encode()).decode()})

    def make_room(self):
        """What an administrator does when the quota is full, once keys are gone."""
        self.compact()
        for member in self.members:
            member.call("/v3/maintenance/defragment", {}, 30.0)
        for alarm in self.leader().call("/v3/maintenance/alarm", {}).get("alarms", []):
            self.leader().call("/v3/maintenance/alarm", {**alarm, "action": "DEACTIVATE"})

    def count_keys(self, prefix=""):
        """How many keys begin with a prefix."""
        first = prefix.encode() or b"\0"
        last = first[:-1] + bytes([first[-1] + 1]) if prefix else b"\0"
        body = {"key": base64.b64encode(first).decode(), "count_only": True,
                "range_end": base64.b64encode(last).decode()}
        return int(self.leader().call("/v3/kv/range", body).get("count", 0))

    def count_reads(self):
        """How often its members were asked for keys."""
        count = 0
        for member in self.members:
            with urllib.request.urlopen(member.url + "/metrics", timeout=10,
                                        context=self.client_context()) as answer:
                count += sum(float(line.split()[-1]) for line in answer.read().decode().splitlines()
                             if line.startswith("grpc_server_handled_total{")
                             and 'grpc_method="Range"' in line)
        return count

    def wipe(self):
        """Kills all members and starts them anew with nothing."""
        for member in self.members:
            member.kill()
            shutil.rmtree(member.folder, ignore_errors=True)
        for member in self.members:
            member.start()
        self.wait()

    def compact(self):
        """Throws away all history up to now."""
        leader = self.leader()
        revision = leader.call("/v3/maintenance/status", {})["header"]["revision"]
        try:
            leader.call("/v3/kv/compaction", {"revision": revision, "physical": True})
        except urllib.error.HTTPError as error:
            if b"has been compacted" not in error.read():
                raise

    def close(self):
        for member in self.members:
            if member.process is not None and member.process.poll() is None:
                member.kill()
