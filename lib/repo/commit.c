/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Writing a restore point. The commit point is one journal entry that makes the point visible and ends
 * the session.
 */
#include <stdlib.h>

#include "repo/session.h"

struct committing {
    struct xv_session *session;
    const struct xv_point_facts *facts;
    uint8_t id[XV_HANDLE_BYTES];
    uint8_t digest[32];
    uint64_t size;
    uint64_t stored;
    struct xv_remains left; /* of the session's work */
};

static const char *text_of(const char *text)
{
    return text == NULL ? "" : text;
}

static json_t *root_json(const struct xv_root *root)
{
    if (root->kind != XV_KIND_DATA)
        return json_pack("{s:i, s:i}", "kind", root->kind, "level", root->level);
    char id[2 * XV_ID_BYTES + 1];
    xv_hex_encode(root->ref.id, XV_ID_BYTES, id);
    return json_pack("{s:i, s:i, s:s, s:o, s:I, s:I}", "kind", root->kind, "level", root->level,
                     "id", id, "pack", xv_json_handle(root->ref.at.pack), "offset",
                     (json_int_t)root->ref.at.offset, "length", (json_int_t)root->ref.at.length);
}

static json_t *disk_json(struct xv_disk_writer *disk)
{
    struct xv_store_stats stats;
    xv_disk_writer_stats(disk, &stats);
    return json_pack("{s:s, s:s, s:I, s:s, s:o, s:o}", "key", disk->key, "device", disk->device,
                     "size", (json_int_t)disk->size, "metadata", disk->metadata, "root",
                     root_json(&disk->root), "stats", xv_stats_json(&stats));
}

/* Where a disk belongs among those that were added later: by position, "10" after "2". */
static size_t place_of(const json_t *disks, const char *device)
{
    long position = strtol(device, NULL, 10);
    size_t at = 0;
    while (at < json_array_size(disks) &&
           strtol(json_string_value(json_object_get(json_array_get(disks, at), "device")), NULL,
                  10) < position)
        at++;
    return at;
}

/* By position, then in the order the disks were added, which is the reverse of the list. */
static int disks_json(struct committing *committing, json_t **ret, xvsa_error **error)
{
    json_t *disks = json_array();
    struct xv_session *session = committing->session;
    if (disks == NULL)
        return xv_fail_memory(error);
    for (struct xv_disk_writer *disk = session->disks; disk != NULL; disk = disk->next) {
        if (!disk->finished) {
            json_decref(disks);
            return xv_fail(error, XVSA_ERR_STATE, "repo", "disk %s is not finished", disk->key);
        }
        committing->size += disk->size;
        json_t *row = disk_json(disk);
        if (row == NULL || json_array_insert_new(disks, place_of(disks, disk->device), row) != 0) {
            json_decref(disks);
            return xv_fail_memory(error);
        }
    }
    *ret = disks;
    return 0;
}

/* Writes the object of the point. */
static int write_point(struct committing *committing, const struct xv_call *call,
                       xvsa_error **error)
{
    struct xv_session *session = committing->session;
    const struct xv_point_facts *facts = committing->facts;
    char name[XV_NAME_BYTES];
    json_t *disks = NULL;
    int rc = disks_json(committing, &disks, error);
    if (rc != 0)
        return rc;
    xv_handle_name("rp", committing->id, name);
    json_t *body = json_pack("{s:o, s:o, s:s, s:s, s:s, s:s, s:I, s:o*, s:s, s:I, s:o}", "point",
                             xv_json_handle(committing->id), "session", xv_json_handle(session->id),
                             "vm_uuid", text_of(facts->vm_uuid), "vm_name", text_of(facts->vm_name),
                             "pool_uuid", text_of(facts->pool_uuid), "job_id",
                             text_of(facts->job_id), "taken", (json_int_t)facts->taken_ms, "base",
                             session->base == NULL ? NULL : xv_json_handle(session->base->id_bytes),
                             "metadata", facts->metadata == NULL ? "{}" : facts->metadata, "stored",
                             (json_int_t)committing->stored, "disks", disks);
    char *text = body == NULL ? NULL : json_dumps(body, JSON_COMPACT);
    json_decref(body);
    if (text == NULL)
        return xv_fail(error, XVSA_ERR_INVALID, "repo",
                       "the point cannot be described: its texts must be UTF-8");
    uint8_t *data = NULL;
    size_t length = 0;
    rc = xv_object_seal(session->repo->crypt, XV_TYPE_POINT, name, text, strlen(text), &data,
                        &length, error);
    free(text);
    if (rc == 0 && length > XV_POINT_MAX)
        rc = xv_fail(error, XVSA_ERR_LIMIT, "repo", "the description of the point has %zu bytes",
                     length);
    if (rc == 0)
        rc = xv_sha256(data, length, committing->digest, error);
    xvsa_buffer piece = {data, length};
    if (rc == 0)
        rc = xv_target_put(session->repo->target, name, &piece, 1, 0, call, error);
    if (rc == 0)
        rc = xv_target_barrier(session->repo->target, call, error);
    free(data);
    return rc;
}

static int make_commit(void *user, const struct xv_state *state, json_t *records,
                       xvsa_error **error)
{
    struct committing *committing = user;
    const struct xv_point_facts *facts = committing->facts;
    struct xv_session *session = committing->session;
    int rc = xv_session_check(session, state, error);
    if (rc == 0 && session->has_work)
        rc = xv_remains_collect(&committing->left, state, session->work, error);
    if (rc != 0)
        return rc;
    char digest[65];
    xv_hex_encode(committing->digest, sizeof committing->digest, digest);
    json_t *record = json_pack(
        "{s:i, s:i, s:o, s:o, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I}", "type", XV_RECORD_RP_COMMIT,
        "flags", XV_RECORD_STOPS_WRITERS, "session", xv_json_handle(session->id), "point",
        xv_json_handle(committing->id), "digest", digest, "vm_uuid", text_of(facts->vm_uuid),
        "vm_name", text_of(facts->vm_name), "pool_uuid", text_of(facts->pool_uuid), "taken",
        (json_int_t)facts->taken_ms, "size", (json_int_t)committing->size, "stored",
        (json_int_t)committing->stored, "disks", (json_int_t)session->disk_count);
    json_t *end = xv_session_end_record(session->id, "ok");
    if (record == NULL || end == NULL || json_array_append_new(records, record) != 0 ||
        json_array_append_new(records, end) != 0)
        return xv_fail_memory(error);
    return session->has_work ? xv_parts_end(state, session->work, records, error) : 0;
}

static int append_commit(struct committing *committing, const struct xv_call *call,
                         xvsa_error **error)
{
    struct xv_session *session = committing->session;
    uint64_t accepted = 0;
    int rc = xv_journal_append(session->repo, make_commit, committing, call, &accepted, error);
    if (rc == 0)
        xv_baton_give(&session->repo->journal);
    if (rc == 0 && (accepted & 1) == 0)
        rc = xv_fail(error, XVSA_ERR_FENCED, "repo", "the commit of '%s' came too late: it is void",
                     session->job_key);
    if (rc == 0 || rc == XVSA_ERR_FENCED)
        session->ended = true;
    if (rc == 0)
        xv_remains_remove(&committing->left, session->repo, call);
    free(committing->left.ids);
    return rc;
}

int xv_session_commit(struct xv_session *session, const struct xv_point_facts *facts,
                      const struct xv_call *call, char *id, xvsa_error **error)
{
    struct committing committing = {.session = session, .facts = facts};
    if (session->ended)
        return xv_fail(error, XVSA_ERR_STATE, "repo", "the session of '%s' has ended",
                       session->job_key);
    if (session->kind == XV_SESSION_PART)
        return xv_fail(error, XVSA_ERR_INVALID, "repo", "'%s' is part of a work and has no point",
                       session->job_key);
    pthread_mutex_lock(&session->lock);
    bool disk_lost = session->disk_lost;
    pthread_mutex_unlock(&session->lock);
    if (disk_lost)
        return xv_fail(error, XVSA_ERR_STATE, "repo",
                       "a finished disk of '%s' was freed before the commit", session->job_key);
    if (facts->taken_ms < 0)
        return xv_fail(error, XVSA_ERR_INVALID, "repo", "taken_ms is negative");
    int rc = xv_random(committing.id, sizeof committing.id, error);
    if (rc == 0)
        rc = xv_checkpoint_make(session, false, call, error);
    if (rc != 0)
        return rc;
    committing.stored = xv_pack_writer_bytes(session->data) + xv_pack_writer_bytes(session->nodes);
    rc = write_point(&committing, call, error);
    if (rc == 0)
        rc = append_commit(&committing, call, error);
    if (rc == 0)
        xv_hex_encode(committing.id, sizeof committing.id, id);
    return rc;
}
