/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A disk read through GET /export_raw_vdi: in its VHD form, where zeros are left out, or raw when the
 * disk is too large for that.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "xenapi/transfer.h"
#include "xenapi/vhd.h"

#define WHAT "VDI export"

struct http_disk {
    struct xv_disk disk; /* first */
    struct xv_client *client;
    char *vdi_ref;
    struct xv_url url;
    bool vhd;
};

/* A stream on its way into blocks. */
struct pump {
    struct http_disk *disk;
    struct xv_transfer transfer;
    const struct xv_extents *ranges;
    struct xv_block_queue *queue;
    void *owner;
    const struct xv_call *call;
};

static struct http_disk *own(struct xv_disk *disk)
{
    return (struct http_disk *)disk;
}

static int begin(struct http_disk *disk, const struct xv_call *call, struct xv_transfer *ret,
                 xvsa_error **error)
{
    struct xv_transfer_spec spec = {
        .method = "GET",
        .path = "/export_raw_vdi",
        .options = disk->vhd ? "&format=vhd" : "&format=raw",
        .vdi_ref = disk->vdi_ref,
        .what = WHAT,
        .url = &disk->url,
    };
    return xv_transfer_begin(disk->client, &spec, call, ret, error);
}

static int seek(struct xv_transfer *transfer, uint64_t position, xvsa_error **error)
{
    if (position < transfer->position)
        return xv_fail(error, XVSA_ERR_PROTOCOL, XV_COMPONENT, "the export's parts overlap");
    return xv_transfer_read(transfer, NULL, position - transfer->position, error);
}

static int read_vhd(struct xv_transfer *transfer, struct xv_vhd *vhd, xvsa_error **error)
{
    unsigned char head[XV_VHD_FOOTER + XV_VHD_HEADER];
    *vhd = (struct xv_vhd){0};
    int rc = xv_transfer_read(transfer, head, sizeof head, error);
    if (rc == 0)
        rc = xv_vhd_parse_head(head, head + XV_VHD_FOOTER, vhd, error);
    if (rc == 0)
        rc = seek(transfer, vhd->table_position, error);
    if (rc != 0)
        return rc;
    size_t length = 4 * (size_t)vhd->table_entries;
    unsigned char *table = malloc(length + 1);
    if (table == NULL)
        return xv_fail_memory(error);
    rc = xv_transfer_read(transfer, table, length, error);
    if (rc == 0)
        rc = xv_vhd_parse_table(vhd, table, error);
    free(table);
    if (rc != 0)
        xv_vhd_free(vhd);
    return rc;
}

static int http_allocated(struct xv_disk *base, struct xv_extents *ret, const struct xv_call *call,
                          xvsa_error **error)
{
    struct http_disk *disk = own(base);
    struct xv_transfer transfer;
    struct xv_vhd vhd;
    if (!disk->vhd)
        return xv_fail(error, XVSA_ERR_UNSUPPORTED, XV_COMPONENT,
                       "a disk of %llu bytes has no VHD form that would tell what is allocated",
                       (unsigned long long)base->size);
    int rc = begin(disk, call, &transfer, error);
    if (rc != 0)
        return rc;
    rc = read_vhd(&transfer, &vhd, error);
    if (rc != 0)
        return xv_transfer_fail(&transfer, rc, error);
    xv_transfer_abandon(&transfer);
    rc = xv_vhd_extents(&vhd, base->size, ret, error);
    xv_vhd_free(&vhd);
    return rc;
}

static int http_read(struct xv_disk *base, uint64_t offset, void *data, size_t length,
                     const struct xv_call *call, xvsa_error **error)
{
    (void)base;
    (void)offset;
    (void)data;
    (void)length;
    (void)call;
    return xv_fail(error, XVSA_ERR_UNSUPPORTED, XV_COMPONENT,
                   "a disk exported over HTTP can be read from its beginning to its end only");
}

static int take_block(struct pump *pump, struct xv_block **ret, xvsa_error **error)
{
    *ret = xv_block_queue_take(pump->queue, pump->call);
    if (*ret != NULL)
        return 0;
    int rc = xv_call_check(pump->call, XV_COMPONENT, "reading an exported disk", error);
    return rc != 0 ? rc
                   : xv_fail(error, XVSA_ERR_CANCELLED, XV_COMPONENT,
                             "reading an exported disk was stopped");
}

/* Clears the sectors of a piece that the block's bitmap says hold nothing. */
static void clear_unset(struct xv_block *block, const unsigned char *bitmap, uint64_t block_start)
{
    for (uint32_t at = 0; at < block->length; at += XV_VHD_SECTOR) {
        uint64_t sector = (block->offset + at - block_start) / XV_VHD_SECTOR;
        if ((bitmap[sector / 8] & (0x80u >> (sector % 8))) == 0)
            memset(block->data + at, 0,
                   block->length - at < XV_VHD_SECTOR ? block->length - at : XV_VHD_SECTOR);
    }
}

/* One piece of a wanted range. bitmap NULL: all sectors count; position NULL: zeros, from nowhere. */
static int push_piece(struct pump *pump, uint64_t offset, uint32_t length,
                      const unsigned char *bitmap, uint64_t block_start, const uint64_t *position,
                      xvsa_error **error)
{
    struct xv_block *block = NULL;
    int rc = take_block(pump, &block, error);
    if (rc != 0)
        return rc;
    block->offset = offset;
    block->length = length;
    block->owner = pump->owner;
    if (position == NULL) {
        memset(block->data, 0, length);
    } else {
        rc = seek(&pump->transfer, *position, error);
        if (rc == 0)
            rc = xv_transfer_read(&pump->transfer, block->data, length, error);
        if (rc == 0 && bitmap != NULL)
            clear_unset(block, bitmap, block_start);
    }
    if (rc != 0) {
        xv_block_queue_release(pump->queue, block);
        return rc;
    }
    xv_block_queue_push(pump->queue, block);
    return 0;
}

/* All blocks of a queue have the same capacity, which any of them tells. */
static int piece_length(struct pump *pump, uint32_t *ret, xvsa_error **error)
{
    struct xv_block *block = NULL;
    int rc = take_block(pump, &block, error);
    if (rc != 0)
        return rc;
    *ret = block->capacity;
    xv_block_queue_release(pump->queue, block);
    return 0;
}

/* A part of the disk, [start, end), and where the stream holds it. */
struct section {
    uint64_t start;
    uint64_t end;
    uint64_t position;
    bool is_zero;
    const unsigned char *bitmap;
};

/* Index of the first range that ends after offset. */
static size_t first_range(const struct xv_extents *ranges, uint64_t offset)
{
    size_t low = 0;
    size_t high = ranges->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (ranges->ranges[middle].offset + ranges->ranges[middle].length <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int push_section(struct pump *pump, const struct section *section, uint32_t piece,
                        xvsa_error **error)
{
    const struct xv_extents *ranges = pump->ranges;
    for (size_t i = first_range(ranges, section->start);
         i < ranges->count && ranges->ranges[i].offset < section->end; i++) {
        uint64_t at = ranges->ranges[i].offset;
        uint64_t end = at + ranges->ranges[i].length;
        at = at < section->start ? section->start : at;
        end = end > section->end ? section->end : end;
        while (at < end) {
            uint64_t stop = (at / piece + 1) * piece;
            stop = stop > end ? end : stop;
            uint64_t position = section->position + (at - section->start);
            int rc = push_piece(pump, at, (uint32_t)(stop - at), section->bitmap, section->start,
                                section->is_zero ? NULL : &position, error);
            if (rc != 0)
                return rc;
            at = stop;
        }
    }
    return 0;
}

static bool is_wanted(const struct pump *pump, uint64_t start, uint64_t end)
{
    size_t i = first_range(pump->ranges, start);
    return i < pump->ranges->count && pump->ranges->ranges[i].offset < end;
}

static int push_vhd_block(struct pump *pump, const struct xv_vhd *vhd,
                          const struct xv_vhd_block *block, uint32_t piece, xvsa_error **error)
{
    unsigned char bitmap[4096];
    struct section section = {
        .start = (uint64_t)block->index * vhd->block_size,
        .position = block->position + vhd->bitmap_size,
        .bitmap = bitmap,
    };
    section.end = section.start + vhd->block_size;
    if (section.end > pump->disk->disk.size)
        section.end = pump->disk->disk.size;
    if (section.start >= section.end || !is_wanted(pump, section.start, section.end))
        return 0;
    int rc = seek(&pump->transfer, block->position, error);
    if (rc == 0)
        rc = xv_transfer_read(&pump->transfer, bitmap, vhd->bitmap_size, error);
    return rc != 0 ? rc : push_section(pump, &section, piece, error);
}

/* What is wanted but in no block reads as zeros. */
static int push_zeros(struct pump *pump, const struct xv_vhd *vhd, uint32_t piece,
                      xvsa_error **error)
{
    struct xv_extents allocated;
    struct xv_extents missing;
    xv_extents_init(&allocated);
    xv_extents_init(&missing);
    int rc = xv_vhd_extents(vhd, pump->disk->disk.size, &allocated, error);
    if (rc == 0)
        rc = xv_extents_subtract(pump->ranges, &allocated, &missing, error);
    for (size_t i = 0; rc == 0 && i < missing.count; i++) {
        struct section section = {
            .start = missing.ranges[i].offset,
            .end = missing.ranges[i].offset + missing.ranges[i].length,
            .is_zero = true,
        };
        rc = push_section(pump, &section, piece, error);
    }
    xv_extents_free(&allocated);
    xv_extents_free(&missing);
    return rc;
}

static int check_trailer(struct pump *pump, const struct xv_vhd *vhd, xvsa_error **error)
{
    unsigned char footer[XV_VHD_FOOTER];
    const struct xv_vhd_block *last =
        vhd->block_count == 0 ? NULL : &vhd->blocks[vhd->block_count - 1];
    uint64_t table_end = vhd->table_position + 4ull * vhd->table_entries;
    uint64_t end = (table_end + XV_VHD_SECTOR - 1) / XV_VHD_SECTOR * XV_VHD_SECTOR;
    if (last != NULL)
        end = last->position + vhd->bitmap_size + vhd->block_size;
    int rc = seek(&pump->transfer, end, error);
    if (rc == 0)
        rc = xv_transfer_read(&pump->transfer, footer, sizeof footer, error);
    if (rc == 0 && memcmp(footer, vhd->footer, sizeof footer) != 0)
        rc = xv_fail(error, XVSA_ERR_PROTOCOL, XV_COMPONENT,
                     "the export does not end as it began: it is damaged or incomplete");
    return rc;
}

static int stream_vhd(struct pump *pump, uint32_t piece, xvsa_error **error)
{
    struct xv_vhd vhd;
    int rc = read_vhd(&pump->transfer, &vhd, error);
    if (rc != 0)
        return rc;
    if (vhd.size < pump->disk->disk.size)
        rc = xv_fail(error, XVSA_ERR_PROTOCOL, XV_COMPONENT,
                     "the export is of %llu bytes, the disk of %llu", (unsigned long long)vhd.size,
                     (unsigned long long)pump->disk->disk.size);
    for (size_t i = 0; rc == 0 && i < vhd.block_count; i++)
        rc = push_vhd_block(pump, &vhd, &vhd.blocks[i], piece, error);
    if (rc == 0)
        rc = check_trailer(pump, &vhd, error);
    if (rc == 0)
        rc = push_zeros(pump, &vhd, piece, error);
    xv_vhd_free(&vhd);
    return rc;
}

static int stream_raw(struct pump *pump, uint32_t piece, xvsa_error **error)
{
    struct section whole = {.end = pump->disk->disk.size};
    int rc = push_section(pump, &whole, piece, error);
    return rc != 0 ? rc : seek(&pump->transfer, pump->disk->disk.size, error);
}

/* Reads to the end in every case: what came before a failure report can only be told from it by the
 * stream's complete length. */
static int http_stream(struct xv_disk *base, const struct xv_extents *ranges,
                       struct xv_block_queue *queue, void *owner, const struct xv_call *call,
                       xvsa_error **error)
{
    struct pump pump = {
        .disk = own(base), .ranges = ranges, .queue = queue, .owner = owner, .call = call};
    uint32_t piece = 0;
    if (ranges->count == 0)
        return 0;
    int rc = piece_length(&pump, &piece, error);
    if (rc == 0)
        rc = begin(pump.disk, call, &pump.transfer, error);
    if (rc != 0)
        return rc;
    rc = pump.disk->vhd ? stream_vhd(&pump, piece, error) : stream_raw(&pump, piece, error);
    if (rc != 0)
        return xv_transfer_fail(&pump.transfer, rc, error);
    return xv_transfer_finish(&pump.transfer, error);
}

static void http_close(struct xv_disk *base)
{
    struct http_disk *disk = own(base);
    free(disk->vdi_ref);
    free(disk);
}

static const struct xv_disk_ops http_ops = {
    .transport = "http",
    .read = http_read,
    .allocated = http_allocated,
    .stream = http_stream,
    .close = http_close,
};

int xv_vdi_open_http(struct xv_client *client, const struct xv_inventory *inventory,
                     const char *vdi_ref, const struct xv_host *host, const struct xv_call *call,
                     struct xv_disk **ret, xvsa_error **error)
{
    uint64_t size = 0;
    (void)inventory;
    if (host == NULL)
        return xv_fail(error, XVSA_ERR_INVALID, XV_COMPONENT, "no host to export the disk %s from",
                       vdi_ref);
    int rc = xv_vdi_size(client, vdi_ref, call, &size, error);
    if (rc != 0)
        return rc;
    struct http_disk *disk = calloc(1, sizeof *disk);
    char *copy = strdup(vdi_ref);
    if (disk == NULL || copy == NULL) {
        free(disk);
        free(copy);
        return xv_fail_memory(error);
    }
    disk->disk.ops = &http_ops;
    disk->disk.size = size;
    disk->client = client;
    disk->vdi_ref = copy;
    disk->vhd = size <= XV_VHD_SIZE_MAX;
    xv_client_member_url(client, host->address, &disk->url);
    *ret = &disk->disk;
    return 0;
}

void xv_vdi_stop_exports(struct xv_client *client, const char *vdi_ref, const struct xv_call *call)
{
    if (xv_task_abandon_all(client, WHAT, vdi_ref, call))
        xv_log(client->env, XVSA_LOG_INFO, XV_COMPONENT, "transfers of the disk %s were ended",
               vdi_ref);
}
