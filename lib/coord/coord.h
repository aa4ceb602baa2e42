/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What outlives a process: jobs, intents (objects about to be made in a pool), owners (processes
 * that work) and how the last backup of each VM ended. All of it is kept in a coordination store,
 * usually one SQLite file that several processes of a machine share; nothing above knows that.
 * Records are keyed; each change of one is atomic and durable before it returns. Thread-safe.
 */
#ifndef XV_COORD_COORD_H
#define XV_COORD_COORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "coord/kv.h"

struct xv_coord;

/* path NULL: in memory. Becomes an owner: alive until close, or until the process dies, whichever
 * way. Fails with FORMAT when a newer version wrote the file. */
int xv_coord_open(const char *path, struct xv_coord **ret, xvsa_error **error) XV_MUST_CHECK;
/* The same in a store that is open already and outlives it. In etcd an owner that dies is taken for
 * alive for up to a minute, and one that cannot reach the store for so long is taken for dead. */
int xv_coord_open_kv(struct xv_kv *kv, struct xv_coord **ret, xvsa_error **error) XV_MUST_CHECK;
void xv_coord_close(struct xv_coord *coord);

/* Identity of this owner: 16 hex digits after "f" (state that lasts) or "m" (in memory). */
#define XV_OWNER_MAX 17
const char *xv_coord_owner(const struct xv_coord *coord);

/* Jobs
 * ------------------------------------------------------------------------------------------- */

struct xv_coord_job {
    const char *id;
    const char *type;
    const char *name;  /* of the spec; "" for none */
    const char *state; /* "running", "succeeded", "partial", "failed", "cancelled", "interrupted" */
    const char *pool_uuid; /* "" for none */
    const char *repo_id;
    const char *spec;   /* JSON text */
    const char *report; /* JSON text; NULL until the end */
    int64_t started_ms;
    int64_t ended_ms; /* 0 while it runs */
};

/* Enters a job as running. EXISTS when there is one of that id. */
int xv_coord_job_add(struct xv_coord *coord, const struct xv_coord_job *job,
                     xvsa_error **error) XV_MUST_CHECK;
/* NOT_FOUND when the store has no such job. */
int xv_coord_job_end(struct xv_coord *coord, const char *id, const char *state, const char *report,
                     int64_t ended_ms, xvsa_error **error) XV_MUST_CHECK;
/* Newest first, at most limit. Jobs whose owner died become "interrupted" first. fn's non-zero
 * result stops and is returned; the record is valid during the call only. */
typedef int (*xv_coord_job_fn)(void *user, const struct xv_coord_job *job, xvsa_error **error);
int xv_coord_jobs(struct xv_coord *coord, uint32_t limit, xv_coord_job_fn fn, void *user,
                  xvsa_error **error) XV_MUST_CHECK;

/* Intents
 * ---------------------------------------------------------------------------------------- */

struct xv_intent {
    int64_t id;
    const char *job_id;
    const char *pool_uuid;
    const char *kind; /* "snapshot", "migration-block", "restore" */
    const char *tag;  /* what the objects carry */
    const char *vm_uuid;
};

/* Durable before it returns; *ret_id serves to clear it. */
int xv_coord_intent_add(struct xv_coord *coord, const struct xv_intent *intent, int64_t *ret_id,
                        xvsa_error **error) XV_MUST_CHECK;
int xv_coord_intent_clear(struct xv_coord *coord, int64_t id, xvsa_error **error) XV_MUST_CHECK;
/* The job gave up on it: from now on it is the janitor's, though its owner lives. */
int xv_coord_intent_abandon(struct xv_coord *coord, int64_t id, xvsa_error **error) XV_MUST_CHECK;
/* Intents of a pool that were abandoned or whose owner died. */
typedef int (*xv_intent_fn)(void *user, const struct xv_intent *intent, xvsa_error **error);
int xv_coord_intents_dead(struct xv_coord *coord, const char *pool_uuid, xv_intent_fn fn,
                          void *user, xvsa_error **error) XV_MUST_CHECK;

/* History
 * ---------------------------------------------------------------------------------------- */

/* How the last backup of a VM ended. */
int xv_coord_outcome_set(struct xv_coord *coord, const char *pool_uuid, const char *vm_uuid,
                         bool succeeded, int64_t ended_ms, xvsa_error **error) XV_MUST_CHECK;
/* *ret_failed: there was one and it failed. */
int xv_coord_outcome_get(struct xv_coord *coord, const char *pool_uuid, const char *vm_uuid,
                         bool *ret_failed, xvsa_error **error) XV_MUST_CHECK;

#endif
