/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Index segments "ix/<id>": sorted ids with their locations in sealed blocks of 4096 bytes, and a
 * filter that tells which ids are certainly not there.
 */
#ifndef XV_REPO_SEGMENT_H
#define XV_REPO_SEGMENT_H

#include "repo/object.h"

#define XV_SEGMENT_BLOCK       4096u
#define XV_SEGMENT_ENTRY       48u
#define XV_SEGMENT_PER_BLOCK   85u
#define XV_SEGMENT_ENTRIES_MAX (1u << 20)

struct xv_segment_entry {
    struct xv_ref ref;
    bool node;
};

struct xv_segment_pack {
    uint8_t id[XV_HANDLE_BYTES];
    bool nodes;
};

/* What is kept of a segment in memory. */
struct xv_segment {
    uint8_t front[XV_HEADER_BYTES + 16]; /* header and counts, which are bound to every part */
    uint8_t id[XV_HANDLE_BYTES];
    char name[XV_NAME_BYTES];
    uint32_t blocks;
    uint32_t entries;
    uint32_t packs;
    uint32_t head; /* bytes before the first block */
    uint32_t filter_blocks;
    uint8_t key[XV_KEY_BYTES];
    struct xv_segment_pack *pack_table;
    uint64_t *fences; /* first 8 bytes, as a big-endian number, of the first id of each block */
    uint8_t *filter;
};

/* Makes a whole object of entries, which are sorted by it. The caller frees *ret. */
int xv_segment_encode(const struct xv_crypt *crypt, const uint8_t *id,
                      struct xv_segment_entry *entries, uint32_t count, uint8_t **ret,
                      size_t *ret_length, uint32_t *ret_head, xvsa_error **error) XV_MUST_CHECK;
/* Reads the head, length bytes from the object's beginning. */
int xv_segment_decode(const struct xv_crypt *crypt, const uint8_t *id, const uint8_t *data,
                      size_t length, struct xv_segment *ret, xvsa_error **error) XV_MUST_CHECK;
void xv_segment_free(struct xv_segment *segment);

/* False: the id is certainly not there. */
bool xv_segment_may_have(const struct xv_segment *segment, const uint8_t *id);
/* Which block would hold the id. */
uint32_t xv_segment_block_of(const struct xv_segment *segment, const uint8_t *id);
/* Opens a block into XV_SEGMENT_BLOCK bytes; *ret_count receives the number of its entries. */
int xv_segment_open_block(struct xv_crypt_tool *tool, const struct xv_segment *segment,
                          uint32_t block, const uint8_t *data, uint8_t *out,
                          xvsa_error **error) XV_MUST_CHECK;
uint32_t xv_segment_block_entries(const struct xv_segment *segment, uint32_t block);
/* Reads an entry of an opened block; CORRUPT when it is out of bounds. */
int xv_segment_entry_at(const struct xv_segment *segment, const uint8_t *block, uint32_t index,
                        struct xv_segment_entry *ret, xvsa_error **error) XV_MUST_CHECK;
/* Searches an opened block; false when the id is not in it. */
bool xv_segment_search(const struct xv_segment *segment, uint32_t block, const uint8_t *data,
                       const uint8_t *id, struct xv_segment_entry *ret);

#endif
