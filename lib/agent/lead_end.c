/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The end of a pool's part and of a job.
 */
#include <stdlib.h>
#include <string.h>

#include "agent/lead.h"
#include "agent/summary.h"

#define CLEAN_TRIES_MAX 5
/* Ended jobs that are kept, and tasks of them: a task takes some kilobytes of the store. */
#define HISTORY_MAX       500
#define HISTORY_TASKS_MAX 100000

/* What the tasks amount to, with their reports. */
static int summarize(struct xv_look *look, struct xv_view_job *job, struct xv_summary *summary,
                     xvsa_error **error)
{
    struct xv_kv_list reports = {0};
    struct xv_call call = xv_agent_call(look->agent);
    int rc = xv_kv_read(look->agent->kv, &call, &reports, error, "vr/%s/%s/", job->job.id,
                        look->agent->pool_uuid);
    for (size_t i = 0; rc == 0 && i < job->task_count; i++) {
        const struct xv_task_record *task = &job->tasks[i];
        const struct xv_kv_pair *pair = xv_list_find(&reports, "vr/%s", task->key + strlen("v/"));
        json_t *entry = pair == NULL ? NULL : xv_pair_json(pair);
        xv_summary_add(summary, task, entry);
        json_decref(entry);
    }
    xv_kv_list_free(&reports);
    return rc;
}

/* Whether a session of a restore is of a task of this part. */
static bool is_ours(void *user, const char *key)
{
    const struct xv_view_job *job = user;
    char prefix[XV_KEY_MAX];
    int length = snprintf(prefix, sizeof prefix, "restore/%s/", job->job.id);
    return strncmp(key, prefix, (size_t)length) == 0 && xv_view_task(job, key + length) != NULL;
}

/* Owners that died left their points pinned. Should it fail, deleting such a point tells who is in the way. */
static void release_points(struct xv_look *look, struct xv_view_job *job)
{
    struct xv_repo *repo = xv_agent_repo(look->agent, job->job.repository);
    size_t ended = 0;
    xvsa_error *error = NULL;
    if (repo == NULL || strcmp(job->job.type, "restore") != 0)
        return;
    if (xv_repo_end_restores(repo, is_ours, job, &look->call, &ended, &error) != 0)
        xv_log(look->agent->env, XVSA_LOG_WARNING, "agent",
               "%s: points of job %s may stay pinned: %s", look->agent->name, job->job.id,
               xvsa_error_message(error));
    xvsa_error_unref(error);
}

int xv_lead_clean(struct xv_look *look, struct xv_view_job *job, xvsa_error **error)
{
    struct xv_agent *agent = look->agent;
    json_t *part = job->part->json;
    struct xv_summary summary = {0};
    struct xv_txn txn;
    xvsa_error *problem = NULL;
    int64_t tries = xv_member_number(json_object_get(look->lead->planning, job->job.id), "tries");
    int rc = strcmp(job->job.type, "verify") == 0 ? 0 : xv_lead_sweep(look, job->job.id, &problem);
    if (rc != 0 && tries < CLEAN_TRIES_MAX) {
        json_object_set_new(look->lead->planning, job->job.id,
                            json_pack("{s:I}", "tries", (json_int_t)(tries + 1)));
        xvsa_error_unref(problem);
        return 0;
    }
    release_points(look, job);
    if (rc != 0)
        json_object_set_new(part, "cleanup", xv_json_error(problem));
    xvsa_error_unref(problem);
    json_object_del(look->lead->planning, job->job.id);
    rc = summarize(look, job, &summary, error);
    if (rc != 0)
        return rc;
    xv_set_text(part, "state", "ended");
    xv_set_number(part, "ended_ms", xv_wall_ms());
    json_object_set_new(part, "summary", xv_summary_to_json(&summary));
    xv_lead_begin(look, &txn);
    xv_txn_expect(&txn, XV_KV_MOD_REVISION, job->part->mod, "jp/%s/%s", job->job.id,
                  agent->pool_uuid);
    xv_txn_put(&txn, 0, part, "jp/%s/%s", job->job.id, agent->pool_uuid);
    return xv_lead_commit(look, &txn, NULL, NULL, error);
}

/* ---- the whole job ---- */

/* What all parts of a job come to. */
struct outcome {
    struct xv_summary summary;
    const json_t *problem; /* of the first part that has one; belongs to it */
    size_t problems;
};

static void judge_parts(const struct xv_view_job *job, struct outcome *outcome)
{
    for (size_t i = 0; i < job->part_count; i++) {
        const json_t *part = job->parts[i].json;
        const json_t *problem = json_object_get(part, "error");
        xv_summary_add_json(&outcome->summary, json_object_get(part, "summary"));
        if (!json_is_object(problem))
            continue;
        outcome->problems++;
        if (outcome->problem == NULL)
            outcome->problem = problem;
    }
}

/* Named VMs that none of the pools has. */
static json_t *missing_everywhere(const struct xv_view_job *job)
{
    json_t *missing = json_array();
    size_t i;
    json_t *matcher;
    if (job->part_count == 0)
        return missing;
    json_array_foreach(json_object_get(job->parts[0].json, "missing"), i, matcher)
    {
        bool everywhere = true;
        for (size_t j = 1; j < job->part_count && everywhere; j++) {
            size_t k;
            json_t *other;
            bool found = false;
            json_array_foreach(json_object_get(job->parts[j].json, "missing"), k, other) found =
                found || json_equal(matcher, other);
            everywhere = found;
        }
        if (everywhere)
            json_array_append(missing, matcher);
    }
    return missing;
}

static const char *state_of(const struct xv_view_job *job, const struct outcome *outcome,
                            size_t missing)
{
    const uint64_t *tasks = outcome->summary.tasks;
    uint64_t bad = tasks[XV_TASK_FAILED] + tasks[XV_TASK_REFUSED] + outcome->problems + missing;
    bool late = strcmp(xv_member_text(job->job.json, "stopped_by"), "time_limit") == 0;
    bool asked = job->job.control >= XV_CONTROL_CANCEL && !late;
    if (asked && (tasks[XV_TASK_CANCELLED] > 0 || outcome->problems > 0))
        return "cancelled";
    bad += tasks[XV_TASK_CANCELLED];
    if (bad == 0)
        return "succeeded";
    return tasks[XV_TASK_SUCCEEDED] > 0 ? "partial" : "failed";
}

/* Error of the first task that has one. */
static json_t *first_error(struct xv_look *look, const struct xv_view_job *job)
{
    struct xv_kv_list list = {0};
    struct xv_call call = xv_agent_call(look->agent);
    json_t *found = NULL;
    if (xv_kv_read(look->agent->kv, &call, &list, NULL, "v/%s/", job->job.id) != 0)
        return NULL;
    for (size_t i = 0; i < list.count && found == NULL; i++) {
        json_t *task = xv_pair_json(&list.pairs[i]);
        if (json_is_object(json_object_get(task, "error")))
            found = json_incref(json_object_get(task, "error"));
        json_decref(task);
    }
    xv_kv_list_free(&list);
    return found;
}

/* The job's own error, in words that count. */
static json_t *error_of(struct xv_look *look, const struct xv_view_job *job, const char *state,
                        const struct outcome *outcome, const json_t *missing)
{
    const uint64_t *tasks = outcome->summary.tasks;
    xvsa_error *problem = NULL;
    uint64_t all = 0;
    for (size_t i = 0; i <= XV_TASK_CANCELLED; i++)
        all += tasks[i];
    json_t *first =
        outcome->problem != NULL ? json_deep_copy(outcome->problem) : first_error(look, job);
    const char *message = xv_member_text(first, "message");
    bool late = strcmp(xv_member_text(job->job.json, "stopped_by"), "time_limit") == 0;
    if (late)
        xv_fail(&problem, XVSA_ERR_TIMEOUT, "agent",
                "job %s was stopped after its time limit of %lld s: %llu of %llu VMs were done",
                job->job.id, (long long)(job->job.time_limit_ms / 1000),
                (unsigned long long)tasks[XV_TASK_SUCCEEDED], (unsigned long long)all);
    else if (strcmp(state, "cancelled") == 0)
        xv_fail(&problem, XVSA_ERR_CANCELLED, "agent",
                "job %s was cancelled: %llu of %llu VMs were done", job->job.id,
                (unsigned long long)tasks[XV_TASK_SUCCEEDED], (unsigned long long)all);
    else if (json_array_size(missing) > 0 && first == NULL)
        xv_fail(&problem, XVSA_ERR_NOT_FOUND, "agent",
                "%zu VMs that the job names are in none of its pools", json_array_size(missing));
    else if (strcmp(state, "partial") == 0)
        xv_fail(&problem, XVSA_ERR_PARTIAL, "agent",
                "%llu of %llu VMs were done; the first of the"
                " others: %s",
                (unsigned long long)tasks[XV_TASK_SUCCEEDED], (unsigned long long)all, message);
    if (problem == NULL)
        return first == NULL ? json_null() : first;
    json_decref(first);
    json_t *json = xv_json_error(problem);
    xvsa_error_unref(problem);
    return json;
}

static int forget(struct xv_look *look, const char *id, xvsa_error **error)
{
    struct xv_txn txn;
    xv_lead_begin(look, &txn);
    xv_txn_delete(&txn, "h/%s", id);
    xv_txn_delete_prefix(&txn, "jp/%s/", id);
    xv_txn_delete_prefix(&txn, "v/%s/", id);
    xv_txn_delete_prefix(&txn, "vr/%s/", id);
    return xv_lead_commit(look, &txn, NULL, NULL, error);
}

static int64_t count_tasks(const struct xv_kv_pair *pair)
{
    json_t *json = xv_pair_json(pair);
    int64_t tasks = xv_member_number(json_object_get(json, "summary"), "vms");
    json_decref(json);
    return tasks < 0 ? 0 : tasks;
}

static int newest_first(const void *left, const void *right)
{
    const struct xv_kv_pair *a = left;
    const struct xv_kv_pair *b = right;
    return a->create_revision > b->create_revision ? -1 : a->create_revision < b->create_revision;
}

/* Removes the oldest of the ended jobs that are too many. The newest stays, however large. */
static int forget_old(struct xv_look *look, xvsa_error **error)
{
    struct xv_kv_list list = {0};
    struct xv_call call = xv_agent_call(look->agent);
    int64_t tasks = 0;
    int rc = xv_kv_range(look->agent->kv, "h/", &call, &list, error);
    if (rc == 0 && list.count > 0)
        qsort(list.pairs, list.count, sizeof *list.pairs, newest_first);
    for (size_t i = 0; rc == 0 && i < list.count; i++) {
        int64_t more = count_tasks(&list.pairs[i]);
        tasks += more < HISTORY_TASKS_MAX ? more : HISTORY_TASKS_MAX;
        if (i > 0 && (i >= HISTORY_MAX || tasks > HISTORY_TASKS_MAX))
            rc = forget(look, xv_key_end(list.pairs[i].key), error);
    }
    xv_kv_list_free(&list);
    return rc;
}

int xv_lead_end_job(struct xv_look *look, struct xv_view_job *job, xvsa_error **error)
{
    struct outcome outcome = {0};
    struct xv_txn txn;
    bool done = false;
    size_t ended = 0;
    for (size_t i = 0; i < job->part_count; i++)
        ended += job->parts[i].state == XV_PART_ENDED;
    if (ended < json_array_size(job->job.pools) || ended < job->part_count)
        return job->job.control >= XV_CONTROL_CANCEL ? xv_lead_end_absent(look, job, error) : 0;
    judge_parts(job, &outcome);
    json_t *json = job->job.json;
    json_t *missing = missing_everywhere(job);
    const char *state = state_of(job, &outcome, json_array_size(missing));
    json_object_set_new(json, "error",
                        strcmp(state, "succeeded") == 0
                            ? json_null()
                            : error_of(look, job, state, &outcome, missing));
    xv_set_text(json, "state", state);
    xv_set_number(json, "ended_ms", xv_wall_ms());
    json_object_set_new(json, "missing", missing);
    json_object_set_new(json, "summary", xv_summary_to_json(&outcome.summary));
    xv_lead_begin(look, &txn);
    xv_txn_expect(&txn, XV_KV_MOD_REVISION, job->job.mod, "q/%s", job->job.id);
    for (size_t i = 0; i < job->part_count; i++)
        xv_txn_expect(&txn, XV_KV_MOD_REVISION, job->parts[i].mod, "jp/%s/%s", job->job.id,
                      job->parts[i].pool);
    xv_txn_delete(&txn, "q/%s", job->job.id);
    xv_txn_put(&txn, 0, json, "h/%s", job->job.id);
    int rc = xv_lead_commit(look, &txn, &done, NULL, error);
    if (rc == 0 && done) {
        xv_log(look->agent->env, XVSA_LOG_INFO, "agent", "%s: job %s: %s", look->agent->name,
               job->job.id, state);
        rc = forget_old(look, error);
    }
    return rc;
}
