/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/transfer.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/thread.h"

#define BLOCKS_LEAST 16u
#define BLOCKS_MOST  256u

/* A disk's part of the stream: what its blocks have as owner. A feed that failed stays listed until the
 * pipeline goes, for blocks of it may wait in the queue. */
struct feed {
    struct feed *next;
    struct xv_intake *intake;
    struct xv_disk_writer *writer;
    uint64_t expected;        /* bytes */
    uint64_t done;            /* bytes, discarded ones included */
    struct xv_extents *moved; /* what went through; NULL: nobody wants to know */
    /* Of a disk that is read in one piece: how fast its blocks may come. */
    struct xv_rate *rate;
    const struct xv_call *call;
    unsigned active; /* workers that use the writer now */
    bool stopped;
    int rc;
    xvsa_error *error;
};

struct xv_intake {
    struct xv_pipeline *pipeline;
    struct xv_session *session;
    xvsa_cancel *cancel;
    struct seat *seats; /* one for each worker */
};

/* A worker's packer in a session, made by the worker. */
struct seat {
    pthread_mutex_t lock; /* guards packer: the worker's, and whoever's that flushes */
    struct xv_packer *packer;
};

struct worker {
    struct xv_pipeline *pipeline;
    pthread_t thread;
    uint32_t index;
};

struct xv_pipeline {
    struct xv_block_queue *queue;
    struct worker *workers;
    uint32_t count;
    atomic_uint_fast64_t *done;
    atomic_uint_fast64_t idle_ns, cpu_ns, put_ns, paused_ns;
    pthread_mutex_t lock; /* guards the feeds, failed and paused */
    pthread_cond_t changed;
    bool paused;
    struct feed *failed;
};

static uint64_t read_clock(clockid_t id)
{
    struct timespec now;
    clock_gettime(id, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static bool enter(struct xv_pipeline *pipeline, struct feed *feed)
{
    pthread_mutex_lock(&pipeline->lock);
    bool go = !feed->stopped;
    if (go)
        feed->active++;
    pthread_mutex_unlock(&pipeline->lock);
    return go;
}

static void leave(struct xv_pipeline *pipeline, struct feed *feed, const struct xv_range *range,
                  bool entered, int rc, xvsa_error *error)
{
    xvsa_cancel *cancel = NULL;
    pthread_mutex_lock(&pipeline->lock);
    if (entered)
        feed->active--;
    feed->done += range->length;
    if (entered && rc == 0 && feed->moved != NULL)
        rc = xv_extents_add(feed->moved, range->offset, range->length, &error);
    if (rc != 0 && feed->rc == 0) {
        feed->rc = rc;
        feed->error = error;
        error = NULL;
        feed->stopped = true;
        cancel = feed->intake->cancel;
    }
    if (feed->done >= feed->expected || feed->stopped)
        pthread_cond_broadcast(&pipeline->changed);
    pthread_mutex_unlock(&pipeline->lock);
    xvsa_error_unref(error);
    xvsa_cancel_fire(cancel);
}

static int put_block(struct worker *worker, struct feed *feed, const struct xv_block *block,
                     xvsa_error **error)
{
    struct xv_intake *intake = feed->intake;
    struct seat *seat = &intake->seats[worker->index];
    const struct xv_call call = {.cancel = intake->cancel};
    int rc = 0;
    pthread_mutex_lock(&seat->lock);
    if (seat->packer == NULL)
        rc = xv_packer_new(intake->session, &seat->packer, error);
    if (rc == 0)
        rc = xv_packer_put(seat->packer, feed->writer, block->offset, block->data, block->length,
                           &call, error);
    pthread_mutex_unlock(&seat->lock);
    return rc;
}

/* Readers of a paused pipeline stop by themselves once no block is free. */
static void await_resume(struct xv_pipeline *pipeline)
{
    pthread_mutex_lock(&pipeline->lock);
    while (pipeline->paused)
        pthread_cond_wait(&pipeline->changed, &pipeline->lock);
    pthread_mutex_unlock(&pipeline->lock);
}

static void *work(void *argument)
{
    struct worker *worker = argument;
    struct xv_pipeline *pipeline = worker->pipeline;
    uint64_t before = read_clock(CLOCK_MONOTONIC);
    struct xv_block *block;
    while ((block = xv_block_queue_pop(pipeline->queue, NULL)) != NULL) {
        struct feed *feed = block->owner;
        uint64_t popped = read_clock(CLOCK_MONOTONIC);
        await_resume(pipeline);
        uint64_t start = read_clock(CLOCK_MONOTONIC);
        uint64_t cpu = read_clock(CLOCK_THREAD_CPUTIME_ID);
        xvsa_error *error = NULL;
        const struct xv_range range = {block->offset, block->length};
        bool entered = enter(pipeline, feed);
        int rc = entered ? put_block(worker, feed, block, &error) : 0;
        uint64_t end = read_clock(CLOCK_MONOTONIC);
        atomic_fetch_add(&pipeline->idle_ns, popped - before);
        atomic_fetch_add(&pipeline->paused_ns, start - popped);
        atomic_fetch_add(&pipeline->put_ns, end - start);
        atomic_fetch_add(&pipeline->cpu_ns, read_clock(CLOCK_THREAD_CPUTIME_ID) - cpu);
        if (pipeline->done != NULL)
            atomic_fetch_add(pipeline->done, range.length);
        before = end;
        xv_block_queue_release(pipeline->queue, block);
        leave(pipeline, feed, &range, entered, rc, error);
    }
    return NULL;
}

/* The stream notices a cancellation itself. */
static void hold_back(const struct xv_block *block)
{
    const struct feed *feed = block->owner;
    int rc = xv_rate_take(feed->rate, block->length, feed->call, NULL);
    (void)rc;
}

static int start_workers(struct xv_pipeline *pipeline, uint32_t threads, xvsa_error **error)
{
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < threads; i++) {
        struct worker *worker = &pipeline->workers[i];
        *worker = (struct worker){.pipeline = pipeline, .index = i};
        rc = xv_thread_start("xvsa-worker", false, work, worker, &worker->thread, error);
        if (rc == 0)
            pipeline->count = i + 1;
    }
    return rc;
}

int xv_pipeline_new(uint32_t threads, uint64_t memory, uint32_t block_size,
                    atomic_uint_fast64_t *done, struct xv_pipeline **ret, xvsa_error **error)
{
    struct xv_pipeline *pipeline = calloc(1, sizeof *pipeline);
    if (pipeline == NULL)
        return xv_fail_memory(error);
    pthread_mutex_init(&pipeline->lock, NULL);
    xv_condition_init(&pipeline->changed);
    pipeline->done = done;
    uint64_t blocks = memory / block_size;
    blocks = blocks < BLOCKS_LEAST ? BLOCKS_LEAST : blocks > BLOCKS_MOST ? BLOCKS_MOST : blocks;
    threads = threads == 0 ? 1 : threads;
    pipeline->workers = calloc(threads, sizeof *pipeline->workers);
    int rc = pipeline->workers == NULL ? xv_fail_memory(error) : 0;
    if (rc == 0)
        rc = xv_block_queue_new((uint32_t)blocks, block_size, &pipeline->queue, error);
    if (rc == 0)
        xv_block_queue_set_gate(pipeline->queue, hold_back);
    if (rc == 0)
        rc = start_workers(pipeline, threads, error);
    if (rc != 0) {
        xv_pipeline_free(pipeline);
        return rc;
    }
    *ret = pipeline;
    return 0;
}

void xv_pipeline_free(struct xv_pipeline *pipeline)
{
    if (pipeline == NULL)
        return;
    xv_pipeline_pause(pipeline, false);
    if (pipeline->queue != NULL)
        xv_block_queue_close(pipeline->queue);
    for (uint32_t i = 0; i < pipeline->count; i++)
        pthread_join(pipeline->workers[i].thread, NULL);
    if (pipeline->queue != NULL)
        xv_block_queue_free(pipeline->queue);
    while (pipeline->failed != NULL) {
        struct feed *next = pipeline->failed->next;
        free(pipeline->failed);
        pipeline->failed = next;
    }
    free(pipeline->workers);
    pthread_cond_destroy(&pipeline->changed);
    pthread_mutex_destroy(&pipeline->lock);
    free(pipeline);
}

void xv_pipeline_shares(const struct xv_pipeline *pipeline, struct xv_shares *ret)
{
    struct xv_pipeline *p = (struct xv_pipeline *)(uintptr_t)pipeline;
    uint64_t put = atomic_load(&p->put_ns);
    uint64_t cpu = atomic_load(&p->cpu_ns);
    *ret = (struct xv_shares){atomic_load(&p->idle_ns), cpu, put > cpu ? put - cpu : 0,
                              atomic_load(&p->paused_ns)};
}

void xv_pipeline_pause(struct xv_pipeline *pipeline, bool paused)
{
    pthread_mutex_lock(&pipeline->lock);
    pipeline->paused = paused;
    pthread_cond_broadcast(&pipeline->changed);
    pthread_mutex_unlock(&pipeline->lock);
}

int xv_intake_new(struct xv_pipeline *pipeline, struct xv_session *session, xvsa_cancel *cancel,
                  struct xv_intake **ret, xvsa_error **error)
{
    struct xv_intake *intake = calloc(1, sizeof *intake);
    struct seat *seats = calloc(pipeline->count, sizeof *seats);
    if (intake == NULL || seats == NULL) {
        free(intake);
        free(seats);
        return xv_fail_memory(error);
    }
    for (uint32_t i = 0; i < pipeline->count; i++)
        pthread_mutex_init(&seats[i].lock, NULL);
    *intake = (struct xv_intake){pipeline, session, cancel, seats};
    *ret = intake;
    return 0;
}

/* Waits until the feed's blocks went through, or until no worker uses its writer after a failure. */
static void settle(struct xv_pipeline *pipeline, struct feed *feed, bool give_up)
{
    pthread_mutex_lock(&pipeline->lock);
    if (give_up)
        feed->stopped = true;
    while (feed->stopped ? feed->active > 0 : feed->done < feed->expected)
        pthread_cond_wait(&pipeline->changed, &pipeline->lock);
    pthread_mutex_unlock(&pipeline->lock);
}

/* Frees the feed, or keeps it for the blocks that may still wait in the queue. */
static void retire(struct xv_pipeline *pipeline, struct feed *feed)
{
    if (!feed->stopped) {
        free(feed);
        return;
    }
    pthread_mutex_lock(&pipeline->lock);
    feed->next = pipeline->failed;
    pipeline->failed = feed;
    pthread_mutex_unlock(&pipeline->lock);
}

int xv_intake_move(struct xv_intake *intake, struct xv_disk *disk, const struct xv_extents *ranges,
                   struct xv_disk_writer *writer, struct xv_extents *moved, struct xv_rate *rate,
                   const struct xv_call *call, xvsa_error **error)
{
    struct xv_pipeline *pipeline = intake->pipeline;
    struct feed *feed = calloc(1, sizeof *feed);
    if (feed == NULL)
        return xv_fail_memory(error);
    feed->intake = intake;
    feed->writer = writer;
    feed->moved = moved;
    feed->expected = xv_extents_bytes(ranges);
    xvsa_error *failure = NULL;
    bool whole = strcmp(disk->ops->transport, "http") == 0;
    if (whole) {
        feed->rate = rate;
        feed->call = call;
    }
    int rc =
        xv_rate_stream(whole ? NULL : rate, disk, ranges, pipeline->queue, feed, call, &failure);
    settle(pipeline, feed, rc != 0);
    /* A failure to store comes first: it is what stopped the reader. */
    if (feed->rc != 0) {
        rc = feed->rc;
        xvsa_error_unref(failure);
        failure = feed->error;
    }
    if (rc != 0 && error != NULL)
        *error = failure;
    else
        xvsa_error_unref(failure);
    feed->error = NULL;
    feed->moved = NULL;
    retire(pipeline, feed);
    return rc;
}

int xv_intake_flush(struct xv_intake *intake, const struct xv_call *call, xvsa_error **error)
{
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < intake->pipeline->count; i++) {
        struct seat *seat = &intake->seats[i];
        pthread_mutex_lock(&seat->lock);
        if (seat->packer != NULL)
            rc = xv_packer_flush(seat->packer, call, error);
        pthread_mutex_unlock(&seat->lock);
    }
    return rc;
}

void xv_intake_free(struct xv_intake *intake)
{
    if (intake == NULL)
        return;
    for (uint32_t i = 0; i < intake->pipeline->count; i++) {
        xv_packer_free(intake->seats[i].packer);
        pthread_mutex_destroy(&intake->seats[i].lock);
    }
    free(intake->seats);
    free(intake);
}
