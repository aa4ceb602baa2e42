/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "repo/object.h"

#include <stdlib.h>
#include <xxhash.h>

#include "repo/fault.h"

#define MAJOR 1
#define MINOR 0
#define BOUND 56 /* bytes of the header that are bound to what is sealed */

static const uint8_t magic[4] = {'X', 'V', 'S', '1'};

void xv_header_encode(const struct xv_header *header, uint8_t *out)
{
    memset(out, 0, XV_HEADER_BYTES);
    memcpy(out, magic, sizeof magic);
    out[4] = header->type;
    out[5] = MAJOR;
    out[6] = MINOR;
    out[7] = header->flags;
    memcpy(out + 8, header->repo_id, XV_HANDLE_BYTES);
    xv_put64(out + 24, header->body_length);
    memcpy(out + 40, header->nonce, XV_NONCE_BYTES);
    xv_put64(out + BOUND, XXH3_64bits(out, BOUND));
}

int xv_header_decode(const uint8_t *data, size_t length, uint8_t type, const char *name,
                     struct xv_header *ret, xvsa_error **error)
{
    if (length < XV_HEADER_BYTES)
        return xv_fault(error, name, "it is shorter than a header");
    if (memcmp(data, magic, sizeof magic) != 0)
        return xv_fault(error, name, "it does not begin as an object of a repository");
    if (xv_get64(data + BOUND) != XXH3_64bits(data, BOUND))
        return xv_fault(error, name, "the checksum of its header is wrong");
    if (data[5] != MAJOR)
        return xv_fail(error, XVSA_ERR_FORMAT, "repo", "object '%s' has format version %u, not %u",
                       name, data[5], MAJOR);
    if (data[4] != type)
        return xv_fault(error, name, "it is of type %u instead of %u", data[4], type);
    if (xv_get32(data + 32) != 0 || xv_get32(data + 36) != 0)
        return xv_fail(error, XVSA_ERR_FORMAT, "repo",
                       "object '%s' uses keys that this version does not know", name);
    ret->type = data[4];
    ret->flags = data[7];
    memcpy(ret->repo_id, data + 8, XV_HANDLE_BYTES);
    ret->body_length = xv_get64(data + 24);
    memcpy(ret->nonce, data + 40, XV_NONCE_BYTES);
    return 0;
}

int xv_object_check(const uint8_t *data, size_t length, uint8_t type, const char *name,
                    struct xv_header *ret, const uint8_t **ret_body, xvsa_error **error)
{
    int rc = xv_header_decode(data, length, type, name, ret, error);
    if (rc != 0)
        return rc;
    if (length < XV_HEADER_BYTES + XV_TRAILER_BYTES ||
        ret->body_length != length - XV_HEADER_BYTES - XV_TRAILER_BYTES)
        return xv_fault(error, name, "it is %zu bytes long, its header says otherwise", length);
    size_t summed = length - XV_TRAILER_BYTES;
    if (xv_get64(data + summed) != XXH3_64bits(data, summed))
        return xv_fault(error, name, "its checksum is wrong");
    *ret_body = data + XV_HEADER_BYTES;
    return 0;
}

void xv_object_finish(uint8_t *data, size_t length)
{
    xv_put64(data + length, XXH3_64bits(data, length));
}

int xv_object_seal(const struct xv_crypt *crypt, uint8_t type, const char *name, const void *body,
                   size_t length, uint8_t **ret, size_t *ret_length, xvsa_error **error)
{
    size_t summed = XV_HEADER_BYTES + length + XV_TAG_BYTES;
    struct xv_header header = {
        .type = type, .flags = XV_OBJECT_SEALED, .body_length = length + XV_TAG_BYTES};
    memcpy(header.repo_id, xv_crypt_repo_id(crypt), XV_HANDLE_BYTES);
    struct xv_crypt_tool *tool = NULL;
    uint8_t key[XV_KEY_BYTES];
    uint8_t *data = malloc(summed + XV_TRAILER_BYTES);
    int rc = data == NULL ? xv_fail_memory(error) : 0;
    /* Random, since the losers of a race for a name have sealed other bytes under the same key. */
    if (rc == 0)
        rc = xv_random(header.nonce, sizeof header.nonce, error);
    if (rc == 0)
        rc = xv_crypt_derive(crypt, XV_KEY_META, "object", name, strlen(name), key, error);
    if (rc == 0)
        rc = xv_crypt_tool_new(crypt, &tool, error);
    if (rc == 0) {
        xv_header_encode(&header, data);
        struct xv_piece bound[] = {{data, BOUND}, {name, strlen(name)}};
        rc =
            xv_seal(tool, key, header.nonce, bound, 2, body, length, data + XV_HEADER_BYTES, error);
    }
    xv_wipe(key, sizeof key);
    xv_crypt_tool_free(tool);
    if (rc != 0) {
        free(data);
        return rc;
    }
    xv_object_finish(data, summed);
    *ret = data;
    *ret_length = summed + XV_TRAILER_BYTES;
    return 0;
}

int xv_object_unseal(const struct xv_crypt *crypt, uint8_t type, const char *name,
                     const uint8_t *data, size_t length, uint8_t **ret, size_t *ret_length,
                     xvsa_error **error)
{
    struct xv_header header;
    const uint8_t *sealed;
    int rc = xv_object_check(data, length, type, name, &header, &sealed, error);
    if (rc != 0)
        return rc;
    if (header.flags != XV_OBJECT_SEALED || header.body_length < XV_TAG_BYTES ||
        memcmp(header.repo_id, xv_crypt_repo_id(crypt), XV_HANDLE_BYTES) != 0)
        return xv_fault(error, name, "it is not of this repository");
    struct xv_crypt_tool *tool = NULL;
    uint8_t key[XV_KEY_BYTES];
    size_t plain = (size_t)header.body_length - XV_TAG_BYTES;
    uint8_t *body = malloc(plain + 1);
    rc = body == NULL ? xv_fail_memory(error) : 0;
    if (rc == 0)
        rc = xv_crypt_derive(crypt, XV_KEY_META, "object", name, strlen(name), key, error);
    if (rc == 0)
        rc = xv_crypt_tool_new(crypt, &tool, error);
    if (rc == 0) {
        struct xv_piece bound[] = {{data, BOUND}, {name, strlen(name)}};
        rc = xv_unseal(tool, key, header.nonce, bound, 2, sealed, (size_t)header.body_length, body,
                       error);
        if (rc != 0)
            xv_fault_object(error, rc, name);
    }
    xv_wipe(key, sizeof key);
    xv_crypt_tool_free(tool);
    if (rc != 0) {
        free(body);
        return rc;
    }
    body[plain] = 0;
    *ret = body;
    *ret_length = plain;
    return 0;
}
