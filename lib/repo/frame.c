/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "repo/frame.h"

#include <stdlib.h>
#include <xxhash.h>
#include <zstd.h>

#include "repo/fault.h"
#include "repo/node.h"

static const uint8_t magic[4] = {'X', 'V', 'F', 'R'};

struct xv_frame_opener {
    const struct xv_crypt *crypt;
    struct xv_crypt_tool *tool;
    ZSTD_DCtx *zstd;
    uint8_t *plain; /* decrypted, still compressed */
    size_t capacity;
    uint8_t pack[XV_HANDLE_BYTES]; /* whose key is at hand */
    uint8_t key[XV_KEY_BYTES];
    bool have_key;
};

int xv_pack_key(const struct xv_crypt *crypt, const uint8_t *pack, uint8_t *ret_key,
                xvsa_error **error)
{
    return xv_crypt_derive(crypt, XV_KEY_DATA, "pack", pack, XV_HANDLE_BYTES, ret_key, error);
}

static void make_nonce(uint32_t number, uint8_t *nonce)
{
    memset(nonce, 0, XV_NONCE_BYTES);
    xv_put32(nonce, number);
}

int xv_frame_seal(struct xv_crypt_tool *tool, const struct xv_crypt *crypt, const uint8_t *pack,
                  const uint8_t *pack_key, struct xv_frame *frame, const void *payload,
                  uint32_t payload_length, uint8_t *out, xvsa_error **error)
{
    frame->header_length = xv_frame_header_length(frame->count);
    frame->stored_length = payload_length + XV_TAG_BYTES;
    memcpy(out, magic, sizeof magic);
    xv_put16(out + 4, (uint16_t)frame->number);
    xv_put16(out + 6, (uint16_t)frame->count);
    xv_put32(out + 8, frame->offset);
    xv_put32(out + 12, frame->raw_length);
    xv_put32(out + 16, frame->stored_length);
    xv_put32(out + 20, frame->compression);
    memcpy(out + XV_FRAME_FIXED, frame->entries, (size_t)frame->count * XV_FRAME_ENTRY);
    size_t bound_length = frame->header_length - XV_FRAME_SUMS;
    uint8_t nonce[XV_NONCE_BYTES];
    make_nonce(frame->number, nonce);
    struct xv_piece bound[] = {
        {xv_crypt_repo_id(crypt), XV_HANDLE_BYTES}, {pack, XV_HANDLE_BYTES}, {out, bound_length}};
    uint8_t *stored = out + frame->header_length;
    int rc = xv_seal(tool, pack_key, nonce, bound, 3, payload, payload_length, stored, error);
    if (rc != 0)
        return rc;
    xv_put64(out + bound_length, XXH3_64bits(stored, frame->stored_length));
    xv_put64(out + bound_length + 8, XXH3_64bits(out, bound_length + 8));
    return 0;
}

static int check_lengths(const struct xv_frame *frame, const char *object, xvsa_error **error)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < frame->count; i++) {
        uint32_t length = xv_frame_entry_length(frame, i);
        if (length == 0)
            return xv_fault(error, object, "frame %u has an entry without content", frame->number);
        sum += length;
    }
    if (sum != frame->raw_length)
        return xv_fault(error, object, "the entries of frame %u do not add up", frame->number);
    return 0;
}

int xv_frame_decode(const uint8_t *data, size_t length, const char *object, struct xv_frame *ret,
                    xvsa_error **error)
{
    if (length < XV_FRAME_FIXED || memcmp(data, magic, sizeof magic) != 0)
        return xv_fault(error, object, "there is no frame where one should be");
    ret->number = xv_get16(data + 4);
    ret->count = xv_get16(data + 6);
    ret->offset = xv_get32(data + 8);
    ret->raw_length = xv_get32(data + 12);
    ret->stored_length = xv_get32(data + 16);
    ret->compression = data[20];
    if (ret->count == 0 || ret->count > XV_FRAME_CHUNKS_MAX)
        return xv_fault(error, object, "frame %u has %u entries", ret->number, ret->count);
    ret->header_length = xv_frame_header_length(ret->count);
    if (length < ret->header_length)
        return xv_fault(error, object, "frame %u is cut off", ret->number);
    size_t summed = ret->header_length - 8;
    if (xv_get64(data + summed) != XXH3_64bits(data, summed))
        return xv_fault(error, object, "the checksum of frame %u's header is wrong", ret->number);
    if (xv_get32(data + 20) > XV_COMPRESSION_ZSTD)
        return xv_fail(error, XVSA_ERR_FORMAT, "repo",
                       "frame %u of '%s' is of a kind that this version does not know", ret->number,
                       object);
    if (ret->raw_length > XV_FRAME_RAW_MAX || ret->stored_length < XV_TAG_BYTES ||
        ret->stored_length > XV_FRAME_RAW_MAX + XV_TAG_BYTES)
        return xv_fault(error, object, "a length in frame %u is out of bounds", ret->number);
    ret->entries = data + XV_FRAME_FIXED;
    return check_lengths(ret, object, error);
}

int xv_frame_opener_new(const struct xv_crypt *crypt, struct xv_frame_opener **ret,
                        xvsa_error **error)
{
    struct xv_frame_opener *opener = calloc(1, sizeof *opener);
    if (opener == NULL)
        return xv_fail_memory(error);
    opener->crypt = crypt;
    opener->zstd = ZSTD_createDCtx();
    int rc = opener->zstd == NULL ? xv_fail_memory(error)
                                  : xv_crypt_tool_new(crypt, &opener->tool, error);
    if (rc != 0) {
        xv_frame_opener_free(opener);
        return rc;
    }
    *ret = opener;
    return 0;
}

void xv_frame_opener_free(struct xv_frame_opener *opener)
{
    if (opener == NULL)
        return;
    ZSTD_freeDCtx(opener->zstd);
    xv_crypt_tool_free(opener->tool);
    free(opener->plain);
    xv_wipe(opener, sizeof *opener);
    free(opener);
}

struct xv_crypt_tool *xv_frame_opener_tool(struct xv_frame_opener *opener)
{
    return opener->tool;
}

static int prepare(struct xv_frame_opener *opener, const uint8_t *pack, size_t plain,
                   xvsa_error **error)
{
    if (opener->capacity < plain) {
        free(opener->plain);
        opener->capacity = 0;
        opener->plain = malloc(plain);
        if (opener->plain == NULL)
            return xv_fail_memory(error);
        opener->capacity = plain;
    }
    if (opener->have_key && memcmp(opener->pack, pack, XV_HANDLE_BYTES) == 0)
        return 0;
    opener->have_key = false;
    int rc = xv_pack_key(opener->crypt, pack, opener->key, error);
    if (rc == 0) {
        memcpy(opener->pack, pack, XV_HANDLE_BYTES);
        opener->have_key = true;
    }
    return rc;
}

int xv_frame_open(struct xv_frame_opener *opener, const uint8_t *pack, const char *object,
                  const struct xv_frame *frame, const uint8_t *data, uint8_t *out,
                  xvsa_error **error)
{
    size_t plain = frame->stored_length - XV_TAG_BYTES;
    int rc = prepare(opener, pack, plain, error);
    if (rc != 0)
        return rc;
    size_t bound_length = frame->header_length - XV_FRAME_SUMS;
    const uint8_t *stored = data + frame->header_length;
    if (xv_get64(data + bound_length) != XXH3_64bits(stored, frame->stored_length))
        return xv_fault(error, object, "the checksum of frame %u is wrong", frame->number);
    bool compressed = frame->compression == XV_COMPRESSION_ZSTD;
    if (!compressed && plain != frame->raw_length)
        return xv_fault(error, object, "frame %u has the wrong length", frame->number);
    uint8_t nonce[XV_NONCE_BYTES];
    make_nonce(frame->number, nonce);
    struct xv_piece bound[] = {{xv_crypt_repo_id(opener->crypt), XV_HANDLE_BYTES},
                               {pack, XV_HANDLE_BYTES},
                               {data, bound_length}};
    rc = xv_unseal(opener->tool, opener->key, nonce, bound, 3, stored, frame->stored_length,
                   compressed ? opener->plain : out, error);
    if (rc == XVSA_ERR_CORRUPT) {
        xv_fault_drop(error);
        return xv_fault(error, object, "the authentication of frame %u failed", frame->number);
    }
    if (rc != 0 || !compressed)
        return rc;
    size_t got = ZSTD_decompressDCtx(opener->zstd, out, frame->raw_length, opener->plain, plain);
    if (ZSTD_isError(got) || got != frame->raw_length)
        return xv_fault(error, object, "frame %u cannot be decompressed", frame->number);
    return 0;
}

int xv_frame_check(struct xv_frame_opener *opener, bool node, const char *object,
                   const struct xv_frame *frame, uint32_t slot, const uint8_t *bytes,
                   xvsa_error **error)
{
    uint8_t id[XV_ID_BYTES];
    size_t length = xv_frame_entry_length(frame, slot);
    int rc = node ? xv_node_identify(opener->tool, bytes, length, object, id, error)
                  : xv_chunk_id(opener->tool, bytes, length, id, error);
    if (rc == 0 && memcmp(id, xv_frame_entry_id(frame, slot), sizeof id) != 0)
        return xv_fault(error, object, "entry %u of frame %u is not what its id says", slot,
                        frame->number);
    return rc;
}
