/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the analysis of a deployment knows of each SR while it works. Internal to lib/sched.
 */
#ifndef XV_SCHED_REACH_H
#define XV_SCHED_REACH_H

#include "sched/deployment.h"

/* Everything that a deployment hands out, for freeing it. */
struct arena {
    struct xv_deployment deployment; /* first: what the caller has */
    struct xv_reach_vm *vms;
    struct xv_reach_disk *disks;
    struct xv_reach *reach;
    struct xv_loss *proxy_losses, *host_losses;
    size_t *numbers; /* lists of the VMs and losses */
    size_t *advice[XV_GOAL_COUNT];
    struct xv_addition *additions[XV_GOAL_COUNT];
};

/* Who reaches an SR. */
struct sr_reach {
    size_t proxies; /* that live */
    size_t only;    /* the only proxy, if there is one */
    size_t hosts;   /* live ones that have it attached */
    size_t home;    /* the only such host, if there is one */
    size_t bases;   /* places that proxies reach it from: hosts; all outside the pool are one */
    size_t base;    /* the only such host, XV_SCHED_NONE when it is outside */
    bool networked; /* some proxy reaches it over the network only */
};

struct work {
    const struct xv_sched_site *site;
    const struct xv_sched_vm *vms;
    size_t vm_count;
    struct sr_reach *srs;
    bool *base_hosts; /* [sr * host_count + host]: a proxy there reaches the SR */
    struct arena *arena;
};

/* Fills deployment.advice[goal]. */
int xv_advise(const struct work *work, enum xv_goal goal, xvsa_error **error) XV_MUST_CHECK;

#endif
