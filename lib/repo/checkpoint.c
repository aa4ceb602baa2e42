/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Checkpoints: what a session has stored is made durable and named by the journal, its index segments
 * and its progress in one entry. Order matters: packs, then what tells of them, then the barrier.
 */
#include <stdlib.h>

#include "repo/progress.h"
#include "repo/session.h"
#include "repo/work.h"

/* Writes one segment of what has none yet; *ret_count tells how many entries went into it. */
static int write_segment(struct xv_session *session, uint32_t skip, uint32_t limit,
                         json_t *segments, uint32_t *ret_count, const struct xv_call *call,
                         xvsa_error **error)
{
    struct xv_segment_entry *entries = NULL;
    uint8_t id[XV_HANDLE_BYTES];
    char name[XV_NAME_BYTES];
    uint8_t *data = NULL;
    size_t length = 0;
    uint32_t head = 0;
    int rc = xv_known_unindexed(&session->known, skip, limit, &entries, ret_count, error);
    if (rc != 0 || *ret_count == 0)
        return rc;
    rc = xv_random(id, sizeof id, error);
    xv_handle_name("ix", id, name);
    if (rc == 0)
        rc = xv_segment_encode(session->repo->crypt, id, entries, *ret_count, &data, &length, &head,
                               error);
    free(entries);
    xvsa_buffer piece = {data, length};
    if (rc == 0)
        rc = xv_target_put(session->repo->target, name, &piece, 1, 0, call, error);
    free(data);
    if (rc != 0)
        return rc;
    json_t *fact =
        json_pack("{s:o, s:I, s:I, s:I}", "id", xv_json_handle(id), "length", (json_int_t)length,
                  "head", (json_int_t)head, "entries", (json_int_t)*ret_count);
    if (fact == NULL || json_array_append_new(segments, fact) != 0)
        return xv_fail_memory(error);
    return 0;
}

/* Everything up to the first count entries is in packs that were put. */
static int write_segments(struct xv_session *session, uint32_t count, json_t *segments,
                          const struct xv_call *call, xvsa_error **error)
{
    int rc = 0;
    for (uint32_t done = 0; rc == 0 && done < count;) {
        uint32_t left = count - done;
        uint32_t limit = left < XV_SEGMENT_ENTRIES_MAX ? left : XV_SEGMENT_ENTRIES_MAX;
        uint32_t written = 0;
        rc = write_segment(session, done, limit, segments, &written, call, error);
        done += written;
    }
    return rc;
}

int xv_progress_put(struct xv_progress_batch *batch, const char *disk, uint8_t content,
                    uint8_t *body, size_t length, const struct xv_call *call, xvsa_error **error)
{
    struct xv_repo *repo = batch->session->repo;
    uint8_t id[XV_HANDLE_BYTES];
    uint8_t digest[32];
    char name[XV_NAME_BYTES];
    char hex[65];
    uint8_t *data = NULL;
    size_t sealed = 0;
    int rc = xv_random(id, sizeof id, error);
    xv_handle_name("w", id, name);
    if (rc == 0)
        rc = xv_object_seal(repo->crypt, XV_TYPE_PROGRESS, name, body, length, &data, &sealed,
                            error);
    free(body);
    if (rc == 0 && sealed > XV_PROGRESS_MAX)
        rc = xv_fail(error, XVSA_ERR_LIMIT, "repo", "progress of disk %s would take %zu bytes",
                     disk, sealed);
    if (rc == 0)
        rc = xv_sha256(data, sealed, digest, error);
    xvsa_buffer piece = {data, sealed};
    if (rc == 0)
        rc = xv_target_put(repo->target, name, &piece, 1, 0, call, error);
    free(data);
    if (rc != 0)
        return rc;
    xv_hex_encode(digest, sizeof digest, hex);
    json_t *row = json_pack("{s:o, s:I, s:s, s:s, s:s}", "id", xv_json_handle(id), "length",
                            (json_int_t)sealed, "digest", hex, "content",
                            content == XV_PROGRESS_MAP ? "map" : "done", "key", disk);
    if (row == NULL || json_array_append_new(batch->objects, row) != 0)
        return xv_fail_memory(error);
    return 0;
}

static int make_records(void *user, const struct xv_state *state, json_t *records,
                        xvsa_error **error)
{
    struct xv_progress_batch *batch = user;
    const struct xv_session *session = batch->session;
    int rc = xv_session_check(session, state, error);
    if (rc == 0 && json_array_size(batch->segments) > 0) {
        json_t *record =
            json_pack("{s:i, s:i, s:o, s:O}", "type", XV_RECORD_INDEX_ADD, "flags", 0, "session",
                      xv_json_handle(session->id), "segments", batch->segments);
        if (record == NULL || json_array_append_new(records, record) != 0)
            rc = xv_fail_memory(error);
    }
    if (rc == 0 && json_array_size(batch->objects) > 0) {
        json_t *record = json_pack("{s:i, s:i, s:o, s:o, s:O}", "type", XV_RECORD_PROGRESS, "flags",
                                   0, "session", xv_json_handle(session->id), "work",
                                   xv_json_handle(session->work), "objects", batch->objects);
        if (record == NULL || json_array_append_new(records, record) != 0)
            rc = xv_fail_memory(error);
    }
    return rc;
}

/* Objects that no entry names will never be looked at. */
static void remove_objects(const struct xv_progress_batch *batch, const struct xv_call *call)
{
    struct xv_remains left = {.ids = calloc(json_array_size(batch->objects) + 1, sizeof *left.ids)};
    size_t i;
    json_t *row;
    json_array_foreach(batch->objects, i, row)
    {
        if (left.ids != NULL &&
            xv_json_hex(row, "id", left.ids[left.count].bytes, XV_HANDLE_BYTES) == 0)
            left.count++;
    }
    xv_remains_remove(&left, batch->session->repo, call);
}

int xv_progress_append(struct xv_progress_batch *batch, const struct xv_call *call,
                       xvsa_error **error)
{
    struct xv_session *session = batch->session;
    struct xv_repo *repo = session->repo;
    unsigned records = json_array_size(batch->segments) > 0 ? 1 : 0;
    uint64_t accepted = 0;
    records += json_array_size(batch->objects) > 0 ? 1 : 0;
    if (records == 0)
        return 0;
    int rc = xv_target_barrier(repo->target, call, error);
    if (rc == 0)
        rc = xv_journal_append(repo, make_records, batch, call, &accepted, error);
    if (rc == 0)
        xv_baton_give(&repo->journal);
    if (rc == 0 && accepted != (1u << records) - 1)
        rc = xv_fail(error, XVSA_ERR_FENCED, "repo",
                     "a checkpoint of session %llu of '%s' came too late: it is void",
                     (unsigned long long)session->token, session->job_key);
    if (rc == XVSA_ERR_FENCED)
        remove_objects(batch, call);
    return rc;
}

static int compare_chunks(const void *a, const void *b)
{
    uint64_t x = ((const struct xv_placement *)a)->chunk;
    uint64_t y = ((const struct xv_placement *)b)->chunk;
    return x < y ? -1 : x > y;
}

/* By chunk; of several places of one chunk each is right, since all hold what the disk has there. */
static void sort_placed(struct xv_placed_disk *disk)
{
    uint32_t kept = 0;
    qsort(disk->chunks, disk->count, sizeof *disk->chunks, compare_chunks);
    for (uint32_t i = 0; i < disk->count; i++) {
        if (kept == 0 || disk->chunks[kept - 1].chunk != disk->chunks[i].chunk)
            disk->chunks[kept++] = disk->chunks[i];
    }
    disk->count = kept;
}

static int add_chunks(struct xv_progress_writer *writer, const struct xv_placement *chunks,
                      uint32_t count, xvsa_error **error)
{
    uint64_t next = chunks[0].chunk;
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < count; i++) {
        rc = xv_progress_add_run(writer, XV_PROGRESS_GAP, chunks[i].chunk - next, error);
        if (rc == 0)
            rc = xv_progress_add_run(writer, chunks[i].kind, 1, error);
        if (rc == 0 && chunks[i].kind == XV_KIND_DATA)
            rc = xv_progress_add_ref(writer, &chunks[i].ref, error);
        next = chunks[i].chunk + 1;
    }
    return rc;
}

static int put_done(struct xv_progress_batch *batch, const struct xv_placed_disk *disk,
                    const struct xv_placement *chunks, uint32_t count, const struct xv_call *call,
                    xvsa_error **error)
{
    struct xv_progress head = {.content = XV_PROGRESS_DONE,
                               .base_index = -1,
                               .size = disk->size,
                               .first = chunks[0].chunk,
                               .end = chunks[count - 1].chunk + 1,
                               .key = disk->key,
                               .key_length = (uint32_t)strlen(disk->key)};
    struct xv_progress_writer writer = {0};
    uint8_t *body = NULL;
    size_t length = 0;
    memcpy(head.session, batch->session->id, XV_HANDLE_BYTES);
    int rc = add_chunks(&writer, chunks, count, error);
    if (rc == 0)
        rc = xv_progress_encode(&head, &writer, &body, &length, error);
    xv_progress_writer_free(&writer);
    if (rc == 0)
        rc = xv_progress_put(batch, disk->key, XV_PROGRESS_DONE, body, length, call, error);
    return rc;
}

static int put_all_done(struct xv_progress_batch *batch, struct xv_placed_disk *taken,
                        const struct xv_call *call, xvsa_error **error)
{
    int rc = 0;
    for (struct xv_placed_disk *disk = taken; rc == 0 && disk != NULL; disk = disk->next) {
        sort_placed(disk);
        for (uint32_t at = 0; rc == 0 && at < disk->count;) {
            uint32_t left = disk->count - at;
            uint32_t count = left < XV_PROGRESS_CHUNKS ? left : XV_PROGRESS_CHUNKS;
            rc = put_done(batch, disk, disk->chunks + at, count, call, error);
            at += count;
        }
    }
    return rc;
}

/* A session that has nothing to tell learns here that it was fenced. */
static int look(struct xv_session *session, const struct xv_call *call, xvsa_error **error)
{
    int rc = xv_journal_enter(session->repo, call, error);
    if (rc != 0)
        return rc;
    rc = xv_session_check(session, &session->repo->state, error);
    xv_baton_give(&session->repo->journal);
    return rc;
}

/* With the checkpoint's baton. taken: what was placed before count was read. */
static int store(struct xv_session *session, uint32_t count, struct xv_placed_disk *taken,
                 const struct xv_call *call, xvsa_error **error)
{
    struct xv_progress_batch batch = {session, json_array(), json_array()};
    int rc = batch.segments == NULL || batch.objects == NULL ? xv_fail_memory(error) : 0;
    if (rc == 0)
        rc = xv_pack_writer_flush(session->data, call, error);
    if (rc == 0)
        rc = xv_pack_writer_flush(session->nodes, call, error);
    if (rc == 0)
        rc = write_segments(session, count, batch.segments, call, error);
    if (rc == 0)
        rc = put_all_done(&batch, taken, call, error);
    bool nothing = json_array_size(batch.segments) + json_array_size(batch.objects) == 0;
    if (rc == 0 && nothing && session->has_work)
        rc = look(session, call, error);
    if (rc == 0)
        rc = xv_progress_append(&batch, call, error);
    if (rc == 0)
        xv_known_indexed(&session->known, count);
    json_decref(batch.segments);
    json_decref(batch.objects);
    return rc;
}

/* With the checkpoint's baton. */
static int make(struct xv_session *session, bool progress, const struct xv_call *call,
                xvsa_error **error)
{
    struct xv_placed_disk *taken = NULL;
    int rc = progress ? xv_placed_take(&session->placed, &taken, error) : 0;
    if (rc != 0)
        return rc;
    /* What is known by now, and hence what was placed, is in packs that the flushes put; what comes
     * meanwhile may not be. A chunk is known before it is placed. */
    pthread_mutex_lock(&session->known.lock);
    uint32_t count = session->known.count - session->known.indexed;
    pthread_mutex_unlock(&session->known.lock);
    rc = store(session, count, taken, call, error);
    if (rc == 0)
        xv_placed_drop(taken);
    else
        xv_placed_return(&session->placed, taken);
    if (rc == 0 && xv_known_count(&session->known) >= XV_KNOWN_MAX) {
        rc = xv_index_sync(session->repo->index, call, error);
        if (rc == 0)
            xv_known_forget(&session->known);
    }
    return rc;
}

int xv_checkpoint_make(struct xv_session *session, bool progress, const struct xv_call *call,
                       xvsa_error **error)
{
    int rc = xv_baton_take(&session->checkpoint, call, error);
    if (rc != 0)
        return rc;
    rc = make(session, progress, call, error);
    xv_baton_give(&session->checkpoint);
    return rc;
}

int xv_session_checkpoint(struct xv_session *session, const struct xv_call *call,
                          xvsa_error **error)
{
    return xv_checkpoint_make(session, true, call, error);
}
