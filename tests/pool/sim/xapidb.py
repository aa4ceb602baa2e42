# SPDX-License-Identifier: LGPL-2.1-or-later
"""Load a database dump of a real pool and present it through the current API.

Fields such an old pool lacks get their defaults; what the server derives on an upgrade (domain
types, default templates, driver features) is derived here too. Disks read as zeros.
"""

import re
import xml.etree.ElementTree as ElementTree

from . import clock, session as sessions
from .errors import ScenarioError
from .model import NULL
from .pool import Host
from .vm import derive_domain_type

TOKEN = re.compile(r"\s*(\(|\)|'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"|[^\s()'\"]+)", re.S)
SPACES = {"_": " ", "n": "\n", "t": "\t", "r": "\r", "%": "%"}
CLASS_NAMES = {"Secret": "secret"}
SKIPPED_CLASSES = {"session", "task", "user"}


def parse_expression(text):
    """Nested lists of strings of a database value such as (('a' 'b') ('c' 'd'))."""
    stack, at = [[]], 0
    while at < len(text.rstrip()):
        match = TOKEN.match(text, at)
        if not match:
            raise ScenarioError("bad database value %r" % text[:60])
        at = match.end()
        word = match.group(1)
        if word == "(":
            stack.append([])
        elif word == ")":
            done = stack.pop()
            stack[-1].append(done)
        else:
            quoted = match.group(2) if match.group(2) is not None else match.group(3)
            stack[-1].append(re.sub(r"\\(.)", r"\1", quoted, flags=re.S)
                             if quoted is not None else word)
    return stack[0][0] if stack[0] else []


def convert(type_, text):
    """A database text as a value of the field's type."""
    kind = type_.kind
    if kind == "I":
        return int(text) if re.fullmatch(r"-?\d+", text) else 0
    if kind == "B":
        return text == "true"
    if kind == "F":
        return float(text or 0)
    if kind == "set":
        return [convert(type_.args[0], t) for t in parse_expression(text)]
    if kind == "map":
        return {pair[0]: convert(type_.args[1], pair[1]) for pair in parse_expression(text)}
    return text


def unprotect(text):
    """White space as it was before the database file protected it from XML."""
    return re.sub("%([_ntr%])", lambda found: SPACES[found.group(1)], text)


def read_tables(path):
    """class -> [(reference, attributes)] of a dump."""
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise ScenarioError("%s: %s" % (path, error)) from error
    tables = {}
    for table in root.iter("table"):
        name = CLASS_NAMES.get(table.get("name"), table.get("name"))
        rows = tables.setdefault(name, [])
        for row in table.iterfind("row"):
            rows.append((row.get("ref") or row.get("_ref"), row.attrib))
    if not tables.get("pool") or not tables.get("host"):
        raise ScenarioError("%s: no pool or no host in this database" % path)
    return tables


def load(path):
    """(plan, function(pool, addresses)) for the simulator."""
    tables = read_tables(path)
    plan = {"options": {}, "hosts": [{"address": ""} for _ in tables["host"]]}
    return plan, lambda pool, addresses: fill(pool, tables, addresses)


def fill(pool, tables, addresses):
    db = pool.db
    with db.lock:
        db.bulk = True
        for name, rows in tables.items():
            if name in pool.model.classes and name not in SKIPPED_CLASSES:
                for ref, attributes in rows:
                    add_row(pool, name, ref, attributes)
        for (ref, _), address in zip(tables["host"], addresses):
            add_host(pool, ref, address)
        db.relink()
        db.bulk = False
        complete(pool)
        pool.users["root"] = sessions.User("root", pool.options["password"], "pa")


def add_row(pool, name, ref, attributes):
    """Wire names have one underscore where the database joins namespaces with two."""
    fields = pool.model.classes[name].fields
    values = {}
    for key, text in attributes.items():
        wire = key.replace("__", "_")
        if wire in fields:
            values[wire] = convert(fields[wire].type, unprotect(text))
    pool.db.create(name, values, ref)


def add_host(pool, ref, address):
    db = pool.db
    record = db.record("host", ref)
    if not db.has("host_metrics", record["metrics"]):
        db.set("host", ref, "metrics", db.create("host_metrics", {"memory_total": 32 << 30}))
    db.update("host_metrics", record["metrics"], live=True, last_updated=clock.text())
    db.update("host", ref, address=address, enabled=True)
    host = Host(ref, record["uuid"], record["hostname"] or record["name_label"])
    host.address = address
    pool.hosts[ref] = host
    for row in list(db.tables["VM"].values()):
        if row.values["is_control_domain"] and row.values["resident_on"] == ref:
            db.set("host", ref, "control_domain", row.ref)
    for row in list(db.tables["PIF"].values()):
        if row.values["host"] == ref and row.values["management"]:
            db.set("PIF", row.ref, "IP", address)


def complete(pool):
    """What an upgraded server derives from older records."""
    db = pool.db
    for row in list(db.tables["VM"].values()):
        values = {"domain_type": row.values.get("domain_type", "unspecified"),
                  "HVM_boot_policy": row.values["HVM_boot_policy"]}
        derive_domain_type(values)
        db.update("VM", row.ref, domain_type=values["domain_type"], current_operations={})
        if row.values["other_config"].get("default_template") == "true":
            db.set("VM", row.ref, "is_default_template", True)
    for row in list(db.tables["SM"].values()):
        if not row.values["features"]:
            db.set("SM", row.ref, "features", {name: 1 for name in row.values["capabilities"]})
    for cls in ("SR", "VDI", "VBD", "VIF", "host", "pool"):
        for row in list(db.tables[cls].values()):
            if row.values.get("current_operations"):
                db.set(cls, row.ref, "current_operations", {})
    for row in db.tables["VDI"].values():
        size = row.values["virtual_size"]
        if size > 0 and row.values["managed"] and not pool.store.exists(row.values["uuid"]):
            pool.store.create(row.values["uuid"], size)
    master = db.get("pool", pool.pool_ref(), "master")
    if master == NULL or master not in pool.hosts:
        db.set("pool", pool.pool_ref(), "master", next(iter(pool.hosts)))
