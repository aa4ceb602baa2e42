# SPDX-License-Identifier: LGPL-2.1-or-later
"""Failures as a XenAPI client sees them."""


class ApiError(Exception):
    """A XenAPI failure: the code and its parameters, all strings."""

    def __init__(self, code, *params):
        self.code = code
        self.params = [str(p) for p in params]
        super().__init__(code, *self.params)

    def description(self):
        return [self.code] + self.params

    def __str__(self):
        return self.code + (": [ " + "; ".join(self.params) + " ]" if self.params else "")


class ScenarioError(Exception):
    """A scenario, dump or command line that cannot be used; the text says where and why."""


class CutConnection(Exception):
    """Drop the client's connection (an injected fault or a dying host), after `data` if given."""

    def __init__(self, data=b""):
        super().__init__("connection cut")
        self.data = data


def internal(text):
    """The error the server makes of an unexpected exception."""
    return ApiError("INTERNAL_ERROR", text)


def bad_value(expected, got):
    return internal('Failure("Expected %s, got \'%s\'")' % (expected, got))


def handle_invalid(cls, ref):
    return ApiError("HANDLE_INVALID", cls, ref)
