/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A verify job: what the repository finds goes into the report.
 */
#include "job/run.h"

/* The report of a repository that is broken everywhere has an end. */
#define FAULTS_MAX 1000u

struct context {
    struct xv_job *job;
    int64_t told_ms;
};

static json_t *fault_to_json(const struct xv_verify_fault *fault)
{
    return json_pack("{s:o, s:o, s:o, s:o}", "object", xv_json_text(fault->object), "point",
                     xv_json_text(fault->point), "disk", xv_json_text(fault->disk), "message",
                     xv_json_text(fault->message));
}

static void note_fault(void *user, const struct xv_verify_fault *fault)
{
    struct xv_job *job = ((struct context *)user)->job;
    json_t *object = fault_to_json(fault);
    pthread_mutex_lock(&job->lock);
    bool room = json_array_size(job->faults) < FAULTS_MAX;
    if (room)
        json_array_append(job->faults, object);
    pthread_mutex_unlock(&job->lock);
    xv_events_add(job->events, "fault", json_pack("{s:s, s:o}", "job", job->id, "fault", object));
}

static void note_progress(void *user, uint64_t bytes_done, uint64_t bytes_total)
{
    struct context *context = user;
    struct xv_job *job = context->job;
    atomic_store(&job->bytes_done, bytes_done);
    atomic_store(&job->bytes_read, bytes_done);
    atomic_store(&job->bytes_total, bytes_total);
    int64_t now = xv_clock_ms();
    if (now - context->told_ms < 500)
        return;
    context->told_ms = now;
    xv_job_tell_progress(job);
    xv_job_check_time(job);
    const struct xv_call call = {.cancel = job->cancel};
    /* A cancellation is noticed by whoever verifies. */
    (void)!xv_job_await_resume(job, &call, NULL);
}

int xv_verify_run(struct xv_job *job, xvsa_error **error)
{
    struct context context = {.job = job};
    const struct xv_spec *spec = job->plan->spec;
    const struct xv_verify_options options = {
        .point = spec->point,
        .quick = spec->quick,
        .fault = note_fault,
        .progress = note_progress,
        .user = &context,
    };
    const struct xv_call call = {.cancel = job->cancel};
    struct xv_verify_result result = {0};
    json_t *faults = json_array();
    if (faults == NULL)
        return xv_fail_memory(error);
    pthread_mutex_lock(&job->lock);
    job->faults = faults;
    pthread_mutex_unlock(&job->lock);
    int rc = xv_repo_verify(job->plan->repo, &options, &call, &result, error);
    json_t *verified = json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:b}", "points", xv_json_count(result.points), "objects",
        xv_json_count(result.objects), "chunks", xv_json_count(result.chunks), "bytes",
        xv_json_count(result.bytes), "faults", xv_json_count(result.faults), "quick", spec->quick);
    pthread_mutex_lock(&job->lock);
    job->verified = verified;
    pthread_mutex_unlock(&job->lock);
    if (rc == 0 && result.faults > 0)
        rc = xv_fail(error, XVSA_ERR_CORRUPT, "job",
                     "verification found %llu faults in repository %s; see the report",
                     (unsigned long long)result.faults, xv_repo_id(job->plan->repo));
    return rc;
}
