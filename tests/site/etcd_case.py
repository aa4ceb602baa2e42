# SPDX-License-Identifier: LGPL-2.1-or-later
"""Sites over a real etcd cluster, on loopback or in a network with nodes that can be cut off.

`EtcdCase` has `self.etcd`, a `cluster.Cluster`, for each test. `NetworkCase` has `self.net`, too: the
pool is reached by all nodes, members run in nodes of their own.
"""

import collections
import copy
import itertools
import os
import re
import tempfile
import shutil
import unittest

import cluster
import network
from members import SiteCase

# A member says so much at most, and the same thing so often, in a test of a minute or two.
LINES_MAX = 600
REPEATS_MAX = 60


class EtcdCase(SiteCase):
    """A cluster of three for each test."""

    etcd_options = ()
    etcd_tls = False
    net = None

    @classmethod
    def setUpClass(cls):
        if cluster.why_not():
            raise unittest.SkipTest(cluster.why_not())
        super().setUpClass()

    def setUp(self):
        folder = tempfile.mkdtemp(prefix="xvsa-etcd-")
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        self.etcd = cluster.Cluster(os.path.join(folder, "etcd"), net=self.net,
                                    options=self.etcd_options, tls=self.etcd_tls)
        self.addCleanup(self.etcd.close)
        self.store = self.etcd.store()
        self.of_before = {}  # by member: how much of its log is of a cluster that was lost
        super().setUp()

    def deploy(self, name="site", init=None, **options):
        options.setdefault("store_options", self.store_options())
        return super().deploy(name, init, **options)

    def store_options(self):
        """What the configuration says about access to the store."""
        if not self.etcd.tls:
            return {}
        return {"ca_file": self.etcd.ca, "certificate_file": self.etcd.client[0],
                "key_file": self.etcd.client[1]}

    def wipe(self):
        """The cluster loses everything."""
        self.of_before = {member.name: len(member.log())
                          for member in self.site.members.values()}
        self.etcd.wipe()

    # ---- facts ----

    def running(self):
        """Members whose processes are there and not stopped."""
        return [member for member in self.site.members.values()
                if member.is_running() and not member.stopped]

    def terms(self):
        """By member: the terms in which it coordinated the pool, since the cluster lost everything. It
        may pause in a term and go on in the same one."""
        found = {}
        for member in self.site.members.values():
            log = member.log()[self.of_before.get(member.name, 0):]
            terms = re.findall(r"coordinates pool \S+ in term (\d+)", log)
            found[member.name] = [int(term) for term, _ in itertools.groupby(terms)]
        return found

    def assert_one_coordinator(self):
        """Each term was one member's and came later than those before; one member has one now."""
        terms = self.eventually(self.agreed, "one coordinator, in the latest term")
        flat = [term for mine in terms.values() for term in mine]
        self.assertEqual(len(flat), len(set(flat)), terms)
        for name, mine in terms.items():
            self.assertEqual(mine, sorted(mine), name)

    def agreed(self):
        """The terms, when members and site say the same of who coordinates the pool in the last one."""
        terms = self.terms()
        pool = next(iter(self.site_document()["pools"]), {"coordinator": None, "term": 0})
        in_office = {"proxy-" + member.name: member.status()["term"] for member in self.running()}
        in_office = {name: term for name, term in in_office.items() if term}
        latest = max((term for mine in terms.values() for term in mine), default=None)
        agreed = in_office == {pool["coordinator"]: pool["term"]} and pool["term"] == latest
        return terms if agreed else None

    def assert_tokens_grow(self):
        """Later attempts of a task have higher tokens, and no two the same."""
        attempts = collections.defaultdict(list)
        for member in self.site.members.values():
            for key, attempt, token in re.findall(
                    r'owns (v/\S+) \(.*\), attempt (\d+), token (\d+)', member.log()):
                attempts[key].append((int(token), int(attempt)))
        self.assertTrue(attempts)
        for key, mine in attempts.items():
            mine.sort()
            self.assertEqual(len(mine), len({token for token, _ in mine}), key)
            numbers = [attempt for _, attempt in mine]
            self.assertEqual(numbers, sorted(numbers), key)

    def assert_calm_logs(self):
        """Nobody floods its log, whatever lasted."""
        for member in self.site.members.values():
            lines = member.log().splitlines()
            often = collections.Counter(re.sub(r"\d+", "#", line) for line in lines)
            line, count = often.most_common(1)[0]
            self.assertLess(count, REPEATS_MAX, "%s says: %s" % (member.name, line))
            self.assertLess(len(lines), LINES_MAX, member.log()[-4000:])

    def assert_done_well(self, document, *names):
        """Everything that must be so after a fault, whichever it was."""
        self.assert_backed_up(document, *names)
        self.assertEqual(len(self.site.points()), len(names))
        self.assert_one_coordinator()
        self.assert_tokens_grow()
        self.assert_calm_logs()


class NetworkCase(EtcdCase):
    """Nodes: one for each server of etcd and, as `node(name)` makes them, for members. A member has its
    repository, a directory, even when its node is cut off."""

    etcd_tls = True

    @classmethod
    def setUpClass(cls):
        for why in (network.why_not(), cluster.why_not()):
            if why:
                raise unittest.SkipTest(why)
        cls.net = network.Network()
        cls.addClassCleanup(cls.net.close)
        cls.scene = copy.deepcopy(cls.scene)
        hosts = cls.scene["hosts"]
        for host, address in zip(hosts, cls.net.add_here(len(hosts))):
            host["address"] = address
        super().setUpClass()

    def setUp(self):
        for node in self.net.nodes.values():
            self.net.join(node)
        super().setUp()

    def node(self, name):
        """A node for a member."""
        return self.net.nodes.get(name) or self.net.add(name)

    def cut(self, member):
        """Cuts the node of a member off."""
        self.net.cut(member.node)
        member.stopped = True  # for those who would ask it about its work

    def join(self, member):
        """Ends a cut."""
        self.net.join(member.node)
        member.stopped = False
