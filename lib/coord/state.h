/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Inside of the module: the database and its prepared statements' manners.
 */
#ifndef XV_COORD_STATE_H
#define XV_COORD_STATE_H

#include <pthread.h>
#include <sqlite3.h>

#include "coord/coord.h"

struct xv_coord {
    sqlite3 *db;
    pthread_mutex_t lock; /* one statement at a time; never held while a callback runs */
    char *path;           /* NULL: in memory */
    char owner[XV_OWNER_MAX + 1];
    int owner_fd; /* holds the flock that tells others that we live; -1 in memory */
};

/* Fails with the database's own words. */
int xv_state_fail(struct xv_coord *coord, const char *what, xvsa_error **error);

/* Runs one statement that answers nothing. types has a letter for each parameter: s (const char *, may
 * be NULL), i (int64_t). Takes the lock. */
int xv_state_run(struct xv_coord *coord, const char *what, xvsa_error **error, const char *sql,
                 const char *types, ...) XV_MUST_CHECK;

/* Prepares a statement with parameters as above; the caller holds the lock. */
int xv_state_prepare(struct xv_coord *coord, const char *what, sqlite3_stmt **ret,
                     xvsa_error **error, const char *sql, const char *types, ...) XV_MUST_CHECK;

/* A text column; "" for NULL. */
const char *xv_state_text(sqlite3_stmt *statement, int column);

/* Owners: owner.c */
int xv_owner_claim(struct xv_coord *coord, xvsa_error **error) XV_MUST_CHECK;
void xv_owner_release(struct xv_coord *coord);
bool xv_owner_is_alive(const struct xv_coord *coord, const char *owner);

/* Turns running jobs of dead owners into interrupted ones. Takes the lock. */
int xv_jobs_interrupt(struct xv_coord *coord, xvsa_error **error) XV_MUST_CHECK;

#endif
