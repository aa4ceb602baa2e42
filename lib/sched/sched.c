/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sched/sched.h"

#include <stdlib.h>
#include <string.h>

static bool host_has(const struct xv_sched_site *site, size_t host, size_t sr)
{
    return host < site->host_count && sr < site->sr_count &&
           site->attached[host * site->sr_count + sr];
}

const char *xv_tier_name(enum xv_tier tier)
{
    static const char *const names[] = {"none", "network", "sr", "host"};
    return names[tier];
}

const char *xv_transport_name(uint32_t transport)
{
    switch (transport) {
    case XV_TRANSPORT_HOTADD:
        return "hotadd";
    case XV_TRANSPORT_NBD:
        return "nbd";
    case XV_TRANSPORT_HTTP:
        return "http";
    default:
        return "none";
    }
}

uint32_t xv_sched_best_transport(uint32_t mask)
{
    return mask & (~mask + 1);
}

static bool any_host_has(const struct xv_sched_site *site, size_t sr)
{
    for (size_t host = 0; host < site->host_count; host++) {
        if (host_has(site, host, sr))
            return true;
    }
    return false;
}

enum xv_tier xv_sched_tier(const struct xv_sched_site *site, size_t proxy, size_t sr,
                           size_t vm_host)
{
    if (proxy >= site->proxy_count || site->proxies[proxy].lost)
        return XV_TIER_NONE;
    const struct xv_sched_proxy *it = &site->proxies[proxy];
    if (host_has(site, it->host, sr))
        return vm_host != XV_SCHED_NONE && it->host == vm_host ? XV_TIER_HOST : XV_TIER_SR;
    if (site->network && it->network && any_host_has(site, sr))
        return XV_TIER_NETWORK;
    return XV_TIER_NONE;
}

uint32_t xv_sched_transports(const struct xv_sched_site *site, size_t proxy, size_t sr)
{
    static const uint32_t allowed[] = {
        [XV_TIER_NONE] = 0,
        [XV_TIER_NETWORK] = XV_TRANSPORT_NBD | XV_TRANSPORT_HTTP,
        [XV_TIER_SR] = XV_TRANSPORT_ALL,
        [XV_TIER_HOST] = XV_TRANSPORT_ALL,
    };
    enum xv_tier tier = xv_sched_tier(site, proxy, sr, XV_SCHED_NONE);
    if (tier == XV_TIER_NONE)
        return 0;
    uint32_t own = site->proxies[proxy].transports;
    return allowed[tier] & (own == 0 ? XV_TRANSPORT_ALL : own) &
           (site->transports == 0 ? XV_TRANSPORT_ALL : site->transports);
}

bool xv_sched_eligible(const struct xv_sched_site *site, size_t proxy, size_t sr)
{
    return xv_sched_transports(site, proxy, sr) != 0;
}

static size_t eligible_for(const struct xv_sched_site *site, size_t sr)
{
    size_t count = 0;
    for (size_t i = 0; i < site->proxy_count; i++)
        count += xv_sched_eligible(site, i, sr) ? 1 : 0;
    return count;
}

size_t xv_sched_eligible_count(const struct xv_sched_site *site, const struct xv_sched_vm *vm)
{
    size_t least = site->proxy_count;
    for (size_t i = 0; i < vm->disk_count; i++) {
        size_t count = eligible_for(site, vm->disks[i].sr);
        if (count < least)
            least = count;
    }
    return least;
}

struct rank {
    size_t index;
    const struct xv_sched_vm *vm;
    size_t eligible;
    uint32_t transfers; /* that the SR allows which allows the fewest */
    uint64_t bytes;
};

static int compare_ranks(const void *left, const void *right)
{
    const struct rank *a = left;
    const struct rank *b = right;
    if (a->vm->is_protected != b->vm->is_protected)
        return a->vm->is_protected ? 1 : -1;
    if (a->vm->failed != b->vm->failed)
        return a->vm->failed ? -1 : 1;
    if (a->eligible != b->eligible)
        return a->eligible < b->eligible ? -1 : 1;
    if (a->transfers != b->transfers)
        return a->transfers < b->transfers ? -1 : 1;
    if (a->bytes != b->bytes)
        return a->bytes > b->bytes ? -1 : 1;
    int order = strcmp(a->vm->key, b->vm->key);
    if (order != 0)
        return order;
    return a->index < b->index ? -1 : a->index > b->index;
}

/* Eligible proxies of each SR, so that the VMs need not look at all proxies. */
static size_t *count_choices(const struct xv_sched_site *site)
{
    size_t *choices = calloc(site->sr_count + 1, sizeof *choices);
    for (size_t sr = 0; choices != NULL && sr < site->sr_count; sr++)
        choices[sr] = eligible_for(site, sr);
    return choices;
}

static struct rank rank_vm(const struct xv_sched_site *site, const size_t *choices,
                           const struct xv_sched_vm *vm, size_t index)
{
    struct rank rank = {index, vm, site->proxy_count, UINT32_MAX, 0};
    for (size_t i = 0; i < vm->disk_count; i++) {
        size_t sr = vm->disks[i].sr;
        size_t count = sr < site->sr_count ? choices[sr] : 0;
        rank.eligible = count < rank.eligible ? count : rank.eligible;
        rank.bytes += vm->disks[i].bytes;
        uint32_t limit = site->sr_limits == NULL || sr >= site->sr_count ? 0 : site->sr_limits[sr];
        rank.transfers = limit != 0 && limit < rank.transfers ? limit : rank.transfers;
    }
    return rank;
}

int xv_sched_order(const struct xv_sched_site *site, const struct xv_sched_vm *vms, size_t count,
                   size_t *order, xvsa_error **error)
{
    struct rank *ranks = calloc(count + 1, sizeof *ranks);
    size_t *choices = count_choices(site);
    if (ranks == NULL || choices == NULL) {
        free(ranks);
        free(choices);
        return xv_fail_memory(error);
    }
    for (size_t i = 0; i < count; i++)
        ranks[i] = rank_vm(site, choices, &vms[i], i);
    qsort(ranks, count, sizeof *ranks, compare_ranks);
    for (size_t i = 0; i < count; i++)
        order[i] = ranks[i].index;
    free(ranks);
    free(choices);
    return 0;
}

size_t xv_sched_helping_hosts(const struct xv_sched_site *site, const struct xv_sched_vm *vm,
                              bool *helps)
{
    size_t count = 0;
    for (size_t host = 0; host < site->host_count; host++) {
        helps[host] = true;
        for (size_t i = 0; i < vm->disk_count; i++) {
            size_t sr = vm->disks[i].sr;
            if (eligible_for(site, sr) == 0 && !host_has(site, host, sr))
                helps[host] = false;
        }
        count += helps[host] ? 1 : 0;
    }
    return count;
}
