/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Tasks that need the coordinator: of owners that died, of jobs that are told to stop.
 */
#include <string.h>

#include "agent/lead.h"

/* More attempts than owners can be lost by accident: the task itself kills them. */
#define ATTEMPTS_MAX 20
/* A member that joined again claims its tasks again within this part of its time to live. */
#define CLAIM_PART 2

/* "<job>/<subject>" of a task's key, "v/<job>/<pool>/<subject>". */
static void place_of(const struct xv_task_record *task, char *ret, size_t size)
{
    const char *job = task->key + strlen("v/");
    snprintf(ret, size, "%.*s/%s", (int)strcspn(job, "/"), job, task->subject);
}

/* Of a task that nobody has claimed: an owner that claims it again leaves its record as it is. */
static int put_task(struct xv_look *look, const struct xv_task_record *task, bool *ret_done,
                    xvsa_error **error)
{
    struct xv_txn txn;
    char place[XV_KEY_MAX];
    place_of(task, place, sizeof place);
    xv_lead_begin(look, &txn);
    xv_txn_expect(&txn, XV_KV_MOD_REVISION, task->mod, "%s", task->key);
    xv_txn_expect(&txn, XV_KV_CREATE_REVISION, 0, "r/%s", place);
    xv_txn_put(&txn, 0, task->json, "%s", task->key);
    return xv_lead_commit(look, &txn, ret_done, NULL, error);
}

int xv_lead_end_task(struct xv_look *look, struct xv_task_record *task, enum xv_task_state state,
                     json_t *error_json, xvsa_error **error)
{
    struct xv_txn txn;
    char place[XV_KEY_MAX];
    bool done = false;
    place_of(task, place, sizeof place);
    xv_set_text(task->json, "state", xv_task_state_name(state));
    if (error_json != NULL)
        json_object_set_new(task->json, "error", error_json);
    xv_lead_begin(look, &txn);
    xv_txn_expect(&txn, XV_KV_MOD_REVISION, task->mod, "%s", task->key);
    xv_txn_expect(&txn, XV_KV_CREATE_REVISION, 0, "r/%s", place);
    xv_txn_put(&txn, 0, task->json, "%s", task->key);
    xv_txn_delete(&txn, "vs/%s", place);
    xv_txn_delete_prefix(&txn, "b/%s/", place);
    xv_txn_delete_prefix(&txn, "c/%s/", place);
    xv_txn_delete_prefix(&txn, "d/%s/", place);
    int rc = xv_lead_commit(look, &txn, &done, NULL, error);
    if (rc == 0 && done)
        xv_log(look->agent->env, XVSA_LOG_INFO, "agent", "%s: %s (\"%s\"): %s", look->agent->name,
               task->key, task->name, xv_task_state_name(state));
    return rc;
}

static int fail_task(struct xv_look *look, struct xv_task_record *task, xvsa_error **error)
{
    xvsa_error *problem = NULL;
    xv_fail(&problem, XVSA_ERR_INTERNAL, "agent",
            "VM \"%s\" (%s): its owners died or lost it in %u attempts, the last was %s",
            task->name, task->subject, task->attempt, task->owner);
    int rc = xv_lead_end_task(look, task, XV_TASK_FAILED, xv_json_error(problem), error);
    xvsa_error_unref(problem);
    return rc;
}

/* Back to those that wait. Its next attempt has a higher token: whatever the former owner still commits is
 * void from the moment when the next one begins. */
static int requeue(struct xv_look *look, struct xv_task_record *task, bool dead, xvsa_error **error)
{
    bool done = false;
    if (task->attempt >= ATTEMPTS_MAX)
        return fail_task(look, task, error);
    json_t *owner = json_incref(json_object_get(task->json, "owner"));
    if (dead)
        json_object_set(task->json, "earlier", owner);
    xv_set_text(task->json, "owner", "");
    xv_set_text(task->json, "state", xv_task_state_name(XV_TASK_PENDING));
    int rc = put_task(look, task, &done, error);
    if (rc == 0 && done && dead) {
        atomic_fetch_add(&look->agent->figures.take_overs, 1);
        xv_log(look->agent->env, XVSA_LOG_WARNING, "agent",
               "%s: %s (\"%s\"): its owner %s is gone in attempt %u, token %lld; others go on with"
               " it (term %lld)",
               look->agent->name, task->key, task->name, json_string_value(owner), task->attempt,
               (long long)xv_member_number(task->json, "token"), (long long)look->lead->term);
    }
    json_decref(owner);
    return rc;
}

/* The owner lives, its claim does not: it joined again and claims again soon, or is another process. */
static bool waits_for_claim(struct xv_look *look, const struct xv_task_record *task)
{
    const struct xv_site_member *member = xv_view_member(look->view, task->owner);
    if (member == NULL)
        return false;
    json_t *since = json_object_get(look->lead->unreached, task->key);
    int64_t now = xv_clock_ms();
    int64_t ttl = look->agent->ttl_ms;
    if (since == NULL) {
        xv_set_number(look->lead->unreached, task->key, now);
        return true;
    }
    return now - json_integer_value(since) < ttl / CLAIM_PART;
}

static int look_at_running(struct xv_look *look, struct xv_view_job *job,
                           struct xv_task_record *task, xvsa_error **error)
{
    if (xv_view_claim(job, task->subject) != NULL) {
        json_object_del(look->lead->unreached, task->key);
        return 0;
    }
    if (waits_for_claim(look, task))
        return 0;
    json_object_del(look->lead->unreached, task->key);
    return requeue(look, task, true, error);
}

static int look_at_task(struct xv_look *look, struct xv_view_job *job, struct xv_task_record *task,
                        xvsa_error **error)
{
    if (task->state == XV_TASK_RUNNING)
        return look_at_running(look, job, task, error);
    if (job->job.control >= XV_CONTROL_CANCEL)
        return xv_lead_end_task(look, task, XV_TASK_CANCELLED, NULL, error);
    if (task->state != XV_TASK_ASSIGNED)
        return 0;
    const struct xv_site_member *member = xv_view_member(look->view, task->owner);
    bool held = xv_view_hold(job)[0] != '\0';
    if (member == NULL || member->draining || held)
        return requeue(look, task, false, error);
    return 0;
}

static int stop_late_job(struct xv_look *look, struct xv_view_job *job, xvsa_error **error)
{
    const struct xv_queued_job *queued = &job->job;
    bool late = queued->time_limit_ms > 0 && queued->started_ms > 0 &&
                xv_wall_ms() - queued->started_ms > queued->time_limit_ms;
    if (!late || queued->control == XV_CONTROL_CANCEL_NOW)
        return 0;
    struct xv_txn txn;
    xv_set_text(queued->json, "control", xv_control_name(XV_CONTROL_CANCEL_NOW));
    xv_set_text(queued->json, "stopped_by", "time_limit");
    xv_lead_begin(look, &txn);
    xv_txn_expect(&txn, XV_KV_MOD_REVISION, queued->mod, "q/%s", queued->id);
    xv_txn_put(&txn, 0, queued->json, "q/%s", queued->id);
    return xv_lead_commit(look, &txn, NULL, NULL, error);
}

static int end_work(struct xv_look *look, struct xv_view_job *job, xvsa_error **error)
{
    struct xv_txn txn;
    xv_set_text(job->part->json, "state", "cleaning");
    xv_lead_begin(look, &txn);
    xv_txn_expect(&txn, XV_KV_MOD_REVISION, job->part->mod, "jp/%s/%s", job->job.id,
                  look->agent->pool_uuid);
    xv_txn_put(&txn, 0, job->part->json, "jp/%s/%s", job->job.id, look->agent->pool_uuid);
    return xv_lead_commit(look, &txn, NULL, NULL, error);
}

int xv_lead_tasks(struct xv_look *look, struct xv_view_job *job, xvsa_error **error)
{
    bool changed = false;
    int rc = stop_late_job(look, job, error);
    if (rc == 0)
        rc = xv_lead_hold(look, job, &changed, error);
    if (rc != 0 || changed)
        return rc;
    size_t left = 0;
    for (size_t i = 0; rc == 0 && i < job->task_count; i++) {
        struct xv_task_record *task = &job->tasks[i];
        if (xv_task_has_ended(task->state))
            continue;
        left++;
        rc = look_at_task(look, job, task, error);
    }
    if (rc == 0 && left == 0)
        rc = end_work(look, job, error);
    return rc;
}
