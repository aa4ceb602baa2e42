/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a task asks of the others, and what it does when they do not answer.
 */
#include "job/task.h"

#include <stdlib.h>
#include <string.h>

#include "sched/pull.h"

#define POOL_STEP_MS  200
#define CHECKPOINT_MS 5000
#define CONFIRM_MS    10000

uint64_t xv_task_unit_bytes(const struct xv_job_task *task, uint64_t bytes)
{
    if (task->given.unit_bytes != 0)
        return task->given.unit_bytes;
    return xv_sched_unit_bytes(bytes, task->given.outstanding,
                               task->given.proxies == 0 ? 1 : task->given.proxies);
}

/* Copies text behind *at; NULL stays NULL. */
static const char *keep_text(char **at, const char *text)
{
    if (text == NULL)
        return NULL;
    const char *copy = *at;
    size_t size = strlen(text) + 1;
    memcpy(*at, text, size);
    *at += size;
    return copy;
}

static size_t size_of(const char *text)
{
    return text == NULL ? 0 : strlen(text) + 1;
}

static int check(const struct xv_task *given, xvsa_error **error)
{
    if (given->job_id == NULL || strlen(given->job_id) != XV_JOB_ID_LENGTH)
        return xv_fail(error, XVSA_ERR_INVALID, "job", "the id of a task's job has %d digits",
                       XV_JOB_ID_LENGTH);
    if (given->work_id == NULL || strlen(given->work_id) != XV_WORK_ID_LENGTH)
        return xv_fail(error, XVSA_ERR_INVALID, "job", "the id of a work has %d digits",
                       XV_WORK_ID_LENGTH);
    if (given->tag == NULL || strlen(given->tag) >= XV_TAG_MAX)
        return xv_fail(error, XVSA_ERR_INVALID, "job", "the tag of a task is missing or too long");
    if (given->ops == NULL || given->proxy == NULL || given->token == 0)
        return xv_fail(error, XVSA_ERR_INVALID, "job", "a task needs operations, proxy and token");
    return 0;
}

int xv_task_new(const struct xv_task *given, struct xv_job_task **ret, xvsa_error **error)
{
    int rc = check(given, error);
    if (rc != 0)
        return rc;
    struct xv_job_task *task = calloc(1, sizeof *task);
    char *at = malloc(size_of(given->job_id) + size_of(given->tag) + size_of(given->work_id) +
                      size_of(given->facts) + size_of(given->earlier) + size_of(given->proxy));
    if (task == NULL || at == NULL) {
        free(task);
        free(at);
        return xv_fail_memory(error);
    }
    atomic_init(&task->fenced, false);
    pthread_mutex_init(&task->lock, NULL);
    task->texts = at;
    task->given = *given;
    task->given.job_id = keep_text(&at, given->job_id);
    task->given.tag = keep_text(&at, given->tag);
    task->given.work_id = keep_text(&at, given->work_id);
    task->given.facts = keep_text(&at, given->facts);
    task->given.earlier = keep_text(&at, given->earlier);
    task->given.proxy = keep_text(&at, given->proxy);
    if (task->given.checkpoint_ms == 0)
        task->given.checkpoint_ms = CHECKPOINT_MS;
    /* Facts that cannot be read are as good as none. */
    task->facts = given->facts == NULL ? NULL : json_loads(given->facts, 0, NULL);
    *ret = task;
    return 0;
}

void xv_task_free(struct xv_job_task *task)
{
    if (task == NULL)
        return;
    json_decref(task->facts);
    pthread_mutex_destroy(&task->lock);
    free(task->noted);
    free(task->texts);
    free(task);
}

struct xv_rate *xv_job_rate(const struct xv_job *job)
{
    return job->task == NULL ? NULL : job->task->given.rate;
}

int xv_task_await_pool(struct xv_vm_run *run, const struct xv_call *call, xvsa_error **error)
{
    const struct xv_job_task *task = run->job->task;
    int rc = 0;
    while (rc == 0 && task != NULL && !task->given.ops->may_touch_pool(task->given.user))
        rc = xv_call_sleep(call, POOL_STEP_MS, "job", "waiting to be a member of the site again",
                           error);
    return rc;
}

int xv_task_tell_attempt(struct xv_vm_run *run, xvsa_error **error)
{
    const struct xv_task *given = &run->job->task->given;
    if (given->earlier == NULL)
        return 0;
    return xv_run_reason(run, NULL, error, XV_REASON_TASK_TAKEN_OVER, "%s, attempt %u",
                         given->earlier, given->attempt);
}

void xv_task_fence(struct xv_vm_run *run, const xvsa_error *error)
{
    struct xv_job_task *task = run->job->task;
    if (task == NULL || atomic_exchange(&task->fenced, true))
        return;
    xv_log(xv_engine_env(run->job->engine), XVSA_LOG_WARNING, "job",
           "fenced: job %s, VM %s, attempt %u, token %llu: %s", run->job->id, run->plan->uuid,
           task->given.attempt, (unsigned long long)task->given.token, xvsa_error_message(error));
    xvsa_cancel_fire(run->cancel);
}

bool xv_task_is_fenced(const struct xv_vm_run *run)
{
    struct xv_job_task *task = run->job->task;
    return task != NULL && atomic_load(&task->fenced);
}

bool xv_task_leaves(const struct xv_vm_run *run, int rc, const xvsa_error *error)
{
    if (run->job->task == NULL)
        return false;
    if (atomic_load(&run->job->parking))
        return true;
    return rc != XVSA_ERR_CANCELLED && xvsa_error_is_retryable(error) != 0;
}

int xv_task_verdict(const struct xv_vm_run *run, int rc, xvsa_error **error)
{
    if (rc == 0 || rc == XVSA_ERR_FENCED || !xv_task_is_fenced(run))
        return rc;
    xv_error_clear(error);
    return xv_fail(error, XVSA_ERR_FENCED, "job",
                   "another attempt has taken over; this was attempt %u",
                   run->job->task->given.attempt);
}

int xv_task_store_failed(struct xv_vm_run *run, int rc, xvsa_error *failure, xvsa_error **error)
{
    if (rc == XVSA_ERR_FENCED)
        xv_task_fence(run, failure);
    if (rc == XVSA_ERR_FENCED || rc == XVSA_ERR_CANCELLED) {
        if (error != NULL)
            *error = failure;
        else
            xvsa_error_unref(failure);
        return rc;
    }
    rc = xv_run_reason(run, NULL, error, XV_REASON_STORE_UNREACHABLE, "%s",
                       xvsa_error_message(failure));
    xvsa_error_unref(failure);
    return rc;
}

/* Takes text. */
static void remember(struct xv_job_task *task, char *text)
{
    pthread_mutex_lock(&task->lock);
    char *old = task->noted;
    task->noted = text;
    pthread_mutex_unlock(&task->lock);
    free(old);
}

bool xv_task_is_ours(struct xv_vm_run *run)
{
    struct xv_job_task *task = run->job->task;
    if (task == NULL)
        return true;
    const struct xv_call call = {.deadline_ms = xv_clock_ms() + CONFIRM_MS};
    const char *given = task->given.facts == NULL ? "{}" : task->given.facts;
    pthread_mutex_lock(&task->lock);
    char *text = strdup(task->noted == NULL ? given : task->noted);
    pthread_mutex_unlock(&task->lock);
    xvsa_error *error = NULL;
    int rc = text == NULL ? XVSA_ERR_MEMORY
                          : task->given.ops->note(task->given.user, text, &call, &error);
    free(text);
    if (rc == XVSA_ERR_FENCED)
        xv_task_fence(run, error);
    else if (rc != 0)
        xv_run_note(run, NULL, XV_REASON_CLEANUP_PENDING, "%s", xvsa_error_message(error));
    xvsa_error_unref(error);
    return rc == 0;
}

int xv_task_note(struct xv_vm_run *run, json_t *facts, const struct xv_call *call,
                 xvsa_error **error)
{
    const struct xv_task *given = &run->job->task->given;
    char *text = facts == NULL ? NULL : json_dumps(facts, JSON_COMPACT);
    json_decref(facts);
    if (text == NULL)
        return xv_fail_memory(error);
    xvsa_error *failure = NULL;
    int rc = given->ops->note(given->user, text, call, &failure);
    if (rc == 0)
        remember(run->job->task, text);
    else
        free(text);
    return rc == 0 ? 0 : xv_task_store_failed(run, rc, failure, error);
}

int xv_task_connect(const struct xv_disk_run *disk, uint32_t *connections,
                    const struct xv_call *call, xvsa_error **error)
{
    const struct xv_job_task *task = disk->vm->job->task;
    if (task == NULL || task->given.ops->connect == NULL || *connections == 0)
        return 0;
    return task->given.ops->connect(task->given.user, *connections, connections, call, error);
}

void xv_task_disconnect(const struct xv_disk_run *disk, uint32_t connections)
{
    const struct xv_job_task *task = disk->vm->job->task;
    if (task != NULL && task->given.ops->disconnect != NULL && connections > 0)
        task->given.ops->disconnect(task->given.user, connections);
}

int xv_task_enter(const struct xv_disk_run *disk, const struct xv_call *call, xvsa_error **error)
{
    const struct xv_job_task *task = disk->vm->job->task;
    if (task == NULL || task->given.ops->enter == NULL || disk->plan->sr == NULL)
        return 0;
    return task->given.ops->enter(task->given.user, disk->plan->vdi_uuid, disk->plan->sr->uuid,
                                  call, error);
}

void xv_task_leave(const struct xv_disk_run *disk)
{
    const struct xv_job_task *task = disk->vm->job->task;
    if (task != NULL && task->given.ops->leave != NULL && disk->plan->sr != NULL)
        task->given.ops->leave(task->given.user, disk->plan->vdi_uuid);
}

/* Reasons that helpers gave, as far as this version knows them. */
static void tell_reasons(struct xv_disk_run *disk, const json_t *reasons)
{
    for (size_t i = 0; i < json_array_size(reasons); i++) {
        const json_t *reason = json_array_get(reasons, i);
        const char *name = json_string_value(json_object_get(reason, "code"));
        const char *detail = json_string_value(json_object_get(reason, "detail"));
        enum xv_reason_code code = name == NULL ? XV_REASON_COUNT : xv_reason_find(name);
        if (code == XV_REASON_COUNT)
            continue;
        if (detail == NULL)
            xv_run_note(disk->vm, disk, code, NULL);
        else
            xv_run_note(disk->vm, disk, code, "%s", detail);
    }
}

void xv_task_account(struct xv_passage *passage, uint64_t bytes, uint32_t units)
{
    struct xv_disk_run *disk = passage->disk;
    const struct xv_task *given = &disk->vm->job->task->given;
    char *text = NULL;
    json_t *account = NULL;
    if (given->ops->account != NULL &&
        given->ops->account(given->user, disk->plan->vdi_uuid, &text, &passage->call, NULL) == 0)
        account = json_loads(text, 0, NULL);
    free(text);
    json_t *movers = json_array();
    if (units > 0)
        json_array_append_new(movers,
                              json_pack("{s:o, s:o, s:i}", "proxy", xv_json_text(given->proxy),
                                        "bytes", xv_json_count(bytes), "units", (int)units));
    json_array_extend(movers, json_object_get(account, "movers"));
    uint64_t sum = 0;
    for (size_t i = 0; i < json_array_size(movers); i++)
        sum += (uint64_t)json_integer_value(json_object_get(json_array_get(movers, i), "bytes"));
    uint64_t wanted = xv_extents_bytes(&passage->read);
    pthread_mutex_lock(&disk->vm->job->lock);
    json_decref(disk->movers);
    disk->movers = movers;
    disk->bytes_twice = sum > wanted ? sum - wanted : 0;
    pthread_mutex_unlock(&disk->vm->job->lock);
    tell_reasons(disk, json_object_get(account, "reasons"));
    json_decref(account);
}
