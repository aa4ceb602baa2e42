/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The JSON documents "repo", "points" and "point" (docs/documents.md).
 */
#include <stdlib.h>

#include "repo/internal.h"

static int print(json_t *document, char **ret, xvsa_error **error)
{
    char *text = document == NULL ? NULL : json_dumps(document, JSON_INDENT(2));
    json_decref(document);
    if (text == NULL)
        return xv_fail_memory(error);
    *ret = text;
    return 0;
}

/* Text that is JSON as what it says, other text as a string. */
static json_t *embed(const char *text)
{
    json_error_t why;
    json_t *value = json_loads(text, JSON_DECODE_ANY, &why);
    return value != NULL ? value : json_string(text);
}

static const char *writers(const struct xv_repo *repo)
{
    if ((repo->flags & XVSA_REPO_READ_ONLY) != 0)
        return "none";
    if (repo->if_absent)
        return "any";
    return repo->lock_fd >= 0 ? "one-machine" : "none";
}

/* Bytes of all objects below a name. */
static int32_t add_size(void *sink, const char *name, const xvsa_object_info *info)
{
    (void)name;
    uint64_t *totals = sink;
    totals[0]++;
    totals[1] += info->length;
    return 0;
}

static int describe_space(struct xv_repo *repo, json_t *document, const struct xv_call *call,
                          xvsa_error **error)
{
    uint64_t totals[2] = {0, 0};
    uint64_t total, available;
    int rc = xv_target_list(repo->target, "", add_size, totals, call, error);
    if (rc != 0)
        return rc;
    json_object_set_new(document, "objects", json_integer((json_int_t)totals[0]));
    json_object_set_new(document, "bytes", json_integer((json_int_t)totals[1]));
    xvsa_error *ignored = NULL;
    if (xv_target_space(repo->target, &total, &available, call, &ignored) == 0) {
        json_object_set_new(document, "target_bytes", json_integer((json_int_t)total));
        json_object_set_new(document, "target_free_bytes", json_integer((json_int_t)available));
    }
    xvsa_error_unref(ignored);
    return 0;
}

/* With the journal's baton. */
static json_t *describe_state(struct xv_repo *repo)
{
    const struct xv_state *state = &repo->state;
    uint64_t entries = 0;
    json_t *sessions = json_array();
    for (size_t i = 0; i < state->segment_count; i++)
        entries += state->segments[i].entries;
    for (size_t i = 0; i < state->session_count; i++) {
        const struct xv_active_session *session = &state->sessions[i];
        json_array_append_new(
            sessions, json_pack("{s:s, s:s, s:I, s:s}", "kind", session->kind, "key", session->key,
                                "token", (json_int_t)session->token, "owner", session->owner));
    }
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:o, s:b, s:s*}", "journal_entries",
                     (json_int_t)state->tail, "points", (json_int_t)state->point_count,
                     "index_segments", (json_int_t)state->segment_count, "damaged_segments",
                     (json_int_t)xv_index_damaged(repo->index), "indexed", (json_int_t)entries,
                     "sessions", sessions, "damaged", repo->damage != NULL, "damage",
                     repo->damage == NULL ? NULL : xvsa_error_message(repo->damage));
}

int xv_repo_describe(struct xv_repo *repo, const struct xv_call *call, char **ret,
                     xvsa_error **error)
{
    int rc = xv_baton_take(&repo->journal, call, error);
    if (rc != 0)
        return rc;
    rc = xv_journal_refresh(repo, call, error);
    json_t *state = rc == 0 ? describe_state(repo) : NULL;
    xv_baton_give(&repo->journal);
    if (rc != 0)
        return rc;
    const struct xv_config *config = &repo->config;
    json_t *document =
        json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:b, s:s, s:s}", "id", repo->id, "url",
                  xv_target_url(repo->target), "created_ms", (json_int_t)config->created_ms,
                  "chunk_size", (json_int_t)xv_repo_chunk_size(repo), "frame_size",
                  (json_int_t)config->frame_target, "pack_size", (json_int_t)config->pack_target,
                  "encrypted", config->cipher != XV_CIPHER_NONE, "conditional_writes",
                  (repo->flags & XVSA_REPO_READ_ONLY) != 0 ? "unknown"
                  : repo->if_absent                        ? "yes"
                                                           : "no",
                  "writers", writers(repo));
    if (document == NULL || state == NULL || json_object_update(document, state) != 0)
        rc = xv_fail_memory(error);
    json_decref(state);
    if (rc == 0)
        rc = describe_space(repo, document, call, error);
    if (rc != 0) {
        json_decref(document);
        return rc;
    }
    return print(document, ret, error);
}

static bool is_of(const struct xv_point_summary *point, const char *vm)
{
    return vm == NULL ||
           strcmp(vm, json_string_value(json_object_get(point->record, "vm_uuid"))) == 0 ||
           strcmp(vm, json_string_value(json_object_get(point->record, "vm_name"))) == 0;
}

static json_t *describe_summary(const struct xv_point_summary *point)
{
    const json_t *record = point->record;
    return json_pack(
        "{s:o, s:{s:O, s:O}, s:O, s:O, s:I, s:O, s:O, s:O}", "id", xv_json_handle(point->id.bytes),
        "vm", "uuid", json_object_get(record, "vm_uuid"), "name",
        json_object_get(record, "vm_name"), "pool", json_object_get(record, "pool_uuid"),
        "taken_ms", json_object_get(record, "taken"), "committed_ms",
        (json_int_t)point->committed_ms, "disk_count", json_object_get(record, "disks"), "size",
        json_object_get(record, "size"), "bytes_stored", json_object_get(record, "stored"));
}

static int compare_summaries(const void *a, const void *b)
{
    const struct xv_point_summary *x = *(const struct xv_point_summary *const *)a;
    const struct xv_point_summary *y = *(const struct xv_point_summary *const *)b;
    json_int_t tx = json_integer_value(json_object_get(x->record, "taken"));
    json_int_t ty = json_integer_value(json_object_get(y->record, "taken"));
    if (tx != ty)
        return tx < ty ? -1 : 1;
    return x < y ? -1 : x > y;
}

/* With the journal's baton. */
static json_t *describe_points(const struct xv_state *state, const char *vm)
{
    const struct xv_point_summary **order = calloc(state->point_count + 1, sizeof *order);
    json_t *points = json_array();
    size_t count = 0;
    for (size_t i = 0; order != NULL && i < state->point_count; i++) {
        if (is_of(&state->points[i], vm))
            order[count++] = &state->points[i];
    }
    if (order == NULL || points == NULL) {
        free(order);
        json_decref(points);
        return NULL;
    }
    qsort(order, count, sizeof *order, compare_summaries);
    int failed = 0;
    for (size_t i = 0; i < count; i++)
        failed |= json_array_append_new(points, describe_summary(order[i]));
    free(order);
    if (failed == 0)
        return points;
    json_decref(points);
    return NULL;
}

int xv_repo_list_points(struct xv_repo *repo, const char *vm, const struct xv_call *call,
                        char **ret, xvsa_error **error)
{
    int rc = xv_journal_enter(repo, call, error);
    if (rc != 0)
        return rc;
    json_t *document = describe_points(&repo->state, vm);
    xv_baton_give(&repo->journal);
    return print(document, ret, error);
}

static json_t *describe_disk(const struct xv_stored_disk *disk)
{
    return json_pack("{s:s, s:s, s:I, s:o, s:o}", "key", disk->facts.key, "device",
                     disk->facts.device, "size", (json_int_t)disk->facts.size, "metadata",
                     embed(disk->facts.metadata), "bytes", xv_stats_json(&disk->stats));
}

json_t *xv_point_document(const struct xv_point *point)
{
    json_t *disks = json_array();
    for (size_t i = 0; disks != NULL && i < point->disk_count; i++) {
        if (json_array_append_new(disks, describe_disk(&point->disks[i])) != 0) {
            json_decref(disks);
            disks = NULL;
        }
    }
    return json_pack("{s:s, s:{s:s, s:s}, s:s, s:O, s:I, s:I, s:O*, s:O*, s:o, s:o}", "id",
                     point->id, "vm", "uuid", xv_point_vm_uuid(point), "name",
                     xv_point_vm_name(point), "pool", xv_point_pool_uuid(point), "job",
                     json_object_get(point->body, "job_id"), "taken_ms",
                     (json_int_t)xv_point_taken_ms(point), "committed_ms",
                     (json_int_t)point->committed_ms, "base", json_object_get(point->body, "base"),
                     "bytes_stored", json_object_get(point->body, "stored"), "metadata",
                     embed(xv_point_metadata(point)), "disks", disks);
}

int xv_point_describe(const struct xv_point *point, char **ret, xvsa_error **error)
{
    return print(xv_point_document(point), ret, error);
}

int xv_repo_highest_token(struct xv_repo *repo, const struct xv_call *call, uint64_t *ret,
                          xvsa_error **error)
{
    int rc = xv_baton_take(&repo->journal, call, error);
    if (rc != 0)
        return rc;
    rc = xv_journal_refresh(repo, call, error);
    *ret = 0;
    for (size_t i = 0; rc == 0 && i < repo->state.token_count; i++) {
        if (repo->state.tokens[i].token > *ret)
            *ret = repo->state.tokens[i].token;
    }
    xv_baton_give(&repo->journal);
    return rc;
}
