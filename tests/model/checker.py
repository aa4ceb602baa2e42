#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Checks a model with Spin, all states of it.

    checker.py [MODEL] [DEFINE...]      as in  checker.py commit.pml BUG_TOKEN

Prints the number of states, and how an assertion fails when one does; ends with 1 then.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile

FOLDER = os.path.dirname(os.path.abspath(__file__))
TIMEOUT = 300
DEPTH = 10000
MEMORY_MB = 2000


class Broken(Exception):
    """The model could not be checked as a whole."""


class Result:
    """What the checker found."""

    def __init__(self, states, failure, trail):
        self.states, self.failure, self.trail = states, failure, trail


def missing():
    """Programs that are not installed."""
    return [name for name in ("spin", "gcc") if shutil.which(name) is None]


def run(command, folder):
    """Output of a command that must succeed."""
    done = subprocess.run(command, cwd=folder, text=True, timeout=TIMEOUT, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        raise Broken(f"{' '.join(command)}: {done.stdout.strip()[-500:]}")
    return done.stdout


def check(model, defines=()):
    """Checks every state of a model; defines: macros to be set."""
    options = [f"-D{name}" for name in defines]
    path = os.path.join(FOLDER, model)
    with tempfile.TemporaryDirectory(prefix="xvsa-model-") as folder:
        said = run(["spin", *options, "-a", path], folder)
        if "rror" in said:
            raise Broken(f"{model}: {said.strip()}")
        run(["gcc", "-O1", "-w", "-DSAFETY", f"-DMEMLIM={MEMORY_MB}", "-o", "pan", "pan.c"], folder)
        out = run(["./pan", "-E", f"-m{DEPTH}"], folder)
        states = re.search(r"^\s*(\d+) states, stored", out, re.M)
        errors = re.search(r"errors: (\d+)", out)
        if states is None or errors is None or "MEMLIM" in out or "max search depth" in out:
            raise Broken(f"{model}: the search was not complete: {out[-500:]}")
        failure = trail = None
        if int(errors[1]):
            failure = re.search(r"pan:\d+: (.*)", out)[1]
            trail = run(["spin", *options, "-t", "-p", "-k", os.path.basename(path) + ".trail", path],
                        folder)
        return Result(int(states[1]), failure, trail)


def main():
    """Command line."""
    words = sys.argv[1:]
    if any(word.startswith("-") for word in words):
        print(__doc__)
        return 0 if words[0] in ("-h", "--help") else 2
    if missing():
        print(f"checker.py: not installed: {' '.join(missing())}", file=sys.stderr)
        return 2
    model = words.pop(0) if words and words[0].endswith(".pml") else "commit.pml"
    try:
        result = check(model, words)
    except Broken as broken:
        print(f"checker.py: {broken}", file=sys.stderr)
        return 2
    print(f"{result.states} states")
    if result.failure:
        print(result.trail)
        print(result.failure)
    return 1 if result.failure else 0


if __name__ == "__main__":
    sys.exit(main())
