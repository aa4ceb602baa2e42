/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Works: maps of what is to be done, what is done, and taking it over. Progress is a hint of what need not be moved
 * again: an object of it that is missing or damaged costs time, nothing else.
 */
#include "repo/work.h"

#include <stdlib.h>

#include "diff/extents.h"
#include "repo/progress.h"
#include "repo/session.h"

#define BATCH 128u

/* Leftovers --------------------------------------------------------------------------------------- */

static int collect(struct xv_remains *left, const struct xv_work *work, xvsa_error **error)
{
    if (work->fact_count == 0)
        return 0;
    struct xv_handle *grown = realloc(left->ids, (left->count + work->fact_count) * sizeof *grown);
    if (grown == NULL)
        return xv_fail_memory(error);
    left->ids = grown;
    for (size_t i = 0; i < work->fact_count; i++)
        grown[left->count++] = work->facts[i].id;
    return 0;
}

int xv_remains_collect(struct xv_remains *left, const struct xv_state *state, const uint8_t *id,
                       xvsa_error **error)
{
    const struct xv_work *work = xv_state_work(state, id);
    left->count = 0;
    return work == NULL ? 0 : collect(left, work, error);
}

int xv_remains_collect_others(struct xv_remains *left, const struct xv_state *state,
                              const char *key, const uint8_t *id, xvsa_error **error)
{
    int rc = 0;
    left->count = 0;
    for (size_t i = 0; rc == 0 && i < state->work_count; i++) {
        const struct xv_work *work = &state->works[i];
        bool same = id != NULL && memcmp(work->id.bytes, id, XV_HANDLE_BYTES) == 0;
        if (!same && strcmp(work->key, key) == 0)
            rc = collect(left, work, error);
    }
    return rc;
}

void xv_remains_remove(struct xv_remains *left, struct xv_repo *repo, const struct xv_call *call)
{
    size_t failed = 0;
    for (size_t i = 0; i < left->count; i++) {
        char name[XV_NAME_BYTES];
        xv_handle_name("w", left->ids[i].bytes, name);
        if (xv_call_check(call, "repo", "removing progress", NULL) != 0) {
            failed += left->count - i;
            break;
        }
        int rc = xv_target_remove(repo->target, name, call, NULL);
        failed += rc != 0 && rc != XVSA_ERR_NOT_FOUND;
    }
    if (failed > 0)
        xv_log(repo->env, XVSA_LOG_INFO, "repo", "%zu of %zu objects of a work that is over stay",
               failed, left->count);
    free(left->ids);
    *left = (struct xv_remains){0};
}

/* Reading objects --------------------------------------------------------------------------------- */

/* An object of a work as read. */
struct told {
    struct xv_progress progress;
    uint8_t *body; /* what progress points into; NULL: it cannot be read */
};

static int read_told(struct xv_repo *repo, const struct xv_work_fact *fact, struct told *ret,
                     const struct xv_call *call, xvsa_error **error)
{
    char name[XV_NAME_BYTES];
    uint8_t *data = NULL;
    uint64_t length = 0;
    size_t body_length = 0;
    uint8_t digest[32];
    xv_handle_name("w", fact->id.bytes, name);
    int rc = xv_target_get_all(repo->target, name, XV_PROGRESS_MAX, &data, &length, call, error);
    if (rc != 0)
        return rc;
    rc = xv_sha256(data, (size_t)length, digest, error);
    if (rc == 0 && memcmp(digest, fact->digest, sizeof digest) != 0)
        rc = xv_fault(error, name, "it is not what the journal names");
    if (rc == 0)
        rc = xv_object_unseal(repo->crypt, XV_TYPE_PROGRESS, name, data, (size_t)length, &ret->body,
                              &body_length, error);
    free(data);
    if (rc == 0)
        rc = xv_progress_decode(name, ret->body, body_length, xv_repo_chunk_size(repo),
                                &ret->progress, error);
    if (rc == 0 && (ret->progress.content != (uint8_t)fact->content ||
                    ret->progress.key_length != strlen(fact->disk) ||
                    memcmp(ret->progress.key, fact->disk, ret->progress.key_length) != 0))
        rc = xv_fault(error, name, "it tells of something else than the journal says");
    return rc;
}

/* Reads an object; ret->body stays NULL when it is missing or damaged, which is logged. */
static int try_told(struct xv_repo *repo, const struct xv_work_fact *fact, struct told *ret,
                    const struct xv_call *call, xvsa_error **error)
{
    xvsa_error *e = NULL;
    *ret = (struct told){0};
    int rc = read_told(repo, fact, ret, call, &e);
    if (rc == 0)
        return 0;
    free(ret->body);
    ret->body = NULL;
    if (rc == XVSA_ERR_NOT_FOUND || xv_fault_is_damage(rc)) {
        xv_log(repo->env, XVSA_LOG_WARNING, "repo", "progress on disk %s is left out: %s",
               fact->disk, xvsa_error_message(e));
        xvsa_error_unref(e);
        return 0;
    }
    if (error != NULL)
        *error = e;
    else
        xvsa_error_unref(e);
    return rc;
}

/* Facts of a disk, copied out of the state. */
struct facts {
    struct xv_work_fact *list; /* disk is the key that was asked for */
    size_t count;
    size_t seen;     /* facts of the work so far, of all disks */
    uint64_t opened; /* of the work */
};

/* With the journal's baton. From fact number from on. */
static int copy_facts(const struct xv_work *work, const char *key, enum xv_work_content content,
                      size_t from, struct facts *ret, xvsa_error **error)
{
    *ret = (struct facts){.seen = work->fact_count, .opened = work->opened};
    if (from >= work->fact_count)
        return 0;
    ret->list = malloc((work->fact_count - from) * sizeof *ret->list);
    if (ret->list == NULL)
        return xv_fail_memory(error);
    for (size_t i = from; i < work->fact_count; i++) {
        const struct xv_work_fact *fact = &work->facts[i];
        if (fact->content != content || strcmp(fact->disk, key) != 0)
            continue;
        ret->list[ret->count] = *fact;
        ret->list[ret->count++].disk = (char *)key;
    }
    return 0;
}

static int parse_work(const char *work_id, uint8_t *ret, xvsa_error **error)
{
    if (work_id == NULL || strlen(work_id) != 2 * XV_HANDLE_BYTES ||
        xv_hex_decode(work_id, ret, XV_HANDLE_BYTES) != 0)
        return xv_fail(error, XVSA_ERR_INVALID, "repo", "a work is named by 32 hex digits");
    return 0;
}

/* Maps -------------------------------------------------------------------------------------------- */

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
        uint64_t offset = run.first * chunk_size;
        uint64_t length = run.count * chunk_size;
        if (length > progress->size - offset)
            length = progress->size - offset;
        if ((run.kind & XV_PROGRESS_READ) != 0)
            rc = xv_extents_add(&map->read, offset, length, error);
        if (rc == 0 && (run.kind & XV_PROGRESS_KEEP) != 0)
            rc = xv_extents_add(&map->keep, offset, length, error);
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
        struct told told;
        rc = try_told(repo, &parts[i], &told, call, error);
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
    struct facts facts = {0};
    bool whole = false;
    *ret = (struct xv_work_map){.base_index = -1};
    int rc = parse_work(work_id, id, error);
    if (rc == 0)
        rc = xv_journal_enter(repo, call, error);
    if (rc != 0)
        return rc;
    const struct xv_work *work = xv_state_work(&repo->state, id);
    if (work != NULL)
        rc = copy_facts(work, key, XV_WORK_MAP, 0, &facts, error);
    xv_baton_give(&repo->journal);
    size_t first = facts.count;
    while (first > 0 && facts.list[first - 1].record == facts.list[facts.count - 1].record)
        first--;
    if (rc == 0)
        rc = read_map(repo, facts.list + first, facts.count - first, ret, &whole, call, error);
    if (rc == 0 && !whole)
        rc = xv_fail(error, XVSA_ERR_NOT_FOUND, "repo", "work %s has no map of disk %s%s", work_id,
                     key, facts.count > 0 ? " that can be read" : "");
    free(facts.list);
    if (rc != 0)
        xv_work_map_free(ret);
    return rc;
}

/* What is done ------------------------------------------------------------------------------------- */

static int add_done(struct xv_extents *done, const struct xv_progress *progress,
                    uint32_t chunk_size, xvsa_error **error)
{
    struct xv_progress_run run;
    int rc = 0;
    xv_progress_begin(&run, progress);
    while (rc == 0 && xv_progress_next(&run)) {
        uint64_t offset = run.first * chunk_size;
        uint64_t length = run.count * chunk_size;
        if (length > progress->size - offset)
            length = progress->size - offset;
        if (run.kind != XV_PROGRESS_GAP)
            rc = xv_extents_add(done, offset, length, error);
    }
    return rc;
}

int xv_work_done(struct xv_repo *repo, const char *work_id, const char *key,
                 const struct xv_call *call, struct xv_extents *ret, xvsa_error **error)
{
    uint8_t id[XV_HANDLE_BYTES];
    struct facts facts = {0};
    int rc = parse_work(work_id, id, error);
    if (rc == 0)
        rc = xv_journal_enter(repo, call, error);
    if (rc != 0)
        return rc;
    const struct xv_work *work = xv_state_work(&repo->state, id);
    if (work != NULL)
        rc = copy_facts(work, key, XV_WORK_DONE, 0, &facts, error);
    xv_baton_give(&repo->journal);
    for (size_t i = 0; rc == 0 && i < facts.count; i++) {
        struct told told;
        rc = try_told(repo, &facts.list[i], &told, call, error);
        if (rc == 0 && told.body != NULL)
            rc = add_done(ret, &told.progress, xv_repo_chunk_size(repo), error);
        free(told.body);
    }
    free(facts.list);
    return rc;
}

/* Adopting ----------------------------------------------------------------------------------------- */

/* Places the chunks of an object, those in packs that the index does not have left out. */
static int adopt_chunks(struct xv_disk_writer *writer, const struct xv_progress *progress,
                        const bool *known, const struct xv_call *call, xvsa_error **error)
{
    struct xv_placement batch[BATCH];
    struct xv_store_stats more = {0};
    struct xv_progress_run run;
    uint32_t count = 0;
    int rc = 0;
    xv_progress_begin(&run, progress);
    while (rc == 0 && xv_progress_next(&run)) {
        for (uint64_t i = 0; rc == 0 && run.kind != XV_PROGRESS_GAP && i < run.count; i++) {
            struct xv_placement *placement = &batch[count];
            uint64_t bytes = 0;
            *placement = (struct xv_placement){.chunk = run.first + i, .kind = run.kind};
            if (run.kind == XV_KIND_DATA) {
                xv_progress_ref(&run, i, &placement->ref);
                if (!known[xv_progress_pack(&run, i)])
                    continue;
            }
            if (++count < BATCH)
                continue;
            rc = xv_disk_writer_adopt(writer, batch, count, &bytes, call, error);
            more.bytes_adopted += bytes;
            count = 0;
        }
    }
    if (rc == 0) {
        uint64_t bytes = 0;
        rc = xv_disk_writer_adopt(writer, batch, count, &bytes, call, error);
        more.bytes_adopted += bytes;
    }
    xv_disk_writer_count(writer, &more);
    return rc;
}

static int adopt_object(struct xv_disk_writer *writer, const struct xv_work_fact *fact,
                        const struct xv_call *call, xvsa_error **error)
{
    struct xv_repo *repo = writer->session->repo;
    struct told told;
    int rc = try_told(repo, fact, &told, call, error);
    if (rc != 0 || told.body == NULL)
        return rc;
    const struct xv_progress *progress = &told.progress;
    bool *known = calloc((size_t)progress->pack_count + 1, sizeof *known);
    if (known == NULL)
        rc = xv_fail_memory(error);
    uint32_t missing = 0;
    for (uint32_t i = 0; rc == 0 && i < progress->pack_count; i++) {
        known[i] = xv_index_has_pack(repo->index, progress->packs + (size_t)i * XV_HANDLE_BYTES);
        missing += !known[i];
    }
    if (missing > 0)
        xv_log(repo->env, XVSA_LOG_WARNING, "repo",
               "%u packs with chunks of disk %s are not in the index: those are moved again",
               missing, writer->key);
    /* A disk of another size is another disk, whatever its key says. */
    if (rc == 0 && progress->size == writer->size)
        rc = adopt_chunks(writer, progress, known, call, error);
    free(known);
    free(told.body);
    return rc;
}

/* What the journal tells beyond what this writer has dealt with. */
static int new_facts(struct xv_disk_writer *writer, struct facts *ret, const struct xv_call *call,
                     xvsa_error **error)
{
    struct xv_session *session = writer->session;
    int rc = xv_journal_enter(session->repo, call, error);
    if (rc != 0)
        return rc;
    const struct xv_work *work = xv_state_work(&session->repo->state, session->work);
    rc = xv_session_check(session, &session->repo->state, error);
    if (rc == 0)
        rc = copy_facts(work, writer->key, XV_WORK_DONE, writer->adopted, ret, error);
    xv_baton_give(&session->repo->journal);
    return rc;
}

static int adopt(struct xv_disk_writer *writer, const struct xv_call *call, xvsa_error **error)
{
    struct xv_session *session = writer->session;
    struct facts facts = {0};
    int rc = new_facts(writer, &facts, call, error);
    /* Packs that progress names are indexed by the same entry. */
    if (rc == 0 && facts.count > 0)
        rc = xv_index_sync(session->repo->index, call, error);
    for (size_t i = 0; rc == 0 && i < facts.count; i++) {
        /* What this session did itself is in the tree. */
        if (memcmp(facts.list[i].session.bytes, session->id, XV_HANDLE_BYTES) != 0)
            rc = adopt_object(writer, &facts.list[i], call, error);
    }
    if (rc == 0)
        writer->adopted = facts.seen;
    free(facts.list);
    return rc;
}

int xv_work_adopt(struct xv_disk_writer *writer, const struct xv_call *call, struct xv_extents *ret,
                  xvsa_error **error)
{
    if (writer->have == NULL || writer->session->kind != XV_SESSION_BACKUP)
        return xv_fail(error, XVSA_ERR_INVALID, "repo",
                       "disk %s: only a backup session with a work adopts progress", writer->key);
    int rc = xv_baton_take(&writer->adopting, call, error);
    if (rc != 0)
        return rc;
    if (writer->finished)
        rc = xv_fail(error, XVSA_ERR_STATE, "repo", "disk %s is finished already", writer->key);
    if (rc == 0)
        rc = adopt(writer, call, error);
    xv_baton_give(&writer->adopting);
    return rc == 0 ? xv_disk_writer_have(writer, ret, call, error) : rc;
}
