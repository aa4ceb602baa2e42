# SPDX-License-Identifier: LGPL-2.1-or-later
"""A network of network namespaces, whose nodes can be cut off.

A bridge in a namespace of its own, the hub, joins the nodes. What shall be reached by all (a pool, a
cluster) listens on addresses of the hub or runs in nodes of its own. Needs root.
"""

import itertools
import os
import shutil
import subprocess

SUBNET = "10.77.%d.%d"
PREFIX = "xvsa%d"


def _ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def why_not():
    """Why there can be no such network here, or None."""
    if shutil.which("ip") is None:
        return "iproute2 is not installed"
    if os.geteuid() != 0:
        return "network namespaces need root"
    name = "xvsa-try-%d" % os.getpid()
    try:
        _ip("netns", "add", name)
        _ip("-n", name, "link", "add", "try0", "type", "bridge")
    except subprocess.CalledProcessError as error:
        return "no network namespaces: " + error.stderr.strip()
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return None


class Node:
    """A namespace with one address; ``address`` is reachable unless the node is cut off."""

    def __init__(self, network, name, index):
        self.network, self.name = network, name
        self.namespace = "%s-%s" % (network.prefix, name)
        self.address = network.address(index)
        self.port = "v%d" % index

    def command(self, argv):
        """The command that runs argv in the node."""
        return ["ip", "netns", "exec", self.namespace, *argv]


class Network:
    """Made with the hub alone. ``close`` removes everything; processes in it must have ended."""

    def __init__(self):
        self.third = self._claim()
        self.prefix = PREFIX % self.third
        self.hub = self.prefix + "-hub"
        self.nodes = {}
        self._next = itertools.count(1)
        _ip("-n", self.hub, "link", "set", "lo", "up")
        _ip("-n", self.hub, "link", "add", "br0", "type", "bridge")
        self.hub_address = self.add_hub_address(254)
        _ip("-n", self.hub, "link", "set", "br0", "up")

    @staticmethod
    def _claim():
        """Makes the namespace of a hub that nobody else has; its number, of which names and addresses are
        made: networks of other processes may be there at the same time."""
        problem = None
        for index in range(200):
            third = (os.getpid() + index) % 200 + 1
            try:
                _ip("netns", "add", PREFIX % third + "-hub")
                return third
            except subprocess.CalledProcessError as error:
                problem = error
        raise AssertionError("no namespace can be made: " + problem.stderr)

    def address(self, index):
        return SUBNET % (self.third, index)

    def add_hub_address(self, index):
        """Gives the hub one more address (index 100 to 254) and returns it."""
        _ip("-n", self.hub, "addr", "add", self.address(index) + "/24", "dev", "br0")
        return self.address(index)

    def add_here(self, count=1):
        """Joins the namespace of the caller to the network; returns addresses of it, which what is
        started here may listen on."""
        port = "xh%d" % self.third
        _ip("-n", self.hub, "link", "add", "here", "type", "veth", "peer", "name", port,
            "netns", str(os.getpid()))
        _ip("-n", self.hub, "link", "set", "here", "master", "br0", "up")
        addresses = [self.address(200 + index) for index in range(count)]
        for address in addresses:
            _ip("addr", "add", address + "/24", "dev", port)
        _ip("link", "set", port, "up")
        return addresses

    def hub_command(self, argv):
        """The command that runs argv in the hub."""
        return ["ip", "netns", "exec", self.hub, *argv]

    def add(self, name):
        """Makes a node and returns it."""
        node = Node(self, name, next(self._next))
        _ip("netns", "add", node.namespace)
        self.nodes[name] = node
        _ip("-n", node.namespace, "link", "set", "lo", "up")
        _ip("-n", self.hub, "link", "add", node.port, "type", "veth", "peer", "name", "eth0",
            "netns", node.namespace)
        _ip("-n", self.hub, "link", "set", node.port, "master", "br0", "up")
        _ip("-n", node.namespace, "addr", "add", node.address + "/24", "dev", "eth0")
        _ip("-n", node.namespace, "link", "set", "eth0", "up")
        return node

    def cut(self, node):
        """Nothing passes to or from the node any more; nobody is told."""
        _ip("-n", self.hub, "link", "set", node.port, "nomaster")

    def join(self, node):
        """Ends a cut."""
        _ip("-n", self.hub, "link", "set", node.port, "master", "br0")

    def close(self):
        # A namespace goes some time after its deletion, and its links with it: not before the next network.
        subprocess.run(["ip", "-n", self.hub, "link", "del", "here"], capture_output=True,
                       check=False)
        for namespace in [node.namespace for node in self.nodes.values()] + [self.hub]:
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False)
