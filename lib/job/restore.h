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
    bool touched;            /* something of this VM may be in the pool */
    bool completed;
    atomic_bool attached_left; /* a disk is still attached to the proxy */
    /* of a task */
    pthread_mutex_t noting; /* guards facts, and is held while they are kept */
    json_t *facts;          /* what a successor has to know; NULL: not a task */
};

/* restore_work.c: what a task keeps for its successor. */
json_t *xv_restore_begin_facts(const struct xv_vm_run *run);
/* The VM that an earlier attempt made, else create is called to make it. */
typedef int (*xv_restore_create)(struct xv_restore *restore, const char *id,
                                 const struct xv_call *call, xvsa_error **error);
int xv_restore_take_vm(struct xv_restore *restore, xv_restore_create create,
                       const struct xv_call *call, xvsa_error **error) XV_MUST_CHECK;
/* From now on the VM is found although its marks are gone. */
int xv_restore_note_completion(struct xv_restore *restore, const struct xv_call *call,
                               xvsa_error **error) XV_MUST_CHECK;
/* True when an earlier attempt noted that. */
bool xv_restore_is_complete(const struct xv_restore *restore);
/* True when an earlier attempt may have made something. */
bool xv_restore_was_begun(const struct xv_restore *restore);
/* The id by which a successor finds what was created for a part of the VM. */
void xv_restore_make_id(const struct xv_vm_run *run, const char *what, char id[33]);
/* What is noted of a disk: uuid "" when nothing is. */
void xv_restore_recall(struct xv_restore *restore, const struct xv_disk_run *disk, char uuid[64],
                       uint64_t *ret_offset);
/* Keeps for a successor which VDI the disk has and how far it is acknowledged. Of a task only. */
int xv_restore_note(struct xv_restore *restore, const struct xv_disk_run *disk,
                    const char *vdi_uuid, uint64_t offset, const struct xv_call *call,
                    xvsa_error **error) XV_MUST_CHECK;

/* Where a disk's data go. */
struct xv_restore_target {
    const char *vdi_ref;
    struct xv_disk
        *device; /* the VDI, attached to the VM that this process runs on; NULL: HTTP is used */
    struct xv_proxy *proxy; /* whose VM it is */
};

/* restore_hotadd.c: attaches the VDI where that is possible; what speaks against it is told. */
int xv_restore_attach(struct xv_disk_run *disk, struct xv_restore_target *target,
                      const struct xv_call *call, xvsa_error **error) XV_MUST_CHECK;
/* Before the disk is given to its VM, which could not start with it attached elsewhere. */
void xv_restore_detach(struct xv_restore_target *target);

/* Sends ranges of a disk of a restore point to a VDI in one request; they are there when it returns 0. */
int xv_restore_send(struct xv_disk_run *disk, struct xv_disk *source, const struct xv_extents *data,
                    const struct xv_restore_target *target, const struct xv_call *call,
                    xvsa_error **error) XV_MUST_CHECK;

/* Makes the VDI of a disk and writes its data; the body of its thread. */
int xv_restore_disk(struct xv_disk_run *disk, xvsa_error **error) XV_MUST_CHECK;

#endif
