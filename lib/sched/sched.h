/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Who may move what, and in which order: the site that all of lib/sched decides about. Pure
 * functions over indices: no I/O, no clock, no memory kept between calls; the same input gives the
 * same answer, in whatever order it lists things, when proxies, hosts and VMs have keys. See
 * docs/scheduling.md.
 */
#ifndef XV_SCHED_SCHED_H
#define XV_SCHED_SCHED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* Stands for "no host", "no proxy" and "no disk". */
#define XV_SCHED_NONE SIZE_MAX

/* Disks that a host serves at once unless site.host_limits says otherwise: 10 connections, 2 a
 * disk. */
#define XV_SCHED_HOST_DISKS 5u

/* How a proxy reads or writes a disk; masks. */
#define XV_TRANSPORT_HOTADD 1u
#define XV_TRANSPORT_NBD    2u
#define XV_TRANSPORT_HTTP   4u
#define XV_TRANSPORT_ALL    7u

/* How near a proxy is to a disk; higher is nearer. */
enum xv_tier {
    XV_TIER_NONE,    /* does not reach it */
    XV_TIER_NETWORK, /* only over the network, by a host that has the SR; when policy allows */
    XV_TIER_SR,      /* its own host has the SR attached */
    XV_TIER_HOST,    /* and the VM runs on that host, too */
};
/* "none", "network", "sr", "host". */
const char *xv_tier_name(enum xv_tier tier);
/* Of one bit: "hotadd", "nbd", "http"; "none" for 0. */
const char *xv_transport_name(uint32_t transport);

struct xv_sched_proxy {
    size_t host;         /* where its VM runs; XV_SCHED_NONE: nowhere in the pool */
    uint32_t capacity;   /* disks moved at once, at least 1 */
    uint32_t running;    /* disks given to it; counted on by assignments */
    uint64_t bytes;      /* bytes given to it; counted on by assignments */
    uint32_t transports; /* that it can use; 0: all */
    bool network;        /* can open connections to the pool's hosts from where it is */
    bool lost;           /* does not live: is eligible for nothing */
    const char *key;     /* breaks ties; NULL: its number does */
};

/* Hosts, SRs and proxies are numbered by the caller. */
struct xv_sched_site {
    size_t host_count;
    size_t sr_count;
    const bool *attached; /* [host * sr_count + sr]: host is live and has the SR attached */
    struct xv_sched_proxy *proxies;
    size_t proxy_count;
    uint32_t transports;          /* that policy allows; 0: all */
    bool network;                 /* policy allows XV_TIER_NETWORK */
    const uint32_t *host_limits;  /* disks served at once; NULL or 0: XV_SCHED_HOST_DISKS */
    const uint32_t *sr_limits;    /* transfers at once; NULL or 0: no limit */
    const char *const *host_keys; /* break ties; NULL: numbers do */
};

struct xv_sched_disk {
    size_t sr;
    uint64_t bytes;    /* expected to be moved */
    bool done;         /* nothing of it is left to be moved */
    size_t proxy;      /* answer; XV_SCHED_NONE: done, or nobody reaches the SR */
    size_t via;        /* answer: host that serves the disk; XV_SCHED_NONE as above */
    enum xv_tier tier; /* answer */
};

struct xv_sched_vm {
    size_t host;       /* where it runs; XV_SCHED_NONE when halted */
    bool is_protected; /* has a restore point */
    bool failed;       /* its last backup failed */
    bool taken;        /* its task runs: owner is given, and stays while that proxy lives */
    struct xv_sched_disk *disks;
    size_t disk_count;
    const char *key; /* breaks ties, so that the order does not depend on the input's */
    size_t owner;    /* answer: proxy that coordinates the VM's task; XV_SCHED_NONE: not assigned */
};

/* How near the proxy is to a disk on the SR of a VM that runs on vm_host (XV_SCHED_NONE: halted).
 */
enum xv_tier xv_sched_tier(const struct xv_sched_site *site, size_t proxy, size_t sr,
                           size_t vm_host);
/* Mask of the transports that the proxy may use for the SR: what tier, policy and proxy allow. */
uint32_t xv_sched_transports(const struct xv_sched_site *site, size_t proxy, size_t sr);
/* Nearest of a mask: hot-add, NBD, HTTP; 0 for none. */
uint32_t xv_sched_best_transport(uint32_t mask);

/* True when the tier is not NONE and a transport is left. */
bool xv_sched_eligible(const struct xv_sched_site *site, size_t proxy, size_t sr);

/* Number of proxies that could move the disk of the VM that the fewest reach; proxy_count for a VM
 * without disks. 0: the VM cannot be moved whole. */
size_t xv_sched_eligible_count(const struct xv_sched_site *site, const struct xv_sched_vm *vm);

/* Order of work: never protected, failed last time, fewest eligible proxies, fewest transfers that
 * its SRs allow, largest, key. order receives count indices of vms. */
int xv_sched_order(const struct xv_sched_site *site, const struct xv_sched_vm *vms, size_t count,
                   size_t *order, xvsa_error **error) XV_MUST_CHECK;

/* Hosts where one more proxy would reach every disk of the VM that no proxy reaches;
 * helps[host_count]. Returns how many there are. */
size_t xv_sched_helping_hosts(const struct xv_sched_site *site, const struct xv_sched_vm *vm,
                              bool *helps);

#endif
