#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Serves each real xapi database of the fixtures and counts what XML-RPC answers.

Every class of a backup's inventory must answer as many records as the database has rows, each
under its own reference, with its own uuid and name.
"""

import glob
import os
import re
import sys
import unittest
import xml.etree.ElementTree as ElementTree

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "compare"))

import simulator  # noqa: E402
from wire import encode_request, post, read_outcome  # noqa: E402

CLASSES = ("pool", "host", "SR", "PBD", "VM", "VDI", "VBD", "VIF", "network")
SHARED = os.environ.get("XVSA_SHARED", os.path.join(HERE, "..", "..", "..", "shared"))


def request(address, method, *params):
    """Makes a call; returns its value or raises RuntimeError with the answer."""
    reply = post(address, "/", encode_request(method, list(params)))
    outcome = read_outcome(reply.body.decode("utf-8", "replace"))
    if outcome.kind != "Success":
        raise RuntimeError(f"{method} answered {outcome}")
    return outcome.value


def unprotect(text):
    """Reads white space the way xapi's database files write it."""
    spaces = {"_": " ", "n": "\n", "t": "\t", "r": "\r", "%": "%"}
    return re.sub("%([_ntr%])", lambda found: spaces[found.group(1)], text)


def read_rows(path):
    """Returns class -> reference -> (uuid, name) of a database file."""
    rows = {name: {} for name in CLASSES}
    for table in ElementTree.parse(path).getroot().iterfind("table"):
        for row in table.iterfind("row"):
            if table.get("name") in rows:
                name = row.get("name__label", row.get("name_label", ""))
                rows[table.get("name")][row.get("ref")] = (row.get("uuid"), unprotect(name))
    return rows


def check_class(address, session, name, rows):
    """Compares the answered records of one class with its rows; returns what is wrong."""
    records = request(address, f"{name}.get_all_records", session)
    answered = {ref: (record["uuid"], record.get("name_label", ""))
                for ref, record in records.items()}
    if answered == rows:
        return []
    if answered.keys() == rows.keys():
        return [f"{name} {ref}: {answered[ref]} instead of {row}" for ref, row in rows.items()
                if answered[ref] != row]
    missing, added = rows.keys() - answered.keys(), answered.keys() - rows.keys()
    return [f"{name}: {len(rows)} rows, {len(answered)} records, missing {sorted(missing)[:3]}, "
            f"added {sorted(added)[:3]}"]


def check_database(path):
    """Serves one database; returns a list of what is wrong."""
    rows, found = read_rows(path), []
    with simulator.running("--xapi-db", path) as address:
        session = request(address, "session.login_with_password", "root", "password", "1.0",
                          "databases")
        for name in CLASSES:
            found += check_class(address, session, name, rows[name])
        request(address, "session.logout", session)
    return found


def databases():
    """Returns the paths of the real databases; none when the fixtures are not present."""
    paths = glob.glob(os.path.join(SHARED, "fixtures", "xapi-db", "*"))
    return sorted(path for path in paths if path.endswith((".xml", ".db")))


class Databases(unittest.TestCase):
    """Every real database is served whole."""

    def test_counts(self):
        if not databases():
            print("test_databases: skipped: fixtures not present", file=sys.stderr)
            self.skipTest("fixtures not present")
        for path in databases():
            with self.subTest(database=os.path.basename(path)):
                self.assertEqual(check_database(path), [])


if __name__ == "__main__":
    unittest.main()
