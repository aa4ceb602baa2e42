/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Members of a pool that answer as a script says, and what tests of the client do with them.
 */
#ifndef XV_TESTS_CLIENT_MEMBER_H
#define XV_TESTS_CLIENT_MEMBER_H

#include "xenapi/client.h"
#include "http_server.h"
#include "unit.h"
#include "xenapi/errors.h"
#include "xenapi/operations_internal.h"

#define SOON_MS 30000
#define POOL                                                                                       \
    "<struct><member><name>OpaqueRef:pool</name><value><struct><member><name>uuid</name><value>"   \
    "pool-uuid</value></member><member><name>name_label</name><value>Pool</value></member>"        \
    "<member><name>master</name><value>OpaqueRef:h1</value></member></struct></value></member>"    \
    "</struct>"
#define HOSTS                                                                                      \
    "<struct><member><name>OpaqueRef:h1</name><value><struct><member><name>address</name><value>"  \
    "127.0.0.1</value></member></struct></value></member><member><name>OpaqueRef:h2</name><value>" \
    "<struct><member><name>address</name><value>127.0.0.2</value></member></struct></value>"       \
    "</member></struct>"

/* One member of a pool. */
struct member {
    struct server server;
    const char *login_error; /* code, and a parameter after a space; NULL: logs in */
    int login_errors;        /* how often, 0: always */
    const char *raw;         /* answers everything with these bytes */
    const char *pool_uuid;
    atomic_int logins;
    atomic_int calls;  /* of VM.test and VM.snapshot */
    atomic_int expire; /* so many of them fail with SESSION_INVALID */
    const char *dead;  /* those with this in the request do so as well */
    atomic_int busy;   /* so many of them fail with TOO_MANY_PENDING_TASKS */
    atomic_int cut;    /* so many of them are executed and get no answer */
    atomic_int logouts;
    bool old;          /* knows no originator */
    atomic_bool hold;  /* logins wait */
    const char *value; /* of everything else; NULL: unknown methods */
};

static inline bool answer_value(struct peer *peer, const char *value)
{
    char body[8192];
    snprintf(body, sizeof body,
             "<?xml version=\"1.0\"?><methodResponse><params><param><value><struct><member><name>"
             "Status</name><value>Success</value></member><member><name>Value</name><value>%s"
             "</value></member></struct></value></param></params></methodResponse>",
             value);
    return peer_body(peer, body);
}

static inline bool answer_error(struct peer *peer, const char *error)
{
    char body[2048];
    char code[200];
    snprintf(code, sizeof code, "%s", error);
    char *param = strchr(code, ' ');
    if (param != NULL)
        *param++ = '\0';
    snprintf(body, sizeof body,
             "<?xml version=\"1.0\"?><methodResponse><params><param><value><struct><member><name>"
             "Status</name><value>Failure</value></member><member><name>ErrorDescription</name>"
             "<value><array><data><value>%s</value>%s%s%s</data></array></value></member></struct>"
             "</value></param></params></methodResponse>",
             code, param == NULL ? "" : "<value>", param == NULL ? "" : param,
             param == NULL ? "" : "</value>");
    return peer_body(peer, body);
}

static inline bool is_call(const struct peer *peer, const char *method)
{
    char text[200];
    snprintf(text, sizeof text, "<methodName>%s</methodName>", method);
    return strstr(peer->request, text) != NULL;
}

static inline bool take(atomic_int *count)
{
    int left = atomic_load(count);
    while (left > 0 && !atomic_compare_exchange_weak(count, &left, left - 1))
        ;
    return left > 0;
}

static inline bool answer_login(struct member *member, struct peer *peer)
{
    char session[64];
    int number = atomic_fetch_add(&member->logins, 1) + 1;
    while (atomic_load(&member->hold) && !atomic_load(&member->server.stop))
        usleep(1000);
    if (member->old && strstr(peer->request, "libxvsa-") != NULL)
        return answer_error(peer, "MESSAGE_PARAMETER_COUNT_MISMATCH session.login_with_password");
    if (member->login_error != NULL &&
        (member->login_errors == 0 || number <= member->login_errors))
        return answer_error(peer, member->login_error);
    snprintf(session, sizeof session, "OpaqueRef:session%d", number);
    return answer_value(peer, session);
}

static inline bool answer_call(struct member *member, struct peer *peer)
{
    if (take(&member->expire) ||
        (member->dead != NULL && strstr(peer->request, member->dead) != NULL))
        return answer_error(peer, "SESSION_INVALID OpaqueRef:session1");
    if (take(&member->busy))
        return answer_error(peer, "TOO_MANY_PENDING_TASKS");
    atomic_fetch_add(&member->calls, 1);
    if (take(&member->cut))
        return false;
    return answer_value(peer, "done");
}

static inline bool play(struct peer *peer, void *user)
{
    struct member *member = user;
    char pool[1024];
    if (member->raw != NULL) {
        peer_text(peer, member->raw);
        return false;
    }
    if (is_call(peer, "session.login_with_password"))
        return answer_login(member, peer);
    if (is_call(peer, "session.logout")) {
        atomic_fetch_add(&member->logouts, 1);
        return answer_value(peer, "");
    }
    if (is_call(peer, "pool.get_all_records")) {
        const char *uuid = member->pool_uuid == NULL ? "pool-uuid" : member->pool_uuid;
        snprintf(pool, sizeof pool, "%s", POOL);
        memcpy(strstr(pool, "pool-uuid"), uuid, strlen("pool-uuid"));
        return answer_value(peer, pool);
    }
    if (is_call(peer, "host.get_all_records"))
        return answer_value(peer, HOSTS);
    if (is_call(peer, "Certificate.get_all_records"))
        return answer_error(peer, "MESSAGE_METHOD_UNKNOWN Certificate.get_all_records");
    if (is_call(peer, "VM.test"))
        return answer_call(member, peer);
    if (member->value != NULL)
        return answer_value(peer, member->value);
    return answer_error(peer, "MESSAGE_METHOD_UNKNOWN x");
}

/* Two members at 127.0.0.1 and 127.0.0.2 with one port. */
static inline void start_two(struct member *first, struct member *second)
{
    for (int attempt = 0; attempt < 50; attempt++) {
        server_start(&first->server, false, play, first);
        if (server_listen(&second->server, "127.0.0.2", first->server.port, false, play, second))
            return;
        server_stop(&first->server);
    }
    ck_abort_msg("no port is free on both addresses");
}

static inline int open_at(const char *url, int64_t ms, struct xv_client **ret, xvsa_error **error)
{
    struct xv_call call = xv_call_within(NULL, ms);
    struct xv_client_options options = {.urls = &url,
                                        .url_count = 1,
                                        .username = "root",
                                        .password = "s3cret-word",
                                        .flags = XVSA_POOL_ALLOW_PLAIN_HTTP};
    return xv_client_open(&options, &call, ret, error);
}

static inline int call_test(struct xv_client *client, bool idempotent, int64_t ms,
                            xvsa_error **error)
{
    struct xv_call call = xv_call_within(NULL, ms);
    struct xv_value *value = NULL;
    int rc = xv_client_call(client, "VM.test", NULL, idempotent, &call, &value, error);
    if (rc == 0)
        ck_assert_str_eq(xv_value_string(value, ""), "done");
    xv_value_free(value);
    return rc;
}

static inline void finish(struct xv_client *client)
{
    struct xv_call call = xv_call_within(NULL, SOON_MS);
    xvsa_error *error = NULL;
    ck_ok(xv_client_close(client, &call, &error), error);
    ck_fails(call_test(client, true, SOON_MS, &error), XVSA_ERR_STATE, error);
    xv_client_free(client);
}

#endif
