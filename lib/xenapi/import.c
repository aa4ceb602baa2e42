/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Writing a disk through PUT /import_raw_vdi?chunked: records of offset, length and data, ended by an
 * empty one. The length of the whole is announced beforehand, hence records are cut at fixed places of
 * the disk, multiples of the block size, however the blocks come.
 */
#include <string.h>

#include "xenapi/transfer.h"

#define RECORD_HEADER 12
#define WHAT          "VDI import" /* in the name of the task */

struct feed {
    const struct xv_extents *data;
    struct xv_block_queue *queue;
    const struct xv_call *call;
    uint32_t block_size;
    struct xv_block *block; /* under way */
    uint32_t at;            /* next byte of block */
    uint32_t record_left;   /* data bytes of the present record */
    unsigned char header[RECORD_HEADER];
    uint32_t header_left;
    uint64_t records_left;
    bool ended; /* the empty record is on its way */
};

static void put_header(struct feed *feed, uint64_t offset, uint32_t length)
{
    for (unsigned i = 0; i < 8; i++)
        feed->header[i] = (unsigned char)(offset >> 8 * i);
    for (unsigned i = 0; i < 4; i++)
        feed->header[8 + i] = (unsigned char)(length >> 8 * i);
    feed->header_left = RECORD_HEADER;
}

/* True when [offset, offset + length) is a part of what was announced. */
static bool is_announced(const struct xv_extents *data, uint64_t offset, uint64_t length)
{
    size_t low = 0;
    size_t high = data->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        const struct xv_range *range = &data->ranges[middle];
        if (range->offset + range->length <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low < data->count && data->ranges[low].offset <= offset &&
           offset + length <= data->ranges[low].offset + data->ranges[low].length;
}

static void drop_block(struct feed *feed)
{
    if (feed->block != NULL)
        xv_block_queue_release(feed->queue, feed->block);
    feed->block = NULL;
}

static int next_block(struct feed *feed, xvsa_error **error)
{
    drop_block(feed);
    feed->block = xv_block_queue_pop(feed->queue, feed->call);
    feed->at = 0;
    int rc = feed->block != NULL
                 ? 0
                 : xv_call_check(feed->call, XV_COMPONENT, "waiting for the data of a disk", error);
    if (rc != 0)
        return rc;
    if (feed->block == NULL)
        return xv_fail(error, XVSA_ERR_CANCELLED, XV_COMPONENT,
                       "the data of the disk ended %llu parts too early",
                       (unsigned long long)feed->records_left);
    if (!is_announced(feed->data, feed->block->offset, feed->block->length))
        return xv_fail(error, XVSA_ERR_INTERNAL, XV_COMPONENT,
                       "a block at %llu is not part of the announced data",
                       (unsigned long long)feed->block->offset);
    return 0;
}

static int next_record(struct feed *feed, xvsa_error **error)
{
    if (feed->records_left == 0) {
        drop_block(feed);
        put_header(feed, 0, 0);
        feed->ended = true;
        return 0;
    }
    if (feed->block == NULL || feed->at == feed->block->length) {
        int rc = next_block(feed, error);
        if (rc != 0)
            return rc;
    }
    uint64_t offset = feed->block->offset + feed->at;
    uint64_t left = feed->block->length - feed->at;
    uint64_t room = feed->block_size - offset % feed->block_size;
    feed->record_left = (uint32_t)(room < left ? room : left);
    feed->records_left--;
    put_header(feed, offset, feed->record_left);
    return 0;
}

/* A block that does not begin and end at multiples of the block size or at bounds of the data makes more
 * records than were announced; the last one then finds none left and bytes are missing at the end. */
static int produce(void *user, void *data, size_t room, size_t *ret_length, xvsa_error **error)
{
    struct feed *feed = user;
    unsigned char *output = data;
    size_t length = 0;
    while (length < room) {
        size_t free_room = room - length;
        if (feed->header_left > 0) {
            size_t part = feed->header_left < free_room ? feed->header_left : free_room;
            memcpy(output + length, feed->header + RECORD_HEADER - feed->header_left, part);
            feed->header_left -= (uint32_t)part;
            length += part;
        } else if (feed->record_left > 0) {
            size_t part = feed->record_left < free_room ? feed->record_left : free_room;
            memcpy(output + length, feed->block->data + feed->at, part);
            feed->at += (uint32_t)part;
            feed->record_left -= (uint32_t)part;
            length += part;
        } else if (feed->ended) {
            break;
        } else {
            /* The next block may take its time: what is there goes out first. */
            bool waits = feed->block == NULL || feed->at == feed->block->length;
            if (length > 0 && waits && feed->records_left > 0)
                break;
            int rc = next_record(feed, error);
            if (rc != 0)
                return rc;
        }
    }
    *ret_length = length;
    return 0;
}

static int measure(struct feed *feed, uint64_t *ret, xvsa_error **error)
{
    uint64_t bytes = 0;
    if (feed->block_size == 0 || feed->block_size % 512 != 0)
        return xv_fail(error, XVSA_ERR_INVALID, XV_COMPONENT,
                       "the block size must be a multiple of 512");
    for (size_t i = 0; i < feed->data->count; i++) {
        const struct xv_range *range = &feed->data->ranges[i];
        uint64_t first = range->offset / feed->block_size;
        uint64_t last = (range->offset + range->length - 1) / feed->block_size;
        feed->records_left += last - first + 1;
        bytes += range->length;
    }
    *ret = bytes + RECORD_HEADER * (feed->records_left + 1);
    return 0;
}

int xv_vdi_import(struct xv_client *client, const struct xv_host *host, const char *vdi_ref,
                  const struct xv_extents *data, uint32_t block_size, struct xv_block_queue *queue,
                  const struct xv_call *call, xvsa_error **error)
{
    struct feed feed = {.data = data, .queue = queue, .call = call, .block_size = block_size};
    struct xv_transfer transfer;
    struct xv_url url;
    uint64_t length = 0;
    if (host == NULL)
        return xv_fail(error, XVSA_ERR_INVALID, XV_COMPONENT,
                       "no host to import the disk %s through", vdi_ref);
    int rc = measure(&feed, &length, error);
    if (rc != 0)
        return rc;
    xv_client_member_url(client, host->address, &url);
    struct xv_transfer_spec spec = {
        .method = "PUT",
        .path = "/import_raw_vdi",
        .options = "&format=raw&chunked=true",
        .vdi_ref = vdi_ref,
        .what = WHAT,
        .url = &url,
        .produce = produce,
        .user = &feed,
        .upload_length = length,
    };
    rc = xv_transfer_begin(client, &spec, call, &transfer, error);
    drop_block(&feed);
    return rc != 0 ? rc : xv_transfer_finish(&transfer, error);
}

void xv_vdi_stop_imports(struct xv_client *client, const char *vdi_ref, const struct xv_call *call)
{
    if (xv_task_abandon_all(client, WHAT, vdi_ref, call))
        xv_log(client->env, XVSA_LOG_INFO, XV_COMPONENT, "transfers into the disk %s were ended",
               vdi_ref);
    xv_vdi_detach_stale(client, vdi_ref, call);
}
