/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Inside of nbd_transfer.c and nbd_work.c.
 */
#ifndef XV_DISK_NBD_TRANSFER_H
#define XV_DISK_NBD_TRANSFER_H

#include "disk/nbd.h"

struct xv_nbd_slot {
    struct xv_nbd_link *link; /* NULL: none now */
    int64_t retry_ms;         /* not before */
    uint32_t fruitless;       /* connections in a row that answered nothing */
    bool gone;                /* given up */
    size_t place;             /* to try next */
};

/* A block whose requests are under way. */
struct xv_nbd_work {
    struct xv_block *block; /* NULL: unused */
    uint64_t cut;           /* requests exist up to here */
    uint64_t end;           /* of the block, rounded up to whole sectors */
    uint32_t pending;       /* requests without an answer */
};

struct xv_nbd_transfer;

struct xv_nbd_flight {
    struct xv_nbd_transfer *transfer;
    struct xv_nbd_work *work;
    struct xv_nbd_slot *slot; /* NULL: waits to be sent */
    struct xv_nbd_flight *next;
    uint64_t offset;
    uint32_t length;
    uint32_t refusals;
    int result; /* errno of the answer */
};

struct xv_nbd_transfer {
    struct xv_nbd_disk *disk;
    const struct xv_call *call;
    const struct xv_extents *ranges;
    size_t range;                 /* the one being cut into blocks */
    uint64_t next;                /* where its next block begins; 0: at the range's beginning */
    struct xv_block_queue *queue; /* NULL: target is the only block */
    void *owner;
    struct xv_block *target;
    struct xv_nbd_slot *slots;
    uint32_t slot_count;
    struct xv_nbd_flight *flights;
    uint32_t flight_count;
    struct xv_nbd_work *works; /* as many as flights: each has one at least */
    struct xv_nbd_work *cutting;
    uint32_t active; /* works with a block */
    struct xv_nbd_flight *spare;
    struct xv_nbd_flight *again;    /* lost ones, lowest offset first */
    struct xv_nbd_flight *finished; /* answered, not yet looked at */
    struct pollfd *polls;           /* slots, then the queue and the call */
    bool starving;                  /* a block is needed and none is free */
    xvsa_error *last;               /* why the last connection was lost */
};

/* True while there is work that no link has been asked for: a reason to open another one. */
bool xv_nbd_work_waits(const struct xv_nbd_transfer *t);
/* The next request to send: a lost one before a new one. NULL when there is none at the moment. */
struct xv_nbd_flight *xv_nbd_work_next(struct xv_nbd_transfer *t);
/* Takes back a request that was lost. */
void xv_nbd_work_repeat(struct xv_nbd_transfer *t, struct xv_nbd_flight *flight);
/* Ends a request that was answered; its block is handed on when it was the last one. */
void xv_nbd_work_done(struct xv_nbd_transfer *t, struct xv_nbd_flight *flight);

#endif
