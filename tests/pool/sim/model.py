# SPDX-License-Identifier: LGPL-2.1-or-later
"""The XenAPI data model as one version of the server publishes it."""

import os
import re

NULL = "OpaqueRef:NULL"
NEVER = "19700101T00:00:00Z"

# Releases before version numbers, oldest first; API minor versions belong to some of them.
RELEASES = (
    "rio miami symc orlando orlando-update-1 george midnight-ride cowley boston tampa clearwater "
    "vgpu-tech-preview vgpu-productisation clearwater-felton clearwater-whetstone creedence cream "
    "indigo dundee ely falcon inverness jura kolkata lima naples oslo quebec stockholm "
    "stockholm_psr"
).split()

ROLES = ["ro", "vo", "va", "vp", "po", "pa"]
ROLE_NAMES = {
    "ro": "read-only", "vo": "vm-operator", "va": "vm-admin", "vp": "vm-power-admin",
    "po": "pool-operator", "pa": "pool-admin",
}
# Products by the release of their API, oldest first.
PRODUCTS = [("6.5.0", "creedence"), ("7.0.0", "dundee"), ("7.1.0", "ely"), ("7.2.0", "falcon"),
            ("7.3.0", "inverness"), ("7.4.0", "jura"), ("7.5.0", "kolkata"), ("7.6.0", "lima"),
            ("8.0.0", "naples"), ("8.1.0", "quebec"), ("8.2.0", "stockholm"), ("8.3.0", "22.20.0")]
NO_ASYNC = {"session", "event", "task", "data_source", "blob"}


def release_key(name):
    """Order of releases: named ones first (they are older), then dotted version numbers."""
    if name in RELEASES:
        return (0, RELEASES.index(name))
    numbers = [int(n) for n in re.findall(r"\d+", name)]
    if not numbers:
        raise ValueError("unknown release %r" % name)
    return tuple([1] + numbers)


def product_of(version):
    """product_version that a server of this version reports."""
    found = PRODUCTS[0][0]
    for product, release in PRODUCTS:
        if release_key(version) >= release_key(release):
            found = product
    return found


def api_minor(version):
    """API_version_minor that a server of this version reports."""
    steps = [("dundee", 5), ("ely", 6), ("falcon", 7), ("inverness", 8), ("jura", 9),
             ("kolkata", 10), ("lima", 11), ("naples", 12), ("quebec", 14), ("stockholm", 15),
             ("21.0.0", 19), ("22.0.0", 20), ("23.25.0", 21), ("25.0.0", 22), ("26.0.0", 23)]
    minor = 4
    for release, number in steps:
        if release_key(version) >= release_key(release):
            minor = number
    return minor


class Type:
    """A parsed type: kind (S I B F D V R E X set map option), name of class or enum, args."""

    cache = {}

    def __init__(self, kind, name=None, args=()):
        self.kind, self.name, self.args = kind, name, args

    @classmethod
    def parse(cls, text):
        if text not in cls.cache:
            cls.cache[text] = cls._parse(text)
        return cls.cache[text]

    @classmethod
    def _parse(cls, text):
        if text[0] == "[":
            return cls("set", None, (cls.parse(text[1:-1]),))
        if text[0] == "{":
            depth = 0
            for i, c in enumerate(text):
                depth += c in "[{"
                depth -= c in "]}"
                if c == ">" and depth == 1:
                    return cls("map", None, (cls.parse(text[1:i]), cls.parse(text[i + 1:-1])))
        if text[:2] in ("R:", "E:", "X:"):
            return cls(text[0], text[2:])
        if text[:2] == "O:":
            return cls("option", None, (cls.parse(text[2:]),))
        if text in "SIBFDV":
            return cls(text)
        raise ValueError("bad type %r" % text)

    def zero(self):
        """The value of a field that nobody has set."""
        return {"S": "", "I": 0, "B": False, "F": 0.0, "D": NEVER, "V": "", "R": NULL, "E": "",
                "X": {}, "set": [], "map": {}, "option": None}[self.kind]


class Field:
    def __init__(self, name, type_, qualifier, role, get_role, default):
        self.name, self.type, self.qualifier = name, type_, qualifier
        self.role, self.get_role, self.default = role, get_role, default
        self.required = False

    def initial(self, model):
        """A fresh default value."""
        value = self.default
        if value is None:
            if self.type.kind == "E":
                return model.enums[self.type.name][0]
            value = self.type.zero()
        return value.copy() if isinstance(value, (list, dict)) else value


class Param:
    def __init__(self, name, type_, required):
        self.name, self.type, self.required = name, type_, required


class Call:
    """One message of a class. action tells how it is done when no handler is registered for it."""

    def __init__(self, cls, name, result, role, params, action=None, field=None,
                 session=True, is_async=False, removed=False):
        self.cls, self.name, self.result, self.role = cls, name, result, role
        self.params, self.action, self.field = params, action, field
        self.session, self.is_async, self.removed = session, is_async, removed
        self.full = "%s.%s" % (cls, name)


class Class:
    def __init__(self, name, removed):
        self.name, self.removed = name, removed
        self.fields = {}
        self.calls = {}
        self.queries = []


def parse_default(text, type_):
    if text.startswith('"'):
        return text[1:-1]
    kind = type_.kind
    if kind == "I":
        return int(text)
    if kind == "F":
        return float(text)
    if kind == "B":
        return text == "true"
    if kind == "map":
        return dict(re.findall(r'"([^"]*)" -> "([^"]*)"', text))
    if kind == "set":
        inner = text.strip("{}")
        element = type_.args[0]
        return [parse_default(x.strip(), element) for x in inner.split(",") if x.strip()]
    if kind == "R" and text == "Null":
        return NULL
    return text


class Model:
    """Classes, fields, calls and enums that a server of `version` has."""

    def __init__(self, version="24.11.0"):
        self.version = version
        self.key = release_key(version)
        self.classes, self.enums, self.calls = {}, {}, {}
        self._read(os.path.join(os.path.dirname(__file__), "datamodel.txt"))
        self._hidden_calls()
        for cls in self.classes.values():
            self._implicit_calls(cls)
        for cls in self.classes.values():
            for call in cls.calls.values():
                self.calls[call.full] = call

    def _alive(self, life):
        """(published, removed) of a LIFE column at this version."""
        since, _, until = life.partition("..")
        return self.key >= release_key(since), bool(until) and self.key >= release_key(until)

    def _read(self, path):
        cls = None
        with open(path, encoding="ascii") as lines:
            for line in lines:
                words = line.split()
                if not words or words[0] == "#" or line[0] == "#":
                    continue
                if words[0] == "class":
                    published, removed = self._alive(words[2])
                    cls = Class(words[1], removed) if published else None
                    if cls:
                        self.classes[cls.name] = cls
                elif words[0] == "enum":
                    self.enums[words[1]] = words[2:]
                elif cls is None:
                    continue
                elif words[0] == "field":
                    self._read_field(cls, line)
                elif words[0] == "call":
                    self._read_call(cls, line)
                else:
                    cls.queries = words[1:]

    def _read_field(self, cls, line):
        head, _, default = line.rstrip("\n").partition(" = ")
        words = head.split()
        name, type_, qualifier = words[1], Type.parse(words[2]), words[3]
        if not self._alive(words[-1])[0]:
            return
        role, get_role = "pa", "ro"
        for word in words[4:-1]:
            if word.startswith("get="):
                get_role = word[4:]
            else:
                role = word
        has_default = " = " in line
        value = parse_default(default, type_) if has_default else None
        field = Field(name, type_, qualifier, role, get_role, value)
        field.required = not has_default and qualifier in ("rc", "rw") and name != "uuid"
        cls.fields[name] = field

    def _read_call(self, cls, line):
        head, _, tail = line.partition("(")
        params, _, flags = tail.partition(")")
        words = head.split()
        published, removed = self._alive(words[4])
        if not published:
            return
        parsed = []
        for text in params.split():
            name, _, type_ = text.partition(":")
            name, _, since = name.partition("@")
            if since and not self._alive(since)[0]:
                continue
            parsed.append(Param(name.rstrip("?"), Type.parse(type_), not name.endswith("?")))
        call = Call(cls.name, words[1], Type.parse(words[2]), words[3], parsed,
                    session="nosession" not in flags, is_async=cls.name not in NO_ASYNC,
                    removed=removed)
        if "implicit" in words[5:]:
            call.action = words[1]
        cls.calls[call.name] = call

    def _hidden_calls(self):
        """Calls that servers answer although their documentation does not list them."""
        extra = [
            ("VTPM", "get_contents", "S", "-", "self:R:VTPM"),
            ("VTPM", "set_contents", "V", "-", "self:R:VTPM contents:S"),
            ("VM", "set_is_default_template", "V", "pa", "vm:R:VM value:B"),
            ("host", "is_in_emergency_mode", "B", "ro", ""),
            ("pool", "is_slave", "B", "pa", "host:R:host"),
            ("VDI", "generate_config", "S", "va", "host:R:host vdi:R:VDI"),
            ("VDI", "checksum", "S", "-", "self:R:VDI"),
            ("SR", "get_live_hosts", "[R:host]", "po", "sr:R:SR"),
        ]
        for cls, name, result, role, params in extra:
            if cls not in self.classes:
                continue
            parsed = [Param(p.partition(":")[0], Type.parse(p.partition(":")[2]), True)
                      for p in params.split()]
            self.classes[cls].calls[name] = Call(cls, name, Type.parse(result), role, parsed,
                                                 is_async=True)
        tasks = self.classes["task"]
        if self.key < release_key("25.8.0"):
            tasks.fields["other_config"].qualifier = "rw"
            tasks.fields["other_config"].role = "ro"
            tasks.fields["other_config"].required = False
        text = Type.parse("S")
        system = Class("system", False)
        system.calls["listMethods"] = Call("system", "listMethods", Type.parse("[S]"), "ro", [],
                                           session=False)
        system.calls["isAlive"] = Call("system", "isAlive", text, "ro", [], session=False)
        self.classes["system"] = system

    def _implicit_calls(self, cls):
        me = Type.parse("R:" + cls.name)
        self_param = Param("self", me, True)

        def add(name, result, role, params, action, field=None):
            if name not in cls.calls:
                cls.calls[name] = Call(cls.name, name, Type.parse(result), role, params, action,
                                       field, removed=cls.removed)

        string = Type.parse("S")
        queries = {
            "get_record": ("X:" + cls.name, [self_param]),
            "get_by_uuid": ("R:" + cls.name, [Param("uuid", string, True)]),
            "get_all": ("[R:%s]" % cls.name, []),
            "get_all_records": ("{R:%s>X:%s}" % (cls.name, cls.name), []),
            "get_by_name_label": ("[R:%s]" % cls.name, [Param("label", string, True)]),
        }
        for name in cls.queries:
            add(name, queries[name][0], "ro", queries[name][1], name)
        if "get_all_records" in cls.queries:
            add("get_all_records_where", "{R:%s>X:%s}" % (cls.name, cls.name), "ro",
                [Param("expr", string, True)], "get_all_records_where")
        if not cls.queries:
            return
        for field in cls.fields.values():
            self._field_calls(cls, field, self_param, add)

    def _field_calls(self, cls, field, self_param, add):
        string = Type.parse("S")
        kinds = {"S": "S", "I": "I", "B": "B", "F": "F", "D": "D"}
        add("get_" + field.name, kinds.get(field.type.kind, "S"), field.get_role, [self_param],
            "getter", field)
        cls.calls["get_" + field.name].result = (
            field.type if cls.calls["get_" + field.name].action == "getter"
            else cls.calls["get_" + field.name].result)
        if field.qualifier != "rw":
            return
        add("set_" + field.name, "V", field.role,
            [self_param, Param("value", field.type, True)], "setter", field)
        if field.type.kind == "map":
            key, value = field.type.args
            add("add_to_" + field.name, "V", field.role,
                [self_param, Param("key", key, True), Param("value", value, True)], "map_add",
                field)
            add("remove_from_" + field.name, "V", field.role,
                [self_param, Param("key", key, True)], "map_remove", field)
        elif field.type.kind == "set":
            element = field.type.args[0]
            add("add_" + field.name, "V", field.role,
                [self_param, Param("value", element, True)], "set_add", field)
            add("remove_" + field.name, "V", field.role,
                [self_param, Param("value", element, True)], "set_remove", field)

    def new_record(self, cls):
        """All fields of a class with their defaults."""
        return {f.name: f.initial(self) for f in self.classes[cls].fields.values()}
