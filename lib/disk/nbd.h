/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Inside of the NBD disks. Only the files nbd*.c include this header, and libnbd's.
 *
 * A link is one connection, driven without blocking by whoever holds it; a transfer reads ranges over
 * several links and replaces those that are lost; the disk keeps the links that nobody holds.
 */
#ifndef XV_DISK_NBD_H
#define XV_DISK_NBD_H

#include <libnbd.h>
#include <openssl/x509.h>
#include <poll.h>
#include <stdatomic.h>

#include "disk/disk.h"

#define XV_NBD_COMPONENT "nbd"

/* What servers of pools demand of offsets and lengths. */
#define XV_NBD_SECTOR 512u

/* Connections in a row that may be lost without having answered anything, before giving up. */
#define XV_NBD_ATTEMPTS 5u

/* A server, checked and copied. Either uri is set, or address and what follows it. */
struct xv_nbd_place {
    char *uri;
    char *address;
    char *export_name; /* secret */
    char *subject;     /* NULL: no SNI */
    X509 *certificate; /* NULL: plain connection */
    uint16_t port;
    char label[80]; /* for messages */
};

struct xv_nbd_disk {
    struct xv_disk disk;
    struct xv_nbd_options options; /* defaults filled in; disk_name is ours */
    struct xv_nbd_place *places;
    size_t place_count;
    uint64_t limit;       /* reads of whole sectors may reach this far; at least disk.size */
    atomic_size_t place;  /* where a connection was made last */
    atomic_uint missing;  /* connections that a stream did without, at most */
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t returned;
    struct xv_nbd_link **idle; /* room for options.connections */
    uint32_t idle_count;
    uint32_t lent;
};

struct xv_nbd_tls;

enum xv_nbd_state {
    XV_NBD_CONNECTING,  /* TCP */
    XV_NBD_GREETING,    /* waiting for the first byte of a plain server */
    XV_NBD_SECURING,    /* STARTTLS and TLS */
    XV_NBD_NEGOTIATING, /* libnbd asks for the export */
    XV_NBD_READY,
};

struct xv_nbd_link {
    const struct xv_nbd_place *place;
    enum xv_nbd_state state;
    struct nbd_handle *nbd;
    struct xv_nbd_tls *tls;
    int fd;              /* the socket while it is not libnbd's, else -1 */
    int64_t deadline_ms; /* when the peer must have answered; 0: nothing is awaited */
    uint32_t in_flight;  /* kept by the holder */
};

/* nbd_link.c */
int xv_nbd_link_start(const struct xv_nbd_disk *disk, size_t place, struct xv_nbd_link **ret,
                      xvsa_error **error) XV_MUST_CHECK;
/* Sends what is ready to be sent and tells what to poll for. */
struct pollfd xv_nbd_link_poll(struct xv_nbd_link *link);
/* Goes on as far as possible without blocking. After a failure the link can only be closed. */
int xv_nbd_link_drive(struct xv_nbd_link *link, short events, xvsa_error **error) XV_MUST_CHECK;
/* Fails with TIMEOUT when the link's deadline passed. */
int xv_nbd_link_check(const struct xv_nbd_link *link, xvsa_error **error) XV_MUST_CHECK;
/* One round of waiting for the link, the call's end included. */
int xv_nbd_link_wait(struct xv_nbd_link *link, const struct xv_call *call, const char *what,
                     xvsa_error **error) XV_MUST_CHECK;
/* Blocks until the link is ready. */
int xv_nbd_link_finish(struct xv_nbd_link *link, const struct xv_call *call,
                       xvsa_error **error) XV_MUST_CHECK;
void xv_nbd_link_close(struct xv_nbd_link *link);

/* nbd_tls.c */
/* fd stays the caller's. */
int xv_nbd_tls_new(int fd, const struct xv_nbd_place *place, struct xv_nbd_tls **ret,
                   xvsa_error **error) XV_MUST_CHECK;
/* Returns 1 once the server was verified, 0 when more must arrive or leave first. */
int xv_nbd_tls_handshake(struct xv_nbd_tls *tls, xvsa_error **error) XV_MUST_CHECK;
/* The socket over which libnbd shall speak; it is given away. */
int xv_nbd_tls_open_inner(struct xv_nbd_tls *tls, int *ret, xvsa_error **error) XV_MUST_CHECK;
/* Moves what libnbd wrote to the server. */
int xv_nbd_tls_send(struct xv_nbd_tls *tls, xvsa_error **error) XV_MUST_CHECK;
/* Moves some of what the server sent to libnbd; returns the number of bytes, 0 for none. */
int xv_nbd_tls_receive(struct xv_nbd_tls *tls, xvsa_error **error) XV_MUST_CHECK;
short xv_nbd_tls_events(const struct xv_nbd_tls *tls);
void xv_nbd_tls_free(struct xv_nbd_tls *tls);

/* nbd_transfer.c */
/* Reads the ranges into blocks of the queue and pushes them. */
int xv_nbd_transfer_stream(struct xv_nbd_disk *disk, const struct xv_extents *ranges,
                           struct xv_block_queue *queue, void *owner, const struct xv_call *call,
                           xvsa_error **error) XV_MUST_CHECK;
/* Reads whole sectors into data; offset and length are multiples of the sector or reach the limit. */
int xv_nbd_transfer_read(struct xv_nbd_disk *disk, uint64_t offset, uint8_t *data, uint32_t length,
                         const struct xv_call *call, xvsa_error **error) XV_MUST_CHECK;

/* nbd_map.c */
int xv_nbd_map(struct xv_disk *disk, struct xv_extents *ret, const struct xv_call *call,
               xvsa_error **error) XV_MUST_CHECK;

/* nbd.c */
/* Checks the export that a link reached; the first one fixes the disk's size. */
int xv_nbd_disk_accept(struct xv_nbd_disk *disk, struct xv_nbd_link *link,
                       xvsa_error **error) XV_MUST_CHECK;
/* Takes 1 to wanted connections of the disk's budget, waiting for one if need be: links gets those
 * that are open, NULL for each that may be opened. */
int xv_nbd_disk_lease(struct xv_nbd_disk *disk, uint32_t wanted, struct xv_nbd_link **links,
                      uint32_t *ret, const struct xv_call *call, xvsa_error **error) XV_MUST_CHECK;
/* Gives them back; links that await an answer are closed. */
void xv_nbd_disk_return(struct xv_nbd_disk *disk, struct xv_nbd_link **links, uint32_t count);

#endif
