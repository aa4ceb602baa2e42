/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Keys, ids, sealing: the only user of OpenSSL in the repository.
 */
#ifndef XV_REPO_CRYPT_H
#define XV_REPO_CRYPT_H

#include "base/error.h"
#include "repo/format.h"

#define XV_CIPHER_NONE 0 /* nothing is hidden; the tag is an XXH3-128 */
#define XV_CIPHER_GCM  1 /* AES-256-GCM */

/* A repository's keys. Immutable, used by several threads. */
struct xv_crypt;

enum xv_key {
    XV_KEY_MAC,  /* footers and config */
    XV_KEY_META, /* objects sealed whole, and index segments */
    XV_KEY_DATA, /* packs */
    XV_KEY_COUNT
};

/* master is XV_KEY_BYTES long and may be wiped afterwards. */
int xv_crypt_new(const uint8_t *repo_id, const uint8_t *master, uint8_t cipher,
                 struct xv_crypt **ret, xvsa_error **error) XV_MUST_CHECK;
void xv_crypt_free(struct xv_crypt *crypt);
uint8_t xv_crypt_cipher(const struct xv_crypt *crypt);
const uint8_t *xv_crypt_repo_id(const struct xv_crypt *crypt);
/* The key that HKDF-Expand makes from one of the repository's for label and id; wipe it after use. */
int xv_crypt_derive(const struct xv_crypt *crypt, enum xv_key from, const char *label,
                    const void *id, size_t id_length, uint8_t *ret_key,
                    xvsa_error **error) XV_MUST_CHECK;

struct xv_piece {
    const void *data;
    size_t length;
};

/* HMAC-SHA-256 of the pieces in a row under one of the repository's keys. */
int xv_crypt_mac(const struct xv_crypt *crypt, enum xv_key key, const struct xv_piece *pieces,
                 size_t count, uint8_t *ret_mac, xvsa_error **error) XV_MUST_CHECK;

/* One thread's contexts, kept because setting them up costs as much as small work. */
struct xv_crypt_tool;

int xv_crypt_tool_new(const struct xv_crypt *crypt, struct xv_crypt_tool **ret,
                      xvsa_error **error) XV_MUST_CHECK;
void xv_crypt_tool_free(struct xv_crypt_tool *tool);

int xv_chunk_id(struct xv_crypt_tool *tool, const void *data, size_t length, uint8_t *ret_id,
                xvsa_error **error) XV_MUST_CHECK;
int xv_node_id(struct xv_crypt_tool *tool, const void *data, size_t length, uint8_t *ret_id,
               xvsa_error **error) XV_MUST_CHECK;

/* Writes length bytes of ciphertext and the tag. A nonce never serves twice for a key. */
int xv_seal(struct xv_crypt_tool *tool, const uint8_t *key, const uint8_t *nonce,
            const struct xv_piece *bound, size_t bound_count, const void *data, size_t length,
            uint8_t *out, xvsa_error **error) XV_MUST_CHECK;
/* length includes the tag; writes length - XV_TAG_BYTES bytes. CORRUPT when the tag is wrong. */
int xv_unseal(struct xv_crypt_tool *tool, const uint8_t *key, const uint8_t *nonce,
              const struct xv_piece *bound, size_t bound_count, const void *data, size_t length,
              uint8_t *out, xvsa_error **error) XV_MUST_CHECK;

/* The key that a passphrase makes; r is 8 and p is 1. */
int xv_scrypt(const void *passphrase, size_t size, const uint8_t *salt, size_t salt_length,
              uint32_t log_n, uint8_t *ret_key, xvsa_error **error) XV_MUST_CHECK;
/* AES-256-GCM of a master key under a passphrase's key, whatever the repository's cipher is. */
int xv_wrap_key(const uint8_t *key, const uint8_t *nonce, const struct xv_piece *bound,
                size_t bound_count, const uint8_t *master, uint8_t *out,
                xvsa_error **error) XV_MUST_CHECK;
/* AUTH when the key is the wrong one. */
int xv_unwrap_key(const uint8_t *key, const uint8_t *nonce, const struct xv_piece *bound,
                  size_t bound_count, const uint8_t *wrapped, uint8_t *master,
                  xvsa_error **error) XV_MUST_CHECK;

/* Compares in a time that does not depend on the content. */
bool xv_same(const void *a, const void *b, size_t length);

int xv_sha256(const void *data, size_t length, uint8_t *ret_digest,
              xvsa_error **error) XV_MUST_CHECK;

#endif
