/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The client against members that answer as a script says: hostile ones, lost answers, coordinators that
 * move. Behaviour of a whole pool is tested in operations.c.
 */
#include "client_member.h"

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
    struct member member = {.dead = "OpaqueRef:session1<"};
    struct xv_client *client = NULL;
    pthread_t threads[6];
    xvsa_error *error = NULL;
    server_start(&member.server, false, play, &member);
    ck_ok(open_at(member.server.url, SOON_MS, &client, &error), error);
    for (size_t i = 0; i < 6; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, call_often, client), 0);
    for (size_t i = 0; i < 6; i++)
        pthread_join(threads[i], NULL);
    ck_assert_int_eq(atomic_load(&member.calls), 120);
    /* All that failed with the first session renewed it once. */
    ck_assert_int_eq(atomic_load(&member.logins), 2);
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
    /* Time for the pause before the second attempt, and not for the one before the third. */
    ck_assert_int_eq(call_test(client, false, 2900, &error), XVSA_ERR_BUSY);
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
