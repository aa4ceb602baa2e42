/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Inside of a task: what a job that several processes share has besides a job's own.
 */
#ifndef XV_JOB_TASK_H
#define XV_JOB_TASK_H

#include "job/passage.h"
#include "job/share.h"
#include "repo/work.h"

#define XV_WORK_ID_LENGTH 32

struct xv_job_task {
    struct xv_task given; /* texts are copies */
    char *texts;
    json_t *facts;        /* given.facts; NULL: none */
    pthread_mutex_t lock; /* guards noted */
    char *noted;          /* the latest facts that were kept; NULL: none by this attempt */
    atomic_bool fenced;   /* another attempt has taken over */
};

int xv_task_new(const struct xv_task *given, struct xv_job_task **ret,
                xvsa_error **error) XV_MUST_CHECK;
void xv_task_free(struct xv_job_task *task);

/* Waits until this process may touch the pool. */
int xv_task_await_pool(struct xv_vm_run *run, const struct xv_call *call,
                       xvsa_error **error) XV_MUST_CHECK;
/* Tells as a reason whose work is gone on with. */
int xv_task_tell_attempt(struct xv_vm_run *run, xvsa_error **error) XV_MUST_CHECK;
/* Notes that another attempt has taken over and stops the VM's work. */
void xv_task_fence(struct xv_vm_run *run, const xvsa_error *error);
bool xv_task_is_fenced(const struct xv_vm_run *run);
/* True when what failed is left as it is for whoever goes on: parked, or a failure that may be gone by the next
 * attempt. */
bool xv_task_leaves(const struct xv_vm_run *run, int rc, const xvsa_error *error);
/* What stopped a fenced task is FENCED, whatever failed first: rc and *error are replaced. */
int xv_task_verdict(const struct xv_vm_run *run, int rc, xvsa_error **error);
/* Keeps facts (consumed) for a successor. The store being out of reach is told as a reason; fails with FENCED,
 * CANCELLED, or when the policy refuses the reason. */
int xv_task_note(struct xv_vm_run *run, json_t *facts, const struct xv_call *call,
                 xvsa_error **error) XV_MUST_CHECK;
/* True when the store confirms that the task is still this process's: only then what it made may be taken away. Fences
 * it when it is not. */
bool xv_task_is_ours(struct xv_vm_run *run);
/* Turns a failure of the store into a reason; FENCED and CANCELLED stay failures. Takes failure over. */
int xv_task_store_failed(struct xv_vm_run *run, int rc, xvsa_error *failure,
                         xvsa_error **error) XV_MUST_CHECK;

/* backup_work.c: begins or goes on with a backup. */
int xv_task_prepare_backup(struct xv_backup *backup, const struct xv_call *call,
                           xvsa_error **error) XV_MUST_CHECK;
/* Reads the map of a disk that the work has; false when there is none that can be used. */
int xv_task_recall_map(struct xv_passage *passage, bool *ret_known,
                       xvsa_error **error) XV_MUST_CHECK;
int xv_task_put_map(struct xv_passage *passage, xvsa_error **error) XV_MUST_CHECK;

/* Connections that the disk of a task may open: waits for *connections of them, or fewer. At once for jobs of one
 * process. */
int xv_task_connect(const struct xv_disk_run *disk, uint32_t *connections,
                    const struct xv_call *call, xvsa_error **error) XV_MUST_CHECK;
void xv_task_disconnect(const struct xv_disk_run *disk, uint32_t connections);
/* The disk's turn at an SR, when it has no units. */
int xv_task_enter(const struct xv_disk_run *disk, const struct xv_call *call,
                  xvsa_error **error) XV_MUST_CHECK;
void xv_task_leave(const struct xv_disk_run *disk);

/* Completes the report of a disk: who moved what, and why things went as they did. */
void xv_task_account(struct xv_passage *passage, uint64_t bytes, uint32_t units);
/* Bytes of a unit of a disk of which so much is to be read. */
uint64_t xv_task_unit_bytes(const struct xv_job_task *task, uint64_t bytes);

#endif
