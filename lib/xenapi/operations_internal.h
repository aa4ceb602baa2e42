/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the files of the operations share.
 */
#ifndef XV_XENAPI_OPERATIONS_INTERNAL_H
#define XV_XENAPI_OPERATIONS_INTERNAL_H

#include "xenapi/client_internal.h"
#include "xenapi/errors.h"
#include "xenapi/operations.h"

/* Marks objects that were created, as opposed to snapshots and to copies that users make of them, with
 * a random id of their own: only these are destroyed as leftovers, and one whose creation got no answer
 * is found by it. */
#define XV_CREATED_KEY "xvsa-id"
#define XV_CREATED_ID  33 /* bytes of the id's text */

/* On a snapshot while it is being cloned, and on the clone, which inherits it with the tag: so it is marked
 * before it exists. */
#define XV_CLONE_KEY "xvsa-clone"

#define XV_SNAPSHOT_PREFIX "libxvsa snapshot "    /* and the tag: name of a snapshot VM */
#define XV_RESTORE_PREFIX  "[libxvsa restoring] " /* and the name: of an unfinished VM */
#define XV_BLOCK_PREFIX    "libxvsa at work [" /* the tag and "]": reason of a blocked operation */
#define XV_TASK_PREFIX                                                                             \
    "libxvsa "            /* name of a task for a transfer; a VDI's reference is
                                                    its description */
#define XV_GRACE_MS 15000 /* for cleaning up after a cancellation or a passed deadline */

/* xv_client_call, taking params over; NULL params means that there was no memory for them. ret may be
 * NULL. */
int xv_ask(struct xv_client *client, const char *method, struct xv_value *params, bool idempotent,
           const struct xv_call *call, struct xv_value **ret, xvsa_error **error) XV_MUST_CHECK;
/* The same for a result that is text; the caller frees it. */
int xv_ask_text(struct xv_client *client, const char *method, struct xv_value *params,
                const struct xv_call *call, char **ret, xvsa_error **error) XV_MUST_CHECK;
/* VDI.get_virtual_size in bytes; PROTOCOL when the answer is not a size. */
int xv_vdi_size(struct xv_client *client, const char *vdi_ref, const struct xv_call *call,
                uint64_t *ret, xvsa_error **error) XV_MUST_CHECK;
/* xv_client_run, taking params over. ret_text (may be NULL): the result; the caller frees it. */
int xv_run(struct xv_client *client, const char *method, struct xv_value *params,
           const struct xv_call *call, char **ret_text, xvsa_error **error) XV_MUST_CHECK;

/* Reference of the object of a class, no snapshot, whose other_config has id under key (XV_CREATED_KEY or
 * XV_CLONE_KEY); UNKNOWN_OUTCOME when there is none. */
int xv_created_find(struct xv_client *client, const char *class_name, const char *key,
                    const char *id, const struct xv_call *call, char **ret_ref,
                    xvsa_error **error) XV_MUST_CHECK;
int xv_created_id(char id[XV_CREATED_ID], xvsa_error **error) XV_MUST_CHECK;

/* Waits for a task's end. *ret (may be NULL): its result. UNKNOWN_OUTCOME when it vanished. */
int xv_task_wait(struct xv_client *client, const char *task, const char *what,
                 const struct xv_call *call, struct xv_value **ret,
                 xvsa_error **error) XV_MUST_CHECK;
/* Ends what the caller of a transfer does not want any more; never fails. */
void xv_task_abandon(struct xv_client *client, const char *task);
/* Cancels and abandons the tasks that were made with the label for a VDI; false when there is none. */
bool xv_task_abandon_all(struct xv_client *client, const char *label, const char *vdi_ref,
                         const struct xv_call *call);
/* A task for a transfer of a VDI. */
int xv_task_create(struct xv_client *client, const char *label, const char *vdi_ref,
                   const struct xv_call *call, char **ret, xvsa_error **error) XV_MUST_CHECK;

/* Detaches and destroys the VBDs that control domains and dead transfers of ours hold of a VDI. Failures
 * are logged only. */
void xv_vdi_detach_stale(struct xv_client *client, const char *vdi_ref, const struct xv_call *call);

/* Unplugs a VBD, waiting for a guest that does not let go of it yet, and destroys it. What is gone is
 * success. */
int xv_vbd_remove(struct xv_client *client, const char *vbd_ref, const struct xv_call *call,
                  xvsa_error **error) XV_MUST_CHECK;

/* Repeats operation while the pool answers VDI_IN_USE, removing VBDs of control domains in between. */
typedef int (*xv_vdi_operation)(struct xv_client *client, const char *vdi_ref,
                                const struct xv_call *call, xvsa_error **error);
int xv_vdi_insist(struct xv_client *client, const char *vdi_ref, xv_vdi_operation operation,
                  const struct xv_call *call, xvsa_error **error) XV_MUST_CHECK;

bool xv_is_null_ref(const char *ref);

#endif
