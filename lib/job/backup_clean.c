/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * After a backup of a VM, whichever way it ended: nothing of it stays in the pool but, for the point
 * that was committed, what changed block tracking needs of the snapshots.
 */
#include <stdlib.h>
#include <string.h>

#include "job/backup.h"
#include "job/task.h"

/* Goes on after failures; the first one is told. */
struct cleaning {
    struct xv_backup *backup;
    struct xv_call call;
    char tag[XV_BASE_TAG_MAX];
    bool clean;
};

static void check(struct cleaning *cleaning, int rc, xvsa_error *error)
{
    if (rc != 0) {
        cleaning->clean = false;
        xv_run_note(cleaning->backup->run, NULL, XV_REASON_CLEANUP_PENDING, "%s",
                    xvsa_error_message(error));
    }
    xvsa_error_unref(error);
}

static bool keeps_tracking(const struct xv_disk_run *disk)
{
    return !disk->plan->skipped && disk->snapshot != NULL && disk->snapshot->cbt_enabled;
}

static void remove_snapshot(struct cleaning *cleaning, bool committed)
{
    struct xv_backup *backup = cleaning->backup;
    const struct xv_vm_run *run = backup->run;
    const char **keep = calloc(run->disk_count + 1, sizeof(const char *));
    size_t count = 0;
    for (size_t i = 0; keep != NULL && committed && i < run->disk_count; i++) {
        if (keeps_tracking(&run->disks[i]))
            keep[count++] = run->disks[i].snapshot->vdi_ref;
    }
    xvsa_error *error = NULL;
    int rc = xv_snapshot_destroy(backup->client, backup->snapshot_ref, keep, count, &cleaning->call,
                                 &error);
    check(cleaning, rc, error);
    free(keep);
}

/* The new snapshot's data go, what it tracked stays, and belongs to the point from here on. */
static void reduce(struct cleaning *cleaning, struct xv_disk_run *disk)
{
    struct xv_backup *backup = cleaning->backup;
    const char *ref = disk->snapshot->vdi_ref;
    xvsa_error *error = NULL;
    int rc = xv_cbt_reduce(backup->client, ref, &cleaning->call, &error);
    if (rc == 0) {
        rc = xv_record_set_tag(backup->client, "VDI", ref, XV_TAG_KEY, cleaning->tag,
                               &cleaning->call, &error);
        check(cleaning, rc, error);
        return;
    }
    xvsa_error *ignored = NULL;
    if (xv_vdi_destroy(backup->client, ref, &cleaning->call, &ignored) == 0)
        xv_run_note(backup->run, disk, XV_REASON_CBT_BASE_NOT_KEPT, "%s",
                    xvsa_error_message(error));
    else
        check(cleaning, rc, xvsa_error_ref(error));
    xvsa_error_unref(ignored);
    xvsa_error_unref(error);
}

static bool is_new(const struct xv_vm_run *run, const char *vdi_uuid)
{
    for (size_t i = 0; i < run->disk_count; i++) {
        const struct xv_snapshot_disk *snapshot = run->disks[i].snapshot;
        if (snapshot != NULL && strcmp(snapshot->vdi_uuid, vdi_uuid) == 0)
            return true;
    }
    return false;
}

/* True for what the previous point was tracked from: by its tag, or, when a crash came between taking
 * one tag off and putting the other on, by what the point says. */
static bool is_old_base(const struct cleaning *cleaning, const struct xv_vdi *vdi)
{
    const struct xv_vm_run *run = cleaning->backup->run;
    if (vdi->tag != NULL)
        return strcmp(vdi->tag, cleaning->tag) == 0;
    for (size_t i = 0; i < run->disk_count; i++) {
        const char *base = run->disks[i].plan->base_snapshot;
        if (base != NULL && strcmp(base, vdi->uuid) == 0 && strcmp(vdi->type, "cbt_metadata") == 0)
            return true;
    }
    return false;
}

static void remove_old_bases(struct cleaning *cleaning)
{
    struct xv_backup *backup = cleaning->backup;
    const struct xv_inventory *inventory = backup->run->job->plan->inventory;
    for (size_t i = 0; i < inventory->vdi_count; i++) {
        const struct xv_vdi *vdi = &inventory->vdis[i];
        if (!vdi->is_snapshot || !is_old_base(cleaning, vdi) || is_new(backup->run, vdi->uuid))
            continue;
        xvsa_error *error = NULL;
        int rc = xv_vdi_destroy(backup->client, vdi->ref, &cleaning->call, &error);
        check(cleaning, rc, error);
    }
}

static void unblock_migration(struct cleaning *cleaning)
{
    struct xv_backup *backup = cleaning->backup;
    xvsa_error *error = NULL;
    int rc = xv_migration_unblock(backup->client, backup->vm_ref, backup->run->tag, &cleaning->call,
                                  &error);
    check(cleaning, rc, error);
}

static bool find_tag(void *user, const char *tag)
{
    return strcmp(user, tag) == 0;
}

/* A snapshot whose call failed or was cancelled may exist all the same. */
static void remove_unknown(struct cleaning *cleaning, bool committed)
{
    struct xv_backup *backup = cleaning->backup;
    const struct xv_vm_run *run = backup->run;
    const char **keep = calloc(run->disk_count + 1, sizeof(const char *));
    size_t count = 0;
    for (size_t i = 0; keep != NULL && committed && i < run->disk_count; i++) {
        if (keeps_tracking(&run->disks[i]))
            keep[count++] = run->disks[i].snapshot->vdi_uuid;
    }
    size_t removed = 0;
    size_t left = 0;
    xvsa_error *error = NULL;
    int rc = xv_leftovers_remove(backup->client, find_tag, backup->run->tag, keep, count,
                                 &cleaning->call, &removed, &left, &error);
    free(keep);
    check(cleaning, rc, error);
    if (left > 0)
        cleaning->clean = false;
    if (backup->snapshot_unsure && removed == 0) {
        cleaning->clean = false;
        xv_run_note(backup->run, NULL, XV_REASON_CLEANUP_PENDING,
                    "the pool may still make the snapshot that was given up");
    }
}

/* Attempts that were killed before may have left transfers pending, which keep nobody's disk but stay in the pool. */
static void end_transfers(const struct cleaning *cleaning)
{
    const struct xv_vm_run *run = cleaning->backup->run;
    const struct xv_job_task *task = run->job->task;
    for (size_t i = 0; task != NULL && task->given.attempt > 1 && i < run->disk_count; i++) {
        if (run->disks[i].snapshot != NULL)
            xv_vdi_stop_exports(cleaning->backup->client, run->disks[i].snapshot->vdi_ref,
                                &cleaning->call);
    }
}

void xv_backup_clean(struct xv_backup *backup, bool committed)
{
    struct xv_vm_run *run = backup->run;
    struct cleaning cleaning = {backup, xv_run_cleanup_call(), "", true};
    xv_base_tag(run->job->plan->repo, run->plan->uuid, cleaning.tag);
    end_transfers(&cleaning);
    if (backup->migration_blocked)
        unblock_migration(&cleaning);
    if (backup->snapshot_ref != NULL)
        remove_snapshot(&cleaning, committed);
    else
        remove_unknown(&cleaning, committed);
    for (size_t i = 0; committed && i < run->disk_count; i++) {
        if (keeps_tracking(&run->disks[i]))
            reduce(&cleaning, &run->disks[i]);
    }
    if (committed)
        remove_old_bases(&cleaning);
    if (backup->snapshot_ref != NULL && atomic_load(&backup->attached_left))
        remove_unknown(&cleaning, committed);
    xv_run_settle(run, cleaning.clean);
}

/* The snapshot's disk of a disk, by its mark; nothing when it is gone. */
static int recall_disk(struct xv_backup *backup, struct xv_disk_run *disk, xvsa_error **error)
{
    const struct xv_inventory *inventory = backup->run->job->plan->inventory;
    for (size_t i = 0; i < inventory->vdi_count; i++) {
        const struct xv_vdi *vdi = &inventory->vdis[i];
        if (!vdi->is_snapshot || vdi->tag == NULL || strcmp(vdi->tag, backup->run->tag) != 0 ||
            strcmp(vdi->snapshot_of, disk->plan->vdi->ref) != 0)
            continue;
        struct xv_snapshot_disk *snapshot = &backup->disks[backup->disk_count++];
        *snapshot = (struct xv_snapshot_disk){.vdi_ref = strdup(vdi->ref),
                                              .vdi_uuid = strdup(vdi->uuid),
                                              .size = vdi->size,
                                              .cbt_enabled = vdi->cbt_enabled};
        disk->snapshot = snapshot;
        return snapshot->vdi_ref == NULL || snapshot->vdi_uuid == NULL ? xv_fail_memory(error) : 0;
    }
    return 0;
}

int xv_backup_recall_committed(struct xv_backup *backup, const struct xv_call *call,
                               xvsa_error **error)
{
    struct xv_vm_run *run = backup->run;
    backup->touched = true;
    backup->migration_blocked = run->job->plan->spec->block_migration;
    if (backup->snapshot_ref != NULL)
        return xv_backup_read_snapshot(backup, call, error);
    backup->disks = calloc(run->disk_count + 1, sizeof *backup->disks);
    int rc = backup->disks == NULL ? xv_fail_memory(error) : 0;
    for (size_t i = 0; rc == 0 && i < run->disk_count; i++) {
        if (!run->disks[i].plan->skipped)
            rc = recall_disk(backup, &run->disks[i], error);
    }
    return rc;
}
