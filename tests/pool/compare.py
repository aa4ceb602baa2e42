#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Holds the pool simulator against what real servers answered.

Replays the golden record of xapi 24.11 and the recorded conversations of a XenServer 6.x, both
read from the folder that XVSA_SHARED names, over real HTTP, and compares every answer: status,
error code and number of its parameters, types and member names, HTTP status and header names.

Prints the calls that were answered differently and the share of those answered alike. Ends with
1 when the share is below --min, when a difference has no explanation in compare/differences.json
or when an explanation there explains nothing; with 77 when the records are not present.
"""

import argparse
import fnmatch
import json
import os
import re
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "compare"))

import cassette  # noqa: E402
import golden  # noqa: E402
import simulator  # noqa: E402

SKIPPED = 77


def data(name):
    """Returns the path of a file of the comparer's own data."""
    return os.path.join(HERE, "compare", name)


def load(name):
    """Reads a JSON file of the comparer's own data."""
    with open(data(name), encoding="utf-8") as file:
        return json.load(file)


def replay_golden(fixtures, show_values):
    """Replays the golden record; returns its results."""
    with simulator.running("--scenario", data("golden-scenario.json")) as address:
        story = golden.Story(f"{fixtures}/xapi-24.11-golden", load("golden-steps.json"), address)
        results = story.run()
    if show_values:
        print("\n".join(story.notes))
    for name, ref in story.unidentified:
        print(f"compare: the simulator's scene has no counterpart of the recorded {name} {ref}")
    return results


def replay_cassettes(fixtures, _show_values):
    """Replays all cassettes against the scene they found; returns their results."""
    cassettes = cassette.read_cassettes(f"{fixtures}/xmlrpc-cassettes")
    scene = cassette.scene_of(cassettes)
    cassette.complete(scene)
    columns = cassette.column_names(f"{fixtures}/xapi-db/tampa_poolofone_40.xml")
    with tempfile.TemporaryDirectory(prefix="compare-") as folder:
        path = os.path.join(folder, "scene.xml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(cassette.database_of(scene, columns))
        with simulator.running("--xapi-db", path) as address:
            return [result for interactions in cassettes
                    for result in cassette.replay(interactions, address)]


RECORDS = {"golden": ("xapi-24.11-golden", replay_golden),
           "cassettes": ("xmlrpc-cassettes", replay_cassettes)}


class Explanations:
    """The list of calls that are left out and of differences that have a reason."""

    def __init__(self, entries):
        self.entries = entries
        self.used = set()

    def find(self, result):
        """Returns the reason listed for a result, or None."""
        for index, entry in enumerate(self.entries):
            if (entry["source"] == result.source and fnmatch.fnmatchcase(result.name, entry["name"])
                    and fnmatch.fnmatchcase(result.method, entry.get("method", "*"))
                    and re.search(entry.get("difference", ""), "; ".join(result.found))):
                self.used.add(index)
                return entry["reason"]
        return None

    def unused(self, sources):
        """Lists the entries for the replayed sources that matched nothing."""
        return [entry for index, entry in enumerate(self.entries)
                if index not in self.used and entry["source"] in sources]


def print_difference(result, reason):
    """Prints one call that was answered differently."""
    print(f"{result.source} {result.number}: {result.name} [{result.method}]")
    for text in result.found:
        print(f"    {text}")
    print(f"    {'explained: ' + reason if reason else 'NOT EXPLAINED'}")


def judge(results, excluded, explained):
    """Prints the differences; returns (calls counted, alike, unexplained differences)."""
    counted = alike = unexplained = 0
    for result in results:
        if excluded.find(result):
            continue
        counted += 1
        if not result.found:
            alike += 1
            continue
        reason = explained.find(result)
        unexplained += reason is None
        print_difference(result, reason)
    return counted, alike, unexplained


def parse_arguments():
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--min", type=float, default=95.0, metavar="PERCENT",
                        help="least share of calls answered alike (default %(default)s)")
    parser.add_argument("--only", choices=sorted(RECORDS), help="replay one of the records")
    parser.add_argument("--values", action="store_true",
                        help="list differing values of the golden record too; they do not count")
    parser.add_argument("--shared", default=os.environ.get(
        "XVSA_SHARED", os.path.join(HERE, "..", "..", "..", "shared")),
                        help="folder that holds fixtures/ (default: XVSA_SHARED or ../shared)")
    return parser.parse_args()


def main():
    """Replays, compares and reports."""
    arguments = parse_arguments()
    fixtures = os.path.join(arguments.shared, "fixtures")
    chosen = [RECORDS[arguments.only]] if arguments.only else list(RECORDS.values())
    if not all(os.path.isdir(os.path.join(fixtures, folder)) for folder, _ in chosen):
        print("compare: skipped: fixtures not present")
        return SKIPPED
    results = [result for _, replay in chosen for result in replay(fixtures, arguments.values)]
    lists = load("differences.json")
    excluded, explained = Explanations(lists["excluded"]), Explanations(lists["explained"])
    counted, alike, unexplained = judge(results, excluded, explained)
    sources = {result.source for result in results}
    stale = excluded.unused(sources) + explained.unused(sources)
    for entry in stale:
        print(f"listed in differences.json, but there is no such difference: {entry}")
    share = 100.0 * alike / counted
    print(f"compare: {alike} of {counted} calls answered alike ({share:.1f} %), "
          f"{len(results) - counted} excluded, {unexplained} differences not explained")
    return 1 if share < arguments.min or unexplained or stale else 0


if __name__ == "__main__":
    sys.exit(main())
