/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What all backends of the store have in common: arguments, the prefix, lists.
 */
#include "coord/kv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coord/kv_backend.h"

#define COMPONENT       XV_KV_COMPONENT
#define DEFAULT_CALL_MS 60000
#define PREFIX_MAX      256
#define TTL_MIN_MS      1000
#define TTL_MAX_MS      (24 * 3600 * INT64_C(1000))
#define LIST_FIRST      16

/* Keys are printable: they are shown in messages and must mean the same to every backend. */
static int check_key(const char *key, size_t maximum, const char *what, xvsa_error **error)
{
    size_t length = key == NULL ? 0 : strlen(key);
    if (length > maximum)
        return xv_fail(error, XVSA_ERR_LIMIT, COMPONENT, "%s \"%.60s...\" has %zu bytes of %zu",
                       what, key, length, maximum);
    for (size_t i = 0; i < length; i++) {
        if ((unsigned char)key[i] < 0x20 || key[i] == 0x7f || (unsigned char)key[i] > 0xf4)
            return xv_fail(error, XVSA_ERR_INVALID, COMPONENT,
                           "%s has a byte 0x%02x, which is not text, at position %zu", what,
                           (unsigned)(unsigned char)key[i], i);
    }
    return 0;
}

/* A call that is over before it began does nothing. */
static int begin_call(const struct xv_call *call, struct xv_call *ret, xvsa_error **error)
{
    *ret = xv_call_within(call, DEFAULT_CALL_MS);
    return xv_call_check(ret, COMPONENT, "waiting for the coordination store", error);
}

static int full_key(struct xv_kv *kv, const char *key, bool may_be_empty, char **ret,
                    xvsa_error **error)
{
    if (key == NULL || (!may_be_empty && key[0] == '\0'))
        return xv_fail(error, XVSA_ERR_INVALID, COMPONENT, "a key of the store is empty");
    int rc = check_key(key, XV_KV_KEY_MAX, "the key", error);
    if (rc == 0 && strncmp(key, XV_KV_OWN, strlen(XV_KV_OWN)) == 0)
        rc = xv_fail(error, XVSA_ERR_INVALID, COMPONENT, "the key %s belongs to the store", key);
    if (rc != 0)
        return rc;
    if (asprintf(ret, "%s%s", kv->prefix, key) < 0) {
        *ret = NULL;
        return xv_fail_memory(error);
    }
    return 0;
}

int xv_kv_open(const struct xv_kv_options *options, const struct xv_call *call, struct xv_kv **ret,
               xvsa_error **error)
{
    struct xv_kv_options filled = *options;
    if (filled.prefix == NULL || filled.prefix[0] == '\0')
        filled.prefix = XV_KV_LOCAL_PREFIX;
    int rc = check_key(filled.prefix, PREFIX_MAX, "the store's prefix", error);
    if (rc != 0)
        return rc;
    char *prefix = strdup(filled.prefix);
    if (prefix == NULL)
        return xv_fail_memory(error);
    struct xv_call bounded = xv_call_within(call, DEFAULT_CALL_MS);
    const char *url = filled.url == NULL ? "" : filled.url;
    struct xv_kv *kv = NULL;
    if (strncmp(url, "sqlite:", 7) == 0)
        rc = xv_kv_sqlite_open(&filled, url + 7, &bounded, &kv, error);
    else if (strncmp(url, "etcd:", 5) == 0)
        rc = xv_kv_etcd_open(&filled, url + 5, &bounded, &kv, error);
    else
        rc = xv_fail(error, XVSA_ERR_INVALID, COMPONENT,
                     "the store's address must begin with \"sqlite:\" or \"etcd:\"");
    if (rc != 0) {
        free(prefix);
        return rc;
    }
    kv->prefix = prefix;
    kv->env = filled.env;
    *ret = kv;
    return 0;
}

void xv_kv_close(struct xv_kv *kv)
{
    if (kv == NULL)
        return;
    char *prefix = kv->prefix;
    kv->ops->close(kv);
    free(prefix);
}

bool xv_kv_is_local(const struct xv_kv *kv)
{
    return kv->ops->local;
}

/* The backend gave whole keys. */
static int take_prefix_off(struct xv_kv *kv, struct xv_kv_list *list, xvsa_error **error)
{
    size_t length = strlen(kv->prefix);
    size_t kept = 0;
    int rc = 0;
    for (size_t i = 0; i < list->count; i++) {
        struct xv_kv_pair pair = list->pairs[i];
        bool ours = strncmp(pair.key, kv->prefix, length) == 0;
        if (!ours && rc == 0)
            rc = xv_fail(error, XVSA_ERR_PROTOCOL, COMPONENT,
                         "the store answered with a key outside of %s", kv->prefix);
        if (!ours || strncmp(pair.key + length, XV_KV_OWN, strlen(XV_KV_OWN)) == 0) {
            free(pair.key);
            free(pair.value);
            continue;
        }
        memmove(pair.key, pair.key + length, strlen(pair.key + length) + 1);
        list->pairs[kept++] = pair;
    }
    list->count = kept;
    return rc;
}

static int read_keys(struct xv_kv *kv, const char *key, bool prefix, int64_t since,
                     const struct xv_call *call, struct xv_kv_list *ret, xvsa_error **error)
{
    char *full = NULL;
    *ret = (struct xv_kv_list){0};
    int rc = full_key(kv, key, prefix, &full, error);
    if (rc != 0)
        return rc;
    struct xv_call bounded;
    rc = begin_call(call, &bounded, error);
    if (rc == 0)
        rc = kv->ops->range(kv, full, prefix, since, &bounded, ret, error);
    free(full);
    if (rc == 0)
        rc = take_prefix_off(kv, ret, error);
    if (rc != 0)
        xv_kv_list_free(ret);
    return rc;
}

int xv_kv_range(struct xv_kv *kv, const char *prefix, const struct xv_call *call,
                struct xv_kv_list *ret, xvsa_error **error)
{
    return read_keys(kv, prefix, true, 0, call, ret, error);
}

int xv_kv_range_since(struct xv_kv *kv, const char *prefix, int64_t since,
                      const struct xv_call *call, struct xv_kv_list *ret, xvsa_error **error)
{
    return read_keys(kv, prefix, true, since, call, ret, error);
}

int xv_kv_get(struct xv_kv *kv, const char *key, const struct xv_call *call, struct xv_kv_list *ret,
              xvsa_error **error)
{
    return read_keys(kv, key, false, 0, call, ret, error);
}

void xv_kv_list_free(struct xv_kv_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->pairs[i].key);
        free(list->pairs[i].value);
    }
    free(list->pairs);
    *list = (struct xv_kv_list){0};
}

int xv_kv_list_add(struct xv_kv_list *list, const char *key, size_t key_length, const char *value,
                   size_t length, const struct xv_kv_pair *facts, xvsa_error **error)
{
    /* Full exactly when the count is a power of two that is at least the first capacity. */
    if (list->count == 0 || (list->count >= LIST_FIRST && (list->count & (list->count - 1)) == 0)) {
        size_t capacity = list->count == 0 ? LIST_FIRST : list->count * 2;
        struct xv_kv_pair *pairs = realloc(list->pairs, capacity * sizeof *pairs);
        if (pairs == NULL)
            return xv_fail_memory(error);
        list->pairs = pairs;
    }
    struct xv_kv_pair pair = *facts;
    pair.key = malloc(key_length + 1);
    pair.value = malloc(length + 1);
    if (pair.key == NULL || pair.value == NULL) {
        free(pair.key);
        free(pair.value);
        return xv_fail_memory(error);
    }
    memcpy(pair.key, key, key_length);
    pair.key[key_length] = '\0';
    if (length > 0)
        memcpy(pair.value, value, length);
    pair.value[length] = '\0';
    pair.length = length;
    list->pairs[list->count++] = pair;
    return 0;
}

char *xv_kv_range_end(const char *prefix)
{
    char *end = strdup(prefix);
    if (end != NULL)
        end[strlen(end) - 1] = (char)((unsigned char)end[strlen(end) - 1] + 1);
    return end;
}

/* The same operations and compares with whole keys. */
struct txn {
    struct xv_kv_compare *compares;
    struct xv_kv_op *ops;
    char **keys;
    size_t key_count;
};

static void free_txn(struct txn *txn)
{
    for (size_t i = 0; i < txn->key_count; i++)
        free(txn->keys[i]);
    free(txn->keys);
    free(txn->compares);
    free(txn->ops);
}

static bool covers(const struct xv_kv_op *op, const char *key)
{
    return op->verb == XV_KV_DELETE_PREFIX ? strncmp(key, op->key, strlen(op->key)) == 0
                                           : strcmp(key, op->key) == 0;
}

static int check_op(const struct xv_kv_op *ops, size_t index, const char *own, size_t *bytes,
                    xvsa_error **error)
{
    const struct xv_kv_op *op = &ops[index];
    size_t length = op->value == NULL ? 0 : strlen(op->value);
    if (op->verb == XV_KV_PUT && op->value == NULL)
        return xv_fail(error, XVSA_ERR_INVALID, COMPONENT, "a put of %s has no value", op->key);
    if (length > XV_KV_VALUE_MAX)
        return xv_fail(error, XVSA_ERR_LIMIT, COMPONENT, "the value of %s has %zu bytes of %u",
                       op->key, length, XV_KV_VALUE_MAX);
    *bytes += length + strlen(op->key);
    if (*bytes > XV_KV_BYTES_MAX)
        return xv_fail(error, XVSA_ERR_LIMIT, COMPONENT,
                       "a transaction has more than %u bytes of keys and values", XV_KV_BYTES_MAX);
    if (op->verb == XV_KV_DELETE_PREFIX && covers(op, own))
        return xv_fail(error, XVSA_ERR_INVALID, COMPONENT, "%s covers keys of the store's own",
                       op->key);
    for (size_t i = 0; i < index; i++) {
        if (covers(op, ops[i].key) || covers(&ops[i], op->key))
            return xv_fail(error, XVSA_ERR_INVALID, COMPONENT,
                           "a transaction touches %s more than once", op->key);
    }
    return 0;
}

static int fill_txn(struct xv_kv *kv, struct txn *txn, const struct xv_kv_compare *compares,
                    size_t compare_count, const struct xv_kv_op *ops, size_t op_count,
                    xvsa_error **error)
{
    char own[PREFIX_MAX + sizeof XV_KV_OWN];
    snprintf(own, sizeof own, "%s%s", kv->prefix, XV_KV_OWN);
    size_t bytes = 0;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < compare_count; i++) {
        if (compares[i].field == XV_KV_VALUE && compares[i].value == NULL)
            return xv_fail(error, XVSA_ERR_INVALID, COMPONENT, "a compare of %s has no value",
                           compares[i].key);
        rc = full_key(kv, compares[i].key, false, &txn->keys[txn->key_count], error);
        if (rc == 0) {
            txn->compares[i] = compares[i];
            txn->compares[i].key = txn->keys[txn->key_count++];
        }
    }
    for (size_t i = 0; rc == 0 && i < op_count; i++) {
        rc = full_key(kv, ops[i].key, false, &txn->keys[txn->key_count], error);
        if (rc != 0)
            return rc;
        txn->ops[i] = ops[i];
        txn->ops[i].key = txn->keys[txn->key_count++];
        rc = check_op(txn->ops, i, own, &bytes, error);
    }
    return rc;
}

int xv_kv_txn(struct xv_kv *kv, const struct xv_kv_compare *compares, size_t compare_count,
              const struct xv_kv_op *ops, size_t op_count, const struct xv_call *call,
              bool *ret_succeeded, int64_t *ret_revision, xvsa_error **error)
{
    if (compare_count > XV_KV_TXN_MAX || op_count > XV_KV_TXN_MAX)
        return xv_fail(error, XVSA_ERR_INVALID, COMPONENT,
                       "a transaction has %zu compares and %zu operations of %d", compare_count,
                       op_count, XV_KV_TXN_MAX);
    struct txn txn = {.compares = calloc(compare_count + 1, sizeof *txn.compares),
                      .ops = calloc(op_count + 1, sizeof *txn.ops),
                      .keys = calloc(compare_count + op_count + 1, sizeof *txn.keys)};
    int rc = 0;
    if (txn.compares == NULL || txn.ops == NULL || txn.keys == NULL)
        rc = xv_fail_memory(error);
    else
        rc = fill_txn(kv, &txn, compares, compare_count, ops, op_count, error);
    struct xv_call bounded;
    int64_t revision = 0;
    *ret_succeeded = false;
    if (rc == 0)
        rc = begin_call(call, &bounded, error);
    if (rc == 0)
        rc = kv->ops->txn(kv, txn.compares, compare_count, txn.ops, op_count, &bounded,
                          ret_succeeded, &revision, error);
    if (rc == 0 && ret_revision != NULL)
        *ret_revision = revision;
    free_txn(&txn);
    return rc;
}

void xv_kv_doubt(struct xv_kv *kv)
{
    atomic_fetch_add(&kv->doubts, 1);
}

uint64_t xv_kv_doubts(struct xv_kv *kv)
{
    return atomic_load(&kv->doubts);
}

int xv_kv_lease_grant(struct xv_kv *kv, int64_t ttl_ms, const struct xv_call *call, int64_t *ret,
                      xvsa_error **error)
{
    bool process = ttl_ms == XV_KV_TTL_PROCESS && kv->ops->local;
    if (!process && (ttl_ms < TTL_MIN_MS || ttl_ms > TTL_MAX_MS))
        return xv_fail(error, XVSA_ERR_INVALID, COMPONENT,
                       "a lease of %lld ms is not between a second and a day", (long long)ttl_ms);
    struct xv_call bounded;
    int rc = begin_call(call, &bounded, error);
    return rc == 0 ? kv->ops->lease_grant(kv, ttl_ms, &bounded, ret, error) : rc;
}

int xv_kv_lease_renew(struct xv_kv *kv, int64_t lease, const struct xv_call *call,
                      int64_t *ret_ttl_ms, xvsa_error **error)
{
    struct xv_call bounded;
    int rc = begin_call(call, &bounded, error);
    return rc == 0 ? kv->ops->lease_renew(kv, lease, &bounded, ret_ttl_ms, error) : rc;
}

int xv_kv_lease_revoke(struct xv_kv *kv, int64_t lease, const struct xv_call *call,
                       xvsa_error **error)
{
    struct xv_call bounded;
    int rc = begin_call(call, &bounded, error);
    return rc == 0 ? kv->ops->lease_revoke(kv, lease, &bounded, error) : rc;
}

int xv_kv_watch_open(struct xv_kv *kv, const char *prefix, struct xv_kv_watch **ret,
                     xvsa_error **error)
{
    char *full = NULL;
    int rc = full_key(kv, prefix, true, &full, error);
    if (rc == 0)
        rc = kv->ops->watch_open(kv, full, ret, error);
    free(full);
    return rc;
}

void xv_kv_watch_filter(struct xv_kv_watch *watch, xv_kv_wakes wakes, void *user)
{
    watch->wakes = wakes;
    watch->user = user;
}

bool xv_kv_watch_is_live(const struct xv_kv_watch *watch)
{
    return watch->live;
}

bool xv_kv_watch_wakes(const struct xv_kv_watch *watch, const char *key)
{
    size_t length = strlen(watch->kv->prefix);
    bool ours = key != NULL && strncmp(key, watch->kv->prefix, length) == 0;
    if (ours && strncmp(key + length, XV_KV_OWN, strlen(XV_KV_OWN)) == 0)
        return false;
    return watch->wakes == NULL || watch->wakes(watch->user, ours ? key + length : NULL);
}

int xv_kv_watch_wait(struct xv_kv_watch *watch, int64_t timeout_ms, const struct xv_call *call,
                     bool *ret_changed, xvsa_error **error)
{
    *ret_changed = false;
    return watch->kv->ops->watch_wait(watch, timeout_ms, call, ret_changed, error);
}

void xv_kv_watch_close(struct xv_kv_watch *watch)
{
    if (watch != NULL)
        watch->kv->ops->watch_close(watch);
}
