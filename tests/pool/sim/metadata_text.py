# SPDX-License-Identifier: LGPL-2.1-or-later
"""A record as the text a server keeps in VM.snapshot_metadata."""

from .filters import database_text


def quote(text):
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def serialise(pool, cls, ref):
    """All fields in the database's spelling, as an S-expression."""
    fields = pool.model.classes[cls].fields
    record = pool.db.record(cls, ref)
    items = ["('ref' %s)" % quote(ref)]
    for name, field in fields.items():
        if name != "snapshot_metadata":
            items.append("(%s %s)" % (quote(name), quote(database_text(field.type, record[name]))))
    return "(" + " ".join(items) + ")"
