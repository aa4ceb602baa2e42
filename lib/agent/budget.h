/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a member may use at once, by the limits of jobs: NBD connections to the host that it runs on, which it shares
 * with the other members there; turns at an SR, which are keys of the store; and its part of a rate.
 */
#ifndef XV_AGENT_BUDGET_H
#define XV_AGENT_BUDGET_H

#include "agent/state.h"
#include "job/limits.h"
#include "job/rate.h"

/* ---- budget.c ---- */

/* How many members the host's connections are divided among, and which of them this one is. Read again now
 * and then, and when members come and go. */
void xv_budget_look(struct xv_agent *agent, const struct xv_view *view);
/* Takes connections for a unit of another's disk, without waiting: at most wanted; 0: none is left, or disks of own
 * tasks wait for some. */
uint32_t xv_budget_connect(struct xv_agent *agent, const struct xv_limits *limits, uint32_t wanted);
/* Waits for connections for a disk of an own task: at least one exists for it, however many members the host has. */
int xv_budget_await(struct xv_agent *agent, const struct xv_limits *limits, uint32_t wanted,
                    uint32_t *ret, const struct xv_call *call, xvsa_error **error) XV_MUST_CHECK;
void xv_budget_disconnect(struct xv_agent *agent, uint32_t connections);

/* ---- turn.c ---- */

/* One of the transfers of an SR that a job allows at once: "t/<job>/<sr>/<number>", which goes with the
 * member's lease. */
struct xv_turn;

/* *ret NULL: all are taken. */
int xv_turn_take(struct xv_agent *agent, const char *job_id, const char *sr_uuid, uint32_t limit,
                 const struct xv_call *call, struct xv_turn **ret,
                 xvsa_error **error) XV_MUST_CHECK;
/* turn may be NULL. When the store does not answer it is given back later. */
void xv_turn_leave(struct xv_turn *turn);
/* Gives back what could not be given back. */
void xv_turns_look(struct xv_agent *agent);
void xv_turns_free(struct xv_agent *agent);

/* ---- rates.c ---- */

/* The rate of a job with one for a task or unit more that moves, a reference to be given back with xv_rate_leave;
 * *ret NULL: the job has none. */
int xv_rate_join(struct xv_agent *agent, const struct xv_view_job *job, struct xv_rate **ret,
                 xvsa_error **error) XV_MUST_CHECK;
/* rate may be NULL. */
void xv_rate_leave(struct xv_agent *agent, struct xv_rate *rate);
/* Shares each job's rate anew among the members that move for it. */
void xv_rates_look(struct xv_agent *agent, const struct xv_view *view);
void xv_rates_free(struct xv_agent *agent);

#endif
