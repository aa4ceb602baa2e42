#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Serves each real xapi database of the fixtures and counts what XML-RPC answers.

Every class of a backup's inventory must answer as many records as the database has rows, each
under its own reference and with its own uuid.
"""

import glob
import os
import sys
import xml.etree.ElementTree as ElementTree

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "compare"))

import simulator  # noqa: E402
from wire import encode_request, post, read_outcome  # noqa: E402

CLASSES = ("pool", "host", "SR", "PBD", "VM", "VDI", "VBD", "VIF", "network")
SHARED = os.environ.get("XVSA_SHARED", os.path.join(HERE, "..", "..", "..", "shared"))
SKIPPED = 77


def request(address, method, *params):
    """Makes a call; returns its value or raises RuntimeError with the answer."""
    reply = post(address, "/", encode_request(method, list(params)))
    outcome = read_outcome(reply.body.decode("utf-8", "replace"))
    if outcome.kind != "Success":
        raise RuntimeError(f"{method} answered {outcome}")
    return outcome.value


def read_rows(path):
    """Returns class -> reference -> uuid of a database file."""
    rows = {name: {} for name in CLASSES}
    for table in ElementTree.parse(path).getroot().iterfind("table"):
        for row in table.iterfind("row"):
            if table.get("name") in rows:
                rows[table.get("name")][row.get("ref")] = row.get("uuid")
    return rows


def check_class(address, session, name, rows):
    """Compares the answered records of one class with its rows; returns what is wrong."""
    records = request(address, f"{name}.get_all_records", session)
    answered = {ref: record["uuid"] for ref, record in records.items()}
    if answered == rows:
        return []
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


def main():
    """Checks every database and reports one line each."""
    paths = sorted(path for path in glob.glob(os.path.join(SHARED, "fixtures", "xapi-db", "*"))
                   if path.endswith((".xml", ".db")))
    if not paths:
        print("test_databases: skipped: fixtures not present")
        return SKIPPED
    failed = 0
    for path in paths:
        try:
            found = check_database(path)
        except (RuntimeError, OSError, KeyError) as error:
            found = [str(error)]
        failed += bool(found)
        print(f"{'FAIL' if found else 'ok  '} {os.path.basename(path)}")
        for text in found:
            print(f"     {text}")
    print(f"{len(paths) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
