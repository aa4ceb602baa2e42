/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What changed since the base, told by the pool. To be asked before the snapshot is opened for reading:
 * the pool does not tell it of an attached disk.
 */
#include <stdlib.h>

#include "diff/changes.h"
#include "job/backup.h"

/* The storage repository may be busy with something else for long. */
#define LIST_MS (30 * 60 * 1000)
/* The pool's answer when the two snapshots are not of one unbroken chain. */
#define NOT_ONE_CHAIN "SR_BACKEND_FAILURE_460"

static int list_changes(struct xv_backup *backup, struct xv_disk_run *disk, const char *base_ref,
                        const struct xv_call *call, struct xv_extents *ret, xvsa_error **error)
{
    char *bitmap = NULL;
    const struct xv_call limit = xv_call_within(call, LIST_MS);
    int rc =
        xv_cbt_changes(backup->client, base_ref, disk->snapshot->vdi_ref, &limit, &bitmap, error);
    if (rc == 0)
        rc = xv_changes_decode(bitmap, disk->snapshot->size, ret, error);
    free(bitmap);
    return rc;
}

/* Turns a failure into a reason; takes failure over. */
static int explain(struct xv_backup *backup, struct xv_disk_run *disk, int rc, xvsa_error *failure,
                   enum xv_reason_code code, xvsa_error **error)
{
    if (rc == XVSA_ERR_CANCELLED || rc == XVSA_ERR_MEMORY) {
        if (error != NULL)
            *error = failure;
        else
            xvsa_error_unref(failure);
        return rc;
    }
    rc = xv_run_reason(backup->run, disk, error, code, "%s", xvsa_error_message(failure));
    xvsa_error_unref(failure);
    return rc;
}

int xv_changes_read(struct xv_backup *backup, struct xv_disk_run *disk, const struct xv_call *call,
                    bool *ret_known, struct xv_extents *ret, xvsa_error **error)
{
    *ret_known = false;
    if (!disk->snapshot->cbt_enabled)
        return xv_run_reason(backup->run, disk, error, XV_REASON_CBT_RESET,
                             "tracking was off when the snapshot was taken");
    char *base_ref = NULL;
    xvsa_error *failure = NULL;
    int rc =
        xv_record_find(backup->client, "VDI", disk->plan->base_snapshot, call, &base_ref, &failure);
    if (rc != 0)
        return explain(backup, disk, rc, failure, XV_REASON_CBT_BASE_GONE, error);
    rc = list_changes(backup, disk, base_ref, call, ret, &failure);
    free(base_ref);
    if (rc == 0) {
        *ret_known = true;
        return 0;
    }
    xv_extents_free(ret);
    xv_extents_init(ret);
    bool broken = xv_error_is_xenapi(failure, NOT_ONE_CHAIN);
    return explain(backup, disk, rc, failure,
                   broken ? XV_REASON_CBT_RESET : XV_REASON_CBT_LIST_FAILED, error);
}
