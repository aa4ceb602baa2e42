/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Each exchange drives a multi handle of its own with one transfer, because only curl_multi_poll can
 * watch the cancellation descriptor beside the socket. Multi handles hold the kept connections, so they
 * go back to a list of idle ones.
 */
#include "net/http.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/http_internal.h"

#define COMPONENT   "net"
#define IDLE_MAX    8
#define PENDING_MAX (32u << 20) /* what one curl_multi_perform may deliver at most */

struct xv_http {
    const struct xv_env *env;
    struct xv_trust *trust;
    bool allow_plain;
    pthread_mutex_t lock; /* idle, idle_count */
    struct xv_slot *idle;
    unsigned idle_count;
};

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;
static CURLcode curl_ready = CURLE_FAILED_INIT;

static void init_curl(void)
{
    curl_ready = curl_global_init(CURL_GLOBAL_DEFAULT);
}

int xv_http_new(const struct xv_env *env, struct xv_trust *trust, bool allow_plain,
                struct xv_http **ret, xvsa_error **error)
{
    pthread_once(&curl_once, init_curl);
    if (curl_ready != CURLE_OK)
        return xv_fail(error, XVSA_ERR_INTERNAL, COMPONENT, "libcurl does not start");
    struct xv_http *http = calloc(1, sizeof *http);
    if (http == NULL)
        return xv_fail_memory(error);
    http->env = env;
    http->trust = trust;
    http->allow_plain = allow_plain;
    pthread_mutex_init(&http->lock, NULL);
    *ret = http;
    return 0;
}

static void free_slot(struct xv_slot *slot)
{
    if (slot == NULL)
        return;
    curl_easy_cleanup(slot->easy);
    curl_multi_cleanup(slot->multi);
    free(slot);
}

void xv_http_free(struct xv_http *http)
{
    if (http == NULL)
        return;
    while (http->idle != NULL) {
        struct xv_slot *slot = http->idle;
        http->idle = slot->next;
        free_slot(slot);
    }
    pthread_mutex_destroy(&http->lock);
    free(http);
}

static struct xv_slot *new_slot(void)
{
    struct xv_slot *slot = calloc(1, sizeof *slot);
    if (slot == NULL)
        return NULL;
    slot->multi = curl_multi_init();
    slot->easy = curl_easy_init();
    if (slot->multi == NULL || slot->easy == NULL) {
        free_slot(slot);
        return NULL;
    }
    return slot;
}

/* Prefers a slot that has a connection to the peer. */
static struct xv_slot *take_slot(struct xv_http *http, const struct xv_url *peer, bool *ret_kept)
{
    pthread_mutex_lock(&http->lock);
    struct xv_slot **link = &http->idle;
    while (*link != NULL && !xv_url_equal(&(*link)->peer, peer))
        link = &(*link)->next;
    struct xv_slot *slot = *link;
    if (slot != NULL) {
        *link = slot->next;
        http->idle_count--;
    }
    pthread_mutex_unlock(&http->lock);
    *ret_kept = slot != NULL;
    return slot != NULL ? slot : new_slot();
}

static void give_slot(struct xv_http *http, struct xv_slot *slot)
{
    struct xv_slot *surplus = NULL;
    pthread_mutex_lock(&http->lock);
    slot->next = http->idle;
    http->idle = slot;
    if (http->idle_count++ == IDLE_MAX) {
        /* The one that was not used for the longest time. */
        struct xv_slot **link = &http->idle;
        while ((*link)->next != NULL)
            link = &(*link)->next;
        surplus = *link;
        *link = NULL;
        http->idle_count--;
    }
    pthread_mutex_unlock(&http->lock);
    free_slot(surplus);
}

static void describe(struct xv_exchange *exchange, const struct xv_http_request *request)
{
    char url[320];
    xv_url_format(request->host, url, sizeof url);
    snprintf(exchange->what, sizeof exchange->what, "%s %s%.*s", request->method, url,
             (int)strcspn(request->target, "?") > 100 ? 100 : (int)strcspn(request->target, "?"),
             request->target);
}

static int transport_failure(struct xv_exchange *exchange, xvsa_error **error)
{
    const char *reason =
        exchange->reason[0] != '\0' ? exchange->reason : curl_easy_strerror(exchange->result);
    long os_errno = 0;
    curl_easy_getinfo(exchange->slot->easy, CURLINFO_OS_ERRNO, &os_errno);
    int code = XVSA_ERR_NETWORK;
    switch (exchange->result) {
    case CURLE_SSL_CONNECT_ERROR:
        code = os_errno != 0 ? XVSA_ERR_NETWORK : XVSA_ERR_TLS;
        break;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_CERTPROBLEM:
        code = XVSA_ERR_TLS;
        break;
    case CURLE_OUT_OF_MEMORY:
        return xv_fail_memory(error);
    case CURLE_FILESIZE_EXCEEDED:
        return xv_fail(error, XVSA_ERR_LIMIT, COMPONENT,
                       "%s: the answer announces more than the allowed %llu bytes", exchange->what,
                       (unsigned long long)exchange->ceiling);
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_BAD_CONTENT_ENCODING:
    case CURLE_HTTP2:
        code = XVSA_ERR_PROTOCOL;
        break;
    default:
        break;
    }
    return xv_fail(error, code, COMPONENT, "%s: %s", exchange->what, reason);
}

/* Makes the error of an exchange that failed. */
static int fail(struct xv_exchange *exchange, xvsa_error **error)
{
    if (exchange->failure_code != 0) {
        int code = exchange->failure_code;
        if (error != NULL)
            *error = exchange->failure;
        else
            xvsa_error_unref(exchange->failure);
        exchange->failure = NULL;
        return code;
    }
    if (exchange->slot->check.refused)
        return xv_trust_fail(&exchange->slot->check, exchange->slot->host, error);
    return transport_failure(exchange, error);
}

static int check_progress(struct xv_exchange *exchange, xvsa_error **error)
{
    int rc = xv_call_check(&exchange->call, COMPONENT, exchange->what, error);
    if (rc != 0)
        return rc;
    if (exchange->stall_ms > 0 && xv_clock_ms() - exchange->active_ms > exchange->stall_ms)
        return xv_fail(error, XVSA_ERR_TIMEOUT, COMPONENT, "%s: no byte moved for %lld seconds",
                       exchange->what, (long long)(exchange->stall_ms / 1000));
    return 0;
}

enum goal { HEAD, BYTES, END };

static bool is_reached(const struct xv_exchange *exchange, enum goal goal)
{
    return (goal == HEAD && exchange->head_complete) ||
           (goal == BYTES && exchange->pending.length > exchange->offset);
}

/* Lets the transfer go on until the goal is reached or the transfer has ended. */
static int drive(struct xv_exchange *exchange, enum goal goal, xvsa_error **error)
{
    CURLM *multi = exchange->slot->multi;
    while (!exchange->done) {
        int rc = check_progress(exchange, error);
        if (rc != 0)
            return rc;
        int running = 0;
        int left = 0;
        CURLMcode code = curl_multi_perform(multi, &running);
        if (code != CURLM_OK)
            return xv_fail(error, XVSA_ERR_INTERNAL, COMPONENT, "%s: %s", exchange->what,
                           curl_multi_strerror(code));
        const CURLMsg *message = curl_multi_info_read(multi, &left);
        if (message != NULL && message->msg == CURLMSG_DONE) {
            exchange->result = message->data.result;
            exchange->done = true;
            break;
        }
        if (is_reached(exchange, goal))
            return 0;
        struct curl_waitfd wait = {.fd = xv_cancel_fd(exchange->call.cancel),
                                   .events = CURL_WAIT_POLLIN};
        code = curl_multi_poll(multi, &wait, wait.fd >= 0 ? 1 : 0,
                               (int)xv_call_left(&exchange->call, 1000), NULL);
        if (code != CURLM_OK)
            return xv_fail(error, XVSA_ERR_INTERNAL, COMPONENT, "%s: %s", exchange->what,
                           curl_multi_strerror(code));
    }
    return exchange->result == CURLE_OK ? 0 : fail(exchange, error);
}

static int start(struct xv_exchange *exchange, const struct xv_http_request *request,
                 xvsa_error **error)
{
    struct xv_slot *slot = exchange->slot;
    slot->peer = *request->host;
    memcpy(slot->host, request->host->host, sizeof slot->host);
    slot->check.trust = exchange->trust;
    slot->check.host = slot->host;
    slot->check.refused = false;
    if (!xv_exchange_set_headers(exchange, request))
        return xv_fail_memory(error);
    CURLcode rc = xv_exchange_set_transfer(exchange, request);
    if (rc != CURLE_OK)
        return xv_fail(error, XVSA_ERR_UNSUPPORTED, COMPONENT,
                       "libcurl refuses a setting for %s: %s", exchange->what,
                       curl_easy_strerror(rc));
    CURLMcode code = curl_multi_add_handle(slot->multi, slot->easy);
    if (code != CURLM_OK)
        return xv_fail(error, XVSA_ERR_INTERNAL, COMPONENT, "%s: %s", exchange->what,
                       curl_multi_strerror(code));
    return drive(exchange, request->produce != NULL ? END : HEAD, error);
}

static bool was_sent(const struct xv_exchange *exchange)
{
    long bytes = 0;
    curl_easy_getinfo(exchange->slot->easy, CURLINFO_REQUEST_SIZE, &bytes);
    return bytes > 0;
}

int xv_http_begin(struct xv_http *http, const struct xv_http_request *request,
                  const struct xv_call *call, struct xv_exchange **ret, bool *ret_sent,
                  xvsa_error **error)
{
    if (ret_sent != NULL)
        *ret_sent = false;
    int rc = xv_http_check_request(request, http->allow_plain, error);
    if (rc != 0)
        return rc;
    struct xv_exchange *exchange = calloc(1, sizeof *exchange);
    if (exchange == NULL)
        return xv_fail_memory(error);
    exchange->http = http;
    exchange->trust = http->trust;
    exchange->slot = take_slot(http, request->host, &exchange->kept);
    if (exchange->slot == NULL) {
        free(exchange);
        return xv_fail_memory(error);
    }
    if (call != NULL)
        exchange->call = *call;
    exchange->produce = request->produce;
    exchange->user = request->user;
    exchange->upload_left = request->upload_length;
    exchange->ceiling = request->answer_ceiling == 0 ? 64u << 10 : request->answer_ceiling;
    exchange->stall_ms = request->stall_ms;
    exchange->active_ms = xv_clock_ms();
    xv_buffer_init(&exchange->pending, PENDING_MAX);
    describe(exchange, request);
    rc = start(exchange, request, error);
    if (ret_sent != NULL)
        *ret_sent = was_sent(exchange);
    if (rc != 0) {
        xv_http_end(exchange);
        return rc;
    }
    *ret = exchange;
    return 0;
}

int xv_http_status(const struct xv_exchange *exchange)
{
    return exchange->status;
}

bool xv_http_repeated(const struct xv_exchange *exchange)
{
    long connects = 0;
    curl_easy_getinfo(exchange->slot->easy, CURLINFO_NUM_CONNECTS, &connects);
    return exchange->kept && connects > 0;
}

const char *xv_http_location(const struct xv_exchange *exchange)
{
    return exchange->location;
}

const char *xv_http_fingerprint(const struct xv_exchange *exchange)
{
    return exchange->slot->peer.tls ? exchange->slot->check.seen : "";
}

int xv_http_read(struct xv_exchange *exchange, void *data, size_t room, size_t *ret_length,
                 xvsa_error **error)
{
    size_t available = exchange->pending.length - exchange->offset;
    while (available == 0) {
        exchange->pending.length = 0;
        exchange->offset = 0;
        if (exchange->done && exchange->result == CURLE_OK) {
            *ret_length = 0;
            return 0;
        }
        if (exchange->done)
            return xv_fail(error, XVSA_ERR_NETWORK, COMPONENT, "%s: the answer had failed before",
                           exchange->what);
        int rc = drive(exchange, BYTES, error);
        if (rc != 0)
            return rc;
        available = exchange->pending.length;
    }
    *ret_length = room < available ? room : available;
    memcpy(data, exchange->pending.data + exchange->offset, *ret_length);
    exchange->offset += *ret_length;
    return 0;
}

int xv_http_wait(struct xv_exchange *exchange, const struct xv_call *call, bool *ret_ready,
                 xvsa_error **error)
{
    exchange->call = call == NULL ? (struct xv_call){0} : *call;
    *ret_ready = exchange->done || exchange->pending.length > exchange->offset;
    if (*ret_ready)
        return 0;
    exchange->pending.length = 0;
    exchange->offset = 0;
    xvsa_error *failure = NULL;
    int rc = drive(exchange, BYTES, &failure);
    bool late = rc == XVSA_ERR_TIMEOUT && !exchange->done && exchange->failure_code == 0;
    *ret_ready = rc == 0;
    if (rc == 0 || late) {
        xv_error_clear(&failure);
        return 0;
    }
    if (error != NULL)
        *error = failure;
    else
        xvsa_error_unref(failure);
    return rc;
}

static void wipe_headers(struct curl_slist *headers)
{
    for (struct curl_slist *header = headers; header != NULL; header = header->next)
        xv_wipe(header->data, strlen(header->data));
    curl_slist_free_all(headers);
}

void xv_http_end(struct xv_exchange *exchange)
{
    if (exchange == NULL)
        return;
    struct xv_slot *slot = exchange->slot;
    bool keep = exchange->done && exchange->result == CURLE_OK;
    /* Removing a transfer that is under way closes its connection. */
    curl_multi_remove_handle(slot->multi, slot->easy);
    curl_easy_reset(slot->easy);
    wipe_headers(exchange->headers);
    if (keep)
        give_slot(exchange->http, slot);
    else
        free_slot(slot);
    xv_buffer_wipe(&exchange->pending);
    xvsa_error_unref(exchange->failure);
    free(exchange);
}
