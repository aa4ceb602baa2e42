/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Changed block tracking.
 */
#include <stdlib.h>
#include <string.h>

#include "xenapi/operations_internal.h"

int xv_cbt_enable(struct xv_client *client, const char *vdi_ref, const struct xv_call *call,
                  xvsa_error **error)
{
    xvsa_error *failure = NULL;
    /* A second time it does nothing, so that a lost answer needs no looking. */
    int rc = xv_run(client, "VDI.enable_cbt", xv_params(vdi_ref, NULL), call, NULL, &failure);
    if (rc == XVSA_ERR_UNKNOWN_OUTCOME) {
        xv_error_clear(&failure);
        rc = xv_run(client, "VDI.enable_cbt", xv_params(vdi_ref, NULL), call, NULL, &failure);
    }
    if (rc != 0 && error != NULL)
        *error = failure;
    else
        xvsa_error_unref(failure);
    return rc;
}

int xv_cbt_changes(struct xv_client *client, const char *from_ref, const char *to_ref,
                   const struct xv_call *call, char **ret, xvsa_error **error)
{
    xvsa_error *failure = NULL;
    int rc = xv_run(client, "VDI.list_changed_blocks", xv_params(from_ref, to_ref, NULL), call, ret,
                    &failure);
    if (rc == XVSA_ERR_UNKNOWN_OUTCOME) {
        xv_error_clear(&failure);
        rc = xv_run(client, "VDI.list_changed_blocks", xv_params(from_ref, to_ref, NULL), call, ret,
                    &failure);
    }
    if (rc != 0 && error != NULL)
        *error = failure;
    else
        xvsa_error_unref(failure);
    return rc;
}

/* Doing it to a disk that has only its metadata left is success at the server, too. */
static int reduce_once(struct xv_client *client, const char *vdi_ref, const struct xv_call *call,
                       xvsa_error **error)
{
    int rc = xv_run(client, "VDI.data_destroy", xv_params(vdi_ref, NULL), call, NULL, error);
    if (rc != XVSA_ERR_UNKNOWN_OUTCOME)
        return rc;
    xv_error_clear(error);
    return xv_run(client, "VDI.data_destroy", xv_params(vdi_ref, NULL), call, NULL, error);
}

int xv_cbt_reduce(struct xv_client *client, const char *vdi_ref, const struct xv_call *call,
                  xvsa_error **error)
{
    return xv_vdi_insist(client, vdi_ref, reduce_once, call, error);
}
