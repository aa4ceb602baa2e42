/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Looking ids up: filters of all segments in memory, blocks read when a filter says that they may have
 * it, some of them kept.
 */
#include <pthread.h>
#include <stdlib.h>

#include "repo/internal.h"

#define CACHE_SLOTS 1024u /* of 4 KiB */

struct cached {
    const struct xv_segment *segment; /* NULL: empty */
    uint32_t block;
    uint8_t data[XV_SEGMENT_BLOCK];
};

struct xv_index {
    struct xv_repo *repo;
    struct xv_baton loading; /* held while segments are being loaded; guards known */
    size_t known;            /* how many of the journal's segments were dealt with */
    pthread_mutex_t lock;    /* guards what follows; segments themselves never change or go */
    struct xv_segment **segments;
    size_t count;
    struct xv_handle *packs; /* of chunks, in the segments: open addressing; zeros: empty */
    size_t pack_slots;       /* a power of two, or 0 */
    size_t pack_count;
    uint32_t damaged;
    struct cached *cache; /* CACHE_SLOTS, made when needed */
};

int xv_index_new(struct xv_repo *repo, struct xv_index **ret, xvsa_error **error)
{
    struct xv_index *index = calloc(1, sizeof *index);
    if (index == NULL)
        return xv_fail_memory(error);
    index->repo = repo;
    xv_baton_init(&index->loading);
    pthread_mutex_init(&index->lock, NULL);
    *ret = index;
    return 0;
}

void xv_index_free(struct xv_index *index)
{
    if (index == NULL)
        return;
    for (size_t i = 0; i < index->count; i++) {
        xv_segment_free(index->segments[i]);
        free(index->segments[i]);
    }
    free(index->segments);
    free(index->packs);
    free(index->cache);
    pthread_mutex_destroy(&index->lock);
    xv_baton_destroy(&index->loading);
    free(index);
}

int xv_index_load(struct xv_repo *repo, const struct xv_segment_fact *fact, struct xv_segment *ret,
                  const struct xv_call *call, xvsa_error **error)
{
    char name[XV_NAME_BYTES];
    xv_handle_name("ix", fact->id.bytes, name);
    if (fact->head == 0 || fact->head > XV_OBJECT_MAX)
        return xv_fault(error, name, "the journal gives it an impossible size");
    uint8_t *data = malloc(fact->head);
    if (data == NULL)
        return xv_fail_memory(error);
    int rc = xv_target_get(repo->target, name, 0, data, fact->head, call, error);
    if (rc == 0)
        rc = xv_segment_decode(repo->crypt, fact->id.bytes, data, fact->head, ret, error);
    free(data);
    return rc;
}

/* The slot of a pack: where it is or where it would go. Handles are random already. */
static struct xv_handle *pack_slot(struct xv_handle *packs, size_t slots, const uint8_t *pack)
{
    static const struct xv_handle empty;
    size_t at = xv_get32(pack) & (slots - 1);
    while (memcmp(&packs[at], &empty, sizeof empty) != 0 &&
           memcmp(packs[at].bytes, pack, XV_HANDLE_BYTES) != 0)
        at = (at + 1) & (slots - 1);
    return &packs[at];
}

/* Room for more packs. With the lock held; false without memory. */
static bool reserve_packs(struct xv_index *index, size_t more)
{
    static const struct xv_handle empty;
    size_t slots = index->pack_slots == 0 ? 256 : index->pack_slots;
    while ((index->pack_count + more) * 2 > slots)
        slots *= 2;
    if (slots == index->pack_slots)
        return true;
    struct xv_handle *packs = calloc(slots, sizeof *packs);
    if (packs == NULL)
        return false;
    for (size_t i = 0; i < index->pack_slots; i++) {
        if (memcmp(&index->packs[i], &empty, sizeof empty) != 0)
            *pack_slot(packs, slots, index->packs[i].bytes) = index->packs[i];
    }
    free(index->packs);
    index->packs = packs;
    index->pack_slots = slots;
    return true;
}

/* With the lock held. */
static void add_packs(struct xv_index *index, const struct xv_segment *segment)
{
    static const struct xv_handle empty;
    for (uint32_t i = 0; i < segment->packs; i++) {
        if (segment->pack_table[i].nodes)
            continue;
        struct xv_handle *slot =
            pack_slot(index->packs, index->pack_slots, segment->pack_table[i].id);
        index->pack_count += memcmp(slot, &empty, sizeof empty) == 0;
        memcpy(slot->bytes, segment->pack_table[i].id, XV_HANDLE_BYTES);
    }
}

bool xv_index_has_pack(struct xv_index *index, const uint8_t *pack)
{
    static const struct xv_handle empty;
    pthread_mutex_lock(&index->lock);
    bool found = index->pack_slots > 0 && memcmp(pack_slot(index->packs, index->pack_slots, pack),
                                                 &empty, sizeof empty) != 0;
    pthread_mutex_unlock(&index->lock);
    return found;
}

static int add_segment(struct xv_index *index, const struct xv_segment *segment, xvsa_error **error)
{
    struct xv_segment *copy = malloc(sizeof *copy);
    if (copy == NULL)
        return xv_fail_memory(error);
    *copy = *segment;
    pthread_mutex_lock(&index->lock);
    struct xv_segment **grown =
        reserve_packs(index, segment->packs)
            ? realloc(index->segments, (index->count + 1) * sizeof *index->segments)
            : NULL;
    if (grown != NULL) {
        index->segments = grown;
        grown[index->count++] = copy;
        add_packs(index, segment);
    }
    pthread_mutex_unlock(&index->lock);
    if (grown == NULL) {
        free(copy);
        return xv_fail_memory(error);
    }
    return 0;
}

static int load_one(struct xv_index *index, const struct xv_segment_fact *fact,
                    const struct xv_call *call, xvsa_error **error)
{
    struct xv_segment segment;
    xvsa_error *e = NULL;
    int rc = xv_index_load(index->repo, fact, &segment, call, &e);
    if (rc == 0) {
        rc = add_segment(index, &segment, error);
        if (rc != 0)
            xv_segment_free(&segment);
        return rc;
    }
    if (xv_fault_is_damage(rc)) {
        /* What it lists is stored again when it is seen again: costs space, loses nothing. */
        xv_log(index->repo->env, XVSA_LOG_WARNING, "repo", "an index segment is left out: %s",
               xvsa_error_message(e));
        xv_error_clear(&e);
        pthread_mutex_lock(&index->lock);
        index->damaged++;
        pthread_mutex_unlock(&index->lock);
        return 0;
    }
    if (error != NULL)
        *error = e;
    else
        xvsa_error_unref(e);
    return rc;
}

/* Copies what the journal names beyond what is known. */
static int new_facts(struct xv_index *index, struct xv_segment_fact **ret, size_t *ret_count,
                     const struct xv_call *call, xvsa_error **error)
{
    struct xv_repo *repo = index->repo;
    int rc = xv_baton_take(&repo->journal, call, error);
    if (rc != 0)
        return rc;
    *ret = NULL;
    *ret_count = repo->state.segment_count - index->known;
    if (*ret_count > 0) {
        *ret = calloc(*ret_count, sizeof **ret);
        if (*ret == NULL)
            rc = xv_fail_memory(error);
        else
            memcpy(*ret, repo->state.segments + index->known, *ret_count * sizeof **ret);
    }
    xv_baton_give(&repo->journal);
    return rc;
}

int xv_index_sync(struct xv_index *index, const struct xv_call *call, xvsa_error **error)
{
    int rc = xv_baton_take(&index->loading, call, error);
    if (rc != 0)
        return rc;
    struct xv_segment_fact *facts = NULL;
    size_t count = 0;
    rc = new_facts(index, &facts, &count, call, error);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        rc = load_one(index, &facts[i], call, error);
        if (rc == 0)
            index->known++;
    }
    free(facts);
    xv_baton_give(&index->loading);
    return rc;
}

static struct cached *slot_of(struct xv_index *index, const struct xv_segment *segment,
                              uint32_t block)
{
    return &index->cache[(xv_get32(segment->id) + block) % CACHE_SLOTS];
}

/* 1: found, 0: not there, -1: the block is not in the cache. */
static int search_cache(struct xv_index *index, const struct xv_segment *segment, uint32_t block,
                        const uint8_t *id, struct xv_segment_entry *ret)
{
    int result = -1;
    pthread_mutex_lock(&index->lock);
    if (index->cache != NULL) {
        struct cached *slot = slot_of(index, segment, block);
        if (slot->segment == segment && slot->block == block)
            result = xv_segment_search(segment, block, slot->data, id, ret) ? 1 : 0;
    }
    pthread_mutex_unlock(&index->lock);
    return result;
}

static void keep_block(struct xv_index *index, const struct xv_segment *segment, uint32_t block,
                       const uint8_t *data)
{
    pthread_mutex_lock(&index->lock);
    if (index->cache == NULL)
        index->cache = calloc(CACHE_SLOTS, sizeof *index->cache);
    if (index->cache != NULL) {
        struct cached *slot = slot_of(index, segment, block);
        slot->segment = segment;
        slot->block = block;
        memcpy(slot->data, data, XV_SEGMENT_BLOCK);
    }
    pthread_mutex_unlock(&index->lock);
}

static int search_segment(struct xv_index *index, struct xv_crypt_tool *tool,
                          const struct xv_segment *segment, const uint8_t *id, bool *ret_found,
                          struct xv_segment_entry *ret, const struct xv_call *call,
                          xvsa_error **error)
{
    uint8_t sealed[XV_SEGMENT_BLOCK];
    uint8_t data[XV_SEGMENT_BLOCK];
    uint32_t block = xv_segment_block_of(segment, id);
    int cached = search_cache(index, segment, block, id, ret);
    if (cached >= 0) {
        *ret_found = cached == 1;
        return 0;
    }
    uint64_t offset = segment->head + (uint64_t)block * XV_SEGMENT_BLOCK;
    xvsa_error *e = NULL;
    int rc =
        xv_target_get(index->repo->target, segment->name, offset, sealed, sizeof sealed, call, &e);
    if (rc == 0)
        rc = xv_segment_open_block(tool, segment, block, sealed, data, &e);
    if (rc == 0) {
        keep_block(index, segment, block, data);
        *ret_found = xv_segment_search(segment, block, data, id, ret);
        return 0;
    }
    if (xv_fault_is_damage(rc)) {
        xv_log(index->repo->env, XVSA_LOG_WARNING, "repo", "a block of the index is left out: %s",
               xvsa_error_message(e));
        xv_error_clear(&e);
        *ret_found = false;
        return 0;
    }
    if (error != NULL)
        *error = e;
    else
        xvsa_error_unref(e);
    return rc;
}

/* The next segment at or after *at whose filter lets the id through; NULL at the end. */
static const struct xv_segment *next_candidate(struct xv_index *index, const uint8_t *id,
                                               size_t *at)
{
    const struct xv_segment *found = NULL;
    pthread_mutex_lock(&index->lock);
    /* Newest first: what was written lately is what is looked for. */
    while (found == NULL && *at < index->count) {
        const struct xv_segment *segment = index->segments[index->count - 1 - *at];
        if (xv_segment_may_have(segment, id))
            found = segment;
        ++*at;
    }
    pthread_mutex_unlock(&index->lock);
    return found;
}

int xv_index_find(struct xv_index *index, struct xv_crypt_tool *tool, const uint8_t *id,
                  bool *ret_found, struct xv_segment_entry *ret, const struct xv_call *call,
                  xvsa_error **error)
{
    *ret_found = false;
    const struct xv_segment *segment;
    for (size_t at = 0; !*ret_found && (segment = next_candidate(index, id, &at)) != NULL;) {
        int rc = search_segment(index, tool, segment, id, ret_found, ret, call, error);
        if (rc != 0)
            return rc;
    }
    return 0;
}

uint32_t xv_index_damaged(struct xv_index *index)
{
    pthread_mutex_lock(&index->lock);
    uint32_t damaged = index->damaged;
    pthread_mutex_unlock(&index->lock);
    return damaged;
}
