/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The scheduler's answer for the VMs of a plan: their order, and which proxy moves which disk.
 */
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "job/plan.h"
#include "job/transport.h"
#include "sched/assignment.h"

#define TEXT_MAX 2048

/* The plan's VMs in the scheduler's numbers. */
struct board {
    struct xv_sched_vm *vms;
    struct xv_sched_disk *disks; /* of all VMs, one after another */
};

static size_t sr_index(const struct xv_plan *plan, const struct xv_sr *sr)
{
    return sr == NULL ? XV_SCHED_NONE : (size_t)(sr - plan->inventory->srs);
}

static uint64_t expected_bytes(const struct xv_plan *plan, const struct xv_plan_disk *disk)
{
    if (plan->spec->type == XV_JOB_RESTORE)
        return disk->data_bytes;
    uint64_t used = disk->vdi->physical_used;
    uint64_t bytes = used > 0 && used < disk->size ? used : disk->size;
    /* What has changed since the base is not known yet; a tenth orders disks like their size does. */
    return disk->mode == XV_MODE_INCREMENTAL ? bytes / 10 : bytes;
}

static int read_history(struct xv_plan *plan, const struct xv_plan_vm *vm, struct xv_sched_vm *ret,
                        xvsa_error **error)
{
    if (plan->spec->type != XV_JOB_BACKUP)
        return 0;
    ret->is_protected = vm->base != NULL;
    return xv_coord_outcome_get(xv_engine_coord(plan->engine), plan->inventory->pool_uuid, vm->uuid,
                                &ret->failed, error);
}

static int fill_board(struct xv_plan *plan, struct board *board, xvsa_error **error)
{
    struct xv_sched_disk *next = board->disks;
    for (size_t i = 0; i < plan->vm_count; i++) {
        const struct xv_plan_vm *vm = &plan->vms[i];
        struct xv_sched_vm *entry = &board->vms[i];
        entry->host = XV_SCHED_NONE;
        if (vm->vm != NULL && vm->vm->resident_on != NULL)
            entry->host = (size_t)(vm->vm->resident_on - plan->inventory->hosts);
        entry->key = vm->uuid;
        entry->disks = next;
        for (size_t j = 0; j < vm->disk_count; j++) {
            const struct xv_plan_disk *disk = &vm->disks[j];
            if (!disk->skipped)
                *next++ = (struct xv_sched_disk){.sr = sr_index(plan, disk->sr),
                                                 .bytes = expected_bytes(plan, disk),
                                                 .proxy = XV_SCHED_NONE};
        }
        entry->disk_count = (size_t)(next - entry->disks);
        int rc = read_history(plan, vm, entry, error);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static int make_board(struct xv_plan *plan, struct board *board, xvsa_error **error)
{
    size_t disks = 0;
    for (size_t i = 0; i < plan->vm_count; i++)
        disks += plan->vms[i].disk_count;
    board->vms = calloc(plan->vm_count + 1, sizeof *board->vms);
    board->disks = calloc(disks + 1, sizeof *board->disks);
    if (board->vms == NULL || board->disks == NULL)
        return xv_fail_memory(error);
    return fill_board(plan, board, error);
}

/* A proxy's own VM is snapshotted before it gets disks of others attached. */
static void put_proxies_first(const struct xv_plan *plan, size_t *order)
{
    size_t first = 0;
    for (size_t i = 0; plan->spec->use_hotadd && i < plan->vm_count; i++) {
        size_t vm = order[i];
        if (!xv_transport_is_proxy(plan, plan->vms[vm].uuid))
            continue;
        memmove(&order[first + 1], &order[first], (i - first) * sizeof *order);
        order[first++] = vm;
    }
}

static int reorder(struct xv_plan *plan, struct board *board, xvsa_error **error)
{
    size_t count = plan->vm_count;
    size_t *order = calloc(count + 1, sizeof *order);
    struct xv_plan_vm *vms = calloc(count + 1, sizeof *vms);
    struct xv_sched_vm *entries = calloc(count + 1, sizeof *entries);
    int rc = order == NULL || vms == NULL || entries == NULL ? xv_fail_memory(error) : 0;
    if (rc == 0)
        rc = xv_sched_order(&plan->site, board->vms, count, order, error);
    if (rc != 0) {
        free(order);
        free(vms);
        free(entries);
        return rc;
    }
    put_proxies_first(plan, order);
    for (size_t i = 0; i < count; i++) {
        vms[i] = plan->vms[order[i]];
        entries[i] = board->vms[order[i]];
    }
    free(order);
    free(plan->vms);
    free(board->vms);
    plan->vms = vms;
    board->vms = entries;
    return 0;
}

/* Says which SRs nobody reaches, and on which hosts a proxy would. */
static int explain(struct xv_plan *plan, struct xv_plan_vm *vm, const struct xv_sched_vm *entry,
                   xvsa_error **error)
{
    const struct xv_inventory *inventory = plan->inventory;
    vm->helping_hosts = calloc(inventory->host_count + 1, sizeof *vm->helping_hosts);
    if (vm->helping_hosts == NULL)
        return xv_fail_memory(error);
    xv_sched_helping_hosts(&plan->site, entry, vm->helping_hosts);
    struct xv_buffer hosts;
    xv_buffer_init(&hosts, TEXT_MAX);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < inventory->host_count; i++) {
        if (vm->helping_hosts[i] && inventory->hosts[i].live)
            rc = xv_buffer_format(&hosts, NULL, "%s%s", hosts.length == 0 ? "" : ", ",
                                  inventory->hosts[i].name);
    }
    const char *names = hosts.data == NULL ? "none is live" : hosts.data;
    if (plan->proxy_count == 0)
        xv_reasons_add(&vm->reasons, XV_REASON_NO_PROXY, "hosts where one would help: %s", names);
    size_t next = 0;
    for (size_t i = 0; i < vm->disk_count; i++) {
        const struct xv_plan_disk *disk = &vm->disks[i];
        if (disk->skipped)
            continue;
        size_t sr = entry->disks[next++].sr;
        bool reached = false;
        for (size_t j = 0; j < plan->proxy_count; j++)
            reached = reached || xv_sched_eligible(&plan->site, j, sr);
        if (!reached && plan->proxy_count > 0)
            xv_reasons_add(&vm->reasons, XV_REASON_NO_PROXY_REACHES_SR,
                           "SR %s (%s); hosts where a proxy would help: %s",
                           disk->sr == NULL ? "?" : disk->sr->name,
                           disk->sr == NULL ? "?" : disk->sr->uuid, names);
    }
    xv_buffer_free(&hosts);
    return 0;
}

static void take_answers(struct xv_plan_vm *vm, const struct xv_sched_vm *entry)
{
    size_t next = 0;
    for (size_t i = 0; i < vm->disk_count; i++) {
        if (!vm->disks[i].skipped)
            vm->disks[i].proxy = entry->disks[next++].proxy;
    }
}

/* Refuses the VM when a reason of it, of a disk or of an interface speaks against it. */
static int judge(struct xv_plan *plan, struct xv_plan_vm *vm)
{
    char what[TEXT_MAX];
    snprintf(what, sizeof what, "VM \"%s\" (%s)", vm->name, vm->uuid);
    const struct xv_refusals *refusals = &plan->spec->refusals;
    int rc = xv_reasons_check(&vm->reasons, refusals, what, &vm->refusal);
    for (size_t i = 0; rc == 0 && i < vm->disk_count; i++) {
        snprintf(what, sizeof what, "VM \"%s\" (%s), disk %s", vm->name, vm->uuid,
                 vm->disks[i].device);
        rc = xv_reasons_check(&vm->disks[i].reasons, refusals, what, &vm->refusal);
    }
    for (size_t i = 0; rc == 0 && i < vm->vif_count; i++) {
        snprintf(what, sizeof what, "VM \"%s\" (%s), interface %s", vm->name, vm->uuid,
                 vm->vifs[i].device);
        rc = xv_reasons_check(&vm->vifs[i].reasons, refusals, what, &vm->refusal);
    }
    xv_error_set_detail(vm->refusal, "vm", vm->uuid);
    return rc;
}

/* Assigns the VMs that nothing speaks against. */
static int assign(struct xv_plan *plan, struct board *board, xvsa_error **error)
{
    struct xv_sched_vm *chosen = calloc(plan->vm_count + 1, sizeof *chosen);
    if (chosen == NULL)
        return xv_fail_memory(error);
    size_t count = 0;
    for (size_t i = 0; i < plan->vm_count; i++) {
        board->vms[i].owner = XV_SCHED_NONE;
        if (judge(plan, &plan->vms[i]) == 0)
            chosen[count++] = board->vms[i];
    }
    struct xv_assignment *assignment = NULL;
    int rc = xv_assignment_new(&plan->site, chosen, count, &assignment, error);
    xv_assignment_free(assignment);
    count = 0;
    for (size_t i = 0; rc == 0 && i < plan->vm_count; i++) {
        if (plan->vms[i].refusal == NULL)
            board->vms[i].owner = chosen[count++].owner;
    }
    free(chosen);
    return rc;
}

static int place_vm(struct xv_plan *plan, struct xv_plan_vm *vm, const struct xv_sched_vm *entry,
                    xvsa_error **error)
{
    if (vm->refusal != NULL)
        return 0;
    if (entry->owner != XV_SCHED_NONE) {
        take_answers(vm, entry);
        for (size_t i = 0; i < vm->disk_count; i++)
            xv_transport_plan(plan, vm, &vm->disks[i]);
        judge(plan, vm);
        return 0;
    }
    int rc = explain(plan, vm, entry, error);
    if (rc == 0 && judge(plan, vm) == 0)
        rc = xv_fail(error, XVSA_ERR_INTERNAL, "job", "VM %s was refused without a reason",
                     vm->uuid);
    return rc;
}

int xv_plan_place(struct xv_plan *plan, xvsa_error **error)
{
    struct board board = {0};
    int rc = make_board(plan, &board, error);
    if (rc == 0)
        rc = reorder(plan, &board, error);
    if (rc == 0)
        rc = assign(plan, &board, error);
    for (size_t i = 0; rc == 0 && i < plan->vm_count; i++)
        rc = place_vm(plan, &plan->vms[i], &board.vms[i], error);
    free(board.vms);
    free(board.disks);
    return rc;
}
