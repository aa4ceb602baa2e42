/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * One connection, from the socket to the end, as a state machine that never blocks: a stream keeps
 * reading over its other connections while one is being made.
 *
 * libnbd's own messages are shown for URIs only: those of a pool's server could repeat the name of the
 * export, which holds the session.
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "disk/nbd.h"

static int fail_libnbd(const struct xv_nbd_link *link, int code, const char *what,
                       xvsa_error **error)
{
    int os_errno = nbd_get_errno();
    const char *text = link->place->uri == NULL ? NULL : nbd_get_error();
    char reason[128];
    if (text == NULL)
        text = os_errno == 0 || os_errno == ENOTCONN ? "no reason given"
                                                     : strerror_r(os_errno, reason, sizeof reason);
    return xv_fail(error, code, XV_NBD_COMPONENT, "server %s %s: %s", link->place->label, what,
                   text);
}

static int fail_connect(const struct xv_nbd_link *link, int os_errno, xvsa_error **error)
{
    char reason[128];
    return xv_fail(error, XVSA_ERR_NETWORK, XV_NBD_COMPONENT, "cannot connect to server %s: %s",
                   link->place->label, strerror_r(os_errno, reason, sizeof reason));
}

/* libnbd has no code for a server that closes or talks nonsense; its text tells them apart. */
static int fail_negotiation(const struct xv_nbd_link *link, xvsa_error **error)
{
    const char *text = nbd_get_error();
    switch (nbd_get_errno()) {
    case ENOTSUP:
        return fail_libnbd(link, XVSA_ERR_TLS, "demands TLS", error);
    case ENOENT:
        return fail_libnbd(link, XVSA_ERR_NOT_FOUND, "does not know the disk", error);
    case 0:
        if (text != NULL && strstr(text, "disconnected") == NULL)
            return fail_libnbd(link, XVSA_ERR_PROTOCOL, "did not complete the NBD handshake",
                               error);
        break;
    }
    return fail_libnbd(link, XVSA_ERR_NETWORK,
                       "refused the disk (is it unknown, in use, or the session over?)", error);
}

static int open_socket(struct xv_nbd_link *link, xvsa_error **error)
{
    const struct xv_nbd_place *place = link->place;
    char port[8];
    snprintf(port, sizeof port, "%u", place->port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    int rc = getaddrinfo(place->address, port, &hints, &found);
    if (rc != 0)
        return xv_fail(error, XVSA_ERR_INVALID, XV_NBD_COMPONENT,
                       "server address '%s' is not an IP address: %s", place->address,
                       gai_strerror(rc));
    link->fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int one = 1;
    rc = 0;
    if (link->fd < 0)
        rc = xv_fail_errno(error, errno, XV_NBD_COMPONENT, "cannot make a socket");
    else if (setsockopt(link->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0 ||
             setsockopt(link->fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one) != 0)
        rc = xv_fail_errno(error, errno, XV_NBD_COMPONENT, "cannot set up a socket");
    else if (connect(link->fd, found->ai_addr, found->ai_addrlen) != 0 && errno != EINPROGRESS)
        rc = fail_connect(link, errno, error);
    freeaddrinfo(found);
    return rc;
}

static int set_up_handle(struct xv_nbd_link *link, xvsa_error **error)
{
    link->nbd = nbd_create();
    if (link->nbd == NULL)
        return xv_fail_memory(error);
    /* The environment could switch it on, and it would print the name of the export. */
    int rc = nbd_set_debug(link->nbd, false);
    if (rc == 0)
        rc = nbd_set_pread_initialize(link->nbd, false);
    if (rc == 0 && link->place->uri == NULL)
        rc = nbd_set_export_name(link->nbd, link->place->export_name);
    /* A pool's server has neither; asking costs a round trip each. */
    if (rc == 0 && link->place->uri == NULL)
        rc = nbd_set_request_structured_replies(link->nbd, false);
    if (rc == 0 && link->place->uri != NULL)
        rc = nbd_add_meta_context(link->nbd, LIBNBD_CONTEXT_BASE_ALLOCATION);
    if (rc != 0)
        return fail_libnbd(link, XVSA_ERR_INVALID, "cannot be asked for", error);
    return 0;
}

static int start(struct xv_nbd_link *link, xvsa_error **error)
{
    int rc = set_up_handle(link, error);
    if (rc != 0)
        return rc;
    if (link->place->uri == NULL)
        return open_socket(link, error);
    link->state = XV_NBD_NEGOTIATING;
    if (nbd_aio_connect_uri(link->nbd, link->place->uri) != 0) {
        int code = nbd_get_errno() == EINVAL ? XVSA_ERR_INVALID : XVSA_ERR_NETWORK;
        return fail_libnbd(link, code, "cannot be connected", error);
    }
    return 0;
}

int xv_nbd_link_start(const struct xv_nbd_disk *disk, size_t place, struct xv_nbd_link **ret,
                      xvsa_error **error)
{
    struct xv_nbd_link *link = calloc(1, sizeof *link);
    if (link == NULL)
        return xv_fail_memory(error);
    link->place = &disk->places[place];
    link->fd = -1;
    link->deadline_ms = xv_clock_ms() + disk->options.request_timeout_ms;
    int rc = start(link, error);
    if (rc != 0) {
        xv_nbd_link_close(link);
        return rc;
    }
    *ret = link;
    return 0;
}

void xv_nbd_link_close(struct xv_nbd_link *link)
{
    if (link == NULL)
        return;
    if (link->state == XV_NBD_READY && link->in_flight == 0 &&
        nbd_aio_disconnect(link->nbd, 0) == 0 && link->tls != NULL)
        (void)!xv_nbd_tls_send(link->tls, NULL); /* a courtesy */
    nbd_close(link->nbd);
    xv_nbd_tls_free(link->tls);
    if (link->fd >= 0)
        close(link->fd);
    free(link);
}

static int give_to_libnbd(struct xv_nbd_link *link, int fd, xvsa_error **error)
{
    link->state = XV_NBD_NEGOTIATING;
    if (nbd_aio_connect_socket(link->nbd, fd) != 0)
        return fail_negotiation(link, error);
    return 0;
}

static int finish_connecting(struct xv_nbd_link *link, xvsa_error **error)
{
    int why = 0;
    socklen_t size = sizeof why;
    if (getsockopt(link->fd, SOL_SOCKET, SO_ERROR, &why, &size) != 0)
        why = errno;
    if (why != 0)
        return fail_connect(link, why, error);
    if (link->place->certificate == NULL) {
        link->state = XV_NBD_GREETING;
        return 0;
    }
    link->state = XV_NBD_SECURING;
    return xv_nbd_tls_new(link->fd, link->place, &link->tls, error);
}

/* A server without a free connection closes without a byte, and that shall be told from all else. */
static int hear_greeting(struct xv_nbd_link *link, xvsa_error **error)
{
    char byte;
    ssize_t got = recv(link->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (got <= 0)
        return xv_fail(error, XVSA_ERR_BUSY, XV_NBD_COMPONENT,
                       "server %s closed the connection at once: too many connections, or NBD is "
                       "not enabled on the pool's networks",
                       link->place->label);
    int fd = link->fd;
    link->fd = -1;
    return give_to_libnbd(link, fd, error);
}

static int secure(struct xv_nbd_link *link, xvsa_error **error)
{
    int rc = xv_nbd_tls_handshake(link->tls, error);
    if (rc != 1)
        return rc;
    int fd = -1;
    rc = xv_nbd_tls_open_inner(link->tls, &fd, error);
    return rc != 0 ? rc : give_to_libnbd(link, fd, error);
}

/* Only for events that poll or the kernel really told: a handle that is notified without anything to
 * read takes no more requests until something comes. */
static int notify(struct xv_nbd_link *link, short events)
{
    unsigned direction = nbd_aio_get_direction(link->nbd);
    if ((direction & LIBNBD_AIO_DIRECTION_READ) != 0 &&
        (events & (POLLIN | POLLHUP | POLLERR)) != 0)
        return nbd_aio_notify_read(link->nbd);
    if ((direction & LIBNBD_AIO_DIRECTION_WRITE) != 0 &&
        (events & (POLLOUT | POLLHUP | POLLERR)) != 0)
        return nbd_aio_notify_write(link->nbd);
    return 0;
}

/* Lets libnbd read all that waits in the pair: a notification handles one reply at most. */
static int drain_inner(struct xv_nbd_link *link)
{
    int waiting = 0;
    while (ioctl(nbd_aio_get_fd(link->nbd), FIONREAD, &waiting) == 0 && waiting > 0) {
        if (notify(link, POLLIN) != 0 || nbd_aio_get_direction(link->nbd) == 0)
            return -1;
    }
    return 0;
}

/* libnbd after TLS: moves bytes both ways until neither side has any. Ends early when libnbd gave up,
 * which the caller sees by its state. */
static int drive_inner(struct xv_nbd_link *link, xvsa_error **error)
{
    for (;;) {
        int rc = xv_nbd_tls_send(link->tls, error);
        if (rc == 0)
            rc = xv_nbd_tls_receive(link->tls, error);
        if (rc <= 0 && notify(link, POLLOUT) == 0 && nbd_aio_get_direction(link->nbd) != 0)
            return rc;
        if (rc <= 0 || drain_inner(link) != 0)
            return rc < 0 ? rc : 0;
    }
}

static int drive_libnbd(struct xv_nbd_link *link, short events, xvsa_error **error)
{
    xvsa_error *lost = NULL;
    int rc = 0;
    if (link->tls == NULL)
        rc = notify(link, events);
    else
        rc = drive_inner(link, &lost);
    bool negotiating = link->state == XV_NBD_NEGOTIATING;
    if (lost != NULL && !negotiating) {
        if (error != NULL)
            *error = lost;
        else
            xv_error_clear(&lost);
        return rc;
    }
    xv_error_clear(&lost);
    if (negotiating && nbd_aio_is_ready(link->nbd) == 1) {
        link->state = XV_NBD_READY;
        link->deadline_ms = 0;
        return 0;
    }
    if (rc == 0 && nbd_aio_is_dead(link->nbd) != 1 && nbd_aio_is_closed(link->nbd) != 1)
        return 0;
    return negotiating ? fail_negotiation(link, error)
                       : fail_libnbd(link, XVSA_ERR_NETWORK, "was lost", error);
}

int xv_nbd_link_drive(struct xv_nbd_link *link, short events, xvsa_error **error)
{
    int rc = 0;
    short told = events;
    /* A handle can also die while it is given a request. */
    if (events == 0 && (link->state != XV_NBD_READY || nbd_aio_is_dead(link->nbd) != 1))
        return 0;
    if (link->state < XV_NBD_NEGOTIATING) /* then they are spent before libnbd's turn comes */
        told = 0;
    if (link->state == XV_NBD_CONNECTING)
        rc = finish_connecting(link, error);
    if (rc == 0 && link->state == XV_NBD_GREETING)
        rc = hear_greeting(link, error);
    if (rc == 0 && link->state == XV_NBD_SECURING)
        rc = secure(link, error);
    if (rc == 0 && link->state >= XV_NBD_NEGOTIATING)
        rc = drive_libnbd(link, told, error);
    return rc;
}

struct pollfd xv_nbd_link_poll(struct xv_nbd_link *link)
{
    struct pollfd item = {.fd = link->fd, .events = POLLIN};
    if (link->state == XV_NBD_CONNECTING) {
        item.events = POLLOUT;
    } else if (link->tls != NULL) {
        /* A failure shows up again when the link is driven. */
        if (link->state >= XV_NBD_NEGOTIATING)
            (void)!xv_nbd_tls_send(link->tls, NULL);
        item.events = xv_nbd_tls_events(link->tls);
    } else if (link->state >= XV_NBD_NEGOTIATING) {
        unsigned direction = nbd_aio_get_direction(link->nbd);
        item.fd = nbd_aio_get_fd(link->nbd);
        item.events = (short)(((direction & LIBNBD_AIO_DIRECTION_READ) != 0 ? POLLIN : 0) |
                              ((direction & LIBNBD_AIO_DIRECTION_WRITE) != 0 ? POLLOUT : 0));
    }
    return item;
}

int xv_nbd_link_check(const struct xv_nbd_link *link, xvsa_error **error)
{
    if (link->deadline_ms == 0 || xv_clock_ms() < link->deadline_ms)
        return 0;
    return xv_fail(error, XVSA_ERR_TIMEOUT, XV_NBD_COMPONENT, "server %s does not answer (%s)",
                   link->place->label,
                   link->state == XV_NBD_CONNECTING    ? "to a connection attempt"
                   : link->state < XV_NBD_NEGOTIATING  ? "before TLS or its greeting was complete"
                   : link->state == XV_NBD_NEGOTIATING ? "when asked for the disk"
                                                       : "to a read");
}

int xv_nbd_link_wait(struct xv_nbd_link *link, const struct xv_call *call, const char *what,
                     xvsa_error **error)
{
    int rc = xv_call_check(call, XV_NBD_COMPONENT, what, error);
    if (rc == 0)
        rc = xv_nbd_link_check(link, error);
    if (rc != 0)
        return rc;
    struct pollfd fds[] = {
        xv_nbd_link_poll(link),
        {.fd = call == NULL ? -1 : xv_cancel_fd(call->cancel), .events = POLLIN},
    };
    int64_t wait = link->deadline_ms == 0 ? 1000 : link->deadline_ms - xv_clock_ms();
    wait = xv_call_left(call, wait < 0 ? 0 : wait > 60000 ? 60000 : wait);
    if (poll(fds, 2, (int)wait + 1) < 0 && errno != EINTR)
        return xv_fail_errno(error, errno, XV_NBD_COMPONENT, "cannot wait while %s", what);
    return xv_nbd_link_drive(link, fds[0].revents, error);
}

int xv_nbd_link_finish(struct xv_nbd_link *link, const struct xv_call *call, xvsa_error **error)
{
    int rc = 0;
    while (rc == 0 && link->state != XV_NBD_READY)
        rc = xv_nbd_link_wait(link, call, "connecting to an NBD server", error);
    return rc;
}
