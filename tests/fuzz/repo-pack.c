/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The table of a pack, with checksums and authentication repaired; and the input as it is as a tail.
 */
#include "repo/pack.h"
#include "repo/pack_form.h"
#include "repo_fuzz.h"

static const char name[] = "p/00/00000000000000000000000000000000";

/* Makes the checksum of each frame header in the table right. */
static uint32_t repair(uint8_t *table, size_t size, uint64_t *ret_stored)
{
    uint32_t frames = 0;
    *ret_stored = 0;
    for (size_t at = 0; size - at >= XV_FRAME_FIXED; frames++) {
        uint32_t count = xv_get16(table + at + 6);
        uint32_t length = xv_frame_header_length(count);
        if (count > XV_FRAME_CHUNKS_MAX || length > size - at)
            break;
        xv_put64(table + at + length - 8, XXH3_64bits(table + at, length - 8));
        *ret_stored += length + (uint64_t)xv_get32(table + at + 16);
        at += length;
    }
    return frames;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t session[XV_HANDLE_BYTES];
    uint8_t head[XV_PACK_HEAD_BYTES];
    uint8_t tail[XV_PACK_TAIL_BYTES];
    uint32_t offset, length;
    uint64_t stored;
    xvsa_error *error = NULL;
    if (size >= XV_PACK_TAIL_BYTES) {
        (void)!xv_pack_tail_decode(name, data, size, &offset, &length, &error);
        xvsa_error_unref(error);
        error = NULL;
    }
    if (size == 0 || size > 1u << 20)
        return 0;
    uint8_t *table = malloc(size);
    if (table == NULL)
        abort();
    memcpy(table, data, size);
    uint32_t frames = repair(table, size, &stored);
    stored += XV_PACK_HEAD_BYTES;
    if (stored > XV_OBJECT_MAX)
        stored = XV_PACK_HEAD_BYTES;
    uint64_t whole = stored + size + XV_PACK_TAIL_BYTES;
    xv_pack_head_encode(fuzz_crypt(), false, session, 16, whole, head);
    if (xv_pack_tail_encode(fuzz_crypt(), name, head, table, (uint32_t)stored, (uint32_t)size,
                            frames, tail, NULL) != 0)
        abort();
    struct xv_pack_index index;
    if (xv_pack_index_decode(fuzz_crypt(), name, head, table, tail, whole, &index, &error) == 0) {
        for (uint32_t i = 0; i < index.count; i++) {
            if (xv_pack_index_find(&index, index.frames[i].offset) != &index.frames[i])
                abort();
        }
        xv_pack_index_free(&index);
    }
    xvsa_error_unref(error);
    return 0;
}
