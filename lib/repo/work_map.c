/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Maps: what is to be done on a disk, the same for everybody who works on it.
 */
#include "repo/work.h"

#include <stdlib.h>

#include "diff/extents.h"
#include "repo/session.h"
#include "repo/work_facts.h"
/* Goes through the chunks of a disk where read or keep begin or end. */
struct sweep {
    const struct xv_extents *sets[2];
    size_t at[2]; /* ranges that ended */
    uint64_t size;
};

/* Which sets have the byte at offset, and up to where that does not change. */
static unsigned sweep_kind(struct sweep *sweep, uint64_t offset, uint64_t *ret_until)
{
    static const unsigned bits[2] = {XV_PROGRESS_READ, XV_PROGRESS_KEEP};
    unsigned kind = 0;
    *ret_until = sweep->size;
    for (int i = 0; i < 2; i++) {
        const struct xv_extents *set = sweep->sets[i];
        while (sweep->at[i] < set->count &&
               set->ranges[sweep->at[i]].offset + set->ranges[sweep->at[i]].length <= offset)
            sweep->at[i]++;
        if (sweep->at[i] == set->count)
            continue;
        const struct xv_range *range = &set->ranges[sweep->at[i]];
        uint64_t edge = range->offset;
        if (range->offset <= offset) {
            kind |= bits[i];
            edge = range->offset + range->length;
        }
        if (edge < *ret_until)
            *ret_until = edge;
    }
    return kind;
}

static int check_extents(const char *key, const struct xv_extents *set, uint64_t size,
                         uint32_t chunk_size, xvsa_error **error)
{
    for (size_t i = 0; i < set->count; i++) {
        const struct xv_range *range = &set->ranges[i];
        uint64_t end = range->offset + range->length;
        if (range->offset % chunk_size != 0 || end > size || end < range->offset ||
            (end % chunk_size != 0 && end != size))
            return xv_fail(error, XVSA_ERR_INVALID, "repo",
                           "disk %s: the map has a range that is not made of whole chunks", key);
    }
    return 0;
}

static int put_maps(struct xv_progress_batch *batch, const struct xv_work_disk *disk,
                    const struct xv_call *call, xvsa_error **error)
{
    uint32_t chunk_size = xv_repo_chunk_size(batch->session->repo);
    struct xv_point *base = disk->base_index < 0 ? NULL : batch->session->base;
    struct sweep sweep = {.sets = {disk->read, disk->keep}, .size = disk->size};
    struct xv_progress head = {.content = XV_PROGRESS_MAP,
                               .base_index = base == NULL ? -1 : disk->base_index,
                               .size = disk->size,
                               .key = disk->key,
                               .device = disk->device,
                               .facts = disk->facts == NULL ? "{}" : disk->facts};
    head.key_length = (uint32_t)strlen(head.key);
    head.device_length = (uint32_t)strlen(head.device);
    head.facts_length = (uint32_t)strlen(head.facts);
    memcpy(head.session, batch->session->id, XV_HANDLE_BYTES);
    if (base != NULL)
        memcpy(head.base, base->id_bytes, XV_HANDLE_BYTES);
    struct xv_progress_writer writer = {0};
    uint64_t offset = 0;
    int rc = 0;
    do {
        while (rc == 0 && offset < disk->size && writer.run_bytes < XV_PROGRESS_RUN_BYTES) {
            uint64_t until = 0;
            unsigned kind = sweep_kind(&sweep, offset, &until);
            uint64_t end = xv_disk_chunks(until, chunk_size);
            rc = xv_progress_add_run(&writer, (uint8_t)kind, end - offset / chunk_size, error);
            offset = until;
            head.end = end;
        }
        uint8_t *body = NULL;
        size_t length = 0;
        if (rc == 0)
            rc = xv_progress_encode(&head, &writer, &body, &length, error);
        if (rc == 0)
            rc = xv_progress_put(batch, disk->key, XV_PROGRESS_MAP, body, length, call, error);
        xv_progress_writer_free(&writer);
        head.first = head.end;
    } while (rc == 0 && offset < disk->size);
    return rc;
}

int xv_work_put_map(struct xv_session *session, const struct xv_work_disk *disk,
                    const struct xv_call *call, xvsa_error **error)
{
    uint32_t chunk_size = xv_repo_chunk_size(session->repo);
    struct xv_progress_batch batch = {session, json_array(), json_array()};
    int rc = batch.segments == NULL || batch.objects == NULL ? xv_fail_memory(error) : 0;
    if (rc == 0 && (!session->has_work || session->kind != XV_SESSION_BACKUP))
        rc = xv_fail(error, XVSA_ERR_INVALID, "repo",
                     "disk %s: only a backup session with a work has maps", disk->key);
    if (rc == 0)
        rc = check_extents(disk->key, disk->read, disk->size, chunk_size, error);
    if (rc == 0)
        rc = check_extents(disk->key, disk->keep, disk->size, chunk_size, error);
    if (rc == 0)
        rc = put_maps(&batch, disk, call, error);
    if (rc == 0)
        rc = xv_progress_append(&batch, call, error);
    json_decref(batch.segments);
    json_decref(batch.objects);
    return rc;
}

void xv_work_map_free(struct xv_work_map *map)
{
    free(map->key);
    free(map->device);
    free(map->facts);
    xv_extents_free(&map->read);
    xv_extents_free(&map->keep);
    *map = (struct xv_work_map){0};
}

static int add_part(struct xv_work_map *map, const struct xv_progress *progress,
                    uint32_t chunk_size, xvsa_error **error)
{
    struct xv_progress_run run;
    int rc = 0;
    xv_progress_begin(&run, progress);
    while (rc == 0 && xv_progress_next(&run)) {
        if ((run.kind & XV_PROGRESS_READ) != 0)
            rc = xv_told_add(&map->read, progress, chunk_size, &run, error);
        if (rc == 0 && (run.kind & XV_PROGRESS_KEEP) != 0)
            rc = xv_told_add(&map->keep, progress, chunk_size, &run, error);
    }
    return rc;
}

static int begin_map(struct xv_work_map *map, const struct xv_progress *progress,
                     xvsa_error **error)
{
    static const uint8_t none[XV_HANDLE_BYTES];
    map->key = strndup(progress->key, progress->key_length);
    map->device = strndup(progress->device, progress->device_length);
    map->facts = strndup(progress->facts, progress->facts_length);
    map->size = progress->size;
    map->base_index = progress->base_index > INT32_MAX ? -1 : (int)progress->base_index;
    if (memcmp(progress->base, none, sizeof none) != 0)
        xv_hex_encode(progress->base, XV_HANDLE_BYTES, map->base);
    if (map->key == NULL || map->device == NULL || map->facts == NULL)
        return xv_fail_memory(error);
    return 0;
}

/* Puts the parts of a map together; *ret_whole is false when one cannot be read. */
static int read_map(struct xv_repo *repo, const struct xv_work_fact *parts, size_t count,
                    struct xv_work_map *map, bool *ret_whole, const struct xv_call *call,
                    xvsa_error **error)
{
    uint64_t next = 0;
    int rc = 0;
    *ret_whole = count > 0;
    for (size_t i = 0; rc == 0 && *ret_whole && i < count; i++) {
        struct xv_told told;
        rc = xv_told_read(repo, &parts[i], &told, call, error);
        if (rc != 0)
            return rc;
        const struct xv_progress *progress = &told.progress;
        *ret_whole =
            told.body != NULL && progress->first == next && (i == 0 || progress->size == map->size);
        if (*ret_whole && i == 0)
            rc = begin_map(map, progress, error);
        if (rc == 0 && *ret_whole)
            rc = add_part(map, progress, xv_repo_chunk_size(repo), error);
        next = progress->end;
        free(told.body);
    }
    if (next != xv_disk_chunks(map->size, xv_repo_chunk_size(repo)))
        *ret_whole = false;
    return rc;
}

int xv_work_get_map(struct xv_repo *repo, const char *work_id, const char *key,
                    const struct xv_call *call, struct xv_work_map *ret, xvsa_error **error)
{
    uint8_t id[XV_HANDLE_BYTES];
    struct xv_facts facts = {0};
    bool whole = false;
    *ret = (struct xv_work_map){.base_index = -1};
    int rc = xv_work_parse(work_id, id, error);
    if (rc == 0)
        rc = xv_journal_enter(repo, call, error);
    if (rc != 0)
        return rc;
    const struct xv_work *work = xv_state_work(&repo->state, id);
    if (work != NULL)
        rc = xv_facts_copy(work, key, XV_WORK_MAP, 0, &facts, error);
    xv_baton_give(&repo->journal);
    size_t first = facts.count;
    while (first > 0 && facts.list[first - 1].record == facts.list[facts.count - 1].record)
        first--;
    if (rc == 0 && facts.count > 0)
        rc = read_map(repo, facts.list + first, facts.count - first, ret, &whole, call, error);
    if (rc == 0 && facts.count == 0)
        rc = xv_fail(error, XVSA_ERR_NOT_FOUND, "repo", "work %s has no map of disk %s", work_id,
                     key);
    else if (rc == 0 && !whole)
        rc = xv_fail(error, XVSA_ERR_CORRUPT, "repo", "the map that work %s has of disk %s is lost",
                     work_id, key);
    free(facts.list);
    if (rc != 0)
        xv_work_map_free(ret);
    return rc;
}
