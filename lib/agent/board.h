/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Boards: disks that are being moved, cut into units that members claim and do. "b/<place>" is the board,
 * "c/<place>/<unit>" a claim, "d/<place>/<unit>" a unit that is done; place is "<job>/<subject>/<disk>".
 */
#ifndef XV_AGENT_BOARD_H
#define XV_AGENT_BOARD_H

#include "agent/state.h"
#include "job/share.h"

/* A member's hold of the units of one board. Thread-safe. */
struct xv_claims {
    struct xv_agent *agent;
    char place[XV_KEY_MAX];
    bool backwards; /* takes the last free unit, not the first: owner and helpers keep out of each
                       other's way */
    pthread_mutex_t lock; /* guards what follows */
    int64_t mod;          /* of the board: claims and results are of this one alone */
    uint32_t units;
    int64_t *claimed; /* create_revision of own claims, by unit; 0: none */
};

int xv_claims_init(struct xv_claims *claims, struct xv_agent *agent, const char *place,
                   uint32_t units, bool backwards, xvsa_error **error) XV_MUST_CHECK;
void xv_claims_free(struct xv_claims *claims);
/* The board was written anew. */
void xv_claims_renew(struct xv_claims *claims, int64_t mod, uint32_t units);

/* XV_UNIT_NONE: none is free. *ret_left: units that are not done. */
int xv_claims_take(struct xv_claims *claims, uint32_t *ret_unit, uint32_t *ret_left,
                   const struct xv_call *call, xvsa_error **error) XV_MUST_CHECK;
/* Units that are not done. */
int xv_claims_left(struct xv_claims *claims, uint32_t *ret, const struct xv_call *call,
                   xvsa_error **error) XV_MUST_CHECK;
/* Whether this member has units that it has neither finished nor released. */
bool xv_claims_are_held(struct xv_claims *claims);
/* reasons: JSON array as text, NULL: none. A board that was written anew meanwhile, or is gone, is no failure. */
int xv_claims_finish(struct xv_claims *claims, uint32_t unit, uint64_t bytes, const char *reasons,
                     const struct xv_call *call, xvsa_error **error) XV_MUST_CHECK;
/* Tries to give a claim back; the lease ends it else. */
void xv_claims_release(struct xv_claims *claims, uint32_t unit);
/* {"movers": [{"proxy", "bytes", "units"}], "reasons": [...]} of what others did. */
int xv_claims_account(struct xv_claims *claims, char **ret, const struct xv_call *call,
                      xvsa_error **error) XV_MUST_CHECK;

/* Value of "b/..." */
json_t *xv_board_to_json(const struct xv_board_disk *disk);
/* Text belongs to json. FORMAT when it is not understood. */
int xv_board_read(const json_t *json, const char *key, struct xv_board_disk *ret,
                  xvsa_error **error) XV_MUST_CHECK;

#endif
