/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Budgets: whether something may begin now, given what runs and what the limits are. Pure.
 */
#ifndef XV_SCHED_ADMISSION_H
#define XV_SCHED_ADMISSION_H

#include "sched/sched.h"
#include "sched/window.h"

/* A host has 16 NBD connections for everybody; we use this many of them, all proxies together. */
#define XV_SCHED_HOST_CONNECTIONS 10u
/* What one disk uses where there is room. */
#define XV_SCHED_DISK_CONNECTIONS 2u
/* The driver's limit of snapshots over snapshots is 30; the backup's own snapshot and what the pool
 * may add while it runs keep this many below. */
#define XV_SCHED_CHAIN_LIMIT  30u
#define XV_SCHED_CHAIN_MARGIN 4u

enum xv_verdict {
    XV_VERDICT_ADMIT,
    XV_VERDICT_WAIT,   /* ask again when something ended, or at the instant of the next change */
    XV_VERDICT_REFUSE, /* waiting does not help by itself: the VM fails with the reason */
};

/* Why not; the name is that of a code in docs/reasons.md. */
enum xv_why {
    XV_WHY_NOTHING,
    XV_WHY_CHAIN_TOO_DEEP,
    XV_WHY_HOST_BUSY, /* NBD connections of the host */
    XV_WHY_JOB_BUSY,  /* VMs of the job at once */
    XV_WHY_OUTSIDE_WINDOW,
    XV_WHY_PROXY_BUSY, /* disks of the proxy */
    XV_WHY_RATE_ZERO,  /* the rate curve is at 0 now */
    XV_WHY_SR_BUSY,    /* transfers, or snapshots, of the SR */
    XV_WHY_SR_SPACE_LOW,
    XV_WHY_NO_PROXY_REACHES_SR,
};
/* Code of docs/reasons.md, "" for XV_WHY_NOTHING. */
const char *xv_why_name(enum xv_why why);

struct xv_admission {
    enum xv_verdict verdict;
    enum xv_why why;
};

/* 0 stands for the default in each. */
struct xv_limits {
    uint32_t host_connections; /* all proxies together; default XV_SCHED_HOST_CONNECTIONS */
    uint32_t disk_connections; /* default XV_SCHED_DISK_CONNECTIONS */
    uint32_t sr_transfers;     /* units or disks moved at once; default: no limit */
    uint32_t job_vms;          /* VMs in work at once; default: no limit */
    uint32_t chain_depth;      /* default XV_SCHED_CHAIN_LIMIT - XV_SCHED_CHAIN_MARGIN */
    uint64_t sr_free_bytes;    /* that must be left after a snapshot; default 0 */
    uint32_t sr_free_percent;  /* of the SR's size, likewise; the larger of both holds; default 0 */
};

/* What runs now. */
struct xv_usage {
    uint32_t host_connections; /* to the host, of all proxies */
    uint32_t proxy_disks;      /* moved by the proxy */
    uint32_t sr_transfers;     /* of the SR, of all proxies */
};

/* May the proxy (capacity: its disks at once) begin to move one more disk or unit? transport: one
 * bit. Hot-add and HTTP use no NBD connection. */
struct xv_admission xv_admit_transfer(const struct xv_limits *limits, const struct xv_usage *usage,
                                      uint32_t capacity, uint32_t transport);
/* NBD connections that the next disk of the host gets: disk_connections, or what is left; 0: none.
 */
uint32_t xv_admit_connections(const struct xv_limits *limits, uint32_t in_use);
/* A proxy's part of a host's connections when it cannot know what the others use now: the budget
 * divided by the proxies on that host (rank: this one's place among them), the remainder to the
 * first; 0 for those too many. */
uint32_t xv_admit_host_share(const struct xv_limits *limits, uint32_t proxies, uint32_t rank);

/* An SR whose driver makes thick volumes keeps a snapshot's whole size. */
bool xv_sr_is_thick(const char *type, bool thin_provisioned);

struct xv_planned_snapshot_disk {
    uint64_t virtual_size;
    uint64_t physical_used; /* 0: not known */
    uint32_t chain;         /* disks from this one up to the last parent, itself included */
};
struct xv_snapshot_sr {
    const char *type;
    bool thin;     /* declared thin by the pool (sm_config allocation); file types always are */
    uint64_t size; /* 0: not known: space is not judged */
    uint64_t used;
    uint64_t reserved; /* by snapshots that were admitted, and are not in used yet */
};
/* Space that snapshots of the disks take at once: thick: the whole size of each; thin: metadata. */
uint64_t xv_snapshot_bytes(const struct xv_snapshot_sr *sr,
                           const struct xv_planned_snapshot_disk *disks, size_t count);
/* May the disks of one VM on one SR be snapshotted? Too deep a chain waits when coalescing may
 * shorten it (coalescing), else is refused; too little space waits while others have reserved some.
 */
struct xv_admission xv_admit_snapshot(const struct xv_limits *limits,
                                      const struct xv_snapshot_sr *sr,
                                      const struct xv_planned_snapshot_disk *disks, size_t count,
                                      bool coalescing);

/* May a task begin now? *ret_minutes: until the answer may change by time alone. */
struct xv_admission xv_admit_task(const struct xv_limits *limits, const struct xv_windows *windows,
                                  const struct xv_curve *rate, uint32_t minute,
                                  uint32_t running_vms, uint32_t *ret_minutes);

#endif
