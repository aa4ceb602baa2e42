# SPDX-License-Identifier: LGPL-2.1-or-later
"""Differences of values, for the eyes of who works on the simulator; they count for nothing.

Values that must differ (names of objects the mapping does not know, times, tokens, numbers of
events) are left out.
"""

import json
import re

from references import NAME
from wire import DateTime

TIME = re.compile(r"[0-9]{8}T[0-9:]{8}Z")
# Members whose values say nothing about how the server behaves.
IGNORED = {"id", "token", "valid_ref_counts", "software_version", "cpu_info", "backtrace",
           "snapshot_metadata", "cert", "MAC", "mac_seed", "location", "address", "hostname",
           "last_updated", "device_config", "subject"}


def is_arbitrary(value):
    """Tells whether a value is a name, a time or the like."""
    return isinstance(value, DateTime) or (
        isinstance(value, str) and bool(NAME.search(value) or TIME.fullmatch(value)))


def as_set(value):
    """Returns the elements of an array that can be compared as a set."""
    return {json.dumps(item, sort_keys=True) for item in value if not is_arbitrary(item)}


def differing(names, recorded, answered, path="value"):
    """Lists places where a recorded and the actual value differ, as texts."""
    if isinstance(recorded, dict) and isinstance(answered, dict):
        found = []
        for name, value in recorded.items():
            other = names.known.get(name, name)
            if name not in IGNORED and other in answered:
                found += differing(names, value, answered[other], f"{path}.{name}")
            elif name not in IGNORED and not NAME.fullmatch(name):
                found.append(f"{path}.{name}: recorded {value!r}, answered nothing")
        return found
    if isinstance(recorded, list) and isinstance(answered, list):
        return differing_lists(recorded, answered, path)
    if is_arbitrary(recorded) and is_arbitrary(answered):
        expected = names.known.get(recorded)
        if expected and expected != answered and not NAME.fullmatch(path.rpartition(".")[2]):
            return [f"{path}: recorded another object than the one answered"]
        return []
    if recorded != answered:
        return [f"{path}: recorded {recorded!r}, answered {answered!r}"[:300]]
    return []


def differing_lists(recorded, answered, path):
    """Compares two arrays as sets, and their lengths when their elements are arbitrary."""
    ours, theirs = as_set(recorded), as_set(answered)
    if any(isinstance(item, dict) for item in recorded + answered):
        return []
    found = []
    if ours - theirs:
        found.append(f"{path}: missing {' '.join(sorted(ours - theirs))}")
    if theirs - ours:
        found.append(f"{path}: added {' '.join(sorted(theirs - ours))}")
    if not ours and not theirs and len(recorded) != len(answered):
        found.append(f"{path}: recorded {len(recorded)} elements, answered {len(answered)}")
    return found
