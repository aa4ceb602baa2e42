/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Inside of the module: what the records of jobs, intents and outcomes have in common.
 *
 * owner/<owner> (lease)          {}: the owner lives
 * job/<job>                      {type, name, state, owner, pool, repo, started, ended}
 * jobtext/<job>/spec/<piece>     text, in pieces that a transaction can hold
 * jobtext/<job>/report/<piece>
 * intent/<id>                    {job, owner, pool, kind, tag, vm, abandoned}
 * outcome/<pool>/<vm>            {failed, ended}
 */
#ifndef XV_COORD_STATE_H
#define XV_COORD_STATE_H

#include <jansson.h>
#include <pthread.h>

#include "coord/coord.h"

#define XV_STATE_COMPONENT "coord"

struct xv_coord {
    struct xv_kv *kv;
    bool owns_kv;
    char owner[XV_OWNER_MAX + 1];
    char owner_key[XV_OWNER_MAX + sizeof "owner/"];
    xvsa_cancel *stop; /* of the thread that keeps the owner's lease; NULL: it needs none */
    pthread_t thread;
    pthread_mutex_t lock; /* lease; never held over I/O */
    int64_t lease;
};

/* The owners that live, as of one moment. */
int xv_state_owners(struct xv_coord *coord, struct xv_kv_list *ret,
                    xvsa_error **error) XV_MUST_CHECK;
bool xv_state_is_alive(const struct xv_kv_list *owners, const char *owner);

/* The record in a pair; NULL when it is none, which FORMAT tells. */
json_t *xv_state_record(const struct xv_kv_pair *pair, xvsa_error **error);
/* A text of a record; "" when it has none. */
const char *xv_state_text(const json_t *record, const char *name);
/* Makes the key's value the record, when its mod_revision still is the given one. Takes over
 * record, which may be NULL for lack of memory. */
int xv_state_put(struct xv_coord *coord, const char *key, int64_t revision, json_t *record,
                 bool *ret_succeeded, xvsa_error **error) XV_MUST_CHECK;

/* Turns running jobs of dead owners into interrupted ones. */
int xv_jobs_interrupt(struct xv_coord *coord, xvsa_error **error) XV_MUST_CHECK;

#endif
