/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The JSON documents "site-jobs" and "site-job", and waiting for a job.
 */
#include <stdlib.h>
#include <string.h>

#include "agent/find.h"
#include "agent/site.h"
#include "agent/summary.h"
#include "job/json.h"

#define LIMIT_DEFAULT 100u
#define LIMIT_MAX     10000u
#define WAIT_MS       1000

static const char *state_of(const struct xv_queued_job *job)
{
    if (json_object_get(job->json, "state") != NULL)
        return xv_member_text(job->json, "state");
    if (job->control >= XV_CONTROL_CANCEL)
        return "cancelling";
    if (job->control == XV_CONTROL_SUSPEND)
        return "suspended";
    return job->started_ms == 0 ? "queued" : "running";
}

static json_t *copy_or_null(const json_t *object, const char *name)
{
    json_t *value = json_object_get(object, name);
    return value == NULL ? json_null() : json_incref(value);
}

static json_t *head_to_json(const struct xv_queued_job *job)
{
    return json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:O, s:s, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:O}", "id",
        job->id, "type", job->type, "name", job->name, "state", state_of(job), "control",
        xv_control_name(job->control), "pools", job->pools, "repository", job->repository,
        "priority", (json_int_t)job->priority, "time_limit_ms", (json_int_t)job->time_limit_ms,
        "submitted_ms", (json_int_t)job->submitted_ms, "started_ms", (json_int_t)job->started_ms,
        "ended_ms", (json_int_t)xv_member_number(job->json, "ended_ms"), "retry_of",
        copy_or_null(job->json, "retry_of"), "summary", copy_or_null(job->json, "summary"), "error",
        copy_or_null(job->json, "error"), "spec", job->spec);
}

static int64_t submitted(const json_t *head)
{
    return xv_member_number(head, "submitted_ms");
}

static int newest_first(const void *left, const void *right)
{
    const json_t *a = *(json_t *const *)left;
    const json_t *b = *(json_t *const *)right;
    if (submitted(a) != submitted(b))
        return submitted(a) > submitted(b) ? -1 : 1;
    return strcmp(xv_member_text(a, "id"), xv_member_text(b, "id"));
}

static size_t collect_heads(const struct xv_kv_list *list, json_t **heads)
{
    size_t count = 0;
    for (size_t i = 0; i < list->count; i++) {
        struct xv_queued_job job;
        if (xv_queued_job_read(&list->pairs[i], &job, NULL) != 0)
            continue;
        json_t *head = head_to_json(&job);
        if (head != NULL)
            heads[count++] = head;
        json_decref(job.json);
    }
    return count;
}

static int list_heads(const struct xv_kv_list *active, const struct xv_kv_list *ended,
                      uint32_t limit, char **ret, xvsa_error **error)
{
    json_t *array = json_array();
    json_t **heads = calloc(active->count + ended->count + 1, sizeof(json_t *));
    if (array == NULL || heads == NULL) {
        json_decref(array);
        free(heads);
        return xv_fail_memory(error);
    }
    size_t count = collect_heads(active, heads);
    count += collect_heads(ended, heads + count);
    qsort(heads, count, sizeof(json_t *), newest_first);
    for (size_t i = 0; i < count; i++) {
        bool twice = i > 0 && strcmp(xv_member_text(heads[i], "id"),
                                     xv_member_text(heads[i - 1], "id")) == 0;
        if (json_array_size(array) < limit && !twice)
            json_array_append(array, heads[i]);
    }
    for (size_t i = 0; i < count; i++)
        json_decref(heads[i]);
    free(heads);
    return xv_json_print(array, ret, error);
}

int xv_site_list_jobs(struct xv_site *site, uint32_t limit, const struct xv_call *call, char **ret,
                      xvsa_error **error)
{
    struct xv_kv_list active = {0};
    struct xv_kv_list ended = {0};
    limit = limit == 0 ? LIMIT_DEFAULT : limit > LIMIT_MAX ? LIMIT_MAX : limit;
    int rc = xv_kv_range(xv_site_kv(site), "q/", call, &active, error);
    if (rc == 0)
        rc = xv_kv_range(xv_site_kv(site), "h/", call, &ended, error);
    if (rc == 0)
        rc = list_heads(&active, &ended, limit, ret, error);
    xv_kv_list_free(&active);
    xv_kv_list_free(&ended);
    return rc;
}

/* What is known of a task: its plan or report, and where it stands. */
static json_t *task_to_json(const struct xv_task_record *task, const char *pool,
                            const struct xv_kv_list *reports, const struct xv_kv_list *progress)
{
    const struct xv_kv_pair *pair = xv_list_find(reports, "vr/%s", task->key + strlen("v/"));
    json_t *object = pair == NULL ? NULL : xv_pair_json(pair);
    if (object == NULL)
        object = json_pack("{s:s, s:s, s:[], s:[]}", "uuid", task->subject, "name", task->name,
                           "disks", "reasons");
    xv_set_text(object, "state",
                task->state == XV_TASK_PENDING ? "waiting" : xv_task_state_name(task->state));
    xv_set_text(object, "pool", pool);
    xv_set_number(object, "attempt", task->attempt);
    xv_set_text(object, "owner", task->owner[0] == '\0' ? NULL : task->owner);
    if (json_object_get(task->json, "error") != NULL)
        json_object_set(object, "error", json_object_get(task->json, "error"));
    pair = xv_list_find(progress, "p/%s", task->key + strlen("v/"));
    json_t *figures = pair == NULL ? NULL : xv_pair_json(pair);
    json_object_set_new(object, "progress", figures == NULL ? json_null() : figures);
    return object;
}

static int compare_entries(const void *left, const void *right)
{
    const struct xv_task_record *a = left;
    const struct xv_task_record *b = right;
    if (a->order != b->order)
        return a->order < b->order ? -1 : 1;
    return strcmp(a->key, b->key);
}

static json_t *tasks_to_json(const struct xv_kv_list *tasks, const struct xv_kv_list *reports,
                             const struct xv_kv_list *progress, struct xv_summary *summary)
{
    json_t *array = json_array();
    struct xv_task_record *records = calloc(tasks->count + 1, sizeof *records);
    size_t count = 0;
    for (size_t i = 0; records != NULL && i < tasks->count; i++)
        count += xv_task_read(&tasks->pairs[i], &records[count], NULL) == 0;
    if (records != NULL)
        qsort(records, count, sizeof *records, compare_entries);
    for (size_t i = 0; i < count; i++) {
        char pool[XV_KEY_MAX];
        const char *begin = strchr(records[i].key + strlen("v/"), '/') + 1;
        snprintf(pool, sizeof pool, "%.*s", (int)strcspn(begin, "/"), begin);
        json_t *entry = task_to_json(&records[i], pool, reports, progress);
        xv_summary_add(summary, &records[i], entry);
        json_array_append_new(array, entry);
        xv_task_record_free(&records[i]);
    }
    free(records);
    return array;
}

static json_t *parts_to_json(const struct xv_kv_list *parts, json_t *omissions)
{
    json_t *array = json_array();
    for (size_t i = 0; i < parts->count; i++) {
        json_t *part = xv_pair_json(&parts->pairs[i]);
        json_array_extend(omissions, json_object_get(part, "omissions"));
        json_object_del(part, "omissions");
        json_array_append_new(array, part);
    }
    return array;
}

static int describe(struct xv_site *site, const struct xv_queued_job *job,
                    const struct xv_call *call, char **ret, xvsa_error **error)
{
    struct xv_kv *kv = xv_site_kv(site);
    struct xv_kv_list parts = {0};
    struct xv_kv_list tasks = {0};
    struct xv_kv_list reports = {0};
    struct xv_kv_list progress = {0};
    int rc = xv_kv_read(kv, call, &parts, error, "jp/%s/", job->id);
    if (rc == 0)
        rc = xv_kv_read(kv, call, &tasks, error, "v/%s/", job->id);
    if (rc == 0)
        rc = xv_kv_read(kv, call, &reports, error, "vr/%s/", job->id);
    if (rc == 0)
        rc = xv_kv_read(kv, call, &progress, error, "p/%s/", job->id);
    if (rc == 0) {
        struct xv_summary summary = {0};
        json_t *document = head_to_json(job);
        json_t *omissions = json_array();
        json_object_set_new(document, "vms", tasks_to_json(&tasks, &reports, &progress, &summary));
        json_object_set_new(document, "parts", parts_to_json(&parts, omissions));
        json_object_set_new(document, "omissions", omissions);
        json_object_set_new(document, "summary", xv_summary_to_json(&summary));
        rc = xv_json_print(document, ret, error);
    }
    xv_kv_list_free(&parts);
    xv_kv_list_free(&tasks);
    xv_kv_list_free(&reports);
    xv_kv_list_free(&progress);
    return rc;
}

int xv_site_job(struct xv_site *site, const char *id, const struct xv_call *call, char **ret,
                xvsa_error **error)
{
    struct xv_kv_pair *pair = NULL;
    struct xv_kv_list list = {0};
    struct xv_queued_job job = {0};
    int rc = xv_find_job(xv_site_kv(site), id, call, &list, &pair, error);
    if (rc == 0)
        rc = xv_queued_job_read(pair, &job, error);
    if (rc == 0)
        rc = describe(site, &job, call, ret, error);
    json_decref(job.json);
    xv_kv_list_free(&list);
    return rc;
}

static int code_of(const char *name)
{
    for (int32_t code = -1; code > -100; code--) {
        const char *known = xvsa_code_name(code);
        if (known != NULL && strcmp(known, name) == 0)
            return code;
    }
    return XVSA_ERR_INTERNAL;
}

/* How an ended job ended, as the result of waiting for it. */
static int judge(const struct xv_queued_job *job, xvsa_error **error)
{
    const char *state = state_of(job);
    if (strcmp(state, "succeeded") == 0)
        return 0;
    const json_t *why = json_object_get(job->json, "error");
    const char *message = xv_member_text(why, "message");
    int code = strcmp(state, "partial") == 0     ? XVSA_ERR_PARTIAL
               : strcmp(state, "cancelled") == 0 ? XVSA_ERR_CANCELLED
                                                 : code_of(xv_member_text(why, "code"));
    return xv_fail(error, code, "agent", "job %s: %s: %s", job->id, state, message);
}

static int look(struct xv_site *site, const char *id, const struct xv_call *call, bool *ret_ended,
                xvsa_error **error)
{
    struct xv_kv_pair *pair = NULL;
    struct xv_kv_list list = {0};
    struct xv_queued_job job = {0};
    int rc = xv_find_job(xv_site_kv(site), id, call, &list, &pair, error);
    if (rc == 0 && pair->key[0] == 'h') {
        *ret_ended = true;
        rc = xv_queued_job_read(pair, &job, error);
        if (rc == 0)
            rc = judge(&job, error);
    }
    json_decref(job.json);
    xv_kv_list_free(&list);
    return rc;
}

int xv_site_wait(struct xv_site *site, const char *id, const struct xv_call *call,
                 xvsa_error **error)
{
    bool ended = false;
    for (;;) {
        xvsa_error *problem = NULL;
        struct xv_call within = xv_call_within(call, 10 * WAIT_MS);
        int rc = look(site, id, &within, &ended, &problem);
        bool out_of_reach = !ended && rc != 0 && xvsa_error_is_retryable(problem);
        if (ended || (rc != 0 && !out_of_reach)) {
            if (error != NULL)
                *error = problem;
            else
                xvsa_error_unref(problem);
            return rc;
        }
        xvsa_error_unref(problem);
        if (xv_site_is_closing(site))
            return xv_fail(error, XVSA_ERR_STATE, "agent", "the site was closed");
        rc = xv_call_sleep(call, WAIT_MS / 2, "agent", "waiting for a job", error);
        if (rc != 0)
            return rc;
    }
}
