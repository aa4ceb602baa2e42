#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the library exports, what the map names and what the header declares are the same, and every
function of the header is documented with its thread tag and the version that brought it."""

import re

from gate import Gate, run, shared_object

FUNCTION = re.compile(r"^XVSA_API [^;(]*?\b(xvsa_\w+)\s*\(", re.M)
TAGS = ("[any]", "[own]")


def header_functions(header):
    """Names that the header declares, each with the comment above it and the tags in force."""
    functions = {}
    inherited = False
    for block in re.split(r"\n\s*\n", header):
        if block.lstrip().startswith("/* ---"):
            inherited = False
        for match in re.finditer(r"(/\*\*.*?\*/\s*)?^(XVSA_API|typedef struct)\b[^;{]*", block,
                                 re.S | re.M):
            comment = match.group(1) or ""
            if match.group(2) == "typedef struct":
                inherited = inherited or ("All accessors are" in comment and "[any]" in comment)
                continue
            name = FUNCTION.search(match.group(0)[len(comment):])
            if name:
                functions[name.group(1)] = (" ".join(comment.split()), inherited)
    return functions


def documentation_faults(header):
    """Functions without what a reader must know."""
    faults = []
    for name, (comment, inherited) in header_functions(header).items():
        if not comment:
            faults.append(f"{name}: no comment")
            continue
        if not re.search(r"Since \d+\.\d+\.", comment):
            faults.append(f"{name}: the comment does not say since which version")
        if not inherited and not any(tag in comment for tag in TAGS):
            faults.append(f"{name}: the comment has no thread tag {TAGS}")
    return faults


def map_names(text):
    """Names that the symbol map exports."""
    shown = re.findall(r"global:(.*?)local:", text, re.S)
    return set(re.findall(r"(\w+);", "".join(shown)))


def exported_names(path):
    """Names that a shared library exports, version nodes left out."""
    status, text = run(["nm", "-D", "--defined-only", "--with-symbol-versions", path])
    if status != 0:
        return set()
    rows = [line.split() for line in text.splitlines()]
    return {row[2].split("@")[0] for row in rows if len(row) == 3 and row[1] != "A"}


def differences(left, left_name, right, right_name):
    """Names that only one of two sets has."""
    faults = [f"{name}: in {left_name}, not in {right_name}" for name in sorted(left - right)]
    return faults + [f"{name}: in {right_name}, not in {left_name}"
                     for name in sorted(right - left)]


def self_test(gate, header, names):
    """Seeds one fault of each kind."""
    gate.notices("a function missing in the map",
                 differences(names, "the header", names - {"xvsa_free"}, "the map"), "xvsa_free")
    gate.notices("a foreign export",
                 differences(names | {"xv_inner"}, "the library", names, "the map"), "xv_inner")
    gate.notices("a comment without version",
                 documentation_faults(header.replace("Since 0.1.", "", 1)), "which version")
    broken = header.replace("caller; NULL is allowed.\n *  [any]", "caller; NULL is allowed.\n * ")
    gate.notices("a comment without thread tag", documentation_faults(broken), "xvsa_free")


def main():
    """Runs the checks."""
    gate = Gate(__doc__)
    header = gate.read("include/xvsa.h")
    declared = set(header_functions(header))
    self_test(gate, header, declared)
    gate.check("the header declares functions", [] if len(declared) > 50 else ["hardly any found"])
    mentioned = set(re.findall(r"^XVSA_API [^;]*?\b(xvsa_\w+)\(", header, re.M))
    gate.check("every declaration was read",
               differences(mentioned, "the text", declared, "the parsed header"))
    gate.check("documentation", documentation_faults(header))
    mapped = map_names(gate.read("lib/libxvsa.map"))
    gate.check("map and header", differences(mapped, "the map", declared, "the header"))
    exported = exported_names(shared_object(gate.build))
    gate.check("library and map", differences(exported, "the library", mapped, "the map"))
    gate.end()


if __name__ == "__main__":
    main()
