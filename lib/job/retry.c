/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Another attempt of a VM within the same job.
 */
#include <stdlib.h>

#include "job/run.h"

static void reset_disk(struct xv_disk_run *disk)
{
    struct xv_job *job = disk->vm->job;
    const struct xv_plan_disk *plan = disk->plan;
    if (disk->state == XV_RUN_SKIPPED)
        return;
    disk->state = XV_RUN_WAITING;
    disk->mode = plan->mode;
    disk->rc = 0;
    xvsa_error_unref(disk->error);
    disk->error = NULL;
    disk->ended = false;
    disk->ended_ms = 0;
    disk->stats = (struct xv_store_stats){0};
    disk->bytes_written = 0;
    json_decref(disk->movers);
    disk->movers = NULL;
    /* What was done of it is done again. */
    atomic_fetch_add(&job->bytes_total,
                     job->plan->spec->type == XV_JOB_RESTORE ? plan->data_bytes : plan->size);
}

/* The caller holds the lock. */
static void reset(struct xv_vm_run *run, xvsa_cancel *cancel)
{
    run->state = XV_RUN_WAITING;
    run->failed = NULL;
    run->point_id[0] = '\0';
    free(run->new_uuid);
    run->new_uuid = NULL;
    xvsa_cancel_unref(run->cancel);
    run->cancel = cancel;
    run->retry_ms = xv_clock_ms() + run->job->plan->spec->retry_delay_ms;
    for (size_t i = 0; i < run->disk_count; i++)
        reset_disk(&run->disks[i]);
}

bool xv_run_retry(struct xv_vm_run *run, int rc, const xvsa_error *error)
{
    struct xv_job *job = run->job;
    const struct xv_spec *spec = job->plan->spec;
    xvsa_cancel *cancel = NULL;
    if (rc == 0 || rc == XVSA_ERR_CANCELLED || job->task != NULL ||
        xvsa_error_is_retryable(error) == 0 || run->attempts >= spec->retry_attempts ||
        xvsa_cancel_new(&cancel, NULL) != 0)
        return false;
    pthread_mutex_lock(&job->lock);
    bool again = atomic_load(&job->cancel_level) == 0;
    unsigned attempts = run->attempts;
    if (again) {
        reset(run, cancel);
        job->packs_left += run->packs;
        job->packs_held -= run->packs;
        pthread_cond_broadcast(&job->changed);
    }
    pthread_mutex_unlock(&job->lock);
    if (!again) {
        xvsa_cancel_unref(cancel);
        return false;
    }
    xv_events_add(job->events, "vm_retry",
                  json_pack("{s:s, s:o, s:i, s:I, s:o}", "job", job->id, "vm",
                            xv_json_named(run->plan->uuid, run->plan->name), "attempt",
                            (int)attempts, "delay_ms", (json_int_t)spec->retry_delay_ms, "error",
                            xv_json_error(error)));
    return true;
}
