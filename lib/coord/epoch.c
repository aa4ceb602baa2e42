/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "coord/epoch.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/buffer.h"

#define COMPONENT     "coord"
#define REVISION_BITS 44
#define GEN_MAX       ((INT64_C(1) << (62 - REVISION_BITS)) - 1)

static bool copy_text(const json_t *document, const char *name, char *to, size_t size)
{
    const char *text = json_string_value(json_object_get(document, name));
    size_t length = text == NULL ? 0 : strlen(text);
    if (length == 0 || length >= size)
        return false;
    memcpy(to, text, length + 1);
    return true;
}

static int parse(const struct xv_kv_pair *pair, struct xv_epoch *ret, xvsa_error **error)
{
    json_t *document = json_loadb(pair->value, pair->length, 0, NULL);
    ret->gen = json_integer_value(json_object_get(document, "gen"));
    ret->revision = pair->mod_revision;
    bool good = ret->gen >= 1 && ret->gen <= GEN_MAX && pair->length <= XV_EPOCH_VALUE_MAX &&
                copy_text(document, "site_uuid", ret->site_uuid, sizeof ret->site_uuid);
    json_decref(document);
    if (!good) {
        *ret = (struct xv_epoch){0};
        return xv_fail(error, XVSA_ERR_FORMAT, COMPONENT,
                       "the key " XV_EPOCH_KEY
                       " of the store has a content that is not understood");
    }
    memcpy(ret->value, pair->value, pair->length + 1);
    return 0;
}

int xv_epoch_read(struct xv_kv *kv, const struct xv_call *call, struct xv_epoch *ret,
                  xvsa_error **error)
{
    struct xv_kv_list list;
    *ret = (struct xv_epoch){0};
    int rc = xv_kv_get(kv, XV_EPOCH_KEY, call, &list, error);
    if (rc != 0)
        return rc;
    if (list.count == 1)
        rc = parse(&list.pairs[0], ret, error);
    xv_kv_list_free(&list);
    return rc;
}

/* A version 4 UUID. */
static int make_uuid(char text[XV_EPOCH_UUID_MAX + 1], xvsa_error **error)
{
    unsigned char bytes[16];
    char hex[33];
    int rc = xv_random(bytes, sizeof bytes, error);
    if (rc != 0)
        return rc;
    bytes[6] = (unsigned char)((bytes[6] & 0x0f) | 0x40);
    bytes[8] = (unsigned char)((bytes[8] & 0x3f) | 0x80);
    xv_hex_encode(bytes, sizeof bytes, hex);
    snprintf(text, XV_EPOCH_UUID_MAX + 1, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12,
             hex + 16, hex + 20);
    return 0;
}

static int is_uuid(const char *text)
{
    return strlen(text) == XV_EPOCH_UUID_MAX &&
           strspn(text, "0123456789abcdefABCDEF-") == XV_EPOCH_UUID_MAX;
}

static int make_value(int64_t gen, const char *site_uuid, char value[XV_EPOCH_VALUE_MAX + 1],
                      xvsa_error **error)
{
    unsigned char random[8];
    char hex[sizeof random * 2 + 1];
    int rc = xv_random(random, sizeof random, error);
    if (rc != 0)
        return rc;
    xv_hex_encode(random, sizeof random, hex);
    snprintf(value, XV_EPOCH_VALUE_MAX + 1,
             "{\"gen\":%" PRId64 ",\"site_uuid\":\"%s\",\"nonce\":\"%s\"}", gen, site_uuid, hex);
    return 0;
}

/* Replaces what is there, at the revision at which it was read. */
static int replace(struct xv_kv *kv, const struct xv_epoch *present, int64_t gen,
                   const char *site_uuid, const struct xv_call *call, xvsa_error **error)
{
    char uuid[XV_EPOCH_UUID_MAX + 1];
    char value[XV_EPOCH_VALUE_MAX + 1];
    int rc = 0;
    if (present->gen != 0)
        snprintf(uuid, sizeof uuid, "%s", present->site_uuid);
    else if (site_uuid != NULL)
        snprintf(uuid, sizeof uuid, "%s", site_uuid);
    else
        rc = make_uuid(uuid, error);
    if (rc == 0)
        rc = make_value(gen, uuid, value, error);
    if (rc != 0)
        return rc;
    struct xv_kv_compare compare = {XV_EPOCH_KEY, XV_KV_MOD_REVISION, present->revision,
                                    present->gen == 0 ? NULL : present->value};
    struct xv_kv_op op = {.verb = XV_KV_PUT, .key = XV_EPOCH_KEY, .value = value};
    bool succeeded = false;
    return xv_kv_txn(kv, &compare, 1, &op, 1, call, &succeeded, NULL, error);
}

int xv_epoch_ensure(struct xv_kv *kv, int64_t at_least, const char *site_uuid,
                    const struct xv_call *call, struct xv_epoch *ret, xvsa_error **error)
{
    if (at_least < 1)
        at_least = 1;
    if (at_least > GEN_MAX)
        return xv_fail(error, XVSA_ERR_LIMIT, COMPONENT, "a store cannot have generation %" PRId64,
                       at_least);
    if (site_uuid != NULL && !is_uuid(site_uuid))
        return xv_fail(error, XVSA_ERR_INVALID, COMPONENT, "\"%.60s\" is not a UUID of a site",
                       site_uuid);
    for (;;) {
        int rc = xv_epoch_read(kv, call, ret, error);
        if (rc != 0 || ret->gen >= at_least)
            return rc;
        rc = xv_call_check(call, COMPONENT, "making the store's epoch", error);
        if (rc == 0)
            rc = replace(kv, ret, at_least, site_uuid, call, error);
        if (rc != 0)
            return rc;
    }
}

struct xv_kv_compare xv_epoch_guard(const struct xv_epoch *epoch)
{
    return (struct xv_kv_compare){XV_EPOCH_KEY, XV_KV_VALUE, 0, epoch->value};
}

int xv_epoch_token(const struct xv_epoch *epoch, int64_t revision, int64_t *ret_token,
                   xvsa_error **error)
{
    if (epoch->gen < 1 || epoch->gen > GEN_MAX || revision < 1 ||
        revision >= INT64_C(1) << REVISION_BITS)
        return xv_fail(error, XVSA_ERR_LIMIT, COMPONENT,
                       "no token can be made of generation %" PRId64 " and revision %" PRId64,
                       epoch->gen, revision);
    *ret_token = (epoch->gen << REVISION_BITS) + revision;
    return 0;
}

int64_t xv_epoch_of_token(int64_t token)
{
    return token >> REVISION_BITS;
}
