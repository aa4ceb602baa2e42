/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Intents: written before an object is made in a pool, cleared when it is gone or has become the
 * user's.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "coord/state.h"

#define COMPONENT XV_STATE_COMPONENT
#define KEY_MAX   32

static void intent_key(int64_t id, char key[KEY_MAX])
{
    snprintf(key, KEY_MAX, "intent/%016" PRIx64, (uint64_t)id);
}

int xv_coord_intent_add(struct xv_coord *coord, const struct xv_intent *intent, int64_t *ret_id,
                        xvsa_error **error)
{
    char key[KEY_MAX];
    bool succeeded = false;
    int rc = 0;
    while (rc == 0 && !succeeded) {
        uint64_t id = 0;
        rc = xv_random(&id, sizeof id, error);
        if (rc != 0)
            return rc;
        *ret_id = (int64_t)(id >> 1);
        intent_key(*ret_id, key);
        json_t *record = json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:b}", "job", intent->job_id, "owner",
                                   coord->owner, "pool", intent->pool_uuid, "kind", intent->kind,
                                   "tag", intent->tag, "vm", intent->vm_uuid, "abandoned", 0);
        rc = xv_state_put(coord, key, 0, record, &succeeded, error);
    }
    return rc;
}

int xv_coord_intent_clear(struct xv_coord *coord, int64_t id, xvsa_error **error)
{
    char key[KEY_MAX];
    bool succeeded = false;
    intent_key(id, key);
    struct xv_kv_op op = {.verb = XV_KV_DELETE, .key = key};
    return xv_kv_txn(coord->kv, NULL, 0, &op, 1, NULL, &succeeded, NULL, error);
}

int xv_coord_intent_abandon(struct xv_coord *coord, int64_t id, xvsa_error **error)
{
    char key[KEY_MAX];
    intent_key(id, key);
    for (;;) {
        struct xv_kv_list list;
        bool succeeded = false;
        int rc = xv_kv_get(coord->kv, key, NULL, &list, error);
        if (rc != 0 || list.count == 0)
            return rc;
        json_t *record = xv_state_record(&list.pairs[0], error);
        if (record == NULL)
            rc = XVSA_ERR_FORMAT;
        else if (json_object_set_new(record, "abandoned", json_true()) != 0)
            rc = xv_fail_memory(error);
        if (rc == 0)
            rc = xv_state_put(coord, key, list.pairs[0].mod_revision, record, &succeeded, error);
        else
            json_decref(record);
        xv_kv_list_free(&list);
        if (rc != 0 || succeeded)
            return rc;
    }
}

/* The newest first: what was made last goes first. */
static int by_age(const void *a, const void *b)
{
    const struct xv_kv_pair *left = a;
    const struct xv_kv_pair *right = b;
    return (left->create_revision < right->create_revision) -
           (left->create_revision > right->create_revision);
}

static int visit(const struct xv_kv_pair *pair, const struct xv_kv_list *owners,
                 const char *pool_uuid, xv_intent_fn fn, void *user, xvsa_error **error)
{
    json_t *record = xv_state_record(pair, error);
    if (record == NULL)
        return XVSA_ERR_FORMAT;
    int rc = 0;
    if (strcmp(xv_state_text(record, "pool"), pool_uuid) == 0 &&
        (json_is_true(json_object_get(record, "abandoned")) ||
         !xv_state_is_alive(owners, xv_state_text(record, "owner")))) {
        struct xv_intent intent = {
            (int64_t)strtoull(pair->key + strlen("intent/"), NULL, 16),
            xv_state_text(record, "job"),
            xv_state_text(record, "pool"),
            xv_state_text(record, "kind"),
            xv_state_text(record, "tag"),
            xv_state_text(record, "vm"),
        };
        rc = fn(user, &intent, error);
    }
    json_decref(record);
    return rc;
}

int xv_coord_intents_dead(struct xv_coord *coord, const char *pool_uuid, xv_intent_fn fn,
                          void *user, xvsa_error **error)
{
    struct xv_kv_list intents;
    struct xv_kv_list owners;
    /* The owners second: who enters an intent is in their list before it. */
    int rc = xv_kv_range(coord->kv, "intent/", NULL, &intents, error);
    if (rc != 0)
        return rc;
    rc = xv_state_owners(coord, &owners, error);
    if (intents.count > 1)
        qsort(intents.pairs, intents.count, sizeof *intents.pairs, by_age);
    for (size_t i = 0; rc == 0 && i < intents.count; i++)
        rc = visit(&intents.pairs[i], &owners, pool_uuid, fn, user, error);
    xv_kv_list_free(&owners);
    xv_kv_list_free(&intents);
    return rc;
}
