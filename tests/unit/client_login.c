/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Logins and answers of members that are old, dead or hostile.
 */
#include "client_member.h"

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

static void fill(Suite *suite)
{
    TCase *all = tcase_create("client_login");
    tcase_set_timeout(all, 90);
    tcase_add_test(all, servers_without_originator);
    tcase_add_test(all, closing_during_a_renewal);
    tcase_add_test(all, echoed_secrets);
    tcase_add_test(all, records_that_are_none);
    tcase_add_test(all, dead_members_are_not_waited_for);
    suite_add_tcase(suite, all);
}

UNIT_MAIN("client_login")
