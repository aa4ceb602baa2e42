/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/view.h"

#include <stdlib.h>
#include <string.h>

/* An entry that is not understood must not stop the others; it is told and left out. */
static int leave_out(const struct xv_env *env, int rc, xvsa_error *problem, xvsa_error **error)
{
    if (rc != 0 && rc != XVSA_ERR_FORMAT && error != NULL) {
        *error = problem;
        return rc;
    }
    if (rc == XVSA_ERR_FORMAT)
        xv_log(env, XVSA_LOG_WARNING, "agent", "%s", xvsa_error_message(problem));
    xvsa_error_unref(problem);
    return rc == XVSA_ERR_FORMAT ? 0 : rc;
}

static void free_job(struct xv_view_job *job)
{
    json_decref(job->job.json);
    for (size_t i = 0; i < job->part_count; i++)
        json_decref(job->parts[i].json);
    free(job->parts);
    for (size_t i = 0; i < job->task_count; i++)
        xv_task_record_free(&job->tasks[i]);
    free(job->tasks);
    xv_kv_list_free(&job->entries);
    xv_kv_list_free(&job->claims);
}

void xv_view_free(struct xv_view *view)
{
    for (size_t i = 0; i < view->member_count; i++)
        json_decref(view->members[i].json);
    free(view->members);
    for (size_t i = 0; i < view->job_count; i++)
        free_job(&view->jobs[i]);
    free(view->jobs);
    *view = (struct xv_view){0};
}

/* When a member was added to its pool; the order decides who is first. */
static int64_t added_at(const struct xv_kv_list *order, const struct xv_site_member *member)
{
    const struct xv_kv_pair *pair = xv_list_find(order, "order/%s/%s", member->pool, member->name);
    return pair == NULL ? INT64_MAX : pair->create_revision;
}

/* Few members: insertion keeps them in order. */
static void insert_member(struct xv_view *view, const struct xv_kv_list *order,
                          const struct xv_site_member *member)
{
    size_t at = view->member_count++;
    int64_t added = added_at(order, member);
    while (at > 0) {
        int64_t before = added_at(order, &view->members[at - 1]);
        if (before < added ||
            (before == added && strcmp(view->members[at - 1].name, member->name) <= 0))
            break;
        view->members[at] = view->members[at - 1];
        at--;
    }
    view->members[at] = *member;
}

static int add_members(struct xv_view *view, const struct xv_env *env,
                       const struct xv_kv_list *list, const struct xv_kv_list *order,
                       xvsa_error **error)
{
    view->members = calloc(list->count + 1, sizeof *view->members);
    if (view->members == NULL)
        return xv_fail_memory(error);
    for (size_t i = 0; i < list->count; i++) {
        struct xv_site_member member;
        xvsa_error *problem = NULL;
        int rc = xv_member_read(&list->pairs[i], &member, &problem);
        if (rc == 0)
            insert_member(view, order, &member);
        rc = leave_out(env, rc, problem, error);
        if (rc != 0)
            return rc;
    }
    return 0;
}

int xv_view_read_members(struct xv_kv *kv, const struct xv_env *env, const struct xv_call *call,
                         struct xv_view *ret, xvsa_error **error)
{
    struct xv_kv_list order = {0};
    struct xv_kv_list list = {0};
    *ret = (struct xv_view){0};
    int rc = xv_kv_range(kv, "order/", call, &order, error);
    if (rc == 0)
        rc = xv_kv_range(kv, "m/", call, &list, error);
    if (rc == 0)
        rc = add_members(ret, env, &list, &order, error);
    xv_kv_list_free(&list);
    xv_kv_list_free(&order);
    if (rc != 0)
        xv_view_free(ret);
    return rc;
}

static int read_parts(struct xv_view_job *job, const struct xv_env *env, struct xv_kv *kv,
                      const char *pool, const struct xv_call *call, xvsa_error **error)
{
    struct xv_kv_list list = {0};
    int rc = xv_kv_read(kv, call, &list, error, "jp/%s/", job->job.id);
    if (rc != 0)
        return rc;
    job->parts = calloc(list.count + 1, sizeof *job->parts);
    if (job->parts == NULL)
        rc = xv_fail_memory(error);
    for (size_t i = 0; rc == 0 && i < list.count; i++) {
        xvsa_error *problem = NULL;
        struct xv_part *part = &job->parts[job->part_count];
        rc = xv_part_read(&list.pairs[i], part, &problem);
        job->part_count += rc == 0;
        rc = leave_out(env, rc, problem, error);
    }
    for (size_t i = 0; i < job->part_count; i++) {
        if (strcmp(job->parts[i].pool, pool) == 0)
            job->part = &job->parts[i];
    }
    xv_kv_list_free(&list);
    return rc;
}

static int compare_tasks(const void *left, const void *right)
{
    const struct xv_task_record *a = left;
    const struct xv_task_record *b = right;
    if (a->order != b->order)
        return a->order < b->order ? -1 : 1;
    return strcmp(a->subject, b->subject);
}

/* Moves the entries of both lists, in the order of keys, into the first; of a key that both have, the second's. */
static int merge(struct xv_kv_list *entries, struct xv_kv_list *changed, xvsa_error **error)
{
    struct xv_kv_pair *pairs = calloc(entries->count + changed->count + 1, sizeof *pairs);
    size_t count = 0;
    size_t i = 0;
    if (pairs == NULL)
        return xv_fail_memory(error);
    for (size_t j = 0; j < changed->count; j++) {
        while (i < entries->count && strcmp(entries->pairs[i].key, changed->pairs[j].key) < 0)
            pairs[count++] = entries->pairs[i++];
        if (i < entries->count && strcmp(entries->pairs[i].key, changed->pairs[j].key) == 0) {
            free(entries->pairs[i].key);
            free(entries->pairs[i++].value);
        }
        pairs[count++] = changed->pairs[j];
    }
    while (i < entries->count)
        pairs[count++] = entries->pairs[i++];
    free(entries->pairs);
    free(changed->pairs);
    *entries = (struct xv_kv_list){pairs, count, changed->revision, changed->total};
    *changed = (struct xv_kv_list){0};
    return 0;
}

/* Brings what is known of a job's tasks up to date. Leaves nothing when that cannot be. */
static int update_entries(struct xv_kv_list *entries, struct xv_kv *kv, const char *prefix,
                          const struct xv_call *call, xvsa_error **error)
{
    struct xv_kv_list changed = {0};
    int64_t known = entries->revision;
    int rc = xv_kv_range_since(kv, prefix, known + 1, call, &changed, error);
    if (rc == 0)
        rc = merge(entries, &changed, error);
    xv_kv_list_free(&changed);
    /* A store that went back is another one. */
    if (rc != 0 || entries->revision < known || entries->total != (int64_t)entries->count)
        xv_kv_list_free(entries);
    return rc;
}

/* known: what a view before had of them; it is taken over. */
static int read_entries(struct xv_view_job *job, struct xv_kv_list *known, struct xv_kv *kv,
                        const char *pool, const struct xv_call *call, xvsa_error **error)
{
    char prefix[XV_KEY_MAX];
    snprintf(prefix, sizeof prefix, "v/%s/%s/", job->job.id, pool);
    if (known != NULL && known->revision != 0) {
        job->entries = *known;
        *known = (struct xv_kv_list){0};
        int rc = update_entries(&job->entries, kv, prefix, call, error);
        if (rc != 0 || job->entries.revision != 0)
            return rc;
    }
    return xv_kv_range(kv, prefix, call, &job->entries, error);
}

/* Tasks before claims: a task that is read as running and whose claim is gone has lost its owner, or has ended
 * in between, which its revision tells. */
static int read_tasks(struct xv_view_job *job, struct xv_kv_list *known, const struct xv_env *env,
                      struct xv_kv *kv, const char *pool, const struct xv_call *call,
                      xvsa_error **error)
{
    int rc = read_entries(job, known, kv, pool, call, error);
    if (rc != 0)
        return rc;
    const struct xv_kv_list *list = &job->entries;
    job->tasks = calloc(list->count + 1, sizeof *job->tasks);
    if (job->tasks == NULL)
        rc = xv_fail_memory(error);
    for (size_t i = 0; rc == 0 && i < list->count; i++) {
        xvsa_error *problem = NULL;
        rc = xv_task_read(&list->pairs[i], &job->tasks[job->task_count], &problem);
        job->task_count += rc == 0;
        rc = leave_out(env, rc, problem, error);
    }
    if (rc == 0)
        qsort(job->tasks, job->task_count, sizeof *job->tasks, compare_tasks);
    if (rc == 0)
        rc = xv_kv_read(kv, call, &job->claims, error, "r/%s/", job->job.id);
    return rc;
}

static bool concerns(const struct xv_queued_job *job, const char *pool)
{
    for (size_t i = 0; i < json_array_size(job->pools); i++) {
        const char *uuid = json_string_value(json_array_get(job->pools, i));
        if (uuid != NULL && strcmp(uuid, pool) == 0)
            return true;
    }
    return false;
}

static int compare_jobs(const void *left, const void *right)
{
    const struct xv_queued_job *a = &((const struct xv_view_job *)left)->job;
    const struct xv_queued_job *b = &((const struct xv_view_job *)right)->job;
    if (a->priority != b->priority)
        return a->priority > b->priority ? -1 : 1;
    if (a->submitted_ms != b->submitted_ms)
        return a->submitted_ms < b->submitted_ms ? -1 : 1;
    return strcmp(a->id, b->id);
}

static int add_jobs(struct xv_view *view, const struct xv_env *env, struct xv_kv *kv,
                    const struct xv_kv_list *list, const char *pool, struct xv_view *before,
                    const struct xv_call *call, xvsa_error **error)
{
    view->jobs = calloc(list->count + 1, sizeof *view->jobs);
    int rc = view->jobs == NULL ? xv_fail_memory(error) : 0;
    for (size_t i = 0; rc == 0 && i < list->count; i++) {
        struct xv_view_job *job = &view->jobs[view->job_count];
        xvsa_error *problem = NULL;
        rc = xv_queued_job_read(&list->pairs[i], &job->job, &problem);
        if (rc == 0 && !concerns(&job->job, pool)) {
            json_decref(job->job.json);
            *job = (struct xv_view_job){0};
            continue;
        }
        if (rc != 0) {
            rc = leave_out(env, rc, problem, error);
            continue;
        }
        view->job_count++;
        struct xv_view_job *known = xv_view_job(before, job->job.id);
        rc = read_parts(job, env, kv, pool, call, error);
        if (rc == 0)
            rc =
                read_tasks(job, known == NULL ? NULL : &known->entries, env, kv, pool, call, error);
    }
    if (rc == 0)
        qsort(view->jobs, view->job_count, sizeof *view->jobs, compare_jobs);
    return rc;
}

int xv_view_read(struct xv_kv *kv, const struct xv_env *env, const char *pool,
                 struct xv_view *before, const struct xv_call *call, struct xv_view *ret,
                 xvsa_error **error)
{
    struct xv_kv_list list = {0};
    int rc = xv_view_read_members(kv, env, call, ret, error);
    if (rc != 0)
        return rc;
    rc = xv_kv_range(kv, "q/", call, &list, error);
    if (rc == 0)
        rc = add_jobs(ret, env, kv, &list, pool, before, call, error);
    xv_kv_list_free(&list);
    if (rc != 0)
        xv_view_free(ret);
    return rc;
}

bool xv_view_rests_on(const char *key, const char *pool)
{
    if (strncmp(key, "v/", strlen("v/")) != 0)
        return xv_key_is_looked_at(key);
    const char *job = key + strlen("v/");
    const char *own = job + strcspn(job, "/");
    size_t length = strlen(pool);
    return own[0] == '/' && strncmp(own + 1, pool, length) == 0 && own[1 + length] == '/';
}

struct xv_site_member *xv_view_member(const struct xv_view *view, const char *name)
{
    for (size_t i = 0; i < view->member_count; i++) {
        if (strcmp(view->members[i].name, name) == 0)
            return &view->members[i];
    }
    return NULL;
}

struct xv_view_job *xv_view_job(const struct xv_view *view, const char *id)
{
    for (size_t i = 0; i < view->job_count; i++) {
        if (strcmp(view->jobs[i].job.id, id) == 0)
            return &view->jobs[i];
    }
    return NULL;
}

struct xv_task_record *xv_view_task(const struct xv_view_job *job, const char *subject)
{
    for (size_t i = 0; i < job->task_count; i++) {
        if (strcmp(job->tasks[i].subject, subject) == 0)
            return &job->tasks[i];
    }
    return NULL;
}

const struct xv_kv_pair *xv_view_claim(const struct xv_view_job *job, const char *subject)
{
    return xv_list_find(&job->claims, "r/%s/%s", job->job.id, subject);
}

const char *xv_view_hold(const struct xv_view_job *job)
{
    if (job->job.control == XV_CONTROL_SUSPEND)
        return "suspend";
    return job->part == NULL ? "" : job->part->hold;
}
