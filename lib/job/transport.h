/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * How the disks of a plan are moved: which transports the job's policy, the pool and the proxy leave.
 */
#ifndef XV_JOB_TRANSPORT_H
#define XV_JOB_TRANSPORT_H

#include "job/run.h"
#include "xenapi/operations.h"

/* Once the disk's proxy is known. Adds the reasons why a better transport is not taken. */
void xv_transport_plan(const struct xv_plan *plan, const struct xv_plan_vm *vm,
                       struct xv_plan_disk *disk);
/* "hotadd", "nbd", "http": what the plan expects. */
const char *xv_transport_planned(const struct xv_plan *plan, const struct xv_plan_disk *disk);

/* True for a VM that a proxy of the plan runs on: its own disks are never attached to a proxy. */
bool xv_transport_is_proxy(const struct xv_plan *plan, const char *vm_uuid);

/* The proxy to whose VM the disk is attached, which is the one that this process runs on; NULL: the disk
 * is not hot-added. */
struct xv_proxy *xv_transport_proxy(const struct xv_disk_run *disk);

/* The reason for a hot-add that failed. */
enum xv_reason_code xv_transport_fault(enum xv_hotadd_fault fault);

#endif
