#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The public header compiles alone, without a warning, in every C and C++ it promises."""

import os
import tempfile

from gate import Gate, header_structs, run

WARNINGS = ["-Wall", "-Wextra", "-Wpadded", "-pedantic", "-Werror", "-Wmissing-field-initializers",
            "-Wconversion", "-Wshadow"]
MATRIX = [(compiler, standard, "c") for compiler in ("gcc", "clang")
          for standard in ("c99", "c11", "c17")]
MATRIX += [(compiler, standard, "c++") for compiler in ("g++", "clang++")
           for standard in ("c++11", "c++14", "c++17", "c++20")]


def program(header):
    """A program that includes the header twice and uses every initialiser."""
    lines = ['#include "xvsa.h"', '#include "xvsa.h"', "int main(void)", "{", "    int bad = 0;"]
    for name in header_structs(header):
        macro = f"{name.upper()}_INIT"
        if f"#define {macro} " in header:
            lines.append(f"    {{ {name} value = {macro}; bad |= value.size != sizeof value; }}")
    lines += ["    return bad;", "}"]
    return "\n".join(lines) + "\n"


def compile_faults(folder, include, header, compiler, standard, language):
    """Compiles and runs the program; returns what went wrong."""
    source = os.path.join(folder, "use." + ("c" if language == "c" else "cpp"))
    with open(source, "w", encoding="utf-8") as file:
        file.write(program(header))
    output = os.path.join(folder, "use")
    warnings = list(WARNINGS)
    if language == "c++":
        # In C++ the initialiser lists the first member alone, which the warning cannot know to be
        # the meaning of "zero is the default".
        warnings.append("-Wno-missing-field-initializers")
    status, text = run([compiler, f"-std={standard}", *warnings, f"-I{include}", source, "-o",
                        output])
    if status == 0:
        status, text = run([output])
        text = text or "an initialiser does not set size"
    return [text.strip()] if status != 0 else []


def self_test(gate, folder, header):
    """Seeds a hole in a structure and a C++ keyword."""
    seeds = {
        "a hole in a structure": ("typedef struct xvsa_call {\n    uint32_t size;",
                                  "typedef struct xvsa_call {\n    uint32_t size; uint64_t x;",
                                  "gcc", "c11", "c", "padding"),
        "a keyword of C++": ("xvsa_cancel *cancel; /**< may be NULL",
                             "xvsa_cancel *class; /**< may be NULL", "g++", "c++11", "c++",
                             "error"),
    }
    for name, (old, new, compiler, standard, language, expected) in seeds.items():
        include = os.path.join(folder, "seeded")
        os.makedirs(include, exist_ok=True)
        seeded = header.replace(old, new, 1)
        with open(os.path.join(include, "xvsa.h"), "w", encoding="utf-8") as file:
            file.write(seeded)
        found = compile_faults(folder, include, header, compiler, standard, language)
        gate.notices(name, found if seeded != header else [], expected)


def main():
    """Runs the checks."""
    gate = Gate(__doc__)
    header = gate.read("include/xvsa.h")
    include = os.path.join(gate.source, "include")
    with tempfile.TemporaryDirectory(prefix="xvsa-gate-") as folder:
        self_test(gate, folder, header)
        for compiler, standard, language in MATRIX:
            gate.check(f"{compiler} -std={standard}",
                       compile_faults(folder, include, header, compiler, standard, language))
        for compiler in ("gcc", "clang"):
            source = os.path.join(folder, "short.c")
            with open(source, "w", encoding="utf-8") as file:
                file.write('#include "xvsa.h"\n')
            status, text = run([compiler, "-std=c99", "-fshort-enums", "-fsyntax-only", *WARNINGS,
                                f"-I{include}", source])
            gate.check(f"{compiler} -fshort-enums", [] if status == 0 else [text])
    gate.end()


if __name__ == "__main__":
    main()
