/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/source.h"

#include <string.h>

#include "job/transport.h"

/* A source that failed is opened anew when it had worked for so long, or once: the session that its export was named
 * by may have been renewed. */
#define WORKED_MS 60000

const char *xv_source_transport(const struct xv_source *source)
{
    return source->disk == NULL ? NULL : source->disk->ops->transport;
}

void xv_source_close(struct xv_source *source)
{
    xv_disk_close(source->disk);
    source->disk = NULL;
    if (source->device)
        xv_proxy_give_device(source->proxy);
    source->device = false;
}

bool xv_source_is_seekable(const struct xv_source *source)
{
    return source->nbd || source->proxy != NULL;
}

static int tell_clone(void *user, xvsa_error **error)
{
    const struct xv_source *source = user;
    return source->tell(source->user, XV_REASON_HOTADD_HVM_CLONE, NULL, error);
}

static void tell_left(void *user, const char *why)
{
    const struct xv_source *source = user;
    source->left(source->user, why);
}

static int attach(struct xv_source *source, const struct xv_call *call,
                  enum xv_hotadd_fault *ret_fault, xvsa_error **error)
{
    const struct xv_hotadd_options options = {
        .env = source->env,
        .vm_uuid = xv_proxy_vm_uuid(source->proxy),
        .device_path = xv_proxy_device_path(source->proxy),
        .tag = source->tag,
        .disk_name = source->vdi_uuid,
        .size = source->size,
        .cloning = tell_clone,
        .left = tell_left,
        .user = source,
    };
    *ret_fault = XV_HOTADD_NO_DEVICE;
    source->device = xv_proxy_take_device(source->proxy);
    if (!source->device)
        return xv_fail(error, XVSA_ERR_BUSY, "job", "too many disks are attached to the VM %s",
                       options.vm_uuid);
    return xv_vdi_open_hotadd(source->client, source->vdi_ref, &options, call, &source->disk,
                              ret_fault, error);
}

static int open_nbd(struct xv_source *source, const struct xv_call *call, xvsa_error **error)
{
    const struct xv_nbd_options options = {
        .env = source->env,
        .size = source->size,
        .connections = source->connections,
        .require_tls = !source->spec->insecure_nbd,
        .disk_name = source->vdi_uuid,
    };
    return xv_vdi_open_nbd(source->client, source->inventory, source->vdi_ref,
                           source->host == NULL ? NULL : source->host->address,
                           source->spec->insecure_nbd, &options, call, &source->disk, error);
}

static int open_http(struct xv_source *source, const struct xv_call *call, xvsa_error **error)
{
    return xv_vdi_open_http(source->client, source->inventory, source->vdi_ref, source->host, call,
                            &source->disk, error);
}

/* After the token was fired it is the other end that failed, or somebody's wish. */
static bool can_go_on(const struct xv_source *source, int rc)
{
    return rc != XVSA_ERR_CANCELLED && rc != XVSA_ERR_MEMORY &&
           xvsa_cancel_is_fired(source->cancel) == 0;
}

/* From NBD to HTTP, with the reason. Takes failure over. */
static int fall_back(struct xv_source *source, int rc, xvsa_error *failure,
                     const struct xv_call *call, xvsa_error **error)
{
    if (!can_go_on(source, rc) || !source->spec->use_http) {
        if (error != NULL)
            *error = failure;
        else
            xvsa_error_unref(failure);
        return rc;
    }
    bool offered = rc != XVSA_ERR_UNSUPPORTED;
    rc = source->tell(source->user, offered ? XV_REASON_NBD_FAILED : XV_REASON_NBD_NOT_ENABLED,
                      xvsa_error_message(failure), error);
    xvsa_error_unref(failure);
    source->nbd = false;
    return rc != 0 ? rc : open_http(source, call, error);
}

/* No more hot-add, with the reason. Takes failure over. */
static int leave_hotadd(struct xv_source *source, int rc, xvsa_error *failure,
                        enum xv_hotadd_fault fault, xvsa_error **error)
{
    xv_source_close(source);
    bool others = source->spec->use_nbd || source->spec->use_http;
    if (rc == XVSA_ERR_REFUSED || !can_go_on(source, rc) || !others) {
        if (error != NULL)
            *error = failure;
        else
            xvsa_error_unref(failure);
        return rc;
    }
    rc = source->tell(source->user, xv_transport_fault(fault), xvsa_error_message(failure), error);
    xvsa_error_unref(failure);
    source->proxy = NULL;
    return rc;
}

int xv_source_open(struct xv_source *source, const struct xv_call *call, xvsa_error **error)
{
    if (source->disk != NULL)
        return 0;
    xvsa_error *failure = NULL;
    int rc = 0;
    if (source->proxy != NULL) {
        enum xv_hotadd_fault fault;
        rc = attach(source, call, &fault, &failure);
        if (rc == 0)
            return 0;
        rc = leave_hotadd(source, rc, failure, fault, error);
        if (rc != 0)
            return rc;
        failure = NULL;
    }
    if (source->nbd) {
        rc = open_nbd(source, call, &failure);
        if (rc != 0)
            rc = fall_back(source, rc, failure, call, error);
    } else if (source->spec->use_http) {
        rc = open_http(source, call, error);
    } else {
        rc = xv_fail(error, XVSA_ERR_UNSUPPORTED, "job",
                     "of the transports that the job allows none can be used for this disk");
    }
    return rc;
}

/* After a failure of an open source: an attached disk through NBD, NBD once more, else through HTTP. Takes
 * failure over. */
static int replace(struct xv_source *source, int rc, xvsa_error *failure,
                   const struct xv_call *call, xvsa_error **error)
{
    bool by_nbd = strcmp(xv_source_transport(source), "nbd") == 0;
    if (strcmp(xv_source_transport(source), "hotadd") == 0) {
        rc = leave_hotadd(source, rc, failure, XV_HOTADD_FAILED, error);
        return rc != 0 ? rc : xv_source_open(source, call, error);
    }
    bool again = source->reopened_ms == 0 || xv_clock_ms() - source->reopened_ms > WORKED_MS;
    if (!by_nbd || !can_go_on(source, rc)) {
        if (error != NULL)
            *error = failure;
        else
            xvsa_error_unref(failure);
        return rc;
    }
    xv_source_close(source);
    if (!again)
        return fall_back(source, rc, failure, call, error);
    xv_log(source->env, XVSA_LOG_INFO, "job", "disk %s is opened anew: %s", source->vdi_uuid,
           xvsa_error_message(failure));
    xvsa_error_unref(failure);
    source->reopened_ms = xv_clock_ms();
    return xv_source_open(source, call, error);
}

static int tell_missing(struct xv_source *source, xvsa_error **error)
{
    uint32_t missing = xv_nbd_disk_missing(source->disk);
    char text[64];
    if (missing == 0)
        return 0;
    snprintf(text, sizeof text, "%u of %u connections", missing, source->connections);
    return source->tell(source->user, XV_REASON_NBD_CONNECTIONS_MISSING, text, error);
}

/* Leaves in left what did not go through. */
static int move_once(struct xv_source *source, struct xv_intake *intake, struct xv_extents *left,
                     struct xv_disk_writer *writer, const struct xv_call *call, xvsa_error **error)
{
    struct xv_extents moved;
    struct xv_extents rest;
    xv_extents_init(&moved);
    xv_extents_init(&rest);
    int rc = xv_intake_move(intake, source->disk, left, writer, &moved, source->rate, call, error);
    if (rc != 0 && xv_extents_subtract(left, &moved, &rest, NULL) == 0) {
        xv_extents_free(left);
        *left = rest;
    } else {
        xv_extents_free(&rest);
    }
    xv_extents_free(&moved);
    return rc;
}

int xv_source_move(struct xv_source *source, struct xv_intake *intake,
                   const struct xv_extents *ranges, struct xv_disk_writer *writer,
                   const struct xv_call *call, xvsa_error **error)
{
    struct xv_extents none;
    struct xv_extents left;
    xv_extents_init(&none);
    xv_extents_init(&left);
    int rc = xv_extents_subtract(ranges, &none, &left, error);
    if (rc == 0)
        rc = xv_source_open(source, call, error);
    while (rc == 0) {
        xvsa_error *failure = NULL;
        rc = move_once(source, intake, &left, writer, call, &failure);
        if (rc == 0) {
            rc = tell_missing(source, error);
            break;
        }
        rc = replace(source, rc, failure, call, error);
    }
    xv_extents_free(&left);
    return rc;
}
