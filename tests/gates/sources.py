#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Sources keep the house's rules: length, format, licence line, calls that are not made."""

import os
import re
import tempfile

from gate import Gate, run, strip_comments, strip_strings

FOLDERS = ["include", "lib", "tools", "examples", "tests"]
FILE_LINES = 600
HEADER_LINES = 1200  # the public header documents the whole API
LICENCE = "SPDX-License-Identifier: LGPL-2.1-or-later"

IN_PRODUCT = ["sprintf", "vsprintf", "strcpy", "strcat", "stpcpy", "gets", "tmpnam", "mktemp",
            "system", "popen", "alloca", "strtok", "asctime", "ctime"]
IN_LIBRARY = ["printf", "vprintf", "puts", "putchar", "fprintf", "perror", "exit", "_exit",
              "quick_exit", "abort", "assert", "getenv", "secure_getenv", "setenv", "signal",
              "sigaction", "atoi", "atol", "atoll", "atof", "localtime", "setlocale", "sleep",
              "usleep", "rand", "srand", "random"]
# Streams that stand for what the library never writes to.
STREAMS = re.compile(r"\b(stdout|stderr|stdin)\b")
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
# Places of one machine have no business in the project.
MACHINE = re.compile(r"(?<![\w.])/(?:work|root|home)/\w")


def call_faults(path, text):
    """Calls that are not made."""
    code = strip_strings(strip_comments(text))
    banned = ([] if path.startswith("tests/") else IN_PRODUCT) + (
        IN_LIBRARY if path.startswith("lib/") else [])
    faults = []
    for number, line in enumerate(code.splitlines(), 1):
        for name in re.findall(r"(?<![\w.>])(\w+)\s*\(", line):
            if name in banned:
                faults.append(f"{path}:{number}: {name}() is not used here")
        if path.startswith("lib/") and STREAMS.search(line):
            faults.append(f"{path}:{number}: the library has no standard streams")
    return faults


def text_faults(path, text):
    """Length, licence, unfinished work, machine paths."""
    faults = []
    lines = text.splitlines()
    limit = HEADER_LINES if path == "include/xvsa.h" else FILE_LINES
    if len(lines) > limit:
        faults.append(f"{path}: {len(lines)} lines; {limit} are the limit")
    if LICENCE not in "\n".join(lines[:4]):
        faults.append(f"{path}: no licence line at the top")
    if path != "tests/gates/sources.py":
        for number, line in enumerate(lines, 1):
            if UNFINISHED.search(line):
                faults.append(f"{path}:{number}: unfinished: {line.strip()}")
            if MACHINE.search(line):
                faults.append(f"{path}:{number}: a path of one machine: {line.strip()}")
    return faults


def format_faults(paths, folder):
    """Files that clang-format would change."""
    faults = []
    for begin in range(0, len(paths), 50):
        status, text = run(["clang-format", "--dry-run", "--Werror", "--style=file",
                            *paths[begin:begin + 50]], cwd=folder)
        if status != 0:
            faults += sorted(set(re.findall(r"^(\S+?):\d+:\d+: error", text, re.M)) or {text})
    return [f"{fault}: clang-format would change it" for fault in faults]


def self_test(gate):
    """Seeds one fault of each kind."""
    gate.notices("a banned call", call_faults("tools/x.c", "int f(void)\n{ strcpy(a, b); }\n"),
                 "strcpy")
    gate.notices("a print of the library", call_faults("lib/base/x.c", "{ printf(a); }\n"),
                 "printf")
    gate.check("leaves comments and strings alone",
               call_faults("lib/base/x.c", '/* exit(1) */ f("system(x)");\n'))
    gate.notices("a long file", text_faults("lib/x.c", f"/* {LICENCE} */\n" + "\n" * FILE_LINES),
                 "limit")
    gate.notices("a missing licence", text_faults("lib/x.c", "int a;\n"), "licence")
    gate.notices("unfinished work", text_faults("lib/x.c", f"/* {LICENCE} */\n/* TODO */\n"),
                 "unfinished")
    with tempfile.TemporaryDirectory(prefix="xvsa-gate-") as folder:
        with open(os.path.join(folder, ".clang-format"), "w", encoding="utf-8") as file:
            file.write(gate.read(".clang-format"))
        with open(os.path.join(folder, "x.c"), "w", encoding="utf-8") as file:
            file.write("int  f( void ) { return 1; }\n")
        gate.notices("a file out of format", format_faults(["x.c"], folder), "x.c")


def main():
    """Runs the checks."""
    gate = Gate(__doc__)
    self_test(gate)
    code = gate.sources(FOLDERS, (".c", ".h"))
    scripts = gate.sources(FOLDERS, (".py",))
    gate.check("calls", [fault for path, text in code.items()
                         for fault in call_faults(path, text)])
    gate.check("length, licence, leftovers", [fault for path, text in {**code, **scripts}.items()
                                              for fault in text_faults(path, text)])
    gate.check("format", format_faults(list(code), gate.source))
    gate.end()


if __name__ == "__main__":
    main()
