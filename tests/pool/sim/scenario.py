# SPDX-License-Identifier: LGPL-2.1-or-later
"""Scenario files: what is in a pool, checked before anything is built.

The format is documented in ../README.md.
"""

import hashlib
import json
import os
import random
import re

from .errors import ScenarioError
from .model import ROLES, ROLE_NAMES, release_key
from .pool import DEFAULTS
from .sr import ALL_TYPES

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
MEMBERS = {
    "scenario": {"name", "pool", "hosts", "srs", "networks", "vms", "users", "options", "faults",
                 "generate"},
    "pool": {"uuid", "name", "other_config"},
    "host": {"name", "uuid", "address", "memory", "emergency"},
    "sr": {"name", "uuid", "type", "shared", "size", "hosts", "default", "content_type", "filled",
           "other_config"},
    "network": {"name", "uuid", "bridge", "purpose", "hosts"},
    "vm": {"name", "uuid", "power_state", "host", "memory", "vcpus", "disks", "vifs", "tags",
           "other_config", "NVRAM", "vtpm", "guest_tools", "hvm", "description", "cd", "affinity",
           "template", "blocked_operations", "platform"},
    "disk": {"name", "uuid", "sr", "size", "source", "generate", "cbt", "device", "bootable",
             "mode", "shared_with", "sharable", "type", "tags", "on_boot"},
    "vif": {"network", "mac", "device"},
    "user": {"name", "password", "role"},
    "generate": {"hosts", "vms", "disks_per_vm", "srs", "disk_size", "running", "seed"},
}


class Reader:
    """Checked access to one object of the scenario; `where` names it in errors."""

    def __init__(self, value, kind, where):
        if not isinstance(value, dict):
            raise ScenarioError("%s: an object is wanted, not %r" % (where, value))
        unknown = set(value) - MEMBERS[kind]
        if unknown:
            raise ScenarioError("%s: unknown member %s (known: %s)" % (
                where, ", ".join(sorted(unknown)), ", ".join(sorted(MEMBERS[kind]))))
        self.value, self.where = value, where

    def get(self, name, type_, default=None):
        if name not in self.value:
            if default is None:
                raise ScenarioError("%s: '%s' is missing" % (self.where, name))
            return default
        found = self.value[name]
        if not isinstance(found, type_) or (type_ is int and isinstance(found, bool)):
            raise ScenarioError("%s: '%s' must be %s, not %r" % (
                self.where, name, getattr(type_, "__name__", type_), found))
        return found

    def size(self, name, default=None):
        if name not in self.value and default is not None:
            return default
        return parse_size(self.value.get(name), "%s: '%s'" % (self.where, name))

    def readers(self, name, kind, label):
        items = self.get(name, list, [])
        return [Reader(v, kind, "%s[%d]" % (label, i)) for i, v in enumerate(items)]


def parse_size(value, where):
    """Bytes of 10, "10 MiB", "4G"."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = re.fullmatch(r"\s*(\d+)\s*([KMGT]?)(?:i?B)?\s*", str(value))
    if not match:
        raise ScenarioError("%s: %r is not a size (10, \"10 MiB\", \"4 GiB\")" % (where, value))
    return int(match.group(1)) * UNITS[match.group(2)]


def stable_uuid(*words):
    """The same scenario has the same uuids each time."""
    digest = hashlib.sha256("/".join(words).encode()).hexdigest()
    return "-".join((digest[:8], digest[8:12], digest[12:16], digest[16:20], digest[20:32]))


def load(path):
    """The checked scenario of a file."""
    try:
        with open(path, encoding="utf-8") as source:
            data = json.load(source)
    except OSError as error:
        raise ScenarioError("%s: %s" % (path, error.strerror)) from error
    except ValueError as error:
        raise ScenarioError("%s: not JSON: %s" % (path, error)) from error
    return check(data, os.path.dirname(os.path.abspath(path)))


def check(data, base="."):
    """Fill defaults, resolve names; returns plain dictionaries for build.py."""
    top = Reader(data, "scenario", "scenario")
    if "generate" in data:
        data = expand(top)
        top = Reader(data, "scenario", "scenario")
    name = top.get("name", str, "pool")
    plan = {"name": name, "base": base, "faults": top.get("faults", list, [])}
    plan["options"] = check_options(top.get("options", dict, {}))
    pool = Reader(top.get("pool", dict, {}), "pool", "pool")
    plan["pool"] = {"uuid": pool.get("uuid", str, stable_uuid(name, "pool")),
                    "name": pool.get("name", str, name),
                    "other_config": pool.get("other_config", dict, {})}
    plan["hosts"] = [check_host(r, name) for r in top.readers("hosts", "host", "hosts")]
    if not plan["hosts"]:
        raise ScenarioError("scenario: 'hosts' must list at least one host")
    names = unique(plan["hosts"], "hosts")
    plan["srs"] = [check_sr(r, name, names) for r in top.readers("srs", "sr", "srs")]
    srs = unique(plan["srs"], "srs")
    plan["networks"] = [check_network(r, name, names, i) for i, r in
                        enumerate(top.readers("networks", "network", "networks"))]
    networks = unique(plan["networks"], "networks")
    plan["vms"] = [check_vm(r, name, names, srs, networks) for r in top.readers("vms", "vm", "vms")]
    plan["users"] = [check_user(r) for r in top.readers("users", "user", "users")]
    return plan


def unique(items, where):
    names = [i["name"] for i in items]
    for one in names:
        if names.count(one) > 1 and len(names) < 1000:
            raise ScenarioError("%s: the name %r is used twice" % (where, one))
    return set(names)


def check_options(options):
    for key, value in options.items():
        if key not in DEFAULTS:
            raise ScenarioError("options: unknown option %r (known: %s)" % (
                key, ", ".join(sorted(DEFAULTS))))
        wanted = type(DEFAULTS[key])
        fits = isinstance(value, wanted) or (wanted is float and isinstance(value, int))
        if not fits or (isinstance(value, bool) and wanted is not bool):
            raise ScenarioError("options: %r must be %s, not %r" % (key, wanted.__name__, value))
    try:
        release_key(options.get("version", "rio"))
    except ValueError as error:
        raise ScenarioError("options: 'version': %s" % error) from error
    if options.get("nbd", "python") not in ("python", "nbdkit", "qemu-nbd", "off"):
        raise ScenarioError("options: 'nbd' must be python, nbdkit, qemu-nbd or off")
    return options


def check_host(reader, pool):
    name = reader.get("name", str)
    emergency = reader.get("emergency", list, [])
    return {"name": name, "uuid": reader.get("uuid", str, stable_uuid(pool, "host", name)),
            "address": reader.get("address", str, ""), "emergency": emergency,
            "memory": reader.size("memory", 64 << 30)}


def named(reader, value, known, what):
    if value not in known:
        raise ScenarioError("%s: there is no %s %r (there are: %s)" % (
            reader.where, what, value, ", ".join(sorted(known)) or "none"))
    return value


def check_sr(reader, pool, hosts):
    name, type_ = reader.get("name", str), reader.get("type", str, "nfs")
    if type_ not in ALL_TYPES:
        raise ScenarioError("%s: unknown type %r (known: %s)" % (
            reader.where, type_, ", ".join(sorted(ALL_TYPES))))
    plugged = [named(reader, h, hosts, "host") for h in reader.get("hosts", list, sorted(hosts))]
    shared = reader.get("shared", bool, len(plugged) > 1)
    if not shared and len(plugged) > 1:
        raise ScenarioError("%s: a local SR can be plugged into one host only" % reader.where)
    return {"name": name, "uuid": reader.get("uuid", str, stable_uuid(pool, "sr", name)),
            "type": type_, "shared": shared, "hosts": plugged, "size": reader.size("size", 1 << 40),
            "default": reader.get("default", bool, False),
            "content_type": reader.get("content_type", str, "iso" if type_ == "iso" else "user"),
            "filled": reader.size("filled", 0),
            "other_config": reader.get("other_config", dict, {})}


def check_network(reader, pool, hosts, index):
    name = reader.get("name", str)
    purpose = reader.get("purpose", list, [])
    if set(purpose) - {"nbd", "insecure_nbd"}:
        raise ScenarioError("%s: 'purpose' may hold nbd and insecure_nbd" % reader.where)
    return {"name": name, "uuid": reader.get("uuid", str, stable_uuid(pool, "network", name)),
            "bridge": reader.get("bridge", str, "xenbr%d" % index), "purpose": purpose,
            "hosts": [named(reader, h, hosts, "host")
                      for h in reader.get("hosts", list, sorted(hosts))]}


def check_vm(reader, pool, hosts, srs, networks):
    name = reader.get("name", str)
    state = reader.get("power_state", str, "Halted")
    if state not in ("Halted", "Running", "Paused"):
        raise ScenarioError("%s: 'power_state' must be Halted, Running or Paused" % reader.where)
    vm = {"name": name, "uuid": reader.get("uuid", str, stable_uuid(pool, "vm", name)),
          "power_state": state, "memory": reader.size("memory", 1 << 30),
          "vcpus": reader.get("vcpus", int, 1), "tags": reader.get("tags", list, []),
          "description": reader.get("description", str, ""),
          "other_config": reader.get("other_config", dict, {}),
          "platform": reader.get("platform", dict, {}),
          "blocked_operations": reader.get("blocked_operations", dict, {}),
          "NVRAM": reader.get("NVRAM", dict, {}), "vtpm": reader.get("vtpm", str, ""),
          "has_vtpm": "vtpm" in reader.value, "guest_tools": reader.get("guest_tools", bool, True),
          "hvm": reader.get("hvm", bool, True), "cd": reader.get("cd", bool, False),
          "template": reader.get("template", bool, False)}
    for key in ("host", "affinity"):
        vm[key] = named(reader, reader.get(key, str), hosts, "host") if key in reader.value else ""
    vm["disks"] = [check_disk(r, pool, name, srs, i) for i, r in enumerate(
        reader.readers("disks", "disk", reader.where + ".disks"))]
    vm["vifs"] = []
    for i, r in enumerate(reader.readers("vifs", "vif", reader.where + ".vifs")):
        vm["vifs"].append({"network": named(r, r.get("network", str), networks, "network"),
                           "mac": r.get("mac", str, ""), "device": r.get("device", str, str(i))})
    return vm


def check_disk(reader, pool, vm, srs, index):
    name = reader.get("name", str, "%s disk %d" % (vm, index))
    disk = {"name": name, "uuid": reader.get("uuid", str, stable_uuid(pool, "vdi", vm, str(index))),
            "sr": named(reader, reader.get("sr", str), srs, "SR"),
            "source": reader.get("source", str, ""), "generate": reader.get("generate", dict, {}),
            "cbt": reader.get("cbt", bool, False), "sharable": reader.get("sharable", bool, False),
            "device": reader.get("device", str, str(index if index < 3 else index + 1)),
            "bootable": reader.get("bootable", bool, index == 0),
            "mode": reader.get("mode", str, "RW"), "type": reader.get("type", str, "user"),
            "shared_with": reader.get("shared_with", str, ""),
            "tags": reader.get("tags", list, []), "on_boot": reader.get("on_boot", str, "persist")}
    disk["size"] = reader.size("size", 0 if disk["source"] or disk["shared_with"] else None)
    unknown = set(disk["generate"]) - {"seed", "bytes", "pattern", "chunk"}
    if unknown:
        raise ScenarioError("%s: unknown generator member %s" % (
            reader.where, ", ".join(sorted(unknown))))
    return disk


def check_user(reader):
    role = reader.get("role", str, "pool-admin")
    short = {v: k for k, v in ROLE_NAMES.items()}
    if role not in short and role not in ROLES:
        raise ScenarioError("%s: unknown role %r (known: %s)" % (
            reader.where, role, ", ".join(ROLE_NAMES.values())))
    return {"name": reader.get("name", str), "password": reader.get("password", str, "password"),
            "role": short.get(role, role)}


def expand(top):
    """A scenario of many objects from the numbers in `generate`."""
    data = dict(top.value)
    rules = Reader(data.pop("generate"), "generate", "generate")
    hosts, vms = rules.get("hosts", int, 4), rules.get("vms", int, 100)
    disks, srs = rules.get("disks_per_vm", int, 2), rules.get("srs", int, 4)
    size = rules.size("disk_size", 8 << 20)
    rng = random.Random(rules.get("seed", int, 1))
    running = float(rules.value.get("running", 0.8))
    names = ["host%03d" % i for i in range(hosts)]
    data["hosts"] = data.get("hosts", []) + [{"name": n, "memory": "4 TiB"} for n in names]
    data["srs"] = data.get("srs", []) + [
        {"name": "sr%03d" % i, "type": "nfs", "size": "1024 TiB", "default": i == 0}
        for i in range(srs)]
    data.setdefault("networks", [{"name": "management", "purpose": ["nbd"]}])
    network = data["networks"][0]["name"]
    data["vms"] = list(data.get("vms", []))
    for i in range(vms):
        on = rng.random() < running
        vm = {"name": "vm%05d" % i, "power_state": "Running" if on else "Halted",
              "memory": "256 MiB", "tags": ["tag%d" % (i % 10)],
              "disks": [{"sr": "sr%03d" % rng.randrange(srs), "size": size}
                        for _ in range(disks)],
              "vifs": [{"network": network}]}
        if on:
            vm["host"] = rng.choice(names)
        data["vms"].append(vm)
    return data
