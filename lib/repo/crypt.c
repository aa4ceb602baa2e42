/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Algorithms are fetched once for a repository and contexts are kept: OpenSSL's implicit fetches take
 * locks that several workers would wait for.
 */
#include "repo/crypt.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <xxhash.h>

#define BLOCK_BYTES 64 /* of SHA-256 */

/* SHA-256 after the padded key: where each HMAC of that key goes on from. */
struct midstate {
    EVP_MD_CTX *inner;
    EVP_MD_CTX *outer;
};

struct xv_crypt {
    EVP_MD *sha256;
    EVP_CIPHER *gcm;
    uint8_t cipher;
    uint8_t repo_id[XV_HANDLE_BYTES];
    uint8_t keys[XV_KEY_COUNT][XV_KEY_BYTES];
    struct midstate chunk;
    struct midstate node;
};

struct xv_crypt_tool {
    const struct xv_crypt *crypt;
    EVP_MD_CTX *digest;
    EVP_CIPHER_CTX *cipher;
    XXH3_state_t *sum;
};

static int fail_crypto(xvsa_error **error, const char *what)
{
    char text[160] = "no reason given";
    unsigned long code = ERR_get_error();
    if (code != 0)
        ERR_error_string_n(code, text, sizeof text);
    ERR_clear_error();
    return xv_fail(error, XVSA_ERR_INTERNAL, "repo", "the cryptographic library cannot %s: %s",
                   what, text);
}

static EVP_MD_CTX *begin_padded(EVP_MD *sha256, const uint8_t *key, uint8_t pad)
{
    uint8_t block[BLOCK_BYTES];
    memset(block, pad, sizeof block);
    for (size_t i = 0; i < XV_KEY_BYTES; i++)
        block[i] ^= key[i];
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    if (context != NULL && (EVP_DigestInit_ex2(context, sha256, NULL) != 1 ||
                            EVP_DigestUpdate(context, block, sizeof block) != 1)) {
        EVP_MD_CTX_free(context);
        context = NULL;
    }
    xv_wipe(block, sizeof block);
    return context;
}

static bool midstate_init(struct midstate *state, EVP_MD *sha256, const uint8_t *key)
{
    state->inner = begin_padded(sha256, key, 0x36);
    state->outer = begin_padded(sha256, key, 0x5c);
    return state->inner != NULL && state->outer != NULL;
}

static void midstate_free(struct midstate *state)
{
    EVP_MD_CTX_free(state->inner);
    EVP_MD_CTX_free(state->outer);
}

static bool hmac(const struct midstate *state, EVP_MD_CTX *work, const struct xv_piece *pieces,
                 size_t count, uint8_t *ret_mac)
{
    uint8_t inner[XV_ID_BYTES];
    if (EVP_MD_CTX_copy_ex(work, state->inner) != 1)
        return false;
    for (size_t i = 0; i < count; i++) {
        if (EVP_DigestUpdate(work, pieces[i].data, pieces[i].length) != 1)
            return false;
    }
    return EVP_DigestFinal_ex(work, inner, NULL) == 1 &&
           EVP_MD_CTX_copy_ex(work, state->outer) == 1 &&
           EVP_DigestUpdate(work, inner, sizeof inner) == 1 &&
           EVP_DigestFinal_ex(work, ret_mac, NULL) == 1;
}

static int hmac_once(EVP_MD *sha256, const uint8_t *key, const struct xv_piece *pieces,
                     size_t count, uint8_t *ret_mac, xvsa_error **error)
{
    struct midstate state = {NULL, NULL};
    EVP_MD_CTX *work = EVP_MD_CTX_new();
    bool done = work != NULL && midstate_init(&state, sha256, key) &&
                hmac(&state, work, pieces, count, ret_mac);
    midstate_free(&state);
    EVP_MD_CTX_free(work);
    return done ? 0 : fail_crypto(error, "make an HMAC");
}

/* HKDF-Expand to one block. */
static int expand(EVP_MD *sha256, const uint8_t *key, const char *label, const void *id,
                  size_t id_length, uint8_t *ret_key, xvsa_error **error)
{
    static const uint8_t one = 1;
    struct xv_piece pieces[] = {{label, strlen(label)}, {id, id_length}, {&one, 1}};
    return hmac_once(sha256, key, pieces, 3, ret_key, error);
}

static int derive_keys(struct xv_crypt *crypt, const uint8_t *master, xvsa_error **error)
{
    static const char *const labels[XV_KEY_COUNT] = {"xvsa mac", "xvsa metadata", "xvsa data"};
    uint8_t salt[XV_KEY_BYTES] = {0};
    uint8_t root[XV_KEY_BYTES];
    uint8_t key[XV_KEY_BYTES];
    /* HKDF-Extract: the salt, padded with zeros, is the HMAC's key. */
    memcpy(salt, crypt->repo_id, XV_HANDLE_BYTES);
    struct xv_piece piece = {master, XV_KEY_BYTES};
    int rc = hmac_once(crypt->sha256, salt, &piece, 1, root, error);
    for (size_t i = 0; i < XV_KEY_COUNT && rc == 0; i++)
        rc = expand(crypt->sha256, root, labels[i], NULL, 0, crypt->keys[i], error);
    if (rc == 0)
        rc = expand(crypt->sha256, root, "xvsa chunk id", NULL, 0, key, error);
    if (rc == 0 && !midstate_init(&crypt->chunk, crypt->sha256, key))
        rc = fail_crypto(error, "prepare an HMAC");
    if (rc == 0)
        rc = expand(crypt->sha256, root, "xvsa node id", NULL, 0, key, error);
    if (rc == 0 && !midstate_init(&crypt->node, crypt->sha256, key))
        rc = fail_crypto(error, "prepare an HMAC");
    xv_wipe(root, sizeof root);
    xv_wipe(key, sizeof key);
    return rc;
}

int xv_crypt_new(const uint8_t *repo_id, const uint8_t *master, uint8_t cipher,
                 struct xv_crypt **ret, xvsa_error **error)
{
    struct xv_crypt *crypt = calloc(1, sizeof *crypt);
    if (crypt == NULL)
        return xv_fail_memory(error);
    crypt->cipher = cipher;
    memcpy(crypt->repo_id, repo_id, XV_HANDLE_BYTES);
    crypt->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    crypt->gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    int rc;
    if (crypt->sha256 == NULL || crypt->gcm == NULL)
        rc = fail_crypto(error, "find SHA-256 and AES-256-GCM");
    else
        rc = derive_keys(crypt, master, error);
    if (rc != 0) {
        xv_crypt_free(crypt);
        return rc;
    }
    *ret = crypt;
    return 0;
}

void xv_crypt_free(struct xv_crypt *crypt)
{
    if (crypt == NULL)
        return;
    midstate_free(&crypt->chunk);
    midstate_free(&crypt->node);
    EVP_MD_free(crypt->sha256);
    EVP_CIPHER_free(crypt->gcm);
    xv_wipe(crypt, sizeof *crypt);
    free(crypt);
}

uint8_t xv_crypt_cipher(const struct xv_crypt *crypt)
{
    return crypt->cipher;
}

const uint8_t *xv_crypt_repo_id(const struct xv_crypt *crypt)
{
    return crypt->repo_id;
}

int xv_crypt_derive(const struct xv_crypt *crypt, enum xv_key from, const char *label,
                    const void *id, size_t id_length, uint8_t *ret_key, xvsa_error **error)
{
    return expand(crypt->sha256, crypt->keys[from], label, id, id_length, ret_key, error);
}

int xv_crypt_mac(const struct xv_crypt *crypt, enum xv_key key, const struct xv_piece *pieces,
                 size_t count, uint8_t *ret_mac, xvsa_error **error)
{
    return hmac_once(crypt->sha256, crypt->keys[key], pieces, count, ret_mac, error);
}

int xv_crypt_tool_new(const struct xv_crypt *crypt, struct xv_crypt_tool **ret, xvsa_error **error)
{
    struct xv_crypt_tool *tool = calloc(1, sizeof *tool);
    if (tool == NULL)
        return xv_fail_memory(error);
    tool->crypt = crypt;
    tool->digest = EVP_MD_CTX_new();
    tool->cipher = EVP_CIPHER_CTX_new();
    tool->sum = XXH3_createState();
    if (tool->digest == NULL || tool->cipher == NULL || tool->sum == NULL) {
        xv_crypt_tool_free(tool);
        return xv_fail_memory(error);
    }
    *ret = tool;
    return 0;
}

void xv_crypt_tool_free(struct xv_crypt_tool *tool)
{
    if (tool == NULL)
        return;
    EVP_MD_CTX_free(tool->digest);
    EVP_CIPHER_CTX_free(tool->cipher);
    XXH3_freeState(tool->sum);
    free(tool);
}

int xv_chunk_id(struct xv_crypt_tool *tool, const void *data, size_t length, uint8_t *ret_id,
                xvsa_error **error)
{
    struct xv_piece piece = {data, length};
    if (!hmac(&tool->crypt->chunk, tool->digest, &piece, 1, ret_id))
        return fail_crypto(error, "hash a chunk");
    return 0;
}

int xv_node_id(struct xv_crypt_tool *tool, const void *data, size_t length, uint8_t *ret_id,
               xvsa_error **error)
{
    struct xv_piece piece = {data, length};
    if (!hmac(&tool->crypt->node, tool->digest, &piece, 1, ret_id))
        return fail_crypto(error, "hash a node");
    return 0;
}

/* The tag of a repository without encryption: guards against accidents only. */
static void plain_tag(XXH3_state_t *sum, const uint8_t *nonce, const struct xv_piece *bound,
                      size_t bound_count, const void *data, size_t length, uint8_t *ret_tag)
{
    XXH3_128bits_reset(sum);
    XXH3_128bits_update(sum, nonce, XV_NONCE_BYTES);
    for (size_t i = 0; i < bound_count; i++)
        XXH3_128bits_update(sum, bound[i].data, bound[i].length);
    XXH3_128bits_update(sum, data, length);
    XXH128_hash_t tag = XXH3_128bits_digest(sum);
    xv_put64(ret_tag, tag.low64);
    xv_put64(ret_tag + 8, tag.high64);
}

static bool gcm_bind(EVP_CIPHER_CTX *context, const struct xv_piece *bound, size_t count)
{
    int ignored;
    for (size_t i = 0; i < count; i++) {
        if (EVP_CipherUpdate(context, NULL, &ignored, bound[i].data, (int)bound[i].length) != 1)
            return false;
    }
    return true;
}

static bool gcm_seal(EVP_CIPHER_CTX *context, EVP_CIPHER *gcm, const uint8_t *key,
                     const uint8_t *nonce, const struct xv_piece *bound, size_t bound_count,
                     const void *data, size_t length, uint8_t *out)
{
    int done = 0;
    int rest = 0;
    return EVP_EncryptInit_ex2(context, gcm, key, nonce, NULL) == 1 &&
           gcm_bind(context, bound, bound_count) &&
           EVP_EncryptUpdate(context, out, &done, data, (int)length) == 1 &&
           EVP_EncryptFinal_ex(context, out + done, &rest) == 1 &&
           (size_t)(done + rest) == length &&
           EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, XV_TAG_BYTES, out + length) == 1;
}

/* 1: opened, 0: the tag is wrong, -1: the library failed. length is without the tag. */
static int gcm_unseal(EVP_CIPHER_CTX *context, EVP_CIPHER *gcm, const uint8_t *key,
                      const uint8_t *nonce, const struct xv_piece *bound, size_t bound_count,
                      const uint8_t *data, size_t length, uint8_t *out)
{
    int done = 0;
    int rest = 0;
    uint8_t tag[XV_TAG_BYTES];
    memcpy(tag, data + length, sizeof tag);
    if (EVP_DecryptInit_ex2(context, gcm, key, nonce, NULL) != 1 ||
        !gcm_bind(context, bound, bound_count) ||
        EVP_DecryptUpdate(context, out, &done, data, (int)length) != 1 ||
        EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, XV_TAG_BYTES, tag) != 1)
        return -1;
    return EVP_DecryptFinal_ex(context, out + done, &rest) == 1 ? 1 : 0;
}

int xv_seal(struct xv_crypt_tool *tool, const uint8_t *key, const uint8_t *nonce,
            const struct xv_piece *bound, size_t bound_count, const void *data, size_t length,
            uint8_t *out, xvsa_error **error)
{
    if (tool->crypt->cipher == XV_CIPHER_NONE) {
        memcpy(out, data, length);
        plain_tag(tool->sum, nonce, bound, bound_count, out, length, out + length);
        return 0;
    }
    if (length > XV_POINT_MAX || !gcm_seal(tool->cipher, tool->crypt->gcm, key, nonce, bound,
                                           bound_count, data, length, out))
        return fail_crypto(error, "encrypt");
    return 0;
}

int xv_unseal(struct xv_crypt_tool *tool, const uint8_t *key, const uint8_t *nonce,
              const struct xv_piece *bound, size_t bound_count, const void *data, size_t length,
              uint8_t *out, xvsa_error **error)
{
    if (length < XV_TAG_BYTES || length > XV_POINT_MAX + XV_TAG_BYTES)
        return xv_fail(error, XVSA_ERR_CORRUPT, "repo", "a sealed message has the wrong length");
    size_t plain = length - XV_TAG_BYTES;
    int opened;
    if (tool->crypt->cipher == XV_CIPHER_NONE) {
        uint8_t tag[XV_TAG_BYTES];
        plain_tag(tool->sum, nonce, bound, bound_count, data, plain, tag);
        opened = xv_same(tag, (const uint8_t *)data + plain, sizeof tag);
        if (opened)
            memcpy(out, data, plain);
    } else {
        opened = gcm_unseal(tool->cipher, tool->crypt->gcm, key, nonce, bound, bound_count, data,
                            plain, out);
    }
    if (opened < 0)
        return fail_crypto(error, "decrypt");
    if (opened == 0)
        return xv_fail(error, XVSA_ERR_CORRUPT, "repo",
                       "its authentication failed: it was changed, moved or cut");
    return 0;
}

int xv_scrypt(const void *passphrase, size_t size, const uint8_t *salt, size_t salt_length,
              uint32_t log_n, uint8_t *ret_key, xvsa_error **error)
{
    uint64_t n = 1ull << log_n;
    /* 128 * r bytes for each of n, and as much again as working space. */
    uint64_t memory = 128 * 8 * (n + 64) + (1 << 20);
    if (EVP_PBE_scrypt(passphrase, size, salt, salt_length, n, 8, 1, memory, ret_key,
                       XV_KEY_BYTES) != 1)
        return fail_crypto(error, "derive a key from the passphrase");
    return 0;
}

int xv_wrap_key(const uint8_t *key, const uint8_t *nonce, const struct xv_piece *bound,
                size_t bound_count, const uint8_t *master, uint8_t *out, xvsa_error **error)
{
    EVP_CIPHER *gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    bool done = gcm != NULL && context != NULL &&
                gcm_seal(context, gcm, key, nonce, bound, bound_count, master, XV_KEY_BYTES, out);
    EVP_CIPHER_CTX_free(context);
    EVP_CIPHER_free(gcm);
    return done ? 0 : fail_crypto(error, "wrap the master key");
}

int xv_unwrap_key(const uint8_t *key, const uint8_t *nonce, const struct xv_piece *bound,
                  size_t bound_count, const uint8_t *wrapped, uint8_t *master, xvsa_error **error)
{
    EVP_CIPHER *gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    int opened = -1;
    if (gcm != NULL && context != NULL)
        opened =
            gcm_unseal(context, gcm, key, nonce, bound, bound_count, wrapped, XV_KEY_BYTES, master);
    EVP_CIPHER_CTX_free(context);
    EVP_CIPHER_free(gcm);
    if (opened < 0)
        return fail_crypto(error, "unwrap the master key");
    if (opened == 0)
        return xv_fail(error, XVSA_ERR_AUTH, "repo", "the passphrase does not open the repository");
    return 0;
}

bool xv_same(const void *a, const void *b, size_t length)
{
    return CRYPTO_memcmp(a, b, length) == 0;
}

int xv_sha256(const void *data, size_t length, uint8_t *ret_digest, xvsa_error **error)
{
    if (EVP_Digest(data, length, ret_digest, NULL, EVP_sha256(), NULL) != 1)
        return fail_crypto(error, "make a digest");
    return 0;
}
