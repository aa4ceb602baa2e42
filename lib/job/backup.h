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
    char snapshot_uuid[64];
    bool migration_blocked;
    bool snapshot_unsure; /* asked for, and it may still come to be after we gave up */
    struct xv_snapshot_disk *disks;
    size_t disk_count;
    int64_t taken_ms;
    char *metadata;
    int64_t checkpoint_ms;                                    /* xv_clock_ms of the last one */
    atomic_uint_fast64_t checkpoints_begun, checkpoints_done; /* numbers of the latest */
    bool touched; /* something of this VM may be in the pool */
    bool committed;
    atomic_bool attached_left; /* a disk is still attached to the proxy, or its clone is left */
    /* of a task */
    bool snapshot_spoilt; /* there may be one that cannot be used */
    char work_id[33];
    struct xv_point *base; /* what the session begins with; NULL: none */
};

/* backup.c: begins the session with backup->base and backup->work_id. */
int xv_backup_begin(struct xv_backup *backup, const struct xv_call *call,
                    xvsa_error **error) XV_MUST_CHECK;
/* Makes what went through so far durable. */
int xv_backup_checkpoint(struct xv_backup *backup, const struct xv_call *call,
                         xvsa_error **error) XV_MUST_CHECK;

/* backup_snapshot.c: what is done in the pool before data move. */
int xv_backup_enable_tracking(struct xv_backup *backup, const struct xv_call *call,
                              xvsa_error **error) XV_MUST_CHECK;
int xv_backup_block_migration(struct xv_backup *backup, const struct xv_call *call,
                              xvsa_error **error) XV_MUST_CHECK;
/* Makes the snapshot, or, of a task, takes over the one that an earlier attempt made; NOT_FOUND when there is none. */
int xv_backup_take_snapshot(struct xv_backup *backup, xvsa_error **error) XV_MUST_CHECK;
int xv_backup_find_snapshot(struct xv_backup *backup, const struct xv_call *call,
                            xvsa_error **error) XV_MUST_CHECK;
/* Reads the snapshot's disks and finds those of the plan among them. */
int xv_backup_read_snapshot(struct xv_backup *backup, const struct xv_call *call,
                            xvsa_error **error) XV_MUST_CHECK;

/* Moves one disk; the body of its thread. */
int xv_backup_disk(struct xv_disk_run *disk, xvsa_error **error) XV_MUST_CHECK;

/* Reads which blocks changed since the base; false, with reasons, when tracking cannot tell. Fails only
 * when the job's policy refuses the reason, or on cancellation. */
int xv_changes_read(struct xv_backup *backup, struct xv_disk_run *disk, const struct xv_call *call,
                    bool *ret_known, struct xv_extents *ret, xvsa_error **error) XV_MUST_CHECK;

/* Finds what an attempt that died after its commit left to be cleaned. */
int xv_backup_recall_committed(struct xv_backup *backup, const struct xv_call *call,
                               xvsa_error **error) XV_MUST_CHECK;

/* Takes the snapshot away after the backup: reduces it to what tracking needs when committed. What
 * fails is a reason and stays for the janitor. */
void xv_backup_clean(struct xv_backup *backup, bool committed);

#endif
