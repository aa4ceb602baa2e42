/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The election of a pool's coordinator: who makes the key has the place, until its lease ends. The
 * term is the revision at which the key was made. Because a store that was lost counts from the
 * start again, the key's value is compared as well, which no other joining of any member has.
 */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "coord/member_internal.h"

#define COMPONENT XV_MEMBER_COMPONENT
#define STEP_MS   500

static void place_key(const struct xv_member *member, char key[XV_COORDINATOR_KEY_MAX])
{
    snprintf(key, XV_COORDINATOR_KEY_MAX, "coord/%s", member->pool);
}

static const char *place_value(struct xv_member *member)
{
    pthread_mutex_lock(&member->lock);
    const char *value = member->places->value;
    pthread_mutex_unlock(&member->lock);
    return value;
}

static int64_t added_of(const struct xv_kv_pair *pair)
{
    json_t *document = json_loadb(pair->value, pair->length, 0, NULL);
    int64_t added = json_integer_value(json_object_get(document, "added"));
    json_decref(document);
    return added > 0 ? added : INT64_MAX;
}

/* Whether a pair of the order is before this member, who may be missing in it. */
static bool is_before(struct xv_member *member, const struct xv_kv_pair *pair, const char *name)
{
    int64_t added = added_of(pair);
    int64_t own = xv_member_added(member);
    int order = strcmp(name, member->name);
    return order != 0 && (added < own || (added == own && order < 0));
}

static bool lives(const struct xv_kv_list *living, const char *name)
{
    for (size_t i = 0; i < living->count; i++) {
        if (strcmp(living->pairs[i].key + strlen("m/"), name) == 0)
            return true;
    }
    return false;
}

/* How many living members were added earlier. */
static int find_rank(struct xv_member *member, const struct xv_call *call, int64_t *ret,
                     xvsa_error **error)
{
    char prefix[XV_MEMBER_KEY_MAX];
    struct xv_kv_list order;
    struct xv_kv_list living;
    snprintf(prefix, sizeof prefix, "order/%s/", member->pool);
    int rc = xv_kv_range(member->kv, prefix, call, &order, error);
    if (rc != 0)
        return rc;
    rc = xv_kv_range(member->kv, "m/", call, &living, error);
    *ret = 0;
    for (size_t i = 0; rc == 0 && i < order.count; i++) {
        const char *name = order.pairs[i].key + strlen(prefix);
        if (is_before(member, &order.pairs[i], name) && lives(&living, name))
            ++*ret;
    }
    xv_kv_list_free(&order);
    if (rc == 0)
        xv_kv_list_free(&living);
    return rc;
}

/* Whether the place has been free for long enough. */
static int may_take(struct xv_member *member, const struct xv_call *call, bool *ret,
                    xvsa_error **error)
{
    int64_t rank = 0;
    int rc = find_rank(member, call, &rank, error);
    if (rc != 0)
        return rc;
    int64_t now = xv_boottime_ms();
    pthread_mutex_lock(&member->lock);
    if (member->vacant_ms == 0)
        member->vacant_ms = now;
    *ret = now - member->vacant_ms >= rank * STEP_MS;
    pthread_mutex_unlock(&member->lock);
    return 0;
}

static int take(struct xv_member *member, int64_t lease, const char *key,
                const struct xv_call *call, int64_t *ret_term, xvsa_error **error)
{
    struct xv_kv_compare compare = {key, XV_KV_CREATE_REVISION, 0, NULL};
    struct xv_kv_op op = {XV_KV_PUT, key, place_value(member), lease};
    bool succeeded = false;
    int64_t revision = 0;
    xvsa_error *failure = NULL;
    int rc = xv_kv_txn(member->kv, &compare, 1, &op, 1, call, &succeeded, &revision, &failure);
    if (rc == 0 && succeeded)
        *ret_term = revision;
    if (rc == XVSA_ERR_NOT_FOUND) { /* the lease; the member's thread will find it out */
        xv_error_clear(&failure);
        return 0;
    }
    if (error != NULL)
        *error = failure;
    else
        xvsa_error_unref(failure);
    return rc;
}

int xv_member_elect(struct xv_member *member, const struct xv_call *call, int64_t *ret_term,
                    xvsa_error **error)
{
    char key[XV_COORDINATOR_KEY_MAX];
    struct xv_kv_list list;
    *ret_term = 0;
    int64_t lease = xv_member_lease(member);
    if (xv_member_state(member) != XV_MEMBER_JOINED || lease == 0)
        return 0;
    place_key(member, key);
    int rc = xv_kv_get(member->kv, key, call, &list, error);
    if (rc != 0)
        return rc;
    bool vacant = list.count == 0;
    if (!vacant && list.pairs[0].lease == lease &&
        strcmp(list.pairs[0].value, place_value(member)) == 0)
        *ret_term = list.pairs[0].create_revision;
    xv_kv_list_free(&list);
    bool may = false;
    if (vacant) {
        rc = may_take(member, call, &may, error);
    } else {
        pthread_mutex_lock(&member->lock);
        member->vacant_ms = 0;
        pthread_mutex_unlock(&member->lock);
    }
    return rc == 0 && may ? take(member, lease, key, call, ret_term, error) : rc;
}

bool xv_member_sees_vacancy(struct xv_member *member)
{
    pthread_mutex_lock(&member->lock);
    bool vacant = member->vacant_ms != 0;
    pthread_mutex_unlock(&member->lock);
    return vacant;
}

int xv_member_resign(struct xv_member *member, const struct xv_call *call, xvsa_error **error)
{
    char key[XV_COORDINATOR_KEY_MAX];
    bool succeeded = false;
    place_key(member, key);
    struct xv_kv_compare compare = {key, XV_KV_VALUE, 0, place_value(member)};
    struct xv_kv_op op = {.verb = XV_KV_DELETE, .key = key};
    return xv_kv_txn(member->kv, &compare, 1, &op, 1, call, &succeeded, NULL, error);
}

struct xv_kv_compare xv_member_guard(struct xv_member *member, int64_t term,
                                     char key_buffer[XV_COORDINATOR_KEY_MAX])
{
    place_key(member, key_buffer);
    /* Revision 0 would mean that nobody has the place; with a value it never holds. */
    return (struct xv_kv_compare){key_buffer, XV_KV_CREATE_REVISION, term, place_value(member)};
}
