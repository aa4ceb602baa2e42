/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * HTTP/1.1 requests over kept connections. The one place that speaks to libcurl. Redirects are not
 * followed, proxies of the environment not used. Thread-safe; an exchange belongs to one thread.
 */
#ifndef XV_NET_HTTP_H
#define XV_NET_HTTP_H

#include "base/call.h"
#include "base/env.h"
#include "net/trust.h"
#include "net/url.h"

struct xv_http;
struct xv_exchange;

/* trust and env are borrowed and outlive it. */
int xv_http_new(const struct xv_env *env, struct xv_trust *trust, bool allow_plain,
                struct xv_http **ret, xvsa_error **error) XV_MUST_CHECK;
/* Ends the idle connections; no exchange may be under way. */
void xv_http_free(struct xv_http *http);

/* Fills at most room bytes; *ret_length 0 is not allowed before the whole upload was given. */
typedef int (*xv_http_produce_fn)(void *user, void *data, size_t room, size_t *ret_length,
                                  xvsa_error **error);

struct xv_http_request {
    const char *method; /* "GET", "POST" or "PUT" */
    const struct xv_url *host;
    const char *target;       /* path and query; the query is taken for a secret */
    const char *content_type; /* of body; NULL: none */
    const void *body;         /* POST; borrowed until the exchange ends */
    size_t body_length;
    xv_http_produce_fn produce; /* PUT: gives exactly upload_length bytes; may block as long as
                                   it watches cancellation itself */
    void *user;
    uint64_t upload_length;
    uint64_t answer_ceiling; /* bytes of the answer's body; an announced length above it, too, fails
                                with LIMIT. 0: 64 KiB */
    int64_t stall_ms;        /* TIMEOUT after so long without a byte in either direction; 0: the
                                call's deadline alone */
    const char *const *headers; /* further ones, "Name: value"; copied, wiped at the end */
    uint32_t header_count;
    const char *certificate_file; /* PEM, of the client, for TLS; NULL: none */
    const char *key_file;         /* PEM; NULL: in certificate_file */
    size_t head_max;              /* longest head the peer takes; 0: 1023 bytes, which is what pools
                                     take; at most 16 KiB */
    bool fresh;                   /* a new connection: on a kept one libcurl would send a request
                                     again whose connection the server closed, which a call that must
                                     not be repeated cannot risk */
};

/* Sends a request and waits for the answer's head; with produce for the end of both directions.
 * *ret_sent (may be NULL) tells, also on failure, whether a byte of the request may have reached the
 * peer. Errors: INVALID (plain HTTP not allowed, head above 1023 bytes), TLS, NETWORK, TIMEOUT,
 * CANCELLED, PROTOCOL, LIMIT, MEMORY and those of produce. request->host and target may go after it. */
int xv_http_begin(struct xv_http *http, const struct xv_http_request *request,
                  const struct xv_call *call, struct xv_exchange **ret, bool *ret_sent,
                  xvsa_error **error) XV_MUST_CHECK;

int xv_http_status(const struct xv_exchange *exchange);
/* Whether the request may have been sent twice: libcurl does so by itself when a kept connection turns
 * out to be closed. */
bool xv_http_repeated(const struct xv_exchange *exchange);
/* Location header or "". */
const char *xv_http_location(const struct xv_exchange *exchange);
/* SHA-256 of the peer's certificate, "" over plain HTTP. */
const char *xv_http_fingerprint(const struct xv_exchange *exchange);

/* Gives the next bytes of the body, *ret_length 0 at its end. A body that ends before its announced
 * length fails with NETWORK. */
int xv_http_read(struct xv_exchange *exchange, void *data, size_t room, size_t *ret_length,
                 xvsa_error **error) XV_MUST_CHECK;

/* For answers without an end: waits until bytes can be read or the answer has ended or failed, which
 * *ret_ready tells and the next xv_http_read gives at once. call replaces that of the exchange; its
 * deadline, when it passes, is no failure but leaves *ret_ready false. */
int xv_http_wait(struct xv_exchange *exchange, const struct xv_call *call, bool *ret_ready,
                 xvsa_error **error) XV_MUST_CHECK;

/* Keeps the connection when the answer was read to its end, closes it otherwise. NULL is allowed. */
void xv_http_end(struct xv_exchange *exchange);

#endif
