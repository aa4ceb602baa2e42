/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Jobs and the last outcome of each VM.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coord/state.h"

#define OWNERS_MAX 64

int xv_coord_job_add(struct xv_coord *coord, const struct xv_coord_job *job, xvsa_error **error)
{
    return xv_state_run(coord, "enter a job", error,
                        "INSERT INTO jobs (id, type, name, state, owner, pool_uuid, repo_id, spec,"
                        " started_ms) VALUES (?, ?, ?, 'running', ?, ?, ?, ?, ?)",
                        "sssssssi", job->id, job->type, job->name, coord->owner, job->pool_uuid,
                        job->repo_id, job->spec, job->started_ms);
}

int xv_coord_job_end(struct xv_coord *coord, const char *id, const char *state, const char *report,
                     int64_t ended_ms, xvsa_error **error)
{
    return xv_state_run(coord, "end a job", error,
                        "UPDATE jobs SET state = ?, report = ?, ended_ms = ? WHERE id = ?", "ssis",
                        state, report, ended_ms, id);
}

/* Owners of running jobs, at most OWNERS_MAX at a time. */
static int running_owners(struct xv_coord *coord, char owners[][XV_OWNER_MAX + 1],
                          size_t *ret_count, xvsa_error **error)
{
    sqlite3_stmt *statement = NULL;
    pthread_mutex_lock(&coord->lock);
    int rc = xv_state_prepare(coord, "look for interrupted jobs", &statement, error,
                              "SELECT DISTINCT owner FROM jobs WHERE state = 'running'", "");
    *ret_count = 0;
    while (rc == 0 && *ret_count < OWNERS_MAX && sqlite3_step(statement) == SQLITE_ROW)
        snprintf(owners[(*ret_count)++], XV_OWNER_MAX + 1, "%s", xv_state_text(statement, 0));
    sqlite3_finalize(statement);
    pthread_mutex_unlock(&coord->lock);
    return rc;
}

int xv_jobs_interrupt(struct xv_coord *coord, xvsa_error **error)
{
    char owners[OWNERS_MAX][XV_OWNER_MAX + 1];
    size_t count = 0;
    int rc = running_owners(coord, owners, &count, error);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        if (!xv_owner_is_alive(coord, owners[i]))
            rc = xv_state_run(coord, "mark interrupted jobs", error,
                              "UPDATE jobs SET state = 'interrupted'"
                              " WHERE state = 'running' AND owner = ?",
                              "s", owners[i]);
    }
    return rc;
}

static void copy_row(sqlite3_stmt *statement, struct xv_coord_job *job)
{
    const char **texts[] = {&job->id,        &job->type,    &job->name, &job->state,
                            &job->pool_uuid, &job->repo_id, &job->spec, &job->report};
    for (int i = 0; i < 8; i++) {
        bool null = sqlite3_column_type(statement, i) == SQLITE_NULL;
        *texts[i] = null ? NULL : strdup(xv_state_text(statement, i));
    }
    job->started_ms = sqlite3_column_int64(statement, 8);
    job->ended_ms = sqlite3_column_int64(statement, 9);
}

static void free_row(struct xv_coord_job *job)
{
    const char *texts[] = {job->id,        job->type,    job->name, job->state,
                           job->pool_uuid, job->repo_id, job->spec, job->report};
    for (int i = 0; i < 8; i++)
        free((char *)(uintptr_t)texts[i]);
}

static int collect(struct xv_coord *coord, uint32_t limit, struct xv_coord_job *rows, size_t *count,
                   xvsa_error **error)
{
    sqlite3_stmt *statement = NULL;
    pthread_mutex_lock(&coord->lock);
    int rc = xv_state_prepare(coord, "list jobs", &statement, error,
                              "SELECT id, type, name, state, pool_uuid, repo_id, spec, report,"
                              " started_ms, ended_ms FROM jobs"
                              " ORDER BY started_ms DESC, rowid DESC LIMIT ?",
                              "i", (int64_t)limit);
    int step = SQLITE_DONE;
    while (rc == 0 && *count < limit && (step = sqlite3_step(statement)) == SQLITE_ROW)
        copy_row(statement, &rows[(*count)++]);
    if (rc == 0 && step != SQLITE_DONE && step != SQLITE_ROW)
        rc = xv_state_fail(coord, "list jobs", error);
    sqlite3_finalize(statement);
    pthread_mutex_unlock(&coord->lock);
    return rc;
}

int xv_coord_jobs(struct xv_coord *coord, uint32_t limit, xv_coord_job_fn fn, void *user,
                  xvsa_error **error)
{
    int rc = xv_jobs_interrupt(coord, error);
    if (rc != 0)
        return rc;
    struct xv_coord_job *rows = calloc(limit == 0 ? 1 : limit, sizeof *rows);
    if (rows == NULL)
        return xv_fail_memory(error);
    size_t count = 0;
    rc = collect(coord, limit, rows, &count, error);
    for (size_t i = 0; i < count; i++) {
        if (rc == 0 && (rows[i].id == NULL || rows[i].spec == NULL))
            rc = xv_fail_memory(error);
        if (rc == 0)
            rc = fn(user, &rows[i], error);
        free_row(&rows[i]);
    }
    free(rows);
    return rc;
}

int xv_coord_outcome_set(struct xv_coord *coord, const char *pool_uuid, const char *vm_uuid,
                         bool succeeded, int64_t ended_ms, xvsa_error **error)
{
    return xv_state_run(coord, "note a VM's outcome", error,
                        "INSERT INTO outcomes (pool_uuid, vm_uuid, succeeded, ended_ms)"
                        " VALUES (?, ?, ?, ?) ON CONFLICT (pool_uuid, vm_uuid) DO UPDATE"
                        " SET succeeded = excluded.succeeded, ended_ms = excluded.ended_ms",
                        "ssii", pool_uuid, vm_uuid, (int64_t)succeeded, ended_ms);
}

int xv_coord_outcome_get(struct xv_coord *coord, const char *pool_uuid, const char *vm_uuid,
                         bool *ret_failed, xvsa_error **error)
{
    sqlite3_stmt *statement = NULL;
    pthread_mutex_lock(&coord->lock);
    int rc = xv_state_prepare(coord, "read a VM's outcome", &statement, error,
                              "SELECT succeeded FROM outcomes WHERE pool_uuid = ? AND vm_uuid = ?",
                              "ss", pool_uuid, vm_uuid);
    if (rc == 0) {
        int step = sqlite3_step(statement);
        *ret_failed = step == SQLITE_ROW && sqlite3_column_int(statement, 0) == 0;
        if (step != SQLITE_ROW && step != SQLITE_DONE)
            rc = xv_state_fail(coord, "read a VM's outcome", error);
        sqlite3_finalize(statement);
    }
    pthread_mutex_unlock(&coord->lock);
    return rc;
}
