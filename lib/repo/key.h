/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Key slots "key/<slot>": the master key wrapped for one passphrase.
 */
#ifndef XV_REPO_KEY_H
#define XV_REPO_KEY_H

#include "repo/object.h"

#define XV_KEY_SLOT_BODY_MIN 113
#define XV_KEY_SLOT_BODY_MAX (XV_KEY_SLOT_BODY_MIN + 255)
#define XV_KEY_SLOT_BYTES    (XV_HEADER_BYTES + XV_KEY_SLOT_BODY_MAX + XV_TRAILER_BYTES)

#define XV_KDF_CLEAR  0 /* no encryption: the master key as it is */
#define XV_KDF_SCRYPT 1

struct xv_key_slot {
    uint8_t repo_id[XV_HANDLE_BYTES];
    uint8_t kdf;
    uint8_t log_n;
    int64_t created_ms;
    uint8_t salt[32];
    uint8_t nonce[XV_NONCE_BYTES];
    uint8_t wrapped[XV_KEY_BYTES + XV_TAG_BYTES];
    char label[256];
};

/* Writes at most XV_KEY_SLOT_BYTES; returns their number. */
size_t xv_key_slot_encode(const struct xv_key_slot *slot, uint8_t *out);
int xv_key_slot_decode(const uint8_t *data, size_t length, const char *name,
                       struct xv_key_slot *ret, xvsa_error **error) XV_MUST_CHECK;
/* Fills salt, nonce and wrapped. passphrase NULL: no encryption. */
int xv_key_slot_wrap(struct xv_key_slot *slot, const char *name, const void *passphrase,
                     size_t size, const uint8_t *master, xvsa_error **error) XV_MUST_CHECK;
/* AUTH when the passphrase is the wrong one. */
int xv_key_slot_unwrap(const struct xv_key_slot *slot, const char *name, const void *passphrase,
                       size_t size, uint8_t *master, xvsa_error **error) XV_MUST_CHECK;

#endif
