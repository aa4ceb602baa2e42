/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Running statements, with the database's failures told in the project's words.
 */
#include "coord/sqlite.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define COMPONENT   "coord"
#define BUSY_MAX_MS 15000

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

int xv_sqlite_fail(struct xv_sqlite *sqlite, const char *what, xvsa_error **error)
{
    int code = code_of(sqlite3_errcode(sqlite->db));
    if (code == XVSA_ERR_BUSY) {
        int rc = xv_call_check(sqlite->call, COMPONENT, "waiting for the state file", error);
        if (rc != 0)
            return rc;
    }
    return xv_fail(error, code, COMPONENT, "state file %s: cannot %s: %s",
                   sqlite->path == NULL ? "in memory" : sqlite->path, what,
                   sqlite3_errmsg(sqlite->db));
}

/* Another process writes: waits in small uneven steps, as long as the call may. */
static int on_busy(void *user, int count)
{
    struct xv_sqlite *sqlite = user;
    int64_t now = xv_clock_ms();
    if (count == 0)
        sqlite->busy_since_ms = now;
    if (now - sqlite->busy_since_ms >= BUSY_MAX_MS ||
        xv_call_check(sqlite->call, COMPONENT, "waiting", NULL) != 0)
        return 0;
    sqlite3_sleep(1 + (count < 10 ? count : 10) + (int)((unsigned)now * 7919u % 4u));
    return 1;
}

int xv_sqlite_open(const char *path, struct xv_sqlite *ret, xvsa_error **error)
{
    *ret = (struct xv_sqlite){0};
    if (path != NULL && (ret->path = strdup(path)) == NULL)
        return xv_fail_memory(error);
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    if (sqlite3_open_v2(path == NULL ? ":memory:" : path, &ret->db, flags, NULL) != SQLITE_OK) {
        int rc = ret->db == NULL ? xv_fail_memory(error) : xv_sqlite_fail(ret, "open it", error);
        xv_sqlite_close(ret);
        return rc;
    }
    sqlite3_busy_handler(ret->db, on_busy, ret);
    return 0;
}

void xv_sqlite_close(struct xv_sqlite *sqlite)
{
    sqlite3_close_v2(sqlite->db);
    free(sqlite->path);
    *sqlite = (struct xv_sqlite){0};
}

int xv_sqlite_execute(struct xv_sqlite *sqlite, const char *what, const char *sql,
                      xvsa_error **error)
{
    if (sqlite3_exec(sqlite->db, sql, NULL, NULL, NULL) != SQLITE_OK)
        return xv_sqlite_fail(sqlite, what, error);
    return 0;
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

static int prepare(struct xv_sqlite *sqlite, const char *what, sqlite3_stmt **ret,
                   xvsa_error **error, const char *sql, const char *types, va_list args)
{
    *ret = NULL;
    if (sqlite3_prepare_v2(sqlite->db, sql, -1, ret, NULL) == SQLITE_OK &&
        bind(*ret, types, args) == SQLITE_OK)
        return 0;
    int rc = xv_sqlite_fail(sqlite, what, error);
    sqlite3_finalize(*ret);
    *ret = NULL;
    return rc;
}

int xv_sqlite_prepare(struct xv_sqlite *sqlite, const char *what, sqlite3_stmt **ret,
                      xvsa_error **error, const char *sql, const char *types, ...)
{
    va_list args;
    va_start(args, types);
    int rc = prepare(sqlite, what, ret, error, sql, types, args);
    va_end(args);
    return rc;
}

int xv_sqlite_run(struct xv_sqlite *sqlite, const char *what, xvsa_error **error, const char *sql,
                  const char *types, ...)
{
    sqlite3_stmt *statement = NULL;
    va_list args;
    va_start(args, types);
    int rc = prepare(sqlite, what, &statement, error, sql, types, args);
    va_end(args);
    if (rc != 0)
        return rc;
    if (sqlite3_step(statement) != SQLITE_DONE)
        rc = xv_sqlite_fail(sqlite, what, error);
    sqlite3_finalize(statement);
    return rc;
}

int xv_sqlite_number(struct xv_sqlite *sqlite, const char *what, int64_t *ret, xvsa_error **error,
                     const char *sql, const char *types, ...)
{
    sqlite3_stmt *statement = NULL;
    va_list args;
    va_start(args, types);
    int rc = prepare(sqlite, what, &statement, error, sql, types, args);
    va_end(args);
    if (rc != 0)
        return rc;
    int step = sqlite3_step(statement);
    if (step == SQLITE_ROW)
        *ret = sqlite3_column_int64(statement, 0);
    else if (step != SQLITE_DONE)
        rc = xv_sqlite_fail(sqlite, what, error);
    sqlite3_finalize(statement);
    return rc;
}

const char *xv_sqlite_text(sqlite3_stmt *statement, int column)
{
    const unsigned char *text = sqlite3_column_text(statement, column);
    return text == NULL ? "" : (const char *)text;
}
