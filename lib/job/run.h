/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Inside of a job: what its threads share and what the report tells.
 *
 * job->lock guards the state, error, reasons and figures of all runs and disks; threads change them
 * through the functions below. It is never held while anything that may block is called.
 */
#ifndef XV_JOB_RUN_H
#define XV_JOB_RUN_H

#include <pthread.h>

#include "job/event.h"
#include "job/job.h"
#include "job/slots.h"
#include "job/transfer.h"

#define XV_JOB_ID_LENGTH 32
#define XV_TAG_MAX       128

enum xv_run_state {
    XV_RUN_WAITING,
    XV_RUN_RUNNING,
    XV_RUN_SUCCEEDED,
    XV_RUN_FAILED,
    XV_RUN_CANCELLED,
    XV_RUN_REFUSED, /* by the plan */
    XV_RUN_SKIPPED, /* disks only */
    XV_RUN_PARKED,  /* stopped at a checkpoint */
    XV_RUN_STATES,
};
const char *xv_run_state_name(enum xv_run_state state);

struct xv_disk_run {
    struct xv_vm_run *vm;
    const struct xv_plan_disk *plan;
    enum xv_run_state state;
    enum xv_mode mode;
    const char *transport; /* NULL until known */
    struct xv_reasons reasons;
    struct xv_store_stats stats;
    uint64_t bytes_audited;
    uint64_t bytes_written;       /* restore */
    uint64_t bytes_twice;         /* read by two, or again after a loss */
    json_t *movers;               /* of a task: who moved how much; NULL: not known yet */
    struct xv_shares shares;      /* of the workers while the disk moved */
    int64_t started_ms, ended_ms; /* xv_clock_ms */
    /* The rest belongs to the thread of the disk, then to that of the VM. */
    int rc;
    xvsa_error *error;
    bool ended;                    /* guarded by the job's lock */
    struct xv_disk_writer *writer; /* set under the job's lock */
    struct xv_snapshot_disk *snapshot;
};

struct xv_vm_run {
    struct xv_job *job;
    const struct xv_plan_vm *plan;
    size_t index;
    enum xv_run_state state;
    xvsa_error *error;
    struct xv_reasons reasons;
    char point_id[XV_POINT_ID_LENGTH + 1]; /* made by a backup; "" until then */
    char *new_uuid;                        /* of a restored VM */
    uint64_t packs;                        /* memory set aside for its packs */
    unsigned attempts;                     /* begun in this job */
    int64_t retry_ms;             /* xv_clock_ms before which the next one does not begin */
    struct xv_disk_run *failed;   /* the disk whose failure stopped the others */
    int64_t started_ms, ended_ms; /* xv_wall_ms */
    struct xv_disk_run *disks;
    size_t disk_count;
    xvsa_cancel *cancel; /* stops this VM's work */
    char tag[XV_TAG_MAX];
    int64_t intent; /* 0: none */
    void *work;     /* of the type of job; set before the disks' threads start */
};

struct xv_job_task;

struct xv_job {
    atomic_uint references;
    struct xv_job_task *task; /* NULL: a job of this process alone */
    atomic_bool parking, timed_out;
    char id[XV_JOB_ID_LENGTH + 1];
    struct xv_engine *engine;
    struct xv_plan *plan; /* NULL once the job has ended */
    struct xv_events *events;
    int64_t started_clock_ms, started_ms;
    atomic_uint_fast64_t bytes_total, bytes_done, bytes_read, bytes_stored;
    atomic_uint vms_done;
    uint32_t vms_total;
    atomic_int cancel_level;
    xvsa_cancel *cancel; /* stops everything */

    pthread_mutex_t lock;
    pthread_cond_t changed; /* a VM or the job ended */
    int32_t state;          /* XVSA_JOB_* */
    bool suspended;
    int64_t ended_ms, ended_clock_ms;
    xvsa_error *error;
    char *report;     /* once the job has ended */
    json_t *faults;   /* verify: what was found */
    json_t *verified; /* verify: what was read */
    struct xv_vm_run *vms;
    size_t vm_count;
    size_t next_vm;
    uint64_t packs_left, packs_held; /* memory for packs: free, and set aside for running VMs */
    uint32_t running;                /* VM threads */

    /* While it runs; set up before any thread of a VM starts. */
    struct xv_share share;
    uint32_t threads;
    uint64_t memory;
    struct xv_pipeline *pipeline; /* backup */
    struct xv_shares shares;      /* of the pipeline, once it has ended */
    struct xv_slots *slots;
};

/* Bodies of the three types of job, called by the job's own thread; each returns the job's code. */
int xv_backup_vm(struct xv_vm_run *run, xvsa_error **error) XV_MUST_CHECK;
int xv_restore_vm(struct xv_vm_run *run, xvsa_error **error) XV_MUST_CHECK;
int xv_verify_run(struct xv_job *job, xvsa_error **error) XV_MUST_CHECK;

/* run.c: makes and frees the runs, and drives the VMs with several threads. */
int xv_runs_make(struct xv_job *job, xvsa_error **error) XV_MUST_CHECK;
void xv_runs_free(struct xv_job *job);
int xv_runs_drive(struct xv_job *job, xvsa_error **error) XV_MUST_CHECK;

/* How fast the job moves; NULL: no limit. */
struct xv_rate *xv_job_rate(const struct xv_job *job);

/* Adds a progress event. */
void xv_job_tell_progress(struct xv_job *job);

/* Adds a reason to a VM or disk, and tells it as an event. Fails with REFUSED when the job's policy does
 * not accept the reason. */
int xv_run_reason(struct xv_vm_run *run, struct xv_disk_run *disk, xvsa_error **error,
                  enum xv_reason_code code, const char *format, ...) XV_PRINTF(5, 6) XV_MUST_CHECK;
/* The same for what cannot be refused any more. */
void xv_run_note(struct xv_vm_run *run, struct xv_disk_run *disk, enum xv_reason_code code,
                 const char *format, ...) XV_PRINTF(4, 5);

/* disk_threads.c: runs body for each disk of a VM that is not skipped, each in a thread of its own, and
 * waits; tick (may be NULL) is called about every second by the waiting thread. The first disk that
 * fails stops the others; its error is returned. */
typedef int (*xv_disk_body)(struct xv_disk_run *disk, xvsa_error **error);
int xv_disks_run(struct xv_vm_run *run, xv_disk_body body, void (*tick)(void *user), void *user,
                 xvsa_error **error) XV_MUST_CHECK;

/* control.c: XVSA_JOB_* as it shows; the caller holds the lock. */
int32_t xv_job_present_state(const struct xv_job *job);
/* Stops the job once its time is over; called every now and then while it runs. */
void xv_job_check_time(struct xv_job *job);
/* retry.c: makes a VM ready for another attempt when its failure allows one; false when it has ended for good. */
bool xv_run_retry(struct xv_vm_run *run, int rc, const xvsa_error *error);
/* Waits while the job is suspended. */
int xv_job_await_resume(struct xv_job *job, const struct xv_call *call,
                        xvsa_error **error) XV_MUST_CHECK;

/* Adds to the time that a disk waited for its turn or for others. */
void xv_run_waited(struct xv_disk_run *disk, int64_t ms);

/* The host that this process runs on, as far as a task tells; NULL when it runs nowhere. */
const struct xv_host *xv_run_own_host(const struct xv_job *job);
/* The host of the proxy that moves the disk; NULL when it runs nowhere. */
const struct xv_host *xv_run_host(const struct xv_disk_run *disk);

/* Intents: written before the first object is made; ended by clearing (clean) or abandoning. */
int xv_run_intend(struct xv_vm_run *run, const char *kind, xvsa_error **error) XV_MUST_CHECK;
void xv_run_settle(struct xv_vm_run *run, bool clean);

/* Calls for the work of a VM, and for cleaning up, which goes on after cancellation for a bounded time. */
struct xv_call xv_run_call(const struct xv_vm_run *run);
struct xv_call xv_run_cleanup_call(void);
/* For one step of control in the pool, which may hang there for ever. */
struct xv_call xv_run_step_call(const struct xv_vm_run *run);

/* report.c: JSON document "report"; the caller holds the lock. */
json_t *xv_report_to_json(struct xv_job *job, int32_t state);
const char *xv_job_state_name(int32_t state);

#endif
