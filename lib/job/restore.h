/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Inside of a restore: what the steps of one VM share.
 */
#ifndef XV_JOB_RESTORE_H
#define XV_JOB_RESTORE_H

#include "job/run.h"
#include "xenapi/operations.h"

struct xv_restore {
    struct xv_vm_run *run;
    struct xv_client *client;
    struct xv_session *pin;  /* keeps the point from being deleted; NULL: none */
    struct xv_value *record; /* the VM's, as saved */
    char *vm_ref;            /* NULL: none made */
    char **vdi_refs;         /* of each disk; NULL: none made */
    json_t *warnings;        /* texts about what the pool did not take */
    bool completed;
};

/* Makes the VDI of a disk and writes its data; the body of its thread. */
int xv_restore_disk(struct xv_disk_run *disk, xvsa_error **error) XV_MUST_CHECK;

#endif
