/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/txn.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coord/epoch.h"

void xv_txn_init(struct xv_txn *txn)
{
    memset(txn, 0, sizeof *txn);
}

void xv_txn_free(struct xv_txn *txn)
{
    for (size_t i = 0; i < txn->compare_count; i++) {
        free((char *)(uintptr_t)txn->compares[i].key);
        free((char *)(uintptr_t)txn->compares[i].value);
    }
    for (size_t i = 0; i < txn->op_count; i++) {
        free((char *)(uintptr_t)txn->ops[i].key);
        free((char *)(uintptr_t)txn->ops[i].value);
    }
    xv_txn_init(txn);
}

static XV_PRINTF(3, 0) char *make_key(struct xv_txn *txn, size_t count, const char *format,
                                      va_list args)
{
    char *key = NULL;
    if (count >= XV_KV_TXN_MAX)
        txn->fault = XVSA_ERR_LIMIT;
    else if (vasprintf(&key, format, args) < 0) {
        txn->fault = XVSA_ERR_MEMORY;
        key = NULL;
    }
    return key;
}

void xv_txn_expect(struct xv_txn *txn, enum xv_kv_field field, int64_t revision, const char *format,
                   ...)
{
    va_list args;
    va_start(args, format);
    char *key = make_key(txn, txn->compare_count, format, args);
    va_end(args);
    if (key != NULL)
        txn->compares[txn->compare_count++] =
            (struct xv_kv_compare){.key = key, .field = field, .revision = revision};
}

void xv_txn_expect_as(struct xv_txn *txn, const struct xv_kv_compare *compare)
{
    size_t before = txn->compare_count;
    xv_txn_expect(txn, compare->field, compare->revision, "%s", compare->key);
    if (compare->value == NULL || txn->compare_count == before)
        return;
    txn->compares[before].value = strdup(compare->value);
    if (txn->compares[before].value == NULL)
        txn->fault = XVSA_ERR_MEMORY;
}

static void add_op(struct xv_txn *txn, enum xv_kv_verb verb, char *key, char *value, int64_t lease)
{
    if (key != NULL)
        txn->ops[txn->op_count++] =
            (struct xv_kv_op){.verb = verb, .key = key, .value = value, .lease = lease};
    else
        free(value);
}

static XV_PRINTF(4, 0) void put(struct xv_txn *txn, int64_t lease, const json_t *value,
                                const char *format, va_list args)
{
    char *text = json_dumps(value, JSON_COMPACT);
    if (text == NULL) {
        txn->fault = XVSA_ERR_MEMORY;
        return;
    }
    char *key = make_key(txn, txn->op_count, format, args);
    add_op(txn, XV_KV_PUT, key, text, lease);
}

void xv_txn_put(struct xv_txn *txn, int64_t lease, const json_t *value, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    put(txn, lease, value, format, args);
    va_end(args);
}

void xv_txn_put_leased(struct xv_txn *txn, int64_t lease, const json_t *value, const char *format,
                       ...)
{
    va_list args;
    if (lease == 0)
        txn->fault = XVSA_ERR_BUSY;
    va_start(args, format);
    put(txn, lease, value, format, args);
    va_end(args);
}

void xv_txn_delete(struct xv_txn *txn, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *key = make_key(txn, txn->op_count, format, args);
    va_end(args);
    add_op(txn, XV_KV_DELETE, key, NULL, 0);
}

void xv_txn_delete_prefix(struct xv_txn *txn, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *key = make_key(txn, txn->op_count, format, args);
    va_end(args);
    add_op(txn, XV_KV_DELETE_PREFIX, key, NULL, 0);
}

bool xv_key_is_looked_at(const char *key)
{
    static const char *const beginnings[] = {"m/", "order/", "q/", "jp/", "v/", "r/", NULL};
    for (size_t i = 0; beginnings[i] != NULL; i++) {
        if (strncmp(key, beginnings[i], strlen(beginnings[i])) == 0)
            return true;
    }
    return strcmp(key, XV_EPOCH_KEY) == 0;
}

static bool is_looked_at(const struct xv_txn *txn)
{
    bool any = txn->fault != 0;
    for (size_t i = 0; i < txn->op_count && !any; i++)
        any = xv_key_is_looked_at(txn->ops[i].key);
    return any;
}

int xv_txn_run(struct xv_txn *txn, struct xv_kv *kv, const struct xv_call *call,
               bool *ret_succeeded, int64_t *ret_revision, xvsa_error **error)
{
    bool looked_at = is_looked_at(txn);
    int rc = 0;
    if (txn->fault == XVSA_ERR_MEMORY)
        rc = xv_fail_memory(error);
    else if (txn->fault == XVSA_ERR_BUSY)
        rc = xv_fail(error, XVSA_ERR_BUSY, "agent",
                     "the member has lost its lease and is joining the site again");
    else if (txn->fault != 0)
        rc = xv_fail(error, XVSA_ERR_INTERNAL, "agent", "a transaction has more than %d parts",
                     XV_KV_TXN_MAX);
    else
        rc = xv_kv_txn(kv, txn->compares, txn->compare_count, txn->ops, txn->op_count, call,
                       ret_succeeded, ret_revision, error);
    if (looked_at)
        xv_kv_doubt(kv);
    xv_txn_free(txn);
    return rc;
}

json_t *xv_pair_json(const struct xv_kv_pair *pair)
{
    json_t *json = json_loadb(pair->value, pair->length, JSON_REJECT_DUPLICATES, NULL);
    if (json != NULL && !json_is_object(json)) {
        json_decref(json);
        return NULL;
    }
    return json;
}

const struct xv_kv_pair *xv_list_find(const struct xv_kv_list *list, const char *format, ...)
{
    char key[XV_KEY_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(key, sizeof key, format, args);
    va_end(args);
    size_t low = 0;
    size_t high = list->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(list->pairs[middle].key, key);
        if (order == 0)
            return &list->pairs[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

int xv_kv_read(struct xv_kv *kv, const struct xv_call *call, struct xv_kv_list *ret,
               xvsa_error **error, const char *format, ...)
{
    char prefix[XV_KEY_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(prefix, sizeof prefix, format, args);
    va_end(args);
    return xv_kv_range(kv, prefix, call, ret, error);
}
