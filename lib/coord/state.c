/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Opening, the owner's lease, and records as JSON. In a local store the lease ends with the process
 * and needs nobody; elsewhere a thread renews it.
 */
#include "coord/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "coord/owner.h"

#define COMPONENT XV_STATE_COMPONENT
#define OWNER_TTL 60000
#define RENEW_MS  15000
#define LEAVE_MS  2000

static int claim(struct xv_coord *coord, const struct xv_call *call, xvsa_error **error)
{
    int64_t lease = 0;
    bool succeeded = false;
    int64_t ttl = xv_kv_is_local(coord->kv) ? XV_KV_TTL_PROCESS : OWNER_TTL;
    int rc = xv_kv_lease_grant(coord->kv, ttl, call, &lease, error);
    if (rc != 0)
        return rc;
    struct xv_kv_op op = {XV_KV_PUT, coord->owner_key, "{}", lease};
    rc = xv_kv_txn(coord->kv, NULL, 0, &op, 1, call, &succeeded, NULL, error);
    /* A lease that nothing hangs on would be renewed for ever, with its owner taken for dead. */
    if (rc != 0)
        return rc;
    pthread_mutex_lock(&coord->lock);
    coord->lease = lease;
    pthread_mutex_unlock(&coord->lock);
    return 0;
}

static void *keep(void *argument)
{
    struct xv_coord *coord = argument;
    struct xv_call forever = {.cancel = coord->stop};
    while (xv_call_sleep(&forever, RENEW_MS, COMPONENT, "renewing a lease", NULL) == 0) {
        struct xv_call call = xv_call_within(&forever, RENEW_MS);
        int64_t left_ms = 0;
        int rc = xv_kv_lease_renew(coord->kv, coord->lease, &call, &left_ms, NULL);
        /* What cannot be done now is tried again in a while. */
        if (rc == 0 && left_ms <= 0)
            (void)claim(coord, &call, NULL);
    }
    return NULL;
}

static int start(struct xv_coord *coord, bool in_memory, xvsa_error **error)
{
    int rc = xv_owner_name(in_memory, coord->owner, error);
    snprintf(coord->owner_key, sizeof coord->owner_key, "owner/%s", coord->owner);
    if (rc == 0)
        rc = claim(coord, NULL, error);
    if (rc == 0 && !xv_kv_is_local(coord->kv)) {
        rc = xvsa_cancel_new(&coord->stop, error);
        if (rc == 0)
            rc = xv_thread_start("xv-owner", false, keep, coord, &coord->thread, error);
        if (rc != 0) {
            xvsa_cancel_unref(coord->stop);
            coord->stop = NULL;
        }
    }
    return rc == 0 ? xv_jobs_interrupt(coord, error) : rc;
}

static int open_coord(struct xv_kv *kv, bool owns_kv, bool in_memory, struct xv_coord **ret,
                      xvsa_error **error)
{
    struct xv_coord *coord = calloc(1, sizeof *coord);
    if (coord == NULL) {
        if (owns_kv)
            xv_kv_close(kv);
        return xv_fail_memory(error);
    }
    coord->kv = kv;
    coord->owns_kv = owns_kv;
    pthread_mutex_init(&coord->lock, NULL);
    int rc = start(coord, in_memory, error);
    if (rc != 0) {
        xv_coord_close(coord);
        return rc;
    }
    *ret = coord;
    return 0;
}

int xv_coord_open_kv(struct xv_kv *kv, struct xv_coord **ret, xvsa_error **error)
{
    return open_coord(kv, false, false, ret, error);
}

int xv_coord_open(const char *path, struct xv_coord **ret, xvsa_error **error)
{
    struct xv_kv_options options = {0};
    struct xv_kv *kv = NULL;
    char *url = NULL;
    if (path != NULL && path[0] == '\0')
        return xv_fail(error, XVSA_ERR_INVALID, COMPONENT, "the path of the state file is empty");
    if (asprintf(&url, "sqlite:%s", path == NULL ? "" : path) < 0)
        return xv_fail_memory(error);
    options.url = url;
    int rc = xv_kv_open(&options, NULL, &kv, error);
    free(url);
    return rc == 0 ? open_coord(kv, true, path == NULL, ret, error) : rc;
}

void xv_coord_close(struct xv_coord *coord)
{
    if (coord == NULL)
        return;
    if (coord->stop != NULL) {
        xvsa_cancel_fire(coord->stop);
        pthread_join(coord->thread, NULL);
        xvsa_cancel_unref(coord->stop);
    }
    /* Should it fail, the lease ends in its time. */
    struct xv_call soon = xv_call_within(NULL, LEAVE_MS);
    if (coord->lease != 0)
        (void)xv_kv_lease_revoke(coord->kv, coord->lease, &soon, NULL);
    if (coord->owns_kv)
        xv_kv_close(coord->kv);
    pthread_mutex_destroy(&coord->lock);
    free(coord);
}

const char *xv_coord_owner(const struct xv_coord *coord)
{
    return coord->owner;
}

int xv_state_owners(struct xv_coord *coord, struct xv_kv_list *ret, xvsa_error **error)
{
    return xv_kv_range(coord->kv, "owner/", NULL, ret, error);
}

bool xv_state_is_alive(const struct xv_kv_list *owners, const char *owner)
{
    for (size_t i = 0; i < owners->count; i++) {
        if (strcmp(owners->pairs[i].key + strlen("owner/"), owner) == 0)
            return true;
    }
    return false;
}

json_t *xv_state_record(const struct xv_kv_pair *pair, xvsa_error **error)
{
    json_t *record = json_loadb(pair->value, pair->length, 0, NULL);
    if (json_is_object(record))
        return record;
    json_decref(record);
    xv_fail(error, XVSA_ERR_FORMAT, COMPONENT, "the record %s of the store is not a JSON object",
            pair->key);
    return NULL;
}

const char *xv_state_text(const json_t *record, const char *name)
{
    const char *text = json_string_value(json_object_get(record, name));
    return text == NULL ? "" : text;
}

int xv_state_put(struct xv_coord *coord, const char *key, int64_t revision, json_t *record,
                 bool *ret_succeeded, xvsa_error **error)
{
    char *text = json_dumps(record, JSON_COMPACT);
    json_decref(record);
    *ret_succeeded = false;
    if (text == NULL)
        return xv_fail_memory(error);
    struct xv_kv_compare compare = {key, XV_KV_MOD_REVISION, revision, NULL};
    struct xv_kv_op op = {.verb = XV_KV_PUT, .key = key, .value = text};
    int rc = xv_kv_txn(coord->kv, &compare, 1, &op, 1, NULL, ret_succeeded, NULL, error);
    free(text);
    return rc;
}
