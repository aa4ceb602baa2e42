/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What it costs to give a disk to a proxy: when the proxy, the host that serves the disk and the SR
 * would be done, each with all that was given to it. docs/scheduling.md has the formula.
 */
#include <stdlib.h>
#include <string.h>

#include "sched/state.h"

/* Bytes that a disk's beginning and end are worth. */
#define DISK_BYTES (UINT64_C(16) << 20)
/* Weights, in sixteenths of a byte moved by hot-add. */
#define SIXTEENTHS     16u
#define WEIGHT_HOTADD  16u
#define WEIGHT_NBD     18u
#define WEIGHT_HTTP    24u
#define NETWORK_FACTOR 2u
/* What is saved when the VM runs on the proxy's host. */
#define HOST_BONUS 1u
/* No disk is larger than the pool can make it; keeps sums of work below 2^64. */
#define BYTES_MAX (UINT64_C(1) << 50)

struct xv_sched_disk *xv_slot_disk(const struct xv_assignment *a, size_t slot)
{
    size_t vm = a->disks[slot].vm;
    return &a->vms[vm].disks[slot - a->slots[vm].first];
}

static uint64_t work_of(uint64_t bytes, uint32_t transport, enum xv_tier tier)
{
    uint64_t weight = transport == XV_TRANSPORT_HOTADD ? WEIGHT_HOTADD
                      : transport == XV_TRANSPORT_NBD  ? WEIGHT_NBD
                                                       : WEIGHT_HTTP;
    if (tier == XV_TIER_NETWORK)
        weight *= NETWORK_FACTOR;
    if (tier == XV_TIER_HOST)
        weight -= HOST_BONUS;
    bytes = bytes > BYTES_MAX ? BYTES_MAX : bytes;
    return (bytes + DISK_BYTES) / SIXTEENTHS * weight;
}

static uint32_t host_limit(const struct xv_sched_site *site, size_t host)
{
    uint32_t limit = site->host_limits == NULL ? 0 : site->host_limits[host];
    return limit == 0 ? XV_SCHED_HOST_DISKS : limit;
}

/* When all of the three would be done, in work for one place. */
static uint64_t done_by(const struct xv_assignment *a, const struct worker *worker, size_t via,
                        size_t sr, uint64_t work)
{
    const struct xv_sched_site *site = a->site;
    uint64_t latest = (worker->work + work) / worker->capacity;
    uint64_t host = (a->host_work[via] + work) / host_limit(site, via);
    uint32_t limit = site->sr_limits == NULL ? 0 : site->sr_limits[sr];
    uint64_t storage = limit == 0 ? 0 : (a->sr_work[sr] + work) / limit;
    latest = host > latest ? host : latest;
    return storage > latest ? storage : latest;
}

struct candidate {
    struct choice choice;
    uint64_t all_done, proxy_done;
    size_t rank;
};

static bool is_better(const struct candidate *a, const struct candidate *b)
{
    if (a->all_done != b->all_done)
        return a->all_done < b->all_done;
    if (a->proxy_done != b->proxy_done)
        return a->proxy_done < b->proxy_done;
    if (a->choice.tier != b->choice.tier)
        return a->choice.tier > b->choice.tier;
    return a->rank < b->rank;
}

static void consider(const struct xv_assignment *a, const struct group *group, size_t via,
                     const struct xv_sched_disk *disk, enum xv_tier tier, struct candidate *best)
{
    if (group->live == 0 || group->transports == 0)
        return;
    uint32_t transports = group->transports;
    if (tier == XV_TIER_NETWORK)
        transports &= ~XV_TRANSPORT_HOTADD;
    size_t proxy = group->heap[0];
    const struct worker *worker = &a->workers[proxy];
    uint64_t work = work_of(disk->bytes, xv_sched_best_transport(transports), tier);
    struct candidate it = {{proxy, via, tier, work},
                           done_by(a, worker, via, disk->sr, work),
                           (worker->work + work) / worker->capacity,
                           worker->rank};
    if (best->choice.proxy == XV_SCHED_NONE || is_better(&it, best))
        *best = it;
}

/* The host of the SR that has the least to do. */
static size_t serving_host(const struct xv_assignment *a, size_t sr)
{
    size_t best = XV_SCHED_NONE;
    for (size_t i = a->sr_hosts.first[sr]; i < a->sr_hosts.first[sr + 1]; i++) {
        size_t host = a->sr_hosts.items[i];
        if (best == XV_SCHED_NONE || a->host_work[host] < a->host_work[best] ||
            (a->host_work[host] == a->host_work[best] && a->host_ranks[host] < a->host_ranks[best]))
            best = host;
    }
    return best;
}

bool xv_cost_choose(const struct xv_assignment *a, const struct xv_sched_disk *disk, size_t vm_host,
                    struct choice *ret)
{
    struct candidate best = {.choice.proxy = XV_SCHED_NONE};
    size_t sr = disk->sr;
    if (sr >= a->site->sr_count)
        return false;
    for (size_t i = a->sr_groups.first[sr]; i < a->sr_groups.first[sr + 1]; i++) {
        const struct group *group = &a->groups[a->sr_groups.items[i]];
        bool same = vm_host != XV_SCHED_NONE && group->host == vm_host;
        consider(a, group, group->host, disk, same ? XV_TIER_HOST : XV_TIER_SR, &best);
    }
    size_t via = best.choice.proxy == XV_SCHED_NONE ? serving_host(a, sr) : XV_SCHED_NONE;
    for (size_t i = 0; via != XV_SCHED_NONE && i < a->network_group_count; i++) {
        const struct group *group = &a->groups[a->network_groups[i]];
        if (xv_group_reaches(a, group, sr))
            consider(a, group, via, disk, XV_TIER_NETWORK, &best);
    }
    *ret = best.choice;
    return best.choice.proxy != XV_SCHED_NONE;
}

void xv_cost_give(struct xv_assignment *a, size_t slot, const struct choice *choice)
{
    struct xv_sched_disk *disk = xv_slot_disk(a, slot);
    struct disk_slot *entry = &a->disks[slot];
    struct worker *worker = &a->workers[choice->proxy];
    disk->proxy = choice->proxy;
    disk->via = choice->via;
    disk->tier = choice->tier;
    entry->work = choice->work;
    worker->work += choice->work;
    worker->disks++;
    a->host_work[choice->via] += choice->work;
    a->sr_work[disk->sr] += choice->work;
    a->site->proxies[choice->proxy].bytes += disk->bytes;
    a->site->proxies[choice->proxy].running++;
    entry->previous = XV_SCHED_NONE;
    entry->next = worker->first_disk;
    if (entry->next != XV_SCHED_NONE)
        a->disks[entry->next].previous = slot;
    worker->first_disk = slot;
    xv_groups_resort(a, choice->proxy);
}

void xv_cost_take(struct xv_assignment *a, size_t slot)
{
    struct xv_sched_disk *disk = xv_slot_disk(a, slot);
    struct disk_slot *entry = &a->disks[slot];
    if (disk->proxy == XV_SCHED_NONE)
        return;
    struct worker *worker = &a->workers[disk->proxy];
    worker->work -= entry->work;
    worker->disks--;
    a->host_work[disk->via] -= entry->work;
    a->sr_work[disk->sr] -= entry->work;
    a->site->proxies[disk->proxy].bytes -= disk->bytes;
    a->site->proxies[disk->proxy].running--;
    if (entry->previous == XV_SCHED_NONE)
        worker->first_disk = entry->next;
    else
        a->disks[entry->previous].next = entry->next;
    if (entry->next != XV_SCHED_NONE)
        a->disks[entry->next].previous = entry->previous;
    xv_groups_resort(a, disk->proxy);
    disk->proxy = XV_SCHED_NONE;
    disk->via = XV_SCHED_NONE;
    disk->tier = XV_TIER_NONE;
}

/* Somebody who might own a VM. */
struct suitor {
    size_t proxy;
    size_t reached; /* disks */
    uint64_t bytes; /* of the VM's that were given to it */
};

static bool suits_better(const struct xv_assignment *a, const struct suitor *x,
                         const struct suitor *y)
{
    if (y->proxy == XV_SCHED_NONE || x->reached != y->reached)
        return y->proxy == XV_SCHED_NONE || x->reached > y->reached;
    if (x->bytes != y->bytes)
        return x->bytes > y->bytes;
    const struct worker *one = &a->workers[x->proxy];
    const struct worker *other = &a->workers[y->proxy];
    uint64_t tasks_one = (uint64_t)one->tasks * other->capacity;
    uint64_t tasks_other = (uint64_t)other->tasks * one->capacity;
    return tasks_one != tasks_other ? tasks_one < tasks_other : one->rank < other->rank;
}

/* Disks of the VM that proxies of the group reach, or that are done. */
static size_t reached_by(const struct xv_assignment *a, size_t vm, const struct group *group)
{
    const struct xv_sched_vm *it = &a->vms[vm];
    size_t count = 0;
    for (size_t i = 0; i < it->disk_count; i++) {
        bool done = a->disks[a->slots[vm].first + i].done;
        count += done || xv_group_reaches(a, group, it->disks[i].sr) ? 1 : 0;
    }
    return count;
}

static void court(const struct xv_assignment *a, const struct suitor *suitor, struct suitor *best)
{
    if (suits_better(a, suitor, best))
        *best = *suitor;
}

/* One of those that were given a disk of the VM. */
static void court_mover(const struct xv_assignment *a, size_t vm, size_t proxy, struct suitor *best)
{
    const struct xv_sched_vm *it = &a->vms[vm];
    if (proxy == XV_SCHED_NONE || a->site->proxies[proxy].lost)
        return;
    struct suitor suitor = {proxy, reached_by(a, vm, &a->groups[a->workers[proxy].group]), 0};
    for (size_t i = 0; i < it->disk_count; i++)
        suitor.bytes += it->disks[i].proxy == proxy ? it->disks[i].bytes : 0;
    court(a, &suitor, best);
}

size_t xv_cost_owner(const struct xv_assignment *a, size_t vm)
{
    const struct xv_sched_vm *it = &a->vms[vm];
    struct suitor best = {XV_SCHED_NONE, 0, 0};
    for (size_t i = 0; i < it->disk_count; i++)
        court_mover(a, vm, it->disks[i].proxy, &best);
    if (best.proxy != XV_SCHED_NONE && best.reached == it->disk_count)
        return best.proxy;
    /* None of those that move its disks reaches all of them: somebody else may. */
    for (size_t i = 0; i < a->group_count; i++) {
        const struct group *group = &a->groups[i];
        size_t reached = reached_by(a, vm, group);
        for (size_t j = 0; reached >= best.reached && j < group->live; j++) {
            struct suitor suitor = {group->heap[j], reached, 0};
            court(a, &suitor, &best);
        }
    }
    return best.proxy;
}

void xv_owner_give(struct xv_assignment *a, size_t vm, size_t proxy)
{
    struct worker *worker = &a->workers[proxy];
    struct vm_slot *slot = &a->slots[vm];
    a->vms[vm].owner = proxy;
    worker->tasks++;
    slot->previous = XV_SCHED_NONE;
    slot->next = worker->first_vm;
    if (slot->next != XV_SCHED_NONE)
        a->slots[slot->next].previous = vm;
    worker->first_vm = vm;
}

void xv_owner_take(struct xv_assignment *a, size_t vm)
{
    size_t owner = a->vms[vm].owner;
    if (owner == XV_SCHED_NONE)
        return;
    struct worker *worker = &a->workers[owner];
    struct vm_slot *slot = &a->slots[vm];
    worker->tasks--;
    if (slot->previous == XV_SCHED_NONE)
        worker->first_vm = slot->next;
    else
        a->slots[slot->previous].next = slot->next;
    if (slot->next != XV_SCHED_NONE)
        a->slots[slot->next].previous = slot->previous;
    a->vms[vm].owner = XV_SCHED_NONE;
}
