/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * An index segment: the 16 bytes of counts, then the tables in the clear and one block. Seals are made
 * right, counts are as they come.
 */
#include "repo_fuzz.h"

#define FIXED 16
#define BLOCK (XV_SEGMENT_BLOCK - XV_TAG_BYTES)

static void seal(struct xv_crypt_tool *tool, const char *name, const uint8_t *front,
                 uint32_t number, const uint8_t *plain, size_t length, uint8_t *out)
{
    static const uint8_t key[XV_KEY_BYTES];
    uint8_t nonce[XV_NONCE_BYTES] = {0};
    xv_put32(nonce, number);
    struct xv_piece bound[] = {{front, 56}, {name, strlen(name)}, {front + XV_HEADER_BYTES, FIXED}};
    if (xv_seal(tool, key, nonce, bound, 3, plain, length, out, NULL) != 0)
        abort();
}

static void look(const struct xv_segment *segment, struct xv_crypt_tool *tool,
                 const uint8_t *sealed)
{
    uint8_t block[XV_SEGMENT_BLOCK];
    uint8_t id[XV_ID_BYTES] = {0};
    struct xv_segment_entry entry;
    (void)xv_segment_may_have(segment, id);
    if (xv_segment_block_of(segment, id) >= segment->blocks)
        abort();
    if (xv_segment_open_block(tool, segment, 0, sealed, block, NULL) != 0)
        return;
    for (uint32_t i = 0; i < xv_segment_block_entries(segment, 0); i++) {
        if (xv_segment_entry_at(segment, block, i, &entry, NULL) == 0)
            (void)xv_segment_search(segment, 0, block, entry.ref.id, &entry);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t id[XV_HANDLE_BYTES];
    static struct xv_crypt_tool *tool;
    char name[XV_NAME_BYTES];
    if (tool == NULL && xv_crypt_tool_new(fuzz_crypt(), &tool, NULL) != 0)
        abort();
    if (size < FIXED + BLOCK || size > 1u << 20)
        return 0;
    size_t meta = size - FIXED - BLOCK;
    size_t head = XV_HEADER_BYTES + FIXED + meta + XV_TAG_BYTES;
    uint8_t *object = malloc(head + XV_SEGMENT_BLOCK);
    if (object == NULL)
        abort();
    struct xv_header header = {.type = XV_TYPE_SEGMENT, .flags = XV_OBJECT_SEALED};
    header.body_length = head - XV_HEADER_BYTES + (uint64_t)xv_get32(data) * XV_SEGMENT_BLOCK;
    xv_header_encode(&header, object);
    memcpy(object + XV_HEADER_BYTES, data, FIXED);
    xv_put32(object + XV_HEADER_BYTES + 12, (uint32_t)(meta + XV_TAG_BYTES));
    xv_handle_name("ix", id, name);
    seal(tool, name, object, 0xffffffffu, data + FIXED, meta, object + XV_HEADER_BYTES + FIXED);
    seal(tool, name, object, 0, data + FIXED + meta, BLOCK, object + head);
    struct xv_segment segment;
    xvsa_error *error = NULL;
    if (xv_segment_decode(fuzz_crypt(), id, object, head, &segment, &error) == 0) {
        look(&segment, tool, object + head);
        xv_segment_free(&segment);
    }
    xvsa_error_unref(error);
    free(object);
    return 0;
}
