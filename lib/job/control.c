/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Stopping, parking, suspending and resuming a job, and its time limit.
 */
#include "base/thread.h"
#include "job/task.h"

/* How soon a suspended thread notices that its token fired. */
#define SUSPENDED_MS 200

int32_t xv_job_present_state(const struct xv_job *job)
{
    return job->state == XVSA_JOB_RUNNING && job->suspended ? XVSA_JOB_SUSPENDED : job->state;
}

/* Whoever is suspended goes on, without an event. The caller holds the lock. */
static void wake(struct xv_job *job)
{
    job->suspended = false;
    if (job->pipeline != NULL)
        xv_pipeline_pause(job->pipeline, false);
    pthread_cond_broadcast(&job->changed);
}

static void fire_all(struct xv_job *job)
{
    pthread_mutex_lock(&job->lock);
    xvsa_cancel_fire(job->cancel);
    for (size_t i = 0; i < job->vm_count; i++)
        xvsa_cancel_fire(job->vms[i].cancel);
    wake(job);
    pthread_mutex_unlock(&job->lock);
}

void xv_job_park(struct xv_job *job)
{
    if (job->task == NULL)
        return;
    atomic_store(&job->parking, true);
    fire_all(job);
}

void xv_job_cancel(struct xv_job *job, int32_t level)
{
    int before = atomic_load(&job->cancel_level);
    while (before < level && !atomic_compare_exchange_weak(&job->cancel_level, &before, level))
        continue;
    if (level == XVSA_CANCEL_NOW) {
        fire_all(job);
        return;
    }
    /* The VMs under way are to be finished. */
    pthread_mutex_lock(&job->lock);
    wake(job);
    pthread_mutex_unlock(&job->lock);
}

static int change(struct xv_job *job, bool suspended, xvsa_error **error)
{
    pthread_mutex_lock(&job->lock);
    bool over = job->state != XVSA_JOB_RUNNING || atomic_load(&job->cancel_level) != 0;
    bool same = job->suspended == suspended;
    if (!over && !same && suspended) {
        job->suspended = true;
        if (job->pipeline != NULL)
            xv_pipeline_pause(job->pipeline, true);
        pthread_cond_broadcast(&job->changed);
    } else if (!over && !same) {
        wake(job);
    }
    pthread_mutex_unlock(&job->lock);
    if (over)
        return xv_fail(error, XVSA_ERR_STATE, "job", "job %s has ended or is being cancelled",
                       job->id);
    if (!same)
        xv_events_add(job->events, suspended ? "suspended" : "resumed",
                      json_pack("{s:s}", "job", job->id));
    return 0;
}

int xv_job_suspend(struct xv_job *job, xvsa_error **error)
{
    return change(job, true, error);
}

int xv_job_resume(struct xv_job *job, xvsa_error **error)
{
    return change(job, false, error);
}

int xv_job_await_resume(struct xv_job *job, const struct xv_call *call, xvsa_error **error)
{
    int rc = 0;
    pthread_mutex_lock(&job->lock);
    while (rc == 0 && job->suspended) {
        xv_condition_wait(&job->changed, &job->lock, SUSPENDED_MS);
        rc = xv_call_check(call, "job", "waiting for the job to be resumed", error);
    }
    pthread_mutex_unlock(&job->lock);
    return rc;
}

/* The limit of a task is its site's. */
void xv_job_check_time(struct xv_job *job)
{
    int64_t limit = job->plan->spec->time_limit_ms;
    if (limit == 0 || job->task != NULL || xv_clock_ms() - job->started_clock_ms < limit ||
        atomic_exchange(&job->timed_out, true))
        return;
    for (size_t i = 0; i < job->vm_count; i++) {
        struct xv_vm_run *run = &job->vms[i];
        pthread_mutex_lock(&job->lock);
        bool open = run->state == XV_RUN_WAITING || run->state == XV_RUN_RUNNING;
        pthread_mutex_unlock(&job->lock);
        if (open)
            xv_run_note(run, NULL, XV_REASON_TIME_LIMIT, "%lld ms", (long long)limit);
    }
    xv_job_cancel(job, XVSA_CANCEL_NOW);
}
