/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The shapes of etcd's JSON: keys and values in base64, 64-bit numbers as text, fields that are zero,
 * false or empty left out. Unknown fields of requests are ignored by the server without a word, so
 * names matter.
 */
#include <errno.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coord/kv_etcd.h"

#define COMPONENT  XV_KV_COMPONENT
#define BYTES_MAX  (256u << 20)
#define KEY_MAX    4096
#define VALUE_MAX  (8u << 20)
#define CODE_LIMIT 17

json_t *xv_etcd_encode(const void *data, size_t length)
{
    unsigned char *text = malloc(4 * ((length + 2) / 3) + 1);
    if (text == NULL || length > INT32_MAX / 2) {
        free(text);
        return NULL;
    }
    int written = EVP_EncodeBlock(text, data, (int)length);
    json_t *result = json_stringn((const char *)text, (size_t)written);
    free(text);
    return result;
}

json_t *xv_etcd_number(int64_t number)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRId64, number);
    return json_string(text);
}

int xv_etcd_parse(const char *text, size_t length, json_t **ret, xvsa_error **error)
{
    json_error_t where;
    *ret = json_loadb(text == NULL ? "" : text, length, JSON_REJECT_DUPLICATES, &where);
    if (json_is_object(*ret))
        return 0;
    json_decref(*ret);
    *ret = NULL;
    return xv_fail(error, XVSA_ERR_PROTOCOL, COMPONENT,
                   "the answer is not a JSON object; is the address that of an etcd server?");
}

int xv_etcd_get_number(const json_t *object, const char *name, int64_t *ret, xvsa_error **error)
{
    const json_t *field = json_object_get(object, name);
    *ret = json_integer_value(field);
    if (field == NULL || json_is_integer(field))
        return 0;
    const char *text = json_string_value(field);
    char *end = NULL;
    errno = 0;
    if (text != NULL && text[0] != '\0')
        *ret = strtoll(text, &end, 10);
    if (end == NULL || *end != '\0' || errno != 0) {
        *ret = 0;
        return xv_fail(error, XVSA_ERR_PROTOCOL, COMPONENT, "\"%s\" in etcd's answer is no number",
                       name);
    }
    return 0;
}

int xv_etcd_get_revision(const json_t *answer, int64_t *ret, xvsa_error **error)
{
    int rc = xv_etcd_get_number(json_object_get(answer, "header"), "revision", ret, error);
    if (rc == 0 && *ret < 1)
        rc = xv_fail(error, XVSA_ERR_PROTOCOL, COMPONENT, "etcd's answer has no revision");
    return rc;
}

/* Decodes a field; *ret is "" when it is absent. The caller frees. */
static int decode(const json_t *object, const char *name, size_t maximum, char **ret,
                  size_t *ret_length, xvsa_error **error)
{
    const json_t *field = json_object_get(object, name);
    const char *text = field == NULL ? "" : json_string_value(field);
    size_t length = text == NULL ? 1 : strlen(text);
    if (length % 4 != 0)
        return xv_fail(error, XVSA_ERR_PROTOCOL, COMPONENT,
                       "\"%s\" in etcd's answer is not base64 with padding", name);
    if (length / 4 * 3 > maximum + 2)
        return xv_fail(error, XVSA_ERR_LIMIT, COMPONENT,
                       "\"%s\" in etcd's answer has more than %zu bytes", name, maximum);
    char *data = malloc(length / 4 * 3 + 1);
    if (data == NULL)
        return xv_fail_memory(error);
    int decoded = length == 0 ? 0
                              : EVP_DecodeBlock((unsigned char *)data, (const unsigned char *)text,
                                                (int)length);
    int padding = 0;
    while (padding < 2 && length > 0 && text[length - 1 - (size_t)padding] == '=')
        padding++;
    if (decoded < padding) {
        free(data);
        return xv_fail(error, XVSA_ERR_PROTOCOL, COMPONENT, "\"%s\" in etcd's answer is not base64",
                       name);
    }
    *ret_length = (size_t)(decoded - padding);
    data[*ret_length] = '\0';
    *ret = data;
    return 0;
}

static int read_pair(const json_t *object, struct xv_kv_list *list, size_t *bytes,
                     xvsa_error **error)
{
    struct xv_kv_pair facts = {0};
    char *key = NULL;
    char *value = NULL;
    size_t key_length = 0;
    size_t length = 0;
    int rc = xv_etcd_get_number(object, "create_revision", &facts.create_revision, error);
    if (rc == 0)
        rc = xv_etcd_get_number(object, "mod_revision", &facts.mod_revision, error);
    if (rc == 0)
        rc = xv_etcd_get_number(object, "lease", &facts.lease, error);
    if (rc == 0)
        rc = decode(object, "key", KEY_MAX, &key, &key_length, error);
    if (rc == 0)
        rc = decode(object, "value", VALUE_MAX, &value, &length, error);
    if (rc == 0 && (facts.create_revision < 1 || facts.mod_revision < facts.create_revision ||
                    key_length == 0 || memchr(key, '\0', key_length) != NULL))
        rc = xv_fail(error, XVSA_ERR_PROTOCOL, COMPONENT, "a key in etcd's answer makes no sense");
    *bytes += key_length + length + sizeof facts;
    if (rc == 0 && *bytes > BYTES_MAX)
        rc =
            xv_fail(error, XVSA_ERR_LIMIT, COMPONENT,
                    "more than %u bytes of keys and values in one reading of the store", BYTES_MAX);
    if (rc == 0)
        rc = xv_kv_list_add(list, key, key_length, value, length, &facts, error);
    free(key);
    free(value);
    return rc;
}

int xv_etcd_read_pairs(const json_t *answer, struct xv_kv_list *list, size_t *bytes,
                       xvsa_error **error)
{
    const json_t *pairs = json_object_get(answer, "kvs");
    if (pairs != NULL && !json_is_array(pairs))
        return xv_fail(error, XVSA_ERR_PROTOCOL, COMPONENT, "\"kvs\" in etcd's answer is no list");
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < json_array_size(pairs); i++)
        rc = read_pair(json_array_get(pairs, i), list, bytes, error);
    return rc;
}

/* Foreign words: what is printable of them. */
static void copy_message(const char *text, char message[XV_ETCD_MESSAGE_MAX])
{
    size_t i = 0;
    for (; text != NULL && text[i] != '\0' && i < XV_ETCD_MESSAGE_MAX - 1; i++)
        message[i] = text[i] >= 0x20 && text[i] < 0x7f ? text[i] : '?';
    message[i] = '\0';
}

void xv_etcd_read_failure(const char *text, size_t length, int status, struct xv_etcd_failure *ret)
{
    *ret = (struct xv_etcd_failure){.status = status, .code = -1};
    json_t *body = NULL;
    if (xv_etcd_parse(text, length, &body, NULL) != 0)
        return;
    /* Streams put it into an object. */
    const json_t *inner = json_object_get(body, "error");
    const json_t *failure = json_is_object(inner) ? inner : body;
    const json_t *code = json_object_get(failure, json_is_object(inner) ? "grpc_code" : "code");
    if (json_is_integer(code) && json_integer_value(code) >= 0 &&
        json_integer_value(code) < CODE_LIMIT)
        ret->code = (int)json_integer_value(code);
    const char *message = json_string_value(json_object_get(failure, "message"));
    if (message == NULL)
        message = json_string_value(json_object_get(failure, "error"));
    copy_message(message, ret->message);
    json_decref(body);
}

int xv_etcd_read_txn(const json_t *answer, struct xv_etcd_txn_answer *ret, xvsa_error **error)
{
    *ret = (struct xv_etcd_txn_answer){.succeeded =
                                           json_is_true(json_object_get(answer, "succeeded"))};
    int rc = xv_etcd_get_revision(answer, &ret->revision, error);
    if (rc != 0 || ret->succeeded)
        return rc;
    const json_t *first = json_array_get(json_object_get(answer, "responses"), 0);
    struct xv_kv_list list = {0};
    size_t bytes = 0;
    rc = xv_etcd_read_pairs(json_object_get(first, "response_range"), &list, &bytes, error);
    if (rc == 0 && list.count > 1)
        rc = xv_fail(error, XVSA_ERR_PROTOCOL, COMPONENT, "etcd answered one key with several");
    if (rc == 0 && list.count == 1) {
        ret->slot_revision = list.pairs[0].mod_revision;
        snprintf(ret->nonce, sizeof ret->nonce, "%.*s", XV_ETCD_NONCE_MAX, list.pairs[0].value);
    }
    xv_kv_list_free(&list);
    return rc;
}

static json_t *encode_text(const char *text)
{
    return xv_etcd_encode(text, strlen(text));
}

static bool add_compare(json_t *list, const char *key, enum xv_kv_field field, int64_t revision,
                        const char *value)
{
    json_t *compare = NULL;
    if (field == XV_KV_VALUE)
        compare = json_pack("{s:s,s:s,s:o,s:o}", "target", "VALUE", "result", "EQUAL", "key",
                            encode_text(key), "value", encode_text(value));
    else
        compare = json_pack("{s:s,s:s,s:o,s:o}", "target",
                            field == XV_KV_CREATE_REVISION ? "CREATE" : "MOD", "result", "EQUAL",
                            "key", encode_text(key),
                            field == XV_KV_CREATE_REVISION ? "create_revision" : "mod_revision",
                            xv_etcd_number(revision));
    return compare != NULL && json_array_append_new(list, compare) == 0;
}

static bool add_op(json_t *list, const struct xv_kv_op *op)
{
    json_t *item = NULL;
    if (op->verb == XV_KV_PUT) {
        item = json_pack("{s:{s:o,s:o,s:o}}", "request_put", "key", encode_text(op->key), "value",
                         encode_text(op->value), "lease", xv_etcd_number(op->lease));
    } else if (op->verb == XV_KV_DELETE) {
        item = json_pack("{s:{s:o}}", "request_delete_range", "key", encode_text(op->key));
    } else {
        char *end = xv_kv_range_end(op->key);
        if (end != NULL)
            item = json_pack("{s:{s:o,s:o}}", "request_delete_range", "key", encode_text(op->key),
                             "range_end", encode_text(end));
        free(end);
    }
    return item != NULL && json_array_append_new(list, item) == 0;
}

json_t *xv_etcd_make_txn(const struct xv_etcd_slot *slot, const char *nonce,
                         const struct xv_kv_compare *compares, size_t compare_count,
                         const struct xv_kv_op *ops, size_t op_count)
{
    char mark[64];
    json_t *compare = json_array();
    json_t *success = json_array();
    json_t *failure = json_pack("[{s:{s:o}}]", "request_range", "key", encode_text(slot->key));
    /* The time is for whoever cleans up after handles that ended without. */
    snprintf(mark, sizeof mark, "%.*s %" PRId64, XV_ETCD_NONCE_MAX, nonce, xv_wall_ms() / 1000);
    struct xv_kv_op put = {.verb = XV_KV_PUT, .key = slot->key, .value = mark};
    bool good = compare != NULL && success != NULL && failure != NULL &&
                add_compare(compare, slot->key, XV_KV_MOD_REVISION, slot->revision, NULL) &&
                add_op(success, &put);
    for (size_t i = 0; good && i < compare_count; i++) {
        const struct xv_kv_compare *each = &compares[i];
        if (each->field != XV_KV_VALUE)
            good = add_compare(compare, each->key, each->field, each->revision, NULL);
        if (good && each->value != NULL)
            good = add_compare(compare, each->key, XV_KV_VALUE, 0, each->value);
    }
    for (size_t i = 0; good && i < op_count; i++)
        good = add_op(success, &ops[i]);
    if (good)
        return json_pack("{s:o,s:o,s:o}", "compare", compare, "success", success, "failure",
                         failure);
    json_decref(compare);
    json_decref(success);
    json_decref(failure);
    return NULL;
}

/* NULL: some key cannot be told. */
static json_t *read_keys(const json_t *events)
{
    json_t *keys = json_array();
    size_t i;
    json_t *event;
    json_array_foreach(events, i, event)
    {
        char *key = NULL;
        size_t key_length = 0;
        bool good =
            decode(json_object_get(event, "kv"), "key", KEY_MAX, &key, &key_length, NULL) == 0;
        good = good && json_array_append_new(keys, json_stringn(key, key_length)) == 0;
        free(key);
        if (!good) {
            json_decref(keys);
            return NULL;
        }
    }
    return keys;
}

enum xv_etcd_event xv_etcd_read_event(const char *line, size_t length, json_t **ret_keys,
                                      struct xv_etcd_failure *ret)
{
    json_t *body = NULL;
    *ret_keys = NULL;
    *ret = (struct xv_etcd_failure){.code = -1};
    if (length == 0)
        return XV_ETCD_NOTHING;
    if (xv_etcd_parse(line, length, &body, NULL) != 0)
        return XV_ETCD_ENDED;
    const json_t *result = json_object_get(body, "result");
    enum xv_etcd_event event = XV_ETCD_ENDED;
    if (!json_is_object(result)) {
        xv_etcd_read_failure(line, length, 200, ret);
    } else if (json_is_true(json_object_get(result, "canceled"))) {
        copy_message(json_string_value(json_object_get(result, "cancel_reason")), ret->message);
        if (strstr(ret->message, "permission denied") != NULL ||
            strstr(ret->message, "auth") != NULL)
            event = XV_ETCD_DENIED;
    } else {
        const json_t *events = json_object_get(result, "events");
        bool created = json_is_true(json_object_get(result, "created"));
        event = created || json_array_size(events) > 0 ? XV_ETCD_CHANGED : XV_ETCD_NOTHING;
        if (event == XV_ETCD_CHANGED && !created)
            *ret_keys = read_keys(events);
    }
    json_decref(body);
    return event;
}
