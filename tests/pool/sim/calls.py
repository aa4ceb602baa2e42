# SPDX-License-Identifier: LGPL-2.1-or-later
"""Handlers of calls by full name, and the context a handler gets.

A handler is `handler(ctx, **parameters)`: parameters are decoded and named as in the data model,
optional ones are left out when the client gave none. It runs with the pool's lock held and returns
a value of the call's result type (None for void) or raises ApiError.
"""

import contextlib

from .database import new_uuid
from .errors import ApiError

HANDLERS = {}
AFTER_SET = {}


def call(*names):
    """Register a function as the handler of these calls."""
    def register(function):
        for name in names:
            HANDLERS[name] = function
        return function
    return register


def after_set(cls):
    """Register `function(ctx, ref, field)`, told of each write through an implicit setter."""
    def register(function):
        AFTER_SET[cls] = function
        return function
    return register


class Context:
    """One call being executed."""

    def __init__(self, pool, host, session=None, task=None, method=""):
        self.pool, self.host, self.session, self.task = pool, host, session, task
        self.method = method
        self.db = pool.db
        self.dummy = "DummyRef:|%s|%s" % (new_uuid(), method)

    @property
    def key(self):
        """What stands for this call in current_operations."""
        return self.task.ref if self.task else self.dummy

    def progress(self, value):
        if self.task:
            self.task.progress(value)

    def check_cancelled(self):
        if self.task:
            self.task.check_cancelled()

    def get(self, cls, ref, field):
        return self.db.get(cls, ref, field)

    def set(self, cls, ref, **fields):
        self.db.update(cls, ref, **fields)

    @contextlib.contextmanager
    def operation(self, cls, ref, name, check, refresh, retry=True):
        """Hold an object for an operation.

        `check()` raises when it may not start; OTHER_OPERATION_IN_PROGRESS is waited out.
        `refresh(ref)` recomputes allowed_operations.
        """
        if retry:
            self.pool.retry(check, self.task)
        else:
            check()
        self.db.map_add(cls, ref, "current_operations", self.key, name, overwrite=True)
        refresh(ref)
        try:
            yield
        finally:
            if self.db.has(cls, ref):
                self.db.map_remove(cls, ref, "current_operations", self.key)
                refresh(ref)


def not_allowed(text):
    return ApiError("OPERATION_NOT_ALLOWED", text)
