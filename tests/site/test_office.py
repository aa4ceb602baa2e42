# SPDX-License-Identifier: LGPL-2.1-or-later
"""Coordinators that reach the coordination store, but their pool no more."""

import os
import re
import subprocess
import time
import unittest

from detour import Detour
from members import SiteCase, tool
from scenes import MIB, disk, scene, vm


class Office(SiteCase):
    """Two members, each with a way of its own to the pool; the first one coordinates."""

    ttl_ms = 4000  # nobody is to lose its lease here
    scene = scene(vm("web", disk(8 * MIB, seed=1, data=4 * MIB)))

    def setUp(self):
        super().setUp()
        self.ways = {name: Detour(self, self.pool.urls[0]) for name in ("a", "b")}
        self.a, self.b = (self.start_members(name, urls=[way.url])[0]
                          for name, way in self.ways.items())
        self.assertIs(self.coordinator(), self.a)

    def terms(self, member):
        """How often it took office."""
        return len(re.findall(r"coordinates pool \S+ in term", member.log()))

    def await_office(self, member):
        """Waits until a member coordinates the pool, and knows it."""
        self.eventually(lambda: self.coordinator() is member and member.status()["term"],
                        "%s to coordinate" % member.name)

    def await_contact(self, member, reaches=True):
        """Waits until the site knows whether a member reaches its pool."""
        def look():
            entry = next(entry for entry in self.site_document()["members"]
                         if entry["name"] == "proxy-" + member.name)
            return entry["reaches_pool"] is reaches
        self.eventually(look, "what the site knows of %s" % member.name)

    def shown(self):
        """What `xvsa site show` prints for people."""
        config = os.path.join(self.site.folder, "config.json")
        return subprocess.run([tool(), "site", "show", "--config", config], text=True, check=True,
                              capture_output=True).stdout

    def test_other_member_takes_office(self):
        self.ways["a"].cut()
        job = self.submit("web")
        self.await_office(self.b)
        self.eventually(lambda: not self.a.status()["term"], "a to know that it is not in office")
        self.assertFalse(self.a.status()["reaches_pool"])
        self.eventually(lambda: self.a.status()["state"] == "joined", "a to be in the site")
        self.assertEqual(self.a.get("/ready")[0], 503)
        self.assertRegex(self.a.get("/metrics")[1], r"xvsa_pool_up\{.*\} 0\n")
        self.eventually(lambda: "resigns as its coordinator; proxy-b reaches it" in self.a.log(),
                        "a to say why")
        self.await_contact(self.a, False)
        self.assertRegex(self.shown(), r"(?m)^proxy-a .* no pool ")
        document = self.ended(job, seconds=60)
        self.assertEqual(self.entry(document, "web")["owner"], "proxy-b")
        self.assert_backed_up(document, "web")
        self.ways["a"].join()
        self.await_contact(self.a)
        self.eventually(lambda: self.a.get("/ready")[0] == 200, "a to be ready")
        self.eventually(lambda: "does not coordinate pool" in self.a.log(), "it to know")
        # Nothing but a reason to leave moves the office.
        time.sleep(1)
        self.assertIs(self.coordinator(), self.b)
        self.b.kill()
        self.await_office(self.a)

    def test_office_stays_when_nobody_reaches_the_pool(self):
        for way in self.ways.values():
            way.cut()
        self.eventually(lambda: "stays its coordinator" in self.a.log(), "it to stay")
        time.sleep(2 * self.ttl_ms / 1000)
        self.assertIs(self.coordinator(), self.a)
        self.assertEqual((self.terms(self.a), self.terms(self.b)), (1, 0))
        # Who is the only one to reach the pool for long is to have it.
        self.ways["b"].join()
        self.await_office(self.b)
        self.assertEqual((self.terms(self.a), self.terms(self.b)), (1, 1))
        self.ended(self.submit("web"), seconds=60)


if __name__ == "__main__":
    unittest.main()
