/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What changes in an assignment when work ends and proxies are lost or come back.
 */
#include <stdlib.h>
#include <string.h>

#include "sched/state.h"

void xv_assignment_finish(struct xv_assignment *a, size_t vm, size_t disk)
{
    struct vm_slot *slot = &a->slots[vm];
    for (size_t i = 0; i < a->vms[vm].disk_count; i++) {
        struct disk_slot *entry = &a->disks[slot->first + i];
        if (!entry->done && (disk == XV_SCHED_NONE || disk == i)) {
            xv_cost_take(a, slot->first + i);
            entry->done = true;
        }
    }
    if (disk == XV_SCHED_NONE) {
        xv_owner_take(a, vm);
        slot->done = true;
    }
}

static int compare_numbers(const void *left, const void *right)
{
    size_t a = *(const size_t *)left;
    size_t b = *(const size_t *)right;
    return a < b ? -1 : a > b;
}

/* Where things were before a change. */
struct before {
    size_t *vms; /* that are concerned; ascending, each once */
    size_t count;
    size_t *owners; /* of each of them */
    size_t *disks;  /* proxies of their disks, one VM after another */
};

static void free_before(struct before *before)
{
    free(before->vms);
    free(before->owners);
    free(before->disks);
}

static int note_owners(const struct xv_assignment *a, struct before *before, xvsa_error **error)
{
    size_t disks = 0;
    for (size_t i = 0; i < before->count; i++)
        disks += a->vms[before->vms[i]].disk_count;
    before->owners = calloc(before->count + 1, sizeof *before->owners);
    before->disks = calloc(disks + 1, sizeof *before->disks);
    if (before->owners == NULL || before->disks == NULL)
        return xv_fail_memory(error);
    size_t next = 0;
    for (size_t i = 0; i < before->count; i++) {
        const struct xv_sched_vm *vm = &a->vms[before->vms[i]];
        before->owners[i] = vm->owner;
        for (size_t j = 0; j < vm->disk_count; j++)
            before->disks[next++] = vm->disks[j].proxy;
    }
    return 0;
}

/* The VMs that the proxy owns or moves a disk of. */
static int note_proxy(const struct xv_assignment *a, size_t proxy, struct before *before,
                      xvsa_error **error)
{
    const struct worker *worker = &a->workers[proxy];
    size_t most = worker->tasks + worker->disks;
    before->vms = calloc(most + 1, sizeof *before->vms);
    if (before->vms == NULL)
        return xv_fail_memory(error);
    size_t count = 0;
    for (size_t i = worker->first_disk; i != XV_SCHED_NONE; i = a->disks[i].next)
        before->vms[count++] = a->disks[i].vm;
    for (size_t i = worker->first_vm; i != XV_SCHED_NONE; i = a->slots[i].next)
        before->vms[count++] = i;
    qsort(before->vms, count, sizeof *before->vms, compare_numbers);
    for (size_t i = 0; i < count; i++) {
        if (before->count == 0 || before->vms[before->count - 1] != before->vms[i])
            before->vms[before->count++] = before->vms[i];
    }
    return note_owners(a, before, error);
}

/* The VMs that nobody could move. */
static int note_unreached(const struct xv_assignment *a, struct before *before, xvsa_error **error)
{
    before->vms = calloc(a->vm_count + 1, sizeof *before->vms);
    if (before->vms == NULL)
        return xv_fail_memory(error);
    for (size_t i = 0; i < a->vm_count; i++) {
        if (!a->slots[i].done && a->vms[i].owner == XV_SCHED_NONE)
            before->vms[before->count++] = i;
    }
    return note_owners(a, before, error);
}

/* Takes the VM from everybody when one of its open disks is out of reach. */
static void drop_unreached(struct xv_assignment *a, size_t vm)
{
    size_t first = a->slots[vm].first;
    bool reached = true;
    for (size_t i = 0; i < a->vms[vm].disk_count; i++) {
        if (!a->disks[first + i].done && xv_groups_choices(a, a->vms[vm].disks[i].sr) == 0)
            reached = false;
    }
    for (size_t i = 0; !reached && i < a->vms[vm].disk_count; i++) {
        if (!a->disks[first + i].done)
            xv_cost_take(a, first + i);
    }
    if (!reached)
        xv_owner_take(a, vm);
}

/* Lists what is not where it was. */
static int report(struct xv_assignment *a, const struct before *before, struct xv_moves *ret,
                  xvsa_error **error)
{
    size_t most = 0;
    for (size_t i = 0; i < before->count; i++)
        most += 1 + a->vms[before->vms[i]].disk_count;
    free(a->moves);
    free(a->unreachable);
    a->moves = calloc(most + 1, sizeof *a->moves);
    a->unreachable = calloc(before->count + 1, sizeof *a->unreachable);
    if (a->moves == NULL || a->unreachable == NULL)
        return xv_fail_memory(error);
    *ret = (struct xv_moves){a->moves, 0, a->unreachable, 0};
    const size_t *was = before->disks;
    for (size_t i = 0; i < before->count; i++) {
        size_t index = before->vms[i];
        const struct xv_sched_vm *vm = &a->vms[index];
        if (vm->owner == XV_SCHED_NONE && !a->slots[index].done)
            a->unreachable[ret->unreachable_count++] = index;
        if (vm->owner != before->owners[i])
            a->moves[ret->count++] =
                (struct xv_move){index, XV_SCHED_NONE, before->owners[i], vm->owner};
        for (size_t j = 0; j < vm->disk_count; j++, was++) {
            if (vm->disks[j].proxy != *was)
                a->moves[ret->count++] = (struct xv_move){index, j, *was, vm->disks[j].proxy};
        }
    }
    return 0;
}

static int refill(struct xv_assignment *a, const struct before *before, struct xv_moves *ret,
                  xvsa_error **error)
{
    int rc = xv_assignment_fill(a, before->vms, before->count, error);
    for (size_t i = 0; rc == 0 && i < before->count; i++)
        xv_assignment_give_task(a, before->vms[i]);
    return rc == 0 ? report(a, before, ret, error) : rc;
}

int xv_assignment_lose(struct xv_assignment *a, size_t proxy, struct xv_moves *ret,
                       xvsa_error **error)
{
    struct before before = {0};
    int rc = note_proxy(a, proxy, &before, error);
    if (rc != 0) {
        free_before(&before);
        return rc;
    }
    xv_groups_remove(a, proxy);
    a->site->proxies[proxy].lost = true;
    while (a->workers[proxy].first_disk != XV_SCHED_NONE)
        xv_cost_take(a, a->workers[proxy].first_disk);
    while (a->workers[proxy].first_vm != XV_SCHED_NONE)
        xv_owner_take(a, a->workers[proxy].first_vm);
    for (size_t i = 0; i < before.count; i++)
        drop_unreached(a, before.vms[i]);
    rc = refill(a, &before, ret, error);
    free_before(&before);
    return rc;
}

int xv_assignment_join(struct xv_assignment *a, size_t proxy, size_t host, struct xv_moves *ret,
                       xvsa_error **error)
{
    struct before before = {0};
    int rc = note_unreached(a, &before, error);
    if (rc == 0) {
        a->site->proxies[proxy].lost = false;
        a->site->proxies[proxy].host = host;
        /* It may begin a group of its own. */
        xv_groups_free(a);
        rc = xv_groups_make(a, error);
    }
    if (rc == 0)
        rc = refill(a, &before, ret, error);
    free_before(&before);
    return rc;
}
