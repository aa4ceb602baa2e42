/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The store in one SQLite file that processes of one machine share: opening, reading, transactions.
 * A revision is one number for the whole store, as in etcd; a transaction that changes something
 * makes the next one and all that it puts bears it.
 */
#include "coord/kv_sqlite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COMPONENT    XV_KV_COMPONENT
#define CHANGES_KEPT 1000

struct xv_kv_sqlite *xv_kv_sqlite_enter(struct xv_kv *kv, const struct xv_call *call)
{
    struct xv_kv_sqlite *self = (struct xv_kv_sqlite *)kv;
    pthread_mutex_lock(&self->lock);
    self->sqlite.call = call;
    return self;
}

void xv_kv_sqlite_leave(struct xv_kv_sqlite *self)
{
    self->sqlite.call = NULL;
    pthread_mutex_unlock(&self->lock);
}

int xv_kv_sqlite_revision(struct xv_kv_sqlite *self, int64_t *ret, xvsa_error **error)
{
    *ret = 0;
    return xv_sqlite_number(&self->sqlite, "read its revision", ret, error,
                            "SELECT revision FROM state", "");
}

int xv_kv_sqlite_advance(struct xv_kv_sqlite *self, int64_t revision, xvsa_error **error)
{
    int rc = xv_sqlite_run(&self->sqlite, "count its revision", error,
                           "UPDATE state SET revision = ?", "i", revision);
    if (rc == 0)
        rc = xv_sqlite_run(&self->sqlite, "forget old changes", error,
                           "DELETE FROM changes WHERE revision <= ?", "i", revision - CHANGES_KEPT);
    return rc;
}

int xv_kv_sqlite_sync(struct xv_kv_sqlite *self, bool durable, xvsa_error **error)
{
    if (self->durable == durable)
        return 0;
    /* A failure leaves open which of the two holds now. */
    self->durable = false;
    int rc = xv_sqlite_execute(
        &self->sqlite, "set how its commits reach the disk",
        durable ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = NORMAL", error);
    self->durable = rc == 0 && durable;
    return rc;
}

static int begin(struct xv_kv_sqlite *self, bool durable, xvsa_error **error)
{
    int rc = xv_kv_sqlite_sync(self, durable, error);
    if (rc == 0)
        rc = xv_sqlite_execute(&self->sqlite, "begin a change", "BEGIN IMMEDIATE", error);
    if (rc != 0)
        return rc;
    rc = xv_kv_sqlite_expire_here(self, error);
    return rc == 0 ? 0 : xv_kv_sqlite_end(self, rc, error);
}

int xv_kv_sqlite_begin(struct xv_kv_sqlite *self, xvsa_error **error)
{
    return begin(self, true, error);
}

int xv_kv_sqlite_begin_quick(struct xv_kv_sqlite *self, xvsa_error **error)
{
    return begin(self, false, error);
}

int xv_kv_sqlite_end(struct xv_kv_sqlite *self, int rc, xvsa_error **error)
{
    if (rc == 0)
        rc = xv_sqlite_execute(&self->sqlite, "end a change", "COMMIT", error);
    if (rc != 0 && sqlite3_get_autocommit(self->sqlite.db) == 0)
        sqlite3_exec(self->sqlite.db, "ROLLBACK", NULL, NULL, NULL);
    return rc;
}

static int read_pairs(struct xv_kv_sqlite *self, sqlite3_stmt *statement, struct xv_kv_list *ret,
                      xvsa_error **error)
{
    int step;
    while ((step = sqlite3_step(statement)) == SQLITE_ROW) {
        struct xv_kv_pair facts = {.create_revision = sqlite3_column_int64(statement, 2),
                                   .mod_revision = sqlite3_column_int64(statement, 3),
                                   .lease = sqlite3_column_int64(statement, 4)};
        const char *key = xv_sqlite_text(statement, 0);
        const char *value = xv_sqlite_text(statement, 1);
        int rc = xv_kv_list_add(ret, key, (size_t)sqlite3_column_bytes(statement, 0), value,
                                (size_t)sqlite3_column_bytes(statement, 1), &facts, error);
        if (rc != 0)
            return rc;
    }
    return step == SQLITE_DONE ? 0 : xv_sqlite_fail(&self->sqlite, "read keys", error);
}

static int select_pairs(struct xv_kv_sqlite *self, const char *key, bool prefix, int64_t since,
                        struct xv_kv_list *ret, xvsa_error **error)
{
    static const char one[] = "SELECT key, value, create_revision, mod_revision, lease FROM kv"
                              " WHERE key = ?";
    static const char many[] = "SELECT key, value, create_revision, mod_revision, lease FROM kv"
                               " WHERE key >= ? AND key < ? AND mod_revision >= ? ORDER BY key";
    sqlite3_stmt *statement = NULL;
    char *end = xv_kv_range_end(key);
    if (end == NULL)
        return xv_fail_memory(error);
    int rc = prefix
                 ? xv_sqlite_prepare(&self->sqlite, "read keys", &statement, error, many, "ssi",
                                     key, end, since)
                 : xv_sqlite_prepare(&self->sqlite, "read keys", &statement, error, one, "s", key);
    if (rc == 0)
        rc = read_pairs(self, statement, ret, error);
    sqlite3_finalize(statement);
    ret->total = (int64_t)ret->count;
    if (rc == 0 && since != 0)
        rc = xv_sqlite_number(&self->sqlite, "count keys", &ret->total, error,
                              "SELECT COUNT(*) FROM kv WHERE key >= ? AND key < ?", "ss", key, end);
    free(end);
    return rc;
}

static int range(struct xv_kv *kv, const char *key, bool prefix, int64_t since,
                 const struct xv_call *call, struct xv_kv_list *ret, xvsa_error **error)
{
    struct xv_kv_sqlite *self = xv_kv_sqlite_enter(kv, call);
    int rc = xv_kv_sqlite_expire(self, error);
    /* One read transaction: the revision is that of the keys. */
    if (rc == 0)
        rc = xv_sqlite_execute(&self->sqlite, "begin to read", "BEGIN", error);
    if (rc == 0) {
        rc = xv_kv_sqlite_revision(self, &ret->revision, error);
        if (rc == 0)
            rc = select_pairs(self, key, prefix, since, ret, error);
        rc = xv_kv_sqlite_end(self, rc, error);
    }
    xv_kv_sqlite_leave(self);
    return rc;
}

static void close_store(struct xv_kv *kv)
{
    struct xv_kv_sqlite *self = (struct xv_kv_sqlite *)kv;
    if (self->sqlite.db != NULL)
        xv_kv_sqlite_revoke_own(self);
    xv_sqlite_close(&self->sqlite);
    xv_owner_release(&self->owner);
    pthread_mutex_destroy(&self->lock);
    free(self);
}

static const struct xv_kv_ops ops = {
    .local = true,
    .range = range,
    .txn = xv_kv_sqlite_txn,
    .lease_grant = xv_kv_sqlite_grant,
    .lease_renew = xv_kv_sqlite_renew,
    .lease_revoke = xv_kv_sqlite_revoke,
    .watch_open = xv_kv_sqlite_watch_open,
    .watch_wait = xv_kv_sqlite_watch_wait,
    .watch_close = xv_kv_sqlite_watch_close,
    .close = close_store,
};

/* Without it, the lock files of a machine that booted again still tell that all are dead. */
static void read_boot_id(char boot[XV_BOOT_MAX + 1])
{
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (file == NULL || fgets(boot, XV_BOOT_MAX, file) == NULL)
        snprintf(boot, XV_BOOT_MAX, "unknown");
    boot[strcspn(boot, "\n")] = '\0';
    if (file != NULL)
        fclose(file);
}

int xv_kv_sqlite_open(const struct xv_kv_options *options, const char *rest,
                      const struct xv_call *call, struct xv_kv **ret, xvsa_error **error)
{
    (void)options;
    struct xv_kv_sqlite *self = calloc(1, sizeof *self);
    if (self == NULL)
        return xv_fail_memory(error);
    const char *path = rest[0] == '\0' ? NULL : rest;
    self->kv.ops = &ops;
    self->owner.fd = -1;
    pthread_mutex_init(&self->lock, NULL);
    read_boot_id(self->boot);
    int rc = xv_sqlite_open(path, &self->sqlite, error);
    self->sqlite.call = call;
    /* Before the layout, which has to know that no older version works. */
    if (rc == 0)
        rc = xv_owner_claim(path, &self->owner, error);
    if (rc == 0)
        rc = xv_kv_sqlite_layout(self, error);
    self->sqlite.call = NULL;
    if (rc != 0) {
        sqlite3_close_v2(self->sqlite.db);
        self->sqlite.db = NULL;
        close_store(&self->kv);
        return rc;
    }
    (void)xv_owner_sweep(&self->owner);
    *ret = &self->kv;
    return 0;
}
