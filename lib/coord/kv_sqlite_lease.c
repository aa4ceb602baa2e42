/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Leases on the state file. One is over when its time has passed on the clock that counts
 * suspension, when the machine has booted since, or when the process or handle that took it is
 * gone. Whoever looks first, of all processes, ends it.
 */
#include <stdlib.h>
#include <string.h>

#include "coord/kv_sqlite.h"

#define COMPONENT XV_KV_COMPONENT
#define OVER_MAX  64

struct over {
    int64_t ids[OVER_MAX];
    size_t count;
};

static bool is_over(struct xv_kv_sqlite *self, sqlite3_stmt *statement, int64_t now)
{
    return sqlite3_column_int64(statement, 1) <= now ||
           strcmp(xv_sqlite_text(statement, 2), self->boot) != 0 ||
           !xv_owner_is_alive(&self->owner, xv_sqlite_text(statement, 3));
}

static int find_over(struct xv_kv_sqlite *self, struct over *ret, xvsa_error **error)
{
    sqlite3_stmt *statement = NULL;
    ret->count = 0;
    int rc = xv_sqlite_prepare(&self->sqlite, "read leases", &statement, error,
                               "SELECT id, deadline_ms, boot, owner FROM leases", "");
    int step = SQLITE_DONE;
    int64_t now = xv_boottime_ms();
    while (rc == 0 && ret->count < OVER_MAX && (step = sqlite3_step(statement)) == SQLITE_ROW) {
        if (is_over(self, statement, now))
            ret->ids[ret->count++] = sqlite3_column_int64(statement, 0);
    }
    if (rc == 0 && step != SQLITE_DONE && step != SQLITE_ROW)
        rc = xv_sqlite_fail(&self->sqlite, "read leases", error);
    sqlite3_finalize(statement);
    return rc;
}

/* Inside a transaction: the lease and its keys go, with one revision. */
static int drop(struct xv_kv_sqlite *self, int64_t lease, xvsa_error **error)
{
    int64_t revision = 0;
    int rc = xv_kv_sqlite_revision(self, &revision, error);
    int before = sqlite3_total_changes(self->sqlite.db);
    if (rc == 0)
        rc = xv_sqlite_run(&self->sqlite, "note a change", error,
                           "INSERT INTO changes SELECT ?, key FROM kv WHERE lease = ?", "ii",
                           revision + 1, lease);
    if (rc == 0)
        rc = xv_sqlite_run(&self->sqlite, "end a lease", error, "DELETE FROM kv WHERE lease = ?",
                           "i", lease);
    if (rc == 0 && sqlite3_total_changes(self->sqlite.db) != before)
        rc = xv_kv_sqlite_advance(self, revision + 1, error);
    if (rc == 0)
        rc = xv_sqlite_run(&self->sqlite, "end a lease", error, "DELETE FROM leases WHERE id = ?",
                           "i", lease);
    return rc;
}

int xv_kv_sqlite_expire_here(struct xv_kv_sqlite *self, xvsa_error **error)
{
    struct over over;
    int rc;
    do {
        rc = find_over(self, &over, error);
        for (size_t i = 0; rc == 0 && i < over.count; i++)
            rc = drop(self, over.ids[i], error);
    } while (rc == 0 && over.count == OVER_MAX);
    return rc;
}

int xv_kv_sqlite_expire(struct xv_kv_sqlite *self, xvsa_error **error)
{
    struct over over;
    int rc = find_over(self, &over, error);
    if (rc != 0 || over.count == 0)
        return rc;
    /* Beginning looks again, under the write lock: another one may have ended or renewed it. */
    rc = xv_kv_sqlite_begin(self, error);
    return rc == 0 ? xv_kv_sqlite_end(self, 0, error) : rc;
}

static int64_t deadline_of(int64_t ttl_ms)
{
    return ttl_ms == XV_KV_TTL_PROCESS ? INT64_MAX : xv_boottime_ms() + ttl_ms;
}

int xv_kv_sqlite_grant(struct xv_kv *kv, int64_t ttl_ms, const struct xv_call *call, int64_t *ret,
                       xvsa_error **error)
{
    struct xv_kv_sqlite *self = xv_kv_sqlite_enter(kv, call);
    int rc = xv_kv_sqlite_begin_quick(self, error);
    if (rc == 0) {
        rc = xv_sqlite_run(&self->sqlite, "grant a lease", error,
                           "INSERT INTO leases (ttl_ms, deadline_ms, boot, owner)"
                           " VALUES (?, ?, ?, ?)",
                           "iiss", ttl_ms, deadline_of(ttl_ms), self->boot, self->owner.id);
        *ret = sqlite3_last_insert_rowid(self->sqlite.db);
        rc = xv_kv_sqlite_end(self, rc, error);
    }
    xv_kv_sqlite_leave(self);
    return rc;
}

static int renew(struct xv_kv_sqlite *self, int64_t lease, int64_t *ret_ttl_ms, xvsa_error **error)
{
    int64_t ttl_ms = -1;
    *ret_ttl_ms = 0;
    int rc = xv_sqlite_number(&self->sqlite, "renew a lease", &ttl_ms, error,
                              "SELECT ttl_ms FROM leases WHERE id = ?", "i", lease);
    if (rc != 0 || ttl_ms < 0)
        return rc;
    rc = xv_sqlite_run(&self->sqlite, "renew a lease", error,
                       "UPDATE leases SET deadline_ms = ? WHERE id = ?", "ii", deadline_of(ttl_ms),
                       lease);
    if (rc == 0)
        *ret_ttl_ms = ttl_ms == XV_KV_TTL_PROCESS ? INT64_MAX : ttl_ms;
    return rc;
}

int xv_kv_sqlite_renew(struct xv_kv *kv, int64_t lease, const struct xv_call *call,
                       int64_t *ret_ttl_ms, xvsa_error **error)
{
    struct xv_kv_sqlite *self = xv_kv_sqlite_enter(kv, call);
    int rc = xv_kv_sqlite_begin_quick(self, error);
    if (rc == 0)
        rc = xv_kv_sqlite_end(self, renew(self, lease, ret_ttl_ms, error), error);
    xv_kv_sqlite_leave(self);
    return rc;
}

int xv_kv_sqlite_revoke(struct xv_kv *kv, int64_t lease, const struct xv_call *call,
                        xvsa_error **error)
{
    struct xv_kv_sqlite *self = xv_kv_sqlite_enter(kv, call);
    int rc = xv_kv_sqlite_begin(self, error);
    if (rc == 0)
        rc = xv_kv_sqlite_end(self, drop(self, lease, error), error);
    xv_kv_sqlite_leave(self);
    return rc;
}

void xv_kv_sqlite_revoke_own(struct xv_kv_sqlite *self)
{
    struct xv_call soon = xv_call_within(NULL, 1000);
    (void)xv_kv_sqlite_enter(&self->kv, &soon);
    /* Should this fail, others find the lock file gone and end them. */
    if (xv_kv_sqlite_begin(self, NULL) == 0) {
        int rc =
            xv_sqlite_run(&self->sqlite, "end leases", NULL,
                          "UPDATE leases SET deadline_ms = 0 WHERE owner = ?", "s", self->owner.id);
        if (rc == 0)
            rc = xv_kv_sqlite_expire_here(self, NULL);
        (void)xv_kv_sqlite_end(self, rc, NULL);
    }
    xv_kv_sqlite_leave(self);
}
