# SPDX-License-Identifier: LGPL-2.1-or-later
"""event.from and its relatives."""

import re
import time

from .calls import call
from .codec import Int4, TypedRecord
from .errors import ApiError, handle_invalid
from .model import Type

TOKEN = "%020d,%020d"
INVISIBLE = {"session", "message"}  # never reported as rows; alerts have a path of their own


def parse_token(token):
    if token == "":
        return 0, 0
    match = re.fullmatch(r"(\d+),(\d+)", token)
    if not match:
        raise ApiError("EVENT_FROM_TOKEN_PARSE_FAILURE", token)
    return int(match.group(1)), int(match.group(2))


class Subscription:
    """Classes and single objects a client wants to hear of."""

    def __init__(self, items):
        self.all = False
        self.classes, self.objects = set(), set()
        for item in items:
            name, slash, ref = item.partition("/")
            if item == "*":
                self.all = True
            elif slash:
                self.objects.add((name.lower(), ref))
            else:
                self.classes.add(name.lower())

    def wants(self, cls, ref):
        cls = cls.lower()
        return self.all or cls in self.classes or (cls, ref) in self.objects

    def only_tasks(self):
        names = self.classes | {cls for cls, _ in self.objects}
        return not self.all and names == {"task"}


def gather(db, wanted, since):
    """(adds, mods, dels) after generation `since`, each a list of (generation, class, ref, row)."""
    adds, mods, dels = [], [], []
    for (cls, ref), row in reversed(db.recent.items()):
        if row.modified <= since:
            break
        if cls in INVISIBLE or not wanted.wants(cls, ref):
            continue
        if row.created > since:
            adds.append((row.created, cls, ref, row))
        else:
            mods.append((row.modified, cls, ref, row))
    for generation, created, cls, ref in reversed(db.deleted):
        if generation <= since:
            break
        if created <= since and cls not in INVISIBLE and wanted.wants(cls, ref):
            dels.append((generation, cls, ref, None))
    return adds, mods, dels


def gather_messages(pool, wanted, since):
    if pool.messages_generation <= since:
        return []
    rows = sorted(pool.db.tables["message"].values(), key=lambda r: r.created)
    fresh = rows[-(pool.messages_generation - since):] if since else []
    return [(r.created, "message", r.ref, r) for r in fresh if wanted.wants("message", r.ref)]


def event(generation, cls, operation, ref, row):
    members = [("id", Type.parse("S"), str(generation)), ("timestamp", Type.parse("S"), "0.0"),
               ("class", Type.parse("S"), cls.lower()), ("operation", Type.parse("S"), operation),
               ("ref", Type.parse("S"), ref)]
    if row is not None:
        members.append(("snapshot", Type.parse("X:" + cls), row))
    return TypedRecord(members)


def counts(db):
    return {cls.lower(): Int4(len(rows)) for cls, rows in reversed(list(db.tables.items()))
            if cls != "system"}


@call("event.from")
def from_(ctx, classes, token, timeout):
    pool, db = ctx.pool, ctx.db
    wanted = Subscription(classes)
    since, messages_since = parse_token(token)
    deadline = time.monotonic() + max(0.0, timeout) * pool.options["time_scale"]
    while True:
        adds, mods, dels = gather(db, wanted, since)
        messages = gather_messages(pool, wanted, messages_since)
        if adds or mods or dels or messages or time.monotonic() >= deadline:
            break
        db.changed.wait(min(deadline - time.monotonic(), 5.0))
        alive(ctx)
        if not wanted.only_tasks():
            batch(ctx, deadline)
    events = [event(g, c, "add", r, row) for g, c, r, row in messages]
    for operation, found in (("add", adds), ("mod", mods), ("del", dels)):
        events += [event(g, c, operation, r, row) for g, c, r, row in found]
    last = max(db.generation, since) if since > db.generation and not events else db.generation
    return TypedRecord([
        ("events", Type.parse("[X:event]"), events),
        ("valid_ref_counts", Type.parse("{S>I}"), counts(db)),
        ("token", Type.parse("S"), TOKEN % (last, pool.messages_generation))])


def alive(ctx):
    """A client that logged out while waiting hears of it."""
    if ctx.session.ref not in ctx.pool.sessions or not ctx.pool.hosts[ctx.host].alive:
        raise ApiError("SESSION_INVALID", ctx.session.ref)


def batch(ctx, deadline):
    """Gather changes for a moment so that a busy pool does not send one event a reply."""
    pause = min(ctx.pool.options["event_batch"], deadline - time.monotonic())
    if pause > 0:
        with ctx.pool.unlocked():
            time.sleep(pause)


@call("event.inject")
def inject(ctx, ref, **parameters):
    cls = parameters["class"]
    names = {name.lower(): name for name in ctx.db.tables}
    if cls.lower() not in names:
        raise handle_invalid(cls, ref)
    row = ctx.db.tables[names[cls.lower()]].get(ref)
    if row is None:
        raise handle_invalid(cls, ref)
    token = TOKEN % (ctx.db.generation, ctx.pool.messages_generation)
    ctx.db.touch(row)
    return token


@call("event.get_current_id")
def get_current_id(ctx):
    return 0


@call("event.register", "event.unregister")
def register(ctx, classes):
    ctx.session.registered = classes


@call("event.next")
def next_(ctx):
    if not getattr(ctx.session, "registered", None):
        raise ApiError("SESSION_NOT_REGISTERED", ctx.session.ref)
    raise ApiError("EVENTS_LOST")
