/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Reads ranges over several links at a time, in one thread. A range is cut into blocks, a block into
 * requests; a block is handed on when its last request was answered, and only then, so a lost
 * connection never leaves half a block behind: its requests are sent again over another one.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "disk/nbd_transfer.h"

/* Times a server may answer one request with an error before the read fails. */
#define REFUSALS 5u

/* Milliseconds to wait before connection attempt n in a row. */
static const int64_t pauses[XV_NBD_ATTEMPTS] = {200, 500, 1000, 2500, 5000};

/* libnbd calls it while the link is driven: nothing of libnbd may be called from here. */
static int answered(void *user, int *error)
{
    struct xv_nbd_flight *flight = user;
    flight->result = *error;
    flight->next = flight->transfer->finished;
    flight->transfer->finished = flight;
    return 1;
}

static int fail_slot(struct xv_nbd_transfer *t, struct xv_nbd_slot *slot, int code, xvsa_error *why,
                     xvsa_error **error);

static int send_flight(struct xv_nbd_transfer *t, struct xv_nbd_slot *slot,
                       struct xv_nbd_flight *flight, xvsa_error **error)
{
    uint8_t *to = flight->work->block->data + (flight->offset - flight->work->block->offset);
    nbd_completion_callback done = {.callback = answered, .user_data = flight};
    flight->slot = slot;
    if (slot->link->in_flight++ == 0)
        slot->link->deadline_ms = xv_clock_ms() + t->disk->options.request_timeout_ms;
    if (nbd_aio_pread(slot->link->nbd, to, flight->length, flight->offset, done, 0) >= 0)
        return 0;
    xvsa_error *why = NULL;
    int code = xv_fail(&why, XVSA_ERR_NETWORK, XV_NBD_COMPONENT,
                       "cannot send a request to server %s", slot->link->place->label);
    return fail_slot(t, slot, code, why, error);
}

/* Gives the links requests in turn, so that a short list is spread over all of them. */
static int send_requests(struct xv_nbd_transfer *t, xvsa_error **error)
{
    t->starving = false;
    for (bool sent = true; sent;) {
        sent = false;
        for (uint32_t i = 0; i < t->slot_count; i++) {
            struct xv_nbd_link *link = t->slots[i].link;
            if (link == NULL || link->state != XV_NBD_READY ||
                link->in_flight >= t->disk->options.in_flight)
                continue;
            struct xv_nbd_flight *flight = xv_nbd_work_next(t);
            if (flight == NULL)
                return 0;
            int rc = send_flight(t, &t->slots[i], flight, error);
            if (rc != 0)
                return rc;
            sent = true;
        }
    }
    return 0;
}

static void accept_answer(struct xv_nbd_transfer *t, struct xv_nbd_flight *flight)
{
    struct xv_nbd_slot *slot = flight->slot;
    slot->fruitless = 0;
    slot->link->in_flight--;
    slot->link->deadline_ms =
        slot->link->in_flight == 0 ? 0 : xv_clock_ms() + t->disk->options.request_timeout_ms;
    xv_nbd_work_done(t, flight);
}

/* Every error answer is taken for the end of its connection, because pool servers close it then. */
static int refuse_answer(struct xv_nbd_transfer *t, struct xv_nbd_flight *flight, bool *lost,
                         xvsa_error **error)
{
    int why = flight->result;
    *lost = true;
    if (why == ENOTCONN || why == ESHUTDOWN)
        return 0;
    if (++flight->refusals <= REFUSALS)
        return 0;
    return xv_fail(error, XVSA_ERR_IO, XV_NBD_COMPONENT,
                   "server %s cannot read %u bytes at %llu of disk %s: errno %d",
                   flight->slot->link->place->label, flight->length,
                   (unsigned long long)flight->offset, t->disk->options.disk_name, why);
}

/* Looks at what the slot's link answered; requests of others can be here when they could not be sent. */
static int take_answers(struct xv_nbd_transfer *t, const struct xv_nbd_slot *slot, bool *lost,
                        xvsa_error **error)
{
    int rc = 0;
    while (t->finished != NULL) {
        struct xv_nbd_flight *flight = t->finished;
        t->finished = flight->next;
        flight->next = NULL;
        if (flight->result == 0)
            accept_answer(t, flight);
        else if (rc == 0 && flight->slot == slot)
            rc = refuse_answer(t, flight, lost, error);
    }
    return rc;
}

static void drop_link(struct xv_nbd_transfer *t, struct xv_nbd_slot *slot)
{
    xv_nbd_link_close(slot->link);
    slot->link = NULL;
    t->finished = NULL; /* only errors are left in it */
    for (uint32_t i = 0; i < t->flight_count; i++) {
        if (t->flights[i].slot == slot)
            xv_nbd_work_repeat(t, &t->flights[i]);
    }
}

static bool is_final(const struct xv_nbd_transfer *t, int code)
{
    switch (code) {
    case XVSA_ERR_NETWORK:
    case XVSA_ERR_TIMEOUT:
    case XVSA_ERR_BUSY:
        return false;
    case XVSA_ERR_TLS:
    case XVSA_ERR_NOT_FOUND:
        return t->disk->place_count == 1;
    default:
        return true;
    }
}

/* A connection was lost or not made: plans the next attempt, or fails when there is none left. why is
 * taken over. */
static int fail_slot(struct xv_nbd_transfer *t, struct xv_nbd_slot *slot, int code, xvsa_error *why,
                     xvsa_error **error)
{
    drop_link(t, slot);
    xv_error_clear(&t->last);
    t->last = why;
    slot->place = (slot->place + 1) % t->disk->place_count;
    slot->gone = slot->fruitless == XV_NBD_ATTEMPTS || is_final(t, code);
    if (!slot->gone)
        slot->retry_ms = xv_clock_ms() + pauses[slot->fruitless++];
    bool left = false;
    for (uint32_t i = 0; i < t->slot_count; i++)
        left = left || !t->slots[i].gone;
    xv_log(t->disk->options.env, XVSA_LOG_WARNING, XV_NBD_COMPONENT, "disk %s: %s%s",
           t->disk->options.disk_name, xvsa_error_message(why),
           slot->gone ? "; giving this connection up" : "; connecting again");
    if (left && !is_final(t, code))
        return 0;
    if (error != NULL) {
        *error = t->last;
        t->last = NULL;
    }
    return xv_error_wrap(error, code, XV_NBD_COMPONENT,
                         "no connection is left to read disk %s over", t->disk->options.disk_name);
}

/* Connections are made one after another: made at once they disturb each other in a pool's server. */
static bool is_connecting(const struct xv_nbd_transfer *t)
{
    for (uint32_t i = 0; i < t->slot_count; i++) {
        if (t->slots[i].link != NULL && t->slots[i].link->state != XV_NBD_READY)
            return true;
    }
    return false;
}

static int open_links(struct xv_nbd_transfer *t, xvsa_error **error)
{
    for (uint32_t i = 0; i < t->slot_count && xv_nbd_work_waits(t) && !is_connecting(t); i++) {
        struct xv_nbd_slot *slot = &t->slots[i];
        if (slot->link != NULL || slot->gone || xv_clock_ms() < slot->retry_ms)
            continue;
        xvsa_error *why = NULL;
        int rc = xv_nbd_link_start(t->disk, slot->place, &slot->link, &why);
        if (rc != 0)
            rc = fail_slot(t, slot, rc, why, error);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static int drive_slot(struct xv_nbd_transfer *t, struct xv_nbd_slot *slot, short events,
                      xvsa_error **error)
{
    xvsa_error *why = NULL;
    bool lost = false;
    bool was_ready = slot->link->state == XV_NBD_READY;
    int code = xv_nbd_link_drive(slot->link, events, &why);
    int rc = take_answers(t, slot, &lost, error);
    if (rc != 0) {
        xv_error_clear(&why);
        return rc;
    }
    if (code == 0 && !was_ready && slot->link->state == XV_NBD_READY)
        code = xv_nbd_disk_accept(t->disk, slot->link, &why);
    if (code == 0 && lost)
        code = xv_fail(&why, XVSA_ERR_NETWORK, XV_NBD_COMPONENT, "server %s answered with an error",
                       slot->link->place->label);
    if (code == 0)
        code = xv_nbd_link_check(slot->link, &why);
    return code == 0 ? 0 : fail_slot(t, slot, code, why, error);
}

/* Milliseconds until a slot wants attention without its socket saying so. */
static int64_t next_alarm(const struct xv_nbd_transfer *t)
{
    int64_t alarm = INT64_MAX, now = xv_clock_ms();
    for (uint32_t i = 0; i < t->slot_count; i++) {
        const struct xv_nbd_slot *slot = &t->slots[i];
        int64_t at = INT64_MAX;
        if (slot->link != NULL)
            at = slot->link->deadline_ms == 0 ? INT64_MAX : slot->link->deadline_ms;
        else if (!slot->gone && xv_nbd_work_waits(t) && !is_connecting(t))
            at = slot->retry_ms;
        if (at < alarm)
            alarm = at;
    }
    if (alarm <= now)
        return 0;
    return alarm - now > 60000 ? 60000 : alarm - now;
}

static int wait_and_drive(struct xv_nbd_transfer *t, xvsa_error **error)
{
    const struct pollfd none = {.fd = -1};
    for (uint32_t i = 0; i < t->slot_count; i++)
        t->polls[i] = t->slots[i].link == NULL ? none : xv_nbd_link_poll(t->slots[i].link);
    struct pollfd *extra = &t->polls[t->slot_count];
    extra[0] = extra[1] = none;
    if (t->starving && t->queue != NULL)
        extra[0] = (struct pollfd){.fd = xv_block_queue_free_fd(t->queue), .events = POLLIN};
    if (t->call != NULL)
        extra[1] = (struct pollfd){.fd = xv_cancel_fd(t->call->cancel), .events = POLLIN};
    /* Answers without a poll are errors of a link that died while it was given requests. */
    int64_t wait = t->finished != NULL ? 0 : xv_call_left(t->call, next_alarm(t));
    if (poll(t->polls, t->slot_count + 2, (int)wait) < 0) {
        if (errno != EINTR)
            return xv_fail_errno(error, errno, XV_NBD_COMPONENT, "cannot wait for NBD servers");
        return 0;
    }
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < t->slot_count; i++) {
        if (t->slots[i].link != NULL)
            rc = drive_slot(t, &t->slots[i], t->polls[i].revents, error);
    }
    return rc;
}

static int run(struct xv_nbd_transfer *t, xvsa_error **error)
{
    int rc = 0;
    while (rc == 0 && (xv_nbd_work_waits(t) || t->active > 0)) {
        rc = xv_call_check(t->call, XV_NBD_COMPONENT, "reading over NBD", error);
        if (rc == 0 && t->queue != NULL && xv_block_queue_is_stopped(t->queue))
            rc = xv_fail(error, XVSA_ERR_CANCELLED, XV_NBD_COMPONENT,
                         "the consumer of the blocks stopped");
        if (rc == 0)
            rc = open_links(t, error);
        if (rc == 0)
            rc = send_requests(t, error);
        if (rc == 0)
            rc = wait_and_drive(t, error);
    }
    return rc;
}

static void release_memory(struct xv_nbd_transfer *t)
{
    free(t->slots);
    free(t->flights);
    free(t->works);
    free(t->polls);
    xv_error_clear(&t->last);
}

/* Slots that ended without a connection after they had tried. */
static void note_missing(struct xv_nbd_transfer *t)
{
    uint32_t missing = 0;
    for (uint32_t i = 0; i < t->slot_count; i++) {
        const struct xv_nbd_slot *slot = &t->slots[i];
        bool ready = slot->link != NULL && slot->link->state == XV_NBD_READY;
        missing += !ready && (slot->gone || slot->fruitless > 0);
    }
    uint32_t before = atomic_load(&t->disk->missing);
    while (before < missing && !atomic_compare_exchange_weak(&t->disk->missing, &before, missing))
        ;
}

/* Ends what is under way: libnbd must not write into blocks that are not ours any more. */
static void clean_up(struct xv_nbd_transfer *t, struct xv_nbd_link **links)
{
    note_missing(t);
    for (uint32_t i = 0; i < t->slot_count; i++)
        links[i] = t->slots[i].link;
    xv_nbd_disk_return(t->disk, links, t->slot_count);
    for (uint32_t i = 0; i < t->flight_count; i++) {
        if (t->works[i].block != NULL && t->queue != NULL)
            xv_block_queue_release(t->queue, t->works[i].block);
    }
    release_memory(t);
}

static bool allocate(struct xv_nbd_transfer *t, struct xv_nbd_link **links)
{
    t->flight_count = t->slot_count * t->disk->options.in_flight;
    t->slots = calloc(t->slot_count, sizeof *t->slots);
    t->flights = calloc(t->flight_count, sizeof *t->flights);
    t->works = calloc(t->flight_count, sizeof *t->works);
    t->polls = calloc(t->slot_count + 2, sizeof *t->polls);
    for (uint32_t i = 0; t->slots != NULL && i < t->slot_count; i++)
        t->slots[i] = (struct xv_nbd_slot){.link = links[i], .place = atomic_load(&t->disk->place)};
    for (uint32_t i = 0; t->flights != NULL && i < t->flight_count; i++) {
        t->flights[i].next = t->spare;
        t->spare = &t->flights[i];
    }
    return t->slots != NULL && t->flights != NULL && t->works != NULL && t->polls != NULL;
}

/* Leases connections for t, which has everything but them, and runs it. */
static int lease_and_run(struct xv_nbd_transfer *t, uint32_t wanted, xvsa_error **error)
{
    struct xv_nbd_link **links = calloc(wanted, sizeof(struct xv_nbd_link *));
    if (links == NULL)
        return xv_fail_memory(error);
    int rc = xv_nbd_disk_lease(t->disk, wanted, links, &t->slot_count, t->call, error);
    if (rc != 0) {
        free(links);
        return rc;
    }
    if (allocate(t, links)) {
        rc = run(t, error);
        clean_up(t, links);
    } else {
        rc = xv_fail_memory(error);
        xv_nbd_disk_return(t->disk, links, t->slot_count);
        release_memory(t);
    }
    free(links);
    return rc;
}

int xv_nbd_transfer_stream(struct xv_nbd_disk *disk, const struct xv_extents *ranges,
                           struct xv_block_queue *queue, void *owner, const struct xv_call *call,
                           xvsa_error **error)
{
    struct xv_nbd_transfer t = {
        .disk = disk, .call = call, .ranges = ranges, .queue = queue, .owner = owner};
    return lease_and_run(&t, disk->options.connections, error);
}

int xv_nbd_transfer_read(struct xv_nbd_disk *disk, uint64_t offset, uint8_t *data, uint32_t length,
                         const struct xv_call *call, xvsa_error **error)
{
    struct xv_range range = {offset, length};
    struct xv_extents ranges = {.ranges = &range, .count = 1};
    struct xv_block block = {.data = data, .capacity = length};
    struct xv_nbd_transfer t = {.disk = disk, .call = call, .ranges = &ranges, .target = &block};
    return lease_and_run(&t, 1, error);
}
