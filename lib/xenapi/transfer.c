/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "xenapi/transfer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TARGET_MAX 900
#define STALL_MS   600000 /* attaching a disk may wait for the SR's other operations */
#define VERDICT_MS 60000
#define ACCOUNT_MS 5000
#define SKIP_PIECE 65536

static int make_target(const struct xv_transfer *transfer, const struct xv_transfer_spec *spec,
                       char *target, size_t size, xvsa_error **error)
{
    char *session = xv_client_session(transfer->client);
    if (session == NULL)
        return xv_fail_memory(error);
    int length = snprintf(target, size, "%s?session_id=%s&task_id=%s&vdi=%s%s", spec->path, session,
                          transfer->task, spec->vdi_ref, spec->options);
    xv_free_secret(session);
    if (length < 0 || (size_t)length >= size)
        return xv_fail(error, XVSA_ERR_INVALID, XV_COMPONENT, "%s: the request is too long",
                       spec->what);
    return 0;
}

static int send_request(struct xv_transfer *transfer, const struct xv_transfer_spec *spec,
                        const struct xv_url *url, xvsa_error **error)
{
    char target[TARGET_MAX];
    int rc = make_target(transfer, spec, target, sizeof target, error);
    if (rc != 0)
        return rc;
    struct xv_http_request request = {
        .method = spec->method,
        .host = url,
        .target = target,
        .produce = spec->produce,
        .user = spec->user,
        .upload_length = spec->upload_length,
        .answer_ceiling = spec->produce != NULL ? 1u << 20 : INT64_MAX,
        .stall_ms = STALL_MS,
        .fresh = true,
    };
    rc = xv_http_begin(transfer->client->http, &request, &transfer->call, &transfer->exchange, NULL,
                       error);
    xv_wipe(target, sizeof target);
    return rc;
}

/* The member that a redirect names: only its host counts, the way to reach it is ours. */
static bool redirect_host(const struct xv_transfer *transfer, struct xv_url *ret)
{
    const char *location = xv_http_location(transfer->exchange);
    char base[300];
    struct xv_url named;
    const char *host = strstr(location, "://");
    if (host == NULL)
        return false;
    size_t length = (size_t)(host - location) + 3 + strcspn(host + 3, "/?");
    if (length >= sizeof base)
        return false;
    memcpy(base, location, length);
    base[length] = '\0';
    if (xv_url_parse(base, &named, NULL) != 0)
        return false;
    xv_client_member_url(transfer->client, named.host, ret);
    return true;
}

static int bad_status(struct xv_transfer *transfer, const struct xv_url *url, xvsa_error **error)
{
    int status = xv_http_status(transfer->exchange);
    struct xv_url other;
    int rc;
    if (status >= 300 && status < 400 && redirect_host(transfer, &other))
        rc = xv_fail(
            error, XVSA_ERR_CONFLICT, XV_COMPONENT,
            "%s of %s: host %s does not reach the storage any more and names %s; choose the "
            "host anew",
            transfer->what, transfer->vdi, url->host, other.host);
    else if (status == 401)
        rc = xv_fail(error, XVSA_ERR_AUTH, XV_COMPONENT, "%s of %s: host %s refuses the session",
                     transfer->what, transfer->vdi, url->host);
    else if (status == 403)
        rc = xv_fail(error, XVSA_ERR_DENIED, XV_COMPONENT, "%s of %s: host %s denies it",
                     transfer->what, transfer->vdi, url->host);
    else
        rc = xv_fail(error, XVSA_ERR_XENAPI, XV_COMPONENT, "%s of %s: host %s answers with HTTP %d",
                     transfer->what, transfer->vdi, url->host, status);
    if (error != NULL)
        xv_error_set_http(*error, status);
    return rc;
}

static int request_once(struct xv_transfer *transfer, const struct xv_transfer_spec *spec,
                        xvsa_error **error)
{
    struct xv_url url = *spec->url;
    int rc = send_request(transfer, spec, &url, error);
    if (rc != 0)
        return rc;
    struct xv_url other;
    int status = xv_http_status(transfer->exchange);
    if (spec->produce == NULL && status >= 300 && status < 400 && redirect_host(transfer, &other) &&
        !xv_url_equal(&other, &url)) {
        xv_http_end(transfer->exchange);
        transfer->exchange = NULL;
        url = other;
        rc = send_request(transfer, spec, &url, error);
        if (rc != 0)
            return rc;
    }
    if (xv_http_status(transfer->exchange) != 200)
        return bad_status(transfer, &url, error);
    return 0;
}

int xv_transfer_begin(struct xv_client *client, const struct xv_transfer_spec *spec,
                      const struct xv_call *call, struct xv_transfer *ret, xvsa_error **error)
{
    *ret = (struct xv_transfer){.client = client, .what = spec->what};
    if (call != NULL)
        ret->call = *call;
    snprintf(ret->vdi, sizeof ret->vdi, "%s", spec->vdi_ref);
    /* This call also renews a session that has expired, before a body is consumed. */
    int rc = xv_task_create(client, spec->what, spec->vdi_ref, call, &ret->task, error);
    if (rc != 0)
        return rc;
    rc = request_once(ret, spec, error);
    return rc != 0 ? xv_transfer_fail(ret, rc, error) : 0;
}

static int ended_early(const struct xv_transfer *transfer, xvsa_error **error)
{
    return xv_fail(error, XVSA_ERR_NETWORK, XV_COMPONENT,
                   "%s of %s: the stream ends after %llu bytes, too early", transfer->what,
                   transfer->vdi, (unsigned long long)transfer->position);
}

int xv_transfer_read(struct xv_transfer *transfer, void *data, uint64_t length, xvsa_error **error)
{
    static const char second[] = "HTTP/1.";
    char skipped[SKIP_PIECE];
    char *output = data;
    bool first = transfer->position == 0;
    char *begin = output == NULL ? skipped : output;
    while (length > 0) {
        size_t room = output == NULL && length > sizeof skipped ? sizeof skipped : (size_t)length;
        size_t got = 0;
        int rc =
            xv_http_read(transfer->exchange, output == NULL ? skipped : output, room, &got, error);
        if (rc != 0)
            return rc;
        if (got == 0)
            return ended_early(transfer, error);
        transfer->position += got;
        length -= got;
        if (output != NULL)
            output += got;
        if (first && transfer->position >= sizeof second - 1) {
            if (memcmp(begin, second, sizeof second - 1) == 0)
                return xv_fail(error, XVSA_ERR_XENAPI, XV_COMPONENT,
                               "%s of %s: the host began and then reported a failure",
                               transfer->what, transfer->vdi);
            first = false;
        }
    }
    return 0;
}

static void release(struct xv_transfer *transfer)
{
    xv_http_end(transfer->exchange);
    free(transfer->task);
    transfer->exchange = NULL;
    transfer->task = NULL;
}

int xv_transfer_finish(struct xv_transfer *transfer, xvsa_error **error)
{
    char rest[512];
    size_t got = 0;
    uint64_t surplus = 0;
    int rc = 0;
    /* The answer to an import has no content worth reading, but may have some. */
    do {
        rc = xv_http_read(transfer->exchange, rest, sizeof rest, &got, error);
        surplus += got;
    } while (rc == 0 && got > 0 && surplus <= 65536);
    bool is_export = transfer->position > 0;
    if (rc == 0 && is_export && surplus > 0)
        rc = xv_fail(error, XVSA_ERR_PROTOCOL, XV_COMPONENT,
                     "%s of %s: more data than the disk has, or a failure reported at its end",
                     transfer->what, transfer->vdi);
    if (rc != 0)
        return xv_transfer_fail(transfer, rc, error);
    struct xv_call limit = xv_call_within(&transfer->call, VERDICT_MS);
    rc = xv_task_wait(transfer->client, transfer->task, transfer->what, &limit, NULL, error);
    xv_task_abandon(transfer->client, transfer->task);
    if (rc != 0) {
        xv_error_wrap(error, rc, XV_COMPONENT, "%s of %s failed in the pool: %s", transfer->what,
                      transfer->vdi, error == NULL ? "" : xvsa_error_message(*error));
        if (error != NULL)
            xv_error_set_detail(*error, "vdi", transfer->vdi);
    }
    release(transfer);
    return rc;
}

/* The task's failure, if it has recorded one by now. */
static int read_account(struct xv_transfer *transfer, xvsa_error **error)
{
    struct xv_value *record = NULL;
    struct xv_call call = xv_call_within(NULL, ACCOUNT_MS);
    int rc = 0;
    if (xv_record_get(transfer->client, "task", transfer->task, &call, &record, NULL) == 0 &&
        strcmp(xv_value_get_string(record, "status", ""), "failure") == 0 &&
        xv_value_count(xv_value_get(record, "error_info")) > 0) {
        char *session = xv_client_session(transfer->client);
        rc = xv_errors_fail(transfer->what, xv_value_get(record, "error_info"), session, error);
        xv_free_secret(session);
    }
    xv_value_free(record);
    return rc;
}

int xv_transfer_fail(struct xv_transfer *transfer, int rc, xvsa_error **error)
{
    xvsa_error *account = NULL;
    /* What the pool says of a transfer that ended here tells nothing but its end. */
    bool own = rc == XVSA_ERR_CANCELLED || rc == XVSA_ERR_TLS || rc == XVSA_ERR_MEMORY ||
               rc == XVSA_ERR_INTERNAL ||
               xv_call_check(&transfer->call, XV_COMPONENT, transfer->what, NULL) != 0;
    /* Closed first, so that the host notices and says in the task why. */
    xv_http_end(transfer->exchange);
    transfer->exchange = NULL;
    int told = own ? 0 : read_account(transfer, &account);
    xv_task_abandon(transfer->client, transfer->task);
    release(transfer);
    if (told == 0)
        return rc;
    xv_log(transfer->client->env, XVSA_LOG_DEBUG, XV_COMPONENT, "%s",
           error == NULL ? "" : xvsa_error_message(*error));
    if (error != NULL) {
        xvsa_error_unref(*error);
        *error = account;
        xv_error_wrap(error, told, XV_COMPONENT, "%s of %s failed in the pool: %s", transfer->what,
                      transfer->vdi, xvsa_error_message(account));
        xv_error_set_detail(*error, "vdi", transfer->vdi);
    } else {
        xvsa_error_unref(account);
    }
    return told;
}

void xv_transfer_abandon(struct xv_transfer *transfer)
{
    xv_http_end(transfer->exchange);
    transfer->exchange = NULL;
    xv_task_abandon(transfer->client, transfer->task);
    release(transfer);
}
