/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The database: opening, the steps that bring an older file up to date, and running statements.
 */
#include "coord/state.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUSY_TIMEOUT_MS 15000

/* migrations[n] leads from user_version n to n + 1. Never changed once released, only added to. */
static const char *const migrations[] = {
    "CREATE TABLE jobs (id TEXT PRIMARY KEY, type TEXT NOT NULL, name TEXT NOT NULL,"
    " state TEXT NOT NULL, owner TEXT NOT NULL, pool_uuid TEXT NOT NULL, repo_id TEXT NOT NULL,"
    " spec TEXT NOT NULL, report TEXT, started_ms INTEGER NOT NULL,"
    " ended_ms INTEGER NOT NULL DEFAULT 0) STRICT;"
    "CREATE INDEX jobs_started ON jobs (started_ms);"
    "CREATE INDEX jobs_state ON jobs (state);"
    "CREATE TABLE intents (id INTEGER PRIMARY KEY AUTOINCREMENT, job_id TEXT NOT NULL,"
    " owner TEXT NOT NULL, pool_uuid TEXT NOT NULL, kind TEXT NOT NULL, tag TEXT NOT NULL,"
    " vm_uuid TEXT NOT NULL, abandoned INTEGER NOT NULL DEFAULT 0) STRICT;"
    "CREATE INDEX intents_pool ON intents (pool_uuid);"
    "CREATE TABLE outcomes (pool_uuid TEXT NOT NULL, vm_uuid TEXT NOT NULL,"
    " succeeded INTEGER NOT NULL, ended_ms INTEGER NOT NULL,"
    " PRIMARY KEY (pool_uuid, vm_uuid)) STRICT, WITHOUT ROWID;",
};
#define SCHEMA_VERSION (int)(sizeof migrations / sizeof migrations[0])

static int code_of(int sqlite_code)
{
    switch (sqlite_code & 0xff) {
    case SQLITE_NOMEM:
        return XVSA_ERR_MEMORY;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return XVSA_ERR_BUSY;
    case SQLITE_FULL:
        return XVSA_ERR_SPACE;
    case SQLITE_CORRUPT:
        return XVSA_ERR_CORRUPT;
    case SQLITE_NOTADB:
        return XVSA_ERR_FORMAT;
    case SQLITE_PERM:
    case SQLITE_READONLY:
    case SQLITE_AUTH:
        return XVSA_ERR_DENIED;
    default:
        return XVSA_ERR_IO;
    }
}

static const char *place(const struct xv_coord *coord)
{
    return coord->path == NULL ? "in memory" : coord->path;
}

int xv_state_fail(struct xv_coord *coord, const char *what, xvsa_error **error)
{
    return xv_fail(error, code_of(sqlite3_errcode(coord->db)), "coord",
                   "state file %s: cannot %s: %s", place(coord), what, sqlite3_errmsg(coord->db));
}

static int bind(sqlite3_stmt *statement, const char *types, va_list args)
{
    int rc = SQLITE_OK;
    for (int i = 0; types[i] != '\0' && rc == SQLITE_OK; i++) {
        if (types[i] == 'i')
            rc = sqlite3_bind_int64(statement, i + 1, va_arg(args, int64_t));
        else
            rc = sqlite3_bind_text(statement, i + 1, va_arg(args, const char *), -1,
                                   SQLITE_TRANSIENT);
    }
    return rc;
}

static int prepare(struct xv_coord *coord, const char *what, sqlite3_stmt **ret, xvsa_error **error,
                   const char *sql, const char *types, va_list args)
{
    if (sqlite3_prepare_v2(coord->db, sql, -1, ret, NULL) != SQLITE_OK)
        return xv_state_fail(coord, what, error);
    if (bind(*ret, types, args) != SQLITE_OK) {
        int rc = xv_state_fail(coord, what, error);
        sqlite3_finalize(*ret);
        return rc;
    }
    return 0;
}

int xv_state_prepare(struct xv_coord *coord, const char *what, sqlite3_stmt **ret,
                     xvsa_error **error, const char *sql, const char *types, ...)
{
    va_list args;
    va_start(args, types);
    int rc = prepare(coord, what, ret, error, sql, types, args);
    va_end(args);
    return rc;
}

int xv_state_run(struct xv_coord *coord, const char *what, xvsa_error **error, const char *sql,
                 const char *types, ...)
{
    sqlite3_stmt *statement = NULL;
    va_list args;
    va_start(args, types);
    pthread_mutex_lock(&coord->lock);
    int rc = prepare(coord, what, &statement, error, sql, types, args);
    if (rc == 0) {
        if (sqlite3_step(statement) != SQLITE_DONE)
            rc = xv_state_fail(coord, what, error);
        sqlite3_finalize(statement);
    }
    pthread_mutex_unlock(&coord->lock);
    va_end(args);
    return rc;
}

const char *xv_state_text(sqlite3_stmt *statement, int column)
{
    const unsigned char *text = sqlite3_column_text(statement, column);
    return text == NULL ? "" : (const char *)text;
}

static int execute(struct xv_coord *coord, const char *what, const char *sql, xvsa_error **error)
{
    if (sqlite3_exec(coord->db, sql, NULL, NULL, NULL) != SQLITE_OK)
        return xv_state_fail(coord, what, error);
    return 0;
}

static int read_version(struct xv_coord *coord, int *ret, xvsa_error **error)
{
    sqlite3_stmt *statement = NULL;
    if (sqlite3_prepare_v2(coord->db, "PRAGMA user_version", -1, &statement, NULL) != SQLITE_OK)
        return xv_state_fail(coord, "read its version", error);
    int rc = 0;
    if (sqlite3_step(statement) == SQLITE_ROW)
        *ret = sqlite3_column_int(statement, 0);
    else
        rc = xv_state_fail(coord, "read its version", error);
    sqlite3_finalize(statement);
    return rc;
}

/* Inside one write transaction, so that of several processes one migrates and the others find it done. */
static int migrate(struct xv_coord *coord, xvsa_error **error)
{
    int version = 0;
    int rc = read_version(coord, &version, error);
    if (rc == 0 && version > SCHEMA_VERSION)
        return xv_fail(error, XVSA_ERR_FORMAT, "coord",
                       "state file %s: written by a newer version (%d, this one knows %d)",
                       place(coord), version, SCHEMA_VERSION);
    for (; rc == 0 && version < SCHEMA_VERSION; version++) {
        char pragma[48];
        snprintf(pragma, sizeof pragma, "PRAGMA user_version = %d", version + 1);
        rc = execute(coord, "bring it up to date", migrations[version], error);
        if (rc == 0)
            rc = execute(coord, "bring it up to date", pragma, error);
    }
    return rc;
}

static int prepare_file(struct xv_coord *coord, xvsa_error **error)
{
    sqlite3_busy_timeout(coord->db, BUSY_TIMEOUT_MS);
    /* FULL: an intent must survive a power failure that the pool's object survives. */
    int rc = execute(coord, "set it up",
                     "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
                     "PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF",
                     error);
    if (rc == 0)
        rc = execute(coord, "begin its update", "BEGIN IMMEDIATE", error);
    if (rc != 0)
        return rc;
    rc = migrate(coord, error);
    if (rc == 0)
        return execute(coord, "end its update", "COMMIT", error);
    sqlite3_exec(coord->db, "ROLLBACK", NULL, NULL, NULL);
    return rc;
}

static int open_database(struct xv_coord *coord, xvsa_error **error)
{
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_FULLMUTEX;
    const char *path = coord->path == NULL ? ":memory:" : coord->path;
    if (sqlite3_open_v2(path, &coord->db, flags, NULL) != SQLITE_OK) {
        if (coord->db == NULL)
            return xv_fail_memory(error);
        return xv_state_fail(coord, "open it", error);
    }
    return prepare_file(coord, error);
}

int xv_coord_open(const char *path, struct xv_coord **ret, xvsa_error **error)
{
    struct xv_coord *coord = calloc(1, sizeof *coord);
    if (coord == NULL)
        return xv_fail_memory(error);
    coord->owner_fd = -1;
    pthread_mutex_init(&coord->lock, NULL);
    int rc = 0;
    if (path != NULL && (coord->path = strdup(path)) == NULL)
        rc = xv_fail_memory(error);
    if (rc == 0)
        rc = open_database(coord, error);
    if (rc == 0)
        rc = xv_owner_claim(coord, error);
    if (rc == 0)
        rc = xv_jobs_interrupt(coord, error);
    if (rc != 0) {
        xv_coord_close(coord);
        return rc;
    }
    *ret = coord;
    return 0;
}

void xv_coord_close(struct xv_coord *coord)
{
    if (coord == NULL)
        return;
    xv_owner_release(coord);
    sqlite3_close_v2(coord->db);
    pthread_mutex_destroy(&coord->lock);
    free(coord->path);
    free(coord);
}

const char *xv_coord_owner(const struct xv_coord *coord)
{
    return coord->owner;
}
