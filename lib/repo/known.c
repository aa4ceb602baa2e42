/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdlib.h>

#include "repo/session.h"

#define FIRST_SLOTS (1u << 12)

int xv_known_init(struct xv_known *known, xvsa_error **error)
{
    *known = (struct xv_known){.slot_count = FIRST_SLOTS};
    pthread_mutex_init(&known->lock, NULL);
    known->slots = calloc(FIRST_SLOTS, sizeof *known->slots);
    return known->slots == NULL ? xv_fail_memory(error) : 0;
}

void xv_known_free(struct xv_known *known)
{
    free(known->entries);
    free(known->slots);
    pthread_mutex_destroy(&known->lock);
}

/* The slot of an id: where it is or where it would go. Ids are hashes already. */
static uint32_t *slot_of(const struct xv_known *known, uint32_t *slots, uint32_t count,
                         const uint8_t *id)
{
    uint32_t at = xv_get32(id) & (count - 1);
    while (slots[at] != 0 && memcmp(known->entries[slots[at] - 1].ref.id, id, XV_ID_BYTES) != 0)
        at = (at + 1) & (count - 1);
    return &slots[at];
}

static bool rebuild(struct xv_known *known, uint32_t slot_count)
{
    uint32_t *slots = calloc(slot_count, sizeof *slots);
    if (slots == NULL)
        return false;
    for (uint32_t i = 0; i < known->count; i++) {
        if (!known->entries[i].node)
            *slot_of(known, slots, slot_count, known->entries[i].ref.id) = i + 1;
    }
    free(known->slots);
    known->slots = slots;
    known->slot_count = slot_count;
    return true;
}

static bool reserve(struct xv_known *known, uint32_t more)
{
    if (known->count + more > known->capacity) {
        uint32_t capacity = known->capacity == 0 ? 1024 : known->capacity * 2;
        while (capacity < known->count + more)
            capacity *= 2;
        struct xv_segment_entry *entries = realloc(known->entries, capacity * sizeof *entries);
        if (entries == NULL)
            return false;
        known->entries = entries;
        known->capacity = capacity;
    }
    uint32_t slots = known->slot_count;
    while ((known->count + more) * 2 > slots)
        slots *= 2;
    return slots == known->slot_count || rebuild(known, slots);
}

int xv_known_add(struct xv_known *known, const struct xv_segment_entry *entries, uint32_t count,
                 xvsa_error **error)
{
    pthread_mutex_lock(&known->lock);
    bool room = reserve(known, count);
    for (uint32_t i = 0; room && i < count; i++) {
        known->entries[known->count] = entries[i];
        if (!entries[i].node) {
            uint32_t *slot = slot_of(known, known->slots, known->slot_count, entries[i].ref.id);
            /* Two threads may store one chunk at the same time: the first counts. */
            if (*slot != 0)
                continue;
            *slot = known->count + 1;
        }
        known->count++;
    }
    pthread_mutex_unlock(&known->lock);
    return room ? 0 : xv_fail_memory(error);
}

bool xv_known_find(struct xv_known *known, const uint8_t *id, struct xv_ref *ret)
{
    pthread_mutex_lock(&known->lock);
    uint32_t place = *slot_of(known, known->slots, known->slot_count, id);
    if (place != 0)
        *ret = known->entries[place - 1].ref;
    pthread_mutex_unlock(&known->lock);
    return place != 0;
}

uint32_t xv_known_count(struct xv_known *known)
{
    pthread_mutex_lock(&known->lock);
    uint32_t count = known->count;
    pthread_mutex_unlock(&known->lock);
    return count;
}

int xv_known_unindexed(struct xv_known *known, uint32_t skip, uint32_t limit,
                       struct xv_segment_entry **ret, uint32_t *ret_count, xvsa_error **error)
{
    pthread_mutex_lock(&known->lock);
    uint32_t count = known->count - known->indexed - skip;
    if (count > limit)
        count = limit;
    struct xv_segment_entry *copy = count == 0 ? NULL : malloc(count * sizeof *copy);
    if (copy != NULL)
        memcpy(copy, known->entries + known->indexed + skip, count * sizeof *copy);
    pthread_mutex_unlock(&known->lock);
    if (count > 0 && copy == NULL)
        return xv_fail_memory(error);
    *ret = copy;
    *ret_count = count;
    return 0;
}

void xv_known_indexed(struct xv_known *known, uint32_t count)
{
    pthread_mutex_lock(&known->lock);
    known->indexed += count;
    pthread_mutex_unlock(&known->lock);
}

void xv_known_forget(struct xv_known *known)
{
    pthread_mutex_lock(&known->lock);
    uint32_t left = known->count - known->indexed;
    memmove(known->entries, known->entries + known->indexed, left * sizeof *known->entries);
    known->count = left;
    known->indexed = 0;
    memset(known->slots, 0, known->slot_count * sizeof *known->slots);
    for (uint32_t i = 0; i < left; i++) {
        if (!known->entries[i].node)
            *slot_of(known, known->slots, known->slot_count, known->entries[i].ref.id) = i + 1;
    }
    pthread_mutex_unlock(&known->lock);
}
