/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * One interface for the bytes of a disk and for which of them are allocated, whatever they come from:
 * NBD, an HTTP export, a file or block device, or a restore point.
 *
 * A disk is used by one streaming call or any number of read calls at a time unless its maker says
 * otherwise; each operation ends with its xv_call.
 */
#ifndef XV_DISK_DISK_H
#define XV_DISK_DISK_H

#include <pthread.h>

#include "base/call.h"
#include "base/env.h"
#include "diff/extents.h"

/* A piece of a disk on its way from the reader to the workers. offset and length are multiples of the
 * chunk size except at the disk's end. */
struct xv_block {
    struct xv_block *next;
    uint64_t offset;
    uint32_t length;
    uint32_t capacity;
    void *owner;   /* for the consumer: which disk's work this is */
    uint8_t *data; /* capacity bytes, page aligned */
};

/* A fixed number of blocks handed round between readers and workers: free ones wait in the pool (where
 * a lack of them slows the reader down), filled ones in the queue. All functions are thread-safe. */
struct xv_block_queue;

/* Makes count blocks of capacity bytes. */
int xv_block_queue_new(uint32_t count, uint32_t capacity, struct xv_block_queue **ret,
                       xvsa_error **error) XV_MUST_CHECK;
void xv_block_queue_free(struct xv_block_queue *queue);
/* Takes a free block; waits at most until the call's deadline or cancellation; NULL then, or when the
 * queue was stopped. xv_block_queue_try_take never waits. */
struct xv_block *xv_block_queue_take(struct xv_block_queue *queue, const struct xv_call *call);
struct xv_block *xv_block_queue_try_take(struct xv_block_queue *queue);
/* A descriptor that is readable while a free block may be there; for readers that poll. */
int xv_block_queue_free_fd(struct xv_block_queue *queue);
/* gate is called, by the reader, for each block before it is handed to the workers, and may wait. Set before there
 * are readers; NULL: none. */
void xv_block_queue_set_gate(struct xv_block_queue *queue,
                             void (*gate)(const struct xv_block *block));
/* Hands a filled block to the workers. */
void xv_block_queue_push(struct xv_block_queue *queue, struct xv_block *block);
/* Takes a filled block, oldest first; NULL after xv_block_queue_close once none is left, and at once
 * after xv_block_queue_stop, the call's cancellation or its deadline. */
struct xv_block *xv_block_queue_pop(struct xv_block_queue *queue, const struct xv_call *call);
/* Gives a block back as free. */
void xv_block_queue_release(struct xv_block_queue *queue, struct xv_block *block);
/* No more pushes will come. */
void xv_block_queue_close(struct xv_block_queue *queue);
/* Something failed: wakes everybody; take and pop answer NULL from now on. */
void xv_block_queue_stop(struct xv_block_queue *queue);
bool xv_block_queue_is_stopped(struct xv_block_queue *queue);
/* Bytes of each block. */
uint32_t xv_block_queue_capacity(const struct xv_block_queue *queue);

#define XV_DISK_MAP_HOLE 0 /* never allocated */
#define XV_DISK_MAP_ZERO 1
#define XV_DISK_MAP_DATA 2

struct xv_disk;

struct xv_disk_ops {
    const char *transport; /* "hotadd", "nbd", "http", "file", "point" */
    /* All of [offset, offset + length) or an error. */
    int (*read)(struct xv_disk *disk, uint64_t offset, void *data, size_t length,
                const struct xv_call *call, xvsa_error **error);
    /* Ranges that may hold data; the rest reads as zeros. NULL when the source cannot tell. */
    int (*allocated)(struct xv_disk *disk, struct xv_extents *ret, const struct xv_call *call,
                     xvsa_error **error);
    /* Reads the ranges, whose bounds are multiples of the block alignment or the disk's end, as blocks
     * of the queue and pushes them with owner set; in any order, each byte once. Returns when all were
     * pushed or at the first error; never closes or stops the queue. Every block it took is pushed or
     * released. NULL: a default that uses read. */
    int (*stream)(struct xv_disk *disk, const struct xv_extents *ranges,
                  struct xv_block_queue *queue, void *owner, const struct xv_call *call,
                  xvsa_error **error);
    /* As xv_disk_write. NULL: the disk cannot be written. */
    int (*write)(struct xv_disk *disk, struct xv_block_queue *queue, const struct xv_call *call,
                 xvsa_error **error);
    void (*close)(struct xv_disk *disk);
};

/* Begins every maker's own structure. */
struct xv_disk {
    const struct xv_disk_ops *ops;
    uint64_t size;
};

int xv_disk_read(struct xv_disk *disk, uint64_t offset, void *data, size_t length,
                 const struct xv_call *call, xvsa_error **error) XV_MUST_CHECK;
/* UNSUPPORTED when the source cannot tell. */
int xv_disk_allocated(struct xv_disk *disk, struct xv_extents *ret, const struct xv_call *call,
                      xvsa_error **error) XV_MUST_CHECK;
int xv_disk_stream(struct xv_disk *disk, const struct xv_extents *ranges,
                   struct xv_block_queue *queue, void *owner, const struct xv_call *call,
                   xvsa_error **error) XV_MUST_CHECK;
/* Writes the blocks of a queue at their offsets until it is closed and empty, then flushes them to the
 * medium. A queue that is stopped ends it with CANCELLED; a failure stops the queue, and the blocks that
 * are left in it are the caller's. UNSUPPORTED when the disk cannot be written. */
int xv_disk_write(struct xv_disk *disk, struct xv_block_queue *queue, const struct xv_call *call,
                  xvsa_error **error) XV_MUST_CHECK;
/* disk may be NULL. */
void xv_disk_close(struct xv_disk *disk);

struct xv_file_options {
    const char *name;   /* for messages: the VDI's uuid; NULL: the path alone */
    uint64_t size;      /* expected size of the disk; 0: what it has */
    uint32_t in_flight; /* requests of a stream or of xv_disk_write under way; 0: 4 */
    bool direct;        /* past the page cache, where device and alignment allow it */
    bool exclusive; /* BUSY when this machine has the block device mounted or claimed otherwise */
    bool writable;  /* else it is opened read-only */
};

/* A file or block device. options may be NULL. STATE when its size is not the expected one. */
int xv_file_disk_open(const char *path, const struct xv_file_options *options, struct xv_disk **ret,
                      xvsa_error **error) XV_MUST_CHECK;

/* One place where an NBD server offers the disk, as in vdi_nbd_server_info. With a certificate the
 * server must do TLS and own exactly that certificate; names, dates and issuer do not matter. */
struct xv_nbd_server {
    const char *address;     /* an IP address */
    const char *export_name; /* a secret: holds the session */
    const char *certificate; /* PEM of the server, or NULL for a plain connection */
    const char *subject;     /* name to send as SNI; may be NULL */
    uint16_t port;
};

struct xv_nbd_options {
    const struct xv_env *env;
    uint64_t size;         /* expected size of the disk; reads never go beyond it; 0: what the
                                   server says */
    uint32_t connections;  /* 0: 1 for a plain server, 2 with TLS */
    uint32_t request_size; /* 0: 256 KiB */
    uint32_t in_flight;    /* requests under way for each connection; 0: 16 */
    int64_t
        request_timeout_ms; /* a connection that is silent for so long while something is asked of
                                   it is taken for lost; making one may take as long; 0: 60 000 */
    bool require_tls;       /* refuse servers without certificate */
    const char *disk_name;  /* for messages: the VDI's uuid */
};

/* Connects to the servers in turn until one answers; connections are opened one after another. Lost
 * connections are opened again (up to 5 times in a row, with growing pauses, other servers too) and
 * what was under way is read again. Fails with TLS when the certificate is not exactly the given one,
 * with BUSY (retryable) when every server closed at once, NETWORK, TIMEOUT, PROTOCOL. */
int xv_nbd_disk_open(const struct xv_nbd_server *servers, size_t count,
                     const struct xv_nbd_options *options, const struct xv_call *call,
                     struct xv_disk **ret, xvsa_error **error) XV_MUST_CHECK;

/* The most connections that a stream of an NBD disk did without at its end, because servers refused or lost
 * them; 0 for other disks. */
uint32_t xv_nbd_disk_missing(const struct xv_disk *disk);

/* By NBD URI, for servers other than a pool's (nbd+unix:///?socket=...), with block status. */
int xv_nbd_disk_open_uri(const char *uri, const struct xv_nbd_options *options,
                         const struct xv_call *call, struct xv_disk **ret,
                         xvsa_error **error) XV_MUST_CHECK;

#endif
