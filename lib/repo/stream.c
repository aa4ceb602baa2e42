/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Reading much of a disk: the chunks of a window are sorted by where they are stored, and threads take
 * frame after frame, so that each is fetched and decoded once.
 */
#include <stdlib.h>
#include <unistd.h>

#include "repo/internal.h"

#define WINDOW_CHUNKS 4096u
#define THREADS_MAX   4u

struct want {
    struct xv_ref ref;
    uint64_t offset; /* in the disk */
    uint32_t from;   /* first byte wanted of the chunk */
    uint32_t length;
    uint32_t extent; /* bytes of the disk that the chunk covers */
};

struct stream {
    const struct xv_disk_source *source;
    struct xv_block_queue *queue;
    void *owner;
    const struct xv_call *call;
    uint32_t chunk_size;
    struct want *wants; /* WINDOW_CHUNKS */
    uint32_t count;
    pthread_mutex_t lock; /* guards what follows */
    uint32_t next;
    xvsa_error *failure; /* the first */
};

/* One thread's way to blocks. */
struct filler {
    struct stream *stream;
    struct xv_frame_opener *opener;
    struct xv_fetch fetch;
    struct xv_block *block; /* under way */
    pthread_t thread;
};

static int compare_wants(const void *a, const void *b)
{
    const struct want *x = a;
    const struct want *y = b;
    int order = memcmp(x->ref.at.pack, y->ref.at.pack, XV_HANDLE_BYTES);
    if (order != 0)
        return order;
    if (x->ref.at.offset != y->ref.at.offset)
        return x->ref.at.offset < y->ref.at.offset ? -1 : 1;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static void push(struct filler *filler)
{
    if (filler->block != NULL)
        xv_block_queue_push(filler->stream->queue, filler->block);
    filler->block = NULL;
}

static int take(struct filler *filler, uint64_t offset, xvsa_error **error)
{
    struct stream *stream = filler->stream;
    filler->block = xv_block_queue_take(stream->queue, stream->call);
    if (filler->block == NULL) {
        int rc = xv_call_check(stream->call, "repo", "waiting for a free block", error);
        return rc != 0
                   ? rc
                   : xv_fail(error, XVSA_ERR_CANCELLED, "repo", "whoever took the blocks stopped");
    }
    filler->block->owner = stream->owner;
    filler->block->offset = offset;
    filler->block->length = 0;
    return 0;
}

/* Adds bytes (NULL: zeros) to the block at hand, or to new ones. */
static int emit(struct filler *filler, uint64_t offset, const uint8_t *bytes, uint64_t length,
                xvsa_error **error)
{
    while (length > 0) {
        struct xv_block *block = filler->block;
        if (block != NULL &&
            (block->offset + block->length != offset || block->length == block->capacity))
            push(filler);
        if (filler->block == NULL) {
            int rc = take(filler, offset, error);
            if (rc != 0)
                return rc;
        }
        block = filler->block;
        uint32_t room = block->capacity - block->length;
        uint32_t piece = length < room ? (uint32_t)length : room;
        if (bytes != NULL)
            memcpy(block->data + block->length, bytes, piece);
        else
            memset(block->data + block->length, 0, piece);
        block->length += piece;
        offset += piece;
        length -= piece;
        bytes = bytes == NULL ? NULL : bytes + piece;
    }
    return 0;
}

static int fill(struct filler *filler, const struct want *want, xvsa_error **error)
{
    struct stream *stream = filler->stream;
    const uint8_t *bytes;
    uint32_t have;
    int rc = xv_fetch_ref(stream->source->repo, filler->opener, false, &want->ref, &filler->fetch,
                          &bytes, &have, stream->call, error);
    if (rc == 0 && have > want->extent)
        rc = xv_fault(error, filler->fetch.object, "a chunk is longer than its place");
    if (rc != 0)
        return rc;
    uint32_t piece = want->from >= have ? 0 : have - want->from;
    if (piece > want->length)
        piece = want->length;
    rc = emit(filler, want->offset, bytes + want->from, piece, error);
    if (rc == 0 && piece < want->length)
        rc = emit(filler, want->offset + piece, NULL, want->length - piece, error);
    return rc;
}

/* The wants of the next frame; false when there is none or somebody failed. */
static bool next_group(struct stream *stream, uint32_t *ret_first, uint32_t *ret_end)
{
    pthread_mutex_lock(&stream->lock);
    uint32_t first = stream->next;
    uint32_t end = first;
    bool more = stream->failure == NULL && first < stream->count;
    while (more && end < stream->count &&
           stream->wants[end].ref.at.offset == stream->wants[first].ref.at.offset &&
           memcmp(stream->wants[end].ref.at.pack, stream->wants[first].ref.at.pack,
                  XV_HANDLE_BYTES) == 0)
        end++;
    stream->next = end;
    pthread_mutex_unlock(&stream->lock);
    *ret_first = first;
    *ret_end = end;
    return more;
}

static void keep_failure(struct stream *stream, xvsa_error *failure)
{
    pthread_mutex_lock(&stream->lock);
    if (stream->failure == NULL)
        stream->failure = failure;
    else
        xvsa_error_unref(failure);
    pthread_mutex_unlock(&stream->lock);
}

static void *run_filler(void *argument)
{
    struct filler *filler = argument;
    struct stream *stream = filler->stream;
    uint32_t first, end;
    xvsa_error *error = NULL;
    int rc = 0;
    while (rc == 0 && next_group(stream, &first, &end)) {
        rc = xv_call_check(stream->call, "repo", "reading a disk", &error);
        for (uint32_t i = first; rc == 0 && i < end; i++)
            rc = fill(filler, &stream->wants[i], &error);
        /* The next group is elsewhere in the disk, or the block would grow on. */
        if (rc == 0)
            push(filler);
    }
    if (filler->block != NULL)
        xv_block_queue_release(stream->queue, filler->block);
    filler->block = NULL;
    if (rc != 0)
        keep_failure(stream, error);
    return NULL;
}

static uint32_t thread_count(const struct stream *stream)
{
    const struct xv_env *env = stream->source->repo->env;
    long count = env != NULL && env->worker_threads > 0 ? (long)env->worker_threads
                                                        : sysconf(_SC_NPROCESSORS_ONLN);
    return count < 1 ? 1 : count > (long)THREADS_MAX ? THREADS_MAX : (uint32_t)count;
}

/* Reads all wants of the window. The calling thread is one of the fillers. */
static int read_window(struct stream *stream, struct filler *fillers, uint32_t count,
                       xvsa_error **error)
{
    qsort(stream->wants, stream->count, sizeof *stream->wants, compare_wants);
    stream->next = 0;
    uint32_t started = 1;
    while (started < count && stream->count > 1 &&
           pthread_create(&fillers[started].thread, NULL, run_filler, &fillers[started]) == 0)
        started++;
    run_filler(&fillers[0]);
    for (uint32_t i = 1; i < started; i++)
        pthread_join(fillers[i].thread, NULL);
    stream->count = 0;
    if (stream->failure == NULL)
        return 0;
    int rc = (int)xvsa_error_code(stream->failure);
    if (error != NULL)
        *error = stream->failure;
    else
        xvsa_error_unref(stream->failure);
    stream->failure = NULL;
    return rc;
}

static int add_want(struct stream *stream, const struct xv_run *run, uint64_t from, uint64_t to)
{
    uint64_t begins = run->first * stream->chunk_size;
    uint64_t left = stream->source->size - begins;
    stream->wants[stream->count++] =
        (struct want){.ref = run->ref,
                      .offset = from,
                      .from = (uint32_t)(from - begins),
                      .length = (uint32_t)(to - from),
                      .extent = left < stream->chunk_size ? (uint32_t)left : stream->chunk_size};
    return stream->count == WINDOW_CHUNKS;
}

static int stream_range(struct stream *stream, struct filler *fillers, uint32_t threads,
                        struct xv_run *run, const struct xv_range *range, xvsa_error **error)
{
    uint64_t end = range->offset + range->length;
    uint64_t last = xv_disk_chunks(end, stream->chunk_size);
    bool more;
    xv_run_begin(run, stream->source->tree,
                 xv_disk_chunks(stream->source->size, stream->chunk_size),
                 range->offset / stream->chunk_size);
    int rc = xv_run_next(run, last, &more, stream->call, error);
    while (rc == 0 && more) {
        uint64_t from = run->first * stream->chunk_size;
        uint64_t to = (run->first + run->count) * stream->chunk_size;
        from = from > range->offset ? from : range->offset;
        to = to < end ? to : end;
        if (run->kind != XV_KIND_DATA) {
            rc = emit(&fillers[0], from, NULL, to - from, error);
            if (rc == 0)
                push(&fillers[0]);
        } else if (add_want(stream, run, from, to)) {
            rc = read_window(stream, fillers, threads, error);
        }
        if (rc == 0)
            rc = xv_run_next(run, last, &more, stream->call, error);
    }
    return rc;
}

static int stream_all(struct stream *stream, struct filler *fillers, uint32_t threads,
                      const struct xv_extents *ranges, xvsa_error **error)
{
    struct xv_run *run = malloc(sizeof *run);
    if (run == NULL)
        return xv_fail_memory(error);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < ranges->count; i++) {
        const struct xv_range *range = &ranges->ranges[i];
        if (range->offset > stream->source->size ||
            range->length > stream->source->size - range->offset)
            rc = xv_fail(error, XVSA_ERR_INVALID, "repo", "a range is beyond the disk's end");
        else
            rc = stream_range(stream, fillers, threads, run, range, error);
    }
    if (rc == 0 && stream->count > 0)
        rc = read_window(stream, fillers, threads, error);
    if (fillers[0].block != NULL)
        xv_block_queue_release(stream->queue, fillers[0].block);
    free(run);
    return rc;
}

int xv_stream_ranges(const struct xv_disk_source *source, const struct xv_extents *ranges,
                     struct xv_block_queue *queue, void *owner, const struct xv_call *call,
                     xvsa_error **error)
{
    struct stream stream = {.source = source,
                            .queue = queue,
                            .owner = owner,
                            .call = call,
                            .chunk_size = xv_repo_chunk_size(source->repo)};
    struct filler fillers[THREADS_MAX] = {0};
    uint32_t threads = thread_count(&stream);
    pthread_mutex_init(&stream.lock, NULL);
    stream.wants = calloc(WINDOW_CHUNKS, sizeof *stream.wants);
    int rc = stream.wants == NULL ? xv_fail_memory(error) : 0;
    for (uint32_t i = 0; rc == 0 && i < threads; i++) {
        fillers[i].stream = &stream;
        rc = xv_frame_opener_new(source->repo->crypt, &fillers[i].opener, error);
    }
    if (rc == 0)
        rc = stream_all(&stream, fillers, threads, ranges, error);
    for (uint32_t i = 0; i < threads; i++) {
        xv_frame_opener_free(fillers[i].opener);
        xv_fetch_free(&fillers[i].fetch);
    }
    free(stream.wants);
    pthread_mutex_destroy(&stream.lock);
    return rc == 0 ? 0 : xv_fault_disk(error, rc, source->point, source->disk);
}
