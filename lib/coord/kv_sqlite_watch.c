/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Watching the state file: its revision is looked at again and again, and when it has grown, the
 * list of changed keys tells those of the prefix.
 */
#include <stdlib.h>
#include <string.h>

#include "coord/kv_sqlite.h"

#define COMPONENT    XV_KV_COMPONENT
#define LOOK_MS      50
#define EXPIRE_MS    200
#define CHANGES_KEPT 1000

struct watch {
    struct xv_kv_watch base;
    char *first;
    char *end;
    int64_t seen; /* revision */
    int64_t expired_ms;
};

int xv_kv_sqlite_watch_open(struct xv_kv *kv, const char *prefix, struct xv_kv_watch **ret,
                            xvsa_error **error)
{
    struct watch *watch = calloc(1, sizeof *watch);
    if (watch == NULL)
        return xv_fail_memory(error);
    watch->base.kv = kv;
    watch->first = strdup(prefix);
    watch->end = xv_kv_range_end(prefix);
    int rc = 0;
    if (watch->first == NULL || watch->end == NULL)
        rc = xv_fail_memory(error);
    if (rc == 0) {
        struct xv_kv_sqlite *self = xv_kv_sqlite_enter(kv, NULL);
        rc = xv_kv_sqlite_revision(self, &watch->seen, error);
        xv_kv_sqlite_leave(self);
    }
    if (rc != 0) {
        xv_kv_sqlite_watch_close(&watch->base);
        return rc;
    }
    *ret = &watch->base;
    return 0;
}

/* Asks about each key of the prefix that changed since the revision that was seen. */
static int ask(struct xv_kv_sqlite *self, const struct watch *watch, bool *ret_changed)
{
    sqlite3_stmt *statement = NULL;
    int step = SQLITE_DONE;
    int rc = xv_sqlite_prepare(&self->sqlite, "look for changes", &statement, NULL,
                               "SELECT DISTINCT key FROM changes WHERE revision > ? AND key >= ?"
                               " AND key < ?",
                               "iss", watch->seen, watch->first, watch->end);
    while (rc == 0 && (step = sqlite3_step(statement)) == SQLITE_ROW)
        *ret_changed =
            xv_kv_watch_wakes(&watch->base, xv_sqlite_text(statement, 0)) || *ret_changed;
    if (rc == 0 && step != SQLITE_DONE)
        rc = xv_sqlite_fail(&self->sqlite, "look for changes", NULL);
    sqlite3_finalize(statement);
    return rc;
}

/* Called inside the lock. */
static int look(struct xv_kv_sqlite *self, struct watch *watch, bool *ret_changed)
{
    int64_t now = xv_clock_ms();
    int rc = 0;
    if (now - watch->expired_ms >= EXPIRE_MS) {
        rc = xv_kv_sqlite_expire(self, NULL);
        watch->expired_ms = now;
    }
    int64_t revision = watch->seen;
    if (rc == 0)
        rc = xv_kv_sqlite_revision(self, &revision, NULL);
    if (rc != 0 || revision == watch->seen)
        return rc;
    /* A smaller one: somebody put another file there. */
    if (revision < watch->seen || revision - watch->seen >= CHANGES_KEPT)
        *ret_changed = xv_kv_watch_wakes(&watch->base, NULL);
    else
        rc = ask(self, watch, ret_changed);
    if (rc == 0)
        watch->seen = revision;
    return rc;
}

int xv_kv_sqlite_watch_wait(struct xv_kv_watch *base, int64_t timeout_ms,
                            const struct xv_call *call, bool *ret_changed, xvsa_error **error)
{
    struct watch *watch = (struct watch *)base;
    struct xv_call until = xv_call_within(call, timeout_ms);
    for (;;) {
        struct xv_kv_sqlite *self = xv_kv_sqlite_enter(base->kv, &until);
        int rc = look(self, watch, ret_changed);
        xv_kv_sqlite_leave(self);
        watch->base.live = rc == 0;
        /* A file that cannot be read just now is silence. */
        if (rc == 0 && *ret_changed)
            return 0;
        xvsa_error *failure = NULL;
        rc = xv_call_sleep(&until, LOOK_MS, COMPONENT, "waiting for a change", &failure);
        if (rc == XVSA_ERR_CANCELLED && error != NULL)
            *error = failure;
        else
            xv_error_clear(&failure);
        if (rc != 0)
            return rc == XVSA_ERR_TIMEOUT ? 0 : rc;
    }
}

void xv_kv_sqlite_watch_close(struct xv_kv_watch *base)
{
    struct watch *watch = (struct watch *)base;
    free(watch->first);
    free(watch->end);
    free(watch);
}
