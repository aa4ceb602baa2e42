/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Each exchange drives a multi handle of its own with one transfer, because only curl_multi_poll can
 * watch the cancellation descriptor beside the socket. Multi handles hold the kept connections, so they
 * go back to a list of idle ones.
 */
#include "net/http.h"

#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/buffer.h"

#define COMPONENT       "net"
#define USER_AGENT      "libxvsa/0.1"
#define IDLE_MAX        8
#define HEAD_MAX        1023 /* servers refuse 1024 bytes and more */
#define ANSWER_HEAD_MAX (64u << 10)
#define CONNECT_MS      20000L
#define PENDING_MAX     (32u << 20) /* what one curl_multi_perform may deliver at most */

/* A multi handle with its kept connections and the easy handle that uses it. */
struct slot {
    struct slot *next;
    CURLM *multi;
    CURL *easy;
    struct xv_url peer;
    char host[256];
    struct xv_trust_check check;
};

struct xv_http {
    const struct xv_env *env;
    struct xv_trust *trust;
    bool allow_plain;
    pthread_mutex_t lock; /* idle, idle_count */
    struct slot *idle;
    unsigned idle_count;
};

struct xv_exchange {
    struct xv_http *http;
    struct slot *slot;
    struct xv_call call;
    struct curl_slist *headers;
    xv_http_produce_fn produce;
    void *user;
    uint64_t upload_left;
    uint64_t ceiling;
    uint64_t received;
    uint64_t head_bytes;
    int64_t stall_ms;
    int64_t active_ms; /* when the last byte moved */
    int64_t announced;
    struct xv_buffer pending; /* body bytes that were not read yet, from offset on */
    size_t offset;
    int status;
    bool head_complete;
    bool done;
    CURLcode result;
    xvsa_error *failure; /* of a callback */
    int failure_code;
    char what[512]; /* for messages: "POST https://10.0.0.1:443/" */
    char location[1024];
    char reason[CURL_ERROR_SIZE];
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

static void free_slot(struct slot *slot)
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
        struct slot *slot = http->idle;
        http->idle = slot->next;
        free_slot(slot);
    }
    pthread_mutex_destroy(&http->lock);
    free(http);
}

static struct slot *new_slot(void)
{
    struct slot *slot = calloc(1, sizeof *slot);
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
static struct slot *take_slot(struct xv_http *http, const struct xv_url *peer)
{
    pthread_mutex_lock(&http->lock);
    struct slot **link = &http->idle;
    while (*link != NULL && !xv_url_equal(&(*link)->peer, peer))
        link = &(*link)->next;
    struct slot *slot = *link;
    if (slot != NULL) {
        *link = slot->next;
        http->idle_count--;
    }
    pthread_mutex_unlock(&http->lock);
    return slot != NULL ? slot : new_slot();
}

static void give_slot(struct xv_http *http, struct slot *slot)
{
    struct slot *surplus = NULL;
    pthread_mutex_lock(&http->lock);
    slot->next = http->idle;
    http->idle = slot;
    if (http->idle_count++ == IDLE_MAX) {
        /* The one that was not used for the longest time. */
        struct slot **link = &http->idle;
        while ((*link)->next != NULL)
            link = &(*link)->next;
        surplus = *link;
        *link = NULL;
        http->idle_count--;
    }
    pthread_mutex_unlock(&http->lock);
    free_slot(surplus);
}

static void keep_failure(struct xv_exchange *exchange, int code, xvsa_error *error)
{
    exchange->failure_code = code;
    exchange->failure = error;
}

static size_t on_body(char *data, size_t size, size_t count, void *user)
{
    struct xv_exchange *exchange = user;
    size_t length = size * count;
    xvsa_error *error = NULL;
    exchange->active_ms = xv_clock_ms();
    if (length > exchange->ceiling - exchange->received) {
        int code = xv_fail(&error, XVSA_ERR_LIMIT, COMPONENT,
                           "%s: the answer is longer than the allowed %llu bytes", exchange->what,
                           (unsigned long long)exchange->ceiling);
        keep_failure(exchange, code, error);
        return 0;
    }
    exchange->received += length;
    int rc = xv_buffer_add(&exchange->pending, data, length, &error);
    if (rc == 0)
        return length;
    keep_failure(exchange, rc, error);
    return 0;
}

static bool has_prefix(const char *line, size_t length, const char *name)
{
    size_t size = strlen(name);
    return length >= size && strncasecmp(line, name, size) == 0;
}

static void read_header(struct xv_exchange *exchange, const char *line, size_t length)
{
    if (has_prefix(line, length, "HTTP/")) {
        const char *space = memchr(line, ' ', length);
        exchange->status = space == NULL ? 0 : atoi(space + 1);
        exchange->location[0] = '\0';
    } else if (has_prefix(line, length, "location:")) {
        size_t start = 9;
        while (start < length && (line[start] == ' ' || line[start] == '\t'))
            start++;
        while (length > start && (line[length - 1] == '\r' || line[length - 1] == '\n'))
            length--;
        if (length - start < sizeof exchange->location) {
            memcpy(exchange->location, line + start, length - start);
            exchange->location[length - start] = '\0';
        }
    } else if ((length == 2 && line[0] == '\r') || (length == 1 && line[0] == '\n')) {
        exchange->head_complete = exchange->status >= 200;
    }
}

/* A line comes with a zero byte behind it, which read_header's atoi relies on. */
static size_t on_header(char *data, size_t size, size_t count, void *user)
{
    struct xv_exchange *exchange = user;
    size_t length = size * count;
    xvsa_error *error = NULL;
    exchange->active_ms = xv_clock_ms();
    exchange->head_bytes += length;
    if (exchange->head_bytes > ANSWER_HEAD_MAX) {
        int code = xv_fail(&error, XVSA_ERR_LIMIT, COMPONENT, "%s: the answer's head is longer than %u bytes",
                           exchange->what, ANSWER_HEAD_MAX);
        keep_failure(exchange, code, error);
        return 0;
    }
    read_header(exchange, data, length);
    return length;
}

static size_t on_upload(char *data, size_t size, size_t count, void *user)
{
    struct xv_exchange *exchange = user;
    size_t room = size * count;
    size_t length = 0;
    xvsa_error *error = NULL;
    if (room > exchange->upload_left)
        room = (size_t)exchange->upload_left;
    if (room == 0)
        return 0;
    int rc = exchange->produce(exchange->user, data, room, &length, &error);
    if (rc == 0 && (length == 0 || length > room))
        rc = xv_fail(&error, XVSA_ERR_INTERNAL, COMPONENT,
                     "%s: %llu bytes of the announced upload are missing", exchange->what,
                     (unsigned long long)exchange->upload_left);
    if (rc != 0) {
        keep_failure(exchange, rc, error);
        return CURL_READFUNC_ABORT;
    }
    exchange->upload_left -= length;
    exchange->active_ms = xv_clock_ms();
    return length;
}

static CURLcode on_tls(CURL *easy, void *ssl_ctx, void *user)
{
    (void)easy;
    xv_trust_attach(ssl_ctx, user);
    return CURLE_OK;
}

static bool add_header(struct xv_exchange *exchange, const char *line)
{
    struct curl_slist *list = curl_slist_append(exchange->headers, line);
    if (list == NULL)
        return false;
    exchange->headers = list;
    return true;
}

static bool set_headers(struct xv_exchange *exchange, const struct xv_http_request *request)
{
    char line[128];
    bool good = add_header(exchange, "Accept:") && add_header(exchange, "Expect:");
    if (request->content_type != NULL) {
        snprintf(line, sizeof line, "Content-Type: %s", request->content_type);
        good = good && add_header(exchange, line);
    }
    return good;
}

/* Options of security; each must hold or the transfer does not start. */
static CURLcode set_policy(struct xv_exchange *exchange, const struct xv_http_request *request)
{
    CURL *easy = exchange->slot->easy;
    bool system = false;
    const char *ca_file = xv_trust_ca_file(exchange->http->trust, &system);
    CURLcode rc = curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, request->host->tls ? "https" : "http");
    if (rc == CURLE_OK)
        rc = curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    if (rc == CURLE_OK)
        rc = curl_easy_setopt(easy, CURLOPT_PROXY, "");
    if (rc != CURLE_OK || !request->host->tls)
        return rc;
    rc = curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    if (rc == CURLE_OK)
        rc = curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
    /* The verifier checks the name, because a pinned certificate need not bear it. */
    if (rc == CURLE_OK)
        rc = curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
    /* A resumed session would skip the verifier. */
    if (rc == CURLE_OK)
        rc = curl_easy_setopt(easy, CURLOPT_SSL_SESSIONID_CACHE, 0L);
    if (rc == CURLE_OK && !system)
        rc = curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
    if (rc == CURLE_OK && !system)
        rc = curl_easy_setopt(easy, CURLOPT_CAINFO, ca_file);
    if (rc == CURLE_OK)
        rc = curl_easy_setopt(easy, CURLOPT_SSL_CTX_FUNCTION, on_tls);
    if (rc == CURLE_OK)
        rc = curl_easy_setopt(easy, CURLOPT_SSL_CTX_DATA, &exchange->slot->check);
    return rc;
}

static CURLcode set_body(CURL *easy, const struct xv_http_request *request,
                         struct xv_exchange *exchange)
{
    if (request->produce != NULL) {
        CURLcode rc = curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
        if (rc == CURLE_OK)
            rc = curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)request->upload_length);
        if (rc == CURLE_OK)
            rc = curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_upload);
        if (rc == CURLE_OK)
            rc = curl_easy_setopt(easy, CURLOPT_READDATA, exchange);
        if (rc == CURLE_OK)
            rc = curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, 512L << 10);
        return rc;
    }
    if (request->body == NULL)
        return curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
    CURLcode rc = curl_easy_setopt(easy, CURLOPT_POST, 1L);
    if (rc == CURLE_OK)
        rc = curl_easy_setopt(easy, CURLOPT_POSTFIELDS, request->body);
    if (rc == CURLE_OK)
        rc = curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body_length);
    return rc;
}

static CURLcode set_transfer(struct xv_exchange *exchange, const struct xv_http_request *request)
{
    CURL *easy = exchange->slot->easy;
    char url[HEAD_MAX + 512];
    xv_url_format(request->host, url, sizeof url);
    strncat(url, request->target, sizeof url - strlen(url) - 1);
    CURLcode rc = curl_easy_setopt(easy, CURLOPT_URL, url);
    xv_wipe(url, sizeof url);
    if (rc == CURLE_OK)
        rc = set_body(easy, request, exchange);
    if (rc == CURLE_OK)
        rc = set_policy(exchange, request);
    if (rc == CURLE_OK)
        rc = curl_easy_setopt(easy, CURLOPT_HTTPHEADER, exchange->headers);
    if (rc == CURLE_OK)
        rc = curl_easy_setopt(easy, CURLOPT_USERAGENT, USER_AGENT);
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, 30L);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, 10L);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, 256L << 10);
    curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, request->fresh ? 1L : 0L);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, exchange->reason);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, exchange);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, exchange);
    curl_easy_setopt(easy, CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)exchange->ceiling);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, exchange);
    return rc;
}

/* Length of the head that libcurl will send, generously. */
static size_t head_length(const struct xv_http_request *request)
{
    size_t length = strlen(request->method) + strlen(request->target) + sizeof "  HTTP/1.1\r\n" +
                    sizeof "Host: []:65535\r\n" + strlen(request->host->host) +
                    sizeof "User-Agent: \r\n" + sizeof USER_AGENT +
                    sizeof "Content-Length: 18446744073709551615\r\n\r\n";
    if (request->content_type != NULL)
        length += sizeof "Content-Type: \r\n" + strlen(request->content_type);
    return length;
}

static int check_request(const struct xv_http *http, const struct xv_http_request *request,
                         xvsa_error **error)
{
    if (!request->host->tls && !http->allow_plain)
        return xv_fail(error, XVSA_ERR_INVALID, COMPONENT,
                       "http://%s would send the password in the clear; use https or allow plain "
                       "HTTP explicitly",
                       request->host->host);
    if (head_length(request) > HEAD_MAX)
        return xv_fail(error, XVSA_ERR_INVALID, COMPONENT,
                       "the request's head would exceed the %d bytes that servers accept", HEAD_MAX);
    return 0;
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
    const char *reason = exchange->reason[0] != '\0' ? exchange->reason
                                                     : curl_easy_strerror(exchange->result);
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
    struct slot *slot = exchange->slot;
    slot->peer = *request->host;
    memcpy(slot->host, request->host->host, sizeof slot->host);
    slot->check.trust = exchange->http->trust;
    slot->check.host = slot->host;
    slot->check.refused = false;
    if (!set_headers(exchange, request))
        return xv_fail_memory(error);
    CURLcode rc = set_transfer(exchange, request);
    if (rc != CURLE_OK)
        return xv_fail(error, XVSA_ERR_UNSUPPORTED, COMPONENT, "libcurl refuses a setting for %s: %s",
                       exchange->what, curl_easy_strerror(rc));
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
    int rc = check_request(http, request, error);
    if (rc != 0)
        return rc;
    struct xv_exchange *exchange = calloc(1, sizeof *exchange);
    if (exchange == NULL)
        return xv_fail_memory(error);
    exchange->http = http;
    exchange->slot = take_slot(http, request->host);
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
    curl_off_t announced = -1;
    curl_easy_getinfo(exchange->slot->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &announced);
    exchange->announced = announced;
    *ret = exchange;
    return 0;
}

int xv_http_status(const struct xv_exchange *exchange)
{
    return exchange->status;
}

const char *xv_http_location(const struct xv_exchange *exchange)
{
    return exchange->location;
}

int64_t xv_http_announced(const struct xv_exchange *exchange)
{
    return exchange->announced;
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

void xv_http_end(struct xv_exchange *exchange)
{
    if (exchange == NULL)
        return;
    struct slot *slot = exchange->slot;
    bool keep = exchange->done && exchange->result == CURLE_OK;
    /* Removing a transfer that is under way closes its connection. */
    curl_multi_remove_handle(slot->multi, slot->easy);
    curl_easy_reset(slot->easy);
    curl_slist_free_all(exchange->headers);
    if (keep)
        give_slot(exchange->http, slot);
    else
        free_slot(slot);
    xv_buffer_wipe(&exchange->pending);
    xvsa_error_unref(exchange->failure);
    free(exchange);
}
