/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/lead.h"

#include <stdlib.h>
#include <string.h>

#define PLAN_TRIES_MAX  10
#define PLAN_RETRY_MS   1000
#define PLAN_RETRY_MOST 30000
#define SWEEP_AFTER_TTL 4
/* What could not be removed when its job ended, or was made by a zombie later, goes then. */
#define SWEEP_EVERY_MS (60 * 60 * INT64_C(1000))

void xv_lead_begin(struct xv_look *look, struct xv_txn *txn)
{
    char key[XV_COORDINATOR_KEY_MAX];
    xv_txn_init(txn);
    const struct xv_kv_compare guard = xv_member_guard(look->agent->member, look->lead->term, key);
    xv_txn_expect_as(txn, &guard);
    xv_agent_guard_epoch(look->agent, txn);
}

int xv_lead_commit(struct xv_look *look, struct xv_txn *txn, bool *ret_done, int64_t *ret_revision,
                   xvsa_error **error)
{
    bool done = false;
    struct xv_call call = xv_agent_call(look->agent);
    int rc = xv_txn_run(txn, look->agent->kv, &call, &done, ret_revision, error);
    if (ret_done != NULL)
        *ret_done = done;
    if (rc == 0 && !done)
        xv_log(look->agent->env, XVSA_LOG_DEBUG, "agent",
               "%s: a decision of term %lld did not hold: the site changed in between",
               look->agent->name, (long long)look->lead->term);
    return rc;
}

void xv_lead_free(struct xv_lead *lead)
{
    if (lead == NULL)
        return;
    json_decref(lead->planning);
    json_decref(lead->unreached);
    free(lead);
}

static int take_office(struct xv_agent *agent, int64_t term, xvsa_error **error)
{
    if (agent->lead != NULL && agent->lead->term == term)
        return 0;
    xv_lead_free(agent->lead);
    agent->lead = calloc(1, sizeof *agent->lead);
    if (agent->lead == NULL)
        return xv_fail_memory(error);
    agent->lead->term = term;
    agent->lead->since_ms = xv_clock_ms();
    agent->lead->planning = json_object();
    agent->lead->unreached = json_object();
    atomic_store(&agent->term, term);
    atomic_fetch_add(&agent->figures.terms, 1);
    xv_log(agent->env, XVSA_LOG_INFO, "agent", "%s: coordinates pool %s in term %lld", agent->name,
           agent->pool_uuid, (long long)term);
    return 0;
}

static void leave_office(struct xv_agent *agent)
{
    if (agent->lead == NULL)
        return;
    xv_log(agent->env, XVSA_LOG_INFO, "agent",
           "%s: does not coordinate pool %s any more (term %lld)", agent->name, agent->pool_uuid,
           (long long)agent->lead->term);
    xv_lead_free(agent->lead);
    agent->lead = NULL;
    atomic_store(&agent->term, 0);
}

/* ---- planning, again after failures that may pass ---- */

static bool may_plan(struct xv_look *look, const struct xv_view_job *job)
{
    const json_t *before = json_object_get(look->lead->planning, job->job.id);
    return job->job.control == XV_CONTROL_RUN &&
           xv_member_number(before, "next_ms") <= xv_clock_ms();
}

/* The part of a job whose plan cannot be made ends. */
static int give_up(struct xv_look *look, struct xv_view_job *job, json_t *problem,
                   xvsa_error **error)
{
    struct xv_txn txn;
    json_t *part = json_pack("{s:s, s:{s:s, s:s}, s:o, s:I}", "state", "ended", "pool", "uuid",
                             look->agent->pool_uuid, "name", look->agent->pool_name, "error",
                             problem, "ended_ms", (json_int_t)xv_wall_ms());
    xv_lead_begin(look, &txn);
    xv_txn_put(&txn, 0, part, "jp/%s/%s", job->job.id, look->agent->pool_uuid);
    json_decref(part);
    return xv_lead_commit(look, &txn, NULL, NULL, error);
}

static int note_failed_plan(struct xv_look *look, struct xv_view_job *job, int rc,
                            xvsa_error *problem, xvsa_error **error)
{
    json_t *planning = look->lead->planning;
    int64_t tries = xv_member_number(json_object_get(planning, job->job.id), "tries") + 1;
    int64_t wait = PLAN_RETRY_MS << (tries > 6 ? 6 : tries);
    bool again = xvsa_error_is_retryable(problem) && tries < PLAN_TRIES_MAX;
    xv_log(look->agent->env, XVSA_LOG_WARNING, "agent", "%s: job %s cannot be planned%s: %s",
           look->agent->name, job->job.id, again ? ", it is tried again" : "",
           xvsa_error_message(problem));
    if (rc == XVSA_ERR_CANCELLED)
        return 0;
    json_object_set_new(
        planning, job->job.id,
        json_pack("{s:I, s:I}", "tries", (json_int_t)tries, "next_ms",
                  (json_int_t)(xv_clock_ms() + (wait > PLAN_RETRY_MOST ? PLAN_RETRY_MOST : wait))));
    return again ? 0 : give_up(look, job, xv_json_error(problem), error);
}

static int look_at_plan(struct xv_look *look, struct xv_view_job *job, xvsa_error **error)
{
    if (job->job.control >= XV_CONTROL_CANCEL) {
        xvsa_error *problem = NULL;
        xv_fail(&problem, XVSA_ERR_CANCELLED, "agent", "cancelled before it was planned");
        int rc = give_up(look, job, xv_json_error(problem), error);
        xvsa_error_unref(problem);
        return rc;
    }
    if (job->job.control == XV_CONTROL_RUN && !xv_lead_is_open(job))
        return xv_lead_hold(look, job, NULL, error);
    if (!may_plan(look, job))
        return 0;
    xvsa_error *problem = NULL;
    int rc = xv_lead_plan(look, job, &problem);
    if (rc != 0)
        rc = note_failed_plan(look, job, rc, problem, error);
    else
        json_object_del(look->lead->planning, job->job.id);
    xvsa_error_unref(problem);
    return rc;
}

/* ---- a look ---- */

static int look_at_job(struct xv_look *look, struct xv_view_job *job, xvsa_error **error)
{
    switch (job->part == NULL ? XV_PART_NONE : job->part->state) {
    case XV_PART_NONE:
    case XV_PART_PLANNING:
        return look_at_plan(look, job, error);
    case XV_PART_WORKING:
        return xv_lead_tasks(look, job, error);
    case XV_PART_CLEANING:
        return xv_lead_clean(look, job, error);
    case XV_PART_ENDED:
        return xv_lead_end_job(look, job, error);
    }
    return 0;
}

/* A store that was made anew hears first from those who remember what was in it. */
static bool may_sweep(const struct xv_look *look)
{
    int64_t swept = look->lead->swept_ms;
    int64_t now = xv_clock_ms();
    return swept != 0 ? now - swept > SWEEP_EVERY_MS
                      : now - look->lead->since_ms > SWEEP_AFTER_TTL * look->agent->ttl_ms;
}

static void sweep(struct xv_look *look)
{
    xvsa_error *error = NULL;
    look->lead->swept_ms = xv_clock_ms();
    if (xv_lead_sweep(look, NULL, &error) != 0)
        xv_log(look->agent->env, XVSA_LOG_WARNING, "agent",
               "%s: leftovers of jobs that are over stay until the next sweep: %s",
               look->agent->name, xvsa_error_message(error));
    xvsa_error_unref(error);
}

/* A job that has something wrong with it does not keep the others from going on; a store that does not answer does. */
static int look_at_any(struct xv_look *look, struct xv_view_job *job, xvsa_error **error)
{
    xvsa_error *problem = NULL;
    int rc = look_at_job(look, job, &problem);
    if (rc == 0 || rc == XVSA_ERR_CANCELLED || rc == XVSA_ERR_MEMORY ||
        rc == XVSA_ERR_UNKNOWN_OUTCOME || xvsa_error_is_retryable(problem)) {
        if (rc != 0 && error != NULL)
            *error = problem;
        else
            xvsa_error_unref(problem);
        return rc;
    }
    xv_log(look->agent->env, XVSA_LOG_WARNING, "agent", "%s: as coordinator: job %s: %s",
           look->agent->name, job->job.id, xvsa_error_message(problem));
    /* Its entries may have been made ready for a transaction that was not tried. */
    xv_kv_doubt(look->agent->kv);
    xvsa_error_unref(problem);
    return 0;
}

static int look_around(struct xv_look *look, xvsa_error **error)
{
    int rc = xv_reach_sync(look->agent, look->view, error);
    if (rc == 0)
        rc = xv_lead_assign(look, error);
    for (size_t i = 0; rc == 0 && i < look->view->job_count; i++) {
        if (!xv_agent_is_joined(look->agent) || atomic_load(&look->agent->draining) ||
            atomic_load(&look->agent->yields))
            return 0;
        rc = look_at_any(look, &look->view->jobs[i], error);
    }
    if (rc == 0 && may_sweep(look) && !atomic_load(&look->agent->yields))
        sweep(look);
    return rc;
}

enum xv_matter xv_lead_matter(struct xv_agent *agent, const char *key)
{
    bool matters = strncmp(key, "coord/", strlen("coord/")) == 0 ||
                   strcmp(key, XV_EPOCH_KEY) == 0 ||
                   (agent->lead != NULL && xv_view_rests_on(key, agent->pool_uuid));
    return matters ? XV_MATTER_READ : XV_MATTER_NONE;
}

/* Who coordinates and, if it is this member, what. */
static int read_anew(struct xv_agent *agent, struct xv_lookout *lookout, xvsa_error **error)
{
    struct xv_call call = xv_agent_call(agent);
    bool joined = xv_agent_is_joined(agent);
    int64_t term = 0;
    xv_lookout_begin(lookout);
    int rc = xv_member_elect(agent->member, &call, &term, error);
    if (rc == 0 && term == 0)
        leave_office(agent);
    if (rc == 0 && term != 0)
        rc = take_office(agent, term, error);
    if (rc == 0 && term != 0)
        rc = xv_lookout_read(lookout, &call, error);
    /* One that is not joined was told nothing. */
    if (rc != 0 || (term == 0 && !joined))
        xv_lookout_drop(lookout);
    return rc;
}

static bool may_rely(struct xv_agent *agent, const struct xv_lookout *lookout)
{
    return xv_agent_is_joined(agent) && xv_lookout_is_current(lookout) &&
           !xv_member_sees_vacancy(agent->member);
}

void xv_lead_look(struct xv_agent *agent, struct xv_lookout *lookout)
{
    xvsa_error *error = NULL;
    if (atomic_load(&agent->yields)) {
        leave_office(agent);
        xv_lookout_drop(lookout);
        return;
    }
    int rc = may_rely(agent, lookout) ? 0 : read_anew(agent, lookout, &error);
    if (rc == 0 && agent->lead != NULL) {
        struct xv_look look = {.agent = agent,
                               .lead = agent->lead,
                               .view = &lookout->view,
                               .call = {.cancel = agent->cancel}};
        rc = look_around(&look, &error);
        if (rc != 0)
            xv_lookout_drop(lookout);
    }
    if (rc != 0 && rc != XVSA_ERR_CANCELLED)
        xv_log(agent->env, XVSA_LOG_WARNING, "agent", "%s: as coordinator: %s", agent->name,
               xvsa_error_message(error));
    xvsa_error_unref(error);
}
