# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pool A of four hosts with two shared SRs; pool B of three with a shared and a local SR."""

import unittest

from estates import LossCase


class TwoPools(LossCase):
    """Whoever is lost."""

    number = 2


del LossCase  # or unittest would take it for a test

if __name__ == "__main__":
    unittest.main()
