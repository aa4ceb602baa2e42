/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "xenapi/client_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "xenapi/errors.h"

#define URLS_MAX       256
#define RENEWALS_MAX   3
#define LOST_MAX       2 /* connections lost in a row before the coordinator is looked for */
#define LOST_PAUSE_MS  500
#define BUSY_PAUSE_MS  1000
#define BUSY_PAUSE_MAX 10000
#define BUSY_GRACE_MS  600000 /* for a call without deadline */
#define LOGOUT_MS      10000

static char *copy(const char *text, bool *good)
{
    char *result = text == NULL ? NULL : strdup(text);
    *good = *good && (text == NULL || result != NULL);
    return result;
}

static char *make_originator(const char *given, xvsa_error **error)
{
    unsigned char random[8];
    char text[32] = "libxvsa-";
    if (given != NULL && given[0] != '\0')
        return strdup(given);
    /* Sessions are limited for each originator: one of our own is not evicted by others'. */
    if (xv_random(random, sizeof random, error) != 0)
        return NULL;
    xv_hex_encode(random, sizeof random, text + 8);
    return strdup(text);
}

static int check_options(const struct xv_client_options *options, xvsa_error **error)
{
    if (options->url_count == 0 || options->url_count > URLS_MAX || options->urls == NULL)
        return xv_fail(error, XVSA_ERR_INVALID, XV_COMPONENT,
                       "between 1 and %d URLs of pool members are needed", URLS_MAX);
    if (options->username == NULL || options->username[0] == '\0' || options->password == NULL)
        return xv_fail(error, XVSA_ERR_INVALID, XV_COMPONENT, "user name or password is missing");
    return 0;
}

static int read_urls(struct xv_client *client, const struct xv_client_options *options,
                     xvsa_error **error)
{
    bool allow_plain = (options->flags & XVSA_POOL_ALLOW_PLAIN_HTTP) != 0;
    client->seeds = calloc(options->url_count, sizeof *client->seeds);
    if (client->seeds == NULL)
        return xv_fail_memory(error);
    for (uint32_t i = 0; i < options->url_count; i++) {
        int rc = xv_url_parse(options->urls[i], &client->seeds[i], error);
        if (rc != 0)
            return rc;
        if (!client->seeds[i].tls && !allow_plain)
            return xv_fail(error, XVSA_ERR_INVALID, XV_COMPONENT,
                           "http://%s would send the password in the clear; use https or allow "
                           "plain HTTP explicitly",
                           client->seeds[i].host);
        client->seed_count++;
    }
    return 0;
}

static int set_up(struct xv_client *client, const struct xv_client_options *options,
                  xvsa_error **error)
{
    bool good = true;
    struct xv_trust_options trust = {
        .ca_file = options->ca_file,
        .fingerprints = options->fingerprints,
        .fingerprint_count = options->fingerprint_count,
        .first_use = (options->flags & XVSA_POOL_TRUST_ON_FIRST_USE) != 0,
    };
    client->env = options->env;
    client->username = copy(options->username, &good);
    client->password = copy(options->password, &good);
    client->pool_uuid = copy(options->pool_uuid, &good);
    if (!good)
        return xv_fail_memory(error);
    client->originator = make_originator(options->originator, error);
    if (client->originator == NULL)
        return error != NULL && *error != NULL ? xvsa_error_code(*error) : xv_fail_memory(error);
    int rc = read_urls(client, options, error);
    if (rc == 0)
        rc = xv_trust_new(&trust, &client->trust, error);
    if (rc == 0)
        rc = xv_http_new(client->env, client->trust,
                         (options->flags & XVSA_POOL_ALLOW_PLAIN_HTTP) != 0, &client->http, error);
    return rc;
}

int xv_client_open(const struct xv_client_options *options, const struct xv_call *call,
                   struct xv_client **ret, xvsa_error **error)
{
    int rc = check_options(options, error);
    if (rc != 0)
        return rc;
    struct xv_client *client = calloc(1, sizeof *client);
    if (client == NULL)
        return xv_fail_memory(error);
    pthread_mutex_init(&client->lock, NULL);
    xv_condition_init(&client->renewed);
    rc = set_up(client, options, error);
    if (rc == 0)
        rc = xv_session_open(client, call, error);
    if (rc != 0) {
        xv_client_free(client);
        return rc;
    }
    *ret = client;
    return 0;
}

int xv_client_close(struct xv_client *client, const struct xv_call *call, xvsa_error **error)
{
    pthread_mutex_lock(&client->lock);
    char *session = client->session;
    struct xv_url url = client->coordinator;
    client->session = NULL;
    client->closed = true;
    pthread_mutex_unlock(&client->lock);
    if (session == NULL)
        return 0;
    struct xv_call limit = xv_call_within(call, LOGOUT_MS);
    int rc = xv_session_end(client, &url, session, &limit, error);
    xv_free_secret(session);
    return rc;
}

void xv_client_free(struct xv_client *client)
{
    if (client == NULL)
        return;
    xv_http_free(client->http);
    xv_trust_free(client->trust);
    xv_free_secret(client->session);
    xv_free_secret(client->password);
    free(client->username);
    free(client->originator);
    free(client->seeds);
    free(client->members);
    free(client->pool_uuid);
    free(client->pool_name);
    pthread_cond_destroy(&client->renewed);
    pthread_mutex_destroy(&client->lock);
    free(client);
}

const char *xv_client_pool_uuid(const struct xv_client *client)
{
    return client->pool_uuid;
}

const char *xv_client_pool_name(const struct xv_client *client)
{
    return client->pool_name;
}

const char *xv_client_fingerprint(const struct xv_client *client)
{
    return client->fingerprint[0] == '\0' ? NULL : client->fingerprint;
}

uint64_t xv_client_epoch(struct xv_client *client)
{
    pthread_mutex_lock(&client->lock);
    uint64_t epoch = client->epoch;
    pthread_mutex_unlock(&client->lock);
    return epoch;
}

char *xv_client_session(struct xv_client *client)
{
    pthread_mutex_lock(&client->lock);
    char *session = client->session == NULL ? NULL : strdup(client->session);
    pthread_mutex_unlock(&client->lock);
    return session;
}

/* One call on its way through its attempts. */
struct progress {
    struct xv_url url; /* of the present attempt */
    char *session;
    uint64_t epoch;
    unsigned renewals;
    unsigned lost;
    int64_t busy_pause_ms;
    struct xv_call limit; /* how long busy answers are put up with */
};

static int begin_attempt(struct xv_client *client, struct progress *progress, const char *method,
                         xvsa_error **error)
{
    pthread_mutex_lock(&client->lock);
    bool closed = client->closed;
    progress->url = client->coordinator;
    progress->epoch = client->epoch;
    progress->session = closed ? NULL : strdup(client->session);
    pthread_mutex_unlock(&client->lock);
    if (closed)
        return xv_fail(error, XVSA_ERR_STATE, XV_COMPONENT, "%s: the pool is closed", method);
    return progress->session == NULL ? xv_fail_memory(error) : 0;
}

/* Decides after a failure that the pool answered. 0: try again; *error is cleared then. */
static int after_refusal(struct xv_client *client, struct progress *progress, const char *code,
                         int rc, const struct xv_call *call, xvsa_error **error)
{
    enum xv_remedy remedy = xv_errors_find(code).remedy;
    if (remedy == XV_REMEDY_RENEW || remedy == XV_REMEDY_MEMBER) {
        if (progress->renewals++ >= RENEWALS_MAX)
            return rc;
        xv_error_clear(error);
        return xv_session_renew(client, progress->epoch, call, error);
    }
    if (remedy != XV_REMEDY_BUSY || xv_call_left(&progress->limit, -1) <= progress->busy_pause_ms)
        return rc;
    xv_log(client->env, XVSA_LOG_DEBUG, XV_COMPONENT, "%s; trying again",
           xvsa_error_message(*error));
    xv_error_clear(error);
    rc = xv_call_sleep(call, progress->busy_pause_ms, XV_COMPONENT, "waiting for a busy pool",
                       error);
    progress->busy_pause_ms *= 2;
    if (progress->busy_pause_ms > BUSY_PAUSE_MAX)
        progress->busy_pause_ms = BUSY_PAUSE_MAX;
    return rc;
}

static int unknown_outcome(const char *method, xvsa_error **error)
{
    xvsa_error *cause = *error;
    int rc = xv_fail(error, XVSA_ERR_UNKNOWN_OUTCOME, XV_COMPONENT,
                     "%s: its answer was lost, so that it may or may not have happened: %s", method,
                     xvsa_error_message(cause));
    xvsa_error_unref(cause);
    return rc;
}

/* Decides after a request without an answer. 0: try again; *error is cleared then. */
static int after_silence(struct xv_client *client, struct progress *progress,
                         const struct xv_rpc *rpc, bool sent, int rc, const struct xv_call *call,
                         xvsa_error **error)
{
    bool unclear = rc == XVSA_ERR_NETWORK || rc == XVSA_ERR_PROTOCOL || rc == XVSA_ERR_LIMIT;
    if (sent && !rpc->idempotent && unclear)
        return unknown_outcome(rpc->method, error);
    bool delivered = rpc->delivered != NULL && *rpc->delivered;
    if (rc != XVSA_ERR_NETWORK || delivered)
        return rc;
    if (++progress->lost <= LOST_MAX) {
        xv_error_clear(error);
        return xv_call_sleep(call, LOST_PAUSE_MS, XV_COMPONENT, "waiting for the coordinator",
                             error);
    }
    if (progress->renewals++ >= RENEWALS_MAX)
        return rc;
    progress->lost = 0;
    xv_error_clear(error);
    return xv_session_renew(client, progress->epoch, call, error);
}

int xv_client_perform(struct xv_client *client, const struct xv_rpc *rpc,
                      const struct xv_call *call, struct xv_value **ret, xvsa_error **error)
{
    struct progress progress = {.busy_pause_ms = BUSY_PAUSE_MS};
    progress.limit =
        call != NULL && call->deadline_ms != 0 ? *call : xv_call_within(call, BUSY_GRACE_MS);
    xvsa_error *failure = NULL;
    for (;;) {
        struct xv_answer answer = {0};
        bool sent = false;
        int rc = begin_attempt(client, &progress, rpc->method, &failure);
        if (rc == 0) {
            rc = xv_rpc_post(client, &progress.url, progress.session, rpc, call, &answer, &sent,
                             NULL, &failure);
            if (rc == 0 && answer.success) {
                xv_free_secret(progress.session);
                *ret = answer.value;
                return 0;
            }
            if (rc == 0) {
                rc = xv_errors_fail(rpc->method, answer.value, progress.session, &failure);
                rc = after_refusal(client, &progress,
                                   xv_value_string(xv_value_at(answer.value, 0), ""), rc, call,
                                   &failure);
            } else {
                rc = after_silence(client, &progress, rpc, sent, rc, call, &failure);
            }
        }
        xv_value_free(answer.value);
        xv_free_secret(progress.session);
        progress.session = NULL;
        if (rc != 0) {
            if (error != NULL)
                *error = failure;
            else
                xvsa_error_unref(failure);
            return rc;
        }
    }
}

int xv_client_call(struct xv_client *client, const char *method, const struct xv_value *params,
                   bool idempotent, const struct xv_call *call, struct xv_value **ret,
                   xvsa_error **error)
{
    struct xv_rpc rpc = {.method = method, .params = params, .idempotent = idempotent};
    struct xv_value *value = NULL;
    int rc = xv_client_perform(client, &rpc, call, &value, error);
    if (rc != 0)
        return rc;
    if (ret != NULL)
        *ret = value;
    else
        xv_value_free(value);
    return 0;
}

struct record_reader {
    xv_record_fn fn;
    void *user;
};

static int take_record(void *user, const char *ref, struct xv_value *record, xvsa_error **error)
{
    const struct record_reader *reader = user;
    int rc = reader->fn(reader->user, ref, record, error);
    xv_value_free(record);
    return rc;
}

int xv_client_each_part(struct xv_client *client, const char *class_name,
                        const char *const *members, xv_record_fn fn, void *user,
                        const struct xv_call *call, xvsa_error **error)
{
    char method[96];
    struct record_reader reader = {fn, user};
    bool delivered = false;
    struct xv_value *value = NULL;
    snprintf(method, sizeof method, "%s.get_all_records", class_name);
    struct xv_rpc rpc = {.method = method,
                         .idempotent = true,
                         .delivered = &delivered,
                         .on_member = take_record,
                         .member_user = &reader,
                         .wanted = members};
    return xv_client_perform(client, &rpc, call, &value, error);
}

int xv_client_each_record(struct xv_client *client, const char *class_name, xv_record_fn fn,
                          void *user, const struct xv_call *call, xvsa_error **error)
{
    return xv_client_each_part(client, class_name, NULL, fn, user, call, error);
}
