# SPDX-License-Identifier: LGPL-2.1-or-later
"""Types and member names of decoded RPC values, and the differences between two of them.

A shape is what is left of a value when its data is taken away:
    "string", "boolean", "int", "double", "dateTime", "nil"    a scalar
    Sequence(element)    an array; element is None when nothing was in it
    Mapping(element)     a struct whose member names are data (a map of the data model)
    Record(members)      a struct whose member names are part of the interface
    Events(classes)      the event list of event.from, one record shape for each class
    Mixed(kinds)         elements of different types in one collection
"""

from dataclasses import make_dataclass

from wire import DateTime

# Not named tuples: shapes of different kinds must not be equal.
Sequence = make_dataclass("Sequence", ["element"])
Mapping = make_dataclass("Mapping", ["element"])
Record = make_dataclass("Record", ["members"])
Events = make_dataclass("Events", ["classes"])
Mixed = make_dataclass("Mixed", ["kinds"])

# A struct that holds all of one of these sets of members is a record, any other one is a map.
RECORD_MARKS = ({"uuid"}, {"events", "token"}, {"exportname", "address"}, {"class", "operation"})
# Maps whose keys are names of the data model rather than data.
NAMED_MAPS = {"valid_ref_counts"}


def scalar_shape(value):
    """Returns the name of a scalar's type."""
    names = ((bool, "boolean"), (int, "int"), (float, "double"), (DateTime, "dateTime"),
             (str, "string"))
    for kind, name in names:
        if isinstance(value, kind):
            return name
    return "nil"


def shape_of(value):
    """Returns the shape of a decoded value."""
    if isinstance(value, list):
        if value and all(is_event(item) for item in value):
            return events_shape(value)
        return Sequence(merge_all(value))
    if isinstance(value, dict):
        if any(mark <= value.keys() for mark in RECORD_MARKS):
            return Record({name: member_shape(name, item) for name, item in value.items()})
        return Mapping(merge_all(value.values()))
    return scalar_shape(value)


def member_shape(name, value):
    """Returns the shape of a record's member."""
    if name in NAMED_MAPS and isinstance(value, dict):
        return Record({key: shape_of(item) for key, item in value.items()})
    return shape_of(value)


def is_event(value):
    """Tells whether a value is one event of event.from."""
    return isinstance(value, dict) and {"class", "operation", "ref"} <= value.keys()


def events_shape(events):
    """Returns the shape of a list of events; deletions carry no snapshot and stand apart."""
    classes = {}
    for event in events:
        name = event["class"] + ("/del" if event["operation"] == "del" else "")
        classes[name] = merge(classes.get(name), shape_of(event))
    return Events(classes)


def merge_all(values):
    """Merges the shapes of the elements of a collection; None for an empty one."""
    result = None
    for value in values:
        result = merge(result, shape_of(value))
    return result


def merge(one, other):
    """Merges two shapes found at the same place."""
    if one is None or other is None or one == other:
        return one if other is None else other
    if isinstance(one, Record) and isinstance(other, Record):
        names = list(one.members) + [name for name in other.members if name not in one.members]
        return Record({name: merge(one.members.get(name), other.members.get(name))
                       for name in names})
    for kind in (Sequence, Mapping):
        if isinstance(one, kind) and isinstance(other, kind):
            return kind(merge(one.element, other.element))
    return Mixed(frozenset({describe(one), describe(other)}))


def describe(shape):
    """Names a shape for a message."""
    names = {Sequence: "array", Events: "array", Mapping: "struct", Record: "struct"}
    if isinstance(shape, Mixed):
        return " or ".join(sorted(shape.kinds))
    return names.get(type(shape), shape)


def differences(recorded, answered, subset=False, path="value"):
    """Lists the differences between two shapes as texts.

    subset: the recorded server is older, so members it did not have may be answered.
    """
    if isinstance(recorded, Events) or isinstance(answered, Events):
        return events_differences(recorded, answered, subset, path)
    if type(recorded) is not type(answered) or isinstance(recorded, (str, Mixed)):
        if recorded == answered:
            return []
        return [f"{path}: recorded {describe(recorded)}, answered {describe(answered)}"]
    if isinstance(recorded, Record):
        return record_differences(recorded, answered, subset, path)
    return element_differences(recorded.element, answered.element, subset, path + "[]")


def element_differences(recorded, answered, subset, path):
    """Compares the elements of two collections of which either may have been empty."""
    if recorded is None or answered is None:
        if isinstance(recorded, Record):
            return [f"{path}: recorded records, answered none"]
        return []
    return differences(recorded, answered, subset, path)


def record_differences(recorded, answered, subset, path):
    """Compares the member names of two records and then the members."""
    missing = [name for name in recorded.members if name not in answered.members]
    extra = [name for name in answered.members if name not in recorded.members]
    found = []
    if missing:
        found.append(f"{path}: members missing: {' '.join(missing)}")
    if extra and not subset:
        found.append(f"{path}: members added: {' '.join(extra)}")
    for name in recorded.members:
        if name in answered.members:
            found += differences(recorded.members[name], answered.members[name], subset,
                                 f"{path}.{name}")
    return found


def events_differences(recorded, answered, subset, path):
    """Compares two event lists class by class; classes only the answer has are data."""
    recorded_classes = getattr(recorded, "classes", {})
    answered_classes = getattr(answered, "classes", {})
    found = []
    for name, shape in recorded_classes.items():
        if name not in answered_classes:
            found.append(f"{path}: no event of class {name}")
        else:
            found += differences(shape, answered_classes[name], subset, f"{path}[{name}]")
    return found
