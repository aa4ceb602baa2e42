/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Intents: written before an object is made in a pool, cleared when it is gone or has become the
 * user's.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coord/state.h"

int xv_coord_intent_add(struct xv_coord *coord, const struct xv_intent *intent, int64_t *ret_id,
                        xvsa_error **error)
{
    sqlite3_stmt *statement = NULL;
    pthread_mutex_lock(&coord->lock);
    int rc = xv_state_prepare(coord, "write an intent", &statement, error,
                              "INSERT INTO intents (job_id, owner, pool_uuid, kind, tag, vm_uuid)"
                              " VALUES (?, ?, ?, ?, ?, ?)",
                              "ssssss", intent->job_id, coord->owner, intent->pool_uuid,
                              intent->kind, intent->tag, intent->vm_uuid);
    if (rc == 0) {
        if (sqlite3_step(statement) == SQLITE_DONE)
            *ret_id = sqlite3_last_insert_rowid(coord->db);
        else
            rc = xv_state_fail(coord, "write an intent", error);
        sqlite3_finalize(statement);
    }
    pthread_mutex_unlock(&coord->lock);
    return rc;
}

int xv_coord_intent_clear(struct xv_coord *coord, int64_t id, xvsa_error **error)
{
    return xv_state_run(coord, "clear an intent", error, "DELETE FROM intents WHERE id = ?", "i",
                        id);
}

int xv_coord_intent_abandon(struct xv_coord *coord, int64_t id, xvsa_error **error)
{
    return xv_state_run(coord, "abandon an intent", error,
                        "UPDATE intents SET abandoned = 1 WHERE id = ?", "i", id);
}

struct row {
    struct row *next;
    struct xv_intent intent;
    char *texts[5];
    char owner[XV_OWNER_MAX + 1];
    bool abandoned;
};

static void free_rows(struct row *rows)
{
    while (rows != NULL) {
        struct row *next = rows->next;
        for (int i = 0; i < 5; i++)
            free(rows->texts[i]);
        free(rows);
        rows = next;
    }
}

static struct row *copy_row(sqlite3_stmt *statement)
{
    struct row *row = calloc(1, sizeof *row);
    if (row == NULL)
        return NULL;
    for (int i = 0; i < 5; i++) {
        row->texts[i] = strdup(xv_state_text(statement, i + 1));
        if (row->texts[i] == NULL) {
            free_rows(row);
            return NULL;
        }
    }
    row->intent = (struct xv_intent){sqlite3_column_int64(statement, 0),
                                     row->texts[0],
                                     row->texts[1],
                                     row->texts[2],
                                     row->texts[3],
                                     row->texts[4]};
    snprintf(row->owner, sizeof row->owner, "%s", xv_state_text(statement, 6));
    row->abandoned = sqlite3_column_int(statement, 7) != 0;
    return row;
}

static int collect(struct xv_coord *coord, const char *pool_uuid, struct row **rows,
                   xvsa_error **error)
{
    sqlite3_stmt *statement = NULL;
    pthread_mutex_lock(&coord->lock);
    int rc = xv_state_prepare(coord, "read intents", &statement, error,
                              "SELECT id, job_id, pool_uuid, kind, tag, vm_uuid, owner, abandoned"
                              " FROM intents WHERE pool_uuid = ? ORDER BY id DESC",
                              "s", pool_uuid);
    int step = SQLITE_DONE;
    while (rc == 0 && (step = sqlite3_step(statement)) == SQLITE_ROW) {
        struct row *row = copy_row(statement);
        if (row == NULL) {
            rc = xv_fail_memory(error);
            break;
        }
        row->next = *rows;
        *rows = row;
    }
    if (rc == 0 && step != SQLITE_DONE)
        rc = xv_state_fail(coord, "read intents", error);
    sqlite3_finalize(statement);
    pthread_mutex_unlock(&coord->lock);
    return rc;
}

int xv_coord_intents_dead(struct xv_coord *coord, const char *pool_uuid, xv_intent_fn fn,
                          void *user, xvsa_error **error)
{
    struct row *rows = NULL;
    int rc = collect(coord, pool_uuid, &rows, error);
    for (struct row *row = rows; rc == 0 && row != NULL; row = row->next) {
        if (row->abandoned || !xv_owner_is_alive(coord, row->owner))
            rc = fn(user, &row->intent, error);
    }
    free_rows(rows);
    return rc;
}
