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
    uint64_t opened;     /* order in which the tasks were opened; lower first */
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

/* The board that the proxy should claim a unit of, or XV_SCHED_NONE: of those with free units that
 * it reaches and that admission lets it begin, by: priority, nearness (over the network last), its
 * own VMs, the SR's pressure (sr_bytes / disks that may be moved at once; when not known, fewest
 * proxies that reach it), own ones that were opened first, which would be done last (bytes_left /
 * (movers + 1)), those that the proxy moves already, submission, key. A proxy that moves n things
 * already takes no further unit of others' disks unless there are n free ones of the SR for each
 * proxy that reaches it. */
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

/* True while the proxy should own one task more: those of its tasks that are being prepared
 * (snapshot, map) and its boards with free units are fewer than the disks it moves at once, so that
 * the next snapshot is ready when a place becomes free. */
bool xv_sched_may_begin(const struct xv_sched_site *site, size_t proxy,
                        const struct xv_board *boards, size_t count, size_t preparing);

enum xv_next_kind { XV_NEXT_NOTHING, XV_NEXT_BOARD, XV_NEXT_TASK };
struct xv_next {
    enum xv_next_kind kind;
    size_t index;
};
/* Both at once. By priority; of one priority: a unit of an own disk that nobody moves, a waiting
 * task of its own or of nobody, a unit of any own disk, a task of somebody else, a unit of somebody
 * else's disk: so whole VMs are preferred while they outnumber the places, and the last disks are
 * split among all. may_begin: the proxy and the job may own one task more. */
struct xv_next xv_sched_next(const struct xv_sched_site *site, size_t proxy,
                             const struct xv_board *boards, size_t board_count,
                             const struct xv_waiting *tasks, size_t task_count, bool may_begin,
                             const struct xv_limits *limits, const struct xv_load *load);

#endif
