/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/transport.h"

#include <string.h>

#include "job/task.h"

static bool nbd_is_offered(const struct xv_plan *plan)
{
    for (size_t i = 0; i < plan->inventory->network_count; i++) {
        const struct xv_network *network = &plan->inventory->networks[i];
        if (network->nbd || (network->insecure_nbd && plan->spec->insecure_nbd))
            return true;
    }
    return false;
}

bool xv_transport_is_proxy(const struct xv_plan *plan, const char *vm_uuid)
{
    for (size_t i = 0; i < plan->proxy_count; i++) {
        if (strcmp(xv_proxy_vm_uuid(plan->proxies[i]), vm_uuid) == 0)
            return true;
    }
    return false;
}

static bool reaches(const struct xv_plan *plan, const struct xv_proxy *proxy,
                    const struct xv_sr *sr)
{
    const struct xv_vm *vm = xv_inventory_vm(plan->inventory, xv_proxy_vm_uuid(proxy));
    return vm != NULL && sr != NULL && vm->resident_on != NULL &&
           xv_inventory_reaches(plan->inventory, vm->resident_on, sr);
}

static bool can_hot_add(const struct xv_plan *plan, const struct xv_plan_vm *vm,
                        struct xv_plan_disk *disk)
{
    if (!plan->spec->use_hotadd)
        return false;
    const struct xv_proxy *proxy = plan->proxies[disk->proxy];
    if (xv_proxy_device_path(proxy) == NULL) {
        /* Without a wish for it, a process that runs elsewhere is nothing to tell. */
        if (plan->spec->wants_hotadd)
            xv_reasons_add(&disk->reasons, XV_REASON_HOTADD_NOT_LOCAL, "proxy %s",
                           xv_proxy_name(proxy));
    } else if (vm->vm != NULL && xv_transport_is_proxy(plan, vm->uuid)) {
        xv_reasons_add(&disk->reasons, XV_REASON_HOTADD_PROXY_VM, NULL);
    } else if (!reaches(plan, proxy, disk->sr)) {
        xv_reasons_add(&disk->reasons, XV_REASON_HOTADD_SR_NOT_REACHED, "proxy %s, SR %s",
                       xv_proxy_name(proxy), disk->sr == NULL ? "?" : disk->sr->uuid);
    } else {
        return true;
    }
    return false;
}

void xv_transport_plan(const struct xv_plan *plan, const struct xv_plan_vm *vm,
                       struct xv_plan_disk *disk)
{
    if (disk->skipped || disk->proxy == XV_SCHED_NONE)
        return;
    disk->hotadd = can_hot_add(plan, vm, disk);
    if (plan->spec->type != XV_JOB_BACKUP)
        return;
    disk->nbd = plan->spec->use_nbd && nbd_is_offered(plan);
    if (disk->nbd || disk->hotadd)
        return;
    xv_reasons_add(
        &disk->reasons,
        plan->spec->use_nbd ? XV_REASON_NBD_NOT_ENABLED : XV_REASON_NBD_REFUSED_BY_POLICY, NULL);
}

const char *xv_transport_planned(const struct xv_plan *plan, const struct xv_plan_disk *disk)
{
    if (disk->hotadd)
        return "hotadd";
    return plan->spec->type == XV_JOB_BACKUP && disk->nbd ? "nbd" : "http";
}

/* The proxy that moves the disk: that of this process, when the job is a task. */
static struct xv_proxy *mover(const struct xv_disk_run *disk)
{
    const struct xv_job *job = disk->vm->job;
    for (size_t i = 0; job->task != NULL && i < job->plan->proxy_count; i++) {
        if (strcmp(xv_proxy_name(job->plan->proxies[i]), job->task->given.proxy) == 0)
            return job->plan->proxies[i];
    }
    return job->plan->proxies[disk->plan->proxy];
}

struct xv_proxy *xv_transport_proxy(const struct xv_disk_run *disk)
{
    const struct xv_plan *plan = disk->vm->job->plan;
    struct xv_proxy *proxy = mover(disk);
    if (!plan->spec->use_hotadd || xv_proxy_device_path(proxy) == NULL)
        return NULL;
    if (plan->spec->type == XV_JOB_BACKUP && xv_transport_is_proxy(plan, disk->vm->plan->uuid))
        return NULL;
    return reaches(plan, proxy, disk->plan->sr) ? proxy : NULL;
}

enum xv_reason_code xv_transport_fault(enum xv_hotadd_fault fault)
{
    switch (fault) {
    case XV_HOTADD_NO_DEVICE:
        return XV_REASON_HOTADD_NO_DEVICE;
    case XV_HOTADD_SR_NOT_REACHED:
        return XV_REASON_HOTADD_SR_NOT_REACHED;
    case XV_HOTADD_FAILED:
        break;
    }
    return XV_REASON_HOTADD_FAILED;
}
