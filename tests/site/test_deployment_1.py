# SPDX-License-Identifier: LGPL-2.1-or-later
"""One pool of two hosts, a shared SR, a proxy on each host."""

import unittest

from estates import LossCase


class OnePool(LossCase):
    """Whoever is lost."""

    number = 1


del LossCase  # or unittest would take it for a test

if __name__ == "__main__":
    unittest.main()
