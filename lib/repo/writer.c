/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A disk of a session.
 */
#include <stdlib.h>
#include <zstd.h>

#include "diff/changes.h"
#include "diff/extents.h"
#include "repo/session.h"

uint64_t xv_disk_chunks(uint64_t size, uint32_t chunk_size)
{
    return size / chunk_size + (size % chunk_size != 0);
}

void xv_disk_writer_count(struct xv_disk_writer *writer, const struct xv_store_stats *more)
{
    pthread_mutex_lock(&writer->stats_lock);
    writer->stats.bytes_read += more->bytes_read;
    writer->stats.bytes_kept += more->bytes_kept;
    writer->stats.bytes_zero += more->bytes_zero;
    writer->stats.bytes_same += more->bytes_same;
    writer->stats.bytes_known += more->bytes_known;
    writer->stats.bytes_new += more->bytes_new;
    writer->stats.bytes_stored += more->bytes_stored;
    writer->stats.bytes_adopted += more->bytes_adopted;
    pthread_mutex_unlock(&writer->stats_lock);
}

static int open_base(struct xv_disk_writer *writer, int base_index, xvsa_error **error)
{
    struct xv_point *base = writer->session->base;
    if (base_index < 0)
        return 0;
    if (base == NULL || (size_t)base_index >= base->disk_count)
        return xv_fail(error, XVSA_ERR_INVALID, "repo", "the session's base has no disk %d",
                       base_index);
    const struct xv_stored_disk *disk = &base->disks[base_index];
    writer->base_root = disk->root;
    writer->base_size = disk->facts.size;
    return xv_tree_new(writer->session->repo, &disk->root, &writer->base, error);
}

static void free_disk(struct xv_disk_writer *writer)
{
    xv_grow_free(writer);
    xv_tree_free(writer->base);
    xv_frame_opener_free(writer->opener);
    xv_fetch_free(&writer->fetch);
    ZSTD_freeCCtx(writer->zstd);
    pthread_mutex_destroy(&writer->stats_lock);
    xv_baton_destroy(&writer->tree);
    xv_baton_destroy(&writer->adopting);
    free(writer->have);
    free(writer->key);
    free(writer->device);
    free(writer->metadata);
    free(writer);
}

int xv_session_add_disk(struct xv_session *session, const char *key, const char *device,
                        uint64_t size, int base_index, const struct xv_call *call,
                        struct xv_disk_writer **ret, xvsa_error **error)
{
    if (size > INT64_MAX)
        return xv_fail(error, XVSA_ERR_INVALID, "repo", "disk %s: %llu bytes are too many", key,
                       (unsigned long long)size);
    int rc = xv_call_check(call, "repo", "adding a disk", error);
    if (rc != 0)
        return rc;
    struct xv_disk_writer *writer = calloc(1, sizeof *writer);
    if (writer == NULL)
        return xv_fail_memory(error);
    writer->session = session;
    writer->size = size;
    writer->chunks = xv_disk_chunks(size, xv_repo_chunk_size(session->repo));
    writer->root_level = xv_root_level(writer->chunks);
    writer->root = (struct xv_root){.kind = XV_KIND_HOLE, .level = (uint8_t)writer->root_level};
    xv_baton_init(&writer->tree);
    xv_baton_init(&writer->adopting);
    pthread_mutex_init(&writer->stats_lock, NULL);
    writer->key = strdup(key);
    writer->device = strdup(device);
    writer->zstd = ZSTD_createCCtx();
    if (writer->key == NULL || writer->device == NULL || writer->zstd == NULL)
        rc = xv_fail_memory(error);
    if (rc == 0)
        rc = xv_frame_opener_new(session->repo->crypt, &writer->opener, error);
    if (rc == 0)
        rc = open_base(writer, base_index, error);
    if (rc == 0 && session->has_work)
        rc = xv_placed_disk(&session->placed, key, size, &writer->placed, error);
    if (rc == 0 && session->has_work) {
        writer->have = calloc(1, (size_t)(writer->chunks / 8 + 1));
        if (writer->have == NULL)
            rc = xv_fail_memory(error);
    }
    if (rc != 0) {
        free_disk(writer);
        return rc;
    }
    pthread_mutex_lock(&session->lock);
    writer->next = session->disks;
    session->disks = writer;
    session->disk_count++;
    pthread_mutex_unlock(&session->lock);
    *ret = writer;
    return 0;
}

static int keep_range(struct xv_disk_writer *writer, const struct xv_range *range,
                      struct xv_store_stats *more, const struct xv_call *call, xvsa_error **error)
{
    uint32_t chunk_size = xv_repo_chunk_size(writer->session->repo);
    uint64_t end = range->offset + range->length;
    if (range->offset % chunk_size != 0 || end > writer->size ||
        (end % chunk_size != 0 && end != writer->size))
        return xv_fail(error, XVSA_ERR_INVALID, "repo",
                       "disk %s: a range to keep is not made of whole chunks", writer->key);
    /* A chunk that a smaller disk cuts in two has other content than the base's. */
    if (end == writer->size && end % chunk_size != 0 && writer->base_size > end)
        return xv_fail(error, XVSA_ERR_INVALID, "repo",
                       "disk %s became smaller inside a chunk: its last chunk must be read",
                       writer->key);
    uint64_t base_end = writer->base_size < end ? writer->base_size : end;
    if (range->offset >= base_end)
        return 0;
    more->bytes_kept += base_end - range->offset;
    return xv_grow_keep(writer, range->offset / chunk_size, xv_disk_chunks(end, chunk_size), call,
                        error);
}

int xv_disk_writer_keep(struct xv_disk_writer *writer, const struct xv_extents *ranges,
                        const struct xv_call *call, xvsa_error **error)
{
    if (writer->base == NULL || writer->session->kind == XV_SESSION_PART)
        return xv_fail(error, XVSA_ERR_INVALID, "repo", "disk %s has no %s to keep anything of",
                       writer->key, writer->base == NULL ? "base" : "tree");
    struct xv_store_stats more = {0};
    int rc = xv_baton_take(&writer->tree, call, error);
    if (rc != 0)
        return rc;
    for (size_t i = 0; rc == 0 && i < ranges->count; i++)
        rc = keep_range(writer, &ranges->ranges[i], &more, call, error);
    xv_baton_give(&writer->tree);
    xv_disk_writer_count(writer, &more);
    if (rc != 0)
        xv_fault_disk(error, rc, writer->session->base->id, writer->key);
    return rc;
}

static bool has(const struct xv_disk_writer *writer, uint64_t chunk)
{
    return (writer->have[chunk / 8] >> (chunk % 8) & 1) != 0;
}

static void set_have(struct xv_disk_writer *writer, uint64_t chunk)
{
    writer->have[chunk / 8] |= (uint8_t)(1u << (chunk % 8));
}

int xv_disk_writer_place(struct xv_disk_writer *writer, const struct xv_placement *placements,
                         uint32_t count, const struct xv_call *call, xvsa_error **error)
{
    if (count == 0)
        return 0;
    int rc = xv_baton_take(&writer->tree, call, error);
    if (rc != 0)
        return rc;
    bool tree = writer->session->kind != XV_SESSION_PART;
    for (uint32_t i = 0; rc == 0 && i < count; i++) {
        if (tree)
            rc = xv_grow_place(writer, &placements[i], call, error);
        if (rc == 0 && writer->have != NULL)
            set_have(writer, placements[i].chunk);
    }
    if (rc == 0 && writer->placed != NULL)
        rc = xv_placed_add(&writer->session->placed, writer->placed, placements, count, error);
    xv_baton_give(&writer->tree);
    return rc;
}

int xv_disk_writer_adopt(struct xv_disk_writer *writer, const struct xv_placement *placements,
                         uint32_t count, uint64_t *ret_bytes, const struct xv_call *call,
                         xvsa_error **error)
{
    uint32_t chunk_size = xv_repo_chunk_size(writer->session->repo);
    *ret_bytes = 0;
    int rc = xv_baton_take(&writer->tree, call, error);
    if (rc != 0)
        return rc;
    for (uint32_t i = 0; rc == 0 && i < count; i++) {
        uint64_t offset = placements[i].chunk * chunk_size;
        if (has(writer, placements[i].chunk))
            continue;
        rc = xv_grow_place(writer, &placements[i], call, error);
        if (rc != 0)
            break;
        set_have(writer, placements[i].chunk);
        *ret_bytes += writer->size - offset < chunk_size ? writer->size - offset : chunk_size;
    }
    xv_baton_give(&writer->tree);
    return rc;
}

int xv_disk_writer_have(struct xv_disk_writer *writer, struct xv_extents *ret,
                        const struct xv_call *call, xvsa_error **error)
{
    uint32_t chunk_size = xv_repo_chunk_size(writer->session->repo);
    int rc = xv_baton_take(&writer->tree, call, error);
    if (rc != 0)
        return rc;
    for (uint64_t chunk = 0; rc == 0 && chunk < writer->chunks;) {
        if (writer->have[chunk / 8] == 0) {
            chunk = (chunk / 8 + 1) * 8;
            continue;
        }
        uint64_t offset = chunk * chunk_size;
        uint64_t left = writer->size - offset;
        if (has(writer, chunk))
            rc = xv_extents_add(ret, offset, left < chunk_size ? left : chunk_size, error);
        chunk++;
    }
    xv_baton_give(&writer->tree);
    return rc;
}

static int compare_chunk(struct xv_crypt_tool *tool, const struct xv_node *leaf, uint64_t chunk,
                         const uint8_t *data, size_t length, bool *ret_same, xvsa_error **error)
{
    unsigned at = (unsigned)(chunk % XV_FAN);
    if (leaf->kinds[at] != XV_KIND_DATA) {
        *ret_same = xv_is_zero(data, length);
        return 0;
    }
    uint8_t id[XV_ID_BYTES];
    int rc = xv_chunk_id(tool, data, length, id, error);
    if (rc == 0)
        *ret_same = memcmp(id, leaf->refs[at].id, sizeof id) == 0;
    return rc;
}

int xv_disk_writer_matches_base(struct xv_disk_writer *writer, uint64_t offset, const void *data,
                                size_t length, const struct xv_call *call, bool *ret_same,
                                xvsa_error **error)
{
    uint32_t chunk_size = xv_repo_chunk_size(writer->session->repo);
    if (writer->base == NULL || offset % chunk_size != 0 || offset > writer->size ||
        length > writer->size - offset)
        return xv_fail(error, XVSA_ERR_INVALID, "repo", "disk %s: nothing to compare with at %llu",
                       writer->key, (unsigned long long)offset);
    struct xv_crypt_tool *tool = NULL;
    struct xv_node *leaf = malloc(sizeof *leaf);
    int rc = leaf == NULL ? xv_fail_memory(error)
                          : xv_crypt_tool_new(writer->session->repo->crypt, &tool, error);
    bool same = true;
    uint64_t have = UINT64_MAX;
    for (size_t done = 0; rc == 0 && same && done < length;) {
        uint64_t chunk = (offset + done) / chunk_size;
        size_t piece = length - done < chunk_size ? length - done : chunk_size;
        if (have != chunk / XV_FAN)
            rc = xv_tree_node(writer->base, 0, chunk / XV_FAN, leaf, call, error);
        have = chunk / XV_FAN;
        if (rc == 0)
            rc =
                compare_chunk(tool, leaf, chunk, (const uint8_t *)data + done, piece, &same, error);
        done += piece;
    }
    xv_crypt_tool_free(tool);
    free(leaf);
    if (rc == 0)
        *ret_same = same;
    return rc;
}

int xv_disk_writer_finish(struct xv_disk_writer *writer, const char *metadata,
                          const struct xv_call *call, xvsa_error **error)
{
    if (writer->session->kind == XV_SESSION_PART)
        return xv_fail(error, XVSA_ERR_INVALID, "repo",
                       "disk %s cannot be finished by a session that only takes part", writer->key);
    char *copy = strdup(metadata == NULL ? "{}" : metadata);
    if (copy == NULL)
        return xv_fail_memory(error);
    int rc = xv_baton_take(&writer->tree, call, error);
    if (rc != 0) {
        free(copy);
        return rc;
    }
    if (writer->finished)
        rc = xv_fail(error, XVSA_ERR_STATE, "repo", "disk %s is finished already", writer->key);
    else
        rc = xv_grow_finish(writer, call, error);
    if (rc == 0) {
        writer->metadata = copy;
        writer->finished = true;
    } else {
        free(copy);
    }
    xv_baton_give(&writer->tree);
    return rc;
}

void xv_disk_writer_stats(const struct xv_disk_writer *writer, struct xv_store_stats *ret)
{
    struct xv_disk_writer *w = (struct xv_disk_writer *)writer;
    pthread_mutex_lock(&w->stats_lock);
    *ret = w->stats;
    pthread_mutex_unlock(&w->stats_lock);
}

void xv_disk_writer_free(struct xv_disk_writer *writer)
{
    if (writer == NULL)
        return;
    struct xv_session *session = writer->session;
    pthread_mutex_lock(&session->lock);
    struct xv_disk_writer **at = &session->disks;
    while (*at != NULL && *at != writer)
        at = &(*at)->next;
    if (*at != NULL) {
        *at = writer->next;
        session->disk_count--;
        session->disk_lost = session->disk_lost || writer->finished;
    }
    pthread_mutex_unlock(&session->lock);
    free_disk(writer);
}
