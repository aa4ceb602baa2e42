/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Finding the coordinator and logging in to it. One thread of a client logs in at a time; nothing is
 * locked while it talks to the network.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "net/reach.h"
#include "xenapi/errors.h"
#include "xenapi/session_internal.h"

#define PAUSE_MS     1000
#define PAUSE_MAX_MS 10000
#define GRACE_MS     600000 /* for a call without deadline */
#define LOGOUT_MS    5000
#define CONNECT_MS   20000 /* for all candidates together */

#define RENEWAL_STEP_MS 100

enum outcome {
    LOGGED_IN,
    ELSEWHERE, /* the member names another coordinator */
    WAIT,      /* the member cannot serve now */
    DEAD,      /* no answer, or none that makes sense */
    FINAL,     /* no other member will answer otherwise */
};

void xv_client_member_url(const struct xv_client *client, const char *address, struct xv_url *ret)
{
    for (size_t i = 0; i < client->seed_count; i++) {
        if (strcmp(client->seeds[i].host, address) == 0) {
            *ret = client->seeds[i];
            return;
        }
    }
    *ret = client->seeds[0];
    snprintf(ret->host, sizeof ret->host, "%s", address);
}

/* Keeps the first failure, or a later one that tells more: a refusal rather than silence. */
static void note(struct xv_search *search, xvsa_error *error)
{
    int32_t had = xvsa_error_code(search->error);
    int32_t got = xvsa_error_code(error);
    bool better = search->error == NULL || had == XVSA_ERR_NETWORK ||
                  (had == XVSA_ERR_TIMEOUT && got != XVSA_ERR_NETWORK);
    if (!better) {
        xvsa_error_unref(error);
        return;
    }
    xvsa_error_unref(search->error);
    search->error = error;
}

static enum outcome judge_failure(struct xv_search *search, const struct xv_url *url,
                                  const struct xv_value *description, struct xv_url *ret_next)
{
    xvsa_error *error = NULL;
    const char *code = xv_value_string(xv_value_at(description, 0), "");
    const char *address = xv_value_string(xv_value_at(description, 1), "");
    if (strcmp(code, "HOST_IS_SLAVE") == 0 && address[0] != '\0' &&
        strlen(address) < sizeof ret_next->host) {
        xv_client_member_url(search->client, address, ret_next);
        return ELSEWHERE;
    }
    xv_errors_fail("session.login_with_password", description, search->client->password, &error);
    enum xv_remedy remedy = xv_errors_find(code).remedy;
    xv_error_wrap(&error, 0, XV_COMPONENT, "cannot log in to %s as %s: %s", url->host,
                  search->client->username, xvsa_error_message(error));
    note(search, error);
    if (remedy == XV_REMEDY_BUSY || remedy == XV_REMEDY_MEMBER || remedy == XV_REMEDY_LATER)
        return WAIT;
    return FINAL;
}

static enum outcome judge_transport(struct xv_search *search, xvsa_error *error)
{
    int32_t code = xvsa_error_code(error);
    xvsa_error *interruption = NULL;
    note(search, error);
    if (xv_call_check(search->call, XV_COMPONENT, "logging in", &interruption) != 0) {
        if (xvsa_error_code(interruption) == XVSA_ERR_CANCELLED) {
            xvsa_error_unref(search->error);
            search->error = interruption;
        } else {
            xvsa_error_unref(interruption);
        }
        return FINAL;
    }
    return code == XVSA_ERR_INVALID || code == XVSA_ERR_MEMORY ? FINAL : DEAD;
}

static int post_login(struct xv_search *search, const struct xv_url *url, const char *originator,
                      struct xv_answer *ret, xvsa_error **error)
{
    struct xv_client *client = search->client;
    struct xv_call call = xv_call_within(search->call, XV_LOGIN_MS);
    struct xv_rpc rpc = {.method = "session.login_with_password", .idempotent = true};
    struct xv_value *params =
        xv_params(client->username, client->password, "1.0", originator, NULL);
    rpc.params = params;
    int rc = params == NULL ? xv_fail_memory(error)
                            : xv_rpc_post(client, url, NULL, &rpc, &call, ret, NULL,
                                          search->fingerprint, error);
    xv_value_free(params);
    return rc;
}

static bool lacks_originator(const struct xv_answer *answer)
{
    return !answer->success && strcmp(xv_value_string(xv_value_at(answer->value, 0), ""),
                                      "MESSAGE_PARAMETER_COUNT_MISMATCH") == 0;
}

static enum outcome try_login(struct xv_search *search, const struct xv_url *url,
                              struct xv_url *ret_next)
{
    xvsa_error *error = NULL;
    struct xv_answer answer = {0};
    int rc = post_login(search, url, search->client->originator, &answer, &error);
    /* XenServer knows the originator since 6.2. */
    if (rc == 0 && lacks_originator(&answer)) {
        xv_value_free(answer.value);
        answer = (struct xv_answer){0};
        rc = post_login(search, url, NULL, &answer, &error);
    }
    if (rc != 0)
        return judge_transport(search, error);
    enum outcome outcome = LOGGED_IN;
    if (!answer.success) {
        outcome = judge_failure(search, url, answer.value, ret_next);
    } else if (strncmp(xv_value_string(answer.value, ""), "OpaqueRef:", 10) != 0) {
        xv_fail(&error, XVSA_ERR_PROTOCOL, XV_COMPONENT, "%s answers the login with no session",
                url->host);
        note(search, error);
        outcome = DEAD;
    } else {
        search->session = strdup(xv_value_string(answer.value, ""));
        search->coordinator = *url;
        outcome = search->session == NULL ? FINAL : LOGGED_IN;
    }
    xv_value_free(answer.value);
    return outcome;
}

static enum outcome loop_outcome(struct xv_search *search, const struct xv_url *from,
                                 const struct xv_url *to)
{
    xvsa_error *error = NULL;
    bool seen = false;
    for (size_t i = 0; i < search->visited_count; i++)
        seen = seen || xv_url_equal(&search->visited[i], to);
    if (!seen && search->visited_count <= XV_HOPS_MAX)
        return ELSEWHERE;
    if (seen)
        xv_fail(&error, XVSA_ERR_PROTOCOL, XV_COMPONENT,
                "redirect loop: %s names %s as the coordinator, which was asked before; no member "
                "takes the role",
                from->host, to->host);
    else
        xv_fail(&error, XVSA_ERR_PROTOCOL, XV_COMPONENT,
                "%d members in turn named another coordinator, the last one %s", XV_HOPS_MAX + 1,
                to->host);
    note(search, error);
    return DEAD;
}

/* True when the present sweep had no answer from it: several members may name a coordinator that died. */
static bool is_dead(const struct xv_search *search, const struct xv_url *url)
{
    for (size_t i = 0; i < search->dead_count; i++) {
        if (xv_url_equal(&search->dead[i], url))
            return true;
    }
    return false;
}

/* Logs in at one candidate or where it points to. */
static enum outcome follow(struct xv_search *search, const struct xv_url *candidate)
{
    struct xv_url url = *candidate;
    search->visited_count = 0;
    for (;;) {
        struct xv_url target = {0};
        search->visited[search->visited_count++] = url;
        enum outcome outcome = try_login(search, &url, &target);
        if (outcome == DEAD && search->dead_count < XV_DEAD_MAX)
            search->dead[search->dead_count++] = url;
        if (outcome != ELSEWHERE)
            return outcome;
        outcome = loop_outcome(search, &url, &target);
        if (outcome != ELSEWHERE)
            return outcome;
        url = target;
        if (is_dead(search, &url))
            return DEAD;
    }
}

/* Logs out of the session that the search made. */
static void end_session(struct xv_search *search)
{
    struct xv_call grace = xv_call_within(NULL, LOGOUT_MS);
    if (xv_session_end(search->client, &search->coordinator, search->session, &grace, NULL) != 0)
        xv_log(search->client->env, XVSA_LOG_DEBUG, XV_COMPONENT, "a session is left to expire");
    xv_free_secret(search->session);
    search->session = NULL;
}

/* Checks after a login that this is the pool, and reads who its members are. */
static enum outcome identify(struct xv_search *search)
{
    const char *expected = search->client->pool_uuid;
    xvsa_error *error = NULL;
    int rc = xv_search_read_pool(search, &error);
    if (rc == 0 && expected != NULL && strcmp(expected, search->pool_uuid) != 0)
        rc = xv_fail(&error, XVSA_ERR_CONFLICT, XV_COMPONENT,
                     "%s belongs to pool %.64s, not to the expected pool %s",
                     search->coordinator.host, search->pool_uuid, expected);
    if (rc == 0)
        rc = xv_search_read_members(search, &error);
    if (rc == 0) {
        xv_search_pin_members(search);
        return LOGGED_IN;
    }
    end_session(search);
    note(search, error);
    return rc == XVSA_ERR_NETWORK || rc == XVSA_ERR_TIMEOUT ? WAIT : DEAD;
}

struct candidates {
    struct xv_url *urls;
    size_t count;
};

static void add_candidate(struct candidates *list, const struct xv_url *url)
{
    for (size_t i = 0; i < list->count; i++) {
        if (xv_url_equal(&list->urls[i], url))
            return;
    }
    list->urls[list->count++] = *url;
}

/* The last coordinator, what was configured, what the pool told. */
static int list_candidates(struct xv_client *client, struct candidates *list, xvsa_error **error)
{
    pthread_mutex_lock(&client->lock);
    list->count = 0;
    list->urls = calloc(1 + client->seed_count + client->member_count, sizeof *list->urls);
    if (list->urls != NULL) {
        if (client->coordinator.host[0] != '\0')
            add_candidate(list, &client->coordinator);
        for (size_t i = 0; i < client->seed_count; i++)
            add_candidate(list, &client->seeds[i]);
        for (size_t i = 0; i < client->member_count; i++)
            add_candidate(list, &client->members[i]);
    }
    pthread_mutex_unlock(&client->lock);
    return list->urls == NULL ? xv_fail_memory(error) : 0;
}

/* Asks those whose state became known since, in order. tried: of each candidate. */
static enum outcome ask_known(struct xv_search *search, const struct candidates *list,
                              const enum xv_reach *states, bool *tried)
{
    enum outcome last = DEAD;
    for (size_t i = 0; i < list->count; i++) {
        if (tried[i] || states[i] == XV_REACH_UNKNOWN)
            continue;
        tried[i] = true;
        last = follow(search, &list->urls[i]);
        if (last == LOGGED_IN)
            last = identify(search);
        if (last == LOGGED_IN || last == FINAL)
            return last;
        search->wait = search->wait || last == WAIT;
    }
    return last;
}

static size_t count_unknown(const enum xv_reach *states, size_t count)
{
    size_t unknown = 0;
    for (size_t i = 0; i < count; i++)
        unknown += states[i] == XV_REACH_UNKNOWN;
    return unknown;
}

static enum outcome give_up_silent(struct xv_search *search, const struct candidates *list,
                                   const enum xv_reach *states)
{
    for (size_t i = 0; i < list->count; i++) {
        xvsa_error *error = NULL;
        if (states[i] != XV_REACH_UNKNOWN)
            continue;
        xv_fail(&error, XVSA_ERR_NETWORK, XV_COMPONENT,
                "%s does not answer to a connection attempt", list->urls[i].host);
        note(search, error);
    }
    return DEAD;
}

/* Asks each candidate once, those first that take a connection: dead ones are waited for together. */
static enum outcome sweep(struct xv_search *search, const struct candidates *list)
{
    enum xv_reach *states = calloc(list->count, sizeof *states);
    bool *tried = calloc(list->count, sizeof *tried);
    xvsa_error *error = NULL;
    enum outcome last = DEAD;
    int64_t until = xv_clock_ms() + CONNECT_MS;
    search->dead_count = 0;
    if (states == NULL || tried == NULL) {
        xv_fail_memory(&error);
        note(search, error);
        last = FINAL;
    }
    while (last != LOGGED_IN && last != FINAL && count_unknown(states, list->count) > 0) {
        int64_t left = until - xv_clock_ms();
        if (left <= 0) {
            last = give_up_silent(search, list, states);
            break;
        }
        if (xv_reach(list->urls, states, list->count, left, search->call, &error) != 0) {
            last = judge_transport(search, error);
            break;
        }
        last = ask_known(search, list, states, tried);
    }
    free(states);
    free(tried);
    return search->wait && last != LOGGED_IN && last != FINAL ? WAIT : last;
}

static int give_up(struct xv_search *search, xvsa_error **error)
{
    if (search->error == NULL)
        return xv_fail_memory(error);
    int code = xvsa_error_code(search->error);
    if (error != NULL)
        *error = xvsa_error_ref(search->error);
    return code;
}

/* Repeats sweeps while patience may help: a member asked for it, or a pool that was there before is
 * restarting or choosing a new coordinator. */
static int find_coordinator(struct xv_search *search, bool patient, xvsa_error **error)
{
    struct candidates list = {0};
    struct xv_call limit = xv_call_within(search->call, GRACE_MS);
    if (search->call == NULL || search->call->deadline_ms == 0)
        search->call = &limit;
    int64_t pause = PAUSE_MS;
    int rc = list_candidates(search->client, &list, error);
    while (rc == 0) {
        search->wait = false;
        enum outcome outcome = sweep(search, &list);
        if (outcome == LOGGED_IN)
            break;
        if (outcome == FINAL || (outcome != WAIT && !patient)) {
            rc = give_up(search, error);
            break;
        }
        xvsa_error *interruption = NULL;
        int64_t left = xv_call_left(search->call, pause);
        rc = xv_call_sleep(search->call, left, XV_COMPONENT, "waiting for the pool's coordinator",
                           &interruption);
        if (rc == XVSA_ERR_TIMEOUT) {
            xvsa_error_unref(interruption);
            rc = xv_fail(error, XVSA_ERR_TIMEOUT, XV_COMPONENT,
                         "no coordinator within the deadline; last answer: %s",
                         xvsa_error_message(search->error));
        } else if (rc != 0 && error != NULL) {
            *error = interruption;
        } else {
            xvsa_error_unref(interruption);
        }
        pause = pause * 2 > PAUSE_MAX_MS ? PAUSE_MAX_MS : pause * 2;
    }
    free(list.urls);
    return rc;
}

static void finish_search(struct xv_search *search)
{
    xv_free_secret(search->session);
    free(search->members);
    free(search->pool_uuid);
    free(search->pool_name);
    xvsa_error_unref(search->error);
}

/* Called with the lock held; takes the search's findings over. */
static void adopt(struct xv_client *client, struct xv_search *search)
{
    struct xv_url *old_members = client->members;
    char *old_session = client->session;
    client->members = search->members;
    client->member_count = search->member_count;
    client->session = search->session;
    client->coordinator = search->coordinator;
    client->epoch++;
    search->members = old_members;
    search->session = old_session;
}

static int open_search(struct xv_search *search, struct xv_client *client,
                       const struct xv_call *call, xvsa_error **error)
{
    *search = (struct xv_search){.client = client, .call = call};
    search->members = calloc(XV_MEMBERS_MAX, sizeof *search->members);
    return search->members == NULL ? xv_fail_memory(error) : 0;
}

int xv_session_open(struct xv_client *client, const struct xv_call *call, xvsa_error **error)
{
    struct xv_search search;
    int rc = open_search(&search, client, call, error);
    if (rc == 0)
        rc = find_coordinator(&search, false, error);
    if (rc == 0) {
        free(client->pool_uuid);
        client->pool_uuid = search.pool_uuid;
        client->pool_name = search.pool_name;
        search.pool_uuid = NULL;
        search.pool_name = NULL;
        memcpy(client->fingerprint, search.fingerprint, sizeof client->fingerprint);
        pthread_mutex_lock(&client->lock);
        adopt(client, &search);
        pthread_mutex_unlock(&client->lock);
    }
    finish_search(&search);
    return rc;
}

/* Waits while another thread renews. Called and returns with the lock held. */
static int await_renewal(struct xv_client *client, const struct xv_call *call, xvsa_error **error)
{
    int rc = 0;
    while (rc == 0 && client->renewing) {
        /* In steps, because a cancellation does not signal the condition. */
        xv_condition_wait(&client->renewed, &client->lock, RENEWAL_STEP_MS);
        rc = xv_call_check(call, XV_COMPONENT, "waiting for a new session", error);
    }
    return rc;
}

int xv_session_renew(struct xv_client *client, uint64_t epoch, const struct xv_call *call,
                     xvsa_error **error)
{
    struct xv_search search;
    pthread_mutex_lock(&client->lock);
    int rc = await_renewal(client, call, error);
    if (rc == 0 && client->closed)
        rc = xv_fail(error, XVSA_ERR_STATE, XV_COMPONENT, "the pool is closed");
    if (rc != 0 || client->epoch != epoch) {
        pthread_mutex_unlock(&client->lock);
        return rc;
    }
    client->renewing = true;
    pthread_mutex_unlock(&client->lock);
    rc = open_search(&search, client, call, error);
    if (rc == 0)
        rc = find_coordinator(&search, true, error);
    pthread_mutex_lock(&client->lock);
    bool closed = client->closed;
    if (rc == 0 && !closed)
        adopt(client, &search);
    client->renewing = false;
    pthread_cond_broadcast(&client->renewed);
    pthread_mutex_unlock(&client->lock);
    if (rc == 0 && closed) {
        end_session(&search);
        rc = xv_fail(error, XVSA_ERR_STATE, XV_COMPONENT, "the pool is closed");
    }
    finish_search(&search);
    if (rc != 0)
        return rc;
    xv_log(client->env, XVSA_LOG_INFO, XV_COMPONENT, "logged in again, coordinator is %s",
           search.coordinator.host);
    return 0;
}
