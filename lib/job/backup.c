/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Backup of one VM, step by step.
 */
#include "job/backup.h"

#include <stdlib.h>
#include <string.h>

#include "job/metadata.h"
#include "job/task.h"

#define CHECKPOINT_MS 5000

int xv_backup_begin(struct xv_backup *backup, const struct xv_call *call, xvsa_error **error)
{
    struct xv_vm_run *run = backup->run;
    const struct xv_plan *plan = run->job->plan;
    char key[128];
    snprintf(key, sizeof key, "%s/%s", plan->inventory->pool_uuid, run->plan->uuid);
    const struct xv_job_task *task = run->job->task;
    const struct xv_session_options options = {
        .job_key = key,
        .base = backup->base,
        .token = task == NULL ? 0 : task->given.token,
        .work_id = task == NULL ? NULL : backup->work_id,
    };
    int rc = xv_session_begin(plan->repo, &options, call, &backup->session, error);
    if (rc == 0 && backup->base != NULL && xv_session_base(backup->session) == NULL)
        rc = xv_run_reason(run, NULL, error, XV_REASON_BASE_POINT_GONE, "%s",
                           xv_point_id(backup->base));
    if (rc == 0)
        rc =
            xv_intake_new(run->job->pipeline, backup->session, run->cancel, &backup->intake, error);
    return rc;
}

static int prepare(struct xv_backup *backup, const struct xv_call *call, xvsa_error **error)
{
    struct xv_vm_run *run = backup->run;
    int rc = xv_backup_begin(backup, call, error);
    if (rc == 0)
        rc = xv_backup_enable_tracking(backup, call, error);
    if (rc == 0)
        rc = xv_metadata_gather(run, backup->vm_ref, call, &backup->metadata, error);
    if (rc == 0)
        rc = xv_run_intend(run, "backup", error);
    backup->touched = rc == 0;
    if (rc == 0)
        rc = xv_backup_block_migration(backup, call, error);
    if (rc == 0)
        rc = xv_backup_take_snapshot(backup, error);
    if (rc == 0)
        rc = xv_backup_read_snapshot(backup, call, error);
    return rc;
}

static int prepare_any(struct xv_backup *backup, xvsa_error **error)
{
    const struct xv_call call = xv_run_step_call(backup->run);
    int rc = xv_record_find(backup->client, "VM", backup->run->plan->uuid, &call, &backup->vm_ref,
                            error);
    if (rc != 0)
        return rc;
    return backup->run->job->task != NULL ? xv_task_prepare_backup(backup, &call, error)
                                          : prepare(backup, &call, error);
}

/* Brings the figures of the report up to date. */
static void note_stats(struct xv_vm_run *run)
{
    struct xv_job *job = run->job;
    pthread_mutex_lock(&job->lock);
    for (size_t i = 0; i < run->disk_count; i++) {
        struct xv_disk_run *disk = &run->disks[i];
        struct xv_store_stats before = disk->stats;
        if (disk->writer == NULL)
            continue;
        xv_disk_writer_stats(disk->writer, &disk->stats);
        atomic_fetch_add(&job->bytes_read, disk->stats.bytes_read - before.bytes_read);
        atomic_fetch_add(&job->bytes_stored, disk->stats.bytes_stored - before.bytes_stored);
    }
    pthread_mutex_unlock(&job->lock);
}

int xv_backup_checkpoint(struct xv_backup *backup, const struct xv_call *call, xvsa_error **error)
{
    uint64_t number = atomic_fetch_add(&backup->checkpoints_begun, 1) + 1;
    int rc = xv_intake_flush(backup->intake, call, error);
    if (rc == 0)
        rc = xv_session_checkpoint(backup->session, call, error);
    if (rc == XVSA_ERR_FENCED)
        xv_task_fence(backup->run, error == NULL ? NULL : *error);
    uint64_t done = atomic_load(&backup->checkpoints_done);
    while (rc == 0 && done < number &&
           !atomic_compare_exchange_weak(&backup->checkpoints_done, &done, number))
        continue;
    return rc;
}

/* Called about every second while the disks move. */
static void tick(void *user)
{
    struct xv_backup *backup = user;
    const struct xv_job_task *task = backup->run->job->task;
    note_stats(backup->run);
    if (xv_clock_ms() - backup->checkpoint_ms <
        (task == NULL ? CHECKPOINT_MS : task->given.checkpoint_ms))
        return;
    const struct xv_call call = xv_run_call(backup->run);
    xvsa_error *error = NULL;
    /* A checkpoint only saves work after a crash; a target that fails fails the disks, too. Who cancelled
     * knows that it did, and a fence of a task was told. */
    int rc = xv_backup_checkpoint(backup, &call, &error);
    bool expected = rc == XVSA_ERR_CANCELLED || (rc == XVSA_ERR_FENCED && task != NULL);
    if (rc != 0)
        xv_log(xv_engine_env(backup->run->job->engine),
               expected ? XVSA_LOG_DEBUG : XVSA_LOG_WARNING, "job", "checkpoint: %s",
               xvsa_error_message(error));
    xvsa_error_unref(error);
    backup->checkpoint_ms = xv_clock_ms();
}

static int finish_disk(struct xv_disk_run *disk, const struct xv_call *call, xvsa_error **error)
{
    char *metadata = NULL;
    int rc = xv_base_describe(disk->plan, disk->snapshot->vdi_uuid, disk->snapshot->cbt_enabled,
                              &metadata, error);
    if (rc == 0)
        rc = xv_disk_writer_finish(disk->writer, metadata, call, error);
    free(metadata);
    return rc;
}

static int commit(struct xv_backup *backup, const struct xv_call *call, xvsa_error **error)
{
    struct xv_vm_run *run = backup->run;
    int rc = xv_intake_flush(backup->intake, call, error);
    for (size_t i = 0; rc == 0 && i < run->disk_count; i++) {
        if (!run->disks[i].plan->skipped)
            rc = finish_disk(&run->disks[i], call, error);
    }
    if (rc != 0)
        return rc;
    const struct xv_point_facts facts = {
        .vm_uuid = run->plan->uuid,
        .vm_name = run->plan->name,
        .pool_uuid = run->job->plan->inventory->pool_uuid,
        .job_id = run->job->id,
        .taken_ms = backup->taken_ms,
        .metadata = backup->metadata,
    };
    char id[XV_POINT_ID_LENGTH + 1] = "";
    rc = xv_session_commit(backup->session, &facts, call, id, error);
    if (rc == 0) {
        pthread_mutex_lock(&run->job->lock);
        memcpy(run->point_id, id, sizeof id);
        pthread_mutex_unlock(&run->job->lock);
    }
    return rc;
}

/* A session that did not commit: left to be gone on with, or ended for good. */
static void end_session(struct xv_backup *backup, bool keep)
{
    struct xv_vm_run *run = backup->run;
    const struct xv_call call = xv_run_cleanup_call();
    xvsa_error *error = NULL;
    int rc = 0;
    if (keep)
        rc = xv_intake_flush(backup->intake, &call, &error);
    if (rc == 0)
        rc = keep ? xv_session_park(backup->session, &call, &error)
                  : xv_session_abort(backup->session, &call, &error);
    if (rc == XVSA_ERR_FENCED)
        xv_task_fence(run, error);
    else if (rc != 0)
        xv_log(xv_engine_env(run->job->engine), XVSA_LOG_WARNING, "job",
               "cannot end the session of VM %s: %s", run->plan->uuid, xvsa_error_message(error));
    xvsa_error_unref(error);
}

static void release(struct xv_backup *backup)
{
    struct xv_vm_run *run = backup->run;
    xv_intake_free(backup->intake);
    for (size_t i = 0; i < run->disk_count; i++) {
        if (run->disks[i].writer != NULL)
            xv_disk_writer_free(run->disks[i].writer);
        run->disks[i].writer = NULL;
    }
    if (backup->session != NULL)
        xv_session_free(backup->session);
    free(backup->vm_ref);
    free(backup->snapshot_ref);
    xv_snapshot_disks_free(backup->disks, backup->disk_count);
    for (size_t i = 0; i < run->disk_count; i++)
        run->disks[i].snapshot = NULL;
    xv_point_unref(backup->base);
    free(backup->metadata);
    run->work = NULL;
}

static void clean(struct xv_backup *backup)
{
    const struct xv_call call = xv_run_cleanup_call();
    xvsa_error *error = NULL;
    if (!backup->touched)
        return;
    if (xv_task_await_pool(backup->run, &call, &error) == 0)
        xv_backup_clean(backup, backup->committed);
    else
        xv_run_note(backup->run, NULL, XV_REASON_CLEANUP_PENDING, "%s", xvsa_error_message(error));
    xvsa_error_unref(error);
}

/* Ends what was begun, in the way that the outcome asks for. */
static void conclude(struct xv_backup *backup, int rc, const xvsa_error *error)
{
    struct xv_vm_run *run = backup->run;
    if (rc == XVSA_ERR_FENCED)
        xv_task_fence(run, error);
    bool keep = rc != 0 && xv_task_leaves(run, rc, error);
    bool ours = rc == 0 || keep || xv_task_is_fenced(run) || xv_task_is_ours(run);
    bool fenced = xv_task_is_fenced(run);
    /* One that committed has ended; one of an attempt that found its work committed has not. */
    if (backup->session != NULL && !fenced)
        end_session(backup, keep);
    if (!fenced && !keep && ours)
        clean(backup);
    release(backup);
}

static int move_and_commit(struct xv_backup *backup, xvsa_error **error)
{
    const struct xv_call call = xv_run_call(backup->run);
    int rc = xv_disks_run(backup->run, xv_backup_disk, tick, backup, error);
    if (rc == 0)
        rc = commit(backup, &call, error);
    note_stats(backup->run);
    backup->committed = rc == 0;
    return rc;
}

int xv_backup_vm(struct xv_vm_run *run, xvsa_error **error)
{
    struct xv_backup backup = {
        .run = run,
        .client = xv_pool_client(run->job->plan->pool),
        .checkpoint_ms = xv_clock_ms(),
        .base = run->plan->base == NULL ? NULL : xv_point_ref(run->plan->base),
    };
    xvsa_error *failure = NULL;
    run->work = &backup;
    int rc = prepare_any(&backup, &failure);
    if (rc == 0 && !backup.committed)
        rc = move_and_commit(&backup, &failure);
    conclude(&backup, rc, failure);
    rc = xv_task_verdict(run, rc, &failure);
    if (rc != 0 && error != NULL)
        *error = failure;
    else
        xvsa_error_unref(failure);
    return rc;
}
