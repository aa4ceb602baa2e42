/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * STARTTLS in front of libnbd. libnbd 1.14 verifies a server only together with the name it connects
 * to; without a name it verifies nothing, and a pool's hosts are reached by addresses their
 * certificates do not hold. So the part before the options and TLS itself are done here, with the rule
 * that the server must own exactly the certificate that the pool announced, and libnbd speaks over a
 * socket pair with what comes after. Both ends of the pair are driven by the same thread.
 */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "disk/nbd.h"

#define FIXED_NEWSTYLE 1u
#define OPT_STARTTLS   5u
#define REP_ACK        1u
#define REP_MAGIC      UINT64_C(0x0003e889045565a9)

#define IN_SIZE  (128u << 10)
#define OUT_SIZE (16u << 10)

struct greeting {
    char magic[8];
    char options[8];
    uint16_t flags;
} __attribute__((packed));

struct start_tls {
    uint32_t client_flags;
    char magic[8];
    uint32_t option;
    uint32_t length;
} __attribute__((packed));

struct option_reply {
    uint64_t magic;
    uint32_t option;
    uint32_t type;
    uint32_t length;
} __attribute__((packed));

static const struct greeting our_greeting = {
    {'N', 'B', 'D', 'M', 'A', 'G', 'I', 'C'}, {'I', 'H', 'A', 'V', 'E', 'O', 'P', 'T'}, 0};

enum stage { WAIT_GREETING, WAIT_ACK, TLS_HANDSHAKE, SECURED };

struct xv_nbd_tls {
    const struct xv_nbd_place *place;
    int fd;    /* to the server; the link's */
    int inner; /* our end of the pair */
    enum stage stage;
    BIO_METHOD *method;
    SSL_CTX *context;
    SSL *ssl;
    bool other_certificate; /* the server showed one that is not the place's */
    bool want_write;
    bool ended; /* no more will come from the server */
    size_t got; /* bytes of the plain answer that is awaited */
    union {
        struct greeting greeting;
        struct option_reply reply;
        uint8_t bytes[32];
    } answer;
    uint32_t client_flags_left; /* of libnbd's client flags, which the server has already had */
    size_t in_start, in_end, out_start, out_end;
    uint8_t in[IN_SIZE], out[OUT_SIZE];
};

static int socket_read(BIO *bio, char *data, int length)
{
    struct xv_nbd_tls *tls = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    ssize_t got = recv(tls->fd, data, (size_t)length, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        BIO_set_retry_read(bio);
    return (int)got;
}

/* Unlike OpenSSL's own socket BIO this one raises no SIGPIPE in the embedder's process. */
static int socket_write(BIO *bio, const char *data, int length)
{
    struct xv_nbd_tls *tls = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    ssize_t sent = send(tls->fd, data, (size_t)length, MSG_NOSIGNAL);
    if (sent < 0 && (errno == EAGAIN || errno == EINTR))
        BIO_set_retry_write(bio);
    return (int)sent;
}

static long socket_control(BIO *bio, int command, long number, void *pointer)
{
    (void)bio, (void)number, (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

/* Trust is one exact certificate, so its issuer, names and dates do not matter; that the server owns
 * the key is what the handshake proves. */
static int verify(X509_STORE_CTX *store, void *user)
{
    struct xv_nbd_tls *tls = user;
    X509 *shown = X509_STORE_CTX_get0_cert(store);
    unsigned char *a = NULL, *b = NULL;
    int a_length = shown == NULL ? -1 : i2d_X509(shown, &a);
    int b_length = i2d_X509(tls->place->certificate, &b);
    bool same = a_length > 0 && a_length == b_length && memcmp(a, b, (size_t)a_length) == 0;
    OPENSSL_free(a);
    OPENSSL_free(b);
    tls->other_certificate = !same;
    X509_STORE_CTX_set_error(store, same ? X509_V_OK : X509_V_ERR_CERT_REJECTED);
    return same;
}

static bool is_host_name(const char *name)
{
    struct in6_addr address;
    return name != NULL && *name != '\0' && strchr(name, '*') == NULL &&
           inet_pton(AF_INET, name, &address) != 1 && inet_pton(AF_INET6, name, &address) != 1;
}

static bool make_context(struct xv_nbd_tls *tls)
{
    tls->context = SSL_CTX_new(TLS_client_method());
    if (tls->context == NULL || SSL_CTX_set_min_proto_version(tls->context, TLS1_2_VERSION) != 1)
        return false;
    SSL_CTX_set_options(tls->context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_mode(tls->context,
                     SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_verify(tls->context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_cert_verify_callback(tls->context, verify, tls);
    /* Several records with one system call. */
    SSL_CTX_set_read_ahead(tls->context, 1);
    SSL_CTX_set_default_read_buffer_len(tls->context, IN_SIZE);
    return true;
}

static bool make_session(struct xv_nbd_tls *tls)
{
    if (!make_context(tls))
        return false;
    tls->ssl = SSL_new(tls->context);
    tls->method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "nbd socket");
    if (tls->ssl == NULL || tls->method == NULL ||
        BIO_meth_set_read(tls->method, socket_read) != 1 ||
        BIO_meth_set_write(tls->method, socket_write) != 1 ||
        BIO_meth_set_ctrl(tls->method, socket_control) != 1)
        return false;
    BIO *bio = BIO_new(tls->method);
    if (bio == NULL)
        return false;
    BIO_set_data(bio, tls);
    BIO_set_init(bio, 1);
    SSL_set_bio(tls->ssl, bio, bio);
    SSL_set_connect_state(tls->ssl);
    return !is_host_name(tls->place->subject) ||
           SSL_set_tlsext_host_name(tls->ssl, tls->place->subject) == 1;
}

int xv_nbd_tls_new(int fd, const struct xv_nbd_place *place, struct xv_nbd_tls **ret,
                   xvsa_error **error)
{
    struct xv_nbd_tls *tls = calloc(1, sizeof *tls);
    if (tls == NULL)
        return xv_fail_memory(error);
    tls->place = place;
    tls->fd = fd;
    tls->inner = -1;
    ERR_clear_error();
    if (!make_session(tls)) {
        unsigned long why = ERR_peek_error();
        const char *reason = ERR_reason_error_string(why);
        xv_nbd_tls_free(tls);
        return xv_fail(error, XVSA_ERR_TLS, XV_NBD_COMPONENT,
                       "cannot prepare TLS for server %s: %s", place->label,
                       reason == NULL ? "no reason given" : reason);
    }
    *ret = tls;
    return 0;
}

void xv_nbd_tls_free(struct xv_nbd_tls *tls)
{
    if (tls == NULL)
        return;
    if (tls->stage == SECURED)
        SSL_shutdown(tls->ssl);
    SSL_free(tls->ssl);
    SSL_CTX_free(tls->context);
    BIO_meth_free(tls->method);
    if (tls->inner >= 0)
        close(tls->inner);
    ERR_clear_error();
    free(tls);
}

static int fail_closed(struct xv_nbd_tls *tls, xvsa_error **error)
{
    if (tls->stage == WAIT_GREETING && tls->got == 0)
        return xv_fail(error, XVSA_ERR_BUSY, XV_NBD_COMPONENT,
                       "server %s closed the connection at once: too many connections, or NBD is "
                       "not enabled on the pool's networks",
                       tls->place->label);
    return xv_fail(error, XVSA_ERR_NETWORK, XV_NBD_COMPONENT,
                   "server %s closed the connection before TLS was set up", tls->place->label);
}

/* Collects exactly length plain bytes: what follows them belongs to TLS. */
static int await_answer(struct xv_nbd_tls *tls, size_t length, xvsa_error **error)
{
    while (tls->got < length) {
        ssize_t got = recv(tls->fd, tls->answer.bytes + tls->got, length - tls->got, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno == EAGAIN)
            return 0;
        if (got == 0 || (got < 0 && errno == ECONNRESET))
            return fail_closed(tls, error);
        if (got < 0)
            return xv_fail_errno(error, errno, XV_NBD_COMPONENT, "cannot hear server %s",
                                 tls->place->label);
        tls->got += (size_t)got;
    }
    return 1;
}

static int answer_greeting(struct xv_nbd_tls *tls, xvsa_error **error)
{
    const struct greeting *heard = &tls->answer.greeting;
    if (memcmp(heard->magic, our_greeting.magic, 8) != 0)
        return xv_fail(error, XVSA_ERR_PROTOCOL, XV_NBD_COMPONENT, "server %s does not speak NBD",
                       tls->place->label);
    if (memcmp(heard->options, our_greeting.options, 8) != 0 ||
        (be16toh(heard->flags) & FIXED_NEWSTYLE) == 0)
        return xv_fail(error, XVSA_ERR_TLS, XV_NBD_COMPONENT,
                       "server %s speaks an NBD dialect without TLS", tls->place->label);
    struct start_tls request = {.client_flags = htobe32(FIXED_NEWSTYLE),
                                .option = htobe32(OPT_STARTTLS)};
    memcpy(request.magic, our_greeting.options, sizeof request.magic);
    /* Nothing was sent before: a socket that has no room for this is broken. */
    if (send(tls->fd, &request, sizeof request, MSG_NOSIGNAL) != (ssize_t)sizeof request)
        return xv_fail(error, XVSA_ERR_NETWORK, XV_NBD_COMPONENT, "cannot ask server %s for TLS",
                       tls->place->label);
    tls->got = 0;
    tls->stage = WAIT_ACK;
    return 0;
}

static int check_ack(struct xv_nbd_tls *tls, xvsa_error **error)
{
    const struct option_reply *reply = &tls->answer.reply;
    if (be64toh(reply->magic) != REP_MAGIC || be32toh(reply->option) != OPT_STARTTLS)
        return xv_fail(error, XVSA_ERR_PROTOCOL, XV_NBD_COMPONENT,
                       "server %s gave an invalid answer to STARTTLS", tls->place->label);
    if (be32toh(reply->type) != REP_ACK || reply->length != 0)
        return xv_fail(error, XVSA_ERR_TLS, XV_NBD_COMPONENT,
                       "server %s refuses TLS (answer %#x); a plain connection is not allowed here",
                       tls->place->label, be32toh(reply->type));
    tls->stage = TLS_HANDSHAKE;
    return 0;
}

static int fail_handshake(struct xv_nbd_tls *tls, int why, xvsa_error **error)
{
    if (tls->other_certificate)
        return xv_fail(error, XVSA_ERR_TLS, XV_NBD_COMPONENT,
                       "server %s showed another certificate than the one announced for it",
                       tls->place->label);
    unsigned long code = ERR_peek_error();
    if (why == SSL_ERROR_SYSCALL || ERR_GET_REASON(code) == SSL_R_UNEXPECTED_EOF_WHILE_READING)
        return fail_closed(tls, error);
    const char *reason = ERR_reason_error_string(code);
    return xv_fail(error, XVSA_ERR_TLS, XV_NBD_COMPONENT, "TLS with server %s failed: %s",
                   tls->place->label, reason == NULL ? "no reason given" : reason);
}

static int shake_hands(struct xv_nbd_tls *tls, xvsa_error **error)
{
    ERR_clear_error();
    int rc = SSL_do_handshake(tls->ssl);
    if (rc == 1) {
        tls->stage = SECURED;
        tls->want_write = false;
        return 1;
    }
    int why = SSL_get_error(tls->ssl, rc);
    tls->want_write = why == SSL_ERROR_WANT_WRITE;
    if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE)
        return 0;
    return fail_handshake(tls, why, error);
}

int xv_nbd_tls_handshake(struct xv_nbd_tls *tls, xvsa_error **error)
{
    if (tls->stage == WAIT_GREETING) {
        int rc = await_answer(tls, sizeof tls->answer.greeting, error);
        if (rc == 1)
            rc = answer_greeting(tls, error);
        if (rc < 0 || tls->stage == WAIT_GREETING)
            return rc;
    }
    if (tls->stage == WAIT_ACK) {
        int rc = await_answer(tls, sizeof tls->answer.reply, error);
        if (rc == 1)
            rc = check_ack(tls, error);
        if (rc < 0 || tls->stage == WAIT_ACK)
            return rc;
    }
    return shake_hands(tls, error);
}

int xv_nbd_tls_open_inner(struct xv_nbd_tls *tls, int *ret, xvsa_error **error)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0)
        return xv_fail_errno(error, errno, XV_NBD_COMPONENT, "cannot make a socket pair");
    struct greeting greeting = our_greeting;
    greeting.flags = htobe16(FIXED_NEWSTYLE);
    if (send(pair[0], &greeting, sizeof greeting, MSG_NOSIGNAL) != (ssize_t)sizeof greeting) {
        close(pair[0]);
        close(pair[1]);
        return xv_fail(error, XVSA_ERR_INTERNAL, XV_NBD_COMPONENT, "a new socket pair is full");
    }
    tls->client_flags_left = sizeof(uint32_t);
    tls->inner = pair[0];
    *ret = pair[1];
    return 0;
}

/* Drops libnbd's client flags: the server had them before STARTTLS. */
static void drop_client_flags(struct xv_nbd_tls *tls)
{
    size_t drop = tls->out_end - tls->out_start;
    if (drop > tls->client_flags_left)
        drop = tls->client_flags_left;
    tls->out_start += drop;
    tls->client_flags_left -= (uint32_t)drop;
}

static int fail_lost(struct xv_nbd_tls *tls, xvsa_error **error)
{
    return xv_fail(error, XVSA_ERR_NETWORK, XV_NBD_COMPONENT, "lost the connection to server %s",
                   tls->place->label);
}

int xv_nbd_tls_send(struct xv_nbd_tls *tls, xvsa_error **error)
{
    for (;;) {
        if (tls->out_start == tls->out_end) {
            ssize_t got = recv(tls->inner, tls->out, sizeof tls->out, MSG_DONTWAIT);
            if (got <= 0)
                return 0; /* nothing to send, or libnbd gave up, which the link notices */
            tls->out_start = 0;
            tls->out_end = (size_t)got;
            drop_client_flags(tls);
            continue;
        }
        ERR_clear_error();
        int sent =
            SSL_write(tls->ssl, tls->out + tls->out_start, (int)(tls->out_end - tls->out_start));
        if (sent > 0) {
            tls->out_start += (size_t)sent;
            tls->want_write = false;
            continue;
        }
        int why = SSL_get_error(tls->ssl, sent);
        tls->want_write = why == SSL_ERROR_WANT_WRITE;
        if (why == SSL_ERROR_WANT_WRITE || why == SSL_ERROR_WANT_READ)
            return 0;
        return fail_lost(tls, error);
    }
}

static void decrypt(struct xv_nbd_tls *tls)
{
    tls->in_start = tls->in_end = 0;
    ERR_clear_error();
    /* A call gives one record at most; stop where the next might not fit whole. */
    while (!tls->ended && IN_SIZE - tls->in_end >= SSL3_RT_MAX_PLAIN_LENGTH) {
        int got = SSL_read(tls->ssl, tls->in + tls->in_end, (int)(IN_SIZE - tls->in_end));
        if (got > 0) {
            tls->in_end += (size_t)got;
            continue;
        }
        int why = SSL_get_error(tls->ssl, got);
        if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE)
            return;
        /* Whether the end is a clean one does not matter: replies have lengths of their own. */
        tls->ended = true;
    }
}

int xv_nbd_tls_receive(struct xv_nbd_tls *tls, xvsa_error **error)
{
    if (tls->in_start == tls->in_end)
        decrypt(tls);
    if (tls->in_start == tls->in_end)
        return tls->ended ? fail_lost(tls, error) : 0;
    ssize_t sent = send(tls->inner, tls->in + tls->in_start, tls->in_end - tls->in_start,
                        MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : fail_lost(tls, error);
    tls->in_start += (size_t)sent;
    return (int)sent;
}

short xv_nbd_tls_events(const struct xv_nbd_tls *tls)
{
    return (short)(POLLIN | (tls->want_write ? POLLOUT : 0));
}
