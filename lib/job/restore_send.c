/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Sending ranges of a restore point's disk to the pool: one thread reads, each block verified against its id,
 * while this one sends.
 */
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "job/restore.h"

#define BLOCK_SIZE   (1u << 20)
#define BLOCKS_LEAST 4u
#define BLOCKS_MOST  32u
/* Progress is told, and a suspension is noticed, after so many bytes. */
#define SLICE (64u << 20)

/* One request, while it is under way. */
struct sending {
    struct xv_disk_run *disk;
    struct xv_disk *source;
    const struct xv_extents *data;
    struct xv_block_queue *queue;
    xvsa_cancel *stop; /* fired when the other side failed */
    uint64_t counted;  /* bytes that were told as progress */
    int rc;            /* of the reader */
    xvsa_error *error;
};

static int stream_slice(struct sending *sending, struct xv_extents *slice,
                        const struct xv_call *call, xvsa_error **error)
{
    struct xv_job *job = sending->disk->vm->job;
    int rc = xv_job_await_resume(job, call, error);
    if (rc == 0)
        rc = xv_rate_stream(xv_job_rate(job), sending->source, slice, sending->queue, NULL, call,
                            error);
    if (rc == 0) {
        uint64_t bytes = xv_extents_bytes(slice);
        atomic_fetch_add(&job->bytes_done, bytes);
        atomic_fetch_add(&job->bytes_read, bytes);
        sending->counted += bytes;
    }
    xv_extents_free(slice);
    xv_extents_init(slice);
    return rc;
}

static int stream_data(struct sending *sending, const struct xv_call *call, xvsa_error **error)
{
    struct xv_extents slice;
    uint64_t bytes = 0;
    xv_extents_init(&slice);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < sending->data->count; i++) {
        struct xv_range range = sending->data->ranges[i];
        while (rc == 0 && range.length > 0) {
            uint64_t length = range.length < SLICE - bytes ? range.length : SLICE - bytes;
            rc = xv_extents_add(&slice, range.offset, length, error);
            range.offset += length;
            range.length -= length;
            bytes += length;
            if (rc == 0 && bytes == SLICE) {
                rc = stream_slice(sending, &slice, call, error);
                bytes = 0;
            }
        }
    }
    if (rc == 0 && bytes > 0)
        rc = stream_slice(sending, &slice, call, error);
    xv_extents_free(&slice);
    return rc;
}

static void *read_point(void *argument)
{
    struct sending *sending = argument;
    const struct xv_call call = {.cancel = sending->stop};
    sending->rc = stream_data(sending, &call, &sending->error);
    if (sending->rc == 0)
        xv_block_queue_close(sending->queue);
    else
        xv_block_queue_stop(sending->queue);
    return NULL;
}

static int make_queue(struct sending *sending, xvsa_error **error)
{
    const struct xv_job *job = sending->disk->vm->job;
    uint32_t chunk = xv_repo_chunk_size(job->plan->repo);
    uint32_t size = chunk > BLOCK_SIZE ? chunk : BLOCK_SIZE;
    uint32_t disks = 0;
    for (size_t i = 0; i < job->plan->proxy_count; i++)
        disks += xv_proxy_max_disks(job->plan->proxies[i]);
    uint64_t blocks = job->memory / 2 / (disks == 0 ? 1 : disks) / size;
    blocks = blocks < BLOCKS_LEAST ? BLOCKS_LEAST : blocks > BLOCKS_MOST ? BLOCKS_MOST : blocks;
    return xv_block_queue_new((uint32_t)blocks, size, &sending->queue, error);
}

/* The error that came first in cause: the other side was only stopped by it. */
static int settle(struct sending *sending, int rc, xvsa_error *failure, xvsa_error **error)
{
    bool reader_failed = sending->rc != 0 && !(sending->rc == XVSA_ERR_CANCELLED && rc != 0);
    xvsa_error *told = reader_failed ? sending->error : failure;
    rc = reader_failed ? sending->rc : rc;
    xvsa_error_unref(reader_failed ? failure : sending->error);
    if (rc != 0 && error != NULL)
        *error = told;
    else
        xvsa_error_unref(told);
    return rc;
}

static int send_and_read(struct sending *sending, const struct xv_restore_target *target,
                         const struct xv_call *call, xvsa_error **error)
{
    struct xv_restore *restore = sending->disk->vm->work;
    /* The point's blocks begin and end anywhere at multiples of the chunk size. */
    const uint32_t chunk = xv_repo_chunk_size(sending->disk->vm->job->plan->repo);
    pthread_t reader;
    int rc = xv_thread_start("xvsa-read", false, read_point, sending, &reader, error);
    if (rc != 0)
        return rc;
    xvsa_error *failure = NULL;
    if (target->device != NULL)
        rc = xv_disk_write(target->device, sending->queue, call, &failure);
    else
        rc = xv_vdi_import(restore->client, xv_run_host(sending->disk), target->vdi_ref,
                           sending->data, chunk, sending->queue, call, &failure);
    if (rc != 0) {
        xvsa_cancel_fire(sending->stop);
        xv_block_queue_stop(sending->queue);
    }
    pthread_join(reader, NULL);
    return settle(sending, rc, failure, error);
}

static int send_once(struct xv_disk_run *disk, struct xv_disk *source,
                     const struct xv_extents *data, const struct xv_restore_target *target,
                     const struct xv_call *call, xvsa_error **error)
{
    struct sending sending = {.disk = disk, .source = source, .data = data};
    int rc = make_queue(&sending, error);
    if (rc == 0)
        rc = xvsa_cancel_new(&sending.stop, error);
    if (rc == 0)
        rc = send_and_read(&sending, target, call, error);
    if (rc != 0)
        atomic_fetch_sub(&disk->vm->job->bytes_done, sending.counted);
    if (sending.queue != NULL)
        xv_block_queue_free(sending.queue);
    xvsa_cancel_unref(sending.stop);
    return rc;
}

int xv_restore_send(struct xv_disk_run *disk, struct xv_disk *source, const struct xv_extents *data,
                    const struct xv_restore_target *target, const struct xv_call *call,
                    xvsa_error **error)
{
    xvsa_error *failure = NULL;
    int rc = send_once(disk, source, data, target, call, &failure);
    if (rc == XVSA_ERR_AUTH) {
        /* The session ended between the making of the transfer's task and the request. The next task is made with a
         * new one, and the same ranges may be sent again. */
        xv_error_clear(&failure);
        rc = send_once(disk, source, data, target, call, &failure);
    }
    if (rc != 0 && error != NULL)
        *error = failure;
    else
        xvsa_error_unref(failure);
    return rc;
}
