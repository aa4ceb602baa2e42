/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Tasks that this member owns: taken over from the view, watched, told what their job was told.
 */
#include "agent/own.h"

#include <stdlib.h>
#include <string.h>

#include "agent/subject.h"
#include "base/thread.h"

static void free_task(struct xv_own_task *task)
{
    xv_own_boards_free(task);
    if (task->watch != NULL)
        xv_kv_watch_close(task->watch);
    xv_rate_leave(task->agent, task->rate);
    xv_job_unref(task->job);
    json_decref(task->record);
    json_decref(task->report);
    free(task->key);
    free(task->type);
    free(task->name);
    free(task->repository);
    free(task->earlier);
    free(task->spec);
    free(task->facts);
    pthread_mutex_destroy(&task->lock);
    free(task);
}

/* ---- the task's thread ---- */

/* Makes the task this member's: its record names it as running, and its claim lives as long as the member. */
static int claim(struct xv_own_task *task, xvsa_error **error)
{
    struct xv_agent *agent = task->agent;
    struct xv_call call = xv_agent_call(agent);
    struct xv_txn txn;
    json_t *mark =
        json_pack("{s:s, s:I}", "member", agent->name, "attempt", (json_int_t)task->attempt);
    int64_t revision = 0;
    bool succeeded = false;
    xv_set_text(task->record, "state", xv_task_state_name(XV_TASK_RUNNING));
    xv_set_number(task->record, "token", task->token);
    const struct xv_kv_compare guard = xv_epoch_guard(&task->epoch);
    xv_txn_init(&txn);
    xv_txn_expect_as(&txn, &guard);
    xv_txn_expect(&txn, XV_KV_MOD_REVISION, task->assigned_revision, "%s", task->key);
    xv_txn_expect(&txn, XV_KV_CREATE_REVISION, 0, "r/%s/%s", task->job_id, task->subject);
    xv_txn_put_leased(&txn, xv_member_lease(agent->member), mark, "r/%s/%s", task->job_id,
                      task->subject);
    xv_txn_put(&txn, 0, task->record, "%s", task->key);
    json_decref(mark);
    int rc = xv_txn_run(&txn, agent->kv, &call, &succeeded, &revision, error);
    if (rc == 0 && !succeeded)
        rc = xv_fail(error, XVSA_ERR_CONFLICT, "agent", "it was given to somebody else meanwhile");
    if (rc == 0)
        atomic_store(&task->claim, revision);
    return rc;
}

static int read_facts(struct xv_own_task *task, xvsa_error **error)
{
    char key[XV_KEY_MAX];
    struct xv_kv_list list = {0};
    struct xv_call call = xv_agent_call(task->agent);
    snprintf(key, sizeof key, "vs/%s/%s", task->job_id, task->subject);
    int rc = xv_kv_get(task->agent->kv, key, &call, &list, error);
    if (rc == 0 && list.count > 0) {
        task->facts = strdup(list.pairs[0].value);
        if (task->facts == NULL)
            rc = xv_fail_memory(error);
    }
    xv_kv_list_free(&list);
    return rc;
}

static int start_job(struct xv_own_task *task, struct xv_plan *plan, struct xv_job **ret,
                     xvsa_error **error)
{
    char tag[XV_SITE_TAG_MAX];
    struct xv_epoch epoch;
    if (strcmp(task->type, "verify") == 0)
        return xv_job_start(plan, ret, error);
    xv_member_epoch(task->agent->member, &epoch);
    xv_tag_make(tag, task->job_id, task->subject, epoch.site_uuid);
    const struct xv_task options = {
        .job_id = task->job_id,
        .tag = tag,
        .work_id = task->work,
        .facts = task->facts,
        .earlier = task->earlier,
        .attempt = task->attempt,
        .token = (uint64_t)task->token,
        .unit_bytes = task->agent->unit_bytes,
        .outstanding = task->outstanding,
        .proxies = task->proxies,
        .rate = task->rate,
        .checkpoint_ms = task->agent->checkpoint_ms,
        .proxy = task->agent->name,
        .ops = &xv_own_ops,
        .user = task,
    };
    return xv_job_start_task(plan, &options, ret, error);
}

/* A verification has no checkpoint: it is stopped, and begins anew. */
static void park_job(const struct xv_own_task *task, struct xv_job *job)
{
    if (strcmp(task->type, "verify") == 0)
        xv_job_cancel(job, XVSA_CANCEL_NOW);
    else
        xv_job_park(job);
}

/* Hands the job to whoever controls the task; what was asked for before counts still. */
static void show_job(struct xv_own_task *task, struct xv_job *job)
{
    pthread_mutex_lock(&task->lock);
    task->job = xv_job_ref(job);
    bool parked = task->parked;
    bool stopped = task->stopped;
    pthread_mutex_unlock(&task->lock);
    if (stopped)
        xv_job_cancel(job, XVSA_CANCEL_NOW);
    else if (parked)
        park_job(task, job);
}

static void tell_progress(struct xv_own_task *task, struct xv_job *job)
{
    struct xv_agent *agent = task->agent;
    struct xv_call call = xv_agent_call(agent);
    struct xv_txn txn;
    xvsa_progress now;
    bool succeeded = false;
    xvsa_error *error = NULL;
    xv_job_progress(job, &now);
    json_t *figures = json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:I}", "bytes_done", (json_int_t)now.bytes_done, "bytes_total",
        (json_int_t)now.bytes_total, "bytes_read", (json_int_t)now.bytes_read, "bytes_stored",
        (json_int_t)now.bytes_stored, "elapsed_ms", (json_int_t)now.elapsed_ms, "remaining_ms",
        (json_int_t)now.remaining_ms);
    xv_txn_init(&txn);
    xv_own_guard(task, &txn);
    xv_txn_put_leased(&txn, xv_member_lease(agent->member), figures, "p/%s",
                      task->key + strlen("v/"));
    json_decref(figures);
    int rc = xv_txn_run(&txn, agent->kv, &call, &succeeded, NULL, &error);
    if (rc != 0)
        xv_log(agent->env, XVSA_LOG_DEBUG, "agent", "%s: progress is not told: %s", agent->name,
               xvsa_error_message(error));
    xvsa_error_unref(error);
}

static int await(struct xv_own_task *task, struct xv_job *job, xvsa_error **error)
{
    for (;;) {
        xvsa_error *problem = NULL;
        xvsa_progress now;
        int rc = xv_job_wait(job, XV_PROGRESS_MS, &problem);
        xv_job_progress(job, &now);
        if (now.state != XVSA_JOB_RUNNING && now.state != XVSA_JOB_SUSPENDED) {
            if (error != NULL)
                *error = problem;
            else
                xvsa_error_unref(problem);
            return rc;
        }
        xvsa_error_unref(problem);
        if (!atomic_load(&task->lost))
            tell_progress(task, job);
    }
}

static int run(struct xv_own_task *task, xvsa_error **error)
{
    struct xv_agent *agent = task->agent;
    struct xv_plan *plan = NULL;
    struct xv_job *job = NULL;
    struct xv_repo *repo = xv_agent_repo(agent, task->repository);
    const struct xv_call call = {.cancel = agent->cancel};
    if (repo == NULL)
        return xv_fail(error, XVSA_ERR_NOT_FOUND, "agent",
                       "member %s has no repository named \"%s\"", agent->name, task->repository);
    int rc = read_facts(task, error);
    bool verify = strcmp(task->type, "verify") == 0;
    if (rc == 0)
        rc = xv_plan_new(xv_site_engine(agent->site), task->spec, verify ? NULL : agent->pool, repo,
                         &call, &plan, error);
    if (rc == 0)
        rc = start_job(task, plan, &job, error);
    xv_plan_unref(plan);
    if (rc != 0)
        return rc;
    show_job(task, job);
    rc = await(task, job, error);
    xv_job_unref(job);
    return rc;
}

static void *own(void *argument)
{
    struct xv_own_task *task = argument;
    struct xv_agent *agent = task->agent;
    xvsa_error *error = NULL;
    int rc = claim(task, &error);
    if (rc != 0) {
        xv_log(agent->env, XVSA_LOG_INFO, "agent", "%s: task %s, attempt %u, is not begun: %s",
               agent->name, task->key, task->attempt, xvsa_error_message(error));
        atomic_store(&task->lost, true);
    } else {
        xv_log(agent->env, XVSA_LOG_INFO, "agent", "%s: owns %s (\"%s\"), attempt %u, token %lld",
               agent->name, task->key, task->name, task->attempt, (long long)task->token);
        rc = run(task, &error);
        xv_own_conclude(task, rc, error);
    }
    xv_error_clear(&error);
    xv_own_boards_leave(task);
    xv_rate_leave(agent, task->rate);
    task->rate = NULL;
    atomic_fetch_sub(&agent->disks_running, task->disks);
    pthread_mutex_lock(&agent->lock);
    task->ended = true;
    pthread_mutex_unlock(&agent->lock);
    atomic_store(&agent->place_freed, true);
    xv_agent_thread_end(agent);
    return NULL;
}

/* ---- the agent's thread ---- */

static char *copy_of(const char *text, bool *ok)
{
    char *copy = strdup(text);
    *ok = *ok && copy != NULL;
    return copy;
}

static int read_limits(struct xv_own_task *task, const struct xv_view_job *job, xvsa_error **error)
{
    struct xv_job_limits limits;
    int rc =
        xv_job_limits_read(json_object_get(job->job.json, "limits"), "job.limits", &limits, error);
    task->limits = limits.limits;
    xv_job_limits_free(&limits);
    return rc == 0 ? xv_rate_join(task->agent, job, &task->rate, error) : rc;
}

static int make_task(struct xv_agent *agent, const struct xv_view_job *job,
                     const struct xv_task_record *record, struct xv_own_task **ret,
                     xvsa_error **error)
{
    struct xv_own_task *task = calloc(1, sizeof *task);
    if (task == NULL)
        return xv_fail_memory(error);
    bool ok = true;
    pthread_mutex_init(&task->lock, NULL);
    task->agent = agent;
    task->key = copy_of(record->key, &ok);
    task->subject = ok ? xv_key_end(task->key) : "";
    task->type = copy_of(job->job.type, &ok);
    task->name = copy_of(record->name, &ok);
    task->repository = copy_of(job->job.repository, &ok);
    const char *earlier = xv_member_text(record->json, "earlier");
    task->earlier = earlier[0] == '\0' ? NULL : copy_of(earlier, &ok);
    task->spec = xv_subject_spec(&job->job, record->subject);
    task->record = json_deep_copy(record->json);
    snprintf(task->job_id, sizeof task->job_id, "%s", job->job.id);
    snprintf(task->work, sizeof task->work, "%s", record->work);
    task->attempt = record->attempt;
    task->proxies = (uint32_t)xv_member_number(record->json, "proxies");
    task->outstanding = (uint64_t)xv_member_number(record->json, "outstanding");
    size_t disks = json_array_size(record->disks);
    task->disks = (uint32_t)(disks < agent->max_disks ? disks : agent->max_disks);
    task->assigned_revision = record->mod;
    xv_member_epoch(agent->member, &task->epoch);
    int rc = ok && task->spec != NULL && task->record != NULL ? 0 : xv_fail_memory(error);
    if (rc == 0)
        rc = read_limits(task, job, error);
    if (rc == 0)
        rc = xv_epoch_token(&task->epoch, record->mod, &task->token, error);
    if (rc != 0) {
        free_task(task);
        return rc;
    }
    *ret = task;
    return 0;
}

static void begin(struct xv_agent *agent, const struct xv_view_job *job,
                  const struct xv_task_record *record)
{
    struct xv_own_task *task = NULL;
    xvsa_error *error = NULL;
    int rc = make_task(agent, job, record, &task, &error);
    if (rc == 0) {
        atomic_fetch_add(&agent->disks_running, task->disks);
        pthread_mutex_lock(&agent->lock);
        task->next = agent->tasks;
        agent->tasks = task;
        pthread_mutex_unlock(&agent->lock);
        rc = xv_agent_thread(agent, "xvsa-own", own, task, &error);
        if (rc != 0) {
            atomic_fetch_sub(&agent->disks_running, task->disks);
            pthread_mutex_lock(&agent->lock);
            atomic_store(&task->lost, true);
            task->ended = true;
            pthread_mutex_unlock(&agent->lock);
        }
    }
    if (rc != 0)
        xv_log(agent->env, XVSA_LOG_ERROR, "agent", "%s: cannot begin %s: %s", agent->name,
               record->key, xvsa_error_message(error));
    xvsa_error_unref(error);
}

static void park(struct xv_own_task *task, const char *why)
{
    pthread_mutex_lock(&task->lock);
    bool first = !task->parked;
    task->parked = true;
    if (first)
        task->why_parked = why;
    struct xv_job *job = first && task->job != NULL ? xv_job_ref(task->job) : NULL;
    pthread_mutex_unlock(&task->lock);
    if (job != NULL)
        park_job(task, job);
    xv_job_unref(job);
}

static void stop(struct xv_own_task *task)
{
    pthread_mutex_lock(&task->lock);
    bool first = !task->stopped;
    task->stopped = true;
    struct xv_job *job = first && task->job != NULL ? xv_job_ref(task->job) : NULL;
    pthread_mutex_unlock(&task->lock);
    if (job != NULL)
        xv_job_cancel(job, XVSA_CANCEL_NOW);
    xv_job_unref(job);
}

/* Whoever took it fences this one's session in the journal; until then nothing in the pool is touched, and the
 * job is stopped in a way that keeps the work's progress. */
static void lose(struct xv_own_task *task, const struct xv_task_record *record)
{
    if (atomic_exchange(&task->lost, true))
        return;
    atomic_fetch_add(&task->agent->figures.tasks_lost, 1);
    xv_log(task->agent->env, XVSA_LOG_WARNING, "agent",
           "%s: lost %s (\"%s\"), attempt %u, token %lld: now %s, attempt %u; what it still commits"
           " is void once the journal has the other's token",
           task->agent->name, task->key, task->name, task->attempt, (long long)task->token,
           record == NULL ? "gone" : record->owner, record == NULL ? 0 : record->attempt);
    park(task, "lost");
}

/* The claim went with a lease or with the store, and nobody took the task: claims it again. */
static void claim_again(struct xv_own_task *task, const struct xv_task_record *record)
{
    struct xv_agent *agent = task->agent;
    struct xv_call call = xv_agent_call(agent);
    struct xv_txn txn;
    bool succeeded = false;
    int64_t revision = 0;
    xvsa_error *error = NULL;
    json_t *mark =
        json_pack("{s:s, s:I}", "member", agent->name, "attempt", (json_int_t)task->attempt);
    struct xv_epoch epoch;
    xv_member_epoch(agent->member, &epoch);
    const struct xv_kv_compare guard = xv_epoch_guard(&epoch);
    xv_txn_init(&txn);
    xv_txn_expect_as(&txn, &guard);
    xv_txn_expect(&txn, XV_KV_MOD_REVISION, record->mod, "%s", task->key);
    xv_txn_expect(&txn, XV_KV_CREATE_REVISION, 0, "r/%s/%s", task->job_id, task->subject);
    xv_txn_put_leased(&txn, xv_member_lease(agent->member), mark, "r/%s/%s", task->job_id,
                      task->subject);
    pthread_mutex_lock(&task->lock);
    json_t *facts = task->facts == NULL ? NULL : json_loads(task->facts, 0, NULL);
    pthread_mutex_unlock(&task->lock);
    if (facts != NULL)
        xv_txn_put(&txn, 0, facts, "vs/%s/%s", task->job_id, task->subject);
    json_decref(facts);
    json_decref(mark);
    int rc = xv_txn_run(&txn, agent->kv, &call, &succeeded, &revision, &error);
    if (rc == 0 && succeeded) {
        task->epoch = epoch;
        atomic_store(&task->claim, revision);
        xv_log(agent->env, XVSA_LOG_INFO, "agent", "%s: claimed %s, attempt %u, again", agent->name,
               task->key, task->attempt);
    }
    xv_agent_note_store(agent, rc, &error, "cannot claim a task again");
}

/* Whether the record was written after the claim. Revisions of another store tell nothing: it is newer. */
static bool is_newer(const struct xv_own_task *task, const struct xv_task_record *record)
{
    struct xv_epoch epoch;
    xv_member_epoch(task->agent->member, &epoch);
    return strcmp(epoch.value, task->epoch.value) != 0 || record->mod > atomic_load(&task->claim);
}

/* A task under way, as the site sees it now. */
static void review(struct xv_own_task *task, const struct xv_view *view)
{
    struct xv_agent *agent = task->agent;
    struct xv_view_job *job = xv_view_job(view, task->job_id);
    struct xv_task_record *record = job == NULL ? NULL : xv_view_task(job, task->subject);
    int64_t claimed = atomic_load(&task->claim);
    if (claimed == 0 || atomic_load(&task->lost))
        return;
    bool mine = record != NULL && record->state == XV_TASK_RUNNING &&
                strcmp(record->owner, agent->name) == 0 && record->attempt == task->attempt;
    if (!mine) {
        /* The view may be older than the claim. */
        if (record == NULL || record->mod == claimed || is_newer(task, record))
            lose(task, record);
        return;
    }
    const struct xv_kv_pair *pair = xv_view_claim(job, task->subject);
    if (pair == NULL && xv_agent_is_joined(agent))
        claim_again(task, record);
    if (job->job.control == XV_CONTROL_CANCEL_NOW)
        stop(task);
    else if (xv_view_hold(job)[0] != '\0')
        park(task, "hold");
}

/* A task that ended here: the store may not know that, when it is another one than the end was written to. */
static bool is_over(struct xv_own_task *task, const struct xv_view *view)
{
    struct xv_view_job *job = xv_view_job(view, task->job_id);
    struct xv_task_record *record = job == NULL ? NULL : xv_view_task(job, task->subject);
    if (atomic_load(&task->lost) || record == NULL)
        return true;
    bool forgotten = record->attempt == task->attempt && record->state == XV_TASK_RUNNING &&
                     strcmp(record->owner, task->agent->name) == 0;
    if (forgotten && is_newer(task, record))
        return xv_own_write_end(task, record->mod), false;
    return record->attempt != task->attempt;
}

/* Tasks under way are taken out of the list by nobody but the caller's thread. */
static void review_all(struct xv_agent *agent, const struct xv_view *view)
{
    pthread_mutex_lock(&agent->lock);
    struct xv_own_task *task = agent->tasks;
    pthread_mutex_unlock(&agent->lock);
    struct xv_own_task *previous = NULL;
    while (task != NULL) {
        struct xv_own_task *next = task->next;
        pthread_mutex_lock(&agent->lock);
        bool ended = task->ended;
        pthread_mutex_unlock(&agent->lock);
        if (!ended && view != NULL)
            review(task, view);
        if (!ended && atomic_load(&agent->parking))
            park(task, "drain");
        bool drop =
            ended && (atomic_load(&agent->draining) || (view != NULL && is_over(task, view)));
        if (drop) {
            pthread_mutex_lock(&agent->lock);
            if (previous == NULL)
                agent->tasks = next;
            else
                previous->next = next;
            pthread_cond_broadcast(&agent->changed);
            pthread_mutex_unlock(&agent->lock);
            free_task(task);
        } else {
            previous = task;
        }
        task = next;
    }
}

static bool is_here(struct xv_agent *agent, const struct xv_task_record *record)
{
    pthread_mutex_lock(&agent->lock);
    bool here = false;
    for (struct xv_own_task *task = agent->tasks; task != NULL && !here; task = task->next)
        here = strcmp(task->key, record->key) == 0 &&
               (!task->ended || task->attempt >= record->attempt);
    pthread_mutex_unlock(&agent->lock);
    return here;
}

void xv_own_look(struct xv_agent *agent, const struct xv_view *view)
{
    review_all(agent, view);
    if (view == NULL || atomic_load(&agent->draining) || !xv_agent_is_joined(agent))
        return;
    xv_own_give_back(agent, view);
    for (size_t i = 0; i < view->job_count; i++) {
        const struct xv_view_job *job = &view->jobs[i];
        bool may_begin = job->job.control == XV_CONTROL_RUN && xv_view_hold(job)[0] == '\0';
        for (size_t j = 0; may_begin && j < job->task_count; j++) {
            const struct xv_task_record *record = &job->tasks[j];
            if (record->state == XV_TASK_ASSIGNED && strcmp(record->owner, agent->name) == 0 &&
                !is_here(agent, record))
                begin(agent, job, record);
        }
    }
}
