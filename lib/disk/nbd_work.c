/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Cuts ranges into blocks and blocks into requests, and hands on the blocks whose last request was
 * answered.
 */
#include "disk/nbd_transfer.h"

static uint64_t round_up(uint64_t offset)
{
    return offset + (XV_NBD_SECTOR - offset % XV_NBD_SECTOR) % XV_NBD_SECTOR;
}

static bool all_cut(const struct xv_nbd_transfer *t)
{
    return t->range == t->ranges->count;
}

bool xv_nbd_work_waits(const struct xv_nbd_transfer *t)
{
    return t->again != NULL || t->cutting != NULL || !all_cut(t);
}

static struct xv_block *take_block(struct xv_nbd_transfer *t)
{
    struct xv_block *block = t->target;
    if (t->queue != NULL)
        block = xv_block_queue_try_take(t->queue);
    t->target = NULL;
    return block;
}

/* Begins the next block. Leaves t->cutting NULL when there is nothing to cut or no block is free. */
static void begin_block(struct xv_nbd_transfer *t)
{
    struct xv_block *block = take_block(t);
    if (block == NULL) {
        t->starving = true;
        return;
    }
    const struct xv_range *range = &t->ranges->ranges[t->range];
    uint64_t range_end = range->offset + range->length;
    uint64_t offset = t->next == 0 ? range->offset : t->next;
    uint64_t stop = range_end;
    if (t->queue != NULL && stop - offset > block->capacity - offset % block->capacity)
        stop = offset - offset % block->capacity + block->capacity;
    block->offset = offset;
    block->length = (uint32_t)(stop - offset);
    block->owner = t->owner;
    t->next = stop == range_end ? 0 : stop;
    if (stop == range_end)
        t->range++;
    struct xv_nbd_work *work = t->works;
    while (work->block != NULL)
        work++;
    uint64_t end = round_up(stop) < t->disk->limit ? round_up(stop) : t->disk->limit;
    *work = (struct xv_nbd_work){.block = block, .cut = offset, .end = end};
    t->cutting = work;
    t->active++;
}

struct xv_nbd_flight *xv_nbd_work_next(struct xv_nbd_transfer *t)
{
    struct xv_nbd_flight *flight = t->again;
    if (flight != NULL) {
        t->again = flight->next;
        return flight;
    }
    if (t->cutting == NULL && !all_cut(t))
        begin_block(t);
    struct xv_nbd_work *work = t->cutting;
    if (work == NULL)
        return NULL;
    flight = t->spare;
    t->spare = flight->next;
    uint64_t length = work->end - work->cut;
    if (length > t->disk->options.request_size)
        length = t->disk->options.request_size;
    *flight = (struct xv_nbd_flight){
        .transfer = t, .work = work, .offset = work->cut, .length = (uint32_t)length};
    work->cut += length;
    work->pending++;
    if (work->cut == work->end)
        t->cutting = NULL;
    return flight;
}

void xv_nbd_work_repeat(struct xv_nbd_transfer *t, struct xv_nbd_flight *flight)
{
    struct xv_nbd_flight **at = &t->again;
    while (*at != NULL && (*at)->offset < flight->offset)
        at = &(*at)->next;
    flight->slot = NULL;
    flight->next = *at;
    *at = flight;
}

static void finish(struct xv_nbd_transfer *t, struct xv_nbd_work *work)
{
    struct xv_block *block = work->block;
    work->block = NULL;
    t->active--;
    if (t->queue != NULL)
        xv_block_queue_push(t->queue, block);
}

void xv_nbd_work_done(struct xv_nbd_transfer *t, struct xv_nbd_flight *flight)
{
    struct xv_nbd_work *work = flight->work;
    flight->slot = NULL;
    flight->next = t->spare;
    t->spare = flight;
    if (--work->pending == 0 && work->cut == work->end)
        finish(t, work);
}
