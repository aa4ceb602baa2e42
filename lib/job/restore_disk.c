/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * One disk of a restore. A job of one process sends all in one request, since the pool attaches and detaches the
 * disk for each. A task sends segments: each is acknowledged by its own outcome, and a successor goes on behind the last one.
 */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "job/restore.h"
#include "job/task.h"

/* The size of a segment follows the speed, so that about so much time is lost with its sender. */
#define SEGMENT_MS    5000
#define SEGMENT_FIRST (256ull << 20)
#define SEGMENT_LEAST (64ull << 20)
#define SEGMENT_MOST  (1ull << 30)

/* Of one disk, while it moves. */
struct passage {
    struct xv_disk_run *disk;
    struct xv_restore *restore;
    struct xv_call call;
    struct xv_disk *source;
    char *vdi_ref;
    char *vdi_uuid;
    uint64_t offset; /* everything before it is acknowledged */
    uint64_t bytes;  /* sent by this process */
    uint32_t segments;
    struct xv_restore_target target;
    const char *transport;
};

static const char *text_of(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text == NULL ? "" : text;
}

static const json_t *saved_record(const struct passage *passage)
{
    const struct xv_disk_run *disk = passage->disk;
    const json_t *vdis = json_object_get(disk->vm->plan->metadata, "vdis");
    for (size_t i = 0; i < json_array_size(vdis); i++) {
        const json_t *saved = json_array_get(vdis, i);
        if (strcmp(text_of(saved, "uuid"), disk->plan->vdi_uuid) == 0)
            return json_object_get(saved, "record");
    }
    return NULL;
}

static int create_vdi(struct passage *passage, const char *id, const struct xv_call *call,
                      xvsa_error **error)
{
    struct xv_disk_run *disk = passage->disk;
    const json_t *record = saved_record(passage);
    const struct xv_vdi_spec spec = {
        .sr_ref = disk->plan->sr->ref,
        .name = disk->plan->name,
        .description = text_of(record, "name_description"),
        .tag = disk->vm->tag,
        .type = strcmp(text_of(record, "type"), "system") == 0 ? "system" : "user",
        .id = id,
        .size = disk->plan->size,
    };
    uint64_t size = 0;
    int rc = xv_vdi_create(passage->restore->client, &spec, call, &passage->vdi_ref, &size, error);
    if (rc == 0 && size < disk->plan->size)
        rc = xv_fail(error, XVSA_ERR_SPACE, "job",
                     "SR %s made a disk of %llu bytes, %llu are needed", disk->plan->sr->uuid,
                     (unsigned long long)size, (unsigned long long)disk->plan->size);
    return rc;
}

void xv_restore_make_id(const struct xv_vm_run *run, const char *what, char id[33])
{
    char text[XV_TAG_MAX + 80];
    int length = snprintf(text, sizeof text, "%s %s", run->tag, what);
    XXH128_hash_t hash = XXH3_128bits(text, (size_t)length);
    snprintf(id, 33, "%016llx%016llx", (unsigned long long)hash.high64,
             (unsigned long long)hash.low64);
}

/* NOT_FOUND of a search becomes none. */
static int forgive(int rc, xvsa_error *failure, xvsa_error **error)
{
    if (rc != 0 && rc != XVSA_ERR_NOT_FOUND && error != NULL)
        *error = failure;
    else
        xvsa_error_unref(failure);
    return rc == XVSA_ERR_NOT_FOUND ? 0 : rc;
}

/* The VDI that an earlier attempt made, and how far it came. */
static int find_vdi(struct passage *passage, const char *id, const struct xv_call *call,
                    xvsa_error **error)
{
    struct xv_client *client = passage->restore->client;
    xvsa_error *failure = NULL;
    char uuid[64] = "";
    int rc = 0;
    xv_restore_recall(passage->restore, passage->disk, uuid, &passage->offset);
    if (uuid[0] != '\0') {
        rc = xv_record_find(client, "VDI", uuid, call, &passage->vdi_ref, &failure);
        rc = forgive(rc, failure, error);
    }
    if (rc == 0 && passage->vdi_ref == NULL) {
        failure = NULL;
        passage->offset = 0;
        rc = xv_created_look(client, "VDI", id, call, &passage->vdi_ref, &failure);
        rc = forgive(rc, failure, error);
    }
    if (rc == 0 && passage->vdi_ref != NULL)
        xv_vdi_stop_imports(client, passage->vdi_ref, call);
    return rc;
}

static int read_uuid(struct passage *passage, const struct xv_call *call, xvsa_error **error)
{
    struct xv_value *record = NULL;
    int rc = xv_record_get(passage->restore->client, "VDI", passage->vdi_ref, call, &record, error);
    if (rc != 0)
        return rc;
    passage->vdi_uuid = strdup(xv_value_get_string(record, "uuid", ""));
    xv_value_free(record);
    return passage->vdi_uuid == NULL ? xv_fail_memory(error) : 0;
}

static int make_vdi(struct passage *passage, xvsa_error **error)
{
    struct xv_vm_run *run = passage->disk->vm;
    const struct xv_call limit = xv_run_step_call(run);
    char id[33];
    if (run->job->task == NULL)
        return create_vdi(passage, NULL, &limit, error);
    xv_restore_make_id(run, passage->disk->plan->vdi_uuid, id);
    int rc = xv_task_await_pool(run, &limit, error);
    if (rc == 0 && xv_restore_was_begun(passage->restore))
        rc = find_vdi(passage, id, &limit, error);
    if (rc == 0 && passage->vdi_ref == NULL)
        rc = create_vdi(passage, id, &limit, error);
    if (rc == 0)
        rc = read_uuid(passage, &limit, error);
    if (rc == 0)
        rc = xv_restore_note(passage->restore, passage->disk, passage->vdi_uuid, passage->offset,
                             &passage->call, error);
    return rc;
}

/* The next bytes that are not acknowledged, at most so many. */
static int next_segment(const struct passage *passage, const struct xv_extents *data, uint64_t most,
                        struct xv_extents *ret, xvsa_error **error)
{
    uint32_t chunk = xv_repo_chunk_size(passage->disk->vm->job->plan->repo);
    uint64_t left = most < chunk ? chunk : most - most % chunk;
    int rc = 0;
    for (size_t i = 0; rc == 0 && left > 0 && i < data->count; i++) {
        uint64_t begin = data->ranges[i].offset;
        uint64_t end = begin + data->ranges[i].length;
        begin = begin < passage->offset ? passage->offset : begin;
        if (begin >= end)
            continue;
        uint64_t length = end - begin < left ? end - begin : left;
        rc = xv_extents_add(ret, begin, length, error);
        left -= length;
    }
    return rc;
}

static uint64_t choose_size(const struct passage *passage, uint64_t bytes, int64_t ms)
{
    uint64_t fixed = passage->disk->vm->job->task->given.unit_bytes;
    if (fixed != 0)
        return fixed;
    if (ms <= 0)
        return SEGMENT_FIRST;
    uint64_t size = (uint64_t)((double)bytes * SEGMENT_MS / (double)ms);
    return size < SEGMENT_LEAST ? SEGMENT_LEAST : size > SEGMENT_MOST ? SEGMENT_MOST : size;
}

static int send_segment(struct passage *passage, const struct xv_extents *segment,
                        xvsa_error **error)
{
    const struct xv_range *last = &segment->ranges[segment->count - 1];
    struct xv_vm_run *run = passage->disk->vm;
    int rc = xv_task_await_pool(run, &passage->call, error);
    /* Asked before each: whoever lost the task must not write into the disk of its successor. */
    if (rc == 0)
        rc = xv_restore_note(passage->restore, passage->disk, passage->vdi_uuid, passage->offset,
                             &passage->call, error);
    if (rc == 0)
        rc = xv_restore_send(passage->disk, passage->source, segment, &passage->target,
                             &passage->call, error);
    if (rc != 0)
        return rc;
    passage->offset = last->offset + last->length;
    passage->bytes += xv_extents_bytes(segment);
    passage->segments++;
    return xv_restore_note(passage->restore, passage->disk, passage->vdi_uuid, passage->offset,
                           &passage->call, error);
}

static int send_segments(struct passage *passage, const struct xv_extents *data, xvsa_error **error)
{
    uint64_t size = choose_size(passage, 0, 0);
    for (int rc = 0;;) {
        struct xv_extents segment;
        xv_extents_init(&segment);
        rc = next_segment(passage, data, size, &segment, error);
        uint64_t bytes = xv_extents_bytes(&segment);
        int64_t begun = xv_clock_ms();
        if (rc == 0 && bytes > 0)
            rc = send_segment(passage, &segment, error);
        size = choose_size(passage, bytes, xv_clock_ms() - begun);
        xv_extents_free(&segment);
        if (rc != 0)
            return rc;
        if (bytes == 0)
            return 0;
    }
}

static int send_all(struct passage *passage, const struct xv_extents *data, xvsa_error **error)
{
    if (passage->disk->vm->job->task != NULL) {
        uint64_t done = 0;
        for (size_t i = 0; i < data->count && data->ranges[i].offset < passage->offset; i++) {
            uint64_t before = passage->offset - data->ranges[i].offset;
            done += before < data->ranges[i].length ? before : data->ranges[i].length;
        }
        atomic_fetch_add(&passage->disk->vm->job->bytes_done, done);
        return send_segments(passage, data, error);
    }
    int rc = data->count == 0 ? 0
                              : xv_restore_send(passage->disk, passage->source, data,
                                                &passage->target, &passage->call, error);
    if (rc == 0)
        passage->bytes = xv_extents_bytes(data);
    return rc;
}

static int pass(struct passage *passage, xvsa_error **error)
{
    struct xv_disk_run *disk = passage->disk;
    struct xv_extents data;
    xv_extents_init(&data);
    int rc = make_vdi(passage, error);
    passage->restore->vdi_refs[disk - disk->vm->disks] = passage->vdi_ref;
    if (rc == 0)
        rc = xv_point_open_disk(disk->vm->plan->point, disk->plan->index, &passage->call,
                                &passage->source, error);
    if (rc == 0)
        rc = xv_disk_allocated(passage->source, &data, &passage->call, error);
    passage->target.vdi_ref = passage->vdi_ref;
    if (rc == 0 && data.count > 0)
        rc = xv_restore_attach(disk, &passage->target, &passage->call, error);
    if (passage->target.device != NULL)
        passage->transport = passage->target.device->ops->transport;
    if (rc == 0)
        rc = send_all(passage, &data, error);
    xv_restore_detach(&passage->target);
    xv_disk_close(passage->source);
    xv_extents_free(&data);
    return rc;
}

static void report(const struct passage *passage)
{
    struct xv_disk_run *disk = passage->disk;
    const struct xv_job *job = disk->vm->job;
    atomic_fetch_add(&disk->vm->job->bytes_stored, passage->bytes);
    pthread_mutex_lock(&disk->vm->job->lock);
    disk->transport = passage->transport;
    disk->bytes_written = passage->bytes;
    if (job->task != NULL && passage->segments > 0)
        disk->movers = json_pack("[{s:s, s:o, s:i}]", "proxy", job->task->given.proxy, "bytes",
                                 xv_json_count(passage->bytes), "units", (int)passage->segments);
    pthread_mutex_unlock(&disk->vm->job->lock);
}

int xv_restore_disk(struct xv_disk_run *disk, xvsa_error **error)
{
    struct xv_job *job = disk->vm->job;
    struct passage passage = {.disk = disk,
                              .restore = disk->vm->work,
                              .call = xv_run_call(disk->vm),
                              .transport = "http"};
    size_t host = job->plan->site.proxies[disk->plan->proxy].host;
    int64_t begun = xv_clock_ms();
    int rc = xv_slots_take(job->slots, disk->plan->proxy, host, 0, &passage.call, error);
    if (rc != 0)
        return rc;
    rc = xv_task_enter(disk, &passage.call, error);
    xv_run_waited(disk, xv_clock_ms() - begun);
    if (rc == 0) {
        rc = pass(&passage, error);
        xv_task_leave(disk);
    }
    xv_slots_give_back(job->slots, disk->plan->proxy, host, 0);
    report(&passage);
    free(passage.vdi_uuid);
    return rc;
}
