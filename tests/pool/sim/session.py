# SPDX-License-Identifier: LGPL-2.1-or-later
"""Logging in and out, who may do what, expiry and the quota of sessions."""

import time

from . import clock
from .calls import call
from .errors import ApiError
from .model import NULL, ROLES, ROLE_NAMES


class User:
    def __init__(self, name, password, role, subject=NULL):
        self.name, self.password, self.role, self.subject = name, password, role, subject

    @property
    def local_root(self):
        return self.name == "root"


class Session:
    def __init__(self, ref, user, originator):
        self.ref, self.user, self.originator = ref, user, originator
        self.used = time.monotonic()


def authenticate(pool, name, password):
    """The user, or SESSION_AUTHENTICATION_FAILED after the configured delay."""
    user = pool.users.get(name)
    if user is None or user.password != password:
        if pool.options["login_delay"]:
            pool.sleep(pool.options["login_delay"])
        raise ApiError("SESSION_AUTHENTICATION_FAILED", name, "Authentication failure")
    return user


def open_session(pool, user, originator, host):
    now = clock.text()
    with pool.acting_as(None, None):
        ref = pool.db.create("session", {
            "this_host": host, "last_active": now, "validation_time": now,
            "is_local_superuser": user.local_root, "subject": user.subject,
            "auth_user_name": user.name, "originator": originator, "auth_user_sid": "",
        })
    pool.sessions[ref] = Session(ref, user, originator)
    enforce_quota(pool, pool.sessions[ref])
    return ref


def close_session(pool, ref):
    pool.sessions.pop(ref, None)
    if pool.db.has("session", ref):
        pool.db.delete("session", ref)


def enforce_quota(pool, new):
    """Too many sessions of one originator (or of one user that is not root): oldest ones go."""
    def group(session):
        return ("root", session.originator) if session.user.local_root else (session.user.name,)

    same = [s for s in pool.sessions.values() if group(s) == group(new)]
    busy = {t.session for t in pool.tasks.running()}
    for session in sorted(same, key=lambda s: s.used)[:max(0, len(same)
                                                          - pool.options["session_quota"])]:
        if session is not new and session.ref not in busy:
            close_session(pool, session.ref)


def expire(pool):
    """Drop sessions nobody used for long; called by the background collector."""
    limit = time.monotonic() - pool.options["session_idle"]
    for session in [s for s in pool.sessions.values() if s.used < limit]:
        close_session(pool, session.ref)


def check(pool, ref):
    """The session of a call; bumps its last use."""
    session = pool.sessions.get(ref)
    if session is None:
        raise ApiError("SESSION_INVALID", ref)
    session.used = time.monotonic()
    row = pool.db.row("session", ref)
    active = clock.seconds(row.values["last_active"])
    if not pool.newer("24.29.0") or time.time() - active > 600:
        row.values["last_active"] = clock.text()
    return session


def allowed(user, role):
    if role == "-":
        return user.local_root
    return ROLES.index(user.role) >= ROLES.index(role)


def assert_allowed(user, role, permission):
    if not allowed(user, role):
        have = ROLE_NAMES[user.role]
        raise ApiError("RBAC_PERMISSION_DENIED", permission,
                       "No permission in user session. (Roles: %s)" % have)


@call("session.login_with_password")
def login_with_password(ctx, uname, pwd, version=None, originator=""):
    user = authenticate(ctx.pool, uname, pwd)
    ctx.pool.local.originator = originator
    return open_session(ctx.pool, user, originator, ctx.host)


@call("session.slave_local_login_with_password")
def slave_local_login_with_password(ctx, uname, pwd):
    user = authenticate(ctx.pool, uname, pwd)
    return open_session(ctx.pool, user, "", ctx.host)


@call("session.logout")
def logout(ctx):
    close_session(ctx.pool, ctx.session.ref)


@call("session.local_logout")
def local_logout(ctx):
    close_session(ctx.pool, ctx.session.ref)


@call("session.change_password")
def change_password(ctx, old_pwd, new_pwd):
    if ctx.session.user.password != old_pwd and not ctx.session.user.local_root:
        raise ApiError("CHANGE_PASSWORD_REJECTED", "Authentication failure")
    ctx.session.user.password = new_pwd


@call("session.get_all_subject_identifiers")
def get_all_subject_identifiers(ctx):
    return sorted({ctx.db.get("session", s.ref, "auth_user_sid") for s in ctx.pool.sessions.values()
                   if not s.user.local_root})


@call("session.logout_subject_identifier")
def logout_subject_identifier(ctx, subject_identifier):
    for session in list(ctx.pool.sessions.values()):
        if ctx.db.get("session", session.ref, "auth_user_sid") == subject_identifier \
                and not session.user.local_root:
            close_session(ctx.pool, session.ref)
