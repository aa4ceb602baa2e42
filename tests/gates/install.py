#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The installed library serves a program outside the project, shared and static, and nothing else
than what belongs to it is installed."""

import os
import shlex
import tempfile

from gate import Gate, run

PROGRAM = """
#include <stdio.h>
#include <xvsa.h>

int main(void)
{
    xvsa_context *context = NULL;
    xvsa_error *error = NULL;
    if (xvsa_context_new(NULL, &context, &error) != XVSA_OK) {
        printf("%s\\n", xvsa_error_message(error));
        return 1;
    }
    xvsa_context_unref(context);
    printf("%s %d\\n", xvsa_version_string(), xvsa_version() == XVSA_VERSION);
    return 0;
}
"""


def installed_files(root):
    """Paths below root."""
    return sorted(os.path.relpath(os.path.join(base, name), root)
                  for base, _, names in os.walk(root) for name in names)


def package_faults(files):
    """What must be installed and what must not."""
    faults = [f"{ending} is not installed"
              for ending in ("include/xvsa.h", "libxvsa.so", "libxvsa.so.0", "libxvsa.a",
                             "pkgconfig/libxvsa.pc", "bin/xvsa", "bash-completion/completions/xvsa",
                             "systemd/system/xvsa-serve.service")
              if not any(path.endswith(ending) for path in files)]
    known = ("xvsa.h", "libxvsa", "bin/xvsa", "completions/xvsa", "man/", "xvsa-serve.service")
    return faults + [f"{path} does not belong there" for path in files
                     if not any(part in path for part in known)]


def pkg_config(root, *arguments):
    """Asks pkg-config as a program outside would that finds us below root."""
    folders = [base for base, _, names in os.walk(root) if "libxvsa.pc" in names]
    if not folders:
        return 1, "no libxvsa.pc"
    # Only our own paths lie below root: the rest of the system stays where it is.
    prefix = os.path.join(root, "usr")
    return run(["pkg-config", f"--define-variable=prefix={prefix}", *arguments, "libxvsa"],
               env={**os.environ, "PKG_CONFIG_PATH": folders[0]})


def linking(root, static):
    """Compiler arguments of a program; a static one takes our archive and the system's libraries."""
    if not static:
        return pkg_config(root, "--cflags", "--libs")
    status, flags = pkg_config(root, "--cflags")
    if status == 0:
        status, names = pkg_config(root, "--print-requires-private")
    if status != 0:
        return status, flags
    packages = [line.split()[0] for line in names.splitlines() if line.strip()]
    status, others = run(["pkg-config", "--libs", *packages])
    return status, f"{flags} -l:libxvsa.a {others} -pthread"


def use_faults(root, folder, static):
    """Compiles a program against the installed library and runs it."""
    status, flags = linking(root, static)
    if status != 0:
        return [flags]
    source = os.path.join(folder, "use.c")
    with open(source, "w", encoding="utf-8") as file:
        file.write(PROGRAM)
    library = next(base for base, _, names in os.walk(root) if "libxvsa.so" in names)
    program = os.path.join(folder, "use")
    status, text = run(["gcc", "-std=c99", "-Wall", "-Werror", source, f"-L{library}",
                        *shlex.split(flags), "-o", program])
    if status != 0:
        return [text]
    _, linked = run(["readelf", "-d", program])
    if static and "libxvsa" in linked:
        return ["the static program loads the shared library"]
    if not static and "libxvsa.so.0" not in linked:
        return ["the program does not load libxvsa.so.0"]
    status, text = run([program], env={**os.environ, "LD_LIBRARY_PATH": library})
    return [] if status == 0 and text.split()[1:] == ["1"] else [f"it ended with {status}: {text}"]


def main():
    """Runs the checks."""
    gate = Gate(__doc__)
    gate.notices("a missing file", package_faults(["usr/lib/libxvsa.so"]), "xvsa.h is not")
    gate.notices("a foreign file", package_faults(["usr/bin/helper"]), "does not belong")
    with tempfile.TemporaryDirectory(prefix="xvsa-gate-") as folder:
        gate.notices("an empty installation", use_faults(folder, folder, False), "libxvsa.pc")
        build = os.path.join(folder, "build")
        root = os.path.join(folder, "root")
        status, text = run(["meson", "setup", build, gate.source, "--prefix=/usr",
                            "-Dtests=false", "--buildtype=release"])
        if status == 0:
            status, text = run(["meson", "install", "-C", build, "--destdir", root])
        gate.check("installation", [] if status == 0 else text.splitlines()[-10:])
        if status == 0:
            gate.check("what is installed", package_faults(installed_files(root)))
            gate.check("a shared program", use_faults(root, folder, False))
            gate.check("a static program", use_faults(root, folder, True))
    gate.end()


if __name__ == "__main__":
    main()
