/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Jobs enter the queue and are told what to do.
 */
#include <stdlib.h>
#include <string.h>

#include "agent/find.h"
#include "agent/site.h"
#include "agent/view.h"
#include "job/json.h"
#include "job/limits.h"
#include "job/spec.h"

#define PATH           "job"
#define PRIORITY_MAX   100
#define POOLS_MAX      64 /* the end of a job compares the parts of all in one transaction */
#define TIME_LIMIT_MAX (INT64_C(366) * 24 * 60 * 60 * 1000)
#define ATTEMPTS_MAX   20

/* Members that only a site's job has; the rest is lib/job's. */
struct order {
    json_t *document; /* as given; text points into it */
    json_t *spec;     /* what lib/job reads */
    json_t *pools;
    const char *repository;
    const json_t *limits; /* NULL: none */
    int64_t priority, time_limit_ms;
};

static void free_order(struct order *order)
{
    json_decref(order->document);
    json_decref(order->spec);
    json_decref(order->pools);
}

static int add_pool(struct order *order, const struct xv_view *members, const char *given,
                    xvsa_error **error)
{
    const char *uuid = NULL;
    int rc = xv_find_pool(members, given, &uuid, error);
    for (size_t i = 0; rc == 0 && i < json_array_size(order->pools); i++) {
        if (strcmp(json_string_value(json_array_get(order->pools, i)), uuid) == 0)
            return 0;
    }
    if (rc == 0 && json_array_append_new(order->pools, json_string(uuid)) != 0)
        rc = xv_fail_memory(error);
    return rc;
}

/* "pool", "pools", or the only pool there is. */
static int read_pools(struct order *order, const json_t *document, const struct xv_view *members,
                      xvsa_error **error)
{
    const char *one = NULL;
    const json_t *many = NULL;
    int rc = xv_json_read_text(document, PATH, "pool", &one, error);
    if (rc == 0)
        rc = xv_json_read_array(document, PATH, "pools", &many, error);
    if (rc == 0 && one != NULL && many != NULL)
        rc = xv_fail(error, XVSA_ERR_INVALID, "agent",
                     PATH ": give \"pool\" or \"pools\", not both");
    if (rc == 0 && many == NULL)
        return add_pool(order, members, one, error);
    if (rc == 0 && json_array_size(many) == 0)
        rc = xv_fail(error, XVSA_ERR_INVALID, "agent", PATH ".pools: must name at least one pool");
    if (rc == 0 && json_array_size(many) > POOLS_MAX)
        rc = xv_fail(error, XVSA_ERR_INVALID, "agent", PATH ".pools: at most %d pools", POOLS_MAX);
    for (size_t i = 0; rc == 0 && i < json_array_size(many); i++) {
        const char *name = json_string_value(json_array_get(many, i));
        if (name == NULL || name[0] == '\0')
            rc = xv_fail(error, XVSA_ERR_INVALID, "agent",
                         PATH ".pools[%zu]: must be the uuid or name of a pool", i);
        else
            rc = add_pool(order, members, name, error);
    }
    return rc;
}

static int check_spec(const struct order *order, xvsa_error **error)
{
    struct xv_spec *spec = NULL;
    char *text = json_dumps(order->spec, JSON_COMPACT);
    int rc = text == NULL ? xv_fail_memory(error) : xv_spec_read(text, &spec, error);
    free(text);
    if (rc == 0 && spec->type != XV_JOB_BACKUP && json_array_size(order->pools) > 1)
        rc = xv_fail(error, XVSA_ERR_INVALID, "agent",
                     PATH ".pools: only a backup may be of several pools");
    xv_spec_free(spec);
    return rc;
}

/* Times of day and budgets of the job, which lib/sched decides with. */
static int check_limits(const json_t *document, const json_t **ret, xvsa_error **error)
{
    struct xv_job_limits limits = {0};
    int rc = xv_json_read_object(document, PATH, "limits", ret, error);
    if (rc == 0)
        rc = xv_job_limits_read(*ret, PATH ".limits", &limits, error);
    xv_job_limits_free(&limits);
    if (rc == 0 && json_object_get(document, "only_failed_of") != NULL)
        rc = xv_fail(error, XVSA_ERR_INVALID, "agent",
                     PATH ".only_failed_of: is of jobs of one process; retry the site's job");
    return rc;
}

static int read_order(const char *text, const struct xv_view *members, struct order *ret,
                      xvsa_error **error)
{
    static const char *const ours[] = {"pool",          "pools",  "repository", "priority",
                                       "time_limit_ms", "limits", NULL};
    *ret = (struct order){.pools = json_array()};
    int rc = xv_json_parse(text, PATH, &ret->document, error);
    const json_t *document = ret->document;
    if (rc == 0)
        rc = read_pools(ret, document, members, error);
    const char *repository = NULL;
    if (rc == 0)
        rc = xv_json_read_text(document, PATH, "repository", &repository, error);
    if (rc == 0)
        rc = xv_find_repository(members, ret->pools, repository, &ret->repository, error);
    if (rc == 0)
        rc = check_limits(document, &ret->limits, error);
    if (rc == 0)
        rc = xv_json_read_int(document, PATH, "priority", -PRIORITY_MAX, PRIORITY_MAX,
                              &ret->priority, error);
    if (rc == 0)
        rc = xv_json_read_int(document, PATH, "time_limit_ms", 1000, TIME_LIMIT_MAX,
                              &ret->time_limit_ms, error);
    if (rc != 0)
        return rc;
    ret->spec = json_copy(ret->document);
    for (size_t i = 0; ours[i] != NULL; i++)
        json_object_del(ret->spec, ours[i]);
    return check_spec(ret, error);
}

/* Puts a job into the queue. */
static int enqueue(struct xv_site *site, const struct order *order, const char *retry_of,
                   const struct xv_call *call, char **ret_id, xvsa_error **error)
{
    char id[XV_SITE_ID_LENGTH + 1];
    int rc = xv_make_id(id, error);
    if (rc != 0)
        return rc;
    json_t *json = json_pack(
        "{s:s, s:O, s:O, s:s, s:I, s:I, s:s, s:I, s:I, s:o}", "id", id, "spec", order->spec,
        "pools", order->pools, "repository", order->repository, "priority",
        (json_int_t)order->priority, "time_limit_ms", (json_int_t)order->time_limit_ms, "control",
        xv_control_name(XV_CONTROL_RUN), "submitted_ms", (json_int_t)xv_wall_ms(), "started_ms",
        (json_int_t)0, "retry_of", retry_of == NULL ? json_null() : json_string(retry_of));
    if (json != NULL && order->limits != NULL)
        json_object_set(json, "limits", (json_t *)(uintptr_t)order->limits);
    char *copy = strdup(id);
    bool succeeded = false;
    struct xv_txn txn;
    xv_txn_init(&txn);
    xv_txn_expect(&txn, XV_KV_CREATE_REVISION, 0, "q/%s", id);
    xv_txn_put(&txn, 0, json, "q/%s", id);
    json_decref(json);
    rc = copy == NULL ? xv_fail_memory(error)
                      : xv_txn_run(&txn, xv_site_kv(site), call, &succeeded, NULL, error);
    if (rc == 0 && !succeeded)
        rc = xv_fail(error, XVSA_ERR_INTERNAL, "agent", "job %s exists already", id);
    xv_txn_free(&txn);
    if (rc != 0)
        free(copy);
    else
        *ret_id = copy;
    return rc;
}

static int submit(struct xv_site *site, const char *spec, const char *retry_of,
                  const struct xv_call *call, char **ret_id, xvsa_error **error)
{
    struct xv_view members;
    struct order order = {0};
    int rc = xv_view_read_members(xv_site_kv(site), xv_engine_env(xv_site_engine(site)), call,
                                  &members, error);
    if (rc != 0)
        return rc;
    rc = read_order(spec, &members, &order, error);
    if (rc == 0)
        rc = enqueue(site, &order, retry_of, call, ret_id, error);
    free_order(&order);
    xv_view_free(&members);
    return rc;
}

int xv_site_submit(struct xv_site *site, const char *spec, const struct xv_call *call,
                   char **ret_id, xvsa_error **error)
{
    return submit(site, spec, NULL, call, ret_id, error);
}

static int next_control(const struct xv_queued_job *job, int32_t action, enum xv_control *ret,
                        xvsa_error **error)
{
    static const enum xv_control controls[] = {
        [XVSA_CONTROL_SUSPEND] = XV_CONTROL_SUSPEND,
        [XVSA_CONTROL_RESUME] = XV_CONTROL_RUN,
        [XVSA_CONTROL_CANCEL] = XV_CONTROL_CANCEL,
        [XVSA_CONTROL_CANCEL_NOW] = XV_CONTROL_CANCEL_NOW,
    };
    *ret = controls[action];
    /* From cancelling there is no way back, only a quicker one forth. */
    if (job->control >= XV_CONTROL_CANCEL && *ret < job->control)
        return xv_fail(error, XVSA_ERR_STATE, "agent", "job %s is being cancelled", job->id);
    return 0;
}

static int control_once(struct xv_site *site, const char *given, int32_t action,
                        const struct xv_call *call, bool *ret_done, xvsa_error **error)
{
    struct xv_kv_pair *pair = NULL;
    struct xv_kv_list list = {0};
    struct xv_queued_job job = {0};
    enum xv_control control = XV_CONTROL_RUN;
    int rc = xv_find_job(xv_site_kv(site), given, call, &list, &pair, error);
    if (rc == 0 && pair->key[0] == 'h')
        rc = xv_fail(error, XVSA_ERR_STATE, "agent", "job %s has ended", xv_key_end(pair->key));
    if (rc == 0)
        rc = xv_queued_job_read(pair, &job, error);
    if (rc == 0)
        rc = next_control(&job, action, &control, error);
    if (rc == 0) {
        struct xv_txn txn;
        xv_txn_init(&txn);
        xv_set_text(job.json, "control", xv_control_name(control));
        xv_txn_expect(&txn, XV_KV_MOD_REVISION, job.mod, "%s", pair->key);
        xv_txn_put(&txn, 0, job.json, "%s", pair->key);
        rc = xv_txn_run(&txn, xv_site_kv(site), call, ret_done, NULL, error);
    }
    json_decref(job.json);
    xv_kv_list_free(&list);
    return rc;
}

int xv_site_control(struct xv_site *site, const char *id, int32_t action,
                    const struct xv_call *call, xvsa_error **error)
{
    bool done = false;
    int rc = 0;
    for (int i = 0; rc == 0 && !done && i < ATTEMPTS_MAX; i++)
        rc = control_once(site, id, action, call, &done, error);
    if (rc == 0 && !done)
        rc = xv_fail(error, XVSA_ERR_BUSY, "agent",
                     "job %s: its record changed %d times in between", id, ATTEMPTS_MAX);
    return rc;
}

/* Subjects of tasks that ended without success. */
static json_t *failed_subjects(const struct xv_kv_list *tasks)
{
    json_t *subjects = json_array();
    for (size_t i = 0; i < tasks->count; i++) {
        struct xv_task_record task;
        if (xv_task_read(&tasks->pairs[i], &task, NULL) != 0)
            continue;
        if (task.state != XV_TASK_SUCCEEDED)
            json_array_append_new(subjects, json_string(task.subject));
        xv_task_record_free(&task);
    }
    return subjects;
}

/* The spec again, of the failed ones alone. */
static json_t *narrow(const struct xv_queued_job *job, const json_t *subjects)
{
    json_t *spec = json_deep_copy(job->spec);
    if (strcmp(job->type, "restore") == 0) {
        json_object_set_new(spec, "points", json_deep_copy(subjects));
    } else if (strcmp(job->type, "backup") == 0) {
        json_t *vms = json_array();
        for (size_t i = 0; i < json_array_size(subjects); i++)
            json_array_append_new(vms, json_pack("{s:O}", "uuid", json_array_get(subjects, i)));
        json_object_set_new(json_object_get(spec, "selection"), "vms", vms);
    }
    return spec;
}

static int retry(struct xv_site *site, const struct xv_kv_pair *pair, const struct xv_call *call,
                 char **ret_id, xvsa_error **error)
{
    struct xv_queued_job job;
    struct xv_kv_list tasks = {0};
    int rc = xv_queued_job_read(pair, &job, error);
    if (rc != 0)
        return rc;
    rc = xv_kv_read(xv_site_kv(site), call, &tasks, error, "v/%s/", job.id);
    json_t *subjects = rc == 0 ? failed_subjects(&tasks) : NULL;
    bool never_planned = tasks.count == 0;
    if (rc == 0 && json_array_size(subjects) == 0 && !never_planned)
        rc = xv_fail(error, XVSA_ERR_STATE, "agent", "job %s: nothing of it failed", job.id);
    if (rc == 0) {
        struct order order = {
            .spec = never_planned ? json_deep_copy(job.spec) : narrow(&job, subjects),
            .pools = json_incref((json_t *)(uintptr_t)job.pools),
            .repository = job.repository,
            .limits = json_object_get(job.json, "limits"),
            .priority = job.priority,
            .time_limit_ms = job.time_limit_ms,
        };
        rc = order.spec == NULL ? xv_fail_memory(error)
                                : enqueue(site, &order, job.id, call, ret_id, error);
        free_order(&order);
    }
    json_decref(subjects);
    xv_kv_list_free(&tasks);
    json_decref(job.json);
    return rc;
}

int xv_site_retry(struct xv_site *site, const char *id, const struct xv_call *call, char **ret_id,
                  xvsa_error **error)
{
    struct xv_kv_pair *pair = NULL;
    struct xv_kv_list list = {0};
    int rc = xv_find_job(xv_site_kv(site), id, call, &list, &pair, error);
    if (rc == 0 && pair->key[0] != 'h')
        rc = xv_fail(error, XVSA_ERR_STATE, "agent", "job %s has not ended", xv_key_end(pair->key));
    if (rc == 0)
        rc = retry(site, pair, call, ret_id, error);
    xv_kv_list_free(&list);
    return rc;
}
