/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * How an owned task ended, and telling that to the site.
 */
#include <stdlib.h>
#include <string.h>

#include "agent/own.h"
#include "agent/subject.h"

/* So often a task is gone on with after a failure that may pass. */
#define FAILURES_MAX 3
#define RETRY_MS     1000
/* Before the next attempt after a failure, times how many there were. */
#define AGAIN_MS 5000
/* More attempts that others put an end to are no accident. */
#define ATTEMPTS_MAX 20

void xv_own_guard(struct xv_own_task *task, struct xv_txn *txn)
{
    xv_agent_guard_epoch(task->agent, txn);
    xv_txn_expect(txn, XV_KV_CREATE_REVISION, atomic_load(&task->claim), "r/%s/%s", task->job_id,
                  task->subject);
}

static json_t *report_of(struct xv_own_task *task)
{
    char *text = NULL;
    if (task->job == NULL || xv_job_report(task->job, &text, NULL) != 0)
        return NULL;
    json_t *report = json_loads(text, 0, NULL);
    free(text);
    json_t *entry = NULL;
    if (strcmp(task->type, "verify") == 0)
        entry = json_pack("{s:s, s:s, s:O, s:O, s:[], s:[]}", "uuid", XV_SUBJECT_REPOSITORY, "name",
                          task->repository, "verified", json_object_get(report, "verified"),
                          "faults", json_object_get(report, "faults"), "disks", "reasons");
    else
        entry = json_incref(json_array_get(json_object_get(report, "vms"), 0));
    if (entry != NULL && json_object_get(json_object_get(report, "summary"), "shares") != NULL)
        json_object_set(entry, "shares",
                        json_object_get(json_object_get(report, "summary"), "shares"));
    json_decref(report);
    return entry;
}

/* The agent's thread may still say so now. */
static enum xv_task_state cancelled_state(struct xv_own_task *task)
{
    pthread_mutex_lock(&task->lock);
    bool stopped = task->stopped;
    pthread_mutex_unlock(&task->lock);
    return stopped ? XV_TASK_CANCELLED : XV_TASK_PARKED;
}

static enum xv_task_state failed_state(struct xv_own_task *task, int rc, const xvsa_error *problem)
{
    /* By the site's next attempt, in whose record nothing can be written then, or by somebody who knows nothing of
     * the site: then the task is still this member's to give on. */
    if (rc == XVSA_ERR_FENCED && task->attempt < ATTEMPTS_MAX) {
        xv_set_number(task->record, "not_before_ms", xv_wall_ms() + AGAIN_MS);
        return XV_TASK_PARKED;
    }
    if (rc == XVSA_ERR_REFUSED && task->job == NULL)
        return XV_TASK_REFUSED;
    if (rc == XVSA_ERR_CANCELLED)
        return cancelled_state(task);
    int64_t failures = xv_member_number(task->record, "failures") + 1;
    if (!xvsa_error_is_retryable(problem) || failures >= FAILURES_MAX)
        return XV_TASK_FAILED;
    xv_set_number(task->record, "failures", failures);
    xv_set_number(task->record, "not_before_ms", xv_wall_ms() + failures * AGAIN_MS);
    return XV_TASK_PARKED;
}

static enum xv_task_state state_of(struct xv_own_task *task, int rc, const xvsa_error *problem)
{
    xvsa_progress now = {.state = 0};
    if (task->job != NULL)
        xv_job_progress(task->job, &now);
    if (now.state == XVSA_JOB_PARKED)
        return XV_TASK_PARKED;
    if (now.state == XVSA_JOB_CANCELLED)
        return cancelled_state(task);
    return rc == 0 ? XV_TASK_SUCCEEDED : failed_state(task, rc, problem);
}

bool xv_own_write_end(struct xv_own_task *task, int64_t mod)
{
    struct xv_agent *agent = task->agent;
    struct xv_call call = xv_agent_call(agent);
    struct xv_txn txn;
    bool succeeded = false;
    xvsa_error *error = NULL;
    xv_txn_init(&txn);
    if (mod == 0) {
        xv_own_guard(task, &txn);
    } else {
        xv_agent_guard_epoch(agent, &txn);
        xv_txn_expect(&txn, XV_KV_MOD_REVISION, mod, "%s", task->key);
    }
    xv_txn_put(&txn, 0, task->record, "%s", task->key);
    xv_txn_delete(&txn, "r/%s/%s", task->job_id, task->subject);
    xv_txn_delete(&txn, "p/%s", task->key + strlen("v/"));
    if (task->report != NULL) {
        xv_txn_put(&txn, 0, task->report, "vr/%s", task->key + strlen("v/"));
        xv_txn_delete(&txn, "vs/%s/%s", task->job_id, task->subject);
        xv_txn_delete_prefix(&txn, "b/%s/%s/", task->job_id, task->subject);
        xv_txn_delete_prefix(&txn, "c/%s/%s/", task->job_id, task->subject);
        xv_txn_delete_prefix(&txn, "d/%s/%s/", task->job_id, task->subject);
    }
    int rc = xv_txn_run(&txn, agent->kv, &call, &succeeded, NULL, &error);
    if (rc == 0 && !succeeded) {
        /* Nobody else's claim: it went with a lease, and the next look claims again. */
        struct xv_kv_list list = {0};
        char key[XV_KEY_MAX];
        snprintf(key, sizeof key, "r/%s/%s", task->job_id, task->subject);
        bool taken = xv_kv_get(agent->kv, key, &call, &list, NULL) == 0 && list.count > 0 &&
                     list.pairs[0].create_revision != atomic_load(&task->claim);
        xv_kv_list_free(&list);
        if (taken)
            atomic_store(&task->lost, true);
    }
    xv_agent_note_store(agent, rc, &error, "cannot tell how a task ended");
    return (rc == 0 && succeeded) || atomic_load(&task->lost);
}

static void log_end(struct xv_own_task *task, enum xv_task_state state, const xvsa_error *problem)
{
    bool bad = state == XV_TASK_FAILED || state == XV_TASK_REFUSED;
    xv_log(task->agent->env, bad ? XVSA_LOG_WARNING : XVSA_LOG_INFO, "agent",
           "%s: %s (\"%s\"), attempt %u: %s%s%s", task->agent->name, task->key, task->name,
           task->attempt, atomic_load(&task->lost) ? "lost" : xv_task_state_name(state),
           problem == NULL ? "" : ": ", problem == NULL ? "" : xvsa_error_message(problem));
}

/* Whether a member that leaves has tried for as long as its lease lives. */
static bool is_too_late(const struct xv_agent *agent)
{
    int64_t ttl = agent->ttl_ms;
    return atomic_load(&agent->parking) && xv_clock_ms() - atomic_load(&agent->parked_ms) > ttl;
}

void xv_own_conclude(struct xv_own_task *task, int rc, xvsa_error *problem)
{
    struct xv_agent *agent = task->agent;
    enum xv_task_state state = state_of(task, rc, problem);
    log_end(task, state, problem);
    if (atomic_load(&task->lost))
        return;
    xv_set_text(task->record, "state", xv_task_state_name(state));
    if (problem != NULL && state != XV_TASK_PARKED)
        json_object_set_new(task->record, "error", xv_json_error(problem));
    if (xv_task_has_ended(state)) {
        task->report = report_of(task);
        if (task->report == NULL)
            task->report = json_pack("{s:s, s:s, s:[], s:[]}", "uuid", task->subject, "name",
                                     task->name, "disks", "reasons");
    } else if (problem != NULL && rc != XVSA_ERR_CANCELLED) {
        json_object_set_new(task->record, "trouble", xv_json_error(problem));
    }
    const struct xv_call call = {.cancel = agent->cancel};
    while (!xv_own_write_end(task, 0)) {
        if (is_too_late(agent)) {
            xv_log(agent->env, XVSA_LOG_WARNING, "agent",
                   "%s: leaves without telling the site how %s ended: the coordination store does"
                   " not answer; others find out from its lease and the repository",
                   agent->name, task->key);
            return;
        }
        if (xv_call_sleep(&call, RETRY_MS, "agent", "telling how a task ended", NULL) != 0)
            return;
    }
    if (!atomic_load(&task->lost))
        atomic_fetch_add(&agent->figures.tasks[state], 1);
}
