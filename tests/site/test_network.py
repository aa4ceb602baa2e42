# SPDX-License-Identifier: LGPL-2.1-or-later
"""The network that tests cut: what is joined is reached, what is cut is not."""

import subprocess
import unittest

import network

WHY_NOT = network.why_not()


@unittest.skipIf(WHY_NOT, WHY_NOT)
class NetworkTest(unittest.TestCase):
    def setUp(self):
        self.network = network.Network()
        self.addCleanup(self.network.close)

    def reaches(self, node, address, port):
        script = ("import socket, sys\n"
                  "try: socket.create_connection((sys.argv[1], int(sys.argv[2])), 2)\n"
                  "except ConnectionRefusedError: pass\n")
        done = subprocess.run(node.command(["python3", "-c", script, address, str(port)]),
                              capture_output=True, check=False)
        return done.returncode == 0

    def test_cut_and_join(self):
        one, two = self.network.add("one"), self.network.add("two")
        extra = self.network.add_hub_address(101)
        self.assertTrue(self.reaches(one, two.address, 9))
        self.assertTrue(self.reaches(one, extra, 9))
        self.network.cut(two)
        self.assertFalse(self.reaches(one, two.address, 9))
        self.assertFalse(self.reaches(two, extra, 9))
        self.assertTrue(self.reaches(one, extra, 9))
        self.network.join(two)
        self.assertTrue(self.reaches(two, one.address, 9))


if __name__ == "__main__":
    unittest.main()
