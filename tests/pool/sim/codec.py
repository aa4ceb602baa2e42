# SPDX-License-Identifier: LGPL-2.1-or-later
"""XML-RPC and JSON-RPC as the server speaks them: bare strings out, strict types in."""

import json
import re

from .database import Row
from .errors import ApiError, bad_value, internal
from .model import NULL

CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")


class Date(str):
    """A dateTime value, kept apart from strings for error messages."""


class ParseError(Exception):
    """The body is not a call: the server answers HTTP 500."""


class Int4(int):
    """An integer that travels as <i4> (only the counts of event.from do)."""


# ---- server to client -------------------------------------------------------------------------

def escape(text):
    text = CONTROL.sub("", text)
    return (text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
            .replace('"', "&quot;"))


def float_text(value):
    text = "%.16g" % value
    return text


def encode(type_, value, model):
    """XML of one value, with its <value> tag. Map keys are not escaped: neither does the server."""
    kind = type_.kind
    if kind in "SERVD" and len(kind) == 1:
        if kind == "D":
            return "<value><dateTime.iso8601>%s</dateTime.iso8601></value>" % value
        return "<value>%s</value>" % escape(value)
    if kind == "I":
        if isinstance(value, Int4):
            return "<value><i4>%d</i4></value>" % value
        return "<value>%d</value>" % value
    if kind == "B":
        return "<value><boolean>%d</boolean></value>" % bool(value)
    if kind == "F":
        return "<value><double>%s</double></value>" % float_text(value)
    if kind == "set":
        inner = type_.args[0]
        return ("<value><array><data>" + "".join([encode(inner, v, model) for v in value])
                + "</data></array></value>")
    if kind == "map":
        inner = type_.args[1]
        return struct((k, encode(inner, v, model)) for k, v in value.items())
    if kind == "X":
        return encode_record(type_, value, model)
    if kind == "option":
        return "<value><nil/></value>" if value is None else encode(type_.args[0], value, model)
    raise ValueError("cannot encode " + kind)


def encode_record(type_, value, model):
    """A record; the text of a whole row is kept until the row changes: inventories are read again
    and again."""
    if not isinstance(value, Row):
        return struct(record_members(type_, value, model, encode))
    if value.xml[0] != value.modified:
        value.xml = (value.modified, struct(record_members(type_, value.values, model, encode)))
    return value.xml[1]


def struct(members):
    return ("<value><struct>"
            + "".join(["<member><name>%s</name>%s</member>" % m for m in members])
            + "</struct></value>")


def record_members(type_, value, model, encoder):
    """Members of a record; a class of the model decides types and order, others carry their own."""
    if isinstance(value, TypedRecord):
        return [(n, encoder(t, v, model)) for n, t, v in value.members]
    if isinstance(value, Row):
        value = value.values
    fields = model.classes[type_.name].fields
    return [(n, encoder(f.type, value[n], model)) for n, f in fields.items()]


class TypedRecord:
    """A struct outside the model: (name, Type, value) in wire order."""

    def __init__(self, members):
        self.members = members


def method_response(value_xml):
    return ('<?xml version="1.0"?><methodResponse><params><param>' + value_xml
            + "</param></params></methodResponse>")


def success(value_xml):
    return method_response(
        "<value><struct><member><name>Status</name><value>Success</value></member>"
        "<member><name>Value</name>" + value_xml + "</member></struct></value>")


def failure(description):
    items = "".join(["<value>%s</value>" % escape(d) for d in description])
    return method_response(
        "<value><struct><member><name>Status</name><value>Failure</value></member><member>"
        "<name>ErrorDescription</name><value><array><data>" + items
        + "</data></array></value></member></struct></value>")


# ---- client to server -------------------------------------------------------------------------

TOKEN = re.compile(r"<(/?)([A-Za-z0-9_.:-]+)\s*(/?)>|<\?.*?\?>|<!--.*?-->", re.S)
ENTITIES = {"&lt;": "<", "&gt;": ">", "&quot;": '"', "&apos;": "'", "&amp;": "&"}


def unescape(text):
    if "&" not in text:
        return text

    def one(match):
        name = match.group(0)
        if name in ENTITIES:
            return ENTITIES[name]
        number = match.group(1)
        return chr(int(number[1:], 16) if number[0] in "xX" else int(number))

    return re.sub(r"&(?:lt|gt|quot|apos|amp);|&#(x?[0-9A-Fa-f]+);", one, text)


class Parser:
    """A small XML reader for method calls; anything unusual is a ParseError."""

    def __init__(self, text):
        self.items = []
        position = 0
        for match in TOKEN.finditer(text):
            if match.start() > position:
                self.items.append(("text", text[position:match.start()]))
            position = match.end()
            if match.group(2):
                closing, name, empty = match.group(1), match.group(2), match.group(3)
                self.items.append(("close" if closing else "open", name))
                if empty:
                    self.items.append(("close", name))
        if text[position:].strip():
            self.items.append(("text", text[position:]))
        self.at = 0

    def skip_space(self):
        while self.at < len(self.items) and self.items[self.at][0] == "text" \
                and not self.items[self.at][1].strip():
            self.at += 1

    def peek(self):
        self.skip_space()
        return self.items[self.at] if self.at < len(self.items) else ("end", "")

    def expect(self, kind, name):
        if self.peek() != (kind, name):
            raise ParseError('Xmlrpc.Parse_error("%s_tag(%s)", "%s", _)'
                             % (kind, name, self.peek()[1][:40]))
        self.at += 1

    def text(self):
        parts = []
        while self.at < len(self.items) and self.items[self.at][0] == "text":
            parts.append(self.items[self.at][1])
            self.at += 1
        return unescape("".join(parts)).replace("\r\n", "\n").replace("\r", "\n")

    def value(self):
        self.expect("open", "value")
        start = self.at
        if self.peek()[0] == "open":
            result = self.typed(self.peek()[1])
        else:
            self.at = start
            result = self.text()
        self.expect("close", "value")
        return result

    def typed(self, name):
        self.expect("open", name)
        if name == "struct":
            result = {}
            while self.peek() == ("open", "member"):
                self.expect("open", "member")
                self.expect("open", "name")
                key = self.text()
                if not key:
                    raise ParseError("empty member name")
                self.expect("close", "name")
                result[key] = self.value()
                self.expect("close", "member")
        elif name == "array":
            self.expect("open", "data")
            result = []
            while self.peek() == ("open", "value"):
                result.append(self.value())
            self.expect("close", "data")
        elif name == "nil":
            result = None
        else:
            result = scalar(name, self.text())
        self.expect("close", name)
        return result


def scalar(name, text):
    try:
        if name == "string":
            return text
        if name in ("int", "i4", "i8"):
            return int(text)
        if name == "boolean":
            return {"1": True, "0": False, "true": True, "false": False}[text.strip()]
        if name == "double":
            return float(text)
        if name == "dateTime.iso8601":
            return Date(text)
        if name == "base64":
            return text
    except (KeyError, ValueError) as error:
        raise ParseError("bad <%s>: %s" % (name, text[:40])) from error
    raise ParseError('Xmlrpc.Parse_error("close_tag", "open_tag(%s)", _)' % name)


def parse_call(body):
    """(method, params) of an XML-RPC call."""
    parser = Parser(body.decode("utf-8", "surrogateescape"))
    parser.expect("open", "methodCall")
    parser.expect("open", "methodName")
    method = parser.text()
    parser.expect("close", "methodName")
    parser.expect("open", "params")
    params = []
    while parser.peek() == ("open", "param"):
        parser.expect("open", "param")
        params.append(parser.value())
        parser.expect("close", "param")
    parser.expect("close", "params")
    parser.expect("close", "methodCall")
    return method, params


def rpc_text(value):
    """A value as the server's error messages print it."""
    if value is None:
        return "N"
    if isinstance(value, bool):
        return "B(%s)" % str(value).lower()
    if isinstance(value, int):
        return "I(%d)" % value
    if isinstance(value, float):
        return "F(%s)" % float_text(value)
    if isinstance(value, Date):
        return "D(%s)" % value
    if isinstance(value, str):
        return "S(%s)" % value
    if isinstance(value, list):
        return "[%s]" % ";".join(rpc_text(v) for v in value)
    return "{%s}" % ";".join("%s:%s" % (k, rpc_text(v)) for k, v in value.items())


def decode(type_, value, model):
    """A parameter as its type wants it; the errors are the server's."""
    kind = type_.kind
    if kind in ("S", "R"):
        if not isinstance(value, str) or isinstance(value, Date):
            raise bad_value("string", rpc_text(value))
        assert_unicode(value)
        return NULL if kind == "R" and value == "" else str(value)
    if kind == "I":
        return decode_int(value)
    if kind == "B":
        if not isinstance(value, bool):
            raise bad_value("bool", rpc_text(value))
        return value
    if kind == "F":
        return decode_float(value)
    if kind == "D":
        if not isinstance(value, str):
            raise bad_value("date", rpc_text(value))
        return str(value)
    if kind == "E":
        return decode_enum(type_.name, value, model)
    if kind == "set":
        if not isinstance(value, list):
            raise bad_value("list", rpc_text(value))
        return [decode(type_.args[0], v, model) for v in value]
    if kind == "map":
        if not isinstance(value, dict):
            raise bad_value("dict", rpc_text(value))
        key, element = type_.args
        return {str(decode(key, k, model)): decode(element, v, model) for k, v in value.items()}
    if kind == "X":
        if not isinstance(value, dict):
            raise bad_value("dict", rpc_text(value))
        return value
    if kind == "option":
        return None if value is None else decode(type_.args[0], value, model)
    raise internal("unexpected type " + kind)


def assert_unicode(text):
    try:
        text.encode()
    except UnicodeEncodeError as error:
        shown = text.encode("ascii", "replace").decode()
        raise ApiError("INVALID_VALUE", "Invalid UTF-8 string in parameter", shown) from error


def decode_int(value):
    if isinstance(value, bool) or not isinstance(value, (int, str)) or isinstance(value, Date):
        raise bad_value("int64", rpc_text(value))
    if isinstance(value, int):
        return value
    if not re.fullmatch(r"-?(0x[0-9a-fA-F]+|[0-9][0-9_]*)", value):
        raise internal('Failure("Int64.of_string")')
    number = int(value.replace("_", ""), 0 if "x" in value else 10)
    if not -2 ** 63 <= number < 2 ** 63:
        raise internal('Failure("Int64.of_string")')
    return number


def decode_float(value):
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise bad_value("float", rpc_text(value))
    try:
        return float(value)
    except ValueError as error:
        raise internal('Failure("float_of_string")') from error


def decode_enum(name, value, model):
    if not isinstance(value, str):
        raise bad_value("string", rpc_text(value))
    for choice in model.enums[name]:
        if choice.lower() == value.lower():
            return choice
    raise internal('Failure("Unknown tag/contents")')


# ---- JSON-RPC ---------------------------------------------------------------------------------

def parse_json_call(body):
    """(method, params, id, version) of a JSON-RPC call."""
    try:
        call = json.loads(body.decode("utf-8"))
        version = 2 if "jsonrpc" in call else 1
        if version == 2 and call["jsonrpc"] != "2.0":
            raise ParseError("Malformed_method_request")
        params = call.get("params", [])
        return call["method"], list(params), call["id"], version
    except (UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        raise ParseError("Malformed_method_request: %s" % error) from error


def json_value(type_, value, model):
    kind = type_.kind
    if kind == "set":
        return [json_value(type_.args[0], v, model) for v in value]
    if kind == "map":
        return {k: json_value(type_.args[1], v, model) for k, v in value.items()}
    if kind == "X":
        return dict(record_members(type_, value, model, json_value))
    if kind == "F":
        return float(value)
    if kind == "option":
        return None if value is None else json_value(type_.args[0], value, model)
    return value


def json_response(id_, version, result=None, error=None):
    if version == 2:
        reply = {"jsonrpc": "2.0"}
        if error is None:
            reply["result"] = result
        else:
            reply["error"] = {"code": 1, "message": error[0], "data": error[1:]}
    else:
        reply = {"result": result, "error": error}
    reply["id"] = id_
    return json.dumps(reply, ensure_ascii=False, separators=(",", ":"))
