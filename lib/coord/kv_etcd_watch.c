/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A watch of etcd: an answer without an end, of one JSON line an event. It is opened when it is waited
 * for, and opened again after every disturbance, each time at the present revision; because changes may
 * have been missed in between, an opening counts as a change of any key, and neither compaction nor a lost
 * store needs any care. The endpoint is asked to end it when it has no leader, for else it would be silent
 * for ever.
 */
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "coord/kv_etcd.h"

#define COMPONENT     XV_KV_COMPONENT
#define LINE_MAX_SIZE (4u << 20)
#define STREAM_MAX    (UINT64_C(1) << 60)
#define OPEN_MS       500 /* an opening takes no longer, however short the wait is to be */
#define OPEN_MAX_MS   4000
#define PAUSE_MS      200
#define PAUSE_MAX_MS  3000
#define DENIED_MAX    2

struct watch {
    struct xv_kv_watch base;
    char *body;
    struct xv_exchange *stream; /* NULL: to be opened */
    struct xv_buffer line;
    bool skipping; /* the rest of a line that is too long */
    size_t index;  /* endpoint */
    uint32_t token_serial;
    unsigned failures;     /* in a row */
    unsigned denials;      /* in a row */
    int64_t not_before_ms; /* the next opening */
};

static void close_stream(struct watch *watch, bool failed)
{
    struct xv_kv_etcd *self = (struct xv_kv_etcd *)watch->base.kv;
    xv_http_end(watch->stream);
    watch->stream = NULL;
    watch->base.live = false;
    watch->line.length = 0;
    watch->skipping = false;
    if (!failed)
        return;
    int64_t pause = PAUSE_MS * ((int64_t)watch->failures + 1);
    watch->not_before_ms = xv_clock_ms() + (pause > PAUSE_MAX_MS ? PAUSE_MAX_MS : pause);
    watch->failures++;
    watch->index = (watch->index + 1) % self->endpoint_count;
}

int xv_kv_etcd_watch_open(struct xv_kv *kv, const char *prefix, struct xv_kv_watch **ret,
                          xvsa_error **error)
{
    struct watch *watch = calloc(1, sizeof *watch);
    if (watch == NULL)
        return xv_fail_memory(error);
    watch->base.kv = kv;
    watch->index = xv_etcd_current((struct xv_kv_etcd *)kv);
    xv_buffer_init(&watch->line, LINE_MAX_SIZE);
    char *end = xv_kv_range_end(prefix);
    json_t *body = end == NULL ? NULL
                               : json_pack("{s:{s:o,s:o}}", "create_request", "key",
                                           xv_etcd_encode(prefix, strlen(prefix)), "range_end",
                                           xv_etcd_encode(end, strlen(end)));
    free(end);
    watch->body = body == NULL ? NULL : json_dumps(body, JSON_COMPACT);
    json_decref(body);
    if (watch->body == NULL) {
        xv_kv_etcd_watch_close(&watch->base);
        return xv_fail_memory(error);
    }
    *ret = &watch->base;
    return 0;
}

void xv_kv_etcd_watch_close(struct xv_kv_watch *base)
{
    struct watch *watch = (struct watch *)base;
    xv_http_end(watch->stream);
    xv_buffer_free(&watch->line);
    free(watch->body);
    free(watch);
}

/* The server refuses, or does not know the token any more: the second time in a row it is the former. */
static int on_denied(struct watch *watch, const struct xv_etcd_failure *failure, xvsa_error **error)
{
    struct xv_kv_etcd *self = (struct xv_kv_etcd *)watch->base.kv;
    bool may_retry = xv_etcd_forget_token(self, watch->token_serial);
    close_stream(watch, false);
    if (may_retry && ++watch->denials < DENIED_MAX)
        return 0;
    watch->denials = 0;
    return xv_fail(error, XVSA_ERR_DENIED, COMPONENT,
                   "etcd does not let %.80s watch keys: %s; the user's role needs readwrite on the "
                   "prefix %s",
                   self->username == NULL ? "nobody in particular" : self->username,
                   failure->message, self->kv.prefix);
}

/* The stream did not begin: its body says why. */
static int on_status(struct watch *watch, int status, xvsa_error **error)
{
    struct xv_etcd_failure failure;
    struct xv_buffer body;
    xv_buffer_init(&body, 64u << 10);
    int rc = xv_etcd_read_all(watch->stream, &body, NULL);
    xv_etcd_read_failure(rc == 0 ? body.data : "", rc == 0 ? body.length : 0, status, &failure);
    xv_buffer_free(&body);
    if (status == 401 || status == 403 || failure.code == 7 || failure.code == 16 ||
        strstr(failure.message, "user name is empty") != NULL)
        return on_denied(watch, &failure, error);
    close_stream(watch, true);
    return 0;
}

static int open_stream(struct watch *watch, const struct xv_call *call, xvsa_error **error)
{
    struct xv_kv_etcd *self = (struct xv_kv_etcd *)watch->base.kv;
    const struct xv_url *endpoint = &self->endpoints[watch->index];
    char *token = NULL;
    bool sent = false;
    xvsa_error *failure = NULL;
    int rc = xv_etcd_token(self, endpoint, call, &token, &watch->token_serial, &failure);
    if (rc == 0)
        rc = xv_etcd_begin(self, endpoint, "/v3/watch", watch->body, token, true, STREAM_MAX, call,
                           &watch->stream, &sent, &failure);
    xv_free_secret(token);
    if (rc == 0) {
        int status = xv_http_status(watch->stream);
        return status == 200 ? 0 : on_status(watch, status, error);
    }
    close_stream(watch, true);
    if (rc == XVSA_ERR_CANCELLED || rc == XVSA_ERR_AUTH || rc == XVSA_ERR_MEMORY) {
        if (error != NULL)
            *error = failure;
        else
            xvsa_error_unref(failure);
        return rc;
    }
    xv_error_clear(&failure);
    return 0;
}

/* keys NULL: any. */
static bool wakes(const struct watch *watch, const json_t *keys)
{
    bool any = keys == NULL && xv_kv_watch_wakes(&watch->base, NULL);
    size_t i;
    json_t *key;
    json_array_foreach(keys, i, key)
    {
        /* All are asked for. */
        any = xv_kv_watch_wakes(&watch->base, json_string_value(key)) || any;
    }
    return any;
}

static int on_line(struct watch *watch, bool *ret_changed, xvsa_error **error)
{
    struct xv_etcd_failure failure;
    json_t *keys = NULL;
    switch (xv_etcd_read_event(watch->line.data, watch->line.length, &keys, &failure)) {
    case XV_ETCD_CHANGED:
        *ret_changed = wakes(watch, keys) || *ret_changed;
        json_decref(keys);
        watch->base.live = true;
        watch->failures = 0;
        watch->denials = 0;
        return 0;
    case XV_ETCD_ENDED:
        close_stream(watch, true);
        return 0;
    case XV_ETCD_DENIED:
        return on_denied(watch, &failure, error);
    default:
        return 0;
    }
}

/* Takes a piece of the stream apart. Of a line that is too long only its end matters. */
static int take(struct watch *watch, const char *data, size_t length, bool *ret_changed,
                xvsa_error **error)
{
    int rc = 0;
    while (rc == 0 && length > 0 && watch->stream != NULL) {
        const char *end = memchr(data, '\n', length);
        size_t part = end == NULL ? length : (size_t)(end - data);
        if (!watch->skipping && xv_buffer_add(&watch->line, data, part, NULL) != 0)
            watch->skipping = true;
        data += part;
        length -= part;
        if (end == NULL)
            break;
        data++;
        length--;
        if (watch->skipping)
            *ret_changed = wakes(watch, NULL) || *ret_changed;
        else
            rc = on_line(watch, ret_changed, error);
        watch->skipping = false;
        watch->line.length = 0;
    }
    return rc;
}

/* Waits for a piece of the stream and takes it; a stream that ends or fails is opened again later. */
static int read_stream(struct watch *watch, const struct xv_call *call, bool *ret_changed,
                       bool *ret_idle, xvsa_error **error)
{
    char data[16384];
    size_t length = 0;
    bool ready = false;
    xvsa_error *failure = NULL;
    int rc = xv_http_wait(watch->stream, call, &ready, &failure);
    *ret_idle = rc == 0 && !ready;
    if (*ret_idle)
        return 0;
    if (rc == 0)
        rc = xv_http_read(watch->stream, data, sizeof data, &length, &failure);
    if (rc == XVSA_ERR_CANCELLED) {
        if (error != NULL)
            *error = failure;
        else
            xvsa_error_unref(failure);
        return rc;
    }
    xv_error_clear(&failure);
    if (rc != 0 || length == 0) {
        close_stream(watch, true);
        return 0;
    }
    return take(watch, data, length, ret_changed, error);
}

/* Sleeps until the next opening or the end of the call. */
static int pause_watch(struct watch *watch, const struct xv_call *until, xvsa_error **error)
{
    xvsa_error *failure = NULL;
    int rc = xv_call_sleep(until, watch->not_before_ms - xv_clock_ms(), COMPONENT,
                           "waiting for a change", &failure);
    if (rc == XVSA_ERR_CANCELLED && error != NULL)
        *error = failure;
    else
        xvsa_error_unref(failure);
    return rc;
}

int xv_kv_etcd_watch_wait(struct xv_kv_watch *base, int64_t timeout_ms, const struct xv_call *call,
                          bool *ret_changed, xvsa_error **error)
{
    struct watch *watch = (struct watch *)base;
    struct xv_call until = xv_call_within(call, timeout_ms);
    struct xv_call now = {.cancel = until.cancel};
    int rc = 0;
    bool idle = false;
    while (rc == 0 && !idle) {
        /* After a change only what is there already is taken, so that it does not wake twice. */
        if (*ret_changed)
            now.deadline_ms = xv_clock_ms();
        if (watch->stream != NULL) {
            rc = read_stream(watch, *ret_changed ? &now : &until, ret_changed, &idle, error);
            continue;
        }
        if (*ret_changed)
            break;
        rc = pause_watch(watch, &until, error);
        if (rc == 0) {
            int64_t left = xv_call_left(&until, OPEN_MAX_MS);
            struct xv_call opening = {.deadline_ms =
                                          xv_clock_ms() + (left < OPEN_MS ? OPEN_MS : left),
                                      .cancel = until.cancel};
            rc = open_stream(watch, &opening, error);
        }
    }
    return rc == XVSA_ERR_TIMEOUT ? 0 : rc;
}
