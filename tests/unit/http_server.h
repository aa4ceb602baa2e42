/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A small HTTP server for tests of clients: each request goes to a function that writes the answer as
 * it likes. With TLS it has a certificate of its own.
 */
#ifndef XV_TESTS_HTTP_SERVER_H
#define XV_TESTS_HTTP_SERVER_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buffer.h"

#define SERVER_REQUEST_MAX 65536

struct server;

struct peer {
    struct server *server;
    int fd;
    SSL *tls;
    char request
        [SERVER_REQUEST_MAX]; /* head, and the body that came with Content-Length up to room */
    size_t length;
    size_t head_length;
    size_t body_length; /* announced */
    unsigned number;    /* of this request at the server, from 1 */
};

/* Writes an answer; false ends the connection. */
typedef bool (*server_fn)(struct peer *peer, void *user);

struct server {
    int fd;
    uint16_t port;
    pthread_t thread;
    atomic_bool stop;
    atomic_uint connections;
    atomic_uint requests;
    atomic_int peers; /* connections being served */
    server_fn answer;
    void *user;
    SSL_CTX *tls;
    char fingerprint[65];
    char url[64];
    atomic_bool no_body; /* the function reads the body itself */
};

static inline bool peer_send(struct peer *peer, const void *data, size_t length)
{
    const char *bytes = data;
    while (length > 0) {
        int part = length > 1 << 20 ? 1 << 20 : (int)length;
        ssize_t sent = peer->tls != NULL ? SSL_write(peer->tls, bytes, part)
                                         : send(peer->fd, bytes, (size_t)part, MSG_NOSIGNAL);
        if (sent <= 0)
            return false;
        bytes += sent;
        length -= (size_t)sent;
    }
    return true;
}

static inline bool peer_text(struct peer *peer, const char *text)
{
    return peer_send(peer, text, strlen(text));
}

static inline ssize_t peer_receive(struct peer *peer, void *data, size_t room)
{
    for (;;) {
        struct pollfd wait = {.fd = peer->fd, .events = POLLIN};
        if (atomic_load(&peer->server->stop))
            return 0;
        if ((peer->tls == NULL || SSL_pending(peer->tls) == 0) && poll(&wait, 1, 50) <= 0)
            continue;
        return peer->tls != NULL ? SSL_read(peer->tls, data, (int)room)
                                 : recv(peer->fd, data, room, 0);
    }
}

/* Waits until the peer goes away or the test ends. */
static inline bool peer_hang(struct peer *peer)
{
    char data[4096];
    while (peer_receive(peer, data, sizeof data) > 0)
        ;
    return false;
}

/* An answer with the right Content-Length. */
static inline bool peer_body(struct peer *peer, const char *body)
{
    char head[200];
    snprintf(head, sizeof head,
             "HTTP/1.1 200 OK\r\ncontent-length: %zu\r\nconnection: keep-alive\r\n"
             "content-type: text/xml\r\n\r\n",
             strlen(body));
    return peer_text(peer, head) && peer_text(peer, body);
}

static inline bool read_request(struct peer *peer)
{
    char *end = NULL;
    peer->length = 0;
    while (end == NULL) {
        ssize_t got = peer->length + 1 >= sizeof peer->request
                          ? -1
                          : peer_receive(peer, peer->request + peer->length,
                                         sizeof peer->request - peer->length - 1);
        if (got <= 0)
            return false;
        peer->length += (size_t)got;
        peer->request[peer->length] = '\0';
        end = strstr(peer->request, "\r\n\r\n");
    }
    peer->head_length = (size_t)(end - peer->request) + 4;
    const char *line = strcasestr(peer->request, "\r\ncontent-length:");
    peer->body_length = line == NULL || line > end ? 0 : (size_t)strtoull(line + 17, NULL, 10);
    while (!peer->server->no_body && peer->length < peer->head_length + peer->body_length) {
        ssize_t got = peer->length + 1 >= sizeof peer->request
                          ? -1
                          : peer_receive(peer, peer->request + peer->length,
                                         sizeof peer->request - peer->length - 1);
        if (got <= 0)
            return false;
        peer->length += (size_t)got;
        peer->request[peer->length] = '\0';
    }
    return true;
}

static inline void *serve_peer(void *argument)
{
    struct peer *peer = argument;
    bool good = true;
    /* OpenSSL writes to a peer that is gone without MSG_NOSIGNAL. Only this thread: the library's own
     * must not raise the signal. */
    sigset_t broken_pipe;
    sigemptyset(&broken_pipe);
    sigaddset(&broken_pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &broken_pipe, NULL);
    if (peer->server->tls != NULL) {
        peer->tls = SSL_new(peer->server->tls);
        SSL_set_fd(peer->tls, peer->fd);
        good = SSL_accept(peer->tls) == 1;
    }
    while (good && read_request(peer)) {
        peer->number = atomic_fetch_add(&peer->server->requests, 1) + 1;
        good = peer->server->answer(peer, peer->server->user);
    }
    SSL_free(peer->tls);
    close(peer->fd);
    struct server *server = peer->server;
    free(peer);
    atomic_fetch_sub(&server->peers, 1);
    return NULL;
}

static inline void *serve(void *argument)
{
    struct server *server = argument;
    while (!atomic_load(&server->stop)) {
        struct pollfd wait = {.fd = server->fd, .events = POLLIN};
        if (poll(&wait, 1, 20) <= 0)
            continue;
        int fd = accept(server->fd, NULL, NULL);
        if (fd < 0)
            continue;
        atomic_fetch_add(&server->connections, 1);
        struct peer *peer = calloc(1, sizeof *peer);
        pthread_t thread;
        if (peer == NULL)
            abort();
        peer->server = server;
        peer->fd = fd;
        atomic_fetch_add(&server->peers, 1);
        if (pthread_create(&thread, NULL, serve_peer, peer) != 0)
            abort();
        pthread_detach(thread);
    }
    return NULL;
}

static inline void make_certificate(struct server *server)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = X509_new();
    unsigned char digest[32];
    X509_set_version(certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    X509_set_pubkey(certificate, key);
    X509_NAME *name = X509_get_subject_name(certificate);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"member", -1, -1,
                               0);
    X509_set_issuer_name(certificate, name);
    X509_sign(certificate, key, EVP_sha256());
    X509_digest(certificate, EVP_sha256(), digest, NULL);
    xv_hex_encode(digest, sizeof digest, server->fingerprint);
    server->tls = SSL_CTX_new(TLS_server_method());
    SSL_CTX_use_certificate(server->tls, certificate);
    SSL_CTX_use_PrivateKey(server->tls, key);
    X509_free(certificate);
    EVP_PKEY_free(key);
}

/* address: "127.0.0.1"; port 0: any. False when the port is taken. */
static inline bool server_listen(struct server *server, const char *address, uint16_t port,
                                 bool tls, server_fn answer, void *user)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    socklen_t length = sizeof at;
    int on = 1;
    *server = (struct server){.answer = answer, .user = user};
    inet_pton(AF_INET, address, &at.sin_addr);
    server->fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(server->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(server->fd, (struct sockaddr *)&at, sizeof at) != 0 || listen(server->fd, 16) != 0) {
        close(server->fd);
        return false;
    }
    getsockname(server->fd, (struct sockaddr *)&at, &length);
    server->port = ntohs(at.sin_port);
    if (tls)
        make_certificate(server);
    snprintf(server->url, sizeof server->url, "%s://%s:%u", tls ? "https" : "http", address,
             server->port);
    return pthread_create(&server->thread, NULL, serve, server) == 0;
}

static inline void server_start(struct server *server, bool tls, server_fn answer, void *user)
{
    if (!server_listen(server, "127.0.0.1", 0, tls, answer, user))
        abort();
}

/* Threads of connections that hang notice within 50 ms. */
static inline void server_stop(struct server *server)
{
    atomic_store(&server->stop, true);
    pthread_join(server->thread, NULL);
    close(server->fd);
    while (atomic_load(&server->peers) > 0)
        usleep(1000);
    SSL_CTX_free(server->tls);
}

#endif
