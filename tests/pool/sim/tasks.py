# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tasks: those of Async calls, those clients make, their results and their garbage collection."""

import time

from . import clock, codec
from .calls import call, not_allowed
from .errors import ApiError
from .model import NULL, Type

FINISHED = ("success", "failure", "cancelled")


class Task:
    """One task; its row is in the database, this is what the server keeps in memory."""

    def __init__(self, pool, ref, session, user):
        self.pool, self.ref, self.session, self.user = pool, ref, session, user
        self.changed_at = time.monotonic()
        self.host = NULL
        self.on_finish = []

    def row(self):
        return self.pool.db.tables["task"].get(self.ref)

    def pending(self):
        row = self.row()
        return row is not None and row.values["status"] in ("pending", "cancelling")

    def progress(self, value):
        if self.pending():
            self.changed_at = time.monotonic()
            self.pool.db.set("task", self.ref, "progress", float(value))

    def cancel_requested(self):
        row = self.row()
        return row is not None and "cancel" in row.values["current_operations"].values()

    def check_cancelled(self):
        if self.cancel_requested():
            raise ApiError("TASK_CANCELLED", self.ref)

    def complete(self, result=""):
        """Finish with success; `result` is the XML text of the value, as the server stores it."""
        self._finish("success", result=result)

    def fail(self, description):
        if description[0] == "TASK_CANCELLED":
            self._finish("cancelled")
        else:
            self._finish("failure", error_info=list(description))

    def _finish(self, status, **fields):
        row = self.row()
        if row is None or row.values["status"] in FINISHED:
            return
        destroy = "destroy" in row.values["current_operations"].values()
        trace = "()" if status == "success" else "(((process xapi)(filename simulator)(line 0)))"
        self.pool.db.update("task", self.ref, finished=clock.text(), progress=1.0,
                            allowed_operations=[], current_operations={}, backtrace=trace,
                            **fields)
        self.pool.db.set("task", self.ref, "status", status)
        self.changed_at = time.monotonic()
        if destroy:
            self.pool.tasks.remove(self.ref)


class Tasks:
    def __init__(self, pool):
        self.pool = pool
        self.known = {}

    def create(self, label, description="", session=None, cancellable=False, host=None):
        user = session.user.name if session else None
        ref = self.pool.db.create("task", {
            "name_label": label, "name_description": description, "created": clock.text(),
            "status": "pending", "resident_on": host or self.pool.coordinator(),
            "type": "<none/>", "backtrace": "()",
            "allowed_operations": ["cancel"] if cancellable else []})
        task = Task(self.pool, ref, session.ref if session else None, user)
        task.host = host or self.pool.coordinator()
        self.known[ref] = task
        self.trim()
        return task

    def get(self, ref):
        if ref not in self.known:
            raise ApiError("HANDLE_INVALID", "task", ref)
        return self.known[ref]

    def running(self):
        return [t for t in self.known.values() if t.pending()]

    def remove(self, ref):
        self.known.pop(ref, None)
        self.pool.db.delete("task", ref)

    def trim(self):
        """More than the limit: the oldest finished ones go, however fresh they are."""
        surplus = len(self.known) - self.pool.options["task_limit"]
        if surplus > 0:
            finished = sorted((t for t in self.known.values() if not t.pending()),
                              key=lambda t: t.changed_at)
            for task in finished[:surplus]:
                self.remove(task.ref)

    def collect(self):
        """Old finished tasks and abandoned pending ones go; called by the background collector."""
        now = time.monotonic()
        for task in list(self.known.values()):
            keep = 86400 if task.pending() else self.pool.options["task_keep"]
            if now - task.changed_at > keep:
                self.remove(task.ref)

    def forget_all(self, host=None):
        """A toolstack restarted or the coordinator moved: tasks are gone."""
        for task in list(self.known.values()):
            if host is None or task.host == host:
                self.remove(task.ref)


def result_text(type_, value, model):
    """A result as a task carries it: nothing for void is still a value tag."""
    return codec.encode(type_ if type_.kind != "V" else Type.parse("S"),
                        "" if value is None else value, model)


def own(ctx, ref):
    """Tasks of other users are out of reach unless the caller may do everything."""
    ctx.db.row("task", ref)
    task = ctx.pool.tasks.known.get(ref)
    user = ctx.session.user
    if task and task.user not in (None, user.name) and user.role not in ("pa", "po"):
        raise ApiError("RBAC_PERMISSION_DENIED", ctx.method,
                       "No permission in user session. (Roles: %s)" % user.role)
    return task


@call("task.create")
def create(ctx, label, description):
    return ctx.pool.tasks.create(label, description, ctx.session, host=ctx.host).ref


@call("task.destroy")
def destroy(ctx, self):
    task = own(ctx, self)
    if task.pending():
        ctx.db.map_add("task", self, "current_operations", ctx.key, "destroy", overwrite=True)
    else:
        ctx.pool.tasks.remove(self)


@call("task.cancel")
def cancel(ctx, task):
    target = own(ctx, task)
    if not target.pending():
        raise not_allowed("task is not pending")
    ctx.db.map_add("task", task, "current_operations", ctx.key, "cancel", overwrite=True)
    ctx.db.set("task", task, "allowed_operations", [])


@call("task.set_status")
def set_status(ctx, self, value):
    task = own(ctx, self)
    if value in FINISHED and task.pending():
        destroyed = "destroy" in ctx.get("task", self, "current_operations").values()
        ctx.set("task", self, status=value, finished=clock.text())
        task.changed_at = time.monotonic()
        if destroyed:
            ctx.pool.tasks.remove(self)
    else:
        ctx.set("task", self, status=value)


@call("task.set_progress")
def set_progress(ctx, self, value):
    own(ctx, self)
    ctx.set("task", self, progress=value)


@call("task.set_result")
def set_result(ctx, self, value):
    own(ctx, self)
    ctx.set("task", self, result=value)


@call("task.set_error_info")
def set_error_info(ctx, self, value):
    own(ctx, self)
    ctx.set("task", self, error_info=value)
