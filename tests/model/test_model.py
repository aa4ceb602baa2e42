#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The models hold, every state of them, and each rule taken away is missed."""

import os
import re
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from checker import FOLDER, check, missing  # noqa: E402

MODEL = "commit.pml"
# What is taken away, and with what else it shows.
BUGS = {
    "BUG_VIEW_BEFORE_BEGIN": (),
    "BUG_ADOPT_CONDEMNED": (),
    "BUG_NO_WAIT": (),
    "BUG_TOKEN": (),
    "BUG_COMMIT_FENCED": (),
    "BUG_STALE_PROGRESS": (),
    "BUG_KEPT_FACTS": (),
    "BUG_NOT_DURABLE": ("POWER",),
}
# Fewer would mean that the model lost what it is about.
STATES = {(): 100000, ("POWER",): 5000}


@unittest.skipIf(missing(), "not installed: " + " ".join(missing()))
class Commit(unittest.TestCase):
    """Commits, fencing, progress and adoption."""

    def test_holds(self):
        for defines, least in STATES.items():
            with self.subTest(defines=defines):
                result = check(MODEL, defines)
                self.assertIsNone(result.failure, result.trail)
                self.assertGreater(result.states, least)

    def test_seeded_bugs(self):
        for bug, others in BUGS.items():
            with self.subTest(bug=bug):
                result = check(MODEL, (bug, *others))
                self.assertIsNotNone(result.failure, "the checker does not find it")
                self.assertIn("assertion violated", result.failure)

    def test_every_bug_is_known(self):
        with open(os.path.join(FOLDER, MODEL), encoding="utf-8") as file:
            self.assertEqual(set(re.findall(r"BUG_[A-Z_]+[A-Z]", file.read())), set(BUGS))


if __name__ == "__main__":
    unittest.main()
