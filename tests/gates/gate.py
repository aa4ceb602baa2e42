# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the gates share: options, "ok" lines, reading the sources and the public header.

A gate is a program with two options, --source and --build. It prints "ok NAME" or "not ok NAME"
for each check, with the reasons below as comments, and ends with 1 when a check failed. Each gate
first shows on faults of its own making that it would notice them.
"""

import argparse
import os
import re
import subprocess
import sys


class Gate:
    """Collects and prints the outcome of checks."""

    def __init__(self, description):
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument("--source", required=True, help="root of the sources")
        parser.add_argument("--build", required=True, help="folder of a finished build")
        parser.add_argument("--update", action="store_true",
                            help="accept what is new, where the gate keeps a record")
        self.options = parser.parse_args()
        self.source = os.path.abspath(self.options.source)
        self.build = os.path.abspath(self.options.build)
        self.failed = 0
        self.ran = 0

    def check(self, name, faults):
        """Reports a check: it passed when the list of faults is empty."""
        self.ran += 1
        if faults:
            self.failed += 1
        print(f"{'not ok' if faults else 'ok'} {name}")
        for fault in faults:
            print(f"# {fault}")
        sys.stdout.flush()

    def notices(self, name, faults, expected):
        """Reports a self-test: faults must hold one line that contains expected."""
        missed = not any(expected in fault for fault in faults)
        self.check(f"notices {name}", [f"the seeded fault was not found; found: {faults}"]
                   if missed else [])

    def skip(self, name, reason):
        """Reports a check that cannot run here."""
        print(f"ok {name} # SKIP {reason}")

    def end(self):
        """Ends the program."""
        if self.ran == 0:
            print("not ok nothing was checked")
        sys.exit(1 if self.failed or self.ran == 0 else 0)

    def read(self, path):
        """Text of a file named relative to the source root."""
        with open(os.path.join(self.source, path), encoding="utf-8") as file:
            return file.read()

    def files(self, folders, endings):
        """Sorted paths, relative to the root, of the files below folders with one of endings."""
        found = []
        for folder in folders:
            for base, names, files in os.walk(os.path.join(self.source, folder)):
                names[:] = [name for name in names if not name.startswith((".", "__"))]
                found += [os.path.relpath(os.path.join(base, name), self.source)
                          for name in files if name.endswith(endings)]
        return sorted(found)

    def sources(self, folders, endings):
        """Map of path to text of the files below folders with one of endings."""
        return {path: self.read(path) for path in self.files(folders, endings)}


def run(command, **options):
    """Runs a command; returns its status and everything it printed."""
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            stdin=subprocess.DEVNULL, text=True, check=False, **options)
    return result.returncode, result.stdout


def shared_object(build):
    """Path of the built shared library."""
    return os.path.join(build, "lib", "libxvsa.so")


def strip_comments(text):
    """Source text with comments blanked, lines kept, so that only code is looked at."""
    def blank(match):
        token = match.group(0)
        return re.sub(r"[^\n]", " ", token) if token.startswith("/") else token
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', blank, text,
                  flags=re.S)


def strip_strings(text):
    """Code with the contents of string literals blanked."""
    return re.sub(r'"(?:\\.|[^"\\\n])*"', lambda m: '"' + " " * (len(m.group(0)) - 2) + '"', text)


def header_structs(header):
    """Public structures of the header in order: name to list of member names."""
    code = strip_comments(header)
    structs = {}
    for name, body in re.findall(r"typedef struct (\w+) \{(.*?)\n\} \1;", code, re.S):
        members = []
        for statement in body.split(";"):
            statement = " ".join(statement.split())
            if not statement:
                continue
            pointer = re.search(r"\(\*(\w+)\)", statement)
            plain = re.search(r"(\w+)(?:\[\w+\])?$", statement)
            members.append((pointer or plain).group(1))
        structs[name] = members
    return structs
