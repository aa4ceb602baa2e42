/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * One disk of a backup: what has to be read, through which transport, and the check of what tracking
 * calls unchanged.
 */
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "diff/changes.h"
#include "job/backup.h"

/* Unchanged chunks that every incremental reads again: a few, and up to a thousandth of the disk as
 * long as that is at most a twentieth of what changed. */
#define AUDIT_LEAST     4u
#define AUDIT_OF_DISK   1000u
#define AUDIT_OF_CHANGE 20u

/* Of one disk, while it moves. */
struct passage {
    struct xv_backup *backup;
    struct xv_disk_run *disk;
    struct xv_call call;
    uint32_t chunk;
    uint64_t size;
    struct xv_disk *source;
    struct xv_extents read; /* to be read */
    struct xv_extents keep; /* to be taken over from the base */
};

static int cover(const struct passage *passage, struct xv_extents *ret, xvsa_error **error)
{
    return xv_extents_add(ret, 0, passage->size, error);
}

/* What the pool says is allocated, where it can tell: by the table of a VHD export. */
static int read_allocation(struct passage *passage, struct xv_extents *ret, xvsa_error **error)
{
    struct xv_backup *backup = passage->backup;
    struct xv_disk *source = NULL;
    struct xv_extents raw;
    const struct xv_host *host = xv_run_host(passage->disk);
    xv_extents_init(&raw);
    xvsa_error *failure = NULL;
    int rc =
        xv_vdi_open_http(backup->client, backup->run->job->plan->inventory,
                         passage->disk->snapshot->vdi_ref, host, &passage->call, &source, &failure);
    if (rc == 0)
        rc = xv_disk_allocated(source, &raw, &passage->call, &failure);
    xv_disk_close(source);
    if (rc == 0) {
        rc = xv_extents_align(&raw, passage->chunk, passage->size, ret, error);
    } else if (rc == XVSA_ERR_CANCELLED) {
        if (error != NULL)
            *error = xvsa_error_ref(failure);
    } else {
        rc = xv_run_reason(backup->run, passage->disk, error, XV_REASON_ALLOCATION_UNKNOWN, "%s",
                           xvsa_error_message(failure));
        if (rc == 0)
            rc = cover(passage, ret, error);
    }
    xvsa_error_unref(failure);
    xv_extents_free(&raw);
    return rc;
}

static void set_mode(struct passage *passage, enum xv_mode mode)
{
    struct xv_job *job = passage->backup->run->job;
    pthread_mutex_lock(&job->lock);
    passage->disk->mode = mode;
    pthread_mutex_unlock(&job->lock);
}

/* Splits the disk into what is read and what is kept. */
static int choose_ranges(struct passage *passage, xvsa_error **error)
{
    struct xv_disk_run *disk = passage->disk;
    bool based = xv_session_base(passage->backup->session) != NULL && disk->plan->base_index >= 0;
    bool known = false;
    struct xv_extents changed;
    xv_extents_init(&changed);
    int rc = 0;
    if (based && disk->plan->mode == XV_MODE_INCREMENTAL)
        rc = xv_changes_read(passage->backup, disk, &passage->call, &known, &changed, error);
    if (rc == 0 && known) {
        struct xv_extents whole;
        xv_extents_init(&whole);
        set_mode(passage, XV_MODE_INCREMENTAL);
        rc = xv_extents_align(&changed, passage->chunk, passage->size, &passage->read, error);
        if (rc == 0)
            rc = cover(passage, &whole, error);
        if (rc == 0)
            rc = xv_extents_subtract(&whole, &passage->read, &passage->keep, error);
        xv_extents_free(&whole);
    } else if (rc == 0) {
        set_mode(passage, based ? XV_MODE_COMPARE : XV_MODE_FULL);
        rc = read_allocation(passage, &passage->read, error);
    }
    xv_extents_free(&changed);
    return rc;
}

static int open_nbd(struct passage *passage, xvsa_error **error)
{
    struct xv_backup *backup = passage->backup;
    const struct xv_plan *plan = backup->run->job->plan;
    const struct xv_host *host = xv_run_host(passage->disk);
    const struct xv_nbd_options options = {
        .env = xv_engine_env(backup->run->job->engine),
        .size = passage->size,
        .connections = XV_DISK_CONNECTIONS,
        .require_tls = !plan->spec->insecure_nbd,
        .disk_name = passage->disk->snapshot->vdi_uuid,
    };
    return xv_vdi_open_nbd(backup->client, plan->inventory, passage->disk->snapshot->vdi_ref,
                           host == NULL ? NULL : host->address, plan->spec->insecure_nbd, &options,
                           &passage->call, &passage->source, error);
}

static int open_http(struct passage *passage, xvsa_error **error)
{
    struct xv_backup *backup = passage->backup;
    return xv_vdi_open_http(backup->client, backup->run->job->plan->inventory,
                            passage->disk->snapshot->vdi_ref, xv_run_host(passage->disk),
                            &passage->call, &passage->source, error);
}

/* After the VM's token was fired it is the other end that failed, or somebody's wish. */
static bool can_fall_back(const struct passage *passage, int rc)
{
    return rc != XVSA_ERR_CANCELLED && passage->backup->run->job->plan->spec->use_http &&
           xvsa_cancel_is_fired(passage->backup->run->cancel) == 0;
}

static int open_nbd_or_http(struct passage *passage, xvsa_error **error)
{
    struct xv_disk_run *disk = passage->disk;
    xvsa_error *failure = NULL;
    int rc = open_nbd(passage, &failure);
    if (rc != 0 && can_fall_back(passage, rc)) {
        rc = xv_run_reason(disk->vm, disk, error,
                           rc == XVSA_ERR_UNSUPPORTED ? XV_REASON_NBD_NOT_ENABLED
                                                      : XV_REASON_NBD_FAILED,
                           "%s", xvsa_error_message(failure));
        if (rc == 0)
            rc = open_http(passage, error);
    } else if (rc != 0 && error != NULL) {
        *error = xvsa_error_ref(failure);
    }
    xvsa_error_unref(failure);
    return rc;
}

static void note_transport(struct passage *passage)
{
    struct xv_job *job = passage->disk->vm->job;
    pthread_mutex_lock(&job->lock);
    passage->disk->transport = passage->source->ops->transport;
    pthread_mutex_unlock(&job->lock);
}

/* NBD, else HTTP with the reason. */
static int open_source(struct passage *passage, xvsa_error **error)
{
    const struct xv_spec *spec = passage->backup->run->job->plan->spec;
    int rc;
    if (passage->disk->plan->nbd)
        rc = open_nbd_or_http(passage, error);
    else if (spec->use_http)
        rc = open_http(passage, error);
    else
        rc = xv_fail(error, XVSA_ERR_UNSUPPORTED, "job",
                     "the pool offers no NBD, and the job allows no other transport");
    if (rc == 0)
        note_transport(passage);
    return rc;
}

static uint32_t audit_chunks(const struct passage *passage)
{
    uint64_t of_disk = passage->size / passage->chunk / AUDIT_OF_DISK;
    uint64_t of_change = xv_extents_bytes(&passage->read) / passage->chunk / AUDIT_OF_CHANGE;
    uint64_t count = of_disk < of_change ? of_disk : of_change;
    return count < AUDIT_LEAST ? AUDIT_LEAST : (uint32_t)count;
}

static int compare_range(struct passage *passage, const struct xv_range *range, uint8_t *buffer,
                         bool *ret_same, xvsa_error **error)
{
    struct xv_disk_run *disk = passage->disk;
    int rc = 0;
    *ret_same = true;
    for (uint64_t at = 0; rc == 0 && *ret_same && at < range->length; at += passage->chunk) {
        uint64_t left = range->length - at;
        size_t length = left < passage->chunk ? (size_t)left : passage->chunk;
        rc = xv_disk_read(passage->source, range->offset + at, buffer, length, &passage->call,
                          error);
        if (rc == 0)
            rc = xv_disk_writer_matches_base(disk->writer, range->offset + at, buffer, length,
                                             &passage->call, ret_same, error);
        pthread_mutex_lock(&disk->vm->job->lock);
        disk->bytes_audited += length;
        pthread_mutex_unlock(&disk->vm->job->lock);
        atomic_fetch_add(&disk->vm->job->bytes_read, length);
    }
    return rc;
}

/* Reads a sample of what is to be kept and compares it with the base. */
static int audit(struct passage *passage, bool *ret_same, xvsa_error **error)
{
    struct xv_extents sample;
    uint64_t seed = 0;
    xv_extents_init(&sample);
    int rc = xv_random(&seed, sizeof seed, error);
    if (rc == 0)
        rc = xv_changes_sample(&passage->read, passage->size, passage->chunk, 0,
                               audit_chunks(passage), seed, &sample, error);
    uint8_t *buffer = malloc(passage->chunk);
    if (rc == 0 && buffer == NULL)
        rc = xv_fail_memory(error);
    *ret_same = true;
    for (size_t i = 0; rc == 0 && *ret_same && i < sample.count; i++)
        rc = compare_range(passage, &sample.ranges[i], buffer, ret_same, error);
    free(buffer);
    xv_extents_free(&sample);
    return rc;
}

/* Makes a liar's disk be read whole. */
static int distrust(struct passage *passage, xvsa_error **error)
{
    int rc = xv_run_reason(passage->backup->run, passage->disk, error, XV_REASON_CBT_LIED, NULL);
    xv_extents_free(&passage->read);
    xv_extents_init(&passage->read);
    xv_extents_free(&passage->keep);
    xv_extents_init(&passage->keep);
    set_mode(passage, XV_MODE_COMPARE);
    return rc != 0 ? rc : cover(passage, &passage->read, error);
}

static int audit_kept(struct passage *passage, xvsa_error **error)
{
    if (passage->disk->mode != XV_MODE_INCREMENTAL || passage->keep.count == 0)
        return 0;
    if (strcmp(passage->source->ops->transport, "http") == 0)
        return xv_run_reason(passage->backup->run, passage->disk, error, XV_REASON_AUDIT_SKIPPED,
                             NULL);
    bool same = true;
    int rc = audit(passage, &same, error);
    return rc == 0 && !same ? distrust(passage, error) : rc;
}

static int begin_writer(struct passage *passage, xvsa_error **error)
{
    struct xv_disk_run *disk = passage->disk;
    struct xv_session *session = passage->backup->session;
    int base_index = xv_session_base(session) == NULL ? -1 : disk->plan->base_index;
    struct xv_disk_writer *writer = NULL;
    int rc = xv_session_add_disk(session, disk->plan->vdi_uuid, disk->plan->device, passage->size,
                                 base_index, &passage->call, &writer, error);
    pthread_mutex_lock(&disk->vm->job->lock);
    disk->writer = writer;
    pthread_mutex_unlock(&disk->vm->job->lock);
    return rc;
}

/* Reads it; when NBD gives up on the way, all over again through HTTP: what was stored is found there. */
static int stream(struct passage *passage, xvsa_error **error)
{
    struct xv_disk_run *disk = passage->disk;
    struct xv_intake *intake = passage->backup->intake;
    xvsa_error *failure = NULL;
    int rc = xv_intake_move(intake, passage->source, &passage->read, disk->writer, &passage->call,
                            &failure);
    bool by_nbd = strcmp(passage->source->ops->transport, "nbd") == 0;
    uint32_t missing = xv_nbd_disk_missing(passage->source);
    if (rc == 0 && missing > 0)
        return xv_run_reason(disk->vm, disk, error, XV_REASON_NBD_CONNECTIONS_MISSING,
                             "%u of %u connections", missing, XV_DISK_CONNECTIONS);
    if (rc != 0 && by_nbd && can_fall_back(passage, rc)) {
        xv_disk_close(passage->source);
        passage->source = NULL;
        rc = xv_run_reason(disk->vm, disk, error, XV_REASON_NBD_FAILED, "%s",
                           xvsa_error_message(failure));
        if (rc == 0)
            rc = open_http(passage, error);
        if (rc == 0) {
            note_transport(passage);
            rc = xv_intake_move(intake, passage->source, &passage->read, disk->writer,
                                &passage->call, error);
        }
    } else if (rc != 0 && error != NULL) {
        *error = xvsa_error_ref(failure);
    }
    xvsa_error_unref(failure);
    return rc;
}

static int move(struct passage *passage, xvsa_error **error)
{
    struct xv_disk_run *disk = passage->disk;
    struct xv_job *job = disk->vm->job;
    struct xv_shares before;
    struct xv_shares after;
    uint64_t to_read = xv_extents_bytes(&passage->read);
    int rc = 0;
    if (passage->keep.count > 0)
        rc = xv_disk_writer_keep(disk->writer, &passage->keep, &passage->call, error);
    atomic_fetch_add(&job->bytes_done, passage->size - to_read);
    xv_pipeline_shares(job->pipeline, &before);
    if (rc == 0 && to_read > 0)
        rc = stream(passage, error);
    xv_pipeline_shares(job->pipeline, &after);
    pthread_mutex_lock(&job->lock);
    disk->shares =
        (struct xv_shares){after.source - before.source, after.cpu - before.cpu,
                           after.target > before.target ? after.target - before.target : 0};
    pthread_mutex_unlock(&job->lock);
    return rc;
}

static int pass(struct passage *passage, xvsa_error **error)
{
    int rc = begin_writer(passage, error);
    if (rc == 0)
        rc = choose_ranges(passage, error);
    if (rc == 0)
        rc = open_source(passage, error);
    if (rc == 0)
        rc = audit_kept(passage, error);
    if (rc == 0)
        rc = move(passage, error);
    xv_disk_close(passage->source);
    xv_extents_free(&passage->read);
    xv_extents_free(&passage->keep);
    return rc;
}

int xv_backup_disk(struct xv_disk_run *disk, xvsa_error **error)
{
    struct xv_job *job = disk->vm->job;
    struct passage passage = {
        .backup = disk->vm->work,
        .disk = disk,
        .call = xv_run_call(disk->vm),
        .chunk = xv_repo_chunk_size(job->plan->repo),
        .size = disk->snapshot->size,
    };
    xv_extents_init(&passage.read);
    xv_extents_init(&passage.keep);
    size_t host = job->plan->site.proxies[disk->plan->proxy].host;
    uint32_t connections = disk->plan->nbd ? XV_DISK_CONNECTIONS : 0;
    int rc = xv_slots_take(job->slots, disk->plan->proxy, host, connections, &passage.call, error);
    if (rc != 0)
        return rc;
    rc = pass(&passage, error);
    xv_slots_give_back(job->slots, disk->plan->proxy, host, connections);
    return rc;
}
