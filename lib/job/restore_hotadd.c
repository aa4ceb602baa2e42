/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The disk of a restore as a device of the VM that this process runs on.
 */
#include "job/restore.h"
#include "job/transport.h"

static void tell_left(void *user, const char *why)
{
    struct xv_disk_run *disk = user;
    struct xv_restore *restore = disk->vm->work;
    atomic_store(&restore->attached_left, true);
    xv_run_note(disk->vm, disk, XV_REASON_CLEANUP_PENDING, "%s", why);
}

/* The SR may have made the VDI larger than it was asked to. */
static int read_size(struct xv_disk_run *disk, const char *vdi_ref, const struct xv_call *call,
                     uint64_t *ret, xvsa_error **error)
{
    const struct xv_restore *restore = disk->vm->work;
    struct xv_value *record = NULL;
    int rc = xv_record_get(restore->client, "VDI", vdi_ref, call, &record, error);
    int64_t size = rc == 0 ? xv_value_get_int(record, "virtual_size", 0) : 0;
    xv_value_free(record);
    if (rc == 0 && size <= 0)
        rc = xv_fail(error, XVSA_ERR_PROTOCOL, "job", "the disk %s has no size", vdi_ref);
    *ret = (uint64_t)size;
    return rc;
}

static int attach(struct xv_disk_run *disk, struct xv_restore_target *target,
                  const struct xv_call *call, enum xv_hotadd_fault *ret_fault, xvsa_error **error)
{
    const struct xv_restore *restore = disk->vm->work;
    struct xv_hotadd_options options = {
        .env = xv_engine_env(disk->vm->job->engine),
        .vm_uuid = xv_proxy_vm_uuid(target->proxy),
        .device_path = xv_proxy_device_path(target->proxy),
        .tag = disk->vm->tag,
        .disk_name = disk->plan->name,
        .writable = true,
        .left = tell_left,
        .user = disk,
    };
    int rc = read_size(disk, target->vdi_ref, call, &options.size, error);
    if (rc != 0)
        return rc;
    *ret_fault = XV_HOTADD_NO_DEVICE;
    if (!xv_proxy_take_device(target->proxy))
        return xv_fail(error, XVSA_ERR_BUSY, "job", "too many disks are attached to the VM %s",
                       options.vm_uuid);
    rc = xv_vdi_open_hotadd(restore->client, target->vdi_ref, &options, call, &target->device,
                            ret_fault, error);
    if (rc != 0)
        xv_proxy_give_device(target->proxy);
    return rc;
}

int xv_restore_attach(struct xv_disk_run *disk, struct xv_restore_target *target,
                      const struct xv_call *call, xvsa_error **error)
{
    const struct xv_spec *spec = disk->vm->job->plan->spec;
    target->proxy = xv_transport_proxy(disk);
    if (target->proxy == NULL && !spec->use_http)
        return xv_fail(error, XVSA_ERR_UNSUPPORTED, "job",
                       "of the transports that the job allows none can be used for this disk");
    if (target->proxy == NULL)
        return 0;
    enum xv_hotadd_fault fault = XV_HOTADD_FAILED;
    xvsa_error *failure = NULL;
    int rc = attach(disk, target, call, &fault, &failure);
    if (rc == 0)
        return 0;
    if (rc == XVSA_ERR_CANCELLED || !spec->use_http ||
        xvsa_cancel_is_fired(disk->vm->cancel) != 0) {
        if (error != NULL)
            *error = failure;
        else
            xvsa_error_unref(failure);
        return rc;
    }
    rc = xv_run_reason(disk->vm, disk, error, xv_transport_fault(fault), "%s",
                       xvsa_error_message(failure));
    xvsa_error_unref(failure);
    return rc;
}

void xv_restore_detach(struct xv_restore_target *target)
{
    if (target->device == NULL)
        return;
    xv_disk_close(target->device);
    xv_proxy_give_device(target->proxy);
    target->device = NULL;
}
