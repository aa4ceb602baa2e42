/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "repo/key.h"

#include "repo/fault.h"

#define BOUND   48 /* bytes of the body that are bound to the wrapped key */
#define LOG_MIN 10
#define LOG_MAX 22

size_t xv_key_slot_encode(const struct xv_key_slot *slot, uint8_t *out)
{
    size_t label = strlen(slot->label);
    size_t length = XV_KEY_SLOT_BODY_MIN + label;
    struct xv_header header = {.type = XV_TYPE_KEY, .body_length = length};
    memcpy(header.repo_id, slot->repo_id, XV_HANDLE_BYTES);
    xv_header_encode(&header, out);
    uint8_t *body = out + XV_HEADER_BYTES;
    memset(body, 0, length);
    body[0] = slot->kdf;
    if (slot->kdf == XV_KDF_SCRYPT) {
        body[1] = slot->log_n;
        body[2] = 8;
        body[3] = 1;
    }
    xv_put64(body + 8, (uint64_t)slot->created_ms);
    memcpy(body + 16, slot->salt, sizeof slot->salt);
    memcpy(body + 48, slot->nonce, sizeof slot->nonce);
    memcpy(body + 60, slot->wrapped, sizeof slot->wrapped);
    body[112] = (uint8_t)label;
    memcpy(body + 113, slot->label, label);
    xv_object_finish(out, XV_HEADER_BYTES + length);
    return XV_HEADER_BYTES + length + XV_TRAILER_BYTES;
}

int xv_key_slot_decode(const uint8_t *data, size_t length, const char *name,
                       struct xv_key_slot *ret, xvsa_error **error)
{
    struct xv_header header;
    const uint8_t *body;
    int rc = xv_object_check(data, length, XV_TYPE_KEY, name, &header, &body, error);
    if (rc != 0)
        return rc;
    if (header.body_length < XV_KEY_SLOT_BODY_MIN ||
        header.body_length != XV_KEY_SLOT_BODY_MIN + (uint64_t)body[112])
        return xv_fault(error, name, "its parts do not fit together");
    if (body[0] > XV_KDF_SCRYPT)
        return xv_fail(error, XVSA_ERR_FORMAT, "repo",
                       "key slot '%s' is of a kind that this version does not know", name);
    /* The bounds keep a hostile slot from taking all memory and time. */
    if (body[0] == XV_KDF_SCRYPT &&
        (body[1] < LOG_MIN || body[1] > LOG_MAX || body[2] != 8 || body[3] != 1))
        return xv_fault(error, name, "a parameter is out of bounds");
    memset(ret, 0, sizeof *ret);
    memcpy(ret->repo_id, header.repo_id, XV_HANDLE_BYTES);
    ret->kdf = body[0];
    ret->log_n = body[1];
    ret->created_ms = (int64_t)xv_get64(body + 8);
    memcpy(ret->salt, body + 16, sizeof ret->salt);
    memcpy(ret->nonce, body + 48, sizeof ret->nonce);
    memcpy(ret->wrapped, body + 60, sizeof ret->wrapped);
    memcpy(ret->label, body + 113, body[112]);
    return 0;
}

/* What is bound to the wrapped key: whose it is, where it is, and how it was made. */
static size_t bind_slot(const struct xv_key_slot *slot, const char *name, uint8_t *encoded,
                        struct xv_piece *pieces)
{
    static const char label[] = "xvsa key slot";
    xv_key_slot_encode(slot, encoded);
    pieces[0] = (struct xv_piece){label, sizeof label - 1};
    pieces[1] = (struct xv_piece){slot->repo_id, XV_HANDLE_BYTES};
    pieces[2] = (struct xv_piece){name, strlen(name)};
    pieces[3] = (struct xv_piece){encoded + XV_HEADER_BYTES, BOUND};
    return 4;
}

int xv_key_slot_wrap(struct xv_key_slot *slot, const char *name, const void *passphrase,
                     size_t size, const uint8_t *master, xvsa_error **error)
{
    if (slot->kdf == XV_KDF_CLEAR) {
        memcpy(slot->wrapped, master, XV_KEY_BYTES);
        return 0;
    }
    uint8_t key[XV_KEY_BYTES];
    uint8_t encoded[XV_KEY_SLOT_BYTES];
    struct xv_piece pieces[4];
    int rc = xv_random(slot->salt, sizeof slot->salt, error);
    if (rc == 0)
        rc = xv_random(slot->nonce, sizeof slot->nonce, error);
    if (rc == 0)
        rc = xv_scrypt(passphrase, size, slot->salt, sizeof slot->salt, slot->log_n, key, error);
    if (rc == 0) {
        size_t count = bind_slot(slot, name, encoded, pieces);
        rc = xv_wrap_key(key, slot->nonce, pieces, count, master, slot->wrapped, error);
    }
    xv_wipe(key, sizeof key);
    return rc;
}

int xv_key_slot_unwrap(const struct xv_key_slot *slot, const char *name, const void *passphrase,
                       size_t size, uint8_t *master, xvsa_error **error)
{
    if (slot->kdf == XV_KDF_CLEAR) {
        memcpy(master, slot->wrapped, XV_KEY_BYTES);
        return 0;
    }
    if (passphrase == NULL)
        return xv_fail(error, XVSA_ERR_AUTH, "repo",
                       "the repository is encrypted; give its passphrase");
    uint8_t key[XV_KEY_BYTES];
    uint8_t encoded[XV_KEY_SLOT_BYTES];
    struct xv_piece pieces[4];
    int rc = xv_scrypt(passphrase, size, slot->salt, sizeof slot->salt, slot->log_n, key, error);
    if (rc == 0) {
        size_t count = bind_slot(slot, name, encoded, pieces);
        rc = xv_unwrap_key(key, slot->nonce, pieces, count, slot->wrapped, master, error);
    }
    xv_wipe(key, sizeof key);
    return rc;
}
