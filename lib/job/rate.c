/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Whoever comes while the bucket holds something takes what it needs, be it more than is there; the next one
 * waits until the debt is paid. So pieces may be larger than the bucket, and the rate holds.
 */
#include "job/rate.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "base/thread.h"
#include "sched/window.h"

/* What may be saved up while nobody takes. */
#define SAVED_MS 250
/* How soon a waiting thread notices that its token fired. */
#define WAIT_MS 100
/* Between pieces of a stream: about so much time, within these bounds. */
#define PIECE_MS    250
#define PIECE_LEAST (1ull << 20)
#define PIECE_MOST  (64ull << 20)

struct xv_rate {
    atomic_uint references;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    uint64_t limit;   /* bytes per second */
    double saved;     /* bytes; below 0: debt */
    int64_t at_ms;    /* of saved; xv_clock_ms */
    uint64_t taken;   /* since asked_ms */
    int64_t asked_ms; /* of the last question for the demand */
    bool waited;      /* since then */
};

int xv_rate_new(struct xv_rate **ret, xvsa_error **error)
{
    struct xv_rate *rate = calloc(1, sizeof *rate);
    if (rate == NULL)
        return xv_fail_memory(error);
    atomic_init(&rate->references, 1);
    pthread_mutex_init(&rate->lock, NULL);
    xv_condition_init(&rate->changed);
    rate->limit = XV_RATE_UNLIMITED;
    rate->at_ms = rate->asked_ms = xv_clock_ms();
    *ret = rate;
    return 0;
}

struct xv_rate *xv_rate_ref(struct xv_rate *rate)
{
    if (rate != NULL)
        atomic_fetch_add(&rate->references, 1);
    return rate;
}

void xv_rate_unref(struct xv_rate *rate)
{
    if (rate == NULL || atomic_fetch_sub(&rate->references, 1) != 1)
        return;
    pthread_cond_destroy(&rate->changed);
    pthread_mutex_destroy(&rate->lock);
    free(rate);
}

/* The caller holds the lock. */
static void refill(struct xv_rate *rate)
{
    int64_t now = xv_clock_ms();
    double most = (double)rate->limit * SAVED_MS / 1000;
    rate->saved += (double)rate->limit * (double)(now - rate->at_ms) / 1000;
    rate->saved = rate->saved > most ? most : rate->saved;
    rate->at_ms = now;
}

void xv_rate_set(struct xv_rate *rate, uint64_t bytes_per_second)
{
    pthread_mutex_lock(&rate->lock);
    if (bytes_per_second != rate->limit) {
        if (rate->limit == XV_RATE_UNLIMITED) {
            rate->saved = 0;
            rate->at_ms = xv_clock_ms();
        } else {
            refill(rate);
        }
        rate->limit = bytes_per_second;
        pthread_cond_broadcast(&rate->changed);
    }
    pthread_mutex_unlock(&rate->lock);
}

/* The caller holds the lock. */
static bool try_take(struct xv_rate *rate, uint64_t bytes)
{
    if (rate->limit != XV_RATE_UNLIMITED) {
        refill(rate);
        if (rate->saved < 0 || rate->limit == 0)
            return false;
        rate->saved -= (double)bytes;
    }
    rate->taken += bytes;
    return true;
}

/* Until the debt is paid, in steps. */
static int64_t wait_ms(const struct xv_rate *rate)
{
    if (rate->limit == 0)
        return WAIT_MS;
    double ms = -rate->saved * 1000 / (double)rate->limit + 1;
    return ms > WAIT_MS ? WAIT_MS : (int64_t)ms;
}

int xv_rate_take(struct xv_rate *rate, uint64_t bytes, const struct xv_call *call,
                 xvsa_error **error)
{
    int rc = 0;
    if (rate == NULL)
        return 0;
    pthread_mutex_lock(&rate->lock);
    while (rc == 0 && !try_take(rate, bytes)) {
        rate->waited = true;
        rc = xv_call_check(call, "job", "keeping to the job's rate", error);
        if (rc == 0)
            xv_condition_wait(&rate->changed, &rate->lock, wait_ms(rate));
    }
    pthread_mutex_unlock(&rate->lock);
    return rc;
}

uint64_t xv_rate_demand(struct xv_rate *rate)
{
    pthread_mutex_lock(&rate->lock);
    int64_t now = xv_clock_ms();
    int64_t ms = now > rate->asked_ms ? now - rate->asked_ms : 1;
    uint64_t demand = rate->waited ? XV_RATE_UNLIMITED : rate->taken * 1000 / (uint64_t)ms;
    rate->taken = 0;
    rate->waited = false;
    rate->asked_ms = now;
    pthread_mutex_unlock(&rate->lock);
    return demand;
}

/* ---- streams ---- */

/* Bytes of a piece: a multiple of the blocks of the queue, at which ranges may be cut. */
static uint64_t piece_bytes(struct xv_rate *rate, uint32_t block)
{
    pthread_mutex_lock(&rate->lock);
    uint64_t bytes = rate->limit == XV_RATE_UNLIMITED ? PIECE_MOST : rate->limit / 1000 * PIECE_MS;
    pthread_mutex_unlock(&rate->lock);
    bytes = bytes < PIECE_LEAST ? PIECE_LEAST : bytes > PIECE_MOST ? PIECE_MOST : bytes;
    return bytes < block ? block : bytes - bytes % block;
}

/* The part of the ranges from *index and *offset on; 0 bytes at the end. */
static int next_piece(const struct xv_extents *ranges, size_t *index, uint64_t *offset,
                      uint64_t most, uint32_t block, struct xv_extents *ret, xvsa_error **error)
{
    uint64_t bytes = 0;
    int rc = 0;
    while (rc == 0 && bytes < most && *index < ranges->count) {
        const struct xv_range *range = &ranges->ranges[*index];
        uint64_t begin = *offset > range->offset ? *offset : range->offset;
        uint64_t end = range->offset + range->length;
        uint64_t cut = (begin + most - bytes) / block * block;
        if (cut < end && cut > begin)
            end = cut;
        else if (cut <= begin && bytes > 0)
            break;
        rc = xv_extents_add(ret, begin, end - begin, error);
        bytes += end - begin;
        *offset = end;
        if (end == range->offset + range->length)
            ++*index;
    }
    return rc;
}

int xv_rate_stream(struct xv_rate *rate, struct xv_disk *disk, const struct xv_extents *ranges,
                   struct xv_block_queue *queue, void *owner, const struct xv_call *call,
                   xvsa_error **error)
{
    uint32_t block = xv_block_queue_capacity(queue);
    size_t index = 0;
    uint64_t offset = 0;
    int rc = 0;
    if (rate == NULL)
        return xv_disk_stream(disk, ranges, queue, owner, call, error);
    while (rc == 0 && index < ranges->count) {
        struct xv_extents piece;
        xv_extents_init(&piece);
        rc = next_piece(ranges, &index, &offset, piece_bytes(rate, block), block, &piece, error);
        if (rc == 0)
            rc = xv_rate_take(rate, xv_extents_bytes(&piece), call, error);
        if (rc == 0)
            rc = xv_disk_stream(disk, &piece, queue, owner, call, error);
        xv_extents_free(&piece);
    }
    return rc;
}
