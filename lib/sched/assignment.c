/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sched/assignment.h"

#include <stdlib.h>
#include <string.h>

#include "sched/state.h"

struct named {
    const char *key;
    size_t index;
};

static int compare_named(const void *left, const void *right)
{
    const struct named *a = left;
    const struct named *b = right;
    int order = strcmp(a->key == NULL ? "" : a->key, b->key == NULL ? "" : b->key);
    if (order != 0)
        return order;
    return a->index < b->index ? -1 : a->index > b->index;
}

static void rank(struct named *named, size_t count, size_t *ranks)
{
    qsort(named, count, sizeof *named, compare_named);
    for (size_t i = 0; i < count; i++)
        ranks[named[i].index] = i;
}

/* Ranks of proxies and hosts by key, so that numbers do not matter. */
static int rank_all(struct xv_assignment *a, xvsa_error **error)
{
    const struct xv_sched_site *site = a->site;
    size_t most = site->proxy_count > site->host_count ? site->proxy_count : site->host_count;
    struct named *named = calloc(most + 1, sizeof *named);
    size_t *ranks = calloc(most + 1, sizeof *ranks);
    if (named == NULL || ranks == NULL) {
        free(named);
        free(ranks);
        return xv_fail_memory(error);
    }
    for (size_t i = 0; i < site->host_count; i++)
        named[i] = (struct named){site->host_keys == NULL ? NULL : site->host_keys[i], i};
    rank(named, site->host_count, a->host_ranks);
    for (size_t i = 0; i < site->proxy_count; i++)
        named[i] = (struct named){site->proxies[i].key, i};
    rank(named, site->proxy_count, ranks);
    for (size_t i = 0; i < site->proxy_count; i++)
        a->workers[i].rank = ranks[i];
    free(named);
    free(ranks);
    return 0;
}

/* A disk to be given away. */
struct offer {
    size_t slot;
    size_t choices;
    uint64_t bytes;
    size_t rank; /* of its VM */
};

static int compare_offers(const void *left, const void *right)
{
    const struct offer *a = left;
    const struct offer *b = right;
    if (a->choices != b->choices)
        return a->choices < b->choices ? -1 : 1;
    if (a->bytes != b->bytes)
        return a->bytes > b->bytes ? -1 : 1;
    if (a->rank != b->rank)
        return a->rank < b->rank ? -1 : 1;
    return a->slot < b->slot ? -1 : a->slot > b->slot;
}

/* The VM's disks that are open, or 0 when one of them is out of reach. */
static size_t offer_vm(const struct xv_assignment *a, size_t vm, struct offer *offers)
{
    const struct xv_sched_vm *it = &a->vms[vm];
    size_t count = 0;
    for (size_t i = 0; i < it->disk_count; i++) {
        size_t slot = a->slots[vm].first + i;
        if (a->disks[slot].done || it->disks[i].proxy != XV_SCHED_NONE)
            continue;
        size_t choices = xv_groups_choices(a, it->disks[i].sr);
        if (choices == 0)
            return 0;
        offers[count++] = (struct offer){slot, choices, it->disks[i].bytes, a->slots[vm].rank};
    }
    return count;
}

int xv_assignment_fill(struct xv_assignment *a, const size_t *vms, size_t count, xvsa_error **error)
{
    size_t most = 0;
    for (size_t i = 0; i < count; i++)
        most += a->vms[vms[i]].disk_count;
    struct offer *offers = calloc(most + 1, sizeof *offers);
    if (offers == NULL)
        return xv_fail_memory(error);
    size_t offered = 0;
    for (size_t i = 0; i < count; i++)
        offered += offer_vm(a, vms[i], offers + offered);
    qsort(offers, offered, sizeof *offers, compare_offers);
    for (size_t i = 0; i < offered; i++) {
        struct choice choice;
        size_t vm_host = a->vms[a->disks[offers[i].slot].vm].host;
        if (xv_cost_choose(a, xv_slot_disk(a, offers[i].slot), vm_host, &choice))
            xv_cost_give(a, offers[i].slot, &choice);
    }
    free(offers);
    return 0;
}

/* True when every open disk of the VM is given away. */
static bool is_whole(const struct xv_assignment *a, size_t vm)
{
    for (size_t i = 0; i < a->vms[vm].disk_count; i++) {
        if (!a->disks[a->slots[vm].first + i].done && a->vms[vm].disks[i].proxy == XV_SCHED_NONE)
            return false;
    }
    return true;
}

void xv_assignment_give_task(struct xv_assignment *a, size_t vm)
{
    if (a->slots[vm].done || a->vms[vm].owner != XV_SCHED_NONE || !is_whole(a, vm))
        return;
    size_t owner = a->slots[vm].kept;
    if (owner == XV_SCHED_NONE || a->site->proxies[owner].lost)
        owner = xv_cost_owner(a, vm);
    if (owner != XV_SCHED_NONE)
        xv_owner_give(a, vm, owner);
}

void xv_assignment_free(struct xv_assignment *a)
{
    if (a == NULL)
        return;
    xv_groups_free(a);
    free(a->workers);
    free(a->host_work);
    free(a->sr_work);
    free(a->disks);
    free(a->slots);
    free(a->host_ranks);
    free(a->moves);
    free(a->unreachable);
    free(a);
}

static int allocate(struct xv_assignment *a, xvsa_error **error)
{
    const struct xv_sched_site *site = a->site;
    a->workers = calloc(site->proxy_count + 1, sizeof *a->workers);
    a->host_work = calloc(site->host_count + 1, sizeof *a->host_work);
    a->sr_work = calloc(site->sr_count + 1, sizeof *a->sr_work);
    a->host_ranks = calloc(site->host_count + 1, sizeof *a->host_ranks);
    a->disks = calloc(a->disk_count + 1, sizeof *a->disks);
    a->slots = calloc(a->vm_count + 1, sizeof *a->slots);
    if (a->workers == NULL || a->host_work == NULL || a->sr_work == NULL || a->host_ranks == NULL ||
        a->disks == NULL || a->slots == NULL)
        return xv_fail_memory(error);
    return 0;
}

/* What the proxies were given before counts, too. */
static void start_workers(struct xv_assignment *a)
{
    for (size_t i = 0; i < a->site->proxy_count; i++) {
        a->workers[i].work = a->site->proxies[i].bytes;
        a->workers[i].first_disk = XV_SCHED_NONE;
        a->workers[i].first_vm = XV_SCHED_NONE;
    }
}

static void number_slots(struct xv_assignment *a)
{
    size_t next = 0;
    for (size_t i = 0; i < a->vm_count; i++) {
        struct xv_sched_vm *vm = &a->vms[i];
        bool lives = vm->owner < a->site->proxy_count && !a->site->proxies[vm->owner].lost;
        a->slots[i].kept = vm->taken && lives ? vm->owner : XV_SCHED_NONE;
        vm->owner = XV_SCHED_NONE;
        a->slots[i].first = next;
        for (size_t j = 0; j < vm->disk_count; j++) {
            a->disks[next].vm = i;
            a->disks[next++].done = vm->disks[j].done;
            vm->disks[j].proxy = XV_SCHED_NONE;
            vm->disks[j].via = XV_SCHED_NONE;
            vm->disks[j].tier = XV_TIER_NONE;
        }
    }
}

static int fill_all(struct xv_assignment *a, xvsa_error **error)
{
    size_t *order = calloc(a->vm_count + 1, sizeof *order);
    if (order == NULL)
        return xv_fail_memory(error);
    int rc = xv_sched_order(a->site, a->vms, a->vm_count, order, error);
    for (size_t i = 0; rc == 0 && i < a->vm_count; i++)
        a->slots[order[i]].rank = i;
    if (rc == 0)
        rc = xv_assignment_fill(a, order, a->vm_count, error);
    for (size_t i = 0; rc == 0 && i < a->vm_count; i++)
        xv_assignment_give_task(a, order[i]);
    free(order);
    return rc;
}

int xv_assignment_new(struct xv_sched_site *site, struct xv_sched_vm *vms, size_t count,
                      struct xv_assignment **ret, xvsa_error **error)
{
    struct xv_assignment *a = calloc(1, sizeof *a);
    if (a == NULL)
        return xv_fail_memory(error);
    a->site = site;
    a->vms = vms;
    a->vm_count = count;
    for (size_t i = 0; i < count; i++)
        a->disk_count += vms[i].disk_count;
    int rc = allocate(a, error);
    if (rc == 0) {
        start_workers(a);
        number_slots(a);
        rc = rank_all(a, error);
    }
    if (rc == 0)
        rc = xv_groups_make(a, error);
    if (rc == 0)
        rc = fill_all(a, error);
    if (rc != 0) {
        xv_assignment_free(a);
        return rc;
    }
    *ret = a;
    return 0;
}
