# SPDX-License-Identifier: LGPL-2.1-or-later
"""The pool simulator: a XenAPI pool for tests, independent of the library under test."""
