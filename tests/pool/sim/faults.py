# SPDX-License-Identifier: LGPL-2.1-or-later
"""Injected faults: fail, delay, hang or cut calls, transfers and single steps of a snapshot."""

import itertools
import re
import time

from .errors import ApiError, CutConnection, ScenarioError

KEYS = {"id", "method", "ref", "match", "nth", "count", "error", "delay", "hang", "cut", "after",
        "reply", "host", "originator"}


class Fault:
    """One rule: matches a method (regular expression) and perhaps text among the arguments."""

    counter = itertools.count(1)

    def __init__(self, rule):
        unknown = set(rule) - KEYS
        if unknown:
            raise ScenarioError("fault: unknown member %s" % ", ".join(sorted(unknown)))
        if "method" not in rule:
            raise ScenarioError("fault: 'method' (a regular expression) is missing")
        if not any(k in rule for k in ("error", "delay", "hang", "cut", "reply")):
            raise ScenarioError("fault: one of error, delay, hang, cut, reply is needed")
        try:
            self.method = re.compile(rule["method"] + r"\Z")
            self.match = re.compile(rule["match"]) if rule.get("match") else None
        except re.error as error:
            raise ScenarioError("fault: bad regular expression: %s" % error) from error
        error = rule.get("error")
        if isinstance(error, str):
            error = [error]
        self.error = error
        self.delay = float(rule.get("delay", 0))
        self.hang, self.cut = bool(rule.get("hang")), bool(rule.get("cut"))
        self.reply = rule["reply"].encode("latin-1") if "reply" in rule else None
        self.after = bool(rule.get("after"))
        self.ref, self.host = rule.get("ref"), rule.get("host")
        self.originator = rule.get("originator")
        self.skip = int(rule.get("nth", 1)) - 1
        self.left = int(rule.get("count", 1)) if rule.get("count", 1) != 0 else -1
        self.id = rule.get("id") or "fault-%d" % next(self.counter)
        self.rule, self.hits = dict(rule, id=self.id), 0

    def applies(self, method, arguments, host, originator, after):
        if self.after != after or not self.method.match(method):
            return False
        if self.host and self.host != host:
            return False
        if self.originator and self.originator != originator:
            return False
        if self.ref and self.ref not in arguments:
            return False
        return self.match is None or any(self.match.search(a) for a in arguments)


class Faults:
    def __init__(self, pool):
        self.pool = pool
        self.rules = []

    def add(self, rule):
        fault = Fault(rule)
        self.rules.append(fault)
        return fault.id

    def remove(self, id_):
        before = len(self.rules)
        self.rules = [f for f in self.rules if f.id != id_]
        self.pool.db.changed.notify_all()
        return len(self.rules) < before

    def clear(self):
        self.rules = []
        self.pool.db.changed.notify_all()

    def describe(self):
        return [dict(f.rule, hits=f.hits) for f in self.rules]

    def hit(self, method, arguments=(), host=None, after=False):
        """Apply the first matching rule. The pool's lock is held; waiting releases it."""
        self.pool.assert_under_way()
        texts = list(flatten(arguments))
        for fault in list(self.rules):
            if not fault.left or not fault.applies(method, texts, host, self.pool.originator,
                                                   after):
                continue
            if fault.skip > 0:
                fault.skip -= 1
                continue
            if fault.left > 0:
                fault.left -= 1
            fault.hits += 1
            self.apply(fault)
            self.pool.assert_under_way()
            return

    def apply(self, fault):
        if fault.delay:
            self.pool.sleep(fault.delay)
        if fault.hang:
            while fault in self.rules and not self.pool.stopping:
                self.pool.db.changed.wait(0.2)
        if fault.reply is not None:
            raise CutConnection(fault.reply)
        if fault.cut:
            raise CutConnection()
        if fault.error:
            raise ApiError(*fault.error)


def flatten(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, element in value.items():
            yield str(key)
            yield from flatten(element)
    elif isinstance(value, (list, tuple)):
        for element in value:
            yield from flatten(element)
    elif value is not None:
        yield str(value)


def elapsed_ms(start):
    return round((time.monotonic() - start) * 1000, 3)
