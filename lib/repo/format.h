/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Constants of the repository's format (docs/format.md) and little-endian access.
 */
#ifndef XV_REPO_FORMAT_H
#define XV_REPO_FORMAT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/buffer.h"

#define XV_ID_BYTES     32
#define XV_HANDLE_BYTES 16 /* repository, pack, segment, session and point ids */
#define XV_KEY_BYTES    32
#define XV_TAG_BYTES    16
#define XV_NONCE_BYTES  12
#define XV_NAME_BYTES   97 /* the longest name and its end */

#define XV_HEADER_BYTES  64
#define XV_TRAILER_BYTES 8

enum xv_object_type {
    XV_TYPE_CONFIG = 1,
    XV_TYPE_KEY = 2,
    XV_TYPE_JOURNAL = 3,
    XV_TYPE_PACK = 4,
    XV_TYPE_NODES = 5,
    XV_TYPE_SEGMENT = 6,
    XV_TYPE_POINT = 7,
    XV_TYPE_PROGRESS = 8
};

#define XV_CHUNK_LOG2_MIN 16
#define XV_CHUNK_LOG2_MAX 22
#define XV_CHUNK_MAX      (1u << XV_CHUNK_LOG2_MAX)

#define XV_FAN_LOG2 7
#define XV_FAN      128u
#define XV_LEVELS   7 /* 128^7 chunks is more than any size in 64 bits holds */

#define XV_KIND_HOLE 0
#define XV_KIND_ZERO 1
#define XV_KIND_DATA 2

#define XV_FRAME_TARGET     (1u << 20)
#define XV_FRAME_RAW_MAX    XV_CHUNK_MAX
#define XV_FRAME_FIXED      24
#define XV_FRAME_ENTRY      36
#define XV_FRAME_SUMS       16
#define XV_FRAME_CHUNKS_MAX 1024
#define XV_COMPRESSION_NONE 0
#define XV_COMPRESSION_ZSTD 1

#define XV_PACK_TARGET     (32u << 20)
#define XV_PACK_HEAD_BYTES 96
#define XV_PACK_TAIL_BYTES 64
#define XV_PACK_FRAMES_MAX 65536u

#define XV_JOURNAL_ENTRY_MAX (4u << 20)
#define XV_POINT_MAX         (32u << 20)
#define XV_PROGRESS_MAX      (64u << 20)

static inline void xv_put16(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
}

static inline void xv_put32(uint8_t *at, uint32_t value)
{
    xv_put16(at, (uint16_t)value);
    xv_put16(at + 2, (uint16_t)(value >> 16));
}

static inline void xv_put64(uint8_t *at, uint64_t value)
{
    xv_put32(at, (uint32_t)value);
    xv_put32(at + 4, (uint32_t)(value >> 32));
}

static inline uint16_t xv_get16(const uint8_t *at)
{
    return (uint16_t)(at[0] | at[1] << 8);
}

static inline uint32_t xv_get32(const uint8_t *at)
{
    return xv_get16(at) | (uint32_t)xv_get16(at + 2) << 16;
}

static inline uint64_t xv_get64(const uint8_t *at)
{
    return xv_get32(at) | (uint64_t)xv_get32(at + 4) << 32;
}

/* Where a chunk or a node is believed to be. Not part of its identity. */
struct xv_location {
    uint8_t pack[XV_HANDLE_BYTES];
    uint32_t offset; /* of its frame's header in the pack */
    uint32_t length; /* of the frame, header included */
    uint16_t slot;   /* which entry of the frame */
};

/* A chunk or a node: what it is, and where. */
struct xv_ref {
    uint8_t id[XV_ID_BYTES];
    struct xv_location at;
};

static inline void xv_pack_name(bool nodes, const uint8_t *pack, char name[XV_NAME_BYTES])
{
    char hex[2 * XV_HANDLE_BYTES + 1];
    xv_hex_encode(pack, XV_HANDLE_BYTES, hex);
    snprintf(name, XV_NAME_BYTES, "%c/%.2s/%s", nodes ? 'n' : 'p', hex, hex);
}

static inline void xv_handle_name(const char *folder, const uint8_t *id, char name[XV_NAME_BYTES])
{
    char hex[2 * XV_HANDLE_BYTES + 1];
    xv_hex_encode(id, XV_HANDLE_BYTES, hex);
    snprintf(name, XV_NAME_BYTES, "%s/%s", folder, hex);
}

#endif
