/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Frames: some chunks, or one node, compressed and sealed together, behind a header in the clear.
 */
#ifndef XV_REPO_FRAME_H
#define XV_REPO_FRAME_H

#include "repo/crypt.h"

struct xv_frame {
    uint32_t number; /* in its pack, from 0: the nonce */
    uint32_t count;
    uint32_t offset; /* of the header in the pack */
    uint32_t raw_length;
    uint32_t stored_length; /* ciphertext and tag */
    uint32_t header_length;
    uint8_t compression;
    const uint8_t *entries; /* count times id[32], length[4]; points into the data decoded */
};

static inline uint32_t xv_frame_header_length(uint32_t count)
{
    return XV_FRAME_FIXED + count * XV_FRAME_ENTRY + XV_FRAME_SUMS;
}

static inline uint32_t xv_frame_length(const struct xv_frame *frame)
{
    return frame->header_length + frame->stored_length;
}

static inline const uint8_t *xv_frame_entry_id(const struct xv_frame *frame, uint32_t slot)
{
    return frame->entries + (size_t)slot * XV_FRAME_ENTRY;
}

static inline uint32_t xv_frame_entry_length(const struct xv_frame *frame, uint32_t slot)
{
    return xv_get32(xv_frame_entry_id(frame, slot) + XV_ID_BYTES);
}

/* Key of a pack's frames; wipe it after use. */
int xv_pack_key(const struct xv_crypt *crypt, const uint8_t *pack, uint8_t *ret_key,
                xvsa_error **error) XV_MUST_CHECK;

/* Writes header and sealed payload, header_length + payload_length + XV_TAG_BYTES bytes. Of frame,
 * header_length and stored_length are filled in. */
int xv_frame_seal(struct xv_crypt_tool *tool, const struct xv_crypt *crypt, const uint8_t *pack,
                  const uint8_t *pack_key, struct xv_frame *frame, const void *payload,
                  uint32_t payload_length, uint8_t *out, xvsa_error **error) XV_MUST_CHECK;

/* Reads a header; object is the pack's name, for messages. The stored bytes need not be there. */
int xv_frame_decode(const uint8_t *data, size_t length, const char *object, struct xv_frame *ret,
                    xvsa_error **error) XV_MUST_CHECK;

/* Opens a whole frame (header and stored bytes) into out, which has room for raw_length bytes. The
 * caller has decoded the header, compared its offset and length, and still has to compare ids. */
struct xv_frame_opener;
int xv_frame_opener_new(const struct xv_crypt *crypt, struct xv_frame_opener **ret,
                        xvsa_error **error) XV_MUST_CHECK;
void xv_frame_opener_free(struct xv_frame_opener *opener);
struct xv_crypt_tool *xv_frame_opener_tool(struct xv_frame_opener *opener);
int xv_frame_open(struct xv_frame_opener *opener, const uint8_t *pack, const char *object,
                  const struct xv_frame *frame, const uint8_t *data, uint8_t *out,
                  xvsa_error **error) XV_MUST_CHECK;
/* Compares one entry's id with the bytes that were opened. */
int xv_frame_check(struct xv_frame_opener *opener, bool node, const char *object,
                   const struct xv_frame *frame, uint32_t slot, const uint8_t *bytes,
                   xvsa_error **error) XV_MUST_CHECK;

#endif
