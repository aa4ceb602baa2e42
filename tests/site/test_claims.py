# SPDX-License-Identifier: LGPL-2.1-or-later
"""Claims of members that live while the work behind them is gone: nothing may wait for them."""

import contextlib
import copy
import json
import os
import sqlite3
import unittest

from losses import RATE
from members import SiteCase
from scenes import MIB, disk, scene, vm


class Claims(SiteCase):
    """Owners that live but lose what they own."""

    rate = 2 * MIB  # nothing is done before something happens
    ttl_ms = 15000  # nobody is to lose a lease here
    scene = scene(vm("web", disk(32 * MIB, seed=1, data=32 * MIB)))

    def test_backup_from_outside_takes_over(self):
        """A backup that knows nothing of the site fences the site's session; the site tries again."""
        self.start_members("a")
        job = self.submit("web")
        self.moving(job, "web", least=4 * MIB)
        self.limit(0)
        self.backup("web", site=self.outside())
        document = self.ended(job, seconds=60)
        self.assert_point(self.entry(document, "web")["point"], "web")

    def outside(self):
        """The same pool and repository without the site."""
        outside = copy.copy(self.site)
        outside.folder = os.path.join(self.site.folder, "outside")
        outside.config = {**self.site.config, "state": "outside.db"}
        del outside.config["site"], outside.config["serve"]
        os.makedirs(outside.folder)
        for name in ("password", "passphrase"):
            os.symlink(os.path.join(self.site.folder, name), os.path.join(outside.folder, name))
        outside.write_config()
        return outside

    def test_two_jobs_of_a_vm(self):
        """The later one waits, and takes nothing from the earlier one."""
        self.start_members("a")
        first = self.submit("web")
        self.moving(first, "web", least=4 * MIB)
        second = self.submit("web")
        self.limit(RATE)
        for job in (first, second):
            entry = self.entry(self.ended(job, seconds=60), "web")
            self.assertEqual(entry["attempt"], 1)
            self.assert_point(entry["point"], "web")
        self.assert_clean()

    def test_claim_of_a_task_that_went_to_another(self):
        """The record names a new owner while the old one's claim is still there."""
        members = self.start_members("a", "b")
        job = self.submit("web")
        owner = self.owner(job, "web", least=4 * MIB)
        other = next(member for member in members if member is not owner)
        self.give(job, "proxy-" + other.name)
        self.limit(RATE)
        document = self.ended(job, seconds=60)
        self.eventually(lambda: "gave back r/" in owner.log(), "the old owner to say so")
        self.assert_point(self.entry(document, "web")["point"], "web")

    def give(self, job, member):
        """Writes as a coordinator whose view was a moment too old."""
        path = os.path.join(self.site.folder, "site.db")
        with contextlib.closing(sqlite3.connect(path, timeout=30)) as store, store:
            store.execute("BEGIN IMMEDIATE")
            revision = store.execute("SELECT revision + 1 FROM state").fetchone()[0]
            key, value = store.execute("SELECT key, value FROM kv WHERE key LIKE ?",
                                       ("%%/v/%s/%%" % job,)).fetchone()
            record = json.loads(value)
            record.update(state="assigned", owner=member, attempt=record["attempt"] + 1)
            store.execute("UPDATE kv SET value = ?, mod_revision = ? WHERE key = ?",
                          (json.dumps(record), revision, key))
            store.execute("UPDATE state SET revision = ?", (revision,))
            store.execute("INSERT INTO changes VALUES (?, ?)", (revision, key))


if __name__ == "__main__":
    unittest.main()
