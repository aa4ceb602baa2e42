/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Units of others' tasks that this member moves with its free places.
 */
#ifndef XV_AGENT_HELP_H
#define XV_AGENT_HELP_H

#include "agent/board.h"
#include "agent/budget.h"
#include "agent/reach.h"
#include "sched/pull.h"

/* What a unit may use while it moves. */
struct xv_allowance {
    struct xv_agent *agent; /* NULL: nothing, or given back */
    uint32_t connections;
    struct xv_turn *turn;
    struct xv_rate *rate;
};

struct xv_help_unit {
    struct xv_help_unit *next; /* agent's lock */
    struct xv_agent *agent;
    char job_id[XV_SITE_ID_LENGTH + 1];
    char place[XV_KEY_MAX];
    char *session_key, *spec;
    json_t *board;
    struct xv_board_disk disk; /* text in board */
    struct xv_agent_named_repo *repo;
    struct xv_claims claims;
    struct xv_allowance allowance;
    uint32_t unit;
    xvsa_cancel *cancel;
    /* Agent's lock. */
    bool moved; /* takes no place any more: it is only made durable */
    bool ended;
};

/* A board: one that could be helped with, or an own one, which helping is weighed against. */
struct xv_offer {
    const struct xv_view_job *job;
    struct xv_agent_named_repo *repo;
    json_t *json;
    struct xv_board_disk disk;
    char place[XV_KEY_MAX];
    char subject[XV_SUBJECT_MAX + 1];
    int64_t mod;
};

/* What there is to choose from; boards and offers in parallel. */
struct xv_offers {
    struct xv_reach reach;
    struct xv_offer *offers;
    struct xv_board *boards;
    size_t count;
    uint32_t *host_connections, *sr_transfers, *proxy_disks;
    uint64_t *sr_bytes;
};

/* offers.c */
int xv_offers_read(struct xv_agent *agent, const struct xv_view *view, struct xv_offers *ret,
                   xvsa_error **error) XV_MUST_CHECK;
void xv_offers_free(struct xv_offers *offers);

/* allowance.c: what the job's limits allow for a unit of an offer now; *ret_allowed: nothing stands against it. */
int xv_allowance_take(struct xv_agent *agent, const struct xv_offer *offer,
                      struct xv_allowance *ret, bool *ret_allowed,
                      xvsa_error **error) XV_MUST_CHECK;
/* The connections alone, once they are closed. */
void xv_allowance_disconnect(struct xv_allowance *allowance);
void xv_allowance_give_back(struct xv_allowance *allowance);

/* help_unit.c: claims a unit of an offer and moves it in a thread. *ret_begun: one was free. The allowance is taken
 * over in any case. */
int xv_help_begin(struct xv_agent *agent, const struct xv_offer *offer,
                  struct xv_allowance *allowance, bool *ret_begun,
                  xvsa_error **error) XV_MUST_CHECK;
void xv_help_unit_free(struct xv_help_unit *unit);

#endif
