/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Disks that a running machine has for as long as data moves.
 */
#ifndef XV_XENAPI_VBD_H
#define XV_XENAPI_VBD_H

#include "xenapi/operations_internal.h"

#define XV_VBD_NODE_MAX 16

/* Gives a VM a disk at a position of the server's choice, tagged; it is not attached yet. */
int xv_vbd_add(struct xv_client *client, const char *vm_ref, const char *vdi_ref, const char *tag,
               bool writable, const struct xv_call *call, char **ret_ref,
               xvsa_error **error) XV_MUST_CHECK;
/* Attaches it. */
int xv_vbd_plug(struct xv_client *client, const char *vbd_ref, const struct xv_call *call,
                xvsa_error **error) XV_MUST_CHECK;
/* The name that the disk's device has in a guest with paravirtual drivers, such as "xvdc". */
int xv_vbd_node(struct xv_client *client, const char *vbd_ref, const struct xv_call *call,
                char ret[XV_VBD_NODE_MAX], xvsa_error **error) XV_MUST_CHECK;

#endif
