/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a deployment of proxies reaches, what one loss would cost, and which further proxies would
 * cure it. One pool at a time. Pure.
 */
#ifndef XV_SCHED_DEPLOYMENT_H
#define XV_SCHED_DEPLOYMENT_H

#include "sched/sched.h"

/* One proxy that reaches one disk. */
struct xv_reach {
    size_t proxy;
    enum xv_tier tier;
    uint32_t transports; /* mask */
};

struct xv_reach_disk {
    const struct xv_reach *reach; /* nearest tier first, then by proxy's key */
    size_t count;                 /* 0: nobody reaches it */
};

struct xv_reach_vm {
    const struct xv_reach_disk *disks; /* as in the input */
    bool reached;                      /* every disk by somebody */
    size_t whole;                      /* proxies that reach every disk */
    bool curable; /* not reached: every such disk's SR is attached to some live host */
    const size_t *fatal_proxies; /* whose loss alone would leave the VM unreached; ascending */
    size_t fatal_proxy_count;
    const size_t *fatal_hosts; /* whose loss alone would; ascending */
    size_t fatal_host_count;
    bool host_inherent; /* some SR of it is attached to one host only: no proxy cures that host's
                           loss */
};

/* What one loss would cost. */
struct xv_loss {
    size_t subject;    /* proxy or host */
    const size_t *vms; /* that would be unreached by it and are not now; ascending */
    size_t vm_count;
};

enum xv_goal {
    XV_GOAL_REACH,      /* every VM is reached */
    XV_GOAL_PROXY_LOSS, /* and stays so when any one proxy is lost */
    XV_GOAL_HOST_LOSS, /* and when any one host is, as far as its SRs are attached to another one */
    XV_GOAL_COUNT,
};
/* "reach", "proxy-loss", "host-loss". */
const char *xv_goal_name(enum xv_goal goal);

struct xv_addition {
    size_t host;
    uint32_t proxies; /* further ones on this host, at least 1 */
};

struct xv_advice {
    const struct xv_addition *additions; /* by host's key */
    size_t count;
    uint32_t proxies;    /* sum */
    uint32_t at_least;   /* lower bound: equals proxies when exact */
    bool exact;          /* the fewest possible; else found greedily */
    const size_t *cured; /* VMs that miss the goal now, and would reach it; ascending */
    size_t cured_count;
    const size_t *incurable; /* VMs that no further proxy brings to the goal; ascending */
    size_t incurable_count;
};

struct xv_deployment {
    const struct xv_reach_vm *vms; /* as in the input */
    size_t vm_count;
    const size_t *unreached; /* VMs, ascending */
    size_t unreached_count;
    const struct xv_loss *proxy_losses; /* of each proxy that lives, by number */
    size_t proxy_loss_count;
    const struct xv_loss *host_losses; /* of each host, by number */
    size_t host_loss_count;
    struct xv_advice advice[XV_GOAL_COUNT]; /* each goal includes those before it */
};

/* Reads host and disks' sr of vms alone; owns all of *ret, nothing points into the input. */
int xv_deployment_analyse(const struct xv_sched_site *site, const struct xv_sched_vm *vms,
                          size_t count, struct xv_deployment **ret,
                          xvsa_error **error) XV_MUST_CHECK;
void xv_deployment_free(struct xv_deployment *deployment);

#endif
