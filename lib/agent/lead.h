/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The coordinator of a pool. It has no state but the store's: whoever is elected reads it and goes on. Each
 * decision is one transaction that holds in this term only; one that does not hold is forgotten, as the next look
 * sees why.
 */
#ifndef XV_AGENT_LEAD_H
#define XV_AGENT_LEAD_H

#include "agent/reach.h"
#include "agent/state.h"

/* What it remembers between two looks; nothing that a decision rests on. */
struct xv_lead {
    int64_t term, since_ms;
    json_t *planning;  /* by job: {"tries", "next_ms"} of plans that could not be made */
    json_t *unreached; /* by task: since when no living member can own it, xv_clock_ms */
    int64_t
        swept_ms; /* when the pool was last cleared of what is left of jobs that are gone; 0: not yet */
};

struct xv_look {
    struct xv_agent *agent;
    struct xv_lead *lead;
    struct xv_view *view;
    struct xv_call call;
};

/* A transaction of this term. */
void xv_lead_begin(struct xv_look *look, struct xv_txn *txn);
/* Runs it. *ret_done (may be NULL): it held. */
int xv_lead_commit(struct xv_look *look, struct xv_txn *txn, bool *ret_done, int64_t *ret_revision,
                   xvsa_error **error) XV_MUST_CHECK;

/* lead_plan.c: makes the pool's tasks of a job. */
int xv_lead_plan(struct xv_look *look, struct xv_view_job *job, xvsa_error **error) XV_MUST_CHECK;
/* lead_assign.c: gives waiting tasks to members. */
int xv_lead_assign(struct xv_look *look, xvsa_error **error) XV_MUST_CHECK;
/* lead_task.c: tasks of dead owners, of jobs that are cancelled, and of holds. */
int xv_lead_tasks(struct xv_look *look, struct xv_view_job *job, xvsa_error **error) XV_MUST_CHECK;
/* Ends a task that nobody owns. error_json is taken over. */
int xv_lead_end_task(struct xv_look *look, struct xv_task_record *task, enum xv_task_state state,
                     json_t *error_json, xvsa_error **error) XV_MUST_CHECK;
/* lead_hold.c: keeps the pool's tasks of a job from running outside its windows, and tells its rate. *ret_changed (may be
 * NULL): the part was written. */
int xv_lead_hold(struct xv_look *look, struct xv_view_job *job, bool *ret_changed,
                 xvsa_error **error) XV_MUST_CHECK;
/* Whether the job's limits let anything begin now. */
bool xv_lead_is_open(const struct xv_view_job *job);
/* VMs of the job that this pool may have in work at once; 0: any number. */
uint32_t xv_lead_vms_limit(const struct xv_view_job *job);
/* lead_end.c: ends the pool's part, and the job when all parts have ended. */
int xv_lead_clean(struct xv_look *look, struct xv_view_job *job, xvsa_error **error) XV_MUST_CHECK;
int xv_lead_end_job(struct xv_look *look, struct xv_view_job *job,
                    xvsa_error **error) XV_MUST_CHECK;
/* lead_absent.c: ends the parts of pools that nobody serves, of a job that is cancelled. */
int xv_lead_end_absent(struct xv_look *look, struct xv_view_job *job,
                       xvsa_error **error) XV_MUST_CHECK;
/* lead_sweep.c: removes the pool's objects of jobs that are over; job_id NULL: of all. */
int xv_lead_sweep(struct xv_look *look, const char *job_id, xvsa_error **error) XV_MUST_CHECK;

#endif
