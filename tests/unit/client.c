/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The client against members that answer as a script says: hostile ones, lost answers, coordinators that
 * move. Behaviour of a whole pool is tested in operations.c.
 */
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
    atomic_int busy;   /* so many of them fail with TOO_MANY_PENDING_TASKS */
    atomic_int cut;    /* so many of them are executed and get no answer */
    atomic_int logouts;
    bool old;          /* knows no originator */
    atomic_bool hold;  /* logins wait */
    const char *value; /* of everything else; NULL: unknown methods */
};

static bool answer_value(struct peer *peer, const char *value)
{
    char body[8192];
    snprintf(body, sizeof body,
             "<?xml version=\"1.0\"?><methodResponse><params><param><value><struct><member><name>"
             "Status</name><value>Success</value></member><member><name>Value</name><value>%s"
             "</value></member></struct></value></param></params></methodResponse>",
             value);
    return peer_body(peer, body);
}

static bool answer_error(struct peer *peer, const char *error)
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

static bool is_call(const struct peer *peer, const char *method)
{
    char text[200];
    snprintf(text, sizeof text, "<methodName>%s</methodName>", method);
    return strstr(peer->request, text) != NULL;
}

static bool take(atomic_int *count)
{
    int left = atomic_load(count);
    while (left > 0 && !atomic_compare_exchange_weak(count, &left, left - 1))
        ;
    return left > 0;
}

static bool answer_login(struct member *member, struct peer *peer)
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

static bool answer_call(struct member *member, struct peer *peer)
{
    if (take(&member->expire))
        return answer_error(peer, "SESSION_INVALID OpaqueRef:session1");
    if (take(&member->busy))
        return answer_error(peer, "TOO_MANY_PENDING_TASKS");
    atomic_fetch_add(&member->calls, 1);
    if (take(&member->cut))
        return false;
    return answer_value(peer, "done");
}

static bool play(struct peer *peer, void *user)
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
static void start_two(struct member *first, struct member *second)
{
    for (int attempt = 0; attempt < 50; attempt++) {
        server_start(&first->server, false, play, first);
        if (server_listen(&second->server, "127.0.0.2", first->server.port, false, play, second))
            return;
        server_stop(&first->server);
    }
    ck_abort_msg("no port is free on both addresses");
}

static int open_at(const char *url, int64_t ms, struct xv_client **ret, xvsa_error **error)
{
    struct xv_call call = xv_call_within(NULL, ms);
    struct xv_client_options options = {.urls = &url,
                                        .url_count = 1,
                                        .username = "root",
                                        .password = "s3cret-word",
                                        .flags = XVSA_POOL_ALLOW_PLAIN_HTTP};
    return xv_client_open(&options, &call, ret, error);
}

static int call_test(struct xv_client *client, bool idempotent, int64_t ms, xvsa_error **error)
{
    struct xv_call call = xv_call_within(NULL, ms);
    struct xv_value *value = NULL;
    int rc = xv_client_call(client, "VM.test", NULL, idempotent, &call, &value, error);
    if (rc == 0)
        ck_assert_str_eq(xv_value_string(value, ""), "done");
    xv_value_free(value);
    return rc;
}

static void finish(struct xv_client *client)
{
    struct xv_call call = xv_call_within(NULL, SOON_MS);
    xvsa_error *error = NULL;
    ck_ok(xv_client_close(client, &call, &error), error);
    ck_fails(call_test(client, true, SOON_MS, &error), XVSA_ERR_STATE, error);
    xv_client_free(client);
}

START_TEST(login_and_logout)
{
    struct member member = {0};
    struct xv_client *client = NULL;
    xvsa_error *error = NULL;
    server_start(&member.server, false, play, &member);
    ck_ok(open_at(member.server.url, SOON_MS, &client, &error), error);
    ck_assert_str_eq(xv_client_pool_uuid(client), "pool-uuid");
    ck_assert_str_eq(xv_client_pool_name(client), "Pool");
    ck_assert_ptr_null(xv_client_fingerprint(client));
    ck_ok(call_test(client, false, SOON_MS, &error), error);
    finish(client);
    ck_assert_int_eq(atomic_load(&member.logouts), 1);
    server_stop(&member.server);
}
END_TEST

START_TEST(plain_http_is_refused)
{
    const char *url = "http://127.0.0.1:1";
    struct xv_client_options options = {
        .urls = &url, .url_count = 1, .username = "root", .password = "x"};
    struct xv_client *client = NULL;
    xvsa_error *error = NULL;
    ck_fails(xv_client_open(&options, NULL, &client, &error), XVSA_ERR_INVALID, error);
}
END_TEST

START_TEST(wrong_password)
{
    struct member member = {.login_error = "SESSION_AUTHENTICATION_FAILED root"};
    struct xv_client *client = NULL;
    xvsa_error *error = NULL;
    server_start(&member.server, false, play, &member);
    ck_assert_int_eq(open_at(member.server.url, SOON_MS, &client, &error), XVSA_ERR_AUTH);
    ck_assert_str_eq(xvsa_error_xenapi_code(error), "SESSION_AUTHENTICATION_FAILED");
    for (const xvsa_error *e = error; e != NULL; e = xvsa_error_cause(e))
        ck_assert_ptr_null(strstr(xvsa_error_message(e), "s3cret-word"));
    xv_error_clear(&error);
    ck_assert_int_eq(atomic_load(&member.logins), 1);
    server_stop(&member.server);
}
END_TEST

START_TEST(follows_to_the_coordinator)
{
    struct member first = {.login_error = "HOST_IS_SLAVE 127.0.0.2"};
    struct member second = {0};
    struct xv_client *client = NULL;
    xvsa_error *error = NULL;
    start_two(&first, &second);
    ck_ok(open_at(first.server.url, SOON_MS, &client, &error), error);
    ck_ok(call_test(client, false, SOON_MS, &error), error);
    ck_assert_int_eq(atomic_load(&second.calls), 1);
    finish(client);
    server_stop(&first.server);
    server_stop(&second.server);
}
END_TEST

START_TEST(redirect_loop)
{
    struct member first = {.login_error = "HOST_IS_SLAVE 127.0.0.2"};
    struct member second = {.login_error = "HOST_IS_SLAVE 127.0.0.1"};
    struct xv_client *client = NULL;
    xvsa_error *error = NULL;
    start_two(&first, &second);
    ck_assert_int_eq(open_at(first.server.url, SOON_MS, &client, &error), XVSA_ERR_PROTOCOL);
    ck_assert_ptr_nonnull(strstr(xvsa_error_message(error), "127.0.0.1"));
    ck_assert_ptr_nonnull(strstr(xvsa_error_message(error), "127.0.0.2"));
    xv_error_clear(&error);
    server_stop(&first.server);
    server_stop(&second.server);
}
END_TEST

/* Servers of before XenServer 6.2. */
START_TEST(servers_without_originator)
{
    struct member member = {.old = true};
    struct xv_client *client = NULL;
    xvsa_error *error = NULL;
    server_start(&member.server, false, play, &member);
    ck_ok(open_at(member.server.url, SOON_MS, &client, &error), error);
    ck_ok(call_test(client, true, SOON_MS, &error), error);
    finish(client);
    server_stop(&member.server);
}
END_TEST

static void *call_while_closing(void *user)
{
    xvsa_error *error = NULL;
    ck_fails(call_test(user, true, SOON_MS, &error), XVSA_ERR_STATE, error);
    return NULL;
}

/* A session that is renewed while the pool is being closed is not left behind. */
START_TEST(closing_during_a_renewal)
{
    struct member member = {0};
    struct xv_client *client = NULL;
    pthread_t thread;
    xvsa_error *error = NULL;
    server_start(&member.server, false, play, &member);
    ck_ok(open_at(member.server.url, SOON_MS, &client, &error), error);
    atomic_store(&member.expire, 1);
    atomic_store(&member.hold, true);
    ck_assert_int_eq(pthread_create(&thread, NULL, call_while_closing, client), 0);
    while (atomic_load(&member.logins) < 2)
        usleep(1000);
    struct xv_call call = xv_call_within(NULL, SOON_MS);
    ck_ok(xv_client_close(client, &call, &error), error);
    atomic_store(&member.hold, false);
    pthread_join(thread, NULL);
    ck_assert_int_eq(atomic_load(&member.logins), 2);
    ck_assert_int_eq(atomic_load(&member.logouts), 2);
    xv_client_free(client);
    server_stop(&member.server);
}
END_TEST

/* What a member makes of the password in its answer is not shown. */
START_TEST(echoed_secrets)
{
    static const char *const answers[] = {
        NULL, "HTTP/1.1 200 OK\r\n\r\n<?xml version=\"1.0\"?><methodResponse><fault><value><struct>"
              "<member><name>faultCode</name><value><int>1</int></value></member><member><name>"
              "faultString</name><value>bad call with s3cret-word</value></member></struct></value>"
              "</fault></methodResponse>"};
    for (size_t i = 0; i < 2; i++) {
        struct member member = {.login_error = "INVALID_VALUE s3cret-word", .raw = answers[i]};
        struct xv_client *client = NULL;
        xvsa_error *error = NULL;
        server_start(&member.server, false, play, &member);
        ck_assert_int_ne(open_at(member.server.url, SOON_MS, &client, &error), 0);
        ck_assert_ptr_null(strstr(xvsa_error_message(error), "s3cret-word"));
        if (i == 0)
            ck_assert_str_eq(xvsa_error_xenapi_param(error, 0), "(hidden)");
        xv_error_clear(&error);
        server_stop(&member.server);
    }
}
END_TEST

/* Answers that are not records are refused and nothing is released twice. */
START_TEST(records_that_are_none)
{
    struct member member = {.value = "not a record"};
    struct xv_client *client = NULL;
    struct xv_value *record = NULL;
    struct xv_snapshot_disk *disks = NULL;
    size_t count = 0;
    xvsa_error *error = NULL;
    struct xv_call call = xv_call_within(NULL, SOON_MS);
    server_start(&member.server, false, play, &member);
    ck_ok(open_at(member.server.url, SOON_MS, &client, &error), error);
    ck_fails(xv_record_get(client, "VM", "OpaqueRef:1", &call, &record, &error), XVSA_ERR_PROTOCOL,
             error);
    ck_assert_ptr_null(record);
    ck_fails(xv_snapshot_disks(client, "OpaqueRef:1", &call, &disks, &count, &error),
             XVSA_ERR_PROTOCOL, error);
    struct xv_disk *disk = NULL;
    const struct xv_host host = {.address = "127.0.0.1"};
    ck_fails(xv_vdi_open_http(client, NULL, "OpaqueRef:1", &host, &call, &disk, &error),
             XVSA_ERR_PROTOCOL, error);
    finish(client);
    server_stop(&member.server);
}
END_TEST

/* A port that takes no more connections: attempts hang as those to a dead host do. */
struct black_hole {
    int fd;
    int fillers[4];
    char url[64];
};

static void open_hole(struct black_hole *hole)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    hole->fd = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_eq(bind(hole->fd, (struct sockaddr *)&address, size), 0);
    ck_assert_int_eq(listen(hole->fd, 0), 0);
    ck_assert_int_eq(getsockname(hole->fd, (struct sockaddr *)&address, &size), 0);
    for (size_t i = 0; i < 4; i++) {
        hole->fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)!connect(hole->fillers[i], (struct sockaddr *)&address, size);
    }
    snprintf(hole->url, sizeof hole->url, "http://127.0.0.1:%u", ntohs(address.sin_port));
}

static void close_hole(struct black_hole *hole)
{
    close(hole->fd);
    for (size_t i = 0; i < 4; i++)
        close(hole->fillers[i]);
}

/* Each of them alone would take longer than the deadline is. */
START_TEST(dead_members_are_not_waited_for)
{
    struct member member = {0};
    struct black_hole holes[3];
    const char *urls[4];
    struct xv_client *client = NULL;
    xvsa_error *error = NULL;
    for (size_t i = 0; i < 3; i++) {
        open_hole(&holes[i]);
        urls[i] = holes[i].url;
    }
    server_start(&member.server, false, play, &member);
    urls[3] = member.server.url;
    struct xv_call call = xv_call_within(NULL, 12000);
    struct xv_client_options options = {.urls = urls,
                                        .url_count = 4,
                                        .username = "root",
                                        .password = "x",
                                        .flags = XVSA_POOL_ALLOW_PLAIN_HTTP};
    ck_ok(xv_client_open(&options, &call, &client, &error), error);
    finish(client);
    /* With none alive the deadline ends it. */
    options.url_count = 3;
    call = xv_call_within(NULL, 1000);
    ck_fails(xv_client_open(&options, &call, &client, &error), XVSA_ERR_TIMEOUT, error);
    server_stop(&member.server);
    for (size_t i = 0; i < 3; i++)
        close_hole(&holes[i]);
}
END_TEST

START_TEST(another_pool)
{
    struct member member = {.pool_uuid = "other-uid"};
    const char *url;
    struct xv_client *client = NULL;
    xvsa_error *error = NULL;
    server_start(&member.server, false, play, &member);
    url = member.server.url;
    struct xv_client_options options = {.urls = &url,
                                        .url_count = 1,
                                        .username = "root",
                                        .password = "x",
                                        .pool_uuid = "pool-uuid",
                                        .flags = XVSA_POOL_ALLOW_PLAIN_HTTP};
    ck_fails(xv_client_open(&options, NULL, &client, &error), XVSA_ERR_CONFLICT, error);
    ck_assert_int_eq(atomic_load(&member.logouts), 1);
    server_stop(&member.server);
}
END_TEST

START_TEST(patience_with_a_booting_host)
{
    struct member member = {.login_error = "HOST_STILL_BOOTING", .login_errors = 2};
    struct xv_client *client = NULL;
    xvsa_error *error = NULL;
    server_start(&member.server, false, play, &member);
    ck_ok(open_at(member.server.url, SOON_MS, &client, &error), error);
    finish(client);
    member.login_errors = 0;
    ck_fails(open_at(member.server.url, 1500, &client, &error), XVSA_ERR_TIMEOUT, error);
    server_stop(&member.server);
}
END_TEST

START_TEST(session_is_renewed_once)
{
    struct member member = {.expire = 1};
    struct xv_client *client = NULL;
    xvsa_error *error = NULL;
    server_start(&member.server, false, play, &member);
    ck_ok(open_at(member.server.url, SOON_MS, &client, &error), error);
    uint64_t epoch = xv_client_epoch(client);
    ck_ok(call_test(client, false, SOON_MS, &error), error);
    ck_assert_uint_eq(xv_client_epoch(client), epoch + 1);
    ck_assert_int_eq(atomic_load(&member.logins), 2);
    ck_assert_int_eq(atomic_load(&member.calls), 1);
    /* A pool that never accepts the session does not keep us for ever. */
    atomic_store(&member.expire, 1000);
    ck_assert_int_eq(call_test(client, true, SOON_MS, &error), XVSA_ERR_AUTH);
    ck_assert_ptr_null(strstr(xvsa_error_message(error), "OpaqueRef:session"));
    xv_error_clear(&error);
    finish(client);
    server_stop(&member.server);
}
END_TEST

static void *call_often(void *user)
{
    for (int i = 0; i < 20; i++) {
        xvsa_error *error = NULL;
        ck_ok(call_test(user, i % 2 == 0, SOON_MS, &error), error);
    }
    return NULL;
}

START_TEST(threads_share_a_client)
{
    struct member member = {0};
    struct xv_client *client = NULL;
    pthread_t threads[6];
    xvsa_error *error = NULL;
    server_start(&member.server, false, play, &member);
    ck_ok(open_at(member.server.url, SOON_MS, &client, &error), error);
    atomic_store(&member.expire, 6);
    for (size_t i = 0; i < 6; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, call_often, client), 0);
    for (size_t i = 0; i < 6; i++)
        pthread_join(threads[i], NULL);
    ck_assert_int_eq(atomic_load(&member.calls), 120);
    /* Those that failed with one session renewed it once. */
    ck_assert_int_le(atomic_load(&member.logins), 7);
    finish(client);
    server_stop(&member.server);
}
END_TEST

START_TEST(busy_pools_are_asked_again)
{
    struct member member = {.busy = 1};
    struct xv_client *client = NULL;
    xvsa_error *error = NULL;
    server_start(&member.server, false, play, &member);
    ck_ok(open_at(member.server.url, SOON_MS, &client, &error), error);
    ck_ok(call_test(client, false, SOON_MS, &error), error);
    atomic_store(&member.busy, 1000);
    ck_assert_int_eq(call_test(client, false, 1200, &error), XVSA_ERR_BUSY);
    ck_assert(xvsa_error_is_retryable(error));
    xv_error_clear(&error);
    finish(client);
    server_stop(&member.server);
}
END_TEST

START_TEST(lost_answers)
{
    struct member member = {.cut = 1};
    struct xv_client *client = NULL;
    xvsa_error *error = NULL;
    server_start(&member.server, false, play, &member);
    ck_ok(open_at(member.server.url, SOON_MS, &client, &error), error);
    /* Executed once, never a second time without being told that it may. */
    ck_fails(call_test(client, false, SOON_MS, &error), XVSA_ERR_UNKNOWN_OUTCOME, error);
    ck_assert_int_eq(atomic_load(&member.calls), 1);
    atomic_store(&member.cut, 1);
    ck_ok(call_test(client, true, SOON_MS, &error), error);
    ck_assert_int_eq(atomic_load(&member.calls), 3);
    finish(client);
    server_stop(&member.server);
}
END_TEST

START_TEST(dead_coordinator)
{
    struct member first = {0};
    struct member second = {.login_error = "HOST_IS_SLAVE 127.0.0.1", .login_errors = 1};
    struct xv_client *client = NULL;
    xvsa_error *error = NULL;
    start_two(&first, &second);
    ck_ok(open_at(first.server.url, SOON_MS, &client, &error), error);
    uint64_t epoch = xv_client_epoch(client);
    server_stop(&first.server);
    /* The other member still names the dead one, then takes the role. It was never configured. */
    ck_ok(call_test(client, false, SOON_MS, &error), error);
    ck_assert_int_eq(atomic_load(&second.calls), 1);
    ck_assert_uint_eq(xv_client_epoch(client), epoch + 1);
    finish(client);
    server_stop(&second.server);
}
END_TEST

static void hostile(const char *raw, int code)
{
    struct member member = {.raw = raw};
    struct xv_client *client = NULL;
    xvsa_error *error = NULL;
    server_start(&member.server, false, play, &member);
    ck_fails(open_at(member.server.url, SOON_MS, &client, &error), code, error);
    server_stop(&member.server);
}

START_TEST(hostile_members)
{
    hostile("", XVSA_ERR_NETWORK);
    hostile("SSH-2.0-OpenSSH\r\n", XVSA_ERR_PROTOCOL);
    hostile("HTTP/1.1 500 Internal Error\r\ncontent-length: 0\r\n\r\n", XVSA_ERR_PROTOCOL);
    hostile("HTTP/1.1 302 Found\r\nLocation: https://192.0.2.1/\r\ncontent-length: 0\r\n\r\n",
            XVSA_ERR_PROTOCOL);
    hostile("HTTP/1.1 200 OK\r\ncontent-length: 2147483648\r\n\r\n<?xml", XVSA_ERR_LIMIT);
    hostile("HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n<?xml version=\"1.0\"?><methodRes",
            XVSA_ERR_NETWORK);
    hostile("HTTP/1.1 200 OK\r\n\r\n<html>hello</html>", XVSA_ERR_PROTOCOL);
    hostile("HTTP/1.1 200 OK\r\n\r\n<!DOCTYPE a [<!ENTITY b \"c\">]><methodResponse>&b;",
            XVSA_ERR_PROTOCOL);
}
END_TEST

START_TEST(silent_member)
{
    struct member member = {0};
    struct xv_client *client = NULL;
    xvsa_error *error = NULL;
    /* It accepts connections and nothing reads from them. */
    server_start(&member.server, false, play, &member);
    atomic_store(&member.server.stop, true);
    pthread_join(member.server.thread, NULL);
    ck_fails(open_at(member.server.url, 500, &client, &error), XVSA_ERR_TIMEOUT, error);
    close(member.server.fd);
}
END_TEST

START_TEST(wrong_certificate)
{
    struct member member = {0};
    const char *pin = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    struct xv_client *client = NULL;
    xvsa_error *error = NULL;
    server_start(&member.server, true, play, &member);
    const char *url = member.server.url;
    struct xv_client_options options = {.urls = &url,
                                        .url_count = 1,
                                        .username = "root",
                                        .password = "x",
                                        .fingerprints = &pin,
                                        .fingerprint_count = 1};
    ck_assert_int_eq(xv_client_open(&options, NULL, &client, &error), XVSA_ERR_TLS);
    ck_assert_ptr_nonnull(strstr(xvsa_error_message(error), pin));
    ck_assert_ptr_nonnull(strstr(xvsa_error_message(error), member.server.fingerprint));
    xv_error_clear(&error);
    ck_assert_int_eq(atomic_load(&member.logins), 0);
    pin = member.server.fingerprint;
    ck_ok(xv_client_open(&options, NULL, &client, &error), error);
    ck_assert_str_eq(xv_client_fingerprint(client), pin);
    finish(client);
    server_stop(&member.server);
}
END_TEST

START_TEST(member_addresses)
{
    struct member member = {0};
    struct xv_client *client = NULL;
    struct xv_url url;
    xvsa_error *error = NULL;
    server_start(&member.server, false, play, &member);
    ck_ok(open_at(member.server.url, SOON_MS, &client, &error), error);
    xv_client_member_url(client, "127.0.0.1", &url);
    ck_assert_uint_eq(url.port, member.server.port);
    xv_client_member_url(client, "2001:db8::2", &url);
    char text[300];
    char expected[300];
    xv_url_format(&url, text, sizeof text);
    snprintf(expected, sizeof expected, "http://[2001:db8::2]:%u", member.server.port);
    ck_assert_str_eq(text, expected);
    finish(client);
    server_stop(&member.server);
}
END_TEST

START_TEST(error_codes)
{
    xvsa_error *error = NULL;
    struct xv_value *description =
        xv_params("LICENCE_RESTRICTION", "CBT", "x?session_id=OpaqueRef:1", NULL);
    ck_assert_int_eq(xv_errors_fail("VDI.enable_cbt", description, NULL, &error),
                     XVSA_ERR_UNSUPPORTED);
    ck_assert_uint_eq(xvsa_error_xenapi_param_count(error), 2);
    ck_assert_str_eq(xvsa_error_xenapi_param(error, 0), "CBT");
    ck_assert_str_eq(xvsa_error_xenapi_param(error, 1), "(hidden)");
    xv_error_clear(&error);
    xv_value_free(description);
    description = xv_params("SOMETHING_NEW", "a", NULL);
    ck_assert_int_eq(xv_errors_fail("x", description, NULL, &error), XVSA_ERR_XENAPI);
    ck_assert_str_eq(xvsa_error_xenapi_code(error), "SOMETHING_NEW");
    xv_error_clear(&error);
    xv_value_free(description);
    for (size_t i = 0; xv_errors_at(i) != NULL; i++) {
        ck_assert_int_lt(xv_errors_at(i)->xvsa_code, 0);
        for (size_t k = 0; k < i; k++)
            ck_assert_str_ne(xv_errors_at(i)->code, xv_errors_at(k)->code);
    }
}
END_TEST

/* The document for readers and the table are one list. */
START_TEST(error_codes_are_documented)
{
    const char *root = getenv("XVSA_SOURCE_ROOT");
    char path[1024];
    static char text[1 << 18];
    ck_assert_msg(root != NULL, "XVSA_SOURCE_ROOT is not set");
    snprintf(path, sizeof path, "%s/docs/errors.md", root);
    FILE *file = fopen(path, "r");
    ck_assert_msg(file != NULL, "%s cannot be opened", path);
    size_t length = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[length] = '\0';
    for (size_t i = 0; xv_errors_at(i) != NULL; i++) {
        char row[200];
        snprintf(row, sizeof row, "| `%s` | `%s` |", xv_errors_at(i)->code,
                 xvsa_code_name(xv_errors_at(i)->xvsa_code));
        ck_assert_msg(strstr(text, row) != NULL, "docs/errors.md lacks the row %s", row);
    }
}
END_TEST

static void fill(Suite *suite)
{
    TCase *all = tcase_create("client");
    tcase_set_timeout(all, 90);
    tcase_add_test(all, login_and_logout);
    tcase_add_test(all, plain_http_is_refused);
    tcase_add_test(all, wrong_password);
    tcase_add_test(all, follows_to_the_coordinator);
    tcase_add_test(all, redirect_loop);
    tcase_add_test(all, servers_without_originator);
    tcase_add_test(all, closing_during_a_renewal);
    tcase_add_test(all, echoed_secrets);
    tcase_add_test(all, records_that_are_none);
    tcase_add_test(all, dead_members_are_not_waited_for);
    tcase_add_test(all, another_pool);
    tcase_add_test(all, patience_with_a_booting_host);
    tcase_add_test(all, session_is_renewed_once);
    tcase_add_test(all, threads_share_a_client);
    tcase_add_test(all, busy_pools_are_asked_again);
    tcase_add_test(all, lost_answers);
    tcase_add_test(all, dead_coordinator);
    tcase_add_test(all, hostile_members);
    tcase_add_test(all, silent_member);
    tcase_add_test(all, wrong_certificate);
    tcase_add_test(all, member_addresses);
    tcase_add_test(all, error_codes);
    tcase_add_test(all, error_codes_are_documented);
    suite_add_tcase(suite, all);
}

UNIT_MAIN("client")
