/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "xenapi/vhd.h"

#include <stdlib.h>
#include <string.h>

#define COMPONENT    "xenapi"
#define TYPE_DYNAMIC 3
#define NO_BLOCK     0xffffffffu
#define BLOCK_MIN    (512u << 10) /* smaller ones would make a peer's table too large */
#define BLOCK_MAX    (16u << 20)

static uint32_t get32(const unsigned char *data)
{
    return (uint32_t)data[0] << 24 | (uint32_t)data[1] << 16 | (uint32_t)data[2] << 8 | data[3];
}

static uint64_t get64(const unsigned char *data)
{
    return (uint64_t)get32(data) << 32 | get32(data + 4);
}

static int broken(const char *why, xvsa_error **error)
{
    return xv_fail(error, XVSA_ERR_PROTOCOL, COMPONENT, "the host's VHD stream is broken: %s", why);
}

/* One's complement of the sum of all bytes but the sum's own four. */
static bool has_checksum(const unsigned char *data, size_t length, size_t at)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < length; i++) {
        if (i < at || i >= at + 4)
            sum += data[i];
    }
    return ~sum == get32(data + at);
}

int xv_vhd_parse_head(const unsigned char *footer, const unsigned char *header, struct xv_vhd *ret,
                      xvsa_error **error)
{
    if (memcmp(footer, "conectix", 8) != 0 || !has_checksum(footer, XV_VHD_FOOTER, 64))
        return broken("no footer at its beginning", error);
    if (get32(footer + 60) != TYPE_DYNAMIC)
        return broken("it is not a dynamic disk", error);
    if (get64(footer + 16) != XV_VHD_FOOTER)
        return broken("its header is not where streams have it", error);
    if (memcmp(header, "cxsparse", 8) != 0 || !has_checksum(header, XV_VHD_HEADER, 36))
        return broken("no header", error);
    *ret = (struct xv_vhd){
        .size = get64(footer + 48),
        .table_position = get64(header + 16),
        .table_entries = get32(header + 28),
        .block_size = get32(header + 32),
    };
    memcpy(ret->footer, footer, XV_VHD_FOOTER);
    uint32_t block = ret->block_size;
    if (block < BLOCK_MIN || block > BLOCK_MAX || (block & (block - 1)) != 0)
        return broken("a block size that is not allowed", error);
    if (ret->size == 0 || ret->size > 2 * XV_VHD_SIZE_MAX ||
        ret->table_entries < (ret->size + block - 1) / block ||
        ret->table_entries > ret->size / block + 1024)
        return broken("its block table does not fit the disk", error);
    if (ret->table_position < XV_VHD_FOOTER + XV_VHD_HEADER || ret->table_position > 1u << 20)
        return broken("its block table is not near its beginning", error);
    uint32_t bitmap = block / XV_VHD_SECTOR / 8;
    ret->bitmap_size = (bitmap + XV_VHD_SECTOR - 1) / XV_VHD_SECTOR * XV_VHD_SECTOR;
    return 0;
}

static int by_position(const void *a, const void *b)
{
    const struct xv_vhd_block *first = a;
    const struct xv_vhd_block *second = b;
    return (first->position > second->position) - (first->position < second->position);
}

int xv_vhd_parse_table(struct xv_vhd *vhd, const unsigned char *table, xvsa_error **error)
{
    uint64_t end = vhd->table_position + 4ull * vhd->table_entries;
    vhd->blocks = calloc((size_t)vhd->table_entries + 1, sizeof *vhd->blocks);
    if (vhd->blocks == NULL)
        return xv_fail_memory(error);
    for (uint32_t i = 0; i < vhd->table_entries; i++) {
        uint32_t sector = get32(table + 4ull * i);
        if (sector == NO_BLOCK)
            continue;
        uint64_t position = (uint64_t)sector * XV_VHD_SECTOR;
        if ((uint64_t)i * vhd->block_size >= vhd->size)
            return broken("a block beyond the end of the disk", error);
        vhd->blocks[vhd->block_count++] = (struct xv_vhd_block){position, i};
    }
    qsort(vhd->blocks, vhd->block_count, sizeof *vhd->blocks, by_position);
    for (size_t i = 0; i < vhd->block_count; i++) {
        if (vhd->blocks[i].position < end)
            return broken("blocks that overlap", error);
        end = vhd->blocks[i].position + vhd->bitmap_size + vhd->block_size;
    }
    return 0;
}

void xv_vhd_free(struct xv_vhd *vhd)
{
    free(vhd->blocks);
    vhd->blocks = NULL;
    vhd->block_count = 0;
}

static int by_index(const void *a, const void *b)
{
    uint32_t first = *(const uint32_t *)a;
    uint32_t second = *(const uint32_t *)b;
    return (first > second) - (first < second);
}

int xv_vhd_extents(const struct xv_vhd *vhd, uint64_t size, struct xv_extents *ret,
                   xvsa_error **error)
{
    uint32_t *indexes = calloc(vhd->block_count + 1, sizeof *indexes);
    if (indexes == NULL)
        return xv_fail_memory(error);
    for (size_t i = 0; i < vhd->block_count; i++)
        indexes[i] = vhd->blocks[i].index;
    qsort(indexes, vhd->block_count, sizeof *indexes, by_index);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < vhd->block_count; i++) {
        uint64_t offset = (uint64_t)indexes[i] * vhd->block_size;
        uint64_t length = offset >= size                    ? 0
                          : size - offset < vhd->block_size ? size - offset
                                                            : vhd->block_size;
        rc = xv_extents_add(ret, offset, length, error);
    }
    free(indexes);
    return rc;
}
