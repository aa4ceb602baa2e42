/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A task: the work on one VM of a job that several processes share. The process that owns it runs a job
 * of that one VM; what it needs of the others goes through the operations below, which lib/agent gives over the coordination
 * store.
 */
#ifndef XV_JOB_SHARE_H
#define XV_JOB_SHARE_H

#include "job/job.h"
#include "job/rate.h"

/* The units of a disk: consecutive slices of what is to be read, cut at multiples of the chunk size so that each
 * has about unit_bytes of it. Everybody cuts the same map the same way (xv_units_*). */
struct xv_board_disk {
    const char
        *work_id; /* whose map and progress: not always the task's, which is void when the pool lost
                            the snapshot of an earlier attempt */
    const char *key; /* VDI's uuid: disk of the map (repo/work.h) */
    const char *device;
    const char *sr_uuid;
    const char *snapshot_uuid; /* VDI to be read */
    uint64_t size;
    uint64_t bytes; /* to be read */
    uint64_t unit_bytes;
    uint32_t units;
    bool nbd;
};

#define XV_UNIT_NONE UINT32_MAX

/* All may block; all are called by threads of the task, several at once. A failure other than CANCELLED of publish, claim, done means
 * that the store is out of reach: the owner then goes on alone. */
struct xv_share_ops {
    /* Others may take units of the disk from now on. */
    int (*publish)(void *user, const struct xv_board_disk *disk, const struct xv_call *call,
                   xvsa_error **error);
    /* Claims the next free unit of the disk for this process. XV_UNIT_NONE: none is free; *ret_left is the number of
     * units that are not done yet. */
    int (*claim)(void *user, const char *key, uint32_t *ret_unit, uint32_t *ret_left,
                 const struct xv_call *call, xvsa_error **error);
    /* The unit's progress is in the journal. */
    int (*done)(void *user, const char *key, uint32_t unit, uint64_t bytes,
                const struct xv_call *call, xvsa_error **error);
    /* Gives a claim back. */
    void (*release)(void *user, const char *key, uint32_t unit);
    /* Waits until the board may have changed, or timeout_ms. */
    int (*wait)(void *user, int64_t timeout_ms, const struct xv_call *call, xvsa_error **error);
    /* Keeps facts (JSON object) for a successor; durable when it returns. FENCED when the task is another process's by now. */
    int (*note)(void *user, const char *facts, const struct xv_call *call, xvsa_error **error);
    /* What others, and earlier attempts, did on the disk, asked once all of it is done: JSON object {"movers": [{"proxy", "bytes", "units"}],
     * "reasons": as xv_assist gave them}, which the caller frees. May be NULL: nobody else takes part. */
    int (*account)(void *user, const char *key, char **ret, const struct xv_call *call,
                   xvsa_error **error);
    /* Waits until the process may open NBD connections to a host: *ret of them, wanted at most, at least 1. They
     * are given back by disconnect. NULL: as many as wanted. */
    int (*connect)(void *user, uint32_t wanted, uint32_t *ret, const struct xv_call *call,
                   xvsa_error **error);
    void (*disconnect)(void *user, uint32_t connections);
    /* Waits until a disk that has no units may be moved to or from an SR, until leave. NULL: at once. */
    int (*enter)(void *user, const char *key, const char *sr_uuid, const struct xv_call *call,
                 xvsa_error **error);
    void (*leave)(void *user, const char *key);
    /* False while this process must not touch the pool (its lease may be gone). Does not block. */
    bool (*may_touch_pool)(void *user);
};

struct xv_task {
    const char *job_id;    /* of the whole job: in points, tags, events */
    const char *tag;       /* what the VM's objects in the pool carry */
    const char *work_id;   /* 32 hex digits */
    const char *facts;     /* of earlier attempts, as given to note; NULL: none */
    const char *earlier;   /* who owned it before, for the report; NULL: nobody */
    uint32_t attempt;      /* from 1 */
    uint64_t token;        /* of the repository session */
    uint64_t unit_bytes;   /* about the size of a unit; 0: chosen by what follows */
    uint64_t outstanding;  /* bytes that all have to move still; 0: not known */
    uint32_t proxies;      /* that move them; 0: one */
    int64_t checkpoint_ms; /* between checkpoints; 0: 5 s */
    struct xv_rate *rate;  /* how fast it moves; NULL: no limit; must outlive the job */
    const char *proxy;     /* name of the proxy that this process is: moves what it moves itself */
    const struct xv_share_ops *ops;
    void *user; /* must outlive the job */
};

/* What is in task is copied, user is borrowed.
 *
 * How it ends: SUCCEEDED; FAILED with FENCED when another attempt has taken over (nothing is touched in the pool
 * then); FAILED with a retryable error, after which snapshot and progress are left like those of a parked task; FAILED with
 * another one or CANCELLED, cleaned up; PARKED.
 *
 * Starts a plan of exactly one VM as a task. Intents are not written to the state of this process: the objects
 * belong to the site's job (by tag), whose coordinator cleans. */
int xv_job_start_task(struct xv_plan *plan, const struct xv_task *task, struct xv_job **ret,
                      xvsa_error **error) XV_MUST_CHECK;
/* Stops at a checkpoint, leaving snapshot and progress to whoever goes on: the job ends in state XVSA_JOB_PARKED. */
void xv_job_park(struct xv_job *job);

/* How many units of about unit_bytes a set has, and which part of it the unit is. Pure. */
uint32_t xv_units_count(const struct xv_extents *read, uint64_t unit_bytes, uint32_t chunk);
int xv_units_slice(const struct xv_extents *read, uint64_t unit_bytes, uint32_t chunk,
                   uint32_t unit, struct xv_extents *ret, xvsa_error **error) XV_MUST_CHECK;

#endif
