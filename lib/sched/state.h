/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What an assignment keeps: the load of proxies, hosts and SRs, and for each SR the proxies that
 * reach it, so that a disk is given away without looking at all proxies. Internal to lib/sched.
 */
#ifndef XV_SCHED_STATE_H
#define XV_SCHED_STATE_H

#include "sched/assignment.h"

/* A proxy. Work is bytes weighted by transport, see cost.c. */
struct worker {
    uint64_t work;
    uint32_t capacity;
    uint32_t tasks;    /* VMs owned */
    size_t disks;      /* in its list */
    size_t rank;       /* among all by key */
    size_t group;      /* its proxies differ in load only */
    size_t heap_place; /* in the group's heap; XV_SCHED_NONE while lost */
    size_t first_disk; /* list of slots; XV_SCHED_NONE ends */
    size_t first_vm;
};

/* Proxies of one host, capacity and kind. The heap has the one with the least work on top. */
struct group {
    size_t host;
    uint32_t capacity, transports;
    bool network;
    size_t *heap; /* proxies that live */
    size_t live;
};

struct disk_slot {
    size_t vm;
    size_t next, previous; /* of the same proxy */
    uint64_t work;         /* counted at its proxy, host and SR */
    bool done;
};

struct vm_slot {
    size_t first;          /* slot of its first disk */
    size_t rank;           /* in the order of work */
    size_t kept;           /* owner of a task that runs; XV_SCHED_NONE */
    size_t next, previous; /* of the same owner */
    bool done;
};

/* A list of numbers for each of count subjects: those of i are items[first[i]] to items[first[i +
 * 1] - 1]. */
struct lists {
    size_t *first;
    size_t *items;
};

struct xv_assignment {
    struct xv_sched_site *site;
    struct xv_sched_vm *vms;
    size_t vm_count, disk_count;
    struct worker *workers;
    struct group *groups;
    size_t group_count;
    size_t *heaps;          /* of all groups, one after another */
    struct lists sr_groups; /* groups whose host has the SR */
    struct lists sr_hosts;  /* hosts that have the SR */
    size_t *network_groups; /* groups that may reach all SRs over the network */
    size_t network_group_count;
    uint64_t *host_work, *sr_work;
    struct disk_slot *disks;
    struct vm_slot *slots;
    size_t *host_ranks; /* among all by key */
    struct xv_move *moves;
    size_t *unreachable;
};

/* Where a disk would go. */
struct choice {
    size_t proxy, via;
    enum xv_tier tier;
    uint64_t work;
};

/* groups.c */
int xv_groups_make(struct xv_assignment *a, xvsa_error **error) XV_MUST_CHECK;
void xv_groups_free(struct xv_assignment *a);
/* The proxy's work has changed, or it lives no more. */
void xv_groups_resort(struct xv_assignment *a, size_t proxy);
void xv_groups_remove(struct xv_assignment *a, size_t proxy);
bool xv_group_reaches(const struct xv_assignment *a, const struct group *group, size_t sr);
size_t xv_groups_choices(const struct xv_assignment *a, size_t sr);

/* cost.c */
/* False: nobody that lives reaches the SR. */
bool xv_cost_choose(const struct xv_assignment *a, const struct xv_sched_disk *disk, size_t vm_host,
                    struct choice *ret);
void xv_cost_give(struct xv_assignment *a, size_t slot, const struct choice *choice);
void xv_cost_take(struct xv_assignment *a, size_t slot);
struct xv_sched_disk *xv_slot_disk(const struct xv_assignment *a, size_t slot);
/* Chooses who owns a VM whose disks have been given away; XV_SCHED_NONE: nobody lives. */
size_t xv_cost_owner(const struct xv_assignment *a, size_t vm);
void xv_owner_give(struct xv_assignment *a, size_t vm, size_t proxy);
void xv_owner_take(struct xv_assignment *a, size_t vm);

/* assignment.c */
/* Gives the open disks of the VMs to proxies, those with the fewest choices first, then their
 * tasks; VMs that cannot be moved whole are skipped. */
int xv_assignment_fill(struct xv_assignment *a, const size_t *vms, size_t count,
                       xvsa_error **error) XV_MUST_CHECK;
/* Gives the VM an owner when it has none and all its open disks are given away. */
void xv_assignment_give_task(struct xv_assignment *a, size_t vm);

#endif
