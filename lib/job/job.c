/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The life of a job: start, its thread, its end.
 */
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "job/janitor.h"
#include "job/run.h"
#include "job/task.h"
#include "base/thread.h"

#define BLOCK_LEAST  (256u << 10)
#define MEMORY_LEAST (16u << 20)
/* What is left of a job's memory is for the packers of the repository. */
#define BLOCKS_PART 4u

static const char *const state_names[] = {"",       "running",   "succeeded", "partial",
                                          "failed", "cancelled", "parked",    "suspended"};

const char *xv_job_state_name(int32_t state)
{
    return state_names[state];
}

static void destroy(struct xv_job *job)
{
    xv_runs_free(job);
    xv_plan_unref(job->plan);
    xv_task_free(job->task);
    xv_events_free(job->events);
    xvsa_cancel_unref(job->cancel);
    xvsa_error_unref(job->error);
    json_decref(job->faults);
    json_decref(job->verified);
    free(job->report);
    pthread_cond_destroy(&job->changed);
    pthread_mutex_destroy(&job->lock);
    free(job);
}

struct xv_job *xv_job_ref(struct xv_job *job)
{
    atomic_fetch_add_explicit(&job->references, 1, memory_order_relaxed);
    return job;
}

void xv_job_unref(struct xv_job *job)
{
    if (job != NULL && atomic_fetch_sub_explicit(&job->references, 1, memory_order_acq_rel) == 1)
        destroy(job);
}

const char *xv_job_id(const struct xv_job *job)
{
    return job->id;
}

static int make_id(struct xv_job *job, xvsa_error **error)
{
    unsigned char id[XV_JOB_ID_LENGTH / 2];
    int rc = xv_random(id, sizeof id, error);
    if (rc == 0)
        xv_hex_encode(id, sizeof id, job->id);
    return rc;
}

static int make_job(struct xv_plan *plan, const struct xv_task *task, struct xv_job **ret,
                    xvsa_error **error)
{
    struct xv_job *job = calloc(1, sizeof *job);
    if (job == NULL)
        return xv_fail_memory(error);
    atomic_init(&job->references, 1);
    pthread_mutex_init(&job->lock, NULL);
    xv_condition_init(&job->changed);
    job->engine = plan->engine;
    job->plan = xv_plan_ref(plan);
    job->state = XVSA_JOB_RUNNING;
    job->started_ms = xv_wall_ms();
    job->started_clock_ms = xv_clock_ms();
    int rc = task == NULL ? make_id(job, error) : xv_task_new(task, &job->task, error);
    if (rc == 0 && task != NULL)
        memcpy(job->id, task->job_id, XV_JOB_ID_LENGTH);
    if (rc == 0)
        rc = xv_events_new(&job->events, error);
    if (rc == 0)
        rc = xvsa_cancel_new(&job->cancel, error);
    if (rc == 0)
        rc = xv_runs_make(job, error);
    if (rc != 0) {
        destroy(job);
        return rc;
    }
    *ret = job;
    return 0;
}

/* A task is in the state of its site, not in this process's. */
static int enter_state(struct xv_job *job, xvsa_error **error)
{
    const struct xv_plan *plan = job->plan;
    if (job->task != NULL)
        return 0;
    char *spec = json_dumps(plan->spec->json, JSON_COMPACT);
    if (spec == NULL)
        return xv_fail_memory(error);
    const struct xv_coord_job record = {
        .id = job->id,
        .type = xv_job_type_name(plan->spec->type),
        .name = plan->spec->name,
        .pool_uuid = plan->pool == NULL ? "" : xv_client_pool_uuid(xv_pool_client(plan->pool)),
        .repo_id = xv_repo_id(plan->repo),
        .spec = spec,
        .started_ms = job->started_ms,
    };
    int rc = xv_coord_job_add(xv_engine_coord(job->engine), &record, error);
    free(spec);
    return rc;
}

static int make_slots(struct xv_job *job, xvsa_error **error)
{
    const struct xv_plan *plan = job->plan;
    uint32_t *limits = calloc(plan->proxy_count + 1, sizeof *limits);
    if (limits == NULL)
        return xv_fail_memory(error);
    for (size_t i = 0; i < plan->proxy_count; i++)
        limits[i] = xv_proxy_max_disks(plan->proxies[i]);
    int rc =
        xv_slots_new(limits, plan->proxy_count, plan->inventory->host_count, &job->slots, error);
    free(limits);
    return rc;
}

static int run_vms(struct xv_job *job, xvsa_error **error)
{
    const struct xv_plan *plan = job->plan;
    uint32_t chunk = xv_repo_chunk_size(plan->repo);
    const struct xv_call call = {.cancel = job->cancel};
    if (job->task == NULL)
        xv_janitor_run(plan->pool, plan->spec->name, &call);
    job->packs_left = job->memory - job->memory / BLOCKS_PART;
    int rc = make_slots(job, error);
    struct xv_pipeline *pipeline = NULL;
    if (rc == 0 && plan->spec->type == XV_JOB_BACKUP)
        rc = xv_pipeline_new(job->threads, job->memory / BLOCKS_PART,
                             chunk > BLOCK_LEAST ? chunk : BLOCK_LEAST, &job->bytes_done, &pipeline,
                             error);
    pthread_mutex_lock(&job->lock);
    job->pipeline = pipeline;
    if (pipeline != NULL)
        xv_pipeline_pause(pipeline, job->suspended);
    pthread_mutex_unlock(&job->lock);
    if (rc == 0)
        rc = xv_runs_drive(job, error);
    return rc;
}

/* A VM that neither succeeded nor was stopped on request. */
static bool has_failed(const struct xv_job *job, const struct xv_vm_run *run)
{
    if (run->state == XV_RUN_SUCCEEDED)
        return false;
    if (run->state == XV_RUN_PARKED)
        return false;
    bool asked = atomic_load(&job->cancel_level) != 0;
    return !asked || run->state == XV_RUN_FAILED || run->state == XV_RUN_REFUSED;
}

/* The job's state from those of its VMs; sets its error. Takes error over. */
static int32_t judge(struct xv_job *job, int rc, xvsa_error *error)
{
    size_t done = 0;
    size_t failed = 0;
    size_t parked = 0;
    const struct xv_vm_run *first = NULL;
    for (size_t i = 0; i < job->vm_count; i++) {
        done += job->vms[i].state == XV_RUN_SUCCEEDED;
        parked += job->vms[i].state == XV_RUN_PARKED;
        if (has_failed(job, &job->vms[i])) {
            failed++;
            first = first == NULL ? &job->vms[i] : first;
        }
    }
    job->error = error;
    if (rc != 0)
        return rc == XVSA_ERR_CANCELLED ? XVSA_JOB_CANCELLED : XVSA_JOB_FAILED;
    if (parked > 0) {
        xv_fail(&job->error, XVSA_ERR_CANCELLED, "job", "job %s was parked at a checkpoint",
                job->id);
        return XVSA_JOB_PARKED;
    }
    if (done + failed < job->vm_count) {
        xv_fail(&job->error, XVSA_ERR_CANCELLED, "job", "job %s %s: %zu of %zu VMs were done",
                job->id, atomic_load(&job->timed_out) ? "reached its time limit" : "was cancelled",
                done, job->vm_count);
        return XVSA_JOB_CANCELLED;
    }
    if (failed == 0)
        return XVSA_JOB_SUCCEEDED;
    if (done > 0) {
        xv_fail(&job->error, XVSA_ERR_PARTIAL, "job", "%zu of %zu VMs failed; the first: %s",
                failed, job->vm_count, xvsa_error_message(first->error));
        return XVSA_JOB_PARTIAL;
    }
    job->error = xvsa_error_ref(first->error);
    if (failed > 1)
        xv_error_wrap(&job->error, xvsa_error_code(job->error), "job",
                      "all %zu VMs failed, \"%s\" (%s) first", failed, first->plan->name,
                      first->plan->uuid);
    return XVSA_JOB_FAILED;
}

/* Writes the end down; a state file that fails loses the record, not the work. */
static void note_end(struct xv_job *job, int32_t state, const char *report)
{
    xvsa_error *error = NULL;
    if (job->task != NULL)
        return;
    if (xv_coord_job_end(xv_engine_coord(job->engine), job->id, xv_job_state_name(state), report,
                         job->ended_ms, &error) != 0)
        xv_log(xv_engine_env(job->engine), XVSA_LOG_WARNING, "job", "%s",
               xvsa_error_message(error));
    xvsa_error_unref(error);
}

static void end(struct xv_job *job, int rc, xvsa_error *error)
{
    pthread_mutex_lock(&job->lock);
    int32_t state = judge(job, rc, error);
    job->ended_ms = xv_wall_ms();
    job->ended_clock_ms = xv_clock_ms();
    json_t *document = xv_report_to_json(job, state);
    pthread_mutex_unlock(&job->lock);
    char *report = document == NULL ? NULL : json_dumps(document, JSON_COMPACT);
    json_decref(document);
    note_end(job, state, report);

    /* Whoever waits may release pool, repository and context right after: let go of them first. */
    struct xv_plan *plan = job->plan;
    pthread_mutex_lock(&job->lock);
    xv_runs_free(job);
    job->plan = NULL;
    job->report = report;
    pthread_mutex_unlock(&job->lock);
    xv_plan_unref(plan);
    xv_events_add_last(job->events, "finished",
                       json_pack("{s:s, s:s, s:o}", "job", job->id, "state",
                                 xv_job_state_name(state), "error", xv_json_error(job->error)));
    pthread_mutex_lock(&job->lock);
    job->state = state;
    job->suspended = false;
    pthread_cond_broadcast(&job->changed);
    pthread_mutex_unlock(&job->lock);
}

static void *run(void *argument)
{
    struct xv_job *job = argument;
    pthread_setname_np(pthread_self(), "xvsa-job");
    job->share = xv_engine_take(job->engine);
    job->threads = job->share.threads == 0 ? 1 : job->share.threads;
    job->memory = job->share.memory < MEMORY_LEAST ? MEMORY_LEAST : job->share.memory;
    xv_events_add(
        job->events, "started",
        json_pack("{s:s, s:s}", "job", job->id, "type", xv_job_type_name(job->plan->spec->type)));
    xvsa_error *error = NULL;
    int rc =
        job->plan->spec->type == XV_JOB_VERIFY ? xv_verify_run(job, &error) : run_vms(job, &error);
    pthread_mutex_lock(&job->lock);
    struct xv_pipeline *pipeline = job->pipeline;
    if (pipeline != NULL)
        xv_pipeline_shares(pipeline, &job->shares);
    job->pipeline = NULL;
    pthread_mutex_unlock(&job->lock);
    xv_pipeline_free(pipeline);
    xv_slots_free(job->slots);
    xv_engine_give_back(job->engine, job->share);
    end(job, rc, error);
    xv_job_unref(job);
    return NULL;
}

/* Fails when the plan leaves nothing to do. */
static int check_plan(const struct xv_plan *plan, xvsa_error **error)
{
    if (plan->spec->type == XV_JOB_VERIFY)
        return 0;
    for (size_t i = 0; i < plan->vm_count; i++) {
        if (plan->vms[i].refusal == NULL)
            return 0;
    }
    if (plan->vm_count == 0)
        return xv_fail(error, XVSA_ERR_REFUSED, "job", "the selection names no VM");
    if (error != NULL)
        *error = xvsa_error_ref(plan->vms[0].refusal);
    if (plan->vm_count == 1)
        return XVSA_ERR_REFUSED;
    return xv_error_wrap(error, XVSA_ERR_REFUSED, "job", "all %zu VMs are refused, \"%s\" first",
                         plan->vm_count, plan->vms[0].name);
}

static int start(struct xv_plan *plan, const struct xv_task *task, struct xv_job **ret,
                 xvsa_error **error)
{
    int rc = check_plan(plan, error);
    if (rc != 0)
        return rc;
    if (atomic_exchange(&plan->started, true))
        return xv_fail(error, XVSA_ERR_STATE, "job",
                       "the plan was started before; make another one");
    struct xv_job *job = NULL;
    rc = make_job(plan, task, &job, error);
    if (rc == 0)
        rc = enter_state(job, error);
    if (rc == 0) {
        rc = xv_thread_start("xvsa-job", true, run, xv_job_ref(job), NULL, error);
        if (rc != 0)
            note_end(job, XVSA_JOB_FAILED, NULL);
    }
    if (rc != 0) {
        atomic_store(&plan->started, false);
        if (job != NULL)
            destroy(job);
        return rc;
    }
    *ret = job;
    return 0;
}

int xv_job_start(struct xv_plan *plan, struct xv_job **ret, xvsa_error **error)
{
    return start(plan, NULL, ret, error);
}

int xv_job_start_task(struct xv_plan *plan, const struct xv_task *task, struct xv_job **ret,
                      xvsa_error **error)
{
    if (plan->spec->type == XV_JOB_VERIFY || plan->vm_count != 1)
        return xv_fail(error, XVSA_ERR_INVALID, "job",
                       "a task is the backup or restore of one VM, the plan has %zu",
                       plan->vm_count);
    return start(plan, task, ret, error);
}

static int64_t estimate(uint64_t done, uint64_t total, int64_t elapsed)
{
    if (done == 0 || elapsed < 1000 || done > total)
        return -1;
    return (int64_t)((double)elapsed * (double)(total - done) / (double)done);
}

void xv_job_progress(struct xv_job *job, xvsa_progress *ret)
{
    pthread_mutex_lock(&job->lock);
    int32_t state = xv_job_present_state(job);
    int64_t now = job->ended_clock_ms != 0 ? job->ended_clock_ms : xv_clock_ms();
    pthread_mutex_unlock(&job->lock);
    uint64_t total = atomic_load(&job->bytes_total);
    uint64_t done = atomic_load(&job->bytes_done);
    *ret = (xvsa_progress){
        .size = sizeof *ret,
        .state = state,
        .vms_done = atomic_load(&job->vms_done),
        .vms_total = job->vms_total,
        .bytes_done = done > total ? total : done,
        .bytes_total = total,
        .bytes_read = atomic_load(&job->bytes_read),
        .bytes_stored = atomic_load(&job->bytes_stored),
        .elapsed_ms = now - job->started_clock_ms,
        .remaining_ms =
            state == XVSA_JOB_RUNNING ? estimate(done, total, now - job->started_clock_ms) : 0,
    };
}

int xv_job_event_fd(const struct xv_job *job)
{
    return xv_events_fd(job->events);
}

int xv_job_next_event(struct xv_job *job, int64_t timeout_ms, char **ret, xvsa_error **error)
{
    return xv_events_next(job->events, timeout_ms, ret, error);
}

int xv_job_wait(struct xv_job *job, int64_t timeout_ms, xvsa_error **error)
{
    int64_t until = timeout_ms < 0 ? INT64_MAX : xv_clock_ms() + timeout_ms;
    pthread_mutex_lock(&job->lock);
    while (job->state == XVSA_JOB_RUNNING) {
        int64_t left = until - xv_clock_ms();
        if (left <= 0)
            break;
        xv_condition_wait(&job->changed, &job->lock, left > 60000 ? 60000 : left);
    }
    int32_t state = job->state;
    pthread_mutex_unlock(&job->lock);
    if (state == XVSA_JOB_RUNNING)
        return xv_fail(error, XVSA_ERR_TIMEOUT, "job", "job %s is still running", job->id);
    if (state == XVSA_JOB_SUCCEEDED)
        return 0;
    if (error != NULL)
        *error = xvsa_error_ref(job->error);
    return state == XVSA_JOB_PARTIAL     ? XVSA_ERR_PARTIAL
           : state == XVSA_JOB_CANCELLED ? XVSA_ERR_CANCELLED
                                         : xvsa_error_code(job->error);
}

int xv_job_report(struct xv_job *job, char **ret, xvsa_error **error)
{
    pthread_mutex_lock(&job->lock);
    char *text = job->report == NULL ? NULL : strdup(job->report);
    json_t *document = job->report == NULL && job->plan != NULL
                           ? xv_report_to_json(job, xv_job_present_state(job))
                           : NULL;
    pthread_mutex_unlock(&job->lock);
    if (text == NULL)
        return xv_json_print(document, ret, error);
    *ret = text;
    return 0;
}
