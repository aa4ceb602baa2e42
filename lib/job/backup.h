/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Inside of a backup: what the steps of one VM share.
 */
#ifndef XV_JOB_BACKUP_H
#define XV_JOB_BACKUP_H

#include "job/base.h"
#include "job/run.h"
#include "xenapi/operations.h"

struct xv_backup {
    struct xv_vm_run *run;
    struct xv_client *client;
    struct xv_session *session;
    struct xv_intake *intake;
    char *vm_ref;
    char *snapshot_ref; /* NULL: none made */
    bool migration_blocked;
    bool snapshot_unsure; /* asked for, and it may still come to be after we gave up */
    struct xv_snapshot_disk *disks;
    size_t disk_count;
    int64_t taken_ms;
    char *metadata;
    int64_t checkpoint_ms; /* xv_clock_ms of the last one */
};

/* Moves one disk; the body of its thread. */
int xv_backup_disk(struct xv_disk_run *disk, xvsa_error **error) XV_MUST_CHECK;

/* Reads which blocks changed since the base; false, with reasons, when tracking cannot tell. Fails only
 * when the job's policy refuses the reason, or on cancellation. */
int xv_changes_read(struct xv_backup *backup, struct xv_disk_run *disk, const struct xv_call *call,
                    bool *ret_known, struct xv_extents *ret, xvsa_error **error) XV_MUST_CHECK;

/* Takes the snapshot away after the backup: reduces it to what tracking needs when committed. What
 * fails is a reason and stays for the janitor. */
void xv_backup_clean(struct xv_backup *backup, bool committed);

#endif
