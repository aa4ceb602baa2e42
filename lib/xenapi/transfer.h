/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * One bulk transfer over HTTP together with the task that tells its outcome: a 200 means nothing.
 */
#ifndef XV_XENAPI_TRANSFER_H
#define XV_XENAPI_TRANSFER_H

#include "xenapi/operations_internal.h"

struct xv_transfer {
    struct xv_client *client;
    struct xv_call call;
    struct xv_exchange *exchange;
    char *task;
    const char *what; /* static text: "VDI export" */
    char vdi[128];
    uint64_t position; /* bytes of the body that were read */
};

struct xv_transfer_spec {
    const char *method;  /* "GET" or "PUT" */
    const char *path;    /* "/export_raw_vdi" */
    const char *options; /* "&format=vhd" or "" */
    const char *vdi_ref;
    const char *what;
    const struct xv_url *url;
    xv_http_produce_fn produce; /* for PUT */
    void *user;
    uint64_t upload_length;
};

/* Begins a GET, or does a whole PUT. Follows a redirect of a GET to another member once. After a failure
 * nothing is left to be ended. */
int xv_transfer_begin(struct xv_client *client, const struct xv_transfer_spec *spec,
                      const struct xv_call *call, struct xv_transfer *ret,
                      xvsa_error **error) XV_MUST_CHECK;
/* Reads exactly length bytes, or skips them when data is NULL. A second HTTP message in the place of the
 * body's beginning, and a body that ends too early, are failures. */
int xv_transfer_read(struct xv_transfer *transfer, void *data, uint64_t length,
                     xvsa_error **error) XV_MUST_CHECK;
/* Checks that the body has ended and that the task has succeeded; ends the transfer in every case. */
int xv_transfer_finish(struct xv_transfer *transfer, xvsa_error **error) XV_MUST_CHECK;
/* Ends a transfer that failed with rc; the task's own account replaces error when it has one. */
int xv_transfer_fail(struct xv_transfer *transfer, int rc, xvsa_error **error);
/* Ends a transfer from which all that was wanted has been read. */
void xv_transfer_abandon(struct xv_transfer *transfer);

#endif
