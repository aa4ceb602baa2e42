/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Which proxy is to move which disk of a set of VMs, and who owns each VM's task; kept up to date
 * while proxies are lost and come back. One for each pool. Not thread-safe: its user holds a lock.
 */
#ifndef XV_SCHED_ASSIGNMENT_H
#define XV_SCHED_ASSIGNMENT_H

#include "sched/sched.h"

struct xv_assignment;

/* Something that changed hands. */
struct xv_move {
    size_t vm;
    size_t disk; /* of the VM; XV_SCHED_NONE: the VM's task */
    size_t from; /* XV_SCHED_NONE: nobody had it */
    size_t to;   /* XV_SCHED_NONE: nobody has it now */
};

/* Belongs to the assignment, valid until its next call. */
struct xv_moves {
    const struct xv_move *items; /* by VM, the task before its disks */
    size_t count;
    const size_t *unreachable; /* VMs that cannot be moved whole now, ascending */
    size_t unreachable_count;
};

/* Assigns all: disks with one choice first, then the largest first, each to the proxy with which it
 * would be done soonest by the cost in docs/scheduling.md. Writes the answers into vms and counts
 * on site->proxies (start from zeros, or from what other jobs gave them). A VM with a disk that
 * nobody reaches gets nothing (owner and its disks' proxy are XV_SCHED_NONE). site and vms are the
 * caller's and must outlive the assignment; apart from the answers nothing in them may change.
 * O((disks + proxies) log + disks * hosts of the SR). */
int xv_assignment_new(struct xv_sched_site *site, struct xv_sched_vm *vms, size_t count,
                      struct xv_assignment **ret, xvsa_error **error) XV_MUST_CHECK;
void xv_assignment_free(struct xv_assignment *assignment);

/* The disk is done, or disk is XV_SCHED_NONE: the whole VM is: it weighs nothing and moves no more.
 */
void xv_assignment_finish(struct xv_assignment *assignment, size_t vm, size_t disk);
/* The proxy does not live: what it had is given to others. Cost: what it had, not what there is.
 * After a failure of this or the next one the assignment is good for nothing but being freed. */
int xv_assignment_lose(struct xv_assignment *assignment, size_t proxy, struct xv_moves *ret,
                       xvsa_error **error) XV_MUST_CHECK;
/* A proxy that was lost, or was marked so from the beginning, lives on host: VMs that nobody
 * reached are assigned; the rest it pulls. One that migrated is lost first. */
int xv_assignment_join(struct xv_assignment *assignment, size_t proxy, size_t host,
                       struct xv_moves *ret, xvsa_error **error) XV_MUST_CHECK;

#endif
