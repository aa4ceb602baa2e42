/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sched/deployment.h"

#include <stdlib.h>
#include <string.h>

#include "sched/reach.h"

const char *xv_goal_name(enum xv_goal goal)
{
    static const char *const names[] = {"reach", "proxy-loss", "host-loss"};
    return goal < XV_GOAL_COUNT ? names[goal] : "";
}

static bool has(const struct xv_sched_site *site, size_t host, size_t sr)
{
    return host < site->host_count && site->attached[host * site->sr_count + sr];
}

/* A proxy that reaches the SR over the network survives its own host only where it is, and the loss
 * of the SR's hosts as long as one is left. */
static void look_at_sr(const struct work *work, size_t sr)
{
    const struct xv_sched_site *site = work->site;
    struct sr_reach *it = &work->srs[sr];
    *it = (struct sr_reach){.only = XV_SCHED_NONE, .home = XV_SCHED_NONE, .base = XV_SCHED_NONE};
    for (size_t host = 0; host < site->host_count; host++) {
        if (has(site, host, sr)) {
            it->hosts++;
            it->home = host;
        }
    }
    bool outside = false;
    for (size_t i = 0; i < site->proxy_count; i++) {
        if (!xv_sched_eligible(site, i, sr))
            continue;
        it->proxies++;
        it->only = i;
        size_t host = site->proxies[i].host;
        it->networked |= !has(site, host, sr);
        if (host >= site->host_count)
            outside = true;
        else
            work->base_hosts[sr * site->host_count + host] = true;
    }
    for (size_t host = 0; host < site->host_count; host++) {
        if (work->base_hosts[sr * site->host_count + host]) {
            it->bases++;
            it->base = host;
        }
    }
    it->bases += outside ? 1 : 0;
    if (outside)
        it->base = XV_SCHED_NONE;
}

static bool lost_with_proxy(const struct sr_reach *sr, size_t proxy)
{
    return sr->proxies == 1 && sr->only == proxy;
}

/* The SR itself goes with its only host; else it is out of reach when all that reach it were there.
 */
static bool lost_with_host(const struct sr_reach *sr, size_t host)
{
    if (sr->proxies == 0)
        return false;
    return (sr->hosts == 1 && sr->home == host) || (sr->bases == 1 && sr->base == host);
}

static int compare_reach(const struct xv_sched_site *site, const struct xv_reach *a,
                         const struct xv_reach *b)
{
    if (a->tier != b->tier)
        return a->tier > b->tier ? -1 : 1;
    const char *key_a = site->proxies[a->proxy].key;
    const char *key_b = site->proxies[b->proxy].key;
    int order = strcmp(key_a == NULL ? "" : key_a, key_b == NULL ? "" : key_b);
    return order != 0 ? order : a->proxy < b->proxy ? -1 : 1;
}

/* Appends in order: lists are short. */
static void add_reach(const struct xv_sched_site *site, struct xv_reach *list, size_t *count,
                      struct xv_reach reach)
{
    size_t place = (*count)++;
    while (place > 0 && compare_reach(site, &reach, &list[place - 1]) < 0) {
        list[place] = list[place - 1];
        place--;
    }
    list[place] = reach;
}

static size_t list_reach(const struct work *work, size_t vm, size_t disk, struct xv_reach *list)
{
    const struct xv_sched_site *site = work->site;
    size_t sr = work->vms[vm].disks[disk].sr;
    size_t count = 0;
    for (size_t i = 0; i < site->proxy_count; i++) {
        uint32_t transports = xv_sched_transports(site, i, sr);
        if (transports != 0)
            add_reach(
                site, list, &count,
                (struct xv_reach){i, xv_sched_tier(site, i, sr, work->vms[vm].host), transports});
    }
    return count;
}

static bool vm_reached(const struct work *work, const struct xv_sched_vm *vm)
{
    for (size_t i = 0; i < vm->disk_count; i++) {
        if (vm->disks[i].sr >= work->site->sr_count || work->srs[vm->disks[i].sr].proxies == 0)
            return false;
    }
    return true;
}

static bool vm_lost_with(const struct work *work, const struct xv_sched_vm *vm, size_t proxy,
                         size_t host)
{
    for (size_t i = 0; i < vm->disk_count; i++) {
        const struct sr_reach *sr = &work->srs[vm->disks[i].sr];
        if (proxy != XV_SCHED_NONE ? lost_with_proxy(sr, proxy) : lost_with_host(sr, host))
            return true;
    }
    return false;
}

static size_t whole_proxies(const struct work *work, const struct xv_sched_vm *vm)
{
    size_t count = 0;
    for (size_t i = 0; i < work->site->proxy_count; i++) {
        bool all = !work->site->proxies[i].lost;
        for (size_t j = 0; all && j < vm->disk_count; j++)
            all = xv_sched_eligible(work->site, i, vm->disks[j].sr);
        count += all ? 1 : 0;
    }
    return count;
}

/* numbers grows by what is listed. */
static void describe_vm(const struct work *work, size_t index, struct xv_reach_vm *ret,
                        size_t **numbers)
{
    const struct xv_sched_vm *vm = &work->vms[index];
    ret->reached = vm_reached(work, vm);
    ret->whole = whole_proxies(work, vm);
    ret->curable = !ret->reached;
    for (size_t i = 0; i < vm->disk_count; i++) {
        size_t sr = vm->disks[i].sr;
        if (sr >= work->site->sr_count || work->srs[sr].hosts == 0)
            ret->curable = false;
        else if (work->srs[sr].hosts == 1)
            ret->host_inherent = true;
    }
    if (!ret->reached)
        return;
    ret->fatal_proxies = *numbers;
    for (size_t i = 0; i < work->site->proxy_count; i++) {
        if (vm_lost_with(work, vm, i, XV_SCHED_NONE))
            (*numbers)[ret->fatal_proxy_count++] = i;
    }
    *numbers += ret->fatal_proxy_count;
    ret->fatal_hosts = *numbers;
    for (size_t i = 0; i < work->site->host_count; i++) {
        if (vm_lost_with(work, vm, XV_SCHED_NONE, i))
            (*numbers)[ret->fatal_host_count++] = i;
    }
    *numbers += ret->fatal_host_count;
}

static size_t disk_total(const struct work *work)
{
    size_t total = 0;
    for (size_t i = 0; i < work->vm_count; i++)
        total += work->vms[i].disk_count;
    return total;
}

static size_t reach_total(const struct work *work)
{
    size_t total = 0;
    for (size_t i = 0; i < work->vm_count; i++) {
        for (size_t j = 0; j < work->vms[i].disk_count; j++) {
            size_t sr = work->vms[i].disks[j].sr;
            total += sr < work->site->sr_count ? work->srs[sr].proxies : 0;
        }
    }
    return total;
}

/* Each SR is the only choice of at most one proxy and two hosts: so long the lists are at most,
 * once by VM and once by loss. */
static size_t number_total(const struct work *work)
{
    return 6 * disk_total(work) + work->vm_count;
}

static int allocate(const struct work *work, xvsa_error **error)
{
    struct arena *arena = work->arena;
    const struct xv_sched_site *site = work->site;
    arena->vms = calloc(work->vm_count + 1, sizeof *arena->vms);
    arena->disks = calloc(disk_total(work) + 1, sizeof *arena->disks);
    arena->reach = calloc(reach_total(work) + 1, sizeof *arena->reach);
    arena->proxy_losses = calloc(site->proxy_count + 1, sizeof *arena->proxy_losses);
    arena->host_losses = calloc(site->host_count + 1, sizeof *arena->host_losses);
    arena->numbers = calloc(number_total(work) + 1, sizeof *arena->numbers);
    if (arena->vms == NULL || arena->disks == NULL || arena->reach == NULL ||
        arena->proxy_losses == NULL || arena->host_losses == NULL || arena->numbers == NULL)
        return xv_fail_memory(error);
    return 0;
}

static void describe_vms(const struct work *work, size_t **numbers)
{
    struct arena *arena = work->arena;
    struct xv_reach_disk *disk = arena->disks;
    struct xv_reach *reach = arena->reach;
    for (size_t i = 0; i < work->vm_count; i++) {
        arena->vms[i].disks = disk;
        for (size_t j = 0; j < work->vms[i].disk_count; j++, disk++) {
            disk->reach = reach;
            disk->count = list_reach(work, i, j, reach);
            reach += disk->count;
        }
        describe_vm(work, i, &arena->vms[i], numbers);
    }
    arena->deployment.vms = arena->vms;
    arena->deployment.vm_count = work->vm_count;
    arena->deployment.unreached = *numbers;
    for (size_t i = 0; i < work->vm_count; i++) {
        if (!arena->vms[i].reached)
            *(*numbers)++ = i;
    }
    arena->deployment.unreached_count = (size_t)(*numbers - arena->deployment.unreached);
}

/* The lists of the VMs turned around: of each proxy or host the VMs that go with it. */
static void turn_around(const struct work *work, bool hosts, struct xv_loss *losses, size_t count,
                        size_t **numbers)
{
    const struct xv_reach_vm *vms = work->arena->vms;
    for (size_t i = 0; i < work->vm_count; i++) {
        const size_t *list = hosts ? vms[i].fatal_hosts : vms[i].fatal_proxies;
        size_t length = hosts ? vms[i].fatal_host_count : vms[i].fatal_proxy_count;
        for (size_t j = 0; j < length; j++)
            losses[list[j]].vm_count++;
    }
    for (size_t i = 0; i < count; i++) {
        losses[i].subject = i;
        losses[i].vms = *numbers;
        *numbers += losses[i].vm_count;
        losses[i].vm_count = 0;
    }
    for (size_t i = 0; i < work->vm_count; i++) {
        const size_t *list = hosts ? vms[i].fatal_hosts : vms[i].fatal_proxies;
        size_t length = hosts ? vms[i].fatal_host_count : vms[i].fatal_proxy_count;
        for (size_t j = 0; j < length; j++) {
            struct xv_loss *loss = &losses[list[j]];
            ((size_t *)(uintptr_t)loss->vms)[loss->vm_count++] = i;
        }
    }
}

static void list_losses(const struct work *work, size_t **numbers)
{
    struct arena *arena = work->arena;
    struct xv_deployment *deployment = &arena->deployment;
    turn_around(work, false, arena->proxy_losses, work->site->proxy_count, numbers);
    turn_around(work, true, arena->host_losses, work->site->host_count, numbers);
    deployment->proxy_losses = arena->proxy_losses;
    for (size_t i = 0; i < work->site->proxy_count; i++) {
        if (!work->site->proxies[i].lost)
            arena->proxy_losses[deployment->proxy_loss_count++] = arena->proxy_losses[i];
    }
    deployment->host_losses = arena->host_losses;
    deployment->host_loss_count = work->site->host_count;
}

int xv_deployment_analyse(const struct xv_sched_site *site, const struct xv_sched_vm *vms,
                          size_t count, struct xv_deployment **ret, xvsa_error **error)
{
    struct arena *arena = calloc(1, sizeof *arena);
    struct work work = {site, vms, count, NULL, NULL, arena};
    work.srs = calloc(site->sr_count + 1, sizeof *work.srs);
    work.base_hosts = calloc(site->sr_count * site->host_count + 1, sizeof *work.base_hosts);
    int rc = 0;
    if (arena == NULL || work.srs == NULL || work.base_hosts == NULL)
        rc = xv_fail_memory(error);
    for (size_t sr = 0; rc == 0 && sr < site->sr_count; sr++)
        look_at_sr(&work, sr);
    if (rc == 0)
        rc = allocate(&work, error);
    if (rc == 0) {
        size_t *numbers = arena->numbers;
        describe_vms(&work, &numbers);
        list_losses(&work, &numbers);
    }
    for (int goal = 0; rc == 0 && goal < XV_GOAL_COUNT; goal++)
        rc = xv_advise(&work, (enum xv_goal)goal, error);
    free(work.srs);
    free(work.base_hosts);
    if (rc != 0) {
        xv_deployment_free(arena == NULL ? NULL : &arena->deployment);
        return rc;
    }
    *ret = &arena->deployment;
    return 0;
}

void xv_deployment_free(struct xv_deployment *deployment)
{
    if (deployment == NULL)
        return;
    struct arena *arena = (struct arena *)deployment;
    for (size_t i = 0; i < XV_GOAL_COUNT; i++) {
        free(arena->advice[i]);
        free(arena->additions[i]);
    }
    free(arena->vms);
    free(arena->disks);
    free(arena->reach);
    free(arena->proxy_losses);
    free(arena->host_losses);
    free(arena->numbers);
    free(arena);
}
