/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Packs under construction. A thread reserves room in the open pack, then seals its frame into it
 * without holding a lock; a full pack goes to the uploaders once all reservations were filled.
 */
#include <pthread.h>
#include <stdlib.h>

#include "repo/baton.h"
#include "repo/pack.h"
#include "repo/pack_form.h"

/* How long putting one pack may take, repetitions included. */
#define PUT_TIMEOUT_MS (15 * 60 * 1000)
#define UPLOADERS_MAX  8
/* Targets write page-aligned memory without copying it. */
#define PAGE_BYTES 4096u

struct pack {
    struct pack *next; /* in the free list or the queue */
    uint8_t *data;
    uint8_t id[XV_HANDLE_BYTES];
    uint8_t key[XV_KEY_BYTES];
    uint32_t used;  /* bytes reserved */
    uint32_t table; /* bytes of headers among them */
    uint32_t frames;
    uint32_t unfilled; /* reservations whose frame is not there yet */
    bool full;
};

struct xv_pack_writer {
    struct xv_pack_writer_options options;
    uint32_t capacity;    /* of a pack's memory */
    xvsa_cancel *cancel;  /* stops the uploaders */
    pthread_mutex_t lock; /* guards what follows; never held during input and output */
    pthread_cond_t moved;
    struct pack *open;
    struct pack *idle;
    struct pack *queue; /* full, oldest first */
    uint32_t allocated; /* packs in memory */
    uint32_t under_way; /* full ones that were not put yet, queued or being put */
    uint32_t threads;
    bool stopping;
    uint64_t bytes;
    xvsa_error *failure; /* the first; nothing is accepted after it */
    pthread_t uploaders[UPLOADERS_MAX];
};

int xv_pack_writer_new(const struct xv_pack_writer_options *options, struct xv_pack_writer **ret,
                       xvsa_error **error)
{
    struct xv_pack_writer *writer = calloc(1, sizeof *writer);
    if (writer == NULL)
        return xv_fail_memory(error);
    writer->options = *options;
    if (writer->options.uploaders > UPLOADERS_MAX)
        writer->options.uploaders = UPLOADERS_MAX;
    /* The frame that fills a pack may go beyond the target, and the table comes on top. */
    writer->capacity = (options->pack_target + options->pack_target / 2 + PAGE_BYTES - 1) /
                       PAGE_BYTES * PAGE_BYTES;
    int rc = xvsa_cancel_new(&writer->cancel, error);
    if (rc != 0) {
        free(writer);
        return rc;
    }
    pthread_mutex_init(&writer->lock, NULL);
    xv_cond_init(&writer->moved);
    *ret = writer;
    return 0;
}

static void free_pack(struct pack *pack)
{
    if (pack != NULL) {
        xv_wipe(pack->key, sizeof pack->key);
        free(pack->data);
        free(pack);
    }
}

static void free_list(struct pack *pack)
{
    while (pack != NULL) {
        struct pack *next = pack->next;
        free_pack(pack);
        pack = next;
    }
}

void xv_pack_writer_free(struct xv_pack_writer *writer)
{
    if (writer == NULL)
        return;
    xvsa_cancel_fire(writer->cancel);
    pthread_mutex_lock(&writer->lock);
    writer->stopping = true;
    pthread_cond_broadcast(&writer->moved);
    pthread_mutex_unlock(&writer->lock);
    for (uint32_t i = 0; i < writer->threads; i++)
        pthread_join(writer->uploaders[i], NULL);
    free_pack(writer->open);
    free_list(writer->idle);
    free_list(writer->queue);
    xvsa_error_unref(writer->failure);
    xvsa_cancel_unref(writer->cancel);
    pthread_cond_destroy(&writer->moved);
    pthread_mutex_destroy(&writer->lock);
    free(writer);
}

/* Copies the frames' headers into the table at the end. The frames follow each other from the head on. */
static uint32_t make_table(struct pack *pack)
{
    uint32_t length = 0;
    uint32_t at = XV_PACK_HEAD_BYTES;
    while (at < pack->used) {
        const uint8_t *header = pack->data + at;
        uint32_t header_length = xv_frame_header_length(xv_get16(header + 6));
        memcpy(pack->data + pack->used + length, header, header_length);
        length += header_length;
        at += header_length + xv_get32(header + 16);
    }
    return length;
}

static int put_pack(struct xv_pack_writer *writer, struct pack *pack, uint64_t *ret_size,
                    xvsa_error **error)
{
    const struct xv_pack_writer_options *options = &writer->options;
    char name[XV_NAME_BYTES];
    xv_pack_name(options->nodes, pack->id, name);
    uint32_t table = make_table(pack);
    uint32_t size = pack->used + table + XV_PACK_TAIL_BYTES;
    xv_pack_head_encode(options->crypt, options->nodes, options->session, options->chunk_log2, size,
                        pack->data);
    int rc =
        xv_pack_tail_encode(options->crypt, name, pack->data, pack->data + pack->used, pack->used,
                            table, pack->frames, pack->data + pack->used + table, error);
    if (rc != 0)
        return rc;
    struct xv_call unlimited = {.cancel = writer->cancel};
    struct xv_call call = xv_call_within(&unlimited, PUT_TIMEOUT_MS);
    xvsa_buffer piece = {pack->data, size};
    *ret_size = size;
    return xv_target_put(options->target, name, &piece, 1, 0, &call, error);
}

/* With the lock held. */
static void keep_failure(struct xv_pack_writer *writer, xvsa_error *failure)
{
    if (writer->failure == NULL)
        writer->failure = failure;
    else
        xvsa_error_unref(failure);
}

static void *run_uploader(void *argument)
{
    struct xv_pack_writer *writer = argument;
    pthread_mutex_lock(&writer->lock);
    for (;;) {
        while (writer->queue == NULL && !writer->stopping)
            pthread_cond_wait(&writer->moved, &writer->lock);
        if (writer->stopping)
            break;
        struct pack *pack = writer->queue;
        writer->queue = pack->next;
        bool failed = writer->failure != NULL;
        pthread_mutex_unlock(&writer->lock);
        uint64_t size = 0;
        xvsa_error *error = NULL;
        int rc = failed ? 0 : put_pack(writer, pack, &size, &error);
        xv_wipe(pack->key, sizeof pack->key);
        pthread_mutex_lock(&writer->lock);
        if (rc != 0)
            keep_failure(writer, error);
        writer->bytes += size;
        writer->under_way--;
        pack->next = writer->idle;
        writer->idle = pack;
        pthread_cond_broadcast(&writer->moved);
    }
    pthread_mutex_unlock(&writer->lock);
    return NULL;
}

/* Hands a full pack to the uploaders. With the lock held. */
static void enqueue(struct xv_pack_writer *writer, struct pack *pack)
{
    struct pack **at = &writer->queue;
    while (*at != NULL)
        at = &(*at)->next;
    pack->next = NULL;
    *at = pack;
    if (writer->threads < writer->options.uploaders && writer->threads < writer->under_way &&
        pthread_create(&writer->uploaders[writer->threads], NULL, run_uploader, writer) == 0)
        writer->threads++;
    if (writer->threads == 0) {
        xvsa_error *error = NULL;
        xv_fail(&error, XVSA_ERR_MEMORY, "repo", "cannot start a thread to store packs");
        keep_failure(writer, error);
    }
    pthread_cond_broadcast(&writer->moved);
}

/* No more frames for the open pack. With the lock held. */
static void close_open(struct xv_pack_writer *writer)
{
    struct pack *pack = writer->open;
    if (pack == NULL)
        return;
    writer->open = NULL;
    pack->full = true;
    writer->under_way++;
    if (pack->unfilled == 0)
        enqueue(writer, pack);
}

static int fail_again(struct xv_pack_writer *writer, xvsa_error **error)
{
    if (error != NULL)
        *error = xvsa_error_ref(writer->failure);
    return (int)xvsa_error_code(writer->failure);
}

static int begin_pack(struct xv_pack_writer *writer, struct pack *pack, xvsa_error **error)
{
    int rc = xv_random(pack->id, sizeof pack->id, error);
    if (rc == 0)
        rc = xv_pack_key(writer->options.crypt, pack->id, pack->key, error);
    pack->used = XV_PACK_HEAD_BYTES;
    pack->table = 0;
    pack->frames = 0;
    pack->unfilled = 0;
    pack->full = false;
    return rc;
}

/* Waits for memory and opens a pack in it. With the lock held. */
static int open_pack(struct xv_pack_writer *writer, const struct xv_call *call, xvsa_error **error)
{
    int rc = 0;
    while (rc == 0 && writer->open == NULL && writer->failure == NULL) {
        struct pack *pack = writer->idle;
        if (pack != NULL) {
            writer->idle = pack->next;
        } else if (writer->allocated < writer->options.buffers) {
            pack = calloc(1, sizeof *pack);
            if (pack != NULL)
                pack->data = aligned_alloc(PAGE_BYTES, writer->capacity);
            if (pack == NULL || pack->data == NULL) {
                free_pack(pack);
                return xv_fail_memory(error);
            }
            writer->allocated++;
        } else {
            xv_cond_nap(&writer->moved, &writer->lock);
            rc = xv_call_check(call, "repo", "waiting for packs to be stored", error);
            continue;
        }
        rc = begin_pack(writer, pack, error);
        if (rc == 0) {
            writer->open = pack;
        } else {
            pack->next = writer->idle;
            writer->idle = pack;
        }
    }
    if (rc == 0 && writer->failure != NULL)
        return fail_again(writer, error);
    return rc;
}

/* Is there room for one more frame, and for its header in the table? The first one always fits. */
static bool fits(const struct xv_pack_writer *writer, const struct pack *pack, uint32_t length,
                 uint32_t header_length)
{
    if (pack->frames == 0)
        return true;
    return pack->used + length <= writer->options.pack_target &&
           pack->used + length + pack->table + header_length + XV_PACK_TAIL_BYTES <=
               writer->capacity;
}

static int reserve(struct xv_pack_writer *writer, struct xv_frame *frame, uint32_t length,
                   struct pack **ret, const struct xv_call *call, xvsa_error **error)
{
    int rc = 0;
    uint32_t header_length = xv_frame_header_length(frame->count);
    pthread_mutex_lock(&writer->lock);
    if (writer->open != NULL && !fits(writer, writer->open, length, header_length))
        close_open(writer);
    do {
        rc = open_pack(writer, call, error);
        /* While waiting another thread may have opened one and filled it. */
        if (rc == 0 && !fits(writer, writer->open, length, header_length))
            close_open(writer);
    } while (rc == 0 && writer->open == NULL);
    if (rc == 0) {
        struct pack *pack = writer->open;
        frame->number = pack->frames++;
        frame->offset = pack->used;
        pack->used += length;
        pack->table += header_length;
        pack->unfilled++;
        *ret = pack;
        if (pack->frames == XV_PACK_FRAMES_MAX / 4)
            close_open(writer);
    }
    pthread_mutex_unlock(&writer->lock);
    return rc;
}

static void filled(struct xv_pack_writer *writer, struct pack *pack, xvsa_error *failure)
{
    pthread_mutex_lock(&writer->lock);
    if (failure != NULL)
        keep_failure(writer, xvsa_error_ref(failure));
    pack->unfilled--;
    if (pack->full && pack->unfilled == 0)
        enqueue(writer, pack);
    pthread_mutex_unlock(&writer->lock);
}

int xv_pack_writer_add(struct xv_pack_writer *writer, struct xv_crypt_tool *tool,
                       struct xv_frame *frame, const void *payload, uint32_t payload_length,
                       uint8_t *ret_pack, const struct xv_call *call, xvsa_error **error)
{
    struct pack *pack = NULL;
    uint32_t length = xv_frame_header_length(frame->count) + payload_length + XV_TAG_BYTES;
    int rc = reserve(writer, frame, length, &pack, call, error);
    if (rc != 0)
        return rc;
    xvsa_error *failure = NULL;
    memcpy(ret_pack, pack->id, XV_HANDLE_BYTES);
    rc = xv_frame_seal(tool, writer->options.crypt, pack->id, pack->key, frame, payload,
                       payload_length, pack->data + frame->offset, &failure);
    filled(writer, pack, failure);
    if (rc != 0 && error != NULL)
        *error = failure;
    else
        xvsa_error_unref(failure);
    return rc;
}

int xv_pack_writer_flush(struct xv_pack_writer *writer, const struct xv_call *call,
                         xvsa_error **error)
{
    int rc = 0;
    pthread_mutex_lock(&writer->lock);
    if (writer->open != NULL && writer->open->frames > 0)
        close_open(writer);
    while (rc == 0 && writer->under_way > 0 && writer->failure == NULL) {
        xv_cond_nap(&writer->moved, &writer->lock);
        if (writer->under_way > 0)
            rc = xv_call_check(call, "repo", "storing packs", error);
    }
    if (rc == 0 && writer->failure != NULL)
        rc = fail_again(writer, error);
    pthread_mutex_unlock(&writer->lock);
    return rc;
}

uint64_t xv_pack_writer_bytes(struct xv_pack_writer *writer)
{
    pthread_mutex_lock(&writer->lock);
    uint64_t bytes = writer->bytes;
    pthread_mutex_unlock(&writer->lock);
    return bytes;
}
