/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * How one request is set up, and what libcurl calls back while it runs.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "net/http_internal.h"

#define COMPONENT       XV_NET_COMPONENT
#define USER_AGENT      "libxvsa/0.1"
#define HEAD_MAX        1023 /* servers refuse 1024 bytes and more */
#define ANSWER_HEAD_MAX (64u << 10)
#define CONNECT_MS      20000L

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
        exchange->status = space == NULL ? 0 : (int)strtol(space + 1, NULL, 10);
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

/* A line comes with a zero byte behind it, which strtol relies on. */
static size_t on_header(char *data, size_t size, size_t count, void *user)
{
    struct xv_exchange *exchange = user;
    size_t length = size * count;
    xvsa_error *error = NULL;
    exchange->active_ms = xv_clock_ms();
    exchange->head_bytes += length;
    if (exchange->head_bytes > ANSWER_HEAD_MAX) {
        int code = xv_fail(&error, XVSA_ERR_LIMIT, COMPONENT,
                           "%s: the answer's head is longer than %u bytes", exchange->what,
                           ANSWER_HEAD_MAX);
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

bool xv_exchange_set_headers(struct xv_exchange *exchange, const struct xv_http_request *request)
{
    char line[128];
    bool good = add_header(exchange, "Accept:") && add_header(exchange, "Expect:");
    if (request->content_type != NULL) {
        snprintf(line, sizeof line, "Content-Type: %s", request->content_type);
        good = good && add_header(exchange, line);
    }
    for (uint32_t i = 0; good && i < request->header_count; i++)
        good = add_header(exchange, request->headers[i]);
    return good;
}

/* Options of security; each must hold or the transfer does not start. */
static CURLcode set_policy(struct xv_exchange *exchange, const struct xv_http_request *request)
{
    CURL *easy = exchange->slot->easy;
    bool system = false;
    const char *ca_file = xv_trust_ca_file(exchange->trust, &system);
    CURLcode rc =
        curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, request->host->tls ? "https" : "http");
    if (rc == CURLE_OK)
        rc = curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    if (rc == CURLE_OK)
        rc = curl_easy_setopt(easy, CURLOPT_PROXY, "");
    if (rc != CURLE_OK || !request->host->tls)
        return rc;
    if (request->certificate_file != NULL)
        rc = curl_easy_setopt(easy, CURLOPT_SSLCERT, request->certificate_file);
    if (rc == CURLE_OK && request->certificate_file != NULL)
        rc = curl_easy_setopt(easy, CURLOPT_SSLKEY,
                              request->key_file != NULL ? request->key_file
                                                        : request->certificate_file);
    if (rc == CURLE_OK)
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
            rc = curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE,
                                  (curl_off_t)request->upload_length);
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

CURLcode xv_exchange_set_transfer(struct xv_exchange *exchange,
                                  const struct xv_http_request *request)
{
    CURL *easy = exchange->slot->easy;
    char url[HEAD_MAX + 512];
    xv_url_format(request->host, url, sizeof url);
    size_t length = strlen(url);
    snprintf(url + length, sizeof url - length, "%s", request->target);
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
    for (uint32_t i = 0; i < request->header_count; i++)
        length += strlen(request->headers[i]) + sizeof "\r\n";
    return length;
}

int xv_http_check_request(const struct xv_http_request *request, bool allow_plain,
                          xvsa_error **error)
{
    if (!request->host->tls && !allow_plain)
        return xv_fail(error, XVSA_ERR_INVALID, COMPONENT,
                       "http://%s would send the password in the clear; use https or allow plain "
                       "HTTP explicitly",
                       request->host->host);
    size_t most = request->head_max == 0 ? HEAD_MAX : request->head_max;
    if (strlen(request->target) > HEAD_MAX || head_length(request) > most)
        return xv_fail(error, XVSA_ERR_INVALID, COMPONENT,
                       "the request's head would exceed the %zu bytes that the server accepts",
                       most);
    return 0;
}
