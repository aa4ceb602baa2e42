# SPDX-License-Identifier: LGPL-2.1-or-later
"""The pool's database: rows by reference, relations kept on both sides, a generation per change.

All methods expect the pool's lock to be held by the caller.
"""

import bisect
import os
import threading
import uuid
from collections import OrderedDict

from .errors import ApiError, handle_invalid

# (class that holds the reference, its field, class that lists the referers, its field)
RELATIONS = [
    ("VBD", "VM", "VM", "VBDs"), ("VBD", "VDI", "VDI", "VBDs"), ("VIF", "VM", "VM", "VIFs"),
    ("VIF", "network", "network", "VIFs"), ("VTPM", "VM", "VM", "VTPMs"),
    ("console", "VM", "VM", "consoles"), ("crashdump", "VM", "VM", "crash_dumps"),
    ("crashdump", "VDI", "VDI", "crash_dumps"), ("VDI", "SR", "SR", "VDIs"),
    ("PBD", "SR", "SR", "PBDs"), ("PBD", "host", "host", "PBDs"), ("PIF", "host", "host", "PIFs"),
    ("PIF", "network", "network", "PIFs"), ("VM", "resident_on", "host", "resident_VMs"),
    ("VM", "snapshot_of", "VM", "snapshots"), ("VM", "parent", "VM", "children"),
    ("VDI", "snapshot_of", "VDI", "snapshots"), ("VM", "appliance", "VM_appliance", "VMs"),
    ("VM", "snapshot_schedule", "VMSS", "VMs"), ("task", "subtask_of", "task", "subtasks"),
    ("host_cpu", "host", "host", "host_CPUs"), ("Certificate", "host", "host", "certificates"),
    ("VUSB", "VM", "VM", "VUSBs"), ("VGPU", "VM", "VM", "VGPUs"), ("PCI", "host", "host", "PCIs"),
    ("PGPU", "host", "host", "PGPUs"), ("PUSB", "host", "host", "PUSBs"),
    ("Feature", "host", "host", "features"), ("host_patch", "host", "host", "patches"),
    ("host_crashdump", "host", "host", "crashdumps"),
    ("VDI", "metadata_of_pool", "pool", "metadata_VDIs"),
    ("VM", "protection_policy", "VMPP", "VMs"),
    ("Bond", "master", "PIF", "bond_master_of"), ("PIF", "bond_slave_of", "Bond", "slaves"),
    ("VLAN", "tagged_PIF", "PIF", "VLAN_slave_of"),
    ("tunnel", "access_PIF", "PIF", "tunnel_access_PIF_of"),
    ("tunnel", "transport_PIF", "PIF", "tunnel_transport_PIF_of"),
]

# How many deleted rows event.from can still report: beyond the first number the log shrinks to the
# second, as on a real server.
DELETED_MAX, DELETED_KEEP = 512, 256


def new_uuid():
    """The server's own uuids are random bytes, not RFC 4122 ones."""
    return str(uuid.UUID(bytes=os.urandom(16)))


def new_ref():
    return "OpaqueRef:" + new_uuid()


class Row:
    __slots__ = ("cls", "ref", "values", "created", "modified", "xml")

    def __init__(self, cls, ref, values, generation):
        self.cls, self.ref, self.values = cls, ref, values
        self.created = self.modified = generation
        self.xml = (0, None)  # (generation, encoded record): big inventories are read often


class Database:
    def __init__(self, model):
        self.model = model
        self.tables = {name: {} for name in model.classes}
        self.uuids = {name: {} for name in model.classes}
        self.sorted_refs = {name: [] for name in model.classes}
        self.generation = 1
        self.recent = OrderedDict()  # (class, ref) in order of modification
        self.deleted = []            # (generation deleted, generation created, class, ref)
        self.changed = threading.Condition(threading.RLock())
        self.lock = self.changed
        self.on_create = None        # called with each new row
        self.bulk = False            # while loading: relations are built once, by relink()
        self.forward, self.backward = {}, {}
        for cls, field, parent, list_field in RELATIONS:
            if cls in model.classes and parent in model.classes \
                    and field in model.classes[cls].fields \
                    and list_field in model.classes[parent].fields:
                self.forward.setdefault(cls, {})[field] = (parent, list_field)
                self.backward.setdefault(parent, {})[list_field] = (cls, field)

    # ---- rows ----

    def tick(self):
        self.generation += 1
        return self.generation

    def create(self, cls, values=None, ref=None):
        """Insert a row with the class's defaults and `values`; returns its reference."""
        ref = ref or new_ref()
        record = self.model.new_record(cls)
        links = {}
        for name, value in (values or {}).items():
            if name not in record:
                continue
            if name in self.forward.get(cls, ()):
                links[name] = value
            elif name not in self.backward.get(cls, ()):
                record[name] = value
        if not record.get("uuid") and "uuid" in record:
            record["uuid"] = new_uuid()
        row = Row(cls, ref, record, self.tick())
        self.tables[cls][ref] = row
        bisect.insort(self.sorted_refs[cls], ref)
        if "uuid" in record:
            self.uuids[cls][record["uuid"]] = ref
        self.recent[(cls, ref)] = row
        for name, value in links.items():
            record[name] = value
            if not self.bulk:
                self._link(cls, row, name)
        self.changed.notify_all()
        if self.on_create:
            self.on_create(row)
        return ref

    def delete(self, cls, ref):
        """Remove a row, unlink it from its parents; references to it elsewhere may dangle."""
        row = self.tables[cls].get(ref)
        if row is None:
            return
        for name in self.forward.get(cls, ()):
            self._unlink(cls, row, name)
        del self.tables[cls][ref]
        refs = self.sorted_refs[cls]
        refs.pop(bisect.bisect_left(refs, ref))
        self.uuids[cls].pop(row.values.get("uuid"), None)
        self.recent.pop((cls, ref), None)
        self.deleted.append((self.tick(), row.created, cls, ref))
        if len(self.deleted) > DELETED_MAX:
            del self.deleted[:-DELETED_KEEP]
        self.changed.notify_all()

    def touch(self, row):
        row.modified = self.tick()
        self.recent.move_to_end((row.cls, row.ref))
        self.changed.notify_all()

    def row(self, cls, ref):
        row = self.tables.get(cls, {}).get(ref)
        if row is None:
            raise handle_invalid(cls, ref)
        return row

    def has(self, cls, ref):
        return ref in self.tables.get(cls, ())

    def get(self, cls, ref, field):
        return self.row(cls, ref).values[field]

    def record(self, cls, ref):
        """The live values of a row: read only for callers."""
        return self.row(cls, ref).values

    def set(self, cls, ref, field, value):
        """Write a field; an unchanged value makes no event."""
        row = self.row(cls, ref)
        if field not in row.values:
            return  # a field this version of the server lacks
        if row.values[field] == value:
            return
        if field in self.forward.get(cls, ()):
            self._unlink(cls, row, field)
            row.values[field] = value
            self._link(cls, row, field)
        else:
            if field == "uuid":
                self.uuids[cls].pop(row.values["uuid"], None)
                self.uuids[cls][value] = ref
            row.values[field] = value
        self.touch(row)

    def update(self, cls, ref, **fields):
        for name, value in fields.items():
            self.set(cls, ref, name, value)

    def map_add(self, cls, ref, field, key, value, overwrite=False):
        current = self.get(cls, ref, field)
        if key in current and not overwrite:
            raise ApiError("MAP_DUPLICATE_KEY", cls, field, ref, key)
        self.set(cls, ref, field, {**current, key: value})

    def map_remove(self, cls, ref, field, key):
        current = self.get(cls, ref, field)
        if key in current:
            self.set(cls, ref, field, {k: v for k, v in current.items() if k != key})

    def refs(self, cls):
        """All references, in the order the server lists them."""
        return list(reversed(self.sorted_refs[cls]))

    def by_uuid(self, cls, uuid_):
        ref = self.uuids.get(cls, {}).get(uuid_)
        if ref is None:
            raise ApiError("UUID_INVALID", cls, uuid_)
        return ref

    def find(self, cls, **wanted):
        """References of rows whose fields equal the given values."""
        return [ref for ref, row in self.tables[cls].items()
                if all(row.values.get(k) == v for k, v in wanted.items())]

    # ---- relations ----

    def _parent(self, cls, row, field):
        parent, list_field = self.forward[cls][field]
        return self.tables[parent].get(row.values[field]), list_field

    def _unlink(self, cls, row, field):
        parent, list_field = self._parent(cls, row, field)
        if parent is not None and row.ref in parent.values[list_field]:
            parent.values[list_field] = [r for r in parent.values[list_field] if r != row.ref]
            self.touch(parent)

    def _link(self, cls, row, field):
        parent, list_field = self._parent(cls, row, field)
        if parent is not None and row.ref not in parent.values[list_field]:
            parent.values[list_field] = [row.ref] + parent.values[list_field]
            self.touch(parent)

    def relink(self):
        """Rebuild every derived list after rows were loaded in any order."""
        for parent, fields in self.backward.items():
            for list_field in fields:
                for row in self.tables[parent].values():
                    row.values[list_field] = []
        for cls, fields in self.forward.items():
            for field, (parent, list_field) in fields.items():
                for row in self.tables[cls].values():
                    target = self.tables[parent].get(row.values[field])
                    if target is not None:
                        target.values[list_field].append(row.ref)
