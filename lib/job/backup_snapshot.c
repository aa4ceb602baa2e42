/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a backup does in the pool before data move.
 */
#include <stdlib.h>
#include <string.h>

#include "job/backup.h"
#include "job/transport.h"

/* Tracking is switched on before the snapshot, so that the next backup can start from it. */
int xv_backup_enable_tracking(struct xv_backup *backup, const struct xv_call *call,
                              xvsa_error **error)
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

int xv_backup_block_migration(struct xv_backup *backup, const struct xv_call *call,
                              xvsa_error **error)
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

/* What the snapshot leaves out: disks that are skipped, and those that the VM, a proxy's, has attached for
 * other backups. */
struct skipped {
    const char **refs;
    size_t count;
    char **borrowed;
    size_t borrowed_count;
};

static void free_skipped(struct skipped *skipped)
{
    for (size_t i = 0; i < skipped->borrowed_count; i++)
        free(skipped->borrowed[i]);
    free(skipped->borrowed);
    free(skipped->refs);
}

static int list_skipped(const struct xv_backup *backup, const struct xv_call *call,
                        struct skipped *ret, xvsa_error **error)
{
    const struct xv_vm_run *run = backup->run;
    int rc = 0;
    if (xv_transport_is_proxy(run->job->plan, run->plan->uuid))
        rc = xv_hotadd_list(backup->client, backup->vm_ref, call, &ret->borrowed,
                            &ret->borrowed_count, error);
    if (rc != 0)
        return rc;
    ret->refs = calloc(run->disk_count + ret->borrowed_count + 1, sizeof *ret->refs);
    if (ret->refs == NULL)
        return xv_fail_memory(error);
    for (size_t i = 0; i < run->disk_count; i++) {
        if (run->disks[i].plan->skipped)
            ret->refs[ret->count++] = run->disks[i].plan->vdi->ref;
    }
    for (size_t i = 0; i < ret->borrowed_count; i++)
        ret->refs[ret->count++] = ret->borrowed[i];
    return 0;
}

int xv_backup_take_snapshot(struct xv_backup *backup, xvsa_error **error)
{
    const struct xv_call whole = xv_run_call(backup->run);
    const struct xv_call call =
        xv_call_within(&whole, backup->run->job->plan->spec->snapshot_timeout_ms);
    struct skipped skipped = {0};
    int rc = list_skipped(backup, &call, &skipped, error);
    if (rc == 0) {
        rc = xv_snapshot_take(backup->client, backup->vm_ref, backup->run->tag, skipped.refs,
                              skipped.count, &call, &backup->snapshot_ref, error);
        backup->snapshot_unsure =
            rc == XVSA_ERR_CANCELLED || rc == XVSA_ERR_TIMEOUT || rc == XVSA_ERR_UNKNOWN_OUTCOME;
    }
    free_skipped(&skipped);
    return rc;
}

int xv_backup_find_snapshot(struct xv_backup *backup, const struct xv_call *call,
                            xvsa_error **error)
{
    struct skipped skipped = {0};
    int rc = list_skipped(backup, call, &skipped, error);
    if (rc == 0)
        rc = xv_snapshot_find(backup->client, backup->vm_ref, backup->run->tag, skipped.refs,
                              skipped.count, call, &backup->snapshot_ref, error);
    free_skipped(&skipped);
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

int xv_backup_read_snapshot(struct xv_backup *backup, const struct xv_call *call,
                            xvsa_error **error)
{
    struct xv_value *record = NULL;
    int rc = xv_snapshot_disks(backup->client, backup->snapshot_ref, call, &backup->disks,
                               &backup->disk_count, error);
    if (rc == 0)
        rc = xv_record_get(backup->client, "VM", backup->snapshot_ref, call, &record, error);
    if (rc != 0)
        return rc;
    backup->taken_ms = xv_value_time_ms(xv_value_get(record, "snapshot_time"));
    if (backup->taken_ms <= 0)
        backup->taken_ms = xv_wall_ms();
    const char *uuid = xv_value_get_string(record, "uuid", "");
    snprintf(backup->snapshot_uuid, sizeof backup->snapshot_uuid, "%s", uuid);
    xv_value_free(record);
    return match_disks(backup, error);
}
