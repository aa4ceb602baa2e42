/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * One request to etcd: tried at one endpoint after the other until there is a definite answer. A
 * server that has no leader, is late or does not answer is passed over; when all were, there is a
 * pause that grows and is uneven, so that many clients do not come back at once.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "coord/kv_etcd.h"

#define COMPONENT      XV_KV_COMPONENT
#define AUTH_TRIES     3
#define AUTH_CEILING   (64u << 10)
#define HEAD_MAX       (16u << 10)
#define PAUSE_FIRST_MS 50
#define PAUSE_MAX_MS   2000

size_t xv_etcd_current(struct xv_kv_etcd *self)
{
    pthread_mutex_lock(&self->lock);
    size_t current = self->current;
    pthread_mutex_unlock(&self->lock);
    return current;
}

void xv_etcd_set_current(struct xv_kv_etcd *self, size_t index)
{
    pthread_mutex_lock(&self->lock);
    self->current = index;
    pthread_mutex_unlock(&self->lock);
}

int xv_etcd_begin(struct xv_kv_etcd *self, const struct xv_url *endpoint, const char *target,
                  const char *body, const char *token, bool hasleader, uint64_t ceiling,
                  const struct xv_call *call, struct xv_exchange **ret, bool *ret_sent,
                  xvsa_error **error)
{
    char *authorization = NULL;
    const char *headers[2];
    uint32_t count = 0;
    *ret_sent = false;
    if (token[0] != '\0') {
        if (asprintf(&authorization, "Authorization: %s", token) < 0)
            return xv_fail_memory(error);
        headers[count++] = authorization;
    }
    if (hasleader)
        headers[count++] = "Grpc-Metadata-hasleader: true";
    struct xv_http_request request = {
        .method = "POST",
        .host = endpoint,
        .target = target,
        .content_type = "application/json",
        .body = body,
        .body_length = strlen(body),
        .answer_ceiling = ceiling,
        .headers = headers,
        .header_count = count,
        .certificate_file = self->certificate_file,
        .key_file = self->key_file,
        .head_max = HEAD_MAX,
    };
    int rc = xv_http_begin(self->http, &request, call, ret, ret_sent, error);
    xv_free_secret(authorization);
    return rc;
}

int xv_etcd_read_all(struct xv_exchange *exchange, struct xv_buffer *body, xvsa_error **error)
{
    char data[16384];
    size_t length = 0;
    int rc;
    do {
        rc = xv_http_read(exchange, data, sizeof data, &length, error);
        if (rc == 0 && length > 0)
            rc = xv_buffer_add(body, data, length, error);
    } while (rc == 0 && length > 0);
    xv_wipe(data, sizeof data);
    return rc;
}

/* A JSON text, by hand so that no copy of a secret stays behind. */
static int add_quoted(struct xv_buffer *body, const char *text, xvsa_error **error)
{
    int rc = xv_buffer_add_text(body, "\"", error);
    for (; rc == 0 && *text != '\0'; text++) {
        char escape[8];
        if ((unsigned char)*text < 0x20 || *text == '"' || *text == '\\')
            snprintf(escape, sizeof escape, "\\u%04x", (unsigned)(unsigned char)*text);
        else
            snprintf(escape, sizeof escape, "%c", *text);
        rc = xv_buffer_add_text(body, escape, error);
    }
    return rc == 0 ? xv_buffer_add_text(body, "\"", error) : rc;
}

/* Takes the token out of the answer, for the same reason by hand. */
static char *find_token(const char *text)
{
    static const char mark[] = "\"token\":\"";
    const char *start = text == NULL ? NULL : strstr(text, mark);
    if (start == NULL)
        return NULL;
    start += sizeof mark - 1;
    size_t length = strcspn(start, "\"\\\r\n");
    if (start[length] != '"' || length == 0 || length > XV_ETCD_TOKEN_MAX)
        return NULL;
    for (size_t i = 0; i < length; i++) {
        if (start[i] <= 0x20 || start[i] >= 0x7f)
            return NULL;
    }
    return strndup(start, length);
}

static void set_token(struct xv_kv_etcd *self, char *token, bool off)
{
    pthread_mutex_lock(&self->lock);
    xv_free_secret(self->token);
    self->token = token;
    self->auth_off = off;
    self->token_serial++;
    pthread_mutex_unlock(&self->lock);
}

static int take_token(struct xv_kv_etcd *self, int status, const struct xv_buffer *answer,
                      xvsa_error **error)
{
    struct xv_etcd_failure failure;
    if (status == 200) {
        char *token = find_token(answer->data);
        if (token == NULL)
            return xv_fail(error, XVSA_ERR_PROTOCOL, COMPONENT,
                           "etcd's answer to the authentication holds no token");
        set_token(self, token, false);
        return 0;
    }
    xv_etcd_read_failure(answer->data, answer->length, status, &failure);
    if (strstr(failure.message, "authentication is not enabled") != NULL) {
        set_token(self, NULL, true);
        return 0;
    }
    if (status >= 500 || failure.code == -1)
        return xv_fail(error, XVSA_ERR_NETWORK, COMPONENT,
                       "etcd does not authenticate just now: HTTP %d, %s", status,
                       failure.message[0] == '\0' ? "no reason given" : failure.message);
    return xv_fail(error, XVSA_ERR_AUTH, COMPONENT, "etcd does not accept user \"%.80s\": %s",
                   self->username, failure.message);
}

static int authenticate(struct xv_kv_etcd *self, const struct xv_url *endpoint,
                        const struct xv_call *call, xvsa_error **error)
{
    struct xv_buffer body;
    struct xv_buffer answer;
    struct xv_exchange *exchange = NULL;
    bool sent = false;
    xv_buffer_init(&body, AUTH_CEILING);
    xv_buffer_init(&answer, AUTH_CEILING);
    int rc = xv_buffer_add_text(&body, "{\"name\":", error);
    if (rc == 0)
        rc = add_quoted(&body, self->username, error);
    if (rc == 0)
        rc = xv_buffer_add_text(&body, ",\"password\":", error);
    if (rc == 0)
        rc = add_quoted(&body, self->password == NULL ? "" : self->password, error);
    if (rc == 0)
        rc = xv_buffer_add_text(&body, "}", error);
    if (rc == 0)
        rc = xv_etcd_begin(self, endpoint, "/v3/auth/authenticate", body.data, "", false,
                           AUTH_CEILING, call, &exchange, &sent, error);
    if (rc == 0)
        rc = xv_etcd_read_all(exchange, &answer, error);
    if (rc == 0)
        rc = take_token(self, xv_http_status(exchange), &answer, error);
    xv_http_end(exchange);
    xv_buffer_wipe(&body);
    xv_buffer_wipe(&answer);
    return rc;
}

int xv_etcd_token(struct xv_kv_etcd *self, const struct xv_url *endpoint,
                  const struct xv_call *call, char **ret, uint32_t *ret_serial, xvsa_error **error)
{
    for (int i = 0;; i++) {
        pthread_mutex_lock(&self->lock);
        bool needed = self->username != NULL && self->token == NULL && !self->auth_off;
        *ret = strdup(self->token == NULL ? "" : self->token);
        *ret_serial = self->token_serial;
        pthread_mutex_unlock(&self->lock);
        if (*ret == NULL)
            return xv_fail_memory(error);
        if (!needed)
            return 0;
        xv_free_secret(*ret);
        *ret = NULL;
        if (i == AUTH_TRIES)
            return xv_fail(error, XVSA_ERR_AUTH, COMPONENT, "etcd's tokens expire at once");
        int rc = authenticate(self, endpoint, call, error);
        if (rc != 0)
            return rc;
    }
}

bool xv_etcd_forget_token(struct xv_kv_etcd *self, uint32_t serial)
{
    if (self->username == NULL)
        return false;
    pthread_mutex_lock(&self->lock);
    if (self->token_serial == serial) {
        xv_free_secret(self->token);
        self->token = NULL;
        self->auth_off = false;
        self->token_serial++;
    }
    pthread_mutex_unlock(&self->lock);
    return true;
}

enum verdict { ANSWERED, TURNED_AWAY, AUTHENTICATE, ELSEWHERE };

static bool says(const struct xv_etcd_failure *failure, const char *words)
{
    return strstr(failure->message, words) != NULL;
}

static enum verdict judge(const struct xv_etcd_failure *failure)
{
    if (says(failure, "user name is empty") || says(failure, "invalid auth token") ||
        says(failure, "revision in header is old") || failure->code == 16)
        return AUTHENTICATE;
    if (says(failure, "space exceeded"))
        return TURNED_AWAY;
    if (says(failure, "too many requests"))
        return ELSEWHERE;
    /* 1 cancelled, 4 deadline, 8 exhausted, 10 aborted, 13 internal, 14 unavailable */
    bool transient = failure->code == 1 || failure->code == 4 || failure->code == 8 ||
                     failure->code == 10 || failure->code == 13 || failure->code == 14;
    if (transient || (failure->code <= 2 && failure->status >= 500))
        return ELSEWHERE;
    return TURNED_AWAY;
}

static int refuse(struct xv_kv_etcd *self, const struct xv_etcd_request *request,
                  const struct xv_etcd_failure *failure, xvsa_error **error)
{
    const char *reason = failure->message[0] == '\0' ? "no reason given" : failure->message;
    const char *user = self->username == NULL ? "nobody in particular" : self->username;
    if (says(failure, "space exceeded"))
        return xv_fail(error, XVSA_ERR_SPACE, COMPONENT,
                       "etcd cannot %s: its quota is full; compact and defragment it, set "
                       "--auto-compaction-retention, raise --quota-backend-bytes, then disarm the "
                       "alarm (etcdctl alarm disarm)",
                       request->what);
    if (failure->code == 7 || failure->status == 403)
        return xv_fail(error, XVSA_ERR_DENIED, COMPONENT,
                       "etcd does not let %.80s %s: %s; the user's role needs readwrite on the "
                       "prefix %s",
                       user, request->what, reason, self->kv.prefix == NULL ? "" : self->kv.prefix);
    int code = XVSA_ERR_PROTOCOL;
    if (failure->code == XV_ETCD_NOT_FOUND)
        code = XVSA_ERR_NOT_FOUND;
    else if (failure->code == XV_ETCD_OUT_OF_RANGE)
        code = XVSA_ERR_CONFLICT;
    else if (failure->code == 15)
        code = XVSA_ERR_CORRUPT;
    else if (failure->code == 12)
        code = XVSA_ERR_UNSUPPORTED;
    else if (says(failure, "too large"))
        code = XVSA_ERR_LIMIT;
    return xv_fail(error, code, COMPONENT, "etcd cannot %s: %s (HTTP %d)", request->what, reason,
                   failure->status);
}

/* One try at one endpoint. error is filled for every verdict but ANSWERED. */
static enum verdict try_once(struct xv_kv_etcd *self, const struct xv_url *endpoint,
                             const struct xv_etcd_request *request, const char *body,
                             const struct xv_call *call, struct xv_etcd_reply *reply, int *ret_code,
                             xvsa_error **error)
{
    struct xv_call one = xv_call_within(call, request->try_ms);
    struct xv_exchange *exchange = NULL;
    struct xv_buffer answer;
    char *token = NULL;
    uint32_t serial = 0;
    bool sent = false;
    reply->failure = (struct xv_etcd_failure){.code = -1};
    xv_buffer_init(&answer, request->ceiling);
    int rc = xv_etcd_token(self, endpoint, &one, &token, &serial, error);
    if (rc == 0) {
        rc = xv_etcd_begin(self, endpoint, request->target, body, token, false, request->ceiling,
                           &one, &exchange, &sent, error);
        if (rc == 0)
            rc = xv_etcd_read_all(exchange, &answer, error);
    }
    int status = rc == 0 ? xv_http_status(exchange) : 0;
    if (exchange != NULL && xv_http_repeated(exchange))
        reply->uncertain = true;
    xv_http_end(exchange);
    xv_free_secret(token);
    if (rc == 0 && status == 200)
        rc = xv_etcd_parse(answer.data, answer.length, &reply->body, error);
    enum verdict verdict = rc == 0 ? ANSWERED : ELSEWHERE;
    if (rc == 0 && status != 200) {
        xv_etcd_read_failure(answer.data, answer.length, status, &reply->failure);
        verdict = judge(&reply->failure);
        rc = refuse(self, request, &reply->failure, error);
        if (verdict == AUTHENTICATE && !xv_etcd_forget_token(self, serial)) {
            verdict = TURNED_AWAY;
            xv_error_clear(error);
            rc = xv_fail(error, XVSA_ERR_AUTH, COMPONENT,
                         "etcd asks for a user and a password to %s", request->what);
        }
    } else if (rc == XVSA_ERR_AUTH || rc == XVSA_ERR_LIMIT || rc == XVSA_ERR_MEMORY ||
               rc == XVSA_ERR_INVALID || rc == XVSA_ERR_UNSUPPORTED || rc == XVSA_ERR_PROTOCOL) {
        verdict = TURNED_AWAY;
    }
    /* A server that refuses has not done it; one that is late, gone or not understood may have. */
    bool understood = status != 0 && status != 200;
    if (sent && rc != 0 && (verdict == ELSEWHERE || !understood))
        reply->uncertain = true;
    reply->refused = verdict == TURNED_AWAY && understood;
    *ret_code = rc;
    xv_buffer_wipe(&answer);
    return verdict;
}

/* Half of the pause is a matter of chance. */
static int pause_between(const struct xv_call *call, unsigned round, xvsa_error **error)
{
    int64_t most = PAUSE_FIRST_MS;
    for (unsigned i = 0; i < round && most < PAUSE_MAX_MS; i++)
        most *= 2;
    if (most > PAUSE_MAX_MS)
        most = PAUSE_MAX_MS;
    uint32_t chance = 0;
    int rc = xv_random(&chance, sizeof chance, error);
    if (rc != 0)
        return rc;
    return xv_call_sleep(call, most / 2 + chance % (most / 2 + 1), COMPONENT,
                         "waiting for the coordination store", error);
}

/* What may be behind a failure and is not in it. */
static const char *hint(const struct xv_kv_etcd *self, const xvsa_error *failure)
{
    if (!self->endpoints[0].tls)
        return "";
    /* The gateway is a client of its own server. */
    if (strstr(xvsa_error_message(failure), "HTTP 503") != NULL)
        return "; if this lasts, the server's certificate may lack the extended key usage "
               "clientAuth";
    if (xvsa_error_code(failure) != XVSA_ERR_NETWORK)
        return "";
    return self->certificate_file == NULL
               ? "; if the server asks for a client certificate, give it one"
               : "; the server may not trust the client certificate";
}

/* Ends a call whose time is over, telling what the last try met. Takes both errors over. */
static int give_up(struct xv_kv_etcd *self, const struct xv_etcd_request *request, int rc,
                   xvsa_error *last, xvsa_error *over, xvsa_error **error)
{
    char url[320];
    xv_url_format(&self->endpoints[0], url, sizeof url);
    if (rc != XVSA_ERR_CANCELLED && last != NULL) {
        xvsa_error_unref(over);
        over = last;
        last = NULL;
        xv_error_wrap(&over, rc, COMPONENT, "cannot %s: no definite answer of etcd (%s%s)%s",
                      request->what, url, self->endpoint_count > 1 ? " and others" : "",
                      hint(self, over));
    }
    xvsa_error_unref(last);
    if (error != NULL)
        *error = over;
    else
        xvsa_error_unref(over);
    return rc;
}

static int call_until(struct xv_kv_etcd *self, const struct xv_etcd_request *request,
                      const char *body, const struct xv_call *call, struct xv_etcd_reply *reply,
                      xvsa_error **error)
{
    size_t index = xv_etcd_current(self);
    size_t untrusted = 0;
    unsigned authenticated = 0;
    xvsa_error *last = NULL;
    for (unsigned tries = 0;;) {
        xvsa_error *over = NULL;
        int rc = xv_call_check(call, COMPONENT, "waiting for the coordination store", &over);
        if (rc == 0 && tries > 0 && tries % self->endpoint_count == 0 && last != NULL)
            rc = pause_between(call, tries / (unsigned)self->endpoint_count - 1, &over);
        if (rc == 0 && untrusted == self->endpoint_count)
            rc = XVSA_ERR_TLS;
        if (rc != 0)
            return give_up(self, request, rc, last, over, error);
        xv_error_clear(&last);
        int code = 0;
        enum verdict verdict =
            try_once(self, &self->endpoints[index], request, body, call, reply, &code, &last);
        if (verdict == AUTHENTICATE && authenticated++ < AUTH_TRIES)
            continue;
        if (verdict == ANSWERED || verdict == TURNED_AWAY) {
            xv_etcd_set_current(self, index);
            if (error != NULL)
                *error = last;
            else
                xvsa_error_unref(last);
            return code;
        }
        untrusted = code == XVSA_ERR_TLS ? untrusted + 1 : 0;
        tries++;
        index = (index + 1) % self->endpoint_count;
    }
}

int xv_etcd_call(struct xv_kv_etcd *self, const struct xv_etcd_request *request,
                 const struct xv_call *call, struct xv_etcd_reply *reply, xvsa_error **error)
{
    *reply = (struct xv_etcd_reply){0};
    char *body = json_dumps(request->body, JSON_COMPACT);
    if (body == NULL)
        return xv_fail_memory(error);
    int rc = call_until(self, request, body, call, reply, error);
    free(body);
    return rc;
}
