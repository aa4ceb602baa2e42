# SPDX-License-Identifier: LGPL-2.1-or-later
"""Servers killed, frozen, wiped and full; answers lost: no transaction is done twice or half."""

import os
import shutil
import signal
import tempfile
import time
import unittest

from store_case import Cluster, PREFIX, Relay, StoreCase, b64, wait_for

import frozen


class Disturbed(StoreCase):
    """Transactions while three servers, or the way to them, are disturbed."""

    def test_leader_is_killed(self):
        cluster = Cluster(self, 3)
        drive = self.drive(cluster.address())
        drive.send(do="work", name="w", count=300, each_ms=30000)
        time.sleep(0.3)
        cluster.leader().kill()
        unknown = self.assert_once(cluster, "w", drive.read())
        self.assertEqual(unknown, set(), "two of three servers were there all the time")

    def test_leader_is_frozen(self):
        cluster = Cluster(self, 3)
        drive = self.drive(cluster.address())
        leader = cluster.leader()
        drive.send(do="work", name="w", count=200, each_ms=30000)
        time.sleep(0.2)
        leader.signal(signal.SIGSTOP)
        time.sleep(6)
        leader.signal(signal.SIGCONT)
        self.assert_once(cluster, "w", drive.read())

    def test_answers_are_lost(self):
        cluster = Cluster(self, 1)
        relay = Relay(self, cluster.servers[0].port, lose=0.15)
        drive = self.drive("etcd:" + relay.url)
        unknown = self.assert_once(cluster, "w", drive.ask(do="work", name="w", count=200,
                                                           each_ms=30000))
        self.assertEqual(unknown, set())
        self.assertGreater(relay.lost, 10)

    def test_requests_arrive_late(self):
        cluster = Cluster(self, 1)
        relay = Relay(self, cluster.servers[0].port, delay=0.1, seconds=1.0)
        drive = self.drive("etcd:" + relay.url)
        self.assert_once(cluster, "w", drive.ask(do="work", name="w", count=200, each_ms=30000))
        self.assertGreater(relay.delayed, 3)
        time.sleep(1.5)  # the last of them
        self.assert_once(cluster, "w", {"rc": "OK", "done": 200, "unknown": [], "refused": []})

    def test_late_claims(self):
        cluster = Cluster(self, 1)
        relay = Relay(self, cluster.servers[0].port, delay=0.1, seconds=0.3)
        direct = cluster.servers[0].url
        drives = [self.drive("etcd:" + url) for url in (relay.url, relay.url, direct)]
        for i, drive in enumerate(drives):
            drive.send(do="claim", name=f"p{i}", count=400 if i == 2 else 150)
        answers = [drive.read() for drive in drives]
        time.sleep(1)  # the last of the late ones
        self.assertGreater(relay.delayed, 3)
        outcomes = {}
        for answer in answers:
            self.assertEqual(answer["rc"], "OK", answer["error"])
            outcomes.update(answer["outcomes"])
        self.assertEqual(set(cluster.keys("d/")), {key for key, done in outcomes.items() if done})
        self.assertIn(False, outcomes.values(), "nobody was in the way of another")
        self.assertEqual(cluster.keys("claim"), {})

    def test_refused_is_final(self):
        cluster = Cluster(self, 1)
        relay = Relay(self, cluster.servers[0].port, seconds=2.0)
        drive, other = self.drive("etcd:" + relay.url), self.drive(cluster.address())
        other.good(do="put", key="claim", value="held")
        relay.hold = 1
        outcome = drive.good(do="claim", name="p", count=1)["outcomes"]
        self.assertEqual(outcome, {"d/p/00000": False})
        self.assertEqual(relay.delayed, 1)
        # The copy that was held back arrives when its condition holds: too late all the same.
        cluster.servers[0].call("/v3/kv/deleterange", {"key": b64(PREFIX + "claim")})
        time.sleep(3)
        self.assertEqual((cluster.keys("d/"), cluster.keys("claim")), ({}, {}))

    def test_no_majority(self):
        cluster = Cluster(self, 3)
        drive = self.drive(cluster.address())
        drive.good(do="put", key="a", value="1")
        for server in cluster.servers[:2]:
            server.signal(signal.SIGSTOP)
        answer = drive.ask(do="put", key="a", value="2", timeout_ms=6000)
        self.assertIn(answer["rc"], ("UNKNOWN_OUTCOME", "TIMEOUT"))
        answer = drive.ask(do="range", key="a", timeout_ms=3000)
        self.assertEqual(answer["rc"], "TIMEOUT", answer)
        for server in cluster.servers[:2]:
            server.signal(signal.SIGCONT)
        drive.good(do="put", key="a", value="3", timeout_ms=30000)
        # The one before was settled by then: it does not come back.
        time.sleep(1)
        self.assertEqual(drive.good(do="range", key="a")["pairs"], {"a": "3"})

    def test_slots_are_cleaned(self):
        cluster = Cluster(self, 1)
        drive = self.drive(cluster.address())
        drive.good(do="put", key="a", value="1")
        self.assertEqual(len(cluster.keys("n/")), 1)
        self.assertEqual(list(drive.good(do="range", key="")["pairs"]), ["a"])
        drive.close()
        self.assertEqual(cluster.keys("n/"), {})
        old = {"key": b64(PREFIX + "n/0123456789abcdef.0"),
               "value": b64(f"0123456789abcdef {int(time.time()) - 8 * 24 * 3600}")}
        cluster.servers[0].call("/v3/kv/put", old)
        self.drive(cluster.address())
        self.assertEqual([key for key in cluster.keys("n/") if key.startswith("n/0123456789")], [])


class Limits(StoreCase):
    """Quota and compaction."""

    def test_quota_is_full(self):
        cluster = Cluster(self, 1, "--quota-backend-bytes", str(16 << 20))
        drive = self.drive(cluster.address())
        drive.good(do="put", key="a", value="1")
        watcher = self.drive(cluster.address())
        lease = watcher.good(do="lease", key="l/x", ttl_ms=120000)["lease"]
        answer = drive.ask(do="fill", key="big", size=900000, count=60)
        self.assertEqual(answer["rc"], "SPACE", answer)
        self.assertIn("quota", answer["error"])
        self.assertIn("alarm disarm", answer["error"])
        # What is there can be read, and leases live on.
        self.assertEqual(drive.good(do="range", key="a")["pairs"], {"a": "1"})
        self.assertGreater(watcher.good(do="renew", lease=lease)["left_ms"], 0)
        server = cluster.servers[0]
        revision = drive.good(do="range", key="a")["revision"]
        server.call("/v3/kv/compaction", {"revision": str(revision), "physical": True})
        server.call("/v3/maintenance/defragment", {}, timeout=20)
        member = server.call("/v3/maintenance/status", {})["header"]["member_id"]
        server.call("/v3/maintenance/alarm",
                    {"action": "DEACTIVATE", "memberID": member, "alarm": "NOSPACE"})
        drive.good(do="put", key="a", value="2")

    def test_compaction_under_a_watch(self):
        cluster = Cluster(self, 1)
        drive, watcher = self.drive(cluster.address()), self.drive(cluster.address())
        watcher.good(do="watch", key="w/")
        while watcher.good(do="wait", timeout_ms=500)["changed"]:
            pass
        server = cluster.servers[0]
        for i in range(20):
            revision = drive.good(do="put", key="w/a", value=str(i))["revision"]
            server.call("/v3/kv/compaction", {"revision": str(revision), "physical": True})
        self.assertTrue(watcher.good(do="wait", timeout_ms=30000)["changed"])
        while watcher.good(do="wait", timeout_ms=500)["changed"]:
            pass
        # Disconnected while a compaction takes what happens meanwhile out of the history.
        server.signal(signal.SIGTERM)
        server.process.wait()
        cluster.start()
        revision = drive.good(do="put", key="w/a", value="last", timeout_ms=30000)["revision"]
        server.call("/v3/kv/compaction", {"revision": str(revision), "physical": True})
        self.assertTrue(watcher.good(do="wait", timeout_ms=30000)["changed"])

    def test_watch_moves_to_another_server(self):
        cluster = Cluster(self, 3)
        drive, watcher = self.drive(cluster.address()), self.drive(cluster.address())
        watcher.good(do="watch", key="w/")
        while watcher.good(do="wait", timeout_ms=500)["changed"]:
            pass
        cluster.servers[0].kill()
        drive.good(do="put", key="w/a", value="1", timeout_ms=30000)
        self.assertTrue(watcher.good(do="wait", timeout_ms=30000)["changed"])


class Coordinators(StoreCase):
    """Members whose coordinator or store is lost."""

    def test_coordinator_is_killed(self):
        cluster = Cluster(self, 3)
        members = self.members(cluster.address(), 3)
        first, term = self.elect(members)
        self.assertIs(first, members[0], "not the one that was added first")
        self.assertTrue(self.decides(first, term))
        first.kill()
        second, next_term = self.elect(members[1:])
        self.assertIs(second, members[1])
        self.assertGreater(next_term, term)
        self.assert_one_decides([(second, term), (second, next_term)])

    def test_coordinator_is_frozen(self):
        cluster = Cluster(self, 3)
        members = self.members(cluster.address(), 3)
        first, term = self.elect(members)
        first.process.send_signal(signal.SIGSTOP)
        second, next_term = self.elect(members[1:])
        self.assertTrue(self.decides(second, next_term))
        first.process.send_signal(signal.SIGCONT)
        self.assert_one_decides([(first, term), (second, next_term)])
        wait_for(lambda: first.good(do="state")["generation"] >= 2, "the frozen one to join again")
        self.assertEqual(first.good(do="elect")["term"], 0)
        self.assert_one_decides([(first, term), (second, next_term)])

    def test_leader_of_the_store_is_killed(self):
        cluster = Cluster(self, 3)
        members = self.members(cluster.address(), 2, ttl_ms=10000)
        first, term = self.elect(members)
        cluster.leader().kill()
        self.assertEqual(first.good(do="elect", timeout_ms=20000)["term"], term)
        self.assertTrue(self.decides(first, term))
        self.assertEqual([each.good(do="state")["generation"] for each in members], [1, 1])

    def test_store_is_frozen(self):
        cluster = Cluster(self, 1)
        members = self.members(cluster.address(), 2)
        first, term = self.elect(members)
        cluster.servers[0].signal(signal.SIGSTOP)
        for each in members:
            wait_for(lambda drive=each: drive.good(do="state")["state"] == "suspect", "suspicion")
        self.assertEqual(first.good(do="elect")["term"], 0)
        cluster.servers[0].signal(signal.SIGCONT)
        for each in members:
            wait_for(lambda drive=each: drive.good(do="state")["state"] == "joined", "trust")
        last, next_term = self.elect(members)
        if next_term == term:  # etcd gave the leases their time again
            self.assertIs(last, first)
        self.assertTrue(self.decides(last, next_term))

    def test_all_of_the_store_is_lost(self):
        cluster = Cluster(self, 3)
        members = self.members(cluster.address(), 3)
        members[0].good(do="epoch", gen=4)
        wait_for(lambda: all(each.good(do="state")["gen"] == 4 for each in members), "the epoch")
        order = {key: pair["value"] for key, pair in cluster.keys("order/").items()}
        self.assertEqual(len(order), 3)
        first, term = self.elect(members)
        cluster.wipe()
        for each in members:
            wait_for(lambda drive=each: drive.good(do="state")["generation"] >= 2
                     and drive.good(do="state")["state"] == "joined", "the members to join again")
        self.assertEqual({key: pair["value"] for key, pair in cluster.keys("order/").items()},
                         order)
        self.assertEqual(members[1].good(do="epoch")["gen"], 5)
        # Revisions begin anew and meet the old term once; it must not count, whoever holds the place.
        seen = []
        for i in range(term + 5):
            self.assertFalse(self.decides(first, term), "a decision of a term before the loss")
            seen.append(members[2].good(do="put", key="filler", value=str(i))["revision"])
        self.assertGreater(max(seen), term)
        last, next_term = self.elect(members)
        self.assertTrue(self.decides(last, next_term))
        self.assertFalse(self.decides(members[2] if last is not members[2] else members[1],
                                      next_term))


class FileCoordinators(StoreCase):
    """Members of one machine that share a file."""

    def setUp(self):
        folder = tempfile.mkdtemp(prefix="xvsa-file-")
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        self.url = "sqlite:" + os.path.join(folder, "state.db")

    def test_coordinator_is_killed(self):
        members = self.members(self.url, 3, ttl_ms=600000)
        first, term = self.elect(members)
        self.assertIs(first, members[0])
        first.kill()
        second, next_term = self.elect(members[1:])  # long before the lease's time is over
        self.assertIs(second, members[1])
        self.assert_one_decides([(second, term), (second, next_term)])

    def test_coordinator_is_frozen(self):
        members = self.members(self.url, 2)
        first, term = self.elect(members)
        frozen.freeze_off(first.process, self.url[len("sqlite:"):])
        second, next_term = self.elect(members[1:])
        first.process.send_signal(signal.SIGCONT)
        self.assert_one_decides([(first, term), (second, next_term)])
        wait_for(lambda: first.good(do="state")["generation"] >= 2, "the frozen one to join again")
        self.assertEqual(first.good(do="elect")["term"], 0)

    def test_work_of_several(self):
        drives = [self.drive(self.url) for _ in range(3)]
        for i, drive in enumerate(drives):
            drive.send(do="claim", name=f"p{i}", count=100)
        outcomes = {}
        for drive in drives:
            answer = drive.read()
            self.assertEqual(answer["rc"], "OK", answer["error"])
            outcomes.update(answer["outcomes"])
        kept = drives[0].good(do="range", key="d/")["pairs"]
        self.assertEqual(set(kept), {key for key, done in outcomes.items() if done})


if __name__ == "__main__":
    unittest.main()
