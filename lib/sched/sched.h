/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Who moves what, and in which order. Pure functions over indices: no I/O, no clock, no memory kept
 * between calls; the same input gives the same answer.
 */
#ifndef XV_SCHED_SCHED_H
#define XV_SCHED_SCHED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* Stands for "no host" and "no proxy". */
#define XV_SCHED_NONE SIZE_MAX

struct xv_sched_proxy {
    size_t host;       /* where its VM runs; XV_SCHED_NONE: nowhere, reaches nothing */
    uint32_t capacity; /* disks moved at once, at least 1 */
    uint32_t running;  /* disks given to it; counted on by xv_sched_assign */
    uint64_t bytes;    /* bytes given to it; counted on by xv_sched_assign */
};

/* Hosts, SRs and proxies are numbered by the caller. */
struct xv_sched_site {
    size_t host_count;
    size_t sr_count;
    const bool *attached; /* [host * sr_count + sr]: host is live and has the SR attached */
    struct xv_sched_proxy *proxies;
    size_t proxy_count;
};

struct xv_sched_disk {
    size_t sr;
    uint64_t bytes; /* expected to be moved */
    size_t proxy;   /* answer; XV_SCHED_NONE: nobody reaches the SR */
};

struct xv_sched_vm {
    size_t host;       /* where it runs; XV_SCHED_NONE when halted */
    bool is_protected; /* has a restore point */
    bool failed;       /* its last backup failed */
    struct xv_sched_disk *disks;
    size_t disk_count;
    const char *key; /* breaks ties, so that the order does not depend on the input's */
};

/* True when the proxy's host has the SR attached. */
bool xv_sched_eligible(const struct xv_sched_site *site, size_t proxy, size_t sr);

/* Number of proxies that could move the disk of the VM that the fewest reach; proxy_count for a VM
 * without disks. 0: the VM cannot be moved whole. */
size_t xv_sched_eligible_count(const struct xv_sched_site *site, const struct xv_sched_vm *vm);

/* Order of work: never protected, failed last time, fewest eligible proxies, largest, key. order
 * receives count indices of vms. */
int xv_sched_order(const struct xv_sched_site *site, const struct xv_sched_vm *vms, size_t count,
                   size_t *order, xvsa_error **error) XV_MUST_CHECK;

/* Gives each disk of a VM to the eligible proxy that has the least to do for its capacity, largest disk
 * first; of equals, one on the VM's own host. False, with nothing given, when some disk has no eligible
 * proxy (its proxy is XV_SCHED_NONE then). */
bool xv_sched_assign(struct xv_sched_site *site, struct xv_sched_vm *vm);

/* Hosts where one more proxy would reach every disk of the VM that no proxy reaches; helps[host_count]. Returns how
 * many there are. */
size_t xv_sched_helping_hosts(const struct xv_sched_site *site, const struct xv_sched_vm *vm,
                              bool *helps);

#endif
