/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Backup of one VM, step by step.
 */
#include "job/backup.h"

#include <stdlib.h>
#include <string.h>

#include "job/metadata.h"

#define CHECKPOINT_MS 10000

static int begin_session(struct xv_backup *backup, const struct xv_call *call, xvsa_error **error)
{
    struct xv_vm_run *run = backup->run;
    const struct xv_plan *plan = run->job->plan;
    char key[128];
    snprintf(key, sizeof key, "%s/%s", plan->inventory->pool_uuid, run->plan->uuid);
    const struct xv_session_options options = {.job_key = key, .base = run->plan->base};
    int rc = xv_session_begin(plan->repo, &options, call, &backup->session, error);
    if (rc == 0 && run->plan->base != NULL && xv_session_base(backup->session) == NULL)
        rc = xv_run_reason(run, NULL, error, XV_REASON_BASE_POINT_GONE, "%s",
                           xv_point_id(run->plan->base));
    if (rc == 0)
        rc =
            xv_intake_new(run->job->pipeline, backup->session, run->cancel, &backup->intake, error);
    return rc;
}

/* Tracking is switched on before the snapshot, so that the next backup can start from it. */
static int enable_tracking(struct xv_backup *backup, const struct xv_call *call, xvsa_error **error)
{
    struct xv_vm_run *run = backup->run;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < run->disk_count; i++) {
        struct xv_disk_run *disk = &run->disks[i];
        if (disk->plan->skipped || !disk->plan->enable_cbt)
            continue;
        xvsa_error *failure = NULL;
        rc = xv_cbt_enable(backup->client, disk->plan->vdi->ref, call, &failure);
        if (rc == XVSA_ERR_CANCELLED) {
            if (error != NULL)
                *error = xvsa_error_ref(failure);
        } else if (rc != 0) {
            rc = xv_run_reason(run, disk, error, XV_REASON_CBT_ENABLE_FAILED, "%s",
                               xvsa_error_message(failure));
        } else {
            rc = xv_run_reason(run, disk, error, XV_REASON_CBT_ENABLED, NULL);
        }
        xvsa_error_unref(failure);
    }
    return rc;
}

static int block_migration(struct xv_backup *backup, const struct xv_call *call, xvsa_error **error)
{
    if (!backup->run->job->plan->spec->block_migration)
        return 0;
    xvsa_error *failure = NULL;
    backup->migration_blocked = true;
    int rc = xv_migration_block(backup->client, backup->vm_ref, backup->run->tag, call, &failure);
    if (rc != 0 && rc != XVSA_ERR_CANCELLED)
        rc = xv_run_reason(backup->run, NULL, error, XV_REASON_MIGRATION_NOT_BLOCKED, "%s",
                           xvsa_error_message(failure));
    else if (rc != 0 && error != NULL)
        *error = xvsa_error_ref(failure);
    xvsa_error_unref(failure);
    return rc;
}

static const char **list_skipped(const struct xv_vm_run *run, size_t *ret_count)
{
    const char **skip = calloc(run->disk_count + 1, sizeof(const char *));
    for (size_t i = 0; skip != NULL && i < run->disk_count; i++) {
        if (run->disks[i].plan->skipped)
            skip[(*ret_count)++] = run->disks[i].plan->vdi->ref;
    }
    return skip;
}

static int take_snapshot(struct xv_backup *backup, xvsa_error **error)
{
    const struct xv_call whole = xv_run_call(backup->run);
    const struct xv_call limit =
        xv_call_within(&whole, backup->run->job->plan->spec->snapshot_timeout_ms);
    const struct xv_call *call = &limit;
    size_t skip_count = 0;
    const char **skip = list_skipped(backup->run, &skip_count);
    if (skip == NULL)
        return xv_fail_memory(error);
    int rc = xv_snapshot_take(backup->client, backup->vm_ref, backup->run->tag, skip, skip_count,
                              call, &backup->snapshot_ref, error);
    free(skip);
    backup->snapshot_unsure =
        rc == XVSA_ERR_CANCELLED || rc == XVSA_ERR_TIMEOUT || rc == XVSA_ERR_UNKNOWN_OUTCOME;
    struct xv_value *record = NULL;
    if (rc == 0)
        rc = xv_snapshot_disks(backup->client, backup->snapshot_ref, call, &backup->disks,
                               &backup->disk_count, error);
    if (rc == 0)
        rc = xv_record_get(backup->client, "VM", backup->snapshot_ref, call, &record, error);
    if (rc == 0) {
        backup->taken_ms = xv_value_time_ms(xv_value_get(record, "snapshot_time"));
        if (backup->taken_ms <= 0)
            backup->taken_ms = xv_wall_ms();
        xv_value_free(record);
    }
    return rc;
}

static int match_disks(struct xv_backup *backup, xvsa_error **error)
{
    struct xv_vm_run *run = backup->run;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < run->disk_count; i++) {
        struct xv_disk_run *disk = &run->disks[i];
        for (size_t j = 0; j < backup->disk_count && disk->snapshot == NULL; j++) {
            if (strcmp(backup->disks[j].source_uuid, disk->plan->vdi_uuid) == 0)
                disk->snapshot = &backup->disks[j];
        }
        if (disk->snapshot == NULL && !disk->plan->skipped)
            rc = xv_run_reason(run, disk, error, XV_REASON_DISK_NOT_SNAPSHOTTED, NULL);
    }
    return rc;
}

static int prepare(struct xv_backup *backup, xvsa_error **error)
{
    struct xv_vm_run *run = backup->run;
    const struct xv_call limit = xv_run_step_call(run);
    const struct xv_call *call = &limit;
    int rc = xv_record_find(backup->client, "VM", run->plan->uuid, call, &backup->vm_ref, error);
    if (rc == 0)
        rc = begin_session(backup, call, error);
    if (rc == 0)
        rc = enable_tracking(backup, call, error);
    if (rc == 0)
        rc = xv_metadata_gather(run, backup->vm_ref, call, &backup->metadata, error);
    if (rc == 0)
        rc = xv_run_intend(run, "backup", error);
    if (rc == 0)
        rc = block_migration(backup, call, error);
    if (rc == 0)
        rc = take_snapshot(backup, error);
    if (rc == 0)
        rc = match_disks(backup, error);
    return rc;
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

/* Called about every second while the disks move. */
static void tick(void *user)
{
    struct xv_backup *backup = user;
    note_stats(backup->run);
    if (xv_clock_ms() - backup->checkpoint_ms < CHECKPOINT_MS)
        return;
    const struct xv_call call = xv_run_call(backup->run);
    xvsa_error *error = NULL;
    /* A checkpoint only saves work after a crash; a target that fails fails the disks, too. */
    if (xv_session_checkpoint(backup->session, &call, &error) != 0)
        xv_log(xv_engine_env(backup->run->job->engine), XVSA_LOG_WARNING, "job", "checkpoint: %s",
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

static void release(struct xv_backup *backup, bool committed)
{
    struct xv_vm_run *run = backup->run;
    xv_intake_free(backup->intake);
    for (size_t i = 0; i < run->disk_count; i++) {
        if (run->disks[i].writer != NULL)
            xv_disk_writer_free(run->disks[i].writer);
        run->disks[i].writer = NULL;
    }
    if (backup->session != NULL && !committed) {
        const struct xv_call call = xv_run_cleanup_call();
        xvsa_error *error = NULL;
        if (xv_session_abort(backup->session, &call, &error) != 0)
            xv_log(xv_engine_env(run->job->engine), XVSA_LOG_WARNING, "job",
                   "cannot end the session of VM %s: %s", run->plan->uuid,
                   xvsa_error_message(error));
        xvsa_error_unref(error);
    }
    if (backup->session != NULL)
        xv_session_free(backup->session);
    free(backup->vm_ref);
    free(backup->snapshot_ref);
    xv_snapshot_disks_free(backup->disks, backup->disk_count);
    for (size_t i = 0; i < run->disk_count; i++)
        run->disks[i].snapshot = NULL;
    free(backup->metadata);
    run->work = NULL;
}

int xv_backup_vm(struct xv_vm_run *run, xvsa_error **error)
{
    struct xv_backup backup = {
        .run = run,
        .client = xv_pool_client(run->job->plan->pool),
        .checkpoint_ms = xv_clock_ms(),
    };
    const struct xv_call call = xv_run_call(run);
    run->work = &backup;
    int rc = prepare(&backup, error);
    if (rc == 0)
        rc = xv_disks_run(run, xv_backup_disk, tick, &backup, error);
    if (rc == 0)
        rc = commit(&backup, &call, error);
    note_stats(run);
    bool committed = rc == 0;
    xv_backup_clean(&backup, committed);
    release(&backup, committed);
    return rc;
}
