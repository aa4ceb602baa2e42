/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What has to be read of a disk, and the check of what tracking calls unchanged.
 */
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "diff/changes.h"
#include "job/passage.h"

/* Unchanged chunks that every incremental reads again: a few, and up to a thousandth of the disk as
 * long as that is at most a twentieth of what changed. */
#define AUDIT_LEAST     4u
#define AUDIT_OF_DISK   1000u
#define AUDIT_OF_CHANGE 20u

static int cover(const struct xv_passage *passage, struct xv_extents *ret, xvsa_error **error)
{
    return xv_extents_add(ret, 0, passage->size, error);
}

/* What the pool says is allocated, where it can tell: by the table of a VHD export. */
static int read_allocation(struct xv_passage *passage, struct xv_extents *ret, xvsa_error **error)
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

/* Splits the disk into what is read and what is kept. */
static int choose(struct xv_passage *passage, xvsa_error **error)
{
    struct xv_disk_run *disk = passage->disk;
    bool based = xv_session_base(passage->backup->session) != NULL && passage->base_index >= 0;
    bool known = false;
    struct xv_extents changed;
    xv_extents_init(&changed);
    int rc = 0;
    if (based && disk->plan->mode == XV_MODE_INCREMENTAL)
        rc = xv_changes_read(passage->backup, disk, &passage->call, &known, &changed, error);
    if (rc == 0 && known) {
        struct xv_extents whole;
        xv_extents_init(&whole);
        xv_passage_set_mode(passage, XV_MODE_INCREMENTAL);
        rc = xv_extents_align(&changed, passage->chunk, passage->size, &passage->read, error);
        if (rc == 0)
            rc = cover(passage, &whole, error);
        if (rc == 0)
            rc = xv_extents_subtract(&whole, &passage->read, &passage->keep, error);
        xv_extents_free(&whole);
    } else if (rc == 0) {
        xv_passage_set_mode(passage, based ? XV_MODE_COMPARE : XV_MODE_FULL);
        rc = read_allocation(passage, &passage->read, error);
    }
    xv_extents_free(&changed);
    return rc;
}

static uint32_t audit_chunks(const struct xv_passage *passage)
{
    uint64_t of_disk = passage->size / passage->chunk / AUDIT_OF_DISK;
    uint64_t of_change = xv_extents_bytes(&passage->read) / passage->chunk / AUDIT_OF_CHANGE;
    uint64_t count = of_disk < of_change ? of_disk : of_change;
    return count < AUDIT_LEAST ? AUDIT_LEAST : (uint32_t)count;
}

static int compare_range(struct xv_passage *passage, const struct xv_range *range, uint8_t *buffer,
                         bool *ret_same, xvsa_error **error)
{
    struct xv_disk_run *disk = passage->disk;
    int rc = 0;
    *ret_same = true;
    for (uint64_t at = 0; rc == 0 && *ret_same && at < range->length; at += passage->chunk) {
        uint64_t left = range->length - at;
        size_t length = left < passage->chunk ? (size_t)left : passage->chunk;
        rc = xv_disk_read(passage->source.disk, range->offset + at, buffer, length, &passage->call,
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
static int audit(struct xv_passage *passage, bool *ret_same, xvsa_error **error)
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
static int distrust(struct xv_passage *passage, xvsa_error **error)
{
    int rc = xv_run_reason(passage->backup->run, passage->disk, error, XV_REASON_CBT_LIED, NULL);
    xv_extents_free(&passage->read);
    xv_extents_init(&passage->read);
    xv_extents_free(&passage->keep);
    xv_extents_init(&passage->keep);
    xv_passage_set_mode(passage, XV_MODE_COMPARE);
    return rc != 0 ? rc : cover(passage, &passage->read, error);
}

static int audit_kept(struct xv_passage *passage, xvsa_error **error)
{
    if (passage->disk->mode != XV_MODE_INCREMENTAL || passage->keep.count == 0)
        return 0;
    int rc = xv_source_open(&passage->source, &passage->call, error);
    if (rc != 0)
        return rc;
    if (strcmp(xv_source_transport(&passage->source), "http") == 0)
        return xv_run_reason(passage->backup->run, passage->disk, error, XV_REASON_AUDIT_SKIPPED,
                             NULL);
    bool same = true;
    rc = audit(passage, &same, error);
    return rc == 0 && !same ? distrust(passage, error) : rc;
}

int xv_ranges_choose(struct xv_passage *passage, xvsa_error **error)
{
    int rc = choose(passage, error);
    return rc != 0 ? rc : audit_kept(passage, error);
}
