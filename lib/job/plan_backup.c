/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The plan of a backup: the selected VMs, their disks, the base point of each.
 */
#include <stdlib.h>
#include <string.h>

#include "job/base.h"
#include "job/earlier.h"

bool xv_plan_skips_disk(const struct xv_selection *selection, const struct xv_vbd *vbd,
                        struct xv_reasons *reasons)
{
    if (vbd->vdi->reset_on_boot)
        xv_reasons_add(reasons, XV_REASON_DISK_RESET_ON_BOOT, NULL);
    else if (selection != NULL && xv_selection_excludes_disk(selection, vbd))
        xv_reasons_add(reasons, XV_REASON_DISK_EXCLUDED, NULL);
    else if (vbd->vdi->missing)
        xv_reasons_add(reasons, XV_REASON_DISK_MISSING, NULL);
    else if (vbd->vdi->sharable)
        xv_reasons_add(reasons, XV_REASON_DISK_SHARED, NULL);
    else
        return false;
    return true;
}

static void plan_disk(const struct xv_plan *plan, const struct xv_plan_vm *vm,
                      const struct xv_vbd *vbd, struct xv_plan_disk *disk)
{
    *disk = (struct xv_plan_disk){
        .device = vbd->device,
        .vdi_uuid = vbd->vdi->uuid,
        .name = vbd->vdi->name,
        .size = vbd->vdi->size,
        .sr = vbd->vdi->sr,
        .vdi = vbd->vdi,
        .proxy = XV_SCHED_NONE,
        .base_index = -1,
    };
    disk->skipped = xv_plan_skips_disk(plan->spec->selection, vbd, &disk->reasons);
    if (disk->skipped)
        return;
    xv_base_choose(plan->spec, plan->inventory, vm->base, disk);
}

static int plan_vm(struct xv_plan *plan, const struct xv_vm *from, struct xv_plan_vm *vm,
                   xvsa_error **error)
{
    vm->uuid = from->uuid;
    vm->name = from->name;
    vm->vm = from;
    vm->disks = calloc(from->vbd_count + 1, sizeof *vm->disks);
    if (vm->disks == NULL)
        return xv_fail_memory(error);
    size_t moved = 0;
    size_t borrowed = 0;
    for (size_t i = 0; i < from->vbd_count; i++) {
        borrowed += from->vbds[i]->tag != NULL;
        if (!xv_vbd_is_disk(from->vbds[i]))
            continue;
        plan_disk(plan, vm, from->vbds[i], &vm->disks[vm->disk_count]);
        moved += !vm->disks[vm->disk_count].skipped;
        vm->disk_count++;
    }
    if (borrowed > 0)
        xv_reasons_add(&vm->reasons, XV_REASON_PROXY_DISKS_LEFT_OUT, "%zu", borrowed);
    if (moved == 0)
        xv_reasons_add(&vm->reasons, XV_REASON_VM_HAS_NO_DISKS, NULL);
    if (from->has_vusbs)
        xv_reasons_add(&vm->reasons, XV_REASON_VM_HAS_VUSBS, NULL);
    if (strcmp(from->power_state, "Running") == 0 && moved > 0)
        xv_reasons_add(&vm->reasons, XV_REASON_CRASH_CONSISTENT, NULL);
    return xv_plan_admit(plan, vm, error);
}

/* Leaves those that an earlier job failed to back up. */
static int keep_failed(const struct xv_plan *plan, const struct xv_vm **vms, size_t *count,
                       xvsa_error **error)
{
    json_t *failed = NULL;
    if (plan->spec->only_failed_of == NULL)
        return 0;
    int rc = xv_earlier_failures(plan->engine, plan->spec->only_failed_of, XV_JOB_BACKUP, &failed,
                                 error);
    size_t kept = 0;
    for (size_t i = 0; rc == 0 && i < *count; i++) {
        for (size_t j = 0; j < json_array_size(failed); j++) {
            const json_t *uuid = json_object_get(json_array_get(failed, j), "uuid");
            if (json_is_string(uuid) && strcmp(json_string_value(uuid), vms[i]->uuid) == 0) {
                vms[kept++] = vms[i];
                break;
            }
        }
    }
    *count = rc == 0 ? kept : *count;
    json_decref(failed);
    return rc;
}

int xv_plan_backup(struct xv_plan *plan, const struct xv_call *call, xvsa_error **error)
{
    const struct xv_vm **vms = NULL;
    size_t count = 0;
    int rc = xv_selection_vms(plan->spec->selection, plan->inventory, &vms, &count, error);
    if (rc == 0)
        rc = keep_failed(plan, vms, &count, error);
    if (rc == 0 && count > 0 && (plan->vms = calloc(count, sizeof *plan->vms)) == NULL)
        rc = xv_fail_memory(error);
    if (rc == 0) {
        plan->vm_count = count;
        rc = xv_plan_bases(plan, vms, call, error);
    }
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = plan_vm(plan, vms[i], &plan->vms[i], error);
    free(vms);
    return rc;
}
