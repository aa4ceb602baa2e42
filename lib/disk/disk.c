/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "disk/file.h"

#include <string.h>

#define COMPONENT "disk"

static int check_range(const struct xv_disk *disk, uint64_t offset, uint64_t length,
                       xvsa_error **error)
{
    if (offset <= disk->size && length <= disk->size - offset)
        return 0;
    return xv_fail(error, XVSA_ERR_INVALID, COMPONENT,
                   "%llu bytes at %llu are not inside a disk of %llu bytes",
                   (unsigned long long)length, (unsigned long long)offset,
                   (unsigned long long)disk->size);
}

int xv_disk_read(struct xv_disk *disk, uint64_t offset, void *data, size_t length,
                 const struct xv_call *call, xvsa_error **error)
{
    int rc = check_range(disk, offset, length, error);
    if (rc != 0 || length == 0)
        return rc;
    return disk->ops->read(disk, offset, data, length, call, error);
}

int xv_disk_allocated(struct xv_disk *disk, struct xv_extents *ret, const struct xv_call *call,
                      xvsa_error **error)
{
    if (disk->ops->allocated == NULL)
        return xv_fail(error, XVSA_ERR_UNSUPPORTED, COMPONENT,
                       "transport %s does not tell which parts of a disk are allocated",
                       disk->ops->transport);
    return disk->ops->allocated(disk, ret, call, error);
}

int xv_disk_fail_taking(const struct xv_call *call, xvsa_error **error)
{
    int rc = xv_call_check(call, COMPONENT, "waiting for a free block", error);
    if (rc != 0)
        return rc;
    return xv_fail(error, XVSA_ERR_CANCELLED, COMPONENT, "the consumer of the blocks stopped");
}

uint64_t xv_disk_piece_end(uint64_t offset, uint64_t end, uint32_t capacity)
{
    uint64_t stop = offset - offset % capacity + capacity;
    return stop > end || stop < offset ? end : stop;
}

static int read_block(struct xv_disk *disk, uint64_t offset, uint64_t end,
                      struct xv_block_queue *queue, void *owner, const struct xv_call *call,
                      uint64_t *next, xvsa_error **error)
{
    struct xv_block *block = xv_block_queue_take(queue, call);
    if (block == NULL)
        return xv_disk_fail_taking(call, error);
    uint64_t stop = xv_disk_piece_end(offset, end, block->capacity);
    block->offset = offset;
    block->length = (uint32_t)(stop - offset);
    block->owner = owner;
    int rc = disk->ops->read(disk, offset, block->data, block->length, call, error);
    if (rc != 0) {
        xv_block_queue_release(queue, block);
        return rc;
    }
    xv_block_queue_push(queue, block);
    *next = stop;
    return 0;
}

static int stream_by_reading(struct xv_disk *disk, const struct xv_extents *ranges,
                             struct xv_block_queue *queue, void *owner, const struct xv_call *call,
                             xvsa_error **error)
{
    for (size_t i = 0; i < ranges->count; i++) {
        uint64_t offset = ranges->ranges[i].offset;
        uint64_t end = offset + ranges->ranges[i].length;
        while (offset < end) {
            int rc = read_block(disk, offset, end, queue, owner, call, &offset, error);
            if (rc != 0)
                return rc;
        }
    }
    return 0;
}

int xv_disk_stream(struct xv_disk *disk, const struct xv_extents *ranges,
                   struct xv_block_queue *queue, void *owner, const struct xv_call *call,
                   xvsa_error **error)
{
    if (ranges->count > 0) {
        /* The set is sorted: when the last range is inside, all are. */
        const struct xv_range *last = &ranges->ranges[ranges->count - 1];
        int rc = check_range(disk, last->offset, last->length, error);
        if (rc != 0)
            return rc;
    }
    if (disk->ops->stream == NULL)
        return stream_by_reading(disk, ranges, queue, owner, call, error);
    return disk->ops->stream(disk, ranges, queue, owner, call, error);
}

int xv_disk_write(struct xv_disk *disk, struct xv_block_queue *queue, const struct xv_call *call,
                  xvsa_error **error)
{
    if (disk->ops->write == NULL)
        return xv_fail(error, XVSA_ERR_UNSUPPORTED, COMPONENT,
                       "a disk of transport %s cannot be written", disk->ops->transport);
    return disk->ops->write(disk, queue, call, error);
}

void xv_disk_close(struct xv_disk *disk)
{
    if (disk != NULL)
        disk->ops->close(disk);
}
