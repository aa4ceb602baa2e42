/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * One disk of a restore: its VDI is made, then one thread reads the point's data, each block verified
 * against its id, while this one sends them to the pool.
 */
#include <stdlib.h>
#include <string.h>

#include "job/restore.h"
#include "base/thread.h"

#define BLOCK_SIZE   (1u << 20)
#define BLOCKS_LEAST 4u
#define BLOCKS_MOST  32u
/* Progress is told after so many bytes. */
#define SLICE (64u << 20)

/* Of one disk, while it moves. */
struct passage {
    struct xv_disk_run *disk;
    struct xv_call call;
    struct xv_disk *source;
    struct xv_extents data;
    struct xv_block_queue *queue;
    xvsa_cancel *stop; /* fired when the other side failed */
    int rc;            /* of the reader */
    xvsa_error *error;
};

static int stream_slice(struct passage *passage, struct xv_extents *slice,
                        const struct xv_call *call, xvsa_error **error)
{
    struct xv_job *job = passage->disk->vm->job;
    int rc = xv_disk_stream(passage->source, slice, passage->queue, NULL, call, error);
    if (rc == 0) {
        uint64_t bytes = xv_extents_bytes(slice);
        atomic_fetch_add(&job->bytes_done, bytes);
        atomic_fetch_add(&job->bytes_read, bytes);
    }
    xv_extents_free(slice);
    xv_extents_init(slice);
    return rc;
}

static int stream_data(struct passage *passage, const struct xv_call *call, xvsa_error **error)
{
    struct xv_extents slice;
    uint64_t bytes = 0;
    xv_extents_init(&slice);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < passage->data.count; i++) {
        struct xv_range range = passage->data.ranges[i];
        while (rc == 0 && range.length > 0) {
            uint64_t length = range.length < SLICE - bytes ? range.length : SLICE - bytes;
            rc = xv_extents_add(&slice, range.offset, length, error);
            range.offset += length;
            range.length -= length;
            bytes += length;
            if (rc == 0 && bytes == SLICE) {
                rc = stream_slice(passage, &slice, call, error);
                bytes = 0;
            }
        }
    }
    if (rc == 0 && bytes > 0)
        rc = stream_slice(passage, &slice, call, error);
    xv_extents_free(&slice);
    return rc;
}

static void *read_point(void *argument)
{
    struct passage *passage = argument;
    const struct xv_call call = {.cancel = passage->stop};
    passage->rc = stream_data(passage, &call, &passage->error);
    if (passage->rc == 0)
        xv_block_queue_close(passage->queue);
    else
        xv_block_queue_stop(passage->queue);
    return NULL;
}

static int make_vdi(struct passage *passage, char **ret_ref, xvsa_error **error)
{
    struct xv_disk_run *disk = passage->disk;
    struct xv_restore *restore = disk->vm->work;
    const json_t *vdis = json_object_get(disk->vm->plan->metadata, "vdis");
    const json_t *record = NULL;
    for (size_t i = 0; record == NULL && i < json_array_size(vdis); i++) {
        const json_t *saved = json_array_get(vdis, i);
        const char *uuid = json_string_value(json_object_get(saved, "uuid"));
        if (uuid != NULL && strcmp(uuid, disk->plan->vdi_uuid) == 0)
            record = json_object_get(saved, "record");
    }
    const char *description = json_string_value(json_object_get(record, "name_description"));
    const char *type = json_string_value(json_object_get(record, "type"));
    const struct xv_vdi_spec spec = {
        .sr_ref = disk->plan->sr->ref,
        .name = disk->plan->name,
        .description = description == NULL ? "" : description,
        .tag = disk->vm->tag,
        .type = type != NULL && strcmp(type, "system") == 0 ? "system" : "user",
        .size = disk->plan->size,
    };
    uint64_t size = 0;
    const struct xv_call limit = xv_run_step_call(disk->vm);
    int rc = xv_vdi_create(restore->client, &spec, &limit, ret_ref, &size, error);
    if (rc == 0 && size < disk->plan->size)
        rc = xv_fail(error, XVSA_ERR_SPACE, "job",
                     "SR %s made a disk of %llu bytes, %llu are needed", disk->plan->sr->uuid,
                     (unsigned long long)size, (unsigned long long)disk->plan->size);
    return rc;
}

static int make_queue(struct passage *passage, xvsa_error **error)
{
    const struct xv_job *job = passage->disk->vm->job;
    uint32_t chunk = xv_repo_chunk_size(job->plan->repo);
    uint32_t size = chunk > BLOCK_SIZE ? chunk : BLOCK_SIZE;
    uint32_t disks = 0;
    for (size_t i = 0; i < job->plan->proxy_count; i++)
        disks += xv_proxy_max_disks(job->plan->proxies[i]);
    uint64_t blocks = job->memory / 2 / (disks == 0 ? 1 : disks) / size;
    blocks = blocks < BLOCKS_LEAST ? BLOCKS_LEAST : blocks > BLOCKS_MOST ? BLOCKS_MOST : blocks;
    return xv_block_queue_new((uint32_t)blocks, size, &passage->queue, error);
}

/* The error that came first in cause: the other side was only stopped by it. */
static int settle(struct passage *passage, int rc, xvsa_error *failure, xvsa_error **error)
{
    bool reader_failed = passage->rc != 0 && !(passage->rc == XVSA_ERR_CANCELLED && rc != 0);
    xvsa_error *told = reader_failed ? passage->error : failure;
    rc = reader_failed ? passage->rc : rc;
    xvsa_error_unref(reader_failed ? failure : passage->error);
    if (rc != 0 && error != NULL)
        *error = told;
    else
        xvsa_error_unref(told);
    return rc;
}

static int send_data(struct passage *passage, const char *vdi_ref, xvsa_error **error)
{
    struct xv_restore *restore = passage->disk->vm->work;
    /* The point's blocks begin and end anywhere at multiples of the chunk size. */
    const uint32_t chunk = xv_repo_chunk_size(passage->disk->vm->job->plan->repo);
    pthread_t reader;
    int rc = xv_thread_start("xvsa-read", false, read_point, passage, &reader, error);
    if (rc != 0)
        return rc;
    xvsa_error *failure = NULL;
    rc = xv_vdi_import(restore->client, xv_run_host(passage->disk), vdi_ref, &passage->data, chunk,
                       passage->queue, &passage->call, &failure);
    if (rc != 0) {
        xvsa_cancel_fire(passage->stop);
        xv_block_queue_stop(passage->queue);
    }
    pthread_join(reader, NULL);
    return settle(passage, rc, failure, error);
}

static int pass(struct passage *passage, xvsa_error **error)
{
    struct xv_disk_run *disk = passage->disk;
    struct xv_restore *restore = disk->vm->work;
    char *vdi_ref = NULL;
    int rc = make_vdi(passage, &vdi_ref, error);
    restore->vdi_refs[disk - disk->vm->disks] = vdi_ref;
    if (rc == 0)
        rc = xv_point_open_disk(disk->vm->plan->point, disk->plan->index, &passage->call,
                                &passage->source, error);
    if (rc == 0)
        rc = xv_disk_allocated(passage->source, &passage->data, &passage->call, error);
    if (rc == 0 && passage->data.count > 0) {
        rc = make_queue(passage, error);
        if (rc == 0)
            rc = xvsa_cancel_new(&passage->stop, error);
        if (rc == 0)
            rc = send_data(passage, vdi_ref, error);
    }
    return rc;
}

int xv_restore_disk(struct xv_disk_run *disk, xvsa_error **error)
{
    struct xv_job *job = disk->vm->job;
    struct passage passage = {.disk = disk, .call = xv_run_call(disk->vm)};
    xv_extents_init(&passage.data);
    size_t host = job->plan->site.proxies[disk->plan->proxy].host;
    int rc = xv_slots_take(job->slots, disk->plan->proxy, host, 0, &passage.call, error);
    if (rc != 0)
        return rc;
    rc = pass(&passage, error);
    xv_slots_give_back(job->slots, disk->plan->proxy, host, 0);
    uint64_t bytes = rc == 0 ? xv_extents_bytes(&passage.data) : 0;
    atomic_fetch_add(&job->bytes_stored, bytes);
    pthread_mutex_lock(&job->lock);
    disk->transport = "http";
    disk->bytes_written = bytes;
    pthread_mutex_unlock(&job->lock);
    xv_disk_close(passage.source);
    if (passage.queue != NULL)
        xv_block_queue_free(passage.queue);
    xvsa_cancel_unref(passage.stop);
    xv_extents_free(&passage.data);
    return rc;
}
