/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Whether the snapshots of a VM's disks may be taken at all: space of their SRs, depth of their chains.
 * Each VM is judged by itself, for its snapshots are gone before most others are taken.
 */
#include <stdlib.h>

#include "job/plan.h"
#include "sched/admission.h"

/* The disks of the VM on one SR, judged together. */
static struct xv_admission judge(const struct xv_plan *plan, const struct xv_plan_vm *vm,
                                 const struct xv_sr *sr, struct xv_planned_snapshot_disk *disks,
                                 bool *ret_coalescing)
{
    const struct xv_spec *spec = plan->spec;
    const struct xv_limits limits = {.chain_depth = (uint32_t)spec->chain_depth,
                                     .sr_free_bytes = (uint64_t)spec->sr_reserve_bytes,
                                     .sr_free_percent = (uint32_t)spec->sr_reserve_percent};
    const struct xv_snapshot_sr facts = {
        .type = sr->type, .thin = sr->thin, .size = sr->physical_size, .used = sr->physical_used};
    size_t count = 0;
    *ret_coalescing = false;
    for (size_t i = 0; i < vm->disk_count; i++) {
        const struct xv_plan_disk *disk = &vm->disks[i];
        if (disk->skipped || disk->sr != sr)
            continue;
        disks[count++] = (struct xv_planned_snapshot_disk){
            disk->vdi->size, disk->vdi->physical_used, disk->vdi->chain};
        *ret_coalescing = *ret_coalescing || (disk->vdi->coalescible && sr->coalesces);
    }
    return xv_admit_snapshot(&limits, &facts, disks, count, *ret_coalescing);
}

static uint32_t deepest(const struct xv_plan_vm *vm, const struct xv_sr *sr)
{
    uint32_t chain = 0;
    for (size_t i = 0; i < vm->disk_count; i++) {
        const struct xv_plan_disk *disk = &vm->disks[i];
        if (!disk->skipped && disk->sr == sr && disk->vdi->chain > chain)
            chain = disk->vdi->chain;
    }
    return chain;
}

static void explain(struct xv_plan_vm *vm, const struct xv_sr *sr, enum xv_why why,
                    const struct xv_planned_snapshot_disk *disks, size_t count, bool coalescing)
{
    const struct xv_snapshot_sr facts = {.type = sr->type, .thin = sr->thin};
    uint64_t left =
        sr->physical_used < sr->physical_size ? sr->physical_size - sr->physical_used : 0;
    if (why == XV_WHY_CHAIN_TOO_DEEP)
        xv_reasons_add(&vm->reasons, XV_REASON_CHAIN_TOO_DEEP, "SR %s (%s): %u nodes%s", sr->name,
                       sr->uuid, deepest(vm, sr),
                       coalescing ? "; the pool has some to merge: try again later" : "");
    else
        xv_reasons_add(&vm->reasons, XV_REASON_SR_SPACE_LOW,
                       "SR %s (%s): %llu bytes are free, the snapshots take up to %llu", sr->name,
                       sr->uuid, (unsigned long long)left,
                       (unsigned long long)xv_snapshot_bytes(&facts, disks, count));
}

static bool is_first_of_sr(const struct xv_plan_vm *vm, size_t index)
{
    for (size_t i = 0; i < index; i++) {
        if (!vm->disks[i].skipped && vm->disks[i].sr == vm->disks[index].sr)
            return false;
    }
    return true;
}

int xv_plan_admit(const struct xv_plan *plan, struct xv_plan_vm *vm, xvsa_error **error)
{
    struct xv_planned_snapshot_disk *disks = calloc(vm->disk_count + 1, sizeof *disks);
    if (disks == NULL)
        return xv_fail_memory(error);
    for (size_t i = 0; i < vm->disk_count; i++) {
        const struct xv_sr *sr = vm->disks[i].sr;
        if (vm->disks[i].skipped || sr == NULL || !is_first_of_sr(vm, i))
            continue;
        bool coalescing = false;
        size_t count = 0;
        struct xv_admission admission = judge(plan, vm, sr, disks, &coalescing);
        for (size_t k = 0; k < vm->disk_count; k++)
            count += !vm->disks[k].skipped && vm->disks[k].sr == sr;
        if (admission.verdict != XV_VERDICT_ADMIT)
            explain(vm, sr, admission.why, disks, count, coalescing);
    }
    free(disks);
    return 0;
}
