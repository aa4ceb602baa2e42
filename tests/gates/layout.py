#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The layout of public structures never changes; they only grow at the end.

tests/abi/layout.txt is a ledger of one line a member ("struct.member offset size") and one line a
size that a structure ever had ("struct size"). Lines are only added, with --update.
"""

import os
import subprocess
import tempfile

from gate import Gate, header_structs, run

LEDGER = "tests/abi/layout.txt"


def measure(header, include):
    """Lines that describe the structures of the header as the compiler lays them out."""
    lines = ["#include <stdio.h>", '#include "xvsa.h"', "int main(void)", "{"]
    for name, members in header_structs(header).items():
        for member in members:
            lines.append(f'    printf("{name}.{member} %zu %zu\\n", offsetof({name}, {member}), '
                         f"sizeof((({name} *)0)->{member}));")
        lines.append(f'    printf("{name} %zu\\n", sizeof({name}));')
    lines += ["    return 0;", "}"]
    with tempfile.TemporaryDirectory(prefix="xvsa-gate-") as folder:
        source = os.path.join(folder, "layout.c")
        with open(source, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        program = os.path.join(folder, "layout")
        status, text = run(["gcc", "-std=c11", f"-I{include}", source, "-o", program])
        if status == 0:
            status, text = run([program])
    if status != 0:
        raise SystemExit(f"not ok the layout program\n# {text}")
    return text.splitlines()


def sizes(lines, name):
    """Sizes of a structure that lines tell, in their order."""
    return [int(line.split()[1]) for line in lines
            if line.split()[0] == name and len(line.split()) == 2]


def compare(ledger, now):
    """Faults of the present layout against the ledger, and the lines the ledger lacks."""
    faults = []
    present = set(now)
    for line in ledger:
        fields = line.split()
        if len(fields) == 3 and line not in present:
            faults.append(f"{line}: moved, resized or removed")
    new = [line for line in now if line not in set(ledger)]
    for line in new:
        fields = line.split()
        name = fields[0].split(".")[0]
        known = sizes(ledger, name)
        if len(fields) == 3 and known and int(fields[1]) < known[-1]:
            faults.append(f"{line}: new, but not behind the {known[-1]} bytes known before")
        if len(fields) == 2 and known and int(fields[1]) < known[-1]:
            faults.append(f"{line}: smaller than the {known[-1]} bytes known before")
    return faults, new


def recorded(gate):
    """The ledger as the last commit has it; None when that cannot be told."""
    result = subprocess.run(["git", "-C", gate.source, "show", f"HEAD:{LEDGER}"],
                            capture_output=True, text=True, check=False)
    return result.stdout.splitlines() if result.returncode == 0 else None


def self_test(gate, now):
    """Seeds a moved, a removed, an inserted and an appended member."""
    first = next(i for i, line in enumerate(now) if len(line.split()) == 3)
    name = now[first].split()[0]
    moved = [line.replace(" 0 4", " 4 4") if line.startswith(name + " ") else line for line in now]
    gate.notices("a moved member", compare(now, moved)[0], name)
    gate.notices("a removed member", compare(now, now[:first] + now[first + 1:])[0], name)
    struct = name.split(".")[0]
    gate.notices("a member that is put between", compare(now, now + [f"{struct}.extra 4 4"])[0],
                 "extra")
    end = sizes(now, struct)[-1]
    grown = now + [f"{struct}.extra {end} 8", f"{struct} {end + 8}"]
    gate.check("accepts growth at the end", compare(now, grown)[0])


def main():
    """Runs the checks."""
    gate = Gate(__doc__)
    now = measure(gate.read("include/xvsa.h"), os.path.join(gate.source, "include"))
    path = os.path.join(gate.source, LEDGER)
    ledger = gate.read(LEDGER).splitlines() if os.path.exists(path) else []
    self_test(gate, now)
    faults, new = compare(ledger, now)
    if gate.options.update and not faults:
        with open(path, "a", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in new)
        new = []
    gate.check("the header keeps to the ledger", faults)
    gate.check("the ledger is complete",
               [f"{line}: not in {LEDGER}; accept it with --update" for line in new])
    before = recorded(gate)
    if before is None:
        gate.skip("the ledger only grew", "no earlier version of it is known")
    else:
        gate.check("the ledger only grew", [] if ledger[:len(before)] == before
                   else [f"lines of {LEDGER} were changed or removed"])
    gate.end()


if __name__ == "__main__":
    main()
