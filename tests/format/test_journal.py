# SPDX-License-Identifier: LGPL-2.1-or-later
"""Rules of the journal: both sides replay the same entries to the same state."""

import json
import os
import random
import shutil
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from case import CHUNK, FormatCase  # noqa: E402
from forge import JournalWriter, sealed_object  # noqa: E402
from journal import (INDEX_ADD, PROGRESS, RP_COMMIT, RP_DELETE, SESSION_BEGIN,  # noqa: E402
                     SESSION_END)
from library import Image, Refused, fill  # noqa: E402
from store import POINT, Refusal  # noqa: E402

JOURNALS = 60
RECORDS = 40
WORKS = ["11" * 16, "22" * 16]


class Sessions(FormatCase):
    """Sessions that end badly, made by the library."""

    def begin(self, library, slot, seed, token=0, key="pool/vm-1", base="-"):
        """A session that has stored a disk."""
        image = Image("vdi", 3 * CHUNK + 5, CHUNK, seed).put(0, 4)
        library("begin", slot, key, token, base)
        fill(library, slot, [image], self.source)
        library("checkpoint", slot)
        return [image]

    def test_aborted(self):
        library = self.make()
        self.begin(library, 0, 1)
        library("abort", 0)
        images = self.begin(library, 0, 1)
        self.points[library("commit", 0, "vm-1", "name", 1)] = images
        repository, _ = self.assert_sound(library)
        self.assertEqual(repository.journal.active, {})
        self.assertLess(repository.point(next(iter(self.points))).document["stored"], CHUNK,
                        "what an aborted session stored is of use")

    def test_vanished(self):
        """A writer that dies leaves an active session; a new one of its key fences it."""
        library = self.make()
        self.begin(library, 0, 1)
        library.close()
        library = self.opened()
        repository, _ = self.assert_sound(library)
        self.assertEqual(len(repository.journal.active), 1)
        images = self.begin(library, 1, 2)
        self.points[library("commit", 1, "vm-1", "name", 1)] = images
        repository, _ = self.assert_sound(library)
        self.assertEqual(repository.journal.active, {})
        self.assertEqual(len(repository.journal.fenced), 1)

    def test_two_sessions_of_one_key(self):
        first, second = self.make(), self.opened()
        self.begin(first, 0, 1)
        images = self.begin(second, 0, 2)
        with self.assertRaises(Refused) as caught:
            first("commit", 0, "vm-1", "name", 1)
        self.assertEqual(caught.exception.code, "FENCED")
        self.points[second("commit", 0, "vm-1", "name", 2)] = images
        repository, _ = self.assert_sound(first)
        self.assertEqual(len(repository.journal.fenced), 1)

    def test_older_token(self):
        library = self.make()
        images = self.begin(library, 0, 1, token=7)
        self.points[library("commit", 0, "vm-1", "name", 1)] = images
        with self.assertRaises(Refused) as caught:
            library("begin", 0, "pool/vm-1", 7, "-")
        self.assertEqual(caught.exception.code, "FENCED")
        self.assert_sound(library)

    def test_pinned(self):
        """A base that a session pins cannot be deleted until the session ends."""
        library = self.make()
        images = self.begin(library, 0, 1)
        base = library("commit", 0, "vm-1", "name", 1)
        self.points[base] = images
        self.begin(library, 0, 2, base=base)
        with self.assertRaises(Refused):
            library("delete", base)
        self.assert_sound(library)
        library("abort", 0)
        library("delete", base)
        del self.points[base]
        self.assert_sound(library)


class Replay(FormatCase):
    """Journals that the library would not write, over objects that it wrote."""

    def setUp(self):
        super().setUp()
        library = self.make()
        self.commits = []
        for number in range(4):
            self.backup(library, [Image("vdi", CHUNK + 1, CHUNK, number).put(0, 2)],
                        key=f"key-{number}", vm=f"vm-{number}", taken=100 - number)
        library.close()
        repository = self.read()
        self.commits = list(repository.journal.points.values())
        self.segments = list(repository.journal.segments.values())
        self.sessions = [commit["session"] for commit in self.commits] + ["ab" * 16, "cd" * 16]
        self.repository = repository

    def restart(self):
        """An empty journal."""
        shutil.rmtree(os.path.join(self.path, "j"))
        return JournalWriter(self.repository)

    def begin(self, session, key="k", token=1, pins=(), kind="backup", work=None):
        """SESSION_BEGIN."""
        return {"type": SESSION_BEGIN, "flags": 0, "session": session, "kind": kind, "key": key,
                "token": token, "owner": "test", "pins": list(pins),
                **({"work": work} if work else {})}

    def end(self, session, outcome="ok"):
        """SESSION_END."""
        return {"type": SESSION_END, "flags": 0, "session": session, "outcome": outcome}

    def progress(self, session, work, number):
        """PROGRESS."""
        return {"type": PROGRESS, "flags": 0, "session": session, "work": work, "objects": [
            {"id": f"{number:032x}", "length": 500, "digest": "0" * 64,
             "content": ("map", "done", "later")[number % 3], "key": "vdi"}]}

    def delete(self, number):
        """RP_DELETE."""
        return {"type": RP_DELETE, "flags": 0, "point": self.commits[number]["point"]}

    def random_record(self, rng):
        """Any record about few sessions, keys, tokens and points, so that the rules meet."""
        kind = rng.choice([SESSION_BEGIN] * 5 + [RP_COMMIT] * 5 + [RP_DELETE] * 3 +
                          [PROGRESS] * 5 + [SESSION_END, INDEX_ADD, 99])
        session = rng.choice(self.sessions)
        if kind == SESSION_BEGIN:
            pins = [commit["point"] for commit in self.commits if rng.random() < 0.15]
            return self.begin(session, f"key-{rng.randrange(3)}", rng.randrange(12), pins,
                              rng.choice(["backup"] * 4 + ["part"] * 3 + ["restore"]),
                              rng.choice([None, *WORKS]))
        if kind == RP_COMMIT:
            return rng.choice(self.commits)
        if kind == RP_DELETE:
            return self.delete(rng.randrange(4))
        if kind == SESSION_END:
            return self.end(session, rng.choice(["ok", "aborted", "parked"]))
        if kind == PROGRESS:
            return self.progress(session, rng.choice(WORKS), rng.randrange(1 << 32))
        if kind == INDEX_ADD:
            return {"type": INDEX_ADD, "flags": 0, "session": session,
                    "segments": [rng.choice(self.segments)]}
        return {"type": kind, "flags": 0, "whatever": [1, {"a": None}]}

    def compare(self):
        """Both sides list the same; returns what the reader replayed."""
        repository = self.read()
        self.points = repository.journal.points
        library = self.opened()
        self.assert_listed_alike(library, repository)
        self.assertEqual(json.loads(library("works")), {
            work: [row["id"] for record in its.records for row in record["objects"]]
            for work, its in repository.journal.works.items()})
        library.close()
        return repository.journal

    def test_random_journals(self):
        rng = random.Random(2026)
        void = deleted = fenced = live = told = 0
        for number in range(JOURNALS):
            writer, left = self.restart(), RECORDS
            while left > 0:
                count = rng.randrange(1, 5)
                writer.append([self.random_record(rng) for _ in range(count)])
                left -= count
            with self.subTest(journal=number):
                journal = self.compare()
            void, live = void + len(journal.void), live + len(journal.points)
            deleted, fenced = deleted + len(journal.deleted), fenced + len(journal.fenced)
            told += sum(len(work.records) for work in journal.works.values())
        self.assertTrue(void and live and deleted and fenced and told,
                        (void, live, deleted, fenced, told))

    def test_deleted_id_is_used_again(self):
        """A deleted point never comes back."""
        commit = self.commits[0]
        self.restart().append([self.begin(commit["session"]), commit, self.delete(0), commit])
        self.assertEqual(self.compare().points, {})

    def test_first_token(self):
        """Tokens begin at 1."""
        commit = self.commits[0]
        self.restart().append([self.begin(commit["session"], token=0), commit])
        self.assertEqual(self.compare().points, {})

    def test_pin_of_what_is_not_live_yet(self):
        commit = self.commits[0]
        self.restart().append([
            self.begin(self.sessions[5], "other", 1, [commit["point"]]),
            self.begin(commit["session"]), commit, self.delete(0)])
        self.assertEqual(self.compare().points, {})

    def test_session_that_begins_again(self):
        """An ended session may begin again, with a greater token."""
        commit = self.commits[0]
        session = commit["session"]
        self.restart().append([self.begin(session), self.end(session),
                               self.begin(session, token=2), commit])
        self.assertEqual(list(self.compare().points), [commit["point"]])

    def test_unknown_records(self):
        commit = self.commits[0]
        for flags in range(4):
            with self.subTest(flags=flags):
                self.restart().append([self.begin(commit["session"]), commit,
                                       {"type": 77, "flags": flags}])
                if flags & 2:
                    with self.assertRaises(Refusal):
                        self.read()
                    with self.assertRaises(Refused) as caught:
                        self.opened().listing()
                    self.assertEqual(caught.exception.code, "FORMAT")
                    continue
                self.assertEqual(self.compare().read_only, bool(flags & 1))
                library = self.opened()
                try:
                    library("delete", commit["point"])
                    self.assertEqual(flags, 0)
                except Refused as refused:
                    self.assertEqual((flags, refused.code), (1, "FORMAT"))

    def damaged(self, change):
        """A journal of three entries with a change; both sides find the damage."""
        commit = self.commits[0]
        writer = self.restart()
        writer.append([self.begin(commit["session"])])
        writer.append([commit])
        change(writer)
        journal = self.read().journal
        self.assertIsNotNone(journal.damage)
        library = self.opened()
        return journal, library

    def test_damage(self):
        def broken_link(writer):
            writer.append([self.delete(0)], previous="1" * 64)

        def gap(writer):
            writer.seq += 1
            writer.append([self.delete(0)])

        def wrong_seq(writer):
            writer.append([self.delete(0)], seq=7)

        for change in (broken_link, gap, wrong_seq):
            with self.subTest(change=change.__name__):
                journal, library = self.damaged(change)
                self.assertEqual(list(journal.points), [self.commits[0]["point"]])
                for command in (("list",), ("delete", self.commits[0]["point"])):
                    with self.assertRaises(Refused) as caught:
                        library(*command)
                    self.assertEqual(caught.exception.code, "CORRUPT")
                self.assertEqual(len(os.listdir(os.path.join(self.path, "j"))), 3)

    def test_unknown_members(self):
        """Members that a later minor version adds are ignored."""
        commit = {**self.commits[0], "later": {"x": [1]}}
        self.restart().append([{**self.begin(commit["session"]), "later": 1}, commit], later=None)
        self.assertEqual(list(self.compare().points), [commit["point"]])

    def test_uncommitted_point(self):
        """A point's object without a commit is no point."""
        document = {**self.repository.point(self.commits[0]["point"]).document, "point": "5a" * 16}
        sealed_object(self.repository, "rp/" + "5a" * 16, POINT, document)
        self.assertNotIn("5a" * 16, self.compare().points)


if __name__ == "__main__":
    unittest.main()
