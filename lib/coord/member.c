/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The life of a member: joining, the thread that renews the lease and puts back what a lost store
 * has forgotten, leaving. Time is that of CLOCK_BOOTTIME, so that a suspended machine knows how
 * long it was away. What counts is when a renewal was sent: the store's clock starts later than
 * that, never earlier.
 */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/thread.h"
#include "coord/member_internal.h"

#define COMPONENT      XV_MEMBER_COMPONENT
#define TTL_MIN_MS     2000
#define LEAVE_MS       2000
#define STORE_SLACK_MS 5000

/* Reads how long ago the last renewal was sent; the caller holds the lock. */
static enum xv_member_state state_now(const struct xv_member *member)
{
    if (member->left)
        return XV_MEMBER_LEFT;
    if (member->lease == 0)
        return XV_MEMBER_LOST;
    int64_t age = xv_boottime_ms() - member->renewed_ms;
    return age > member->ttl_ms - member->ttl_ms / 4 ? XV_MEMBER_SUSPECT : XV_MEMBER_JOINED;
}

enum xv_member_state xv_member_state(struct xv_member *member)
{
    pthread_mutex_lock(&member->lock);
    enum xv_member_state state = state_now(member);
    pthread_mutex_unlock(&member->lock);
    return state;
}

const char *xv_member_name(const struct xv_member *member)
{
    return member->name;
}

int64_t xv_member_lease(struct xv_member *member)
{
    pthread_mutex_lock(&member->lock);
    int64_t lease = member->left ? 0 : member->lease;
    pthread_mutex_unlock(&member->lock);
    return lease;
}

uint32_t xv_member_generation(struct xv_member *member)
{
    pthread_mutex_lock(&member->lock);
    uint32_t generation = member->generation;
    pthread_mutex_unlock(&member->lock);
    return generation;
}

int64_t xv_member_added(struct xv_member *member)
{
    pthread_mutex_lock(&member->lock);
    int64_t added = member->added_ms;
    pthread_mutex_unlock(&member->lock);
    return added;
}

void xv_member_epoch(struct xv_member *member, struct xv_epoch *ret)
{
    pthread_mutex_lock(&member->lock);
    *ret = member->epoch;
    pthread_mutex_unlock(&member->lock);
}

/* The facts with what the member adds; the caller frees. */
static char *value_of(struct xv_member *member)
{
    pthread_mutex_lock(&member->lock);
    json_t *facts = json_loads(member->facts, 0, NULL);
    pthread_mutex_unlock(&member->lock);
    char *text = NULL;
    if (json_is_object(facts) &&
        json_object_set_new(facts, "pool", json_string(member->pool)) == 0 &&
        json_object_set_new(facts, "boot", json_string(member->boot)) == 0)
        text = json_dumps(facts, JSON_COMPACT);
    json_decref(facts);
    return text;
}

static bool is_ours(const struct xv_member *member, const struct xv_kv_pair *pair)
{
    json_t *facts = json_loadb(pair->value, pair->length, 0, NULL);
    const char *boot = json_string_value(json_object_get(facts, "boot"));
    bool ours = boot != NULL && strcmp(boot, member->boot) == 0;
    json_decref(facts);
    return ours;
}

/* Puts the value where nobody else's is. Called with writing held. */
static int put_value(struct xv_member *member, int64_t lease, const char *key, const char *value,
                     const struct xv_call *call, xvsa_error **error)
{
    for (;;) {
        struct xv_kv_list list;
        int rc = xv_kv_get(member->kv, key, call, &list, error);
        if (rc != 0)
            return rc;
        int64_t revision = list.count == 0 ? 0 : list.pairs[0].mod_revision;
        bool taken = list.count != 0 && !is_ours(member, &list.pairs[0]);
        xv_kv_list_free(&list);
        if (taken)
            return xv_fail(error, XVSA_ERR_EXISTS, COMPONENT,
                           "a member named \"%s\" lives already; names must be unique in a site",
                           member->name);
        struct xv_kv_compare compare = {key, XV_KV_MOD_REVISION, revision, NULL};
        struct xv_kv_op op = {XV_KV_PUT, key, value, lease};
        bool succeeded = false;
        rc = xv_kv_txn(member->kv, &compare, 1, &op, 1, call, &succeeded, NULL, error);
        if (rc != 0 || succeeded)
            return rc;
    }
}

int xv_member_write(struct xv_member *member, int64_t lease, const struct xv_call *call,
                    xvsa_error **error)
{
    char key[XV_MEMBER_KEY_MAX];
    snprintf(key, sizeof key, "m/%s", member->name);
    pthread_mutex_lock(&member->writing);
    char *value = value_of(member);
    int rc =
        value == NULL ? xv_fail_memory(error) : put_value(member, lease, key, value, call, error);
    pthread_mutex_unlock(&member->writing);
    free(value);
    return rc;
}

int xv_member_tell(struct xv_member *member, const char *facts, const struct xv_call *call,
                   xvsa_error **error)
{
    json_t *document = json_loads(facts, 0, NULL);
    bool good = json_is_object(document);
    json_decref(document);
    if (!good)
        return xv_fail(error, XVSA_ERR_INVALID, COMPONENT,
                       "the facts of a member are not a JSON object");
    char *copy = strdup(facts);
    if (copy == NULL)
        return xv_fail_memory(error);
    pthread_mutex_lock(&member->lock);
    free(member->facts);
    member->facts = copy;
    int64_t lease = member->lease;
    pthread_mutex_unlock(&member->lock);
    if (lease == 0)
        return 0;
    xvsa_error *failure = NULL;
    int rc = xv_member_write(member, lease, call, &failure);
    if (rc == XVSA_ERR_NOT_FOUND) { /* the thread will find it out and join again */
        xv_error_clear(&failure);
        return 0;
    }
    if (error != NULL)
        *error = failure;
    else
        xvsa_error_unref(failure);
    return rc;
}

int xv_member_write_order(struct xv_member *member, const struct xv_call *call, xvsa_error **error)
{
    char key[XV_MEMBER_KEY_MAX];
    char value[48];
    struct xv_kv_list list;
    snprintf(key, sizeof key, "order/%s/%s", member->pool, member->name);
    int rc = xv_kv_get(member->kv, key, call, &list, error);
    if (rc != 0)
        return rc;
    if (list.count == 1) {
        json_t *document = json_loadb(list.pairs[0].value, list.pairs[0].length, 0, NULL);
        int64_t added = json_integer_value(json_object_get(document, "added"));
        json_decref(document);
        xv_kv_list_free(&list);
        pthread_mutex_lock(&member->lock);
        if (added > 0)
            member->added_ms = added;
        pthread_mutex_unlock(&member->lock);
        return 0;
    }
    xv_kv_list_free(&list);
    snprintf(value, sizeof value, "{\"added\":%" PRId64 "}", xv_member_added(member));
    struct xv_kv_compare compare = {key, XV_KV_CREATE_REVISION, 0, NULL};
    struct xv_kv_op op = {.verb = XV_KV_PUT, .key = key, .value = value};
    bool succeeded = false;
    return xv_kv_txn(member->kv, &compare, 1, &op, 1, call, &succeeded, NULL, error);
}

/* Remembers the newest epoch; a store that has lost it gets the next one. */
static int keep_epoch(struct xv_member *member, const struct xv_call *call, xvsa_error **error)
{
    struct xv_epoch known;
    struct xv_epoch present;
    xv_member_epoch(member, &known);
    int rc = xv_epoch_read(member->kv, call, &present, error);
    if (rc == 0 && known.gen != 0 && present.gen < known.gen) {
        rc = xv_epoch_ensure(member->kv, known.gen + 1, known.site_uuid, call, &present, error);
        if (rc == 0)
            xv_log(member->env, XVSA_LOG_WARNING, COMPONENT,
                   "the coordination store has lost its epoch %" PRId64 "; it is now %" PRId64,
                   known.gen, present.gen);
    }
    if (rc != 0)
        return rc;
    pthread_mutex_lock(&member->lock);
    member->epoch = present;
    pthread_mutex_unlock(&member->lock);
    return 0;
}

/* A value for the place of the coordinator that no earlier joining used. */
static int add_place(struct xv_member *member, xvsa_error **error)
{
    unsigned char random[8];
    char hex[sizeof random * 2 + 1];
    int rc = xv_random(random, sizeof random, error);
    if (rc != 0)
        return rc;
    struct xv_member_place *place = calloc(1, sizeof *place);
    if (place == NULL)
        return xv_fail_memory(error);
    xv_hex_encode(random, sizeof random, hex);
    snprintf(place->value, sizeof place->value, "{\"member\":\"%s\",\"nonce\":\"%s\"}",
             member->name, hex);
    pthread_mutex_lock(&member->lock);
    place->next = member->places;
    member->places = place;
    pthread_mutex_unlock(&member->lock);
    return 0;
}

/* One attempt to join with a new lease. */
static int join_once(struct xv_member *member, const struct xv_call *call, xvsa_error **error)
{
    int64_t lease = 0;
    int64_t sent = xv_boottime_ms();
    int rc = xv_kv_lease_grant(member->kv, member->ttl_ms, call, &lease, error);
    if (rc != 0)
        return rc;
    rc = keep_epoch(member, call, error);
    if (rc == 0)
        rc = xv_member_write_order(member, call, error);
    if (rc == 0)
        rc = add_place(member, error);
    if (rc == 0)
        rc = xv_member_write(member, lease, call, error);
    if (rc != 0) {
        struct xv_call soon = xv_call_within(NULL, LEAVE_MS);
        (void)xv_kv_lease_revoke(member->kv, lease, &soon, NULL);
        return rc;
    }
    pthread_mutex_lock(&member->lock);
    member->lease = lease;
    member->renewed_ms = sent;
    member->generation++;
    member->vacant_ms = 0;
    pthread_mutex_unlock(&member->lock);
    return 0;
}

/* What else was put with the lease goes with it, if it is still there. */
static void lose(struct xv_member *member, const struct xv_call *call, const char *why)
{
    pthread_mutex_lock(&member->lock);
    int64_t lease = member->lease;
    member->lease = 0;
    pthread_mutex_unlock(&member->lock);
    (void)xv_kv_lease_revoke(member->kv, lease, call, NULL);
    xv_log(member->env, XVSA_LOG_WARNING, COMPONENT, "member %s: %s; joining again", member->name,
           why);
}

/* Whether the member's key still is there, with its lease; puts back what a lost store forgot. */
static int look_after(struct xv_member *member, int64_t lease, const struct xv_call *call,
                      bool *ret_lost, xvsa_error **error)
{
    char key[XV_MEMBER_KEY_MAX];
    struct xv_kv_list list;
    snprintf(key, sizeof key, "m/%s", member->name);
    int rc = xv_kv_get(member->kv, key, call, &list, error);
    if (rc != 0)
        return rc;
    *ret_lost = list.count == 0 || list.pairs[0].lease != lease;
    xv_kv_list_free(&list);
    if (*ret_lost)
        return 0;
    rc = keep_epoch(member, call, error);
    return rc == 0 ? xv_member_write_order(member, call, error) : rc;
}

static int renew(struct xv_member *member, const struct xv_call *call, xvsa_error **error)
{
    int64_t lease = xv_member_lease(member);
    int64_t left_ms = 0;
    bool lost = false;
    int64_t sent = xv_boottime_ms();
    int rc = xv_kv_lease_renew(member->kv, lease, call, &left_ms, error);
    if (rc != 0)
        return rc;
    if (left_ms <= 0) {
        lose(member, call, "its lease has ended");
        return 0;
    }
    pthread_mutex_lock(&member->lock);
    member->renewed_ms = sent;
    pthread_mutex_unlock(&member->lock);
    rc = look_after(member, lease, call, &lost, error);
    if (rc == 0 && lost)
        lose(member, call, "its key is gone from the store");
    return rc;
}

static void *keep(void *argument)
{
    struct xv_member *member = argument;
    struct xv_call forever = {.cancel = member->stop};
    int64_t wait_ms = member->ttl_ms / 3;
    int last = 0;
    while (xv_call_sleep(&forever, wait_ms, COMPONENT, "renewing a lease", NULL) == 0) {
        struct xv_call call = xv_call_within(&forever, member->ttl_ms / 3);
        xvsa_error *error = NULL;
        bool lost = xv_member_state(member) == XV_MEMBER_LOST;
        int rc = lost ? join_once(member, &call, &error) : renew(member, &call, &error);
        if (rc != 0 && rc != last && rc != XVSA_ERR_CANCELLED)
            xv_log(member->env, XVSA_LOG_WARNING, COMPONENT, "member %s: cannot %s: %s",
                   member->name, lost ? "join again" : "renew its lease",
                   xvsa_error_message(error));
        last = rc;
        xv_error_clear(&error);
        bool hurry = rc != 0 || xv_member_state(member) == XV_MEMBER_LOST;
        wait_ms = hurry ? member->ttl_ms / 20 : member->ttl_ms / 3;
    }
    return NULL;
}

static int check_options(const struct xv_member_options *options, xvsa_error **error)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789-_.";
    size_t length = strlen(options->name);
    if (length == 0 || length > XV_MEMBER_NAME_MAX || strspn(options->name, letters) != length)
        return xv_fail(error, XVSA_ERR_INVALID, COMPONENT,
                       "\"%.80s\" is no name of a member: 1 to %d letters, digits and \"-_.\"",
                       options->name, XV_MEMBER_NAME_MAX);
    length = strlen(options->pool);
    if (length == 0 || length > XV_EPOCH_UUID_MAX || strspn(options->pool, letters) != length)
        return xv_fail(error, XVSA_ERR_INVALID, COMPONENT, "\"%.80s\" is no UUID of a pool",
                       options->pool);
    if (options->ttl_ms != 0 && options->ttl_ms < TTL_MIN_MS)
        return xv_fail(error, XVSA_ERR_INVALID, COMPONENT, "a lease of less than %d ms",
                       TTL_MIN_MS);
    return 0;
}

static void free_member(struct xv_member *member)
{
    while (member->places != NULL) {
        struct xv_member_place *next = member->places->next;
        free(member->places);
        member->places = next;
    }
    pthread_mutex_destroy(&member->lock);
    pthread_mutex_destroy(&member->writing);
    xvsa_cancel_unref(member->stop);
    free(member->facts);
    free(member);
}

static int make_member(struct xv_kv *kv, const struct xv_member_options *options,
                       struct xv_member **ret, xvsa_error **error)
{
    unsigned char random[XV_MEMBER_BOOT_MAX / 2];
    struct xv_member *member = calloc(1, sizeof *member);
    if (member == NULL)
        return xv_fail_memory(error);
    pthread_mutex_init(&member->lock, NULL);
    pthread_mutex_init(&member->writing, NULL);
    member->kv = kv;
    member->env = options->env;
    member->ttl_ms = options->ttl_ms == 0 ? XV_MEMBER_TTL_MS : options->ttl_ms;
    member->added_ms = xv_wall_ms();
    snprintf(member->name, sizeof member->name, "%s", options->name);
    snprintf(member->pool, sizeof member->pool, "%s", options->pool);
    int rc = xv_random(random, sizeof random, error);
    xv_hex_encode(random, sizeof random, member->boot);
    if (rc == 0)
        rc = xvsa_cancel_new(&member->stop, error);
    if (rc == 0)
        rc = xv_member_tell(member, options->facts == NULL ? "{}" : options->facts, NULL, error);
    if (rc != 0) {
        free_member(member);
        return rc;
    }
    *ret = member;
    return 0;
}

/* The process before this one may have died a moment ago: its lease ends within its time, to which a
 * store adds some seconds when its own leader has just changed. */
static int join_patiently(struct xv_member *member, const struct xv_call *call, xvsa_error **error)
{
    int64_t until = xv_boottime_ms() + member->ttl_ms + member->ttl_ms / 2 + STORE_SLACK_MS;
    for (;;) {
        xvsa_error *failure = NULL;
        int rc = join_once(member, call, &failure);
        if (rc == XVSA_ERR_EXISTS && xv_boottime_ms() < until &&
            xv_call_sleep(call, member->ttl_ms / 10, COMPONENT, "waiting for a name", NULL) == 0) {
            xv_error_clear(&failure);
            continue;
        }
        if (error != NULL)
            *error = failure;
        else
            xvsa_error_unref(failure);
        return rc;
    }
}

int xv_member_join(struct xv_kv *kv, const struct xv_member_options *options,
                   const struct xv_call *call, struct xv_member **ret, xvsa_error **error)
{
    struct xv_member *member = NULL;
    int rc = check_options(options, error);
    if (rc == 0)
        rc = make_member(kv, options, &member, error);
    if (rc != 0)
        return rc;
    rc = join_patiently(member, call, error);
    if (rc == 0) {
        rc = xv_thread_start("xv-member", false, keep, member, &member->thread, error);
        if (rc != 0) {
            struct xv_call soon = xv_call_within(NULL, LEAVE_MS);
            (void)xv_kv_lease_revoke(kv, member->lease, &soon, NULL);
        }
    }
    if (rc != 0) {
        free_member(member);
        return rc;
    }
    *ret = member;
    return 0;
}

void xv_member_leave(struct xv_member *member)
{
    if (member == NULL)
        return;
    xvsa_cancel_fire(member->stop);
    pthread_join(member->thread, NULL);
    pthread_mutex_lock(&member->lock);
    int64_t lease = member->lease;
    member->left = true;
    pthread_mutex_unlock(&member->lock);
    xvsa_error *error = NULL;
    struct xv_call soon = xv_call_within(NULL, LEAVE_MS);
    if (lease != 0 && xv_kv_lease_revoke(member->kv, lease, &soon, &error) != 0)
        xv_log(member->env, XVSA_LOG_WARNING, COMPONENT, "member %s: cannot end its lease: %s",
               member->name, xvsa_error_message(error));
    xv_error_clear(&error);
    free_member(member);
}
