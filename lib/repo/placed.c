/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdlib.h>

#include "repo/session.h"

void xv_placed_init(struct xv_placed *placed)
{
    *placed = (struct xv_placed){0};
    pthread_mutex_init(&placed->lock, NULL);
}

void xv_placed_drop(struct xv_placed_disk *taken)
{
    while (taken != NULL) {
        struct xv_placed_disk *next = taken->next;
        free(taken->chunks);
        free(taken->key);
        free(taken);
        taken = next;
    }
}

void xv_placed_free(struct xv_placed *placed)
{
    xv_placed_drop(placed->disks);
    pthread_mutex_destroy(&placed->lock);
}

static struct xv_placed_disk *new_disk(const char *key, uint64_t size)
{
    struct xv_placed_disk *disk = calloc(1, sizeof *disk);
    char *copy = strdup(key);
    if (disk == NULL || copy == NULL) {
        free(disk);
        free(copy);
        return NULL;
    }
    disk->key = copy;
    disk->size = size;
    return disk;
}

int xv_placed_disk(struct xv_placed *placed, const char *key, uint64_t size,
                   struct xv_placed_disk **ret, xvsa_error **error)
{
    pthread_mutex_lock(&placed->lock);
    struct xv_placed_disk *disk = placed->disks;
    while (disk != NULL && (disk->size != size || strcmp(disk->key, key) != 0))
        disk = disk->next;
    if (disk == NULL) {
        disk = new_disk(key, size);
        if (disk != NULL) {
            disk->next = placed->disks;
            placed->disks = disk;
        }
    }
    pthread_mutex_unlock(&placed->lock);
    *ret = disk;
    return disk == NULL ? xv_fail_memory(error) : 0;
}

/* With the lock held. */
static bool append(struct xv_placed_disk *disk, const struct xv_placement *chunks, uint32_t count)
{
    if (disk->count + count > disk->capacity) {
        uint32_t capacity = disk->capacity == 0 ? 256 : disk->capacity;
        while (capacity < disk->count + count)
            capacity *= 2;
        struct xv_placement *grown = realloc(disk->chunks, capacity * sizeof *grown);
        if (grown == NULL)
            return false;
        disk->chunks = grown;
        disk->capacity = capacity;
    }
    memcpy(disk->chunks + disk->count, chunks, count * sizeof *chunks);
    disk->count += count;
    return true;
}

int xv_placed_add(struct xv_placed *placed, struct xv_placed_disk *disk,
                  const struct xv_placement *chunks, uint32_t count, xvsa_error **error)
{
    pthread_mutex_lock(&placed->lock);
    bool room = append(disk, chunks, count);
    placed->count += room ? count : 0;
    pthread_mutex_unlock(&placed->lock);
    return room ? 0 : xv_fail_memory(error);
}

uint32_t xv_placed_count(struct xv_placed *placed)
{
    pthread_mutex_lock(&placed->lock);
    uint32_t count = placed->count;
    pthread_mutex_unlock(&placed->lock);
    return count;
}

int xv_placed_take(struct xv_placed *placed, struct xv_placed_disk **ret, xvsa_error **error)
{
    bool room = true;
    *ret = NULL;
    pthread_mutex_lock(&placed->lock);
    for (struct xv_placed_disk *disk = placed->disks; room && disk != NULL; disk = disk->next) {
        if (disk->count == 0)
            continue;
        struct xv_placed_disk *taken = new_disk(disk->key, disk->size);
        room = taken != NULL;
        if (!room)
            break;
        taken->chunks = disk->chunks;
        taken->count = disk->count;
        taken->capacity = disk->capacity;
        taken->next = *ret;
        *ret = taken;
        placed->count -= disk->count;
        disk->chunks = NULL;
        disk->count = disk->capacity = 0;
    }
    pthread_mutex_unlock(&placed->lock);
    if (room)
        return 0;
    xv_placed_return(placed, *ret);
    *ret = NULL;
    return xv_fail_memory(error);
}

void xv_placed_return(struct xv_placed *placed, struct xv_placed_disk *taken)
{
    pthread_mutex_lock(&placed->lock);
    for (struct xv_placed_disk *disk = taken; disk != NULL; disk = disk->next) {
        struct xv_placed_disk *to = placed->disks;
        while (to->size != disk->size || strcmp(to->key, disk->key) != 0)
            to = to->next;
        /* What came meanwhile is newer. Without memory it is not told of, and moved again later. */
        if (to->count > 0 && !append(disk, to->chunks, to->count))
            continue;
        placed->count += disk->count - to->count;
        free(to->chunks);
        to->chunks = disk->chunks;
        to->count = disk->count;
        to->capacity = disk->capacity;
        disk->chunks = NULL;
    }
    pthread_mutex_unlock(&placed->lock);
    xv_placed_drop(taken);
}
