/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A point's disk as a source of bytes. Decoded frames are kept in a few slots, each used by one thread
 * at a time, so that neighbouring reads decode a frame once.
 */
#include <stdlib.h>

#include "repo/internal.h"

#define SLOTS 8u

struct slot {
    struct xv_baton use; /* held by who uses fetch and opener */
    struct xv_fetch fetch;
    struct xv_frame_opener *opener; /* made when needed */
    struct xv_location
        at;        /* of the frame that is there, or about to be; guarded by the disk's lock */
    uint64_t used; /* likewise */
};

struct point_disk {
    struct xv_disk disk;
    struct xv_point *point;
    const struct xv_stored_disk *stored;
    struct xv_tree *tree;
    uint32_t chunk_size;
    pthread_mutex_t lock; /* guards the choice of slots */
    uint64_t clock;
    struct slot slots[SLOTS];
};

static const struct xv_disk_ops point_disk_ops;

static struct slot *choose_slot(struct point_disk *disk, const struct xv_location *at)
{
    pthread_mutex_lock(&disk->lock);
    struct slot *chosen = &disk->slots[0];
    for (unsigned i = 0; i < SLOTS; i++) {
        struct slot *slot = &disk->slots[i];
        if (slot->used > 0 && slot->at.offset == at->offset &&
            memcmp(slot->at.pack, at->pack, XV_HANDLE_BYTES) == 0) {
            chosen = slot;
            break;
        }
        if (slot->used < chosen->used)
            chosen = slot;
    }
    chosen->at = *at;
    chosen->used = ++disk->clock;
    pthread_mutex_unlock(&disk->lock);
    return chosen;
}

static int copy_chunk(struct point_disk *disk, struct slot *slot, const struct xv_ref *ref,
                      uint32_t extent, uint32_t from, uint8_t *out, uint32_t length,
                      const struct xv_call *call, xvsa_error **error)
{
    const uint8_t *bytes;
    uint32_t have;
    int rc = 0;
    if (slot->opener == NULL)
        rc = xv_frame_opener_new(disk->point->repo->crypt, &slot->opener, error);
    if (rc == 0)
        rc = xv_fetch_ref(disk->point->repo, slot->opener, false, ref, &slot->fetch, &bytes, &have,
                          call, error);
    if (rc == 0 && have > extent)
        rc = xv_fault(error, slot->fetch.object, "a chunk is longer than its place");
    if (rc != 0)
        return rc;
    /* A chunk that is shorter than its place, because the disk grew behind it, is followed by zeros. */
    uint32_t piece = from >= have ? 0 : have - from;
    if (piece > length)
        piece = length;
    memcpy(out, bytes + from, piece);
    memset(out + piece, 0, length - piece);
    return 0;
}

static int read_chunk(struct point_disk *disk, uint64_t chunk, const struct xv_ref *ref,
                      uint32_t from, uint8_t *out, uint32_t length, const struct xv_call *call,
                      xvsa_error **error)
{
    uint64_t left = disk->disk.size - chunk * disk->chunk_size;
    uint32_t extent = left < disk->chunk_size ? (uint32_t)left : disk->chunk_size;
    struct slot *slot = choose_slot(disk, &ref->at);
    int rc = xv_baton_take(&slot->use, call, error);
    if (rc != 0)
        return rc;
    rc = copy_chunk(disk, slot, ref, extent, from, out, length, call, error);
    xv_baton_give(&slot->use);
    return rc;
}

static int blame(const struct point_disk *disk, int rc, xvsa_error **error)
{
    return rc == 0 ? 0 : xv_fault_disk(error, rc, disk->point->id, disk->stored->facts.key);
}

/* Runs of zeros are filled at once, chunks of data copied one by one. */
static int read_runs(struct point_disk *disk, struct xv_run *run, uint64_t offset, uint8_t *out,
                     size_t length, const struct xv_call *call, xvsa_error **error)
{
    uint64_t end = offset + length;
    uint64_t last = xv_disk_chunks(end, disk->chunk_size);
    bool more;
    int rc = xv_run_next(run, last, &more, call, error);
    while (rc == 0 && more) {
        uint64_t begins = run->first * disk->chunk_size;
        uint64_t stops = (run->first + run->count) * disk->chunk_size;
        uint64_t from = begins > offset ? begins : offset;
        uint64_t to = stops < end ? stops : end;
        if (run->kind == XV_KIND_DATA)
            rc = read_chunk(disk, run->first, &run->ref, (uint32_t)(from - begins),
                            out + (from - offset), (uint32_t)(to - from), call, error);
        else
            memset(out + (from - offset), 0, (size_t)(to - from));
        if (rc == 0)
            rc = xv_run_next(run, last, &more, call, error);
    }
    return rc;
}

static int read_disk(struct xv_disk *from, uint64_t offset, void *data, size_t length,
                     const struct xv_call *call, xvsa_error **error)
{
    struct point_disk *disk = (struct point_disk *)from;
    if (offset > from->size || length > from->size - offset)
        return xv_fail(error, XVSA_ERR_INVALID, "repo",
                       "%zu bytes at %llu are beyond the disk's end", length,
                       (unsigned long long)offset);
    struct xv_run *run = malloc(sizeof *run);
    if (run == NULL)
        return xv_fail_memory(error);
    int rc = xv_call_check(call, "repo", "reading a disk", error);
    xv_run_begin(run, disk->tree, xv_disk_chunks(from->size, disk->chunk_size),
                 offset / disk->chunk_size);
    if (rc == 0)
        rc = read_runs(disk, run, offset, data, length, call, error);
    free(run);
    return blame(disk, rc, error);
}

static int find_allocated(struct xv_disk *from, struct xv_extents *ret, const struct xv_call *call,
                          xvsa_error **error)
{
    struct point_disk *disk = (struct point_disk *)from;
    struct xv_run *run = malloc(sizeof *run);
    if (run == NULL)
        return xv_fail_memory(error);
    bool more;
    xv_run_begin(run, disk->tree, xv_disk_chunks(from->size, disk->chunk_size), 0);
    int rc = xv_run_next(run, UINT64_MAX, &more, call, error);
    while (rc == 0 && more) {
        uint64_t begins = run->first * disk->chunk_size;
        uint64_t stops = (run->first + run->count) * disk->chunk_size;
        if (stops > from->size)
            stops = from->size;
        if (run->kind == XV_KIND_DATA)
            rc = xv_extents_add(ret, begins, stops - begins, error);
        if (rc == 0)
            rc = xv_run_next(run, UINT64_MAX, &more, call, error);
    }
    free(run);
    return blame(disk, rc, error);
}

static int stream(struct xv_disk *from, const struct xv_extents *ranges,
                  struct xv_block_queue *queue, void *owner, const struct xv_call *call,
                  xvsa_error **error)
{
    struct point_disk *disk = (struct point_disk *)from;
    struct xv_disk_source source = {.repo = disk->point->repo,
                                    .tree = disk->tree,
                                    .point = disk->point->id,
                                    .disk = disk->stored->facts.key,
                                    .size = from->size};
    return xv_stream_ranges(&source, ranges, queue, owner, call, error);
}

static void close_disk(struct xv_disk *from)
{
    struct point_disk *disk = (struct point_disk *)from;
    for (unsigned i = 0; i < SLOTS; i++) {
        xv_fetch_free(&disk->slots[i].fetch);
        xv_frame_opener_free(disk->slots[i].opener);
        xv_baton_destroy(&disk->slots[i].use);
    }
    xv_tree_free(disk->tree);
    pthread_mutex_destroy(&disk->lock);
    xv_point_unref(disk->point);
    free(disk);
}

static const struct xv_disk_ops point_disk_ops = {
    .transport = "point",
    .read = read_disk,
    .allocated = find_allocated,
    .stream = stream,
    .close = close_disk,
};

int xv_point_open_disk(struct xv_point *point, size_t index, const struct xv_call *call,
                       struct xv_disk **ret, xvsa_error **error)
{
    if (index >= point->disk_count)
        return xv_fail(error, XVSA_ERR_NOT_FOUND, "repo", "restore point %s has no disk %zu",
                       point->id, index);
    int rc = xv_call_check(call, "repo", "opening a disk", error);
    if (rc != 0)
        return rc;
    struct point_disk *disk = calloc(1, sizeof *disk);
    if (disk == NULL)
        return xv_fail_memory(error);
    disk->stored = &point->disks[index];
    disk->disk.ops = &point_disk_ops;
    disk->disk.size = disk->stored->facts.size;
    disk->chunk_size = xv_repo_chunk_size(point->repo);
    disk->point = xv_point_ref(point);
    pthread_mutex_init(&disk->lock, NULL);
    for (unsigned i = 0; i < SLOTS; i++)
        xv_baton_init(&disk->slots[i].use);
    rc = xv_tree_new(point->repo, &disk->stored->root, &disk->tree, error);
    if (rc != 0) {
        close_disk(&disk->disk);
        return rc;
    }
    *ret = &disk->disk;
    return 0;
}

int xv_point_disk_extents(struct xv_disk *from, uint64_t offset, uint64_t length,
                          xvsa_extent *extents, uint32_t count, uint32_t *ret_count,
                          const struct xv_call *call, xvsa_error **error)
{
    struct point_disk *disk = (struct point_disk *)from;
    if (from->ops != &point_disk_ops || offset > from->size || length > from->size - offset)
        return xv_fail(error, XVSA_ERR_INVALID, "repo",
                       "%llu bytes at %llu are beyond the disk's end", (unsigned long long)length,
                       (unsigned long long)offset);
    struct xv_run *run = malloc(sizeof *run);
    if (run == NULL)
        return xv_fail_memory(error);
    uint64_t end = offset + length;
    uint64_t last = length == 0 ? 0 : xv_disk_chunks(end, disk->chunk_size);
    uint32_t stored = 0;
    bool more;
    xv_run_begin(run, disk->tree, xv_disk_chunks(from->size, disk->chunk_size),
                 offset / disk->chunk_size);
    int rc = xv_run_next(run, last, &more, call, error);
    while (rc == 0 && more) {
        uint64_t begins = run->first * disk->chunk_size;
        uint64_t stops = (run->first + run->count) * disk->chunk_size;
        begins = begins > offset ? begins : offset;
        stops = stops < end ? stops : end;
        if (stored > 0 && extents[stored - 1].kind == run->kind) {
            extents[stored - 1].length += stops - begins;
        } else if (stored < count) {
            extents[stored++] = (xvsa_extent){begins, stops - begins, run->kind, 0};
        } else {
            break;
        }
        rc = xv_run_next(run, last, &more, call, error);
    }
    free(run);
    if (rc == 0)
        *ret_count = stored;
    return blame(disk, rc, error);
}
