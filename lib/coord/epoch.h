/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The epoch of a coordination store: which life of the store this is. A store that was lost and
 * made anew counts its revisions from the start again; its generation is higher, so that the tokens
 * that fence sessions of repositories, generation * 2^44 + revision, never go back.
 */
#ifndef XV_COORD_EPOCH_H
#define XV_COORD_EPOCH_H

#include "coord/kv.h"

#define XV_EPOCH_UUID_MAX  36
#define XV_EPOCH_VALUE_MAX 159
#define XV_EPOCH_KEY       "epoch"

struct xv_epoch {
    int64_t gen; /* 0: the store has none */
    char site_uuid[XV_EPOCH_UUID_MAX + 1];
    int64_t revision;                   /* mod_revision of the key */
    char value[XV_EPOCH_VALUE_MAX + 1]; /* as stored; it has a random part: no two are equal */
};

/* Reads the key; gen is 0 when there is none. FORMAT when its content is not understood. */
int xv_epoch_read(struct xv_kv *kv, const struct xv_call *call, struct xv_epoch *ret,
                  xvsa_error **error) XV_MUST_CHECK;

/* Makes sure that there is an epoch of at least this generation (1 + the highest in tokens of the
 * known repositories; at least 1) and gives what is there then: another one's that came first, too.
 * site_uuid NULL: of a new site, at random; one that the store knows is kept. */
int xv_epoch_ensure(struct xv_kv *kv, int64_t at_least, const char *site_uuid,
                    const struct xv_call *call, struct xv_epoch *ret,
                    xvsa_error **error) XV_MUST_CHECK;

/* The compare that makes a transaction fail in any other epoch. Revisions that were read in an
 * epoch mean nothing in another one, where they may be equal by chance: guard with it whatever
 * compares a revision from memory. epoch must outlive the transaction. */
struct xv_kv_compare xv_epoch_guard(const struct xv_epoch *epoch);

/* Makes a token; *ret_token is above 0 and below 2^63. LIMIT when a part does not fit. */
int xv_epoch_token(const struct xv_epoch *epoch, int64_t revision, int64_t *ret_token,
                   xvsa_error **error) XV_MUST_CHECK;
/* The generation in a token. */
int64_t xv_epoch_of_token(int64_t token);

#endif
