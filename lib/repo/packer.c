/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * One thread's way from chunks to frames: zeros and what the base has at the same place are found
 * first, then what is stored anywhere, and the rest is gathered into frames.
 */
#include <stdlib.h>
#include <zstd.h>

#include "diff/changes.h"
#include "repo/session.h"

#define PLACEMENTS_MAX 128u
#define PENDING_MAX    256u

/* A place that waits for its chunk's frame to be sealed. */
struct pending {
    struct xv_disk_writer *writer;
    uint64_t chunk;
    uint32_t slot;
};

struct xv_packer {
    struct xv_session *session;
    struct xv_crypt_tool *tool;
    ZSTD_CCtx *zstd;
    uint32_t chunk_size;
    uint32_t frame_target;
    uint8_t *raw;            /* frame_target bytes */
    const uint8_t *borrowed; /* the gathered bytes are still the caller's; NULL: they are in raw */
    uint32_t raw_length;
    uint8_t *packed;
    size_t packed_capacity;
    uint8_t entries[XV_FRAME_CHUNKS_MAX * XV_FRAME_ENTRY];
    uint32_t count;
    struct pending pending[PENDING_MAX];
    uint32_t pending_count;
    struct xv_placement placements[PLACEMENTS_MAX]; /* for the disk at hand */
    uint32_t placement_count;
    struct xv_disk_writer *base_of; /* whose base leaf is at hand */
    uint64_t base_index;
    struct xv_node base_leaf;
    struct xv_store_stats stats; /* of the put under way */
};

int xv_packer_new(struct xv_session *session, struct xv_packer **ret, xvsa_error **error)
{
    struct xv_packer *packer = calloc(1, sizeof *packer);
    if (packer == NULL)
        return xv_fail_memory(error);
    packer->session = session;
    packer->chunk_size = xv_repo_chunk_size(session->repo);
    packer->frame_target = session->repo->config.frame_target;
    packer->packed_capacity = ZSTD_compressBound(packer->frame_target);
    packer->raw = malloc(packer->frame_target);
    packer->packed = malloc(packer->packed_capacity);
    packer->zstd = ZSTD_createCCtx();
    int rc = packer->raw == NULL || packer->packed == NULL || packer->zstd == NULL
                 ? xv_fail_memory(error)
                 : xv_crypt_tool_new(session->repo->crypt, &packer->tool, error);
    if (rc == 0 && ZSTD_isError(ZSTD_CCtx_setParameter(packer->zstd, ZSTD_c_compressionLevel,
                                                       session->repo->level)))
        rc = xv_fail(error, XVSA_ERR_INVALID, "repo", "compression level %d is not possible",
                     session->repo->level);
    if (rc != 0) {
        xv_packer_free(packer);
        return rc;
    }
    *ret = packer;
    return 0;
}

void xv_packer_free(struct xv_packer *packer)
{
    if (packer == NULL)
        return;
    xv_crypt_tool_free(packer->tool);
    ZSTD_freeCCtx(packer->zstd);
    free(packer->raw);
    free(packer->packed);
    free(packer);
}

static int place_all(struct xv_packer *packer, struct xv_disk_writer *writer,
                     const struct xv_call *call, xvsa_error **error)
{
    int rc = xv_disk_writer_place(writer, packer->placements, packer->placement_count, call, error);
    packer->placement_count = 0;
    return rc;
}

static int place(struct xv_packer *packer, struct xv_disk_writer *writer, uint64_t chunk,
                 uint8_t kind, const struct xv_ref *ref, const struct xv_call *call,
                 xvsa_error **error)
{
    struct xv_placement *placement = &packer->placements[packer->placement_count++];
    placement->chunk = chunk;
    placement->kind = kind;
    if (ref != NULL)
        placement->ref = *ref;
    return packer->placement_count == PLACEMENTS_MAX ? place_all(packer, writer, call, error) : 0;
}

/* Tells the disks where the frame's chunks are. */
static int place_pending(struct xv_packer *packer, const struct xv_location *at, uint64_t stored,
                         uint32_t raw, const struct xv_call *call, xvsa_error **error)
{
    struct xv_placement placements[PENDING_MAX];
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < packer->pending_count;) {
        struct xv_disk_writer *writer = packer->pending[i].writer;
        struct xv_store_stats more = {0};
        uint32_t count = 0;
        for (; i < packer->pending_count && packer->pending[i].writer == writer; i++) {
            const uint8_t *entry = packer->entries + packer->pending[i].slot * XV_FRAME_ENTRY;
            struct xv_placement *placement = &placements[count++];
            placement->chunk = packer->pending[i].chunk;
            placement->kind = XV_KIND_DATA;
            memcpy(placement->ref.id, entry, XV_ID_BYTES);
            placement->ref.at = *at;
            placement->ref.at.slot = (uint16_t)packer->pending[i].slot;
            more.bytes_stored += stored * xv_get32(entry + XV_ID_BYTES) / raw;
        }
        xv_disk_writer_count(writer, &more);
        rc = xv_disk_writer_place(writer, placements, count, call, error);
    }
    packer->pending_count = 0;
    return rc;
}

static int note_known(struct xv_packer *packer, const struct xv_location *at, xvsa_error **error)
{
    struct xv_segment_entry known[XV_FRAME_CHUNKS_MAX / 16];
    uint32_t done = 0;
    int rc = 0;
    while (rc == 0 && done < packer->count) {
        uint32_t count = 0;
        for (; count < XV_FRAME_CHUNKS_MAX / 16 && done < packer->count; count++, done++) {
            memcpy(known[count].ref.id, packer->entries + done * XV_FRAME_ENTRY, XV_ID_BYTES);
            known[count].ref.at = *at;
            known[count].ref.at.slot = (uint16_t)done;
            known[count].node = false;
        }
        rc = xv_known_add(&packer->session->known, known, count, error);
    }
    return rc;
}

static int seal_frame(struct xv_packer *packer, const struct xv_call *call, xvsa_error **error)
{
    const uint8_t *raw = packer->borrowed != NULL ? packer->borrowed : packer->raw;
    struct xv_location at = {0};
    size_t packed = ZSTD_compress2(packer->zstd, packer->packed, packer->packed_capacity, raw,
                                   packer->raw_length);
    bool smaller = !ZSTD_isError(packed) && packed < packer->raw_length;
    struct xv_frame frame = {.count = packer->count,
                             .raw_length = packer->raw_length,
                             .compression = smaller ? XV_COMPRESSION_ZSTD : XV_COMPRESSION_NONE,
                             .entries = packer->entries};
    int rc = xv_pack_writer_add(
        packer->session->data, packer->tool, &frame, smaller ? packer->packed : raw,
        smaller ? (uint32_t)packed : packer->raw_length, at.pack, call, error);
    if (rc == 0) {
        at.offset = frame.offset;
        at.length = xv_frame_length(&frame);
        rc = note_known(packer, &at, error);
    }
    if (rc == 0)
        rc = place_pending(packer, &at, at.length, packer->raw_length, call, error);
    packer->count = 0;
    packer->raw_length = 0;
    packer->pending_count = 0;
    packer->borrowed = NULL;
    return rc;
}

int xv_packer_flush(struct xv_packer *packer, const struct xv_call *call, xvsa_error **error)
{
    return packer->count == 0 ? 0 : seal_frame(packer, call, error);
}

/* Makes what was borrowed of the caller our own. */
static void take_over(struct xv_packer *packer)
{
    if (packer->borrowed != NULL)
        memcpy(packer->raw, packer->borrowed, packer->raw_length);
    packer->borrowed = NULL;
}

/* Chunks that follow each other in the caller's memory are not copied unless the frame outlives the
 * call. */
static void gather(struct xv_packer *packer, const uint8_t *data, uint32_t length)
{
    if (packer->count == 0) {
        packer->borrowed = data;
        return;
    }
    if (packer->borrowed != NULL && packer->borrowed + packer->raw_length == data)
        return;
    take_over(packer);
    memcpy(packer->raw + packer->raw_length, data, length);
}

static int add_new(struct xv_packer *packer, struct xv_disk_writer *writer, uint64_t chunk,
                   const uint8_t *id, const uint8_t *data, uint32_t length,
                   const struct xv_call *call, xvsa_error **error)
{
    int rc = 0;
    if (packer->pending_count == PENDING_MAX)
        rc = xv_packer_flush(packer, call, error);
    if (rc != 0)
        return rc;
    uint8_t *entry = packer->entries + packer->count * XV_FRAME_ENTRY;
    gather(packer, data, length);
    memcpy(entry, id, XV_ID_BYTES);
    xv_put32(entry + XV_ID_BYTES, length);
    packer->pending[packer->pending_count++] = (struct pending){writer, chunk, packer->count};
    packer->raw_length += length;
    packer->count++;
    packer->stats.bytes_new += length;
    bool full = packer->raw_length + packer->chunk_size > packer->frame_target ||
                packer->count == XV_FRAME_CHUNKS_MAX;
    return full ? xv_packer_flush(packer, call, error) : 0;
}

/* Is it in the frame that is being gathered? Then the place waits with that chunk. */
static bool find_gathered(struct xv_packer *packer, struct xv_disk_writer *writer, uint64_t chunk,
                          const uint8_t *id)
{
    if (packer->pending_count == PENDING_MAX)
        return false;
    for (uint32_t i = 0; i < packer->count; i++) {
        if (memcmp(packer->entries + i * XV_FRAME_ENTRY, id, XV_ID_BYTES) == 0) {
            packer->pending[packer->pending_count++] = (struct pending){writer, chunk, i};
            return true;
        }
    }
    return false;
}

static int find_in_base(struct xv_packer *packer, struct xv_disk_writer *writer, uint64_t chunk,
                        const uint8_t *id, bool *ret_found, struct xv_ref *ret,
                        const struct xv_call *call, xvsa_error **error)
{
    *ret_found = false;
    if (writer->base == NULL)
        return 0;
    uint64_t index = chunk / XV_FAN;
    if (packer->base_of != writer || packer->base_index != index) {
        packer->base_of = NULL;
        int rc = xv_tree_node(writer->base, 0, index, &packer->base_leaf, call, error);
        if (rc != 0)
            return xv_fault_disk(error, rc, packer->session->base->id, writer->key);
        packer->base_of = writer;
        packer->base_index = index;
    }
    unsigned at = (unsigned)(chunk % XV_FAN);
    if (packer->base_leaf.kinds[at] == XV_KIND_DATA &&
        memcmp(packer->base_leaf.refs[at].id, id, XV_ID_BYTES) == 0) {
        *ret = packer->base_leaf.refs[at];
        *ret_found = true;
    }
    return 0;
}

static int find_stored(struct xv_packer *packer, const uint8_t *id, bool *ret_found,
                       struct xv_ref *ret, const struct xv_call *call, xvsa_error **error)
{
    *ret_found = xv_known_find(&packer->session->known, id, ret);
    if (*ret_found)
        return 0;
    struct xv_segment_entry entry;
    int rc = xv_index_find(packer->session->repo->index, packer->tool, id, ret_found, &entry, call,
                           error);
    if (rc == 0 && *ret_found)
        *ret = entry.ref;
    return rc;
}

static int put_chunk(struct xv_packer *packer, struct xv_disk_writer *writer, uint64_t chunk,
                     const uint8_t *data, uint32_t length, const struct xv_call *call,
                     xvsa_error **error)
{
    uint8_t id[XV_ID_BYTES];
    struct xv_ref ref;
    bool found = false;
    if (xv_is_zero(data, length)) {
        packer->stats.bytes_zero += length;
        return place(packer, writer, chunk, XV_KIND_ZERO, NULL, call, error);
    }
    int rc = xv_chunk_id(packer->tool, data, length, id, error);
    if (rc == 0)
        rc = find_in_base(packer, writer, chunk, id, &found, &ref, call, error);
    if (rc != 0)
        return rc;
    if (found) {
        packer->stats.bytes_same += length;
        return place(packer, writer, chunk, XV_KIND_DATA, &ref, call, error);
    }
    if (find_gathered(packer, writer, chunk, id)) {
        packer->stats.bytes_known += length;
        return 0;
    }
    rc = find_stored(packer, id, &found, &ref, call, error);
    if (rc != 0)
        return rc;
    if (found) {
        packer->stats.bytes_known += length;
        return place(packer, writer, chunk, XV_KIND_DATA, &ref, call, error);
    }
    return add_new(packer, writer, chunk, id, data, length, call, error);
}

int xv_packer_put(struct xv_packer *packer, struct xv_disk_writer *writer, uint64_t offset,
                  const void *data, size_t length, const struct xv_call *call, xvsa_error **error)
{
    uint32_t chunk_size = packer->chunk_size;
    if (offset % chunk_size != 0 || offset > writer->size || length > writer->size - offset ||
        (length % chunk_size != 0 && offset + length != writer->size))
        return xv_fail(error, XVSA_ERR_INVALID, "repo",
                       "disk %s: %zu bytes at %llu are not whole chunks of it", writer->key, length,
                       (unsigned long long)offset);
    int rc = xv_call_check(call, "repo", "storing data", error);
    packer->stats = (struct xv_store_stats){.bytes_read = length};
    for (size_t done = 0; rc == 0 && done < length;) {
        size_t left = length - done;
        uint32_t piece = left < chunk_size ? (uint32_t)left : chunk_size;
        rc = put_chunk(packer, writer, (offset + done) / chunk_size, (const uint8_t *)data + done,
                       piece, call, error);
        done += piece;
    }
    if (rc == 0)
        rc = place_all(packer, writer, call, error);
    take_over(packer);
    packer->placement_count = 0;
    xv_disk_writer_count(writer, &packer->stats);
    if (rc == 0 && (xv_known_count(&packer->session->known) >= XV_KNOWN_MAX ||
                    xv_placed_count(&packer->session->placed) >= XV_PLACED_MAX))
        rc = xv_session_checkpoint(packer->session, call, error);
    return rc;
}
