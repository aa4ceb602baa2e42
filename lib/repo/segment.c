/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "repo/segment.h"

#include <stdlib.h>

#include "repo/fault.h"

#define FIXED        16 /* counts between the header and the sealed tables */
#define PACK_BYTES   20
#define FENCE_BYTES  8
#define FILTER_BLOCK 32
#define FILTER_BITS  12 /* for each entry */
#define BOUND        56
#define META_NONCE   0xffffffffu

/* Odd numbers that spread one hash over the eight words of a filter block. */
static const uint32_t salts[8] = {0x47b6137b, 0x44974d91, 0x8824ad5b, 0xa2b7289d,
                                  0x705495c7, 0x2df1424b, 0x9efc4947, 0x5c6bfb31};

static uint64_t fence_of(const uint8_t *id)
{
    uint64_t value = 0;
    for (int i = 0; i < FENCE_BYTES; i++)
        value = value << 8 | id[i];
    return value;
}

static uint32_t filter_block_of(const uint8_t *id, uint32_t blocks)
{
    return (uint32_t)((uint64_t)xv_get32(id + 8) * blocks >> 32);
}

static void filter_add(uint8_t *filter, uint32_t blocks, const uint8_t *id)
{
    uint8_t *block = filter + (size_t)filter_block_of(id, blocks) * FILTER_BLOCK;
    for (int i = 0; i < 8; i++) {
        uint32_t bit = xv_get32(id + 12) * salts[i] >> 27;
        xv_put32(block + 4 * i, xv_get32(block + 4 * i) | 1u << bit);
    }
}

bool xv_segment_may_have(const struct xv_segment *segment, const uint8_t *id)
{
    const uint8_t *block =
        segment->filter + (size_t)filter_block_of(id, segment->filter_blocks) * FILTER_BLOCK;
    for (int i = 0; i < 8; i++) {
        uint32_t bit = xv_get32(id + 12) * salts[i] >> 27;
        if ((xv_get32(block + 4 * i) & 1u << bit) == 0)
            return false;
    }
    return true;
}

static void make_nonce(uint32_t number, uint8_t *nonce)
{
    memset(nonce, 0, XV_NONCE_BYTES);
    xv_put32(nonce, number);
}

static int compare_entries(const void *a, const void *b)
{
    return memcmp(((const struct xv_segment_entry *)a)->ref.id,
                  ((const struct xv_segment_entry *)b)->ref.id, XV_ID_BYTES);
}

/* The packs of the entries in the order of their first use, and each entry's place in them. */
struct pack_table {
    struct xv_segment_pack *packs;
    uint32_t *sorted; /* places in packs, by id */
    uint32_t count;
};

static uint32_t table_place(const struct pack_table *table, const uint8_t *pack, bool *ret_found)
{
    uint32_t low = 0;
    uint32_t high = table->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = memcmp(table->packs[table->sorted[middle]].id, pack, XV_HANDLE_BYTES);
        if (order == 0) {
            *ret_found = true;
            return middle;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *ret_found = false;
    return low;
}

static uint32_t table_add(struct pack_table *table, const struct xv_segment_entry *entry)
{
    bool found;
    uint32_t place = table_place(table, entry->ref.at.pack, &found);
    if (found)
        return table->sorted[place];
    memmove(&table->sorted[place + 1], &table->sorted[place],
            (table->count - place) * sizeof table->sorted[0]);
    table->sorted[place] = table->count;
    memcpy(table->packs[table->count].id, entry->ref.at.pack, XV_HANDLE_BYTES);
    table->packs[table->count].nodes = entry->node;
    return table->count++;
}

static void put_entry(const struct xv_segment_entry *entry, uint32_t pack, uint8_t *out)
{
    memcpy(out, entry->ref.id, XV_ID_BYTES);
    xv_put32(out + 32, pack);
    xv_put32(out + 36, entry->ref.at.offset);
    xv_put32(out + 40, entry->ref.at.length);
    xv_put16(out + 44, entry->ref.at.slot);
    xv_put16(out + 46, 0);
}

/* Everything about an object that is being made. */
struct making {
    const struct xv_crypt *crypt;
    struct xv_crypt_tool *tool;
    const char *name;
    uint8_t key[XV_KEY_BYTES];
    uint8_t *data;
    uint8_t *meta; /* packs, fences, filter: in the clear */
    size_t meta_length;
    uint32_t blocks;
    uint32_t filter_blocks;
};

static int seal_part(struct making *making, uint32_t number, const uint8_t *plain, size_t length,
                     uint8_t *out, xvsa_error **error)
{
    uint8_t nonce[XV_NONCE_BYTES];
    make_nonce(number, nonce);
    struct xv_piece bound[] = {{making->data, BOUND},
                               {making->name, strlen(making->name)},
                               {making->data + XV_HEADER_BYTES, FIXED}};
    return xv_seal(making->tool, making->key, nonce, bound, 3, plain, length, out, error);
}

static int seal_blocks(struct making *making, const struct xv_segment_entry *entries,
                       uint32_t count, struct pack_table *table, uint8_t *blocks, uint8_t *fences,
                       uint8_t *filter, xvsa_error **error)
{
    uint8_t plain[XV_SEGMENT_BLOCK - XV_TAG_BYTES];
    for (uint32_t b = 0; b < making->blocks; b++) {
        uint32_t first = b * XV_SEGMENT_PER_BLOCK;
        memset(plain, 0, sizeof plain);
        memcpy(fences + (size_t)b * FENCE_BYTES, entries[first].ref.id, FENCE_BYTES);
        for (uint32_t i = 0; i < XV_SEGMENT_PER_BLOCK && first + i < count; i++) {
            const struct xv_segment_entry *entry = &entries[first + i];
            put_entry(entry, table_add(table, entry), plain + i * XV_SEGMENT_ENTRY);
            filter_add(filter, making->filter_blocks, entry->ref.id);
        }
        int rc =
            seal_part(making, b, plain, sizeof plain, blocks + (size_t)b * XV_SEGMENT_BLOCK, error);
        if (rc != 0)
            return rc;
    }
    return 0;
}

/* The counts in the clear are bound to every part, so they must be known before a part is sealed:
 * packs are counted first. */
static uint32_t count_packs(const struct xv_segment_entry *entries, uint32_t count,
                            struct pack_table *table)
{
    for (uint32_t i = 0; i < count; i++)
        table_add(table, &entries[i]);
    return table->count;
}

static int build(struct making *making, const struct xv_segment_entry *entries, uint32_t count,
                 struct pack_table *table, size_t *ret_length, uint32_t *ret_head,
                 xvsa_error **error)
{
    uint32_t packs = count_packs(entries, count, table);
    making->blocks = (count + XV_SEGMENT_PER_BLOCK - 1) / XV_SEGMENT_PER_BLOCK;
    making->filter_blocks = (count * FILTER_BITS + 255) / 256;
    size_t fences_at = (size_t)packs * PACK_BYTES;
    size_t filter_at = fences_at + (size_t)making->blocks * FENCE_BYTES + 4;
    making->meta_length = filter_at + (size_t)making->filter_blocks * FILTER_BLOCK;
    size_t head = XV_HEADER_BYTES + FIXED + making->meta_length + XV_TAG_BYTES;
    size_t summed = head + (size_t)making->blocks * XV_SEGMENT_BLOCK;
    making->data = malloc(summed + XV_TRAILER_BYTES);
    making->meta = calloc(1, making->meta_length);
    if (making->data == NULL || making->meta == NULL)
        return xv_fail_memory(error);
    struct xv_header header = {.type = XV_TYPE_SEGMENT,
                               .flags = XV_OBJECT_SEALED,
                               .body_length = summed - XV_HEADER_BYTES};
    memcpy(header.repo_id, xv_crypt_repo_id(making->crypt), XV_HANDLE_BYTES);
    xv_header_encode(&header, making->data);
    uint8_t *fixed = making->data + XV_HEADER_BYTES;
    xv_put32(fixed, making->blocks);
    xv_put32(fixed + 4, count);
    xv_put32(fixed + 8, packs);
    xv_put32(fixed + 12, (uint32_t)making->meta_length + XV_TAG_BYTES);
    xv_put32(making->meta + filter_at - 4, making->filter_blocks);
    int rc = seal_blocks(making, entries, count, table, making->data + head,
                         making->meta + fences_at, making->meta + filter_at, error);
    for (uint32_t i = 0; i < packs; i++) {
        memcpy(making->meta + (size_t)i * PACK_BYTES, table->packs[i].id, XV_HANDLE_BYTES);
        making->meta[(size_t)i * PACK_BYTES + 16] = table->packs[i].nodes;
    }
    if (rc == 0)
        rc = seal_part(making, META_NONCE, making->meta, making->meta_length, fixed + FIXED, error);
    if (rc != 0)
        return rc;
    xv_object_finish(making->data, summed);
    *ret_length = summed + XV_TRAILER_BYTES;
    *ret_head = (uint32_t)head;
    return 0;
}

int xv_segment_encode(const struct xv_crypt *crypt, const uint8_t *id,
                      struct xv_segment_entry *entries, uint32_t count, uint8_t **ret,
                      size_t *ret_length, uint32_t *ret_head, xvsa_error **error)
{
    if (count == 0 || count > XV_SEGMENT_ENTRIES_MAX)
        return xv_fail(error, XVSA_ERR_LIMIT, "repo", "an index segment cannot have %u entries",
                       count);
    char name[XV_NAME_BYTES];
    xv_handle_name("ix", id, name);
    struct making making = {.crypt = crypt, .name = name};
    struct pack_table table = {calloc(count, sizeof *table.packs),
                               calloc((size_t)count + 1, sizeof *table.sorted), 0};
    int rc = table.packs == NULL || table.sorted == NULL ? xv_fail_memory(error) : 0;
    if (rc == 0)
        rc = xv_crypt_tool_new(crypt, &making.tool, error);
    if (rc == 0)
        rc = xv_crypt_derive(crypt, XV_KEY_META, "object", name, strlen(name), making.key, error);
    if (rc == 0) {
        qsort(entries, count, sizeof *entries, compare_entries);
        rc = build(&making, entries, count, &table, ret_length, ret_head, error);
    }
    free(table.packs);
    free(table.sorted);
    free(making.meta);
    xv_crypt_tool_free(making.tool);
    xv_wipe(making.key, sizeof making.key);
    if (rc != 0) {
        free(making.data);
        return rc;
    }
    *ret = making.data;
    return 0;
}

static int decode_counts(const uint8_t *data, size_t length, struct xv_segment *segment,
                         uint32_t *ret_sealed, xvsa_error **error)
{
    struct xv_header header;
    int rc = xv_header_decode(data, length, XV_TYPE_SEGMENT, segment->name, &header, error);
    if (rc != 0)
        return rc;
    if (length < XV_HEADER_BYTES + FIXED)
        return xv_fault(error, segment->name, "it is cut off");
    const uint8_t *fixed = data + XV_HEADER_BYTES;
    segment->blocks = xv_get32(fixed);
    segment->entries = xv_get32(fixed + 4);
    segment->packs = xv_get32(fixed + 8);
    uint64_t sealed = xv_get32(fixed + 12);
    uint64_t least = (uint64_t)segment->packs * PACK_BYTES +
                     (uint64_t)segment->blocks * FENCE_BYTES + 4 + FILTER_BLOCK + XV_TAG_BYTES;
    uint64_t head = XV_HEADER_BYTES + FIXED + sealed;
    if (segment->entries == 0 || segment->entries > XV_SEGMENT_ENTRIES_MAX || segment->packs == 0 ||
        segment->packs > segment->entries ||
        segment->blocks != (segment->entries + XV_SEGMENT_PER_BLOCK - 1) / XV_SEGMENT_PER_BLOCK ||
        sealed < least || head > length ||
        header.body_length != FIXED + sealed + (uint64_t)segment->blocks * XV_SEGMENT_BLOCK)
        return xv_fault(error, segment->name, "its parts do not fit together");
    segment->head = (uint32_t)head;
    memcpy(segment->front, data, sizeof segment->front);
    *ret_sealed = (uint32_t)sealed;
    return 0;
}

static int decode_meta(struct xv_segment *segment, const uint8_t *meta, size_t length,
                       xvsa_error **error)
{
    size_t fences_at = (size_t)segment->packs * PACK_BYTES;
    size_t filter_at = fences_at + (size_t)segment->blocks * FENCE_BYTES + 4;
    segment->filter_blocks = xv_get32(meta + filter_at - 4);
    if (segment->filter_blocks == 0 ||
        (uint64_t)segment->filter_blocks * FILTER_BLOCK != length - filter_at)
        return xv_fault(error, segment->name, "its filter does not fit");
    segment->pack_table = calloc(segment->packs, sizeof *segment->pack_table);
    segment->fences = calloc(segment->blocks, sizeof *segment->fences);
    segment->filter = malloc(length - filter_at);
    if (segment->pack_table == NULL || segment->fences == NULL || segment->filter == NULL)
        return xv_fail_memory(error);
    for (uint32_t i = 0; i < segment->packs; i++) {
        memcpy(segment->pack_table[i].id, meta + (size_t)i * PACK_BYTES, XV_HANDLE_BYTES);
        segment->pack_table[i].nodes = meta[(size_t)i * PACK_BYTES + 16] != 0;
    }
    for (uint32_t i = 0; i < segment->blocks; i++)
        segment->fences[i] = fence_of(meta + fences_at + (size_t)i * FENCE_BYTES);
    memcpy(segment->filter, meta + filter_at, length - filter_at);
    return 0;
}

int xv_segment_decode(const struct xv_crypt *crypt, const uint8_t *id, const uint8_t *data,
                      size_t length, struct xv_segment *ret, xvsa_error **error)
{
    struct xv_segment segment = {0};
    struct xv_crypt_tool *tool = NULL;
    uint32_t sealed = 0;
    memcpy(segment.id, id, XV_HANDLE_BYTES);
    xv_handle_name("ix", id, segment.name);
    int rc = decode_counts(data, length, &segment, &sealed, error);
    if (rc != 0)
        return rc;
    uint8_t *meta = malloc(sealed);
    rc = meta == NULL ? xv_fail_memory(error) : 0;
    if (rc == 0)
        rc = xv_crypt_derive(crypt, XV_KEY_META, "object", segment.name, strlen(segment.name),
                             segment.key, error);
    if (rc == 0)
        rc = xv_crypt_tool_new(crypt, &tool, error);
    if (rc == 0) {
        uint8_t nonce[XV_NONCE_BYTES];
        make_nonce(META_NONCE, nonce);
        struct xv_piece bound[] = {
            {data, BOUND}, {segment.name, strlen(segment.name)}, {data + XV_HEADER_BYTES, FIXED}};
        rc = xv_unseal(tool, segment.key, nonce, bound, 3, data + XV_HEADER_BYTES + FIXED, sealed,
                       meta, error);
        if (rc != 0)
            xv_fault_object(error, rc, segment.name);
    }
    if (rc == 0)
        rc = decode_meta(&segment, meta, sealed - XV_TAG_BYTES, error);
    xv_crypt_tool_free(tool);
    free(meta);
    if (rc != 0) {
        xv_segment_free(&segment);
        return rc;
    }
    *ret = segment;
    return 0;
}

void xv_segment_free(struct xv_segment *segment)
{
    free(segment->pack_table);
    free(segment->fences);
    free(segment->filter);
    xv_wipe(segment, sizeof *segment);
}

uint32_t xv_segment_block_of(const struct xv_segment *segment, const uint8_t *id)
{
    uint64_t wanted = fence_of(id);
    uint32_t low = 0;
    uint32_t high = segment->blocks;
    /* The last block whose first id is not greater. Equal fences of two blocks would need two ids that
     * share 64 bits, which keyed hashes do not. */
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (segment->fences[middle] <= wanted)
            low = middle;
        else
            high = middle;
    }
    return low;
}

int xv_segment_open_block(struct xv_crypt_tool *tool, const struct xv_segment *segment,
                          uint32_t block, const uint8_t *data, uint8_t *out, xvsa_error **error)
{
    uint8_t nonce[XV_NONCE_BYTES];
    make_nonce(block, nonce);
    struct xv_piece bound[] = {{segment->front, BOUND},
                               {segment->name, strlen(segment->name)},
                               {segment->front + XV_HEADER_BYTES, FIXED}};
    int rc = xv_unseal(tool, segment->key, nonce, bound, 3, data, XV_SEGMENT_BLOCK, out, error);
    if (rc == XVSA_ERR_CORRUPT)
        xv_fault_object(error, rc, segment->name);
    return rc;
}

uint32_t xv_segment_block_entries(const struct xv_segment *segment, uint32_t block)
{
    uint32_t left = segment->entries - block * XV_SEGMENT_PER_BLOCK;
    return left < XV_SEGMENT_PER_BLOCK ? left : XV_SEGMENT_PER_BLOCK;
}

int xv_segment_entry_at(const struct xv_segment *segment, const uint8_t *block, uint32_t index,
                        struct xv_segment_entry *ret, xvsa_error **error)
{
    const uint8_t *at = block + (size_t)index * XV_SEGMENT_ENTRY;
    uint32_t pack = xv_get32(at + 32);
    if (pack >= segment->packs)
        return xv_fault(error, segment->name, "an entry names a pack that is not listed");
    memcpy(ret->ref.id, at, XV_ID_BYTES);
    memcpy(ret->ref.at.pack, segment->pack_table[pack].id, XV_HANDLE_BYTES);
    ret->ref.at.offset = xv_get32(at + 36);
    ret->ref.at.length = xv_get32(at + 40);
    ret->ref.at.slot = xv_get16(at + 44);
    ret->node = segment->pack_table[pack].nodes;
    return 0;
}

bool xv_segment_search(const struct xv_segment *segment, uint32_t block, const uint8_t *data,
                       const uint8_t *id, struct xv_segment_entry *ret)
{
    uint32_t low = 0;
    uint32_t high = xv_segment_block_entries(segment, block);
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = memcmp(data + (size_t)middle * XV_SEGMENT_ENTRY, id, XV_ID_BYTES);
        if (order == 0)
            return xv_segment_entry_at(segment, data, middle, ret, NULL) == 0;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return false;
}
