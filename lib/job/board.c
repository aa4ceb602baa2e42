/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A disk of a task that several processes move together: its owner publishes the units, claims what is free, adopts what
 * the others did, and in the end reads by itself what nobody did. What counts as done is what the journal
 * says; the board only keeps two from doing the same.
 */
#include <stdlib.h>
#include <string.h>

#include "job/task.h"

/* How long others are waited for before looking at the journal again. */
#define WAIT_MS 2000
/* After the store was out of reach, how long to go on without asking it again. */
#define ALONE_MS 30000
/* Others that hold units but get nothing done for so long are not waited for: doing it twice is harmless. */
#define STUCK_MS 60000
/* A disk that is not reached from this process's own host is left to others as long as they get on with it. */
#define FAR_MS 15000
/* The owner claims this part of the units that are left at once, and at most so many. */
#define BATCH_PART 16
#define BATCH_MOST 8

/* Moved, and to be told once a checkpoint that began after it is complete. */
struct moved_unit {
    uint32_t unit;
    uint64_t bytes;
    uint64_t checkpoint;
};

struct board {
    struct xv_passage *passage;
    struct xv_job_task *task;
    struct xv_board_disk disk;
    struct xv_extents have; /* in the writer's tree */
    struct xv_extents mine; /* moved by this process */
    struct moved_unit *moved;
    size_t moved_count;
    uint64_t adopted;    /* bytes counted as done by others */
    uint64_t mine_bytes; /* read by this process */
    uint32_t mine_units;
    int64_t alone_until; /* xv_clock_ms; 0: the store answers */
    bool far;
    uint32_t
        units_left; /* that were not done at the last claim; those that wait for a checkpoint are not */
    uint32_t last_left; /* what the patience with others is measured by */
    int64_t moved_ms;
};

static int store_failed(struct board *board, int rc, xvsa_error *failure, xvsa_error **error)
{
    board->alone_until = xv_clock_ms() + ALONE_MS;
    return xv_task_store_failed(board->passage->disk->vm, rc, failure, error);
}

/* Takes over what anybody did. */
static int adopt(struct board *board, xvsa_error **error)
{
    struct xv_passage *passage = board->passage;
    struct xv_extents of_disk;
    struct xv_extents others;
    xv_extents_free(&board->have);
    xv_extents_init(&board->have);
    xv_extents_init(&of_disk);
    xv_extents_init(&others);
    int rc = xv_work_adopt(passage->disk->writer, &passage->call, &board->have, error);
    if (rc == 0)
        rc = xv_extents_intersect(&board->have, &passage->read, &of_disk, error);
    if (rc == 0)
        rc = xv_extents_subtract(&of_disk, &board->mine, &others, error);
    uint64_t bytes = xv_extents_bytes(&others);
    if (rc == 0 && bytes > board->adopted) {
        atomic_fetch_add(&passage->disk->vm->job->bytes_done, bytes - board->adopted);
        board->adopted = bytes;
        board->moved_ms = xv_clock_ms();
    }
    xv_extents_free(&of_disk);
    xv_extents_free(&others);
    return rc;
}

/* What of the ranges is neither in the tree nor moved. */
static int list_missing(const struct board *board, const struct xv_extents *ranges,
                        struct xv_extents *ret, xvsa_error **error)
{
    struct xv_extents rest;
    xv_extents_init(&rest);
    int rc = xv_extents_subtract(ranges, &board->have, &rest, error);
    if (rc == 0)
        rc = xv_extents_subtract(&rest, &board->mine, ret, error);
    xv_extents_free(&rest);
    return rc;
}

static int add_to_mine(struct board *board, const struct xv_extents *ranges, xvsa_error **error)
{
    struct xv_extents sum;
    xv_extents_init(&sum);
    int rc = xv_extents_union(&board->mine, ranges, &sum, error);
    if (rc == 0) {
        xv_extents_free(&board->mine);
        board->mine = sum;
    }
    return rc;
}

static int move(struct board *board, const struct xv_extents *ranges, xvsa_error **error)
{
    struct xv_passage *passage = board->passage;
    int rc = 0;
    if (board->far) {
        /* Nobody nearer took it: from here on there is no more waiting between units. */
        board->far = false;
        rc = xv_run_reason(passage->disk->vm, passage->disk, error, XV_REASON_READ_OVER_NETWORK,
                           "SR %s", board->disk.sr_uuid);
    }
    if (rc != 0)
        return rc;
    rc = xv_source_move(&passage->source, passage->backup->intake, ranges, passage->disk->writer,
                        &passage->call, error);
    xv_passage_note_transport(passage);
    if (rc == 0) {
        board->mine_bytes += xv_extents_bytes(ranges);
        board->mine_units++;
        board->moved_ms = xv_clock_ms();
        rc = add_to_mine(board, ranges, error);
    }
    return rc;
}

static int remember(struct board *board, uint32_t unit, uint64_t bytes, xvsa_error **error)
{
    struct moved_unit *all = realloc(board->moved, (board->moved_count + 1) * sizeof *all);
    if (all == NULL)
        return xv_fail_memory(error);
    board->moved = all;
    uint64_t next = atomic_load(&board->passage->backup->checkpoints_begun) + 1;
    all[board->moved_count++] = (struct moved_unit){unit, bytes, next};
    return 0;
}

/* Tells which units are done, as far as their checkpoints are complete; force makes one. */
static int confirm(struct board *board, bool force, xvsa_error **error)
{
    struct xv_backup *backup = board->passage->backup;
    int rc = 0;
    if (force && board->moved_count > 0)
        rc = xv_backup_checkpoint(backup, &board->passage->call, error);
    uint64_t complete = atomic_load(&backup->checkpoints_done);
    size_t kept = 0;
    for (size_t i = 0; i < board->moved_count; i++) {
        const struct moved_unit unit = board->moved[i];
        if (rc != 0 || unit.checkpoint > complete) {
            board->moved[kept++] = unit;
            continue;
        }
        xvsa_error *failure = NULL;
        int told = board->task->given.ops->done(board->task->given.user, board->disk.key, unit.unit,
                                                unit.bytes, &board->passage->call, &failure);
        if (told != 0)
            rc = store_failed(board, told, failure, error);
    }
    board->moved_count = kept;
    return rc;
}

/* What is missing of units, listed behind each other. */
static int list_units(struct board *board, const uint32_t *units, size_t count,
                      struct xv_extents *ret, xvsa_error **error)
{
    const struct xv_passage *passage = board->passage;
    struct xv_extents slices;
    xv_extents_init(&slices);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = xv_units_slice(&passage->read, board->disk.unit_bytes, passage->chunk, units[i],
                            &slices, error);
    if (rc == 0)
        rc = list_missing(board, &slices, ret, error);
    xv_extents_free(&slices);
    return rc;
}

/* Moves units; claimed ones are told to be done, or given back. */
static int move_units(struct board *board, const uint32_t *units, size_t count, bool claimed,
                      xvsa_error **error)
{
    const struct xv_task *given = &board->task->given;
    struct xv_extents missing;
    xv_extents_init(&missing);
    int rc = adopt(board, error);
    if (rc == 0)
        rc = list_units(board, units, count, &missing, error);
    uint64_t bytes = xv_extents_bytes(&missing);
    if (rc == 0 && bytes > 0)
        rc = move(board, &missing, error);
    for (size_t i = 0; claimed && i < count; i++) {
        /* The bytes of all are told with the first. */
        if (rc == 0)
            rc = remember(board, units[i], i == 0 ? bytes : 0, error);
        else
            given->ops->release(given->user, board->disk.key, units[i]);
    }
    xv_extents_free(&missing);
    return rc;
}

/* Without the store: the first unit that nobody has done as far as the journal tells. */
static int pick_alone(struct board *board, uint32_t *ret, xvsa_error **error)
{
    int rc = 0;
    *ret = XV_UNIT_NONE;
    for (uint32_t i = 0; rc == 0 && *ret == XV_UNIT_NONE && i < board->disk.units; i++) {
        struct xv_extents missing;
        xv_extents_init(&missing);
        rc = list_units(board, &i, 1, &missing, error);
        if (rc == 0 && missing.count > 0)
            *ret = i;
        xv_extents_free(&missing);
    }
    return rc;
}

static int wait_for_others(struct board *board, uint32_t left, xvsa_error **error)
{
    struct xv_passage *passage = board->passage;
    if (left != board->last_left) {
        board->last_left = left;
        board->moved_ms = xv_clock_ms();
    }
    int64_t begun = xv_clock_ms();
    xvsa_error *failure = NULL;
    int rc =
        board->task->given.ops->wait(board->task->given.user, WAIT_MS, &passage->call, &failure);
    xv_run_waited(passage->disk, xv_clock_ms() - begun);
    if (rc != 0)
        rc = store_failed(board, rc, failure, error);
    return rc != 0 ? rc : adopt(board, error);
}

static int step_alone(struct board *board, bool *ret_over, xvsa_error **error)
{
    uint32_t unit = XV_UNIT_NONE;
    int rc = adopt(board, error);
    if (rc == 0)
        rc = pick_alone(board, &unit, error);
    *ret_over = rc == 0 && unit == XV_UNIT_NONE;
    return rc != 0 || *ret_over ? rc : move_units(board, &unit, 1, false, error);
}

/* Leaves the disk to others for a while; over when nothing is missing. */
static int leave_to_others(struct board *board, uint32_t left, bool *ret_over, xvsa_error **error)
{
    uint32_t unit = XV_UNIT_NONE;
    int rc = wait_for_others(board, left, error);
    if (rc == 0)
        rc = pick_alone(board, &unit, error);
    *ret_over = rc == 0 && unit == XV_UNIT_NONE;
    if (rc == 0 && !*ret_over && xv_clock_ms() - board->moved_ms > STUCK_MS)
        rc = move_units(board, &unit, 1, false, error);
    return rc;
}

/* How many units to claim at once: as many as are free when each would be read through an export of its own;
 * else several while there are many, because between two claims the link idles. */
static size_t batch(const struct board *board, uint32_t left)
{
    if (!xv_source_is_seekable(&board->passage->source))
        return board->disk.units;
    uint32_t moved = (uint32_t)board->moved_count;
    uint32_t share = left > board->disk.units || left < moved ? 1 : (left - moved) / BATCH_PART;
    return share < 1 ? 1 : share > BATCH_MOST ? BATCH_MOST : share;
}

/* The caller frees the units. */
static int claim(struct board *board, uint32_t **ret, size_t *ret_count, uint32_t *ret_left,
                 xvsa_error **error)
{
    const struct xv_task *given = &board->task->given;
    size_t most = batch(board, board->units_left);
    uint32_t *units = calloc(most, sizeof *units);
    size_t count = 0;
    uint32_t unit = 0;
    int rc = units == NULL ? xv_fail_memory(error) : 0;
    while (rc == 0 && count < most && unit < board->disk.units) {
        xvsa_error *failure = NULL;
        unit = XV_UNIT_NONE;
        rc = given->ops->claim(given->user, board->disk.key, &unit, ret_left, &board->passage->call,
                               &failure);
        if (rc != 0)
            rc = store_failed(board, rc, failure, error);
        if (unit < board->disk.units)
            units[count++] = unit;
    }
    while (rc != 0 && count > 0)
        given->ops->release(given->user, board->disk.key, units[--count]);
    if (rc == 0)
        board->units_left = *ret_left;
    *ret = units;
    *ret_count = count;
    return rc;
}

/* Units that are free, or a while of waiting; *ret_over once nothing is left to be done. */
static int step(struct board *board, bool *ret_over, xvsa_error **error)
{
    if (xv_clock_ms() < board->alone_until)
        return step_alone(board, ret_over, error);
    if (board->far && xv_clock_ms() - board->moved_ms < FAR_MS)
        return leave_to_others(board, board->last_left, ret_over, error);
    uint32_t left = UINT32_MAX;
    uint32_t *units = NULL;
    size_t count = 0;
    int rc = claim(board, &units, &count, &left, error);
    if (rc == 0 && count > 0) {
        rc = move_units(board, units, count, true, error);
    } else if (rc == 0 && board->moved_count > 0) {
        rc = confirm(board, true, error);
    } else if (rc == 0 && xv_clock_ms() >= board->alone_until) {
        *ret_over = left == 0;
        rc = left == 0 ? 0 : leave_to_others(board, left, ret_over, error);
    }
    free(units);
    return rc;
}

/* Whatever the board says, nothing may be missing. */
static int move_rest(struct board *board, xvsa_error **error)
{
    struct xv_passage *passage = board->passage;
    struct xv_extents missing;
    xv_extents_init(&missing);
    int rc = adopt(board, error);
    if (rc == 0)
        rc = list_missing(board, &passage->read, &missing, error);
    if (rc == 0 && missing.count > 0)
        rc = move(board, &missing, error);
    xv_extents_free(&missing);
    return rc;
}

static int publish(struct board *board, xvsa_error **error)
{
    struct xv_passage *passage = board->passage;
    const struct xv_disk_run *disk = passage->disk;
    uint64_t bytes = xv_extents_bytes(&passage->read);
    /* An HTTP export has to be read from its beginning for each unit. */
    uint64_t unit_bytes = disk->plan->nbd ? xv_task_unit_bytes(board->task, bytes) : passage->size;
    board->disk = (struct xv_board_disk){
        .work_id = passage->backup->work_id,
        .key = disk->plan->vdi_uuid,
        .device = disk->plan->device,
        .sr_uuid = disk->plan->sr == NULL ? "" : disk->plan->sr->uuid,
        .snapshot_uuid = disk->snapshot->vdi_uuid,
        .size = passage->size,
        .bytes = bytes,
        .unit_bytes = unit_bytes,
        .units = xv_units_count(&passage->read, unit_bytes, passage->chunk),
        .nbd = disk->plan->nbd,
    };
    board->last_left = board->disk.units;
    board->units_left = board->disk.units;
    xvsa_error *failure = NULL;
    int rc = board->task->given.ops->publish(board->task->given.user, &board->disk, &passage->call,
                                             &failure);
    return rc == 0 ? 0 : store_failed(board, rc, failure, error);
}

static int run(struct board *board, xvsa_error **error)
{
    bool over = board->disk.units == 0;
    int rc = 0;
    while (rc == 0 && !over) {
        rc = confirm(board, false, error);
        if (rc == 0)
            rc = step(board, &over, error);
    }
    for (size_t i = 0; rc != 0 && i < board->moved_count; i++)
        board->task->given.ops->release(board->task->given.user, board->disk.key,
                                        board->moved[i].unit);
    return rc == 0 ? move_rest(board, error) : rc;
}

static bool is_far(const struct board *board)
{
    const struct xv_passage *passage = board->passage;
    const struct xv_plan *plan = passage->disk->vm->job->plan;
    const struct xv_host *own = xv_run_own_host(passage->disk->vm->job);
    return own == NULL || passage->disk->plan->sr == NULL ||
           !xv_inventory_reaches(plan->inventory, own, passage->disk->plan->sr);
}

int xv_passage_share(struct xv_passage *passage, xvsa_error **error)
{
    struct board board = {.passage = passage, .task = passage->disk->vm->job->task};
    board.far = is_far(&board);
    board.moved_ms = xv_clock_ms();
    xv_extents_init(&board.have);
    xv_extents_init(&board.mine);
    int rc = xv_extents_bytes(&passage->read) == 0 ? 0 : publish(&board, error);
    if (rc == 0)
        rc = run(&board, error);
    xv_task_account(passage, board.mine_bytes, board.mine_units);
    xv_extents_free(&board.have);
    xv_extents_free(&board.mine);
    free(board.moved);
    return rc;
}
