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
    if (a->bytes != b->bytes)
        return a->bytes > b->bytes ? -1 : 1;
    int order = strcmp(a->vm->key, b->vm->key);
    if (order != 0)
        return order;
    return a->index < b->index ? -1 : a->index > b->index;
}

int xv_sched_order(const struct xv_sched_site *site, const struct xv_sched_vm *vms, size_t count,
                   size_t *order, xvsa_error **error)
{
    if (count == 0)
        return 0;
    struct rank *ranks = calloc(count, sizeof *ranks);
    if (ranks == NULL)
        return xv_fail_memory(error);
    for (size_t i = 0; i < count; i++) {
        ranks[i] = (struct rank){i, &vms[i], xv_sched_eligible_count(site, &vms[i]), 0};
        for (size_t j = 0; j < vms[i].disk_count; j++)
            ranks[i].bytes += vms[i].disks[j].bytes;
    }
    qsort(ranks, count, sizeof *ranks, compare_ranks);
    for (size_t i = 0; i < count; i++)
        order[i] = ranks[i].index;
    free(ranks);
    return 0;
}

/* Bytes that a proxy would have to move for each disk it can move at once. */
static uint64_t load_with(const struct xv_sched_proxy *proxy, uint64_t bytes)
{
    uint32_t capacity = proxy->capacity == 0 ? 1 : proxy->capacity;
    return (proxy->bytes + bytes) / capacity;
}

static bool less_loaded(const struct xv_sched_proxy *a, const struct xv_sched_proxy *b,
                        uint64_t bytes)
{
    uint64_t load_a = load_with(a, bytes);
    uint64_t load_b = load_with(b, bytes);
    if (load_a != load_b)
        return load_a < load_b;
    /* Cross-multiplied running / capacity; empty disks count as work, too. */
    return (uint64_t)a->running * b->capacity < (uint64_t)b->running * a->capacity;
}

static size_t choose_proxy(const struct xv_sched_site *site, const struct xv_sched_disk *disk,
                           size_t vm_host)
{
    size_t best = XV_SCHED_NONE;
    size_t local = XV_SCHED_NONE;
    for (size_t i = 0; i < site->proxy_count; i++) {
        if (!xv_sched_eligible(site, i, disk->sr))
            continue;
        const struct xv_sched_proxy *proxy = &site->proxies[i];
        if (best == XV_SCHED_NONE || less_loaded(proxy, &site->proxies[best], disk->bytes))
            best = i;
        if (vm_host != XV_SCHED_NONE && proxy->host == vm_host &&
            (local == XV_SCHED_NONE || less_loaded(proxy, &site->proxies[local], disk->bytes)))
            local = i;
    }
    if (local == XV_SCHED_NONE)
        return best;
    return less_loaded(&site->proxies[best], &site->proxies[local], disk->bytes) ? best : local;
}

static size_t largest_open_disk(const struct xv_sched_vm *vm)
{
    size_t largest = XV_SCHED_NONE;
    for (size_t i = 0; i < vm->disk_count; i++) {
        if (vm->disks[i].proxy == XV_SCHED_NONE &&
            (largest == XV_SCHED_NONE || vm->disks[i].bytes > vm->disks[largest].bytes))
            largest = i;
    }
    return largest;
}

bool xv_sched_assign(struct xv_sched_site *site, struct xv_sched_vm *vm)
{
    for (size_t i = 0; i < vm->disk_count; i++)
        vm->disks[i].proxy = XV_SCHED_NONE;
    if (site->proxy_count == 0 || xv_sched_eligible_count(site, vm) == 0)
        return false;
    size_t index;
    while ((index = largest_open_disk(vm)) != XV_SCHED_NONE) {
        struct xv_sched_disk *disk = &vm->disks[index];
        disk->proxy = choose_proxy(site, disk, vm->host);
        site->proxies[disk->proxy].bytes += disk->bytes;
        site->proxies[disk->proxy].running++;
    }
    return true;
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
