# SPDX-License-Identifier: LGPL-2.1-or-later
"""The filter language of get_all_records_where."""

import re

from .errors import ApiError
from .codec import float_text

WORD = re.compile(r'\s*(?:(and|or|not|true|false|field)\b|([()=])|"([^"]*)")')


def database_names(cls):
    """Database name -> wire name: namespaces are joined by two underscores there."""
    spaces = ("name", "memory", "VCPUs", "actions", "PV", "HVM", "PCI", "API_version", "ha", "qos",
              "status", "os", "io", "wlb")
    names = {}
    for wire in cls.fields:
        names[wire] = wire
        for space in spaces:
            rest = wire[len(space) + 1:]
            if wire.startswith(space + "_") and rest:
                if wire in ("name_label", "name_description") and cls.name != "pool":
                    names.pop(wire, None)
                names[space + "__" + rest] = wire
    return names


def database_text(type_, value):
    """A value as the server's database spells it."""
    if type_.kind == "B":
        return "true" if value else "false"
    if type_.kind == "I":
        return str(value)
    if type_.kind == "F":
        return float_text(value)
    if type_.kind == "set":
        return "(" + " ".join("'%s'" % v for v in value) + ")"
    if type_.kind == "map":
        return "(" + " ".join("('%s' '%s')" % item for item in value.items()) + ")"
    return value


class Reader:
    def __init__(self, text):
        self.words = []
        at = 0
        while text[at:].strip():
            match = WORD.match(text, at)
            if not match:
                raise self.bad(text)
            self.words.append(("word", match.group(1)) if match.group(1) else
                              ("sign", match.group(2)) if match.group(2) else
                              ("text", match.group(3)))
            at = match.end()
        self.text, self.at = text, 0

    @staticmethod
    def bad(text):
        return ApiError("INVALID_VALUE", text, "Stdlib.Parsing.Parse_error")

    def next(self, *expected):
        if self.at >= len(self.words) or (expected and self.words[self.at] not in expected):
            raise self.bad(self.text)
        self.at += 1
        return self.words[self.at - 1]

    def peek(self):
        return self.words[self.at] if self.at < len(self.words) else (None, None)


def compile_filter(text, cls, model):
    """A test(values, ref) of an expression; errors are the server's."""
    reader = Reader(text)
    test = expression(reader, cls)
    if reader.at != len(reader.words):
        raise reader.bad(text)
    return test


def expression(reader, cls):
    left = term(reader, cls)
    while reader.peek() in (("word", "and"), ("word", "or")):
        operator = reader.next()[1]
        left = combine(operator, left, term(reader, cls))
    return left


def combine(operator, left, right):
    if operator == "and":
        return lambda v, r: left(v, r) and right(v, r)
    return lambda v, r: left(v, r) or right(v, r)


def term(reader, cls):
    kind, word = reader.next()
    if (kind, word) == ("word", "true"):
        return lambda v, r: True
    if (kind, word) == ("word", "false"):
        return lambda v, r: False
    if (kind, word) == ("word", "not"):
        inner = term(reader, cls)
        return lambda v, r: not inner(v, r)
    if (kind, word) == ("sign", "("):
        inner = expression(reader, cls)
        reader.next(("sign", ")"))
        return inner
    reader.at -= 1
    left = operand(reader, cls)
    reader.next(("sign", "="))
    right = operand(reader, cls)
    return lambda v, r: left(v, r) == right(v, r)


def operand(reader, cls):
    kind, word = reader.next()
    if kind == "text":
        return lambda v, r: word
    if (kind, word) != ("word", "field"):
        raise reader.bad(reader.text)
    kind, name = reader.next()
    if kind != "text":
        raise reader.bad(reader.text)
    if name in ("_ref", "ref"):
        return lambda v, r: r
    wire = database_names(cls).get(name)
    if wire is None:
        raise ApiError("INTERNAL_ERROR", "missing field", name, "")
    type_ = cls.fields[wire].type
    return lambda v, r: database_text(type_, v[wire])
