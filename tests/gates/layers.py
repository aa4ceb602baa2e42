#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Modules of lib/ include only what lies below them, and each third-party header has its place."""

import fnmatch
import re

from gate import Gate, strip_comments

# The modules that a module may include besides itself.
BELOW = {
    "base": set(),
    "net": {"base"},
    "diff": {"base"},
    "target": {"base", "net"},
    "disk": {"base", "net", "diff"},
    "repo": {"base", "diff", "disk", "target"},
    "xenapi": {"base", "net", "diff", "disk"},
    "coord": {"base", "net"},
    "sched": {"base"},
    "job": {"base", "net", "diff", "disk", "target", "repo", "xenapi", "coord", "sched"},
    "agent": {"base", "target", "repo", "xenapi", "coord", "sched", "job"},
    "api": {"base", "net", "diff", "disk", "target", "repo", "xenapi", "coord", "sched", "job",
            "agent"},
}

# Third-party headers, each with the only files that may include it.
PLACES = {
    "curl/*": ["lib/net/*"],
    "libxml/*": ["lib/xenapi/xmlrpc*.[ch]"],
    "libnbd.h": ["lib/disk/nbd*.[ch]"],
    "sqlite3.h": ["lib/coord/*"],
    "openssl/*": ["lib/repo/crypt*.[ch]", "lib/net/trust*.[ch]", "lib/disk/nbd*.[ch]",
                  "lib/diff/*.c", "lib/coord/kv_etcd*.[ch]"],
    "zstd.h": ["lib/repo/*"],
    "xxhash.h": ["lib/repo/*", "lib/diff/*", "lib/job/*"],
    "microhttpd.h": ["tools/serve_http.c"],
    "jansson.h": ["lib/api/*", "lib/job/*", "lib/xenapi/*", "lib/repo/*", "lib/coord/*",
                  "lib/target/*", "lib/agent/*"],
}
INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]', re.M)


def module_faults(path, text):
    """Faults of one file of lib/."""
    module = path.split("/")[1]
    if module not in BELOW:
        return [f"{path}: lib/{module} is not a module that design knows"]
    faults = []
    for kind, name in INCLUDE.findall(strip_comments(text)):
        if kind == '"':
            if name == "xvsa.h":
                continue
            used = name.split("/")[0]
            if "/" not in name or used not in BELOW:
                faults.append(f'{path}: "{name}" does not begin with a module')
            elif used != module and used not in BELOW[module]:
                faults.append(f'{path}: {module} may not use "{name}"')
        else:
            for pattern, places in PLACES.items():
                if fnmatch.fnmatch(name, pattern) and not any(
                        fnmatch.fnmatch(path, place) for place in places):
                    faults.append(f"{path}: <{name}> belongs to {', '.join(places)}")
    return faults


def client_faults(path, text):
    """Faults of a program that lives on the public header alone: no internal header, no library
    but jansson and what has its place there."""
    faults = []
    for kind, name in INCLUDE.findall(strip_comments(text)):
        if kind == '"' and "/" in name:
            faults.append(f'{path}: "{name}" is not a header of its own folder')
        if kind == "<" and name != "jansson.h" and any(
                fnmatch.fnmatch(name, pattern) and path not in places
                for pattern, places in PLACES.items()):
            faults.append(f"{path}: <{name}> is none of its business")
    return faults


def exporting_faults(files):
    """Definitions of public functions outside lib/api, other than the accessors of errors and
    tokens, whose layout only lib/base knows."""
    faults = []
    for path, text in files.items():
        if path.startswith("lib/api/") or not path.endswith(".c"):
            continue
        for name in re.findall(r"^(?:[\w*]+ )+\**(xvsa_\w+)\([^;{]*\)\s*\{", strip_comments(text),
                               re.M):
            if not (path.startswith("lib/base/") and re.match(
                    r"xvsa_(error|cancel|code|version)", name)):
                faults.append(f"{path}: {name} is defined outside lib/api")
    return faults


def self_test(gate):
    """Seeds one fault of each kind."""
    gate.notices("an include upwards", module_faults("lib/repo/x.c", '#include "job/job.h"\n'),
                 "may not use")
    gate.notices("a sibling", module_faults("lib/xenapi/x.c", '#include "repo/repo.h"\n'),
                 "may not use")
    gate.notices("a bare include", module_faults("lib/repo/x.c", '#include "pack.h"\n'),
                 "does not begin")
    gate.notices("a third-party header out of place",
                 module_faults("lib/xenapi/x.c", "#include <curl/curl.h>\n"), "belongs to")
    gate.notices("a tool that looks inside",
                 client_faults("tools/x.c", '#include "repo/repo.h"\n'), "own folder")
    gate.notices("an export outside lib/api",
                 exporting_faults({"lib/job/x.c": "int32_t xvsa_job_x(int a)\n{\n"}), "outside")


def main():
    """Runs the checks."""
    gate = Gate(__doc__)
    self_test(gate)
    files = gate.sources(["lib"], (".c", ".h"))
    for module in BELOW:
        faults = [fault for path, text in files.items() if path.startswith(f"lib/{module}/")
                  for fault in module_faults(path, text)]
        gate.check(f"lib/{module}", faults)
    strangers = {path.split("/")[1] for path in files} - set(BELOW)
    gate.check("no other module", [f"lib/{name}" for name in sorted(strangers)])
    clients = gate.sources(["tools", "examples"], (".c", ".h"))
    gate.check("tools and examples", [fault for path, text in clients.items()
                                      for fault in client_faults(path, text)])
    gate.check("exports", exporting_faults(files))
    gate.end()


if __name__ == "__main__":
    main()
