#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The built library and tool carry the protections of a hardened build."""

import os
import re
import tempfile

from gate import Gate, run, shared_object


def dynamic_faults(path):
    """Protections that readelf must show."""
    status, headers = run(["readelf", "-W", "-l", "-d", path])
    if status != 0:
        return [headers]
    faults = []
    if "GNU_RELRO" not in headers:
        faults.append("no RELRO segment")
    if not re.search(r"\(FLAGS\).*BIND_NOW|\(FLAGS_1\).*\bNOW\b|\(BIND_NOW\)", headers):
        faults.append("symbols are not bound at start (BIND_NOW)")
    stack = re.search(r"GNU_STACK.*?(R\w*)\s+0x\w+$", headers, re.M)
    if stack is None or "E" in stack.group(1):
        faults.append("the stack is executable")
    if "TEXTREL" in headers:
        faults.append("text relocations")
    if re.search(r"\((?:RPATH|RUNPATH)\).*\[/", headers):
        faults.append("an absolute library path is built in")
    return faults


def position_faults(path):
    """A program that is loaded at a fixed place."""
    _, header = run(["readelf", "-h", path])
    return [] if re.search(r"Type:\s+DYN", header) else ["it is not position independent (PIE)"]


def symbol_faults(path):
    """Signs in the symbol table that functions are guarded."""
    _, table = run(["nm", "-D", "--undefined-only", path])
    faults = []
    if "__stack_chk_fail" not in table:
        faults.append("no stack protector")
    if not re.search(r"__\w+_chk@", table):
        faults.append("no fortified calls (_FORTIFY_SOURCE)")
    return faults


def needed_faults(path, allowed):
    """Libraries that are loaded without being dependencies of the project."""
    _, text = run(["readelf", "-d", path])
    needed = re.findall(r"\(NEEDED\).*\[(.*?)\]", text)
    return [f"{name} is loaded" for name in needed if not name.startswith(allowed)]


def self_test(gate):
    """Builds a library without protections."""
    with tempfile.TemporaryDirectory(prefix="xvsa-gate-") as folder:
        source = os.path.join(folder, "weak.c")
        with open(source, "w", encoding="utf-8") as file:
            file.write("int f(void) { return 1; }\n")
        library = os.path.join(folder, "libweak.so")
        run(["gcc", "-shared", "-fPIC", "-fno-stack-protector", "-Wl,-z,norelro", "-Wl,-z,lazy",
             "-Wl,-z,execstack", source, "-o", library])
        program = os.path.join(folder, "weak")
        with open(source, "a", encoding="utf-8") as file:
            file.write("int main(void) { return f(); }\n")
        run(["gcc", "-no-pie", source, "-o", program])
        found = dynamic_faults(library) + symbol_faults(library) + position_faults(program)
        for expected in ("RELRO", "BIND_NOW", "executable", "stack protector", "fortified",
                         "PIE"):
            gate.notices(f"missing: {expected}", found, expected)


def main():
    """Runs the checks."""
    gate = Gate(__doc__)
    self_test(gate)
    library = shared_object(gate.build)
    gate.check("library: segments and flags", dynamic_faults(library))
    gate.check("library: guarded functions", symbol_faults(library))
    gate.check("library: what it loads", needed_faults(library, (
        "libcurl.", "libxml2.", "libxxhash.", "libzstd.", "libnbd.", "libcrypto.", "libssl.",
        "libsqlite3.", "libjansson.", "libc.", "libm.", "ld-linux")))
    tool = os.path.join(gate.build, "tools", "xvsa")
    if os.path.exists(tool):
        gate.check("tool: segments and flags", dynamic_faults(tool) + position_faults(tool))
        gate.check("tool: what it loads",
                   needed_faults(tool, ("libxvsa.", "libjansson.", "libmicrohttpd.", "libc.",
                                        "ld-linux")))
    gate.end()


if __name__ == "__main__":
    main()
