/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Leases of etcd. Their numbers are ours, so that a grant whose answer was lost can be asked for again.
 * Tries are short: while one endpoint is silent, another one may keep the lease alive.
 */
#include <stdlib.h>

#include "base/buffer.h"
#include "coord/kv_etcd.h"

#define COMPONENT      XV_KV_COMPONENT
#define ANSWER_CEILING (64u << 10)

/* Sends {"ID": lease} and, when it is not 0, a time in seconds. */
static int call_lease(struct xv_kv *kv, const char *what, const char *target, int64_t lease,
                      int64_t seconds, const struct xv_call *call, struct xv_etcd_reply *reply,
                      xvsa_error **error)
{
    *reply = (struct xv_etcd_reply){0};
    json_t *body = json_pack("{s:o}", "ID", xv_etcd_number(lease));
    if (body == NULL ||
        (seconds != 0 && json_object_set_new(body, "TTL", xv_etcd_number(seconds)) != 0)) {
        json_decref(body);
        return xv_fail_memory(error);
    }
    struct xv_etcd_request request = {what, target, body, XV_ETCD_LEASE_TRY_MS, ANSWER_CEILING};
    int rc = xv_etcd_call((struct xv_kv_etcd *)kv, &request, call, reply, error);
    json_decref(body);
    return rc;
}

int xv_kv_etcd_grant(struct xv_kv *kv, int64_t ttl_ms, const struct xv_call *call, int64_t *ret,
                     xvsa_error **error)
{
    uint64_t id = 0;
    struct xv_etcd_reply reply;
    xvsa_error *failure = NULL;
    int rc = xv_random(&id, sizeof id, error);
    if (rc != 0)
        return rc;
    *ret = (int64_t)(id >> 2) + 1;
    rc = call_lease(kv, "grant a lease", "/v3/lease/grant", *ret, (ttl_ms + 999) / 1000, call,
                    &reply, &failure);
    json_decref(reply.body);
    /* There already: granted by a try whose answer was lost. Numbers do not meet by chance. */
    if (rc != 0 && reply.failure.code == XV_ETCD_PRECONDITION && reply.uncertain) {
        xv_error_clear(&failure);
        return 0;
    }
    if (error != NULL)
        *error = failure;
    else
        xvsa_error_unref(failure);
    return rc;
}

int xv_kv_etcd_renew(struct xv_kv *kv, int64_t lease, const struct xv_call *call,
                     int64_t *ret_ttl_ms, xvsa_error **error)
{
    struct xv_etcd_reply reply;
    int64_t seconds = 0;
    *ret_ttl_ms = 0;
    if (lease == 0)
        return 0;
    int rc = call_lease(kv, "renew a lease", "/v3/lease/keepalive", lease, 0, call, &reply, error);
    if (rc == 0)
        rc = xv_etcd_get_number(json_object_get(reply.body, "result"), "TTL", &seconds, error);
    json_decref(reply.body);
    if (rc == 0 && seconds > 0 && seconds < INT64_MAX / 1000)
        *ret_ttl_ms = seconds * 1000;
    return rc;
}

int xv_kv_etcd_revoke(struct xv_kv *kv, int64_t lease, const struct xv_call *call,
                      xvsa_error **error)
{
    struct xv_etcd_reply reply;
    xvsa_error *failure = NULL;
    if (lease == 0)
        return 0;
    int rc = call_lease(kv, "revoke a lease", "/v3/lease/revoke", lease, 0, call, &reply, &failure);
    json_decref(reply.body);
    if (rc == XVSA_ERR_NOT_FOUND) {
        xv_error_clear(&failure);
        return 0;
    }
    if (error != NULL)
        *error = failure;
    else
        xvsa_error_unref(failure);
    return rc;
}
