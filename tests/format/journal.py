# SPDX-License-Identifier: LGPL-2.1-or-later
"""Replay of the journal (docs/format.md, section 9)."""

import hashlib
import json
import re
from dataclasses import dataclass, field

from store import JOURNAL, Damage, Refusal, note, read_whole, type_of, unseal

SESSION_BEGIN, INDEX_ADD, RP_COMMIT, SESSION_END, RP_DELETE, PROGRESS = 2, 3, 4, 5, 6, 14
HANDLE = 32
DIGEST = 64
KINDS = ("backup", "restore", "maintenance", "copy", "verify", "part")
OUTCOMES = ("ok", "aborted", "parked")

# Members of each record besides type and flags: a number is that many hex digits.
MEMBERS = {
    SESSION_BEGIN: {"session": HANDLE, "kind": str, "key": str, "token": int, "owner": str,
                    "pins": list, "work": HANDLE},
    INDEX_ADD: {"session": HANDLE, "segments": list},
    RP_COMMIT: {"session": HANDLE, "point": HANDLE, "digest": DIGEST, "vm_uuid": str,
                "vm_name": str, "pool_uuid": str, "taken": int, "size": int, "stored": int,
                "disks": int},
    SESSION_END: {"session": HANDLE, "outcome": str},
    RP_DELETE: {"point": HANDLE},
    PROGRESS: {"session": HANDLE, "work": HANDLE, "objects": list},
}
OPTIONAL = ("work",)  # of a SESSION_BEGIN
SEGMENT = {"id": HANDLE, "length": int, "head": int, "entries": int}
OBJECT = {"id": HANDLE, "length": int, "digest": DIGEST, "content": str, "key": str}
ENTRY = {"seq": int, "nonce": 32, "previous": DIGEST, "written": int, "records": list}


def is_integer(value):
    """Whether a JSON value is an integer."""
    return isinstance(value, int) and not isinstance(value, bool)


def has_form(value, form):
    """Whether a member is of the type that it must have."""
    if isinstance(form, int):
        return isinstance(value, str) and re.fullmatch(f"[0-9a-f]{{{form}}}", value) is not None
    return is_integer(value) if form is int else isinstance(value, form)


def check_members(name, document, members, optional=(), notes=None):
    """Checks that an object has its members; others are remarked only."""
    if not isinstance(document, dict):
        raise Damage(name, "a JSON object was expected")
    for member, form in members.items():
        if member not in document and member in optional:
            continue
        if not has_form(document.get(member), form):
            raise Damage(name, f"member {member} is missing or not of its type")
    for member in document.keys() - members.keys():
        note(notes, name, False, f"unknown member {member}")


def read_message(repository, name, notes=None):
    """Message of a sealed object, and the SHA-256 of the whole object."""
    header, body, data = read_whole(repository.store, name, notes)
    if header.repository != repository.id:
        raise Damage(name, "is of another repository")
    message = unseal(repository.config.cipher, repository.keys.of_object(name), header.nonce,
                     header.raw[:56] + name.encode(), body, name)
    return message, hashlib.sha256(data).hexdigest()


def read_document(repository, name, notes=None):
    """JSON document of a sealed object, and the SHA-256 of the whole object."""
    message, digest = read_message(repository, name, notes)
    try:
        document = json.loads(message.decode())
    except ValueError as error:
        raise Damage(name, f"is not JSON: {error}") from None
    return document, digest


@dataclass
class Session:
    """An active session."""

    kind: str
    key: str
    pins: set     # those that have effect
    work: str     # None: none


@dataclass
class Work:
    """A work that is open."""

    key: str                                       # of its backup sessions
    records: list = field(default_factory=list)    # PROGRESS records in their order


@dataclass
class Journal:
    """What the entries give when they are replayed in order."""

    entries: int = 0
    points: dict = field(default_factory=dict)    # live: id -> RP_COMMIT
    deleted: set = field(default_factory=set)
    segments: dict = field(default_factory=dict)  # id -> as INDEX_ADD says
    active: dict = field(default_factory=dict)    # id -> Session
    works: dict = field(default_factory=dict)     # open: id -> Work
    fenced: list = field(default_factory=list)
    tokens: dict = field(default_factory=dict)    # key -> highest accepted
    void: list = field(default_factory=list)      # (seq, record)
    skipped: list = field(default_factory=list)
    read_only: bool = False                       # an unknown record or damage forbids writing
    damage: Damage = None                         # where the journal ends too early

    def apply(self, seq, record, notes=None):
        """Applies a record."""
        name = f"j/{seq:016x}"
        if not isinstance(record, dict) or not all(
                is_integer(record.get(member)) for member in ("type", "flags")):
            raise Damage(name, "a record has no type or flags")
        number, flags = record["type"], record["flags"]
        if number not in MEMBERS:
            if flags & 2:
                raise Refusal(f"{name}: record of unknown type {number} must not be skipped")
            self.read_only |= bool(flags & 1)
            self.skipped.append((seq, record))
            return
        check_members(name, record, {**MEMBERS[number], "type": int, "flags": int},
                      OPTIONAL if number == SESSION_BEGIN else (), notes)
        note(notes, name, record.get("kind", KINDS[0]) in KINDS and
             record.get("outcome", "ok") in OUTCOMES, "unknown kind or outcome")
        for segment in record.get("segments", ()):
            check_members(name, segment, SEGMENT, (), notes)
        for row in record.get("objects", ()):
            check_members(name, row, OBJECT, (), notes)
        rule = {SESSION_BEGIN: self.begin, INDEX_ADD: self.add_index, RP_COMMIT: self.commit,
                SESSION_END: self.end, RP_DELETE: self.delete, PROGRESS: self.progress}[number]
        if not rule(record):
            self.void.append((seq, record))

    def begin(self, record):
        """SESSION_BEGIN; the rules answer False for a void record."""
        key, session = record["key"], record["session"]
        if record["token"] <= self.tokens.get(key, 0) or session in self.active:
            return False
        self.tokens[key] = record["token"]
        for other in [other for other, its in self.active.items() if its.key == key]:
            del self.active[other]
            self.fenced.append(other)
        work = record.get("work") if record["kind"] in ("backup", "part") else None
        self.active[session] = Session(record["kind"], key, {
            pin for pin in record["pins"] if pin in self.points}, work)
        if record["kind"] == "backup":
            self.open_work(key, work)
        return True

    def open_work(self, key, identity):
        """Ends what was open under the key, or under the id for another key."""
        for other, work in list(self.works.items()):
            if (other == identity) != (work.key == key):
                del self.works[other]
        if identity is not None and identity not in self.works:
            self.works[identity] = Work(key)

    def close_work(self, session):
        """The work of a backup session is over."""
        if session.kind == "backup":
            self.works.pop(session.work, None)

    def progress(self, record):
        """PROGRESS."""
        session = self.active.get(record["session"])
        if session is None or session.work != record["work"] or session.work not in self.works:
            return False
        self.works[session.work].records.append(record)
        return True

    def add_index(self, record):
        """INDEX_ADD."""
        if record["session"] not in self.active:
            return False
        self.segments.update((segment["id"], segment) for segment in record["segments"])
        return True

    def commit(self, record):
        """RP_COMMIT."""
        point = record["point"]
        if record["session"] not in self.active or point in self.points or point in self.deleted:
            return False
        self.points[point] = record
        self.close_work(self.active[record["session"]])
        return True

    def end(self, record):
        """SESSION_END."""
        session = self.active.pop(record["session"], None)
        if session is not None and record["outcome"] != "parked":
            self.close_work(session)
        return session is not None

    def delete(self, record):
        """RP_DELETE."""
        point = record["point"]
        if point not in self.points or any(
                point in session.pins for session in self.active.values()):
            return False
        del self.points[point]
        self.deleted.add(point)
        return True


def replay(repository, notes=None):
    """Reads the journal from its first entry on, up to its end or to damage."""
    present = {int(name[2:], 16) for name in repository.store.names() if type_of(name) == JOURNAL}
    journal, previous = Journal(), "0" * DIGEST
    try:
        while journal.entries + 1 in present:
            seq = journal.entries + 1
            document, digest = read_entry(repository, seq, previous, notes)
            for record in document["records"]:
                journal.apply(seq, record, notes)
            previous = digest
            journal.entries = seq
        if present and max(present) > journal.entries:
            raise Damage(f"j/{journal.entries + 1:016x}", "is missing, but later entries are there")
    except Damage as damage:
        journal.damage, journal.read_only = damage, True
        note(notes, "journal", False, str(damage))
    return journal


def read_entry(repository, seq, previous, notes=None):
    """Document of an entry that follows the one with the digest previous; its own digest."""
    name = f"j/{seq:016x}"
    document, digest = read_document(repository, name, notes)
    check_members(name, document, ENTRY, (), notes)
    if document["seq"] != seq:
        raise Damage(name, f"says that it is entry {document['seq']}")
    if document["previous"] != previous:
        raise Damage(name, "does not follow the entry before it")
    return document, digest
