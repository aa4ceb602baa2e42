# SPDX-License-Identifier: LGPL-2.1-or-later
"""From a parsed call to a result: parameters, session, roles, faults, Async, implicit calls."""

import threading
import time
import traceback

from . import filters, session as sessions
from .calls import AFTER_SET, HANDLERS, Context, call as handles
from .codec import decode
from .errors import ApiError, CutConnection, internal
from .faults import elapsed_ms
from .model import NULL, Type
from .tasks import result_text

# What a member answers without being the coordinator.
LOCAL_CALLS = {"session.slave_local_login_with_password", "session.local_logout",
               "pool.emergency_transition_to_master", "host.is_in_emergency_mode",
               "pool.emergency_reset_master", "host.local_management_reconfigure",
               "system.listMethods", "system.isAlive"}
SECRETS = {"pwd", "old_pwd", "new_pwd", "password", "contents"}


class Dispatcher:
    def __init__(self, pool):
        self.pool = pool
        self.model = pool.model

    def lookup(self, method):
        """(call, is_async) of a method name."""
        name = method
        is_async = name.startswith("Async.")
        if is_async:
            name = name[6:]
        elif "." not in name:
            name = name.replace("_", ".", 1)
        call = self.model.calls.get(name)
        if call is None:
            raise ApiError("MESSAGE_METHOD_UNKNOWN", method)
        if is_async and not call.is_async:
            raise ApiError("Fault", "%s is not an asynchronous call" % method)
        if call.removed:
            raise ApiError("MESSAGE_REMOVED")
        return call, is_async

    def bind(self, call, method, params):
        """(session reference, parameters by name); counts do not include the session."""
        session = None
        if call.cls == "system":
            return None, {}  # whatever a client adds is not looked at
        if call.session:
            if not params:
                raise ApiError("MESSAGE_PARAMETER_COUNT_MISMATCH", method,
                               len([p for p in call.params if p.required]), 0)
            if not isinstance(params[0], str):
                decode(Type.parse("S"), params[0], self.model)
            session, params = params[0], params[1:]
        required = [p for p in call.params if p.required]
        optional = len(required) < len(call.params)
        if len(params) < len(required) or (len(params) > len(required) and not optional):
            raise ApiError("MESSAGE_PARAMETER_COUNT_MISMATCH", method, len(required), len(params))
        named = {}
        for param, value in zip(call.params, params):
            named[param.name] = decode(param.type, value, self.model)
        return session, named

    def guard(self, host, method):
        """Members that are not the coordinator refuse."""
        if host.emergency and method not in LOCAL_CALLS:
            raise ApiError(*host.emergency)
        if host.ref != self.pool.coordinator() and method not in LOCAL_CALLS:
            master = self.pool.coordinator()
            raise ApiError("HOST_IS_SLAVE", self.pool.db.get("host", master, "address"))

    def run(self, host, method, params, peer=None):
        """Execute one call; returns (result type, value) or raises ApiError or CutConnection."""
        start = time.monotonic()
        entry = {"time": time.time(), "method": method, "host": host.uuid, "peer": peer,
                 "originator": None, "params": None, "result": "running"}
        with self.pool.lock:
            self.pool.calls.append(entry)
            try:
                result = self._run(host, method, params, entry)
                entry["result"] = "ok"
                return result
            except ApiError as error:
                entry["result"] = error.description()
                raise
            except CutConnection:
                entry["result"] = "cut"
                raise
            finally:
                entry["ms"] = elapsed_ms(start)

    def _run(self, host, method, params, entry):
        self.guard(host, method)
        try:
            call, is_async = self.lookup(method)
        except ApiError:
            if params:  # the session is read before the method is looked for
                decode(Type.parse("S"), params[0], self.model)
            raise
        session_ref, named = self.bind(call, method, params)
        entry["params"] = {k: "***" if k in SECRETS else v for k, v in named.items()}
        session = None
        if call.session and method not in LOCAL_CALLS:
            session = sessions.check(self.pool, session_ref)
            entry["originator"] = session.originator
        else:
            entry["originator"] = named.get("originator")
        with self.pool.acting_as(entry["originator"], method), self.pool.under_way():
            if is_async:
                return Type.parse("R:task"), self.start(host, call, session, named)
            ctx = Context(self.pool, host.ref, session, None, call.full)
            return call.result, self.perform(ctx, call, named)

    def perform(self, ctx, call, named):
        if ctx.session and call.full != "session.logout":
            sessions.assert_allowed(ctx.session.user, call.role, call.full)
        host = self.pool.hosts[ctx.host].uuid
        self.pool.faults.hit(call.full, named, host)
        try:
            handler = HANDLERS.get(call.full)
            if handler is not None:
                value = handler(ctx, **named)
            elif call.action in IMPLICIT:
                value = IMPLICIT[call.action](ctx, call, **named)
            else:
                raise ApiError("NOT_IMPLEMENTED", call.full)
        except (ApiError, CutConnection):
            raise
        except Exception as error:
            traceback.print_exc()
            raise internal("%s: %s" % (type(error).__name__, error)) from error
        self.pool.faults.hit(call.full, named, host, after=True)
        return value

    def start(self, host, call, session, named):
        """Run a call behind a task; returns the task at once."""
        task = self.pool.tasks.create("Async." + call.full, "", session, True, host.ref)
        originator = self.pool.originator

        def body():
            with self.pool.lock, self.pool.acting_as(originator, "Async." + call.full), \
                    self.pool.under_way():
                ctx = Context(self.pool, host.ref, session, task, call.full)
                try:
                    value = self.perform(ctx, call, named)
                    task.complete(result_text(call.result, value, self.model))
                except ApiError as error:
                    task.fail(error.description())
                except CutConnection:
                    return  # as if the server died: the task stays as it is
        threading.Thread(target=body, daemon=True, name=call.full).start()
        return task.ref


# ---- calls every class has ----

def get_record(ctx, call, self):
    return ctx.db.record(call.cls, self)


def get_all_records(ctx, call):
    db = ctx.db
    return {ref: db.tables[call.cls][ref] for ref in db.refs(call.cls)}


def get_all_records_where(ctx, call, expr):
    test = filters.compile_filter(expr, ctx.pool.model.classes[call.cls], ctx.pool.model)
    return {ref: row for ref, row in get_all_records(ctx, call).items() if test(row.values, ref)}


def get_by_name_label(ctx, call, label):
    return [ref for ref in ctx.db.refs(call.cls)
            if ctx.db.get(call.cls, ref, "name_label") == label]


def getter(ctx, call, self):
    return ctx.db.get(call.cls, self, call.field.name)


def written(ctx, call, ref):
    if call.cls in AFTER_SET:
        AFTER_SET[call.cls](ctx, ref, call.field.name)


def setter(ctx, call, self, value):
    before = ctx.db.get(call.cls, self, call.field.name)
    ctx.db.set(call.cls, self, call.field.name, value)
    if isinstance(value, dict):
        for key in value:
            if key not in before:
                ctx.pool.mark(call.cls, self, call.field.name, key)
    written(ctx, call, self)


def map_add(ctx, call, self, key, value):
    ctx.db.map_add(call.cls, self, call.field.name, key, value)
    ctx.pool.mark(call.cls, self, call.field.name, key)
    written(ctx, call, self)


def map_remove(ctx, call, self, key):
    ctx.db.map_remove(call.cls, self, call.field.name, key)
    written(ctx, call, self)


def set_add(ctx, call, self, value):
    current = ctx.db.get(call.cls, self, call.field.name)
    if value not in current:
        ctx.db.set(call.cls, self, call.field.name, current + [value])
    written(ctx, call, self)


def set_remove(ctx, call, self, value):
    current = ctx.db.get(call.cls, self, call.field.name)
    ctx.db.set(call.cls, self, call.field.name, [v for v in current if v != value])
    written(ctx, call, self)


def construct(ctx, cls, args):
    """Fields of a constructor's record, checked in the order of the class."""
    values = {}
    for field in ctx.pool.model.classes[cls].fields.values():
        if field.qualifier == "ro" or field.name == "uuid":
            continue
        if field.name in args:
            values[field.name] = decode(field.type, args[field.name], ctx.pool.model)
        elif field.required:
            raise internal('Server_helpers.Dispatcher_FieldNotFound("%s")' % field.name)
    return values


def create(ctx, call, args):
    values = construct(ctx, call.cls, args)
    for name, value in values.items():
        type_ = ctx.pool.model.classes[call.cls].fields[name].type
        if type_.kind == "R" and value != NULL and type_.name in ctx.db.tables:
            ctx.db.row(type_.name, value)
    return ctx.db.create(call.cls, values)


def destroy(ctx, call, self):
    ctx.db.row(call.cls, self)
    ctx.db.delete(call.cls, self)


@handles("system.listMethods")
def list_methods(ctx):
    return list(ctx.pool.model.calls)


@handles("system.isAlive")
def is_alive(ctx):
    return ""


IMPLICIT = {
    "get_record": get_record, "get_all_records": get_all_records,
    "get_all_records_where": get_all_records_where, "get_by_name_label": get_by_name_label,
    "get_by_uuid": lambda ctx, call, uuid: ctx.db.by_uuid(call.cls, uuid),
    "get_all": lambda ctx, call: ctx.db.refs(call.cls),
    "getter": getter, "setter": setter, "map_add": map_add, "map_remove": map_remove,
    "set_add": set_add, "set_remove": set_remove, "create": create, "destroy": destroy,
}
