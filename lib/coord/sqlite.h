/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Inside of the module: one connection to a SQLite file, and how statements run on it. Whoever uses
 * a connection holds its owner's lock.
 */
#ifndef XV_COORD_SQLITE_H
#define XV_COORD_SQLITE_H

#include <sqlite3.h>

#include "base/call.h"

struct xv_sqlite {
    sqlite3 *db;
    char *path; /* NULL: in memory */
    /* Waiting for other processes ends with it; set while a call is under way. */
    const struct xv_call *call;
    int64_t busy_since_ms;
};

int xv_sqlite_open(const char *path, struct xv_sqlite *ret, xvsa_error **error) XV_MUST_CHECK;
void xv_sqlite_close(struct xv_sqlite *sqlite);

/* Fails with the database's own words. */
int xv_sqlite_fail(struct xv_sqlite *sqlite, const char *what, xvsa_error **error);

/* Runs statements without parameters. */
int xv_sqlite_execute(struct xv_sqlite *sqlite, const char *what, const char *sql,
                      xvsa_error **error) XV_MUST_CHECK;

/* Prepares a statement. types has a letter for each parameter: s (const char *, may be NULL),
 * i (int64_t). The caller finalizes. */
int xv_sqlite_prepare(struct xv_sqlite *sqlite, const char *what, sqlite3_stmt **ret,
                      xvsa_error **error, const char *sql, const char *types, ...) XV_MUST_CHECK;

/* Runs one statement that answers nothing. */
int xv_sqlite_run(struct xv_sqlite *sqlite, const char *what, xvsa_error **error, const char *sql,
                  const char *types, ...) XV_MUST_CHECK;

/* Runs one statement that answers at most one number; *ret stays as it is without an answer. */
int xv_sqlite_number(struct xv_sqlite *sqlite, const char *what, int64_t *ret, xvsa_error **error,
                     const char *sql, const char *types, ...) XV_MUST_CHECK;

/* A text column; "" for NULL. */
const char *xv_sqlite_text(sqlite3_stmt *statement, int column);

#endif
