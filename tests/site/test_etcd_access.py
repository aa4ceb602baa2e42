# SPDX-License-Identifier: LGPL-2.1-or-later
"""Sites over an etcd cluster that is full, that asks for users or certificates, or of which a member knows
one server only."""

import unittest

from etcd_case import EtcdCase
from scenes import MIB, disk, scene, vm

RATE = 5 * MIB
SCENE = scene(vm("web", disk(40 * MIB, seed=1, data=40 * MIB)),
              vm("db", disk(32 * MIB, seed=2, data=32 * MIB)))


class Quota(EtcdCase):
    """A cluster whose disk quota is full."""

    rate = RATE
    ttl_ms = 15000  # nobody is to lose a lease while the servers are busy being filled
    scene = SCENE
    etcd_options = ("--quota-backend-bytes", str(16 * MIB))

    def fill(self):
        """Fills the cluster with keys of others until nothing fits; their names."""
        keys = []
        for number in range(100):
            if not self.etcd.put("/others/%d" % number, bytes(MIB)):
                return keys
            keys.append("/others/%d" % number)
        self.fail("the quota is not kept")

    def test_full(self):
        self.start_members("a", "b")
        job = self.submit("web", "db")
        self.moving(job, "web", least=4 * MIB)
        self.moving(job, "db")
        keys = self.fill()
        self.eventually(lambda: len(self.site.points()) == 2, "both restore points")
        self.assertFalse(self.etcd.put("/others/more", bytes(1024)), "the quota is not full")
        self.assertEqual(self.job(job)["ended_ms"], 0)
        failed = self.site.run("job", "submit", "web")
        self.assertNotEqual(failed.code, 0)
        self.assertIn("quota is full", failed.err)
        for key in keys:
            self.etcd.delete(key)
        self.etcd.make_room()
        document = self.ended(job)
        self.assert_done_well(document, "web", "db")
        self.assertEqual({self.entry(document, name)["attempt"] for name in ("web", "db")}, {1})


class Users(EtcdCase):
    """A cluster with users, whose tokens expire after two seconds."""

    rate = RATE
    scene = SCENE
    etcd_options = ("--auth-token-ttl", "2")
    password = 'a "quoted" pass-word'

    def setUp(self):
        super().setUp()
        self.site.secret("etcd-password", self.password)
        self.etcd.enable_users("xvsa", self.password, "/xvsa/1/test/")

    def store_options(self):
        return {"username": "xvsa", "password_file": "etcd-password"}

    def test_tokens_expire(self):
        self.start_members("a", "b")
        document = self.ended(self.submit("web", "db"))
        self.assert_done_well(document, "web", "db")
        self.assertNotIn(self.password, self.site.logs())

    def test_wrong_password(self):
        self.site.secret("etcd-password", "guessed")
        failed = self.site.run("site", "show")
        self.assertNotEqual(failed.code, 0)
        self.assertIn('does not accept user "xvsa"', failed.err)
        self.assertNotIn("guessed", failed.err)


class Certificates(EtcdCase):
    """A cluster that speaks TLS with those who have a certificate."""

    rate = RATE
    scene = SCENE
    etcd_tls = True

    def test_backup(self):
        self.start_members("a", "b")
        self.assert_done_well(self.ended(self.submit("web", "db")), "web", "db")

    def test_no_certificate(self):
        for name in ("certificate_file", "key_file"):
            del self.site.config["site"][name]
        self.site.write_config()
        failed = self.site.run("site", "show")
        self.assertNotEqual(failed.code, 0)
        self.assertIn("client certificate", failed.err)


class OneEndpoint(EtcdCase):
    """A member that knows one server only, which is away: it has the pool and the repository still."""

    rate = RATE
    scene = SCENE

    def test_owner_without_store(self):
        follower = next(server for server in self.etcd.members if server is not self.etcd.leader())
        self.site.member("a", store=self.etcd.store([follower])).start().await_serving()
        job = self.submit("web")
        owner = self.owner(job, "web", least=4 * MIB)
        self.assertEqual(owner.name, "a")
        self.limit(MIB // 2)  # it is not done before b is there
        self.start_members("b")
        follower.freeze()
        self.eventually(lambda: self.task(job, "web")["owner"] == "proxy-b", "b to take over")
        self.limit(self.rate)
        document = self.ended(job)
        follower.thaw()
        self.eventually(lambda: owner.status()["state"] == "joined", "a to join again")
        self.eventually(lambda: "fenced: job " + job in owner.log(), "a to say so")
        self.assert_done_well(document, "web")


if __name__ == "__main__":
    unittest.main()
