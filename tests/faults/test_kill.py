# SPDX-License-Identifier: LGPL-2.1-or-later
"""A short run of kill.py; XVSA_KILLS and XVSA_SEED choose another."""

import os
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import kill  # noqa: E402


class Kill(unittest.TestCase):
    """SIGKILL at random moments of backup and restore."""

    def test_random_moments(self):
        seed = int(os.environ.get("XVSA_SEED", time.time()))
        kill.run(int(os.environ.get("XVSA_KILLS", "12")), seed,
                 lambda text: print(text, file=sys.stderr, flush=True))


if __name__ == "__main__":
    unittest.main()
