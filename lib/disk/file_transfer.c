/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * File disks with several requests under way: a few threads share the ranges of a stream, or the blocks
 * of a queue.
 */
#include <errno.h>
#include <unistd.h>

#include "base/thread.h"
#include "disk/file.h"

#define COMPONENT   "disk"
#define MEMBERS_MAX 64u

struct team {
    struct xv_file_disk *file;
    struct xv_block_queue *queue;
    const struct xv_call *call;
    /* reading */
    const struct xv_extents *ranges;
    void *owner;
    pthread_mutex_t lock; /* guards what follows */
    size_t range;         /* the next piece begins in it, */
    uint64_t done;        /* after so many bytes of it */
    int rc;               /* of the member that failed first */
    xvsa_error *error;
};

static void fail_team(struct team *team, int rc, xvsa_error *error)
{
    pthread_mutex_lock(&team->lock);
    if (team->rc == 0) {
        team->rc = rc;
        team->error = error;
        error = NULL;
    }
    pthread_mutex_unlock(&team->lock);
    xvsa_error_unref(error);
}

/* False when all is given out, or a member failed. block may be NULL: only looks. */
static bool next_piece(struct team *team, struct xv_block *block)
{
    pthread_mutex_lock(&team->lock);
    bool found = team->rc == 0 && team->range < team->ranges->count;
    if (found && block != NULL) {
        const struct xv_range *range = &team->ranges->ranges[team->range];
        uint64_t end = range->offset + range->length;
        block->offset = range->offset + team->done;
        uint64_t stop = xv_disk_piece_end(block->offset, end, block->capacity);
        block->length = (uint32_t)(stop - block->offset);
        block->owner = team->owner;
        team->done += block->length;
        if (stop == end) {
            team->range++;
            team->done = 0;
        }
    }
    pthread_mutex_unlock(&team->lock);
    return found;
}

/* Holds at most one block, and only while it reads: members of many disks cannot block each other. */
static int read_pieces(struct team *team, xvsa_error **error)
{
    while (next_piece(team, NULL)) {
        struct xv_block *block = xv_block_queue_take(team->queue, team->call);
        if (block == NULL)
            return xv_disk_fail_taking(team->call, error);
        if (!next_piece(team, block)) {
            xv_block_queue_release(team->queue, block);
            return 0;
        }
        int rc = xv_file_move(team->file, false, block->offset, block->data, block->length,
                              team->call, error);
        if (rc != 0) {
            xv_block_queue_release(team->queue, block);
            return rc;
        }
        xv_block_queue_push(team->queue, block);
    }
    return 0;
}

static int write_block(struct team *team, const struct xv_block *block, xvsa_error **error)
{
    struct xv_file_disk *file = team->file;
    if (block->offset > file->disk.size || block->length > file->disk.size - block->offset)
        return xv_fail(error, XVSA_ERR_INVALID, COMPONENT,
                       "%u bytes at %llu are not inside %s with %llu bytes", block->length,
                       (unsigned long long)block->offset, file->label,
                       (unsigned long long)file->disk.size);
    return xv_file_move(file, true, block->offset, block->data, block->length, team->call, error);
}

static bool has_failed(struct team *team)
{
    pthread_mutex_lock(&team->lock);
    bool failed = team->rc != 0;
    pthread_mutex_unlock(&team->lock);
    return failed;
}

static int write_blocks(struct team *team, xvsa_error **error)
{
    while (!has_failed(team)) {
        struct xv_block *block = xv_block_queue_pop(team->queue, team->call);
        if (block == NULL)
            break;
        int rc = write_block(team, block, error);
        xv_block_queue_release(team->queue, block);
        if (rc != 0)
            return rc;
    }
    int rc = xv_call_check(team->call, COMPONENT, "writing a file", error);
    if (rc == 0 && xv_block_queue_is_stopped(team->queue))
        rc = xv_fail(error, XVSA_ERR_CANCELLED, COMPONENT, "the source of the blocks stopped");
    return rc;
}

static void *work(void *argument)
{
    struct team *team = argument;
    xvsa_error *error = NULL;
    bool is_write = team->ranges == NULL;
    int rc = is_write ? write_blocks(team, &error) : read_pieces(team, &error);
    if (rc != 0)
        fail_team(team, rc, error);
    /* The others may be waiting for blocks that nobody fills any more. */
    if (rc != 0 && is_write)
        xv_block_queue_stop(team->queue);
    return NULL;
}

/* The caller's thread works, too; with fewer threads than wanted it only takes longer. */
static int run(struct team *team, xvsa_error **error)
{
    pthread_t members[MEMBERS_MAX];
    uint32_t count = 0;
    pthread_mutex_init(&team->lock, NULL);
    while (count + 1 < team->file->in_flight && count < MEMBERS_MAX &&
           xv_thread_start("xvsa-file", false, work, team, &members[count], NULL) == 0)
        count++;
    work(team);
    for (uint32_t i = 0; i < count; i++)
        pthread_join(members[i], NULL);
    pthread_mutex_destroy(&team->lock);
    if (team->rc != 0 && error != NULL)
        *error = team->error;
    else
        xvsa_error_unref(team->error);
    return team->rc;
}

int xv_file_stream(struct xv_disk *disk, const struct xv_extents *ranges,
                   struct xv_block_queue *queue, void *owner, const struct xv_call *call,
                   xvsa_error **error)
{
    struct team team = {.file = (struct xv_file_disk *)disk,
                        .queue = queue,
                        .call = call,
                        .ranges = ranges,
                        .owner = owner};
    return run(&team, error);
}

int xv_file_write(struct xv_disk *disk, struct xv_block_queue *queue, const struct xv_call *call,
                  xvsa_error **error)
{
    struct xv_file_disk *file = (struct xv_file_disk *)disk;
    struct team team = {.file = file, .queue = queue, .call = call};
    if (!file->writable)
        return xv_fail(error, XVSA_ERR_STATE, COMPONENT, "%s was opened read-only", file->label);
    int rc = run(&team, error);
    if (rc == 0 && fsync(file->fd) != 0)
        rc = xv_fail_errno(error, errno, COMPONENT, "cannot flush %s", file->label);
    return rc;
}
