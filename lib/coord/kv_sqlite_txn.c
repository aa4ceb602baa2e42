/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Transactions on the state file. All of one is under SQLite's write lock, so that it sees and
 * makes one revision.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coord/kv_sqlite.h"

#define COMPONENT XV_KV_COMPONENT

static int compare_one(struct xv_kv_sqlite *self, const struct xv_kv_compare *compare,
                       bool *ret_holds, xvsa_error **error)
{
    sqlite3_stmt *statement = NULL;
    int rc = xv_sqlite_prepare(&self->sqlite, "compare a key", &statement, error,
                               "SELECT create_revision, mod_revision, value FROM kv WHERE key = ?",
                               "s", compare->key);
    if (rc != 0)
        return rc;
    int step = sqlite3_step(statement);
    bool present = step == SQLITE_ROW;
    if (!present && step != SQLITE_DONE) {
        rc = xv_sqlite_fail(&self->sqlite, "compare a key", error);
    } else {
        int column = compare->field == XV_KV_MOD_REVISION ? 1 : 0;
        int64_t revision = present ? sqlite3_column_int64(statement, column) : 0;
        *ret_holds = compare->field == XV_KV_VALUE || revision == compare->revision;
        if (compare->value != NULL)
            *ret_holds =
                *ret_holds && present && strcmp(xv_sqlite_text(statement, 2), compare->value) == 0;
    }
    sqlite3_finalize(statement);
    return rc;
}

static int compare_all(struct xv_kv_sqlite *self, const struct xv_kv_compare *compares,
                       size_t count, bool *ret_hold, xvsa_error **error)
{
    *ret_hold = true;
    int rc = 0;
    for (size_t i = 0; rc == 0 && *ret_hold && i < count; i++)
        rc = compare_one(self, &compares[i], ret_hold, error);
    return rc;
}

static int put(struct xv_kv_sqlite *self, const struct xv_kv_op *op, int64_t revision,
               xvsa_error **error)
{
    int64_t lease = 0;
    int rc = 0;
    if (op->lease != 0) {
        rc = xv_sqlite_number(&self->sqlite, "look for a lease", &lease, error,
                              "SELECT id FROM leases WHERE id = ?", "i", op->lease);
        if (rc == 0 && lease == 0)
            return xv_fail(error, XVSA_ERR_NOT_FOUND, COMPONENT,
                           "the lease that %s was to be put with is gone", op->key);
    }
    if (rc == 0)
        rc = xv_sqlite_run(&self->sqlite, "put a key", error,
                           "INSERT INTO kv (key, value, create_revision, mod_revision, lease)"
                           " VALUES (?1, ?2, ?3, ?3, ?4) ON CONFLICT (key) DO UPDATE"
                           " SET value = ?2, mod_revision = ?3, lease = ?4",
                           "ssii", op->key, op->value, revision, op->lease);
    if (rc == 0)
        rc = xv_sqlite_run(&self->sqlite, "note a change", error,
                           "INSERT INTO changes (revision, key) VALUES (?, ?)", "is", revision,
                           op->key);
    return rc;
}

static int delete_range(struct xv_kv_sqlite *self, const char *first, const char *end,
                        int64_t revision, xvsa_error **error)
{
    int rc = xv_sqlite_run(&self->sqlite, "note a change", error,
                           "INSERT INTO changes SELECT ?, key FROM kv WHERE key >= ? AND key < ?",
                           "iss", revision, first, end);
    if (rc == 0)
        rc = xv_sqlite_run(&self->sqlite, "delete keys", error,
                           "DELETE FROM kv WHERE key >= ? AND key < ?", "ss", first, end);
    return rc;
}

static int delete (struct xv_kv_sqlite *self, const struct xv_kv_op *op, int64_t revision,
                   xvsa_error **error)
{
    char *end = NULL;
    if (op->verb == XV_KV_DELETE_PREFIX)
        end = xv_kv_range_end(op->key);
    else if (asprintf(&end, "%s\x01", op->key) < 0) /* below every longer key */
        end = NULL;
    if (end == NULL)
        return xv_fail_memory(error);
    int rc = delete_range(self, op->key, end, revision, error);
    free(end);
    return rc;
}

static int change(struct xv_kv_sqlite *self, const struct xv_kv_op *ops, size_t count,
                  int64_t *revision, xvsa_error **error)
{
    int before = sqlite3_total_changes(self->sqlite.db);
    int64_t next = *revision + 1;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = ops[i].verb == XV_KV_PUT ? put(self, &ops[i], next, error)
                                      : delete (self, &ops[i], next, error);
    if (rc != 0 || sqlite3_total_changes(self->sqlite.db) == before)
        return rc;
    *revision = next;
    return xv_kv_sqlite_advance(self, next, error);
}

int xv_kv_sqlite_txn(struct xv_kv *kv, const struct xv_kv_compare *compares, size_t compare_count,
                     const struct xv_kv_op *ops, size_t op_count, const struct xv_call *call,
                     bool *ret_succeeded, int64_t *ret_revision, xvsa_error **error)
{
    struct xv_kv_sqlite *self = xv_kv_sqlite_enter(kv, call);
    bool hold = false;
    int rc = xv_kv_sqlite_begin(self, error);
    if (rc == 0) {
        rc = xv_kv_sqlite_revision(self, ret_revision, error);
        if (rc == 0)
            rc = compare_all(self, compares, compare_count, &hold, error);
        if (rc == 0 && hold)
            rc = change(self, ops, op_count, ret_revision, error);
        rc = xv_kv_sqlite_end(self, rc, error);
    }
    xv_kv_sqlite_leave(self);
    *ret_succeeded = rc == 0 && hold;
    return rc;
}
