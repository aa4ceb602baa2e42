# SPDX-License-Identifier: LGPL-2.1-or-later
"""Maps the references, uuids and event tokens of a record to those of the running simulator."""

import re

NULL = "OpaqueRef:NULL"
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
NAME = re.compile(rf"OpaqueRef:{UUID}|{UUID}|[0-9]{{20}},[0-9]{{20}}")
# References in recorded request targets have their first eight digits blotted out.
BLOTTED = re.compile(r"OpaqueRef:\.{8}(-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})")

# How the objects of the recorded scene are recognised in the simulator's, in an order in which
# every class finds the ones it is recognised by already mapped. A member that holds a reference
# is compared after translation.
IDENTITY = (
    ("pool", ()), ("host", ("name_label",)), ("sr", ("name_label",)),
    ("network", ("bridge",)), ("sm", ("type",)),
    ("vm", ("is_control_domain", "resident_on", "name_label")), ("vdi", ("name_label",)),
    ("pbd", ("host", "SR")), ("vbd", ("VM", "userdevice")), ("vif", ("VM", "device")),
    ("pif", ("host", "device", "VLAN")), ("console", ("VM", "protocol")),
)
# Objects that are recognised by the member of the object they belong to.
OWNED = (("vm", "metrics"), ("host", "metrics"), ("pif", "metrics"))


class References:
    """What is known of the mapping; grows while a record is replayed."""

    def __init__(self):
        self.known = {}

    def add(self, recorded, answered):
        """Maps one recorded name; the first mapping of a name is kept."""
        if isinstance(recorded, str) and isinstance(answered, str) and recorded != NULL:
            if NAME.fullmatch(recorded) and NAME.fullmatch(answered):
                self.known.setdefault(recorded, answered)

    def learn(self, recorded, answered):
        """Maps the names that stand at the same place of a recorded and the actual answer."""
        if isinstance(recorded, dict) and isinstance(answered, dict):
            for name, value in recorded.items():
                other = self.known.get(name, name)
                if other in answered:
                    self.learn(value, answered[other])
        elif isinstance(recorded, list) and isinstance(answered, list):
            if len(recorded) == 1 and len(answered) == 1:
                self.learn(recorded[0], answered[0])
        else:
            self.add(recorded, answered)

    def translate(self, text):
        """Replaces every known name in a text."""
        text = BLOTTED.sub(lambda match: self.complete(match.group(1)), text)
        return NAME.sub(lambda match: self.known.get(match.group(), match.group()), text)

    def complete(self, tail):
        """Returns the recorded reference that ends in tail; the null uuid when none is known."""
        for name in self.known:
            if name.startswith("OpaqueRef:") and name.endswith(tail):
                return name
        return f"OpaqueRef:00000000{tail}"

    def identify(self, recorded, answered):
        """Maps the objects of two event lists that hold a whole scene each.

        Returns the recorded objects that were not found as (class, reference).
        """
        ours, theirs = by_class(recorded), by_class(answered)
        for name, members in IDENTITY:
            self.match(ours.get(name, {}), theirs.get(name, {}), members)
        for name, member in OWNED:
            for ref, record in ours.get(name, {}).items():
                other = theirs.get(name, {}).get(self.known.get(ref), {})
                self.add(record.get(member), other.get(member))
        return [(name, ref) for name, records in ours.items() for ref in records
                if ref not in self.known]

    def match(self, recorded, answered, members):
        """Maps the records of one class by the values of the given members."""
        candidates = {self.identity(record, members, translated=True): (ref, record)
                      for ref, record in answered.items()}
        for ref, record in recorded.items():
            found = candidates.get(self.identity(record, members))
            if found:
                self.add(ref, found[0])
                self.add(record.get("uuid"), found[1].get("uuid"))

    def identity(self, record, members, translated=False):
        """Returns what a record is recognised by. A control domain's name is data."""
        values = []
        for name in members:
            value = record.get(name)
            if name == "name_label" and record.get("is_control_domain"):
                value = ""
            if name == "resident_on" and not record.get("is_control_domain"):
                value = ""
            values.append(value if translated else self.known.get(value, value))
        return tuple(values)


def by_class(events):
    """Sorts the snapshots of an event list as class -> reference -> record; the last one wins."""
    classes = {}
    for event in events:
        if "snapshot" in event:
            classes.setdefault(event["class"], {})[event["ref"]] = event["snapshot"]
    return classes
