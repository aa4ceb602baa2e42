# SPDX-License-Identifier: LGPL-2.1-or-later
"""ova.xml: the records of VMs and everything they refer to, with references of its own."""

import tarfile

from . import chain, clock, codec
from .errors import ApiError, internal
from .model import NULL, Type

BLOCK = 512
EXPORT_VERSION = 2
# The order of classes in the file.
ORDER = ["VM", "VBD", "VIF", "network", "VDI", "SR", "VGPU", "GPU_group", "VTPM"]
CLEARED = {"allowed_operations": [], "current_operations": {}}
DEVICES = {"VBDs": ("VBD", "vbd"), "VIFs": ("VIF", "vif"), "VTPMs": ("VTPM", "vtpm"),
           "VGPUs": ("VGPU", "vgpu")}


class Collector:
    """Which objects go into an archive, and the short references they get there."""

    def __init__(self, pool, excluded=(), parents=False):
        self.pool, self.excluded, self.parents = pool, excluded, parents
        self.found = {cls: [] for cls in ORDER}
        self.numbers = {}

    def add(self, cls, ref):
        """Note an object once; False when it was there or does not exist."""
        if ref in self.numbers or not self.pool.db.has(cls, ref):
            return False
        self.numbers[ref] = "Ref:%d" % len(self.numbers)
        self.found[cls].append(ref)
        return True

    def add_vm(self, vm, snapshots):
        if not self.add("VM", vm):
            return
        record = self.pool.db.record("VM", vm)
        for field, (cls, word) in DEVICES.items():
            if word in self.excluded or cls not in self.pool.db.tables:
                continue
            for ref in record.get(field, []):
                self.add(cls, ref)
                if cls == "VBD":
                    self.add_vdi(self.pool.db.get("VBD", ref, "VDI"))
                elif cls == "VIF":
                    self.add("network", self.pool.db.get("VIF", ref, "network"))
        self.add_vdi(record["suspend_VDI"])
        if snapshots:
            for snapshot in record["snapshots"]:
                self.add_vm(snapshot, False)

    def add_vdi(self, vdi):
        if not self.add("VDI", vdi):
            return
        self.add("SR", self.pool.db.get("VDI", vdi, "SR"))
        if self.parents:
            node = chain.parent(self.pool, vdi)
            if node:
                self.add_vdi(node)

    def translate(self, type_, value):
        """References to objects of the archive become its own, others stay."""
        if type_.kind == "R":
            return self.numbers.get(value, value)
        if type_.kind == "set" and type_.args[0].kind == "R":
            return [self.numbers[v] for v in value if v in self.numbers]
        return value

    def objects(self):
        """TypedRecords of all objects."""
        result = []
        for cls in ORDER:
            for ref in self.found[cls]:
                result.append(self.object(cls, ref))
        return result

    def object(self, cls, ref):
        record = self.pool.db.record(cls, ref)
        members = [(name, field.type, CLEARED.get(name, self.translate(field.type, record[name])))
                   for name, field in self.pool.model.classes[cls].fields.items()]
        if cls == "VTPM":
            members.append(("content", Type.parse("S"), self.pool.secrets.get(ref, "")))
        text = Type.parse("S")
        return codec.TypedRecord([
            ("class", text, cls), ("id", text, self.numbers[ref]),
            ("snapshot", Type.parse("X:" + cls), codec.TypedRecord(members))])

    def ova_xml(self):
        pool, text = self.pool, Type.parse("S")
        software = pool.db.get("host", pool.coordinator(), "software_version")
        numbers = (pool.options["version"].split(".") + ["0"])[:2]
        version = codec.TypedRecord([(n, text, v) for n, v in (
            ("hostname", software.get("hostname", "localhost")), ("date", clock.text()),
            ("product_version", software.get("product_version", "")),
            ("product_brand", software.get("product_brand", "")),
            ("build_number", software.get("build_number", "0")),
            ("xapi_major", numbers[0] if numbers[0].isdigit() else "1"),
            ("xapi_minor", numbers[1] if numbers[1].isdigit() else "0"),
            ("export_vsn", str(EXPORT_VERSION)))])
        whole = codec.TypedRecord([("version", Type.parse("X:version"), version),
                                   ("objects", Type.parse("[X:object]"), self.objects())])
        return codec.encode(Type.parse("X:archive"), whole, pool.model).encode()


def tar_entry(name, data):
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o400
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % BLOCK)


TAR_END = bytes(2 * BLOCK)


def read_entry(read):
    """(name, data) of the next tar entry, None at the end; EOFError when the stream ends early."""
    head = read(BLOCK)
    if head == bytes(BLOCK):
        return None
    try:
        info = tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise ApiError("IMPORT_ERROR", "damaged tar header: %s" % error) from error
    data = read(info.size + -info.size % BLOCK)
    return info.name, data[:info.size]


def parse_ova(data, pool):
    """[(class, id, record)] of an ova.xml; values as strings and plain types."""
    try:
        parser = codec.Parser(data.decode("utf-8", "replace"))
        whole = parser.value()
        version, objects = whole["version"], whole["objects"]
        found = [(o["class"], o["id"], o["snapshot"]) for o in objects]
    except (codec.ParseError, KeyError, TypeError) as error:
        raise ApiError("IMPORT_ERROR", "INTERNAL_ERROR: [ %s ]" % error) from error
    check_version(version, pool)
    return found


def check_version(version, pool):
    mine = [int(n) if n.isdigit() else 1 for n in (pool.options["version"].split(".") + ["0"])[:2]]
    try:
        theirs = [int(version.get("xapi_major", 1)), int(version.get("xapi_minor", 0))]
    except ValueError as error:
        raise internal('Failure("int_of_string")') from error
    if theirs > mine:
        raise ApiError("IMPORT_INCOMPATIBLE_VERSION")


def typed(cls, record, model):
    """The members of a record the model knows, decoded; unreadable ones are left to defaults."""
    values = {}
    for name, field in model.classes[cls].fields.items():
        if name in record:
            try:
                values[name] = codec.decode(field.type, record[name], model)
            except ApiError:
                continue
    return values


def is_null(ref):
    return ref in (NULL, "", "Ref:NULL")
