/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a proxy with a free place does next: pure functions over the tasks that wait and the disks
 * that are being moved ("boards", b/ and c/ and d/ of the coordination store).
 */
#ifndef XV_SCHED_PULL_H
#define XV_SCHED_PULL_H

#include "sched/admission.h"

#define XV_UNIT_BYTES_MIN  (UINT64_C(16) << 20)
#define XV_UNIT_BYTES_MAX  (UINT64_C(512) << 20)
#define XV_UNIT_BYTES_STEP (UINT64_C(8) << 20)

/* Size of the units of a disk with bytes to be read that proxies proxies may work on, when all is
 * outstanding bytes of work for them, this disk and what waits included (0 or less than bytes: this
 * disk alone): 1/64 of everybody's part, at most 1/8 of this disk; within the bounds above and a
 * multiple of the step. So a unit is worth the trouble of claiming it, and what remains when the
 * first proxy is idle is small. */
uint64_t xv_sched_unit_bytes(uint64_t bytes, uint64_t outstanding, size_t proxies);

/* A disk that is being moved. */
struct xv_board {
    const char *key;     /* breaks ties */
    size_t sr;           /* XV_SCHED_NONE: not known, nobody reaches it */
    size_t vm_host;      /* XV_SCHED_NONE: halted */
    size_t owner;        /* proxy that owns the task */
    int32_t priority;    /* of the job; higher first */
    uint64_t submitted;  /* order of the jobs; lower first */
    uint32_t units_free; /* claimed by nobody, not done */
    uint64_t bytes_left; /* not done, claimed ones included */
    uint32_t movers;     /* units being moved now, by anybody */
    uint32_t own_movers; /* of these by the proxy that asks */
    uint64_t sr_bytes;   /* of its SR: not done yet, those of waiting tasks, too; 0: not known */
};

/* A VM whose task has not begun, or was parked or lost. */
struct xv_waiting {
    const struct xv_sched_vm
        *vm;     /* its owner: whom the assignment gave it; XV_SCHED_NONE: nobody */
    size_t rank; /* in the order of work, see xv_sched_order */
    int32_t priority;
    uint64_t submitted;
};

/* What runs, for all hosts, SRs and proxies of the site; a NULL array counts as zeros. */
struct xv_load {
    const uint32_t *host_connections; /* [host] */
    const uint32_t *sr_transfers;     /* [sr] */
    const uint32_t *proxy_disks;      /* [proxy] */
};

/* The board of another proxy's task that the proxy should claim a unit of, or XV_SCHED_NONE: of
 * those with free units that it reaches and that admission lets it begin, by: priority, nearness
 * (over the network last), the SR's pressure (sr_bytes / disks that may be moved at once; when not
 * known, fewest proxies that reach it), which would be done last (bytes_left / (movers + 1)), those
 * that the proxy moves already, submission, key. A proxy that moves n things already takes no
 * further unit unless there are n free ones of the SR for each proxy that reaches it; and none
 * while disks of its own tasks, which it reads with a stream each, have free units on an SR under
 * higher pressure. */
size_t xv_sched_next_board(const struct xv_sched_site *site, size_t proxy,
                           const struct xv_board *boards, size_t count,
                           const struct xv_limits *limits, const struct xv_load *load);

/* The waiting task that the proxy should own next, or XV_SCHED_NONE: of those of which it reaches
 * all disks (or at least one, when no proxy that lives reaches all), by: priority, given to it by
 * the assignment, given to nobody that lives, given to the proxy that has the most to do for its
 * capacity; then submission, rank, key. */
size_t xv_sched_next_task(const struct xv_sched_site *site, size_t proxy,
                          const struct xv_waiting *tasks, size_t count);

/* Host whose connections the proxy uses for the SR: its own, or, over the network, the one that has
 * the SR and the fewest in use. XV_SCHED_NONE: it does not reach the SR. */
size_t xv_sched_serving_host(const struct xv_sched_site *site, size_t proxy, size_t sr,
                             const struct xv_load *load);

/* True when a proxy may own a task of disks disks more: it owns tasks of used disks (prepared, read or committed), and
 * moves capacity at once. A task that is larger than that is owned alone. */
bool xv_sched_may_own(uint32_t capacity, uint32_t used, uint32_t disks);

#endif
