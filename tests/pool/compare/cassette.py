# SPDX-License-Identifier: LGPL-2.1-or-later
"""Replays recorded XML-RPC conversations of a XenServer 6.x (vcr cassettes).

The cassettes hold calls on objects that were there before, so the scene is built out of what
was answered: every object whose record was answered and that no recorded call made becomes a
row of a xapi database, with its own reference, and the simulator serves that database.
"""

import glob
import os
import re
import uuid
import xml.etree.ElementTree as ElementTree
from collections import namedtuple

from golden import Result, compare_rpc
from references import References
from wire import decode_request, encode_request, post, read_outcome

Interaction = namedtuple("Interaction", "cassette number request response")

ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", '"': '"', "\\": "\\", "/": "/", " ": " "}
ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|(.))", re.DOTALL)
DRIVER_CAPABILITIES = ["SR_PROBE", "SR_UPDATE", "VDI_CREATE", "VDI_DELETE", "VDI_ATTACH",
                       "VDI_DETACH", "VDI_RESIZE", "VDI_CLONE", "VDI_SNAPSHOT"]
MAKERS = ("create", "clone", "snapshot", "copy")
PASSWORD = "password"  # what the simulator expects by default
RECORDED_PASSWORD = "123456"


def block_scalar(text):
    """Reads the literal block that follows 'string: |' or 'string: |-'."""
    lines = text.split("\n")[1:]
    indent = len(lines[0]) - len(lines[0].lstrip(" "))
    kept = []
    for line in lines:
        if line.strip() and not line.startswith(" " * indent):
            break
        kept.append(line[indent:])
    return "\n".join(kept).strip()


def quoted_scalar(text):
    """Reads the double-quoted scalar that text starts with, folding its lines."""
    end = re.match(r'"(?:[^"\\]|\\.)*"', text, re.DOTALL).end()
    body = re.sub(r"\\\n[ \t]*", "", text[1:end - 1])
    body = re.sub(r"[ \t]*\n[ \t]*(\n[ \t]*)*",
                  lambda found: "\n" * (found.group().count("\n") - 1) or " ", body)
    return ESCAPE.sub(unescape, body)


def unescape(found):
    """Replaces one escape of a double-quoted scalar."""
    if found.group(1) or found.group(2):
        return chr(int(found.group(1) or found.group(2), 16))
    return ESCAPES[found.group(3)]


def read_string(section):
    """Reads the body of one side of an interaction, in either of the two styles vcr writes."""
    text = section[section.index("string: ") + len("string: "):]
    return quoted_scalar(text) if text.startswith('"') else block_scalar(text)


def read_cassette(path):
    """Reads a cassette into a list of Interaction."""
    with open(path, encoding="utf-8") as file:
        parts = file.read().split("\n- request:\n")[1:]
    interactions = []
    for number, part in enumerate(parts):
        request, response = part.split("\n  response:\n")
        interactions.append(Interaction(os.path.basename(path), number, read_string(request),
                                        read_string(response)))
    return interactions


def session_of(interaction):
    """Returns the session that a call carries, or the one that a login was given."""
    method, params = decode_request(interaction.request)
    if method == "session.login_with_password":
        return read_outcome(interaction.response).value
    return params[0]


def read_cassettes(folder):
    """Reads all cassettes of a folder; returns a list of lists of Interaction."""
    return [read_cassette(path) for path in sorted(glob.glob(f"{folder}/*.yml"))]


def records_of(interaction):
    """Returns (class, reference -> record) of the records that an interaction answered."""
    method, params = decode_request(interaction.request)
    name, _, message = method.partition(".")
    value = read_outcome(interaction.response).value
    if message == "get_record" and isinstance(value, dict):
        return name, {params[1]: value}
    if message == "get_all_records" and isinstance(value, dict):
        return name, value
    return name, {}


def scene_of(cassettes):
    """Returns class -> reference -> record of everything that the cassettes found in place.

    What a cassette makes is not part of what it finds, though another one may find it.
    """
    scene = {}
    for interactions in cassettes:
        made = set()
        for interaction in interactions:
            message = decode_request(interaction.request)[0].partition(".")[2]
            if message in MAKERS:
                made.add(read_outcome(interaction.response).value)
            name, records = records_of(interaction)
            for ref, record in records.items():
                if ref not in made:
                    scene.setdefault(name, {}).setdefault(ref, record)
    return scene


def complete(scene):
    """Adds what a pool needs and no cassette shows: pool, host, drivers, attached PBDs."""
    hosts = scene.setdefault("host", {})
    if not hosts:
        hosts[f"OpaqueRef:{uuid.uuid4()}"] = {"uuid": str(uuid.uuid4()), "enabled": True,
                                              "name_label": "host", "hostname": "host",
                                              "address": "127.0.0.1"}
    master = next(iter(hosts))
    scene["pool"] = {f"OpaqueRef:{uuid.uuid4()}": {"uuid": str(uuid.uuid4()), "master": master,
                                                   "name_label": "cassettes"}}
    for ref, record in scene.get("SR", {}).items():
        driver = {"uuid": str(uuid.uuid4()), "name_label": record["type"],
                  "type": record["type"], "capabilities": DRIVER_CAPABILITIES}
        scene.setdefault("SM", {})[f"OpaqueRef:{uuid.uuid4()}"] = driver
        for pbd in record["PBDs"] or [f"OpaqueRef:{uuid.uuid4()}"]:
            scene.setdefault("PBD", {})[pbd] = {"uuid": str(uuid.uuid4()), "host": master,
                                                "SR": ref, "currently_attached": True}
    for ref, record in list(scene.get("VIF", {}).items()):
        scene.setdefault("network", {}).setdefault(
            record["network"], {"uuid": str(uuid.uuid4()), "name_label": "n", "bridge": "xenbr9"})


def column_names(database):
    """Learns from a real database how wire names are spelt as column names: (table, name) -> it."""
    names = {}
    for table in ElementTree.parse(database).getroot().iterfind("table"):
        for row in table.iterfind("row"):
            for column in row.attrib:
                names[table.get("name"), column.replace("__", "_")] = column
    return names


def protect(text):
    """Writes white space the way xapi's database files do."""
    text = text.replace("%", "%%").replace("\n", "%n").replace("\t", "%t").replace("\r", "%r")
    return text.replace("  ", "%_%_")


def quote(text):
    """Quotes one atom of an s-expression."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def column_text(value):
    """Writes a value as the text of a database column."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "(" + " ".join(quote(item) for item in value) + ")"
    if isinstance(value, dict):
        return "(" + " ".join(f"({quote(key)} {quote(str(item))})"
                              for key, item in value.items()) + ")"
    return protect(str(value))


def database_of(scene, columns):
    """Writes a scene as a xapi database (text)."""
    root = ElementTree.Element("database")
    manifest = ElementTree.SubElement(root, "manifest")
    for key, value in (("schema_major_vsn", "5"), ("schema_minor_vsn", "66"),
                       ("generation_count", "1")):
        ElementTree.SubElement(manifest, "pair", key=key, value=value)
    for name, records in scene.items():
        table = ElementTree.SubElement(root, "table", name=name)
        for ref, record in records.items():
            row = ElementTree.SubElement(table, "row", ref=ref, _ref=ref)
            for member, value in record.items():
                row.set(columns.get((name, member), member), column_text(value))
    return ElementTree.tostring(root, encoding="unicode")


def replay(interactions, address):
    """Replays one cassette against the simulator; returns a list of Result."""
    names = References()
    reply = post(address, "/", encode_request("session.login_with_password",
                                              ["root", PASSWORD]))
    outcome = read_outcome(reply.body.decode("utf-8", "replace"))
    if outcome.kind != "Success":
        raise SystemExit(f"compare: login at the simulator failed: {outcome}")
    names.add(session_of(interactions[0]), outcome.value)
    results = []
    for interaction in interactions:
        method, _ = decode_request(interaction.request)
        text = names.translate(interaction.request).replace(RECORDED_PASSWORD, PASSWORD)
        reply = post(address, "/", text)
        recorded = read_outcome(interaction.response)
        answered = read_outcome(reply.body.decode("utf-8", "replace"))
        found = compare_rpc(recorded, answered, subset=True)
        if method != "session.login_with_password":
            names.learn(recorded.value, answered.value)
        results.append(Result("cassette", interaction.number, interaction.cassette, method, found))
    return results
