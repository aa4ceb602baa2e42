/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the files of the HTTP client share.
 */
#ifndef XV_NET_HTTP_INTERNAL_H
#define XV_NET_HTTP_INTERNAL_H

#include <curl/curl.h>

#include "base/buffer.h"
#include "net/http.h"

#define XV_NET_COMPONENT "net"

/* A multi handle with its kept connections and the easy handle that uses it. */
struct xv_slot {
    struct xv_slot *next;
    CURLM *multi;
    CURL *easy;
    struct xv_url peer;
    char host[256];
    struct xv_trust_check check;
};

struct xv_exchange {
    struct xv_http *http;
    struct xv_trust *trust;
    struct xv_slot *slot;
    struct xv_call call;
    struct curl_slist *headers;
    xv_http_produce_fn produce;
    void *user;
    uint64_t upload_left;
    uint64_t ceiling;
    uint64_t received;
    uint64_t head_bytes;
    int64_t stall_ms;
    int64_t active_ms;        /* when the last byte moved */
    struct xv_buffer pending; /* body bytes that were not read yet, from offset on */
    size_t offset;
    int status;
    bool kept; /* the slot may have had a connection */
    bool head_complete;
    bool done;
    CURLcode result;
    xvsa_error *failure; /* of a callback */
    int failure_code;
    char what[512]; /* for messages: "POST https://10.0.0.1:443/" */
    char location[1024];
    char reason[CURL_ERROR_SIZE];
};

/* Refuses what must not or cannot be sent. */
int xv_http_check_request(const struct xv_http_request *request, bool allow_plain,
                          xvsa_error **error) XV_MUST_CHECK;
/* False without memory. */
bool xv_exchange_set_headers(struct xv_exchange *exchange, const struct xv_http_request *request);
/* Gives the easy handle its options and callbacks. */
CURLcode xv_exchange_set_transfer(struct xv_exchange *exchange,
                                  const struct xv_http_request *request);

#endif
