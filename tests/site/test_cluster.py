# SPDX-License-Identifier: LGPL-2.1-or-later
"""The etcd cluster of the tests does what they rely on."""

import base64
import shutil
import tempfile
import unittest

import cluster
import network


def put(member, key, value):
    member.call("/v3/kv/put", {"key": base64.b64encode(key).decode(),
                               "value": base64.b64encode(value).decode()})


@unittest.skipIf(cluster.why_not(), cluster.why_not())
class ClusterTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="cluster-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def make(self, **options):
        made = cluster.Cluster(self.folder, **options)
        self.addCleanup(made.close)
        return made

    def test_survives_its_leader_and_is_wiped(self):
        etcd = self.make()
        put(etcd.leader(), b"/a", b"1")
        leader = etcd.leader()
        leader.kill()
        self.assertIsNot(etcd.leader(), leader)
        self.assertEqual(etcd.count_keys("/a"), 1)
        leader.start()
        etcd.wait()
        etcd.compact()
        etcd.wipe()
        self.assertEqual(etcd.count_keys("/a"), 0)

    @unittest.skipIf(network.why_not(), network.why_not())
    def test_goes_on_without_a_member_that_is_cut_off(self):
        net = network.Network()
        self.addCleanup(net.close)
        etcd = self.make(net=net)
        leader = etcd.leader()
        net.cut(leader.node)
        other = etcd.leader()
        self.assertIsNot(other, leader)
        put(other, b"/a", b"1")
        net.join(leader.node)
        etcd.wait()
        self.assertEqual(etcd.count_keys("/a"), 1)


if __name__ == "__main__":
    unittest.main()
