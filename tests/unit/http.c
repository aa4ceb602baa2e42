/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "net/http.h"

#include "http_server.h"
#include "unit.h"

#define SOON_MS 20000 /* far beyond what anything here needs */

struct setup {
    struct server server;
    struct xv_trust *trust;
    struct xv_http *http;
    struct xv_url url;
};

static void start(struct setup *setup, const struct xv_trust_options *trust, bool tls,
                  server_fn answer, void *user)
{
    xvsa_error *error = NULL;
    static const struct xv_trust_options none = {0};
    server_start(&setup->server, tls, answer, user);
    ck_ok(xv_trust_new(trust == NULL ? &none : trust, &setup->trust, &error), error);
    ck_ok(xv_http_new(NULL, setup->trust, true, &setup->http, &error), error);
    ck_ok(xv_url_parse(setup->server.url, &setup->url, &error), error);
}

static void stop(struct setup *setup)
{
    xv_http_free(setup->http);
    xv_trust_free(setup->trust);
    server_stop(&setup->server);
}

/* Posts a body and reads the whole answer. */
static int post(struct setup *setup, struct xv_http_request request, int64_t ms, char *answer,
                size_t size, xvsa_error **error)
{
    struct xv_exchange *exchange = NULL;
    struct xv_call call = xv_call_within(NULL, ms);
    size_t used = 0;
    size_t got = 1;
    request.host = &setup->url;
    request.method = request.method == NULL ? "POST" : request.method;
    request.target = request.target == NULL ? "/" : request.target;
    if (strcmp(request.method, "POST") == 0) {
        request.body = "hello";
        request.body_length = 5;
    }
    int rc = xv_http_begin(setup->http, &request, &call, &exchange, NULL, error);
    if (rc != 0)
        return rc;
    while (rc == 0 && got > 0 && used + 1 < size) {
        rc = xv_http_read(exchange, answer + used, size - used - 1, &got, error);
        used += rc == 0 ? got : 0;
    }
    answer[used] = '\0';
    xv_http_end(exchange);
    return rc;
}

static bool echo(struct peer *peer, void *user)
{
    (void)user;
    return peer_body(peer, peer->request);
}

START_TEST(connections_are_kept)
{
    struct setup setup;
    char answer[2048];
    xvsa_error *error = NULL;
    start(&setup, NULL, false, echo, NULL);
    for (int i = 0; i < 5; i++)
        ck_ok(post(&setup, (struct xv_http_request){.content_type = "text/xml"}, SOON_MS, answer,
                   sizeof answer, &error),
              error);
    ck_assert_uint_eq(atomic_load(&setup.server.connections), 1);
    ck_assert_ptr_nonnull(strstr(answer, "POST / HTTP/1.1\r\n"));
    ck_assert_ptr_nonnull(strstr(answer, "User-Agent: libxvsa/"));
    ck_assert_ptr_null(strcasestr(answer, "expect:"));
    ck_assert_ptr_null(strcasestr(answer, "transfer-encoding"));
    ck_assert_ptr_nonnull(strstr(answer, "\r\n\r\nhello"));
    /* What must not be sent twice gets a connection of its own. */
    ck_ok(post(&setup, (struct xv_http_request){.fresh = true}, SOON_MS, answer, sizeof answer,
               &error),
          error);
    ck_assert_uint_eq(atomic_load(&setup.server.connections), 2);
    stop(&setup);
}
END_TEST

static bool script(struct peer *peer, void *user)
{
    peer_text(peer, user);
    return false;
}

static void fails_with(const char *text, int code)
{
    struct setup setup;
    char answer[2048];
    xvsa_error *error = NULL;
    start(&setup, NULL, false, script, (void *)(uintptr_t)text);
    ck_fails(post(&setup, (struct xv_http_request){.answer_ceiling = 1000}, SOON_MS, answer,
                  sizeof answer, &error),
             code, error);
    stop(&setup);
}

START_TEST(broken_answers)
{
    fails_with("", XVSA_ERR_NETWORK);
    fails_with("hello there\r\n\r\n", XVSA_ERR_PROTOCOL);
    fails_with("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\ncut", XVSA_ERR_NETWORK);
    fails_with("HTTP/1.1 200 OK\r\ncontent-length: 2147483648\r\n\r\nx", XVSA_ERR_LIMIT);
    fails_with("HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\nx",
               XVSA_ERR_LIMIT);
}
END_TEST

static bool endless_body(struct peer *peer, void *user)
{
    char block[4096];
    (void)user;
    memset(block, 'x', sizeof block);
    peer_text(peer, "HTTP/1.1 200 OK\r\n\r\n");
    while (!atomic_load(&peer->server->stop) && peer_send(peer, block, sizeof block))
        ;
    return false;
}

static bool endless_head(struct peer *peer, void *user)
{
    (void)user;
    peer_text(peer, "HTTP/1.1 200 OK\r\n");
    while (!atomic_load(&peer->server->stop) &&
           peer_text(peer, "x-more: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n"))
        ;
    return false;
}

START_TEST(endless_answers)
{
    struct setup setup;
    static char answer[1 << 20];
    xvsa_error *error = NULL;
    start(&setup, NULL, false, endless_body, NULL);
    ck_fails(post(&setup, (struct xv_http_request){.answer_ceiling = 500000}, SOON_MS, answer,
                  sizeof answer, &error),
             XVSA_ERR_LIMIT, error);
    stop(&setup);
    start(&setup, NULL, false, endless_head, NULL);
    ck_fails(post(&setup, (struct xv_http_request){0}, SOON_MS, answer, sizeof answer, &error),
             XVSA_ERR_LIMIT, error);
    stop(&setup);
}
END_TEST

struct firing {
    atomic_bool arrived; /* a GET reached the server */
    xvsa_cancel *cancel;
};

static bool silent(struct peer *peer, void *user)
{
    struct firing *firing = user;
    if (strncmp(peer->request, "GET ", 4) == 0)
        atomic_store(&firing->arrived, true);
    return peer_hang(peer);
}

static void *fire_later(void *argument)
{
    struct firing *firing = argument;
    while (!atomic_load(&firing->arrived))
        usleep(1000);
    xvsa_cancel_fire(firing->cancel);
    return NULL;
}

START_TEST(deadlines_and_cancellation)
{
    struct setup setup;
    char answer[100];
    xvsa_error *error = NULL;
    struct firing firing = {0};
    start(&setup, NULL, false, silent, &firing);
    ck_fails(post(&setup, (struct xv_http_request){0}, 200, answer, sizeof answer, &error),
             XVSA_ERR_TIMEOUT, error);
    ck_fails(post(&setup, (struct xv_http_request){.stall_ms = 100}, SOON_MS, answer, sizeof answer,
                  &error),
             XVSA_ERR_TIMEOUT, error);
    struct xv_call call = {0};
    struct xv_exchange *exchange = NULL;
    pthread_t thread;
    ck_ok(xvsa_cancel_new(&call.cancel, &error), error);
    firing.cancel = call.cancel;
    ck_assert_int_eq(pthread_create(&thread, NULL, fire_later, &firing), 0);
    struct xv_http_request request = {.method = "GET", .host = &setup.url, .target = "/"};
    bool sent = false;
    ck_fails(xv_http_begin(setup.http, &request, &call, &exchange, &sent, &error),
             XVSA_ERR_CANCELLED, error);
    ck_assert(sent);
    pthread_join(thread, NULL);
    xvsa_cancel_unref(call.cancel);
    stop(&setup);
}
END_TEST

START_TEST(nobody_there)
{
    struct setup setup;
    xvsa_error *error = NULL;
    struct xv_exchange *exchange = NULL;
    bool sent = true;
    start(&setup, NULL, false, echo, NULL);
    server_stop(&setup.server);
    struct xv_http_request request = {.method = "GET", .host = &setup.url, .target = "/"};
    ck_fails(xv_http_begin(setup.http, &request, NULL, &exchange, &sent, &error), XVSA_ERR_NETWORK,
             error);
    ck_assert(!sent);
    xv_http_free(setup.http);
    xv_trust_free(setup.trust);
}
END_TEST

START_TEST(redirects_are_not_followed)
{
    struct setup setup;
    xvsa_error *error = NULL;
    struct xv_exchange *exchange = NULL;
    start(&setup, NULL, false, script,
          (void *)(uintptr_t) "HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/x?y\r\n"
                              "content-length: 0\r\n\r\n");
    struct xv_http_request request = {.method = "GET", .host = &setup.url, .target = "/"};
    ck_ok(xv_http_begin(setup.http, &request, NULL, &exchange, NULL, &error), error);
    ck_assert_int_eq(xv_http_status(exchange), 302);
    ck_assert_str_eq(xv_http_location(exchange), "http://192.0.2.1/x?y");
    xv_http_end(exchange);
    stop(&setup);
}
END_TEST

START_TEST(long_heads_are_not_sent)
{
    struct setup setup;
    char target[1100];
    char answer[100];
    xvsa_error *error = NULL;
    memset(target, 'a', sizeof target);
    target[0] = '/';
    target[sizeof target - 1] = '\0';
    start(&setup, NULL, false, echo, NULL);
    ck_fails(post(&setup, (struct xv_http_request){.target = target}, SOON_MS, answer,
                  sizeof answer, &error),
             XVSA_ERR_INVALID, error);
    ck_assert_uint_eq(atomic_load(&setup.server.connections), 0);
    stop(&setup);
}
END_TEST

START_TEST(plain_http_needs_permission)
{
    xvsa_error *error = NULL;
    struct xv_http *http = NULL;
    struct xv_exchange *exchange = NULL;
    struct xv_url url;
    ck_ok(xv_http_new(NULL, NULL, false, &http, &error), error);
    ck_ok(xv_url_parse("http://127.0.0.1:1", &url, &error), error);
    struct xv_http_request request = {.method = "GET", .host = &url, .target = "/"};
    ck_fails(xv_http_begin(http, &request, NULL, &exchange, NULL, &error), XVSA_ERR_INVALID, error);
    xv_http_free(http);
}
END_TEST

/* What arrived of an upload. */
struct upload {
    uint64_t left;
    uint64_t given;
    atomic_ullong received;
    bool early; /* answer before the body came */
};

static int produce(void *user, void *data, size_t room, size_t *ret_length, xvsa_error **error)
{
    struct upload *upload = user;
    (void)error;
    *ret_length = room < upload->left ? room : (size_t)upload->left;
    memset(data, 'u', *ret_length);
    upload->left -= *ret_length;
    return 0;
}

static bool take_upload(struct peer *peer, void *user)
{
    struct upload *upload = user;
    char data[65536];
    uint64_t got = peer->length - peer->head_length;
    if (upload->early)
        peer_text(peer, "HTTP/1.1 200 OK\r\nConnection: close\r\ntask-id: x\r\n\r\n");
    usleep(20000);
    while (got < peer->body_length) {
        ssize_t part = peer_receive(peer, data, sizeof data);
        if (part <= 0)
            break;
        got += (uint64_t)part;
    }
    atomic_store(&upload->received, got);
    if (!upload->early)
        peer_text(peer, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    return false;
}

static void upload(bool early, bool tls)
{
    struct setup setup;
    xvsa_error *error = NULL;
    struct xv_exchange *exchange = NULL;
    struct upload state = {.left = 5000000, .early = early};
    struct xv_trust_options trust = {.first_use = true};
    start(&setup, &trust, tls, take_upload, &state);
    setup.server.no_body = true;
    struct xv_http_request request = {.method = "PUT",
                                      .host = &setup.url,
                                      .target = "/import",
                                      .produce = produce,
                                      .user = &state,
                                      .upload_length = state.left};
    struct xv_call call = xv_call_within(NULL, SOON_MS);
    ck_ok(xv_http_begin(setup.http, &request, &call, &exchange, NULL, &error), error);
    ck_assert_int_eq(xv_http_status(exchange), 200);
    ck_assert_uint_eq(atomic_load(&state.received), 5000000);
    xv_http_end(exchange);
    stop(&setup);
}

START_TEST(uploads)
{
    upload(false, false);
    upload(true, false);
    upload(true, true);
}
END_TEST

static bool refuse_upload(struct peer *peer, void *user)
{
    (void)user;
    peer_text(peer, "HTTP/1.1 302 Found\r\nLocation: https://192.0.2.1/\r\ncontent-length: 0\r\n"
                    "Connection: close\r\n\r\n");
    usleep(100000);
    return false;
}

static void upload_refused(bool tls)
{
    struct setup setup;
    xvsa_error *error = NULL;
    struct xv_exchange *exchange = NULL;
    struct upload state = {.left = 500000000};
    struct xv_trust_options trust = {.first_use = true};
    start(&setup, &trust, tls, refuse_upload, NULL);
    setup.server.no_body = true;
    struct xv_http_request request = {.method = "PUT",
                                      .host = &setup.url,
                                      .target = "/import",
                                      .produce = produce,
                                      .user = &state,
                                      .upload_length = state.left};
    int rc = xv_http_begin(setup.http, &request, NULL, &exchange, NULL, &error);
    /* Depending on what reached us first, the answer or the end of the connection. */
    ck_assert(rc == 0 || rc == XVSA_ERR_NETWORK);
    if (rc == 0)
        ck_assert_int_eq(xv_http_status(exchange), 302);
    ck_assert_uint_gt(state.left, 0);
    xv_http_end(exchange);
    xv_error_clear(&error);
    stop(&setup);
}

/* Writing to a connection that the peer closed raises no signal either. */
START_TEST(refused_uploads_end)
{
    upload_refused(false);
    upload_refused(true);
}
END_TEST

START_TEST(short_uploads_fail)
{
    struct setup setup;
    xvsa_error *error = NULL;
    struct xv_exchange *exchange = NULL;
    struct upload state = {.left = 1000};
    start(&setup, NULL, false, take_upload, &state);
    setup.server.no_body = true;
    struct xv_http_request request = {.method = "PUT",
                                      .host = &setup.url,
                                      .target = "/import",
                                      .produce = produce,
                                      .user = &state,
                                      .upload_length = 2000};
    ck_fails(xv_http_begin(setup.http, &request, NULL, &exchange, NULL, &error), XVSA_ERR_INTERNAL,
             error);
    stop(&setup);
}
END_TEST

/* One request with a trust of its own; *ret_seen receives the fingerprint. */
static int trusted_get(struct setup *setup, const struct xv_trust_options *options,
                       char seen[XV_FINGERPRINT_TEXT], xvsa_error **error)
{
    struct xv_trust *trust = NULL;
    struct xv_http *http = NULL;
    struct xv_exchange *exchange = NULL;
    struct xv_call call = xv_call_within(NULL, SOON_MS);
    struct xv_http_request request = {.method = "GET", .host = &setup->url, .target = "/"};
    int rc = xv_trust_new(options, &trust, error);
    if (rc == 0)
        rc = xv_http_new(NULL, trust, false, &http, error);
    if (rc == 0)
        rc = xv_http_begin(http, &request, &call, &exchange, NULL, error);
    if (rc == 0)
        memcpy(seen, xv_http_fingerprint(exchange), XV_FINGERPRINT_TEXT);
    xv_http_end(exchange);
    xv_http_free(http);
    xv_trust_free(trust);
    return rc;
}

START_TEST(pinned_certificates)
{
    struct setup setup;
    char seen[XV_FINGERPRINT_TEXT];
    char colons[100];
    size_t used = 0;
    xvsa_error *error = NULL;
    start(&setup, NULL, true, echo, NULL);
    for (size_t i = 0; i < 64; i += 2)
        used += (size_t)snprintf(colons + used, sizeof colons - used, "%s%.2s", i == 0 ? "" : ":",
                                 setup.server.fingerprint + i);
    const char *right = colons;
    const char *wrong = "0000000000000000000000000000000000000000000000000000000000000000";
    ck_ok(trusted_get(&setup,
                      &(struct xv_trust_options){.fingerprints = &right, .fingerprint_count = 1},
                      seen, &error),
          error);
    ck_assert_str_eq(seen, setup.server.fingerprint);
    ck_ok(trusted_get(&setup, &(struct xv_trust_options){.first_use = true}, seen, &error), error);
    ck_assert_str_eq(seen, setup.server.fingerprint);
    int rc = trusted_get(&setup,
                         &(struct xv_trust_options){.fingerprints = &wrong, .fingerprint_count = 1},
                         seen, &error);
    ck_assert_int_eq(rc, XVSA_ERR_TLS);
    ck_assert_ptr_nonnull(strstr(xvsa_error_message(error), wrong));
    ck_assert_ptr_nonnull(strstr(xvsa_error_message(error), setup.server.fingerprint));
    xv_error_clear(&error);
    /* A pin is not weakened by first use, and no setting at all means the system's authorities. */
    ck_fails(trusted_get(&setup,
                         &(struct xv_trust_options){
                             .fingerprints = &wrong, .fingerprint_count = 1, .first_use = true},
                         seen, &error),
             XVSA_ERR_TLS, error);
    ck_fails(trusted_get(&setup, &(struct xv_trust_options){0}, seen, &error), XVSA_ERR_TLS, error);
    wrong = "12345";
    ck_fails(trusted_get(&setup,
                         &(struct xv_trust_options){.fingerprints = &wrong, .fingerprint_count = 1},
                         seen, &error),
             XVSA_ERR_INVALID, error);
    stop(&setup);
}
END_TEST

START_TEST(first_use_is_remembered)
{
    struct setup first;
    struct setup second;
    char answer[2048];
    xvsa_error *error = NULL;
    struct xv_trust_options trust = {.first_use = true};
    start(&first, &trust, true, echo, NULL);
    start(&second, NULL, true, echo, NULL);
    ck_ok(post(&first, (struct xv_http_request){0}, SOON_MS, answer, sizeof answer, &error), error);
    struct xv_url url = first.url;
    first.url = second.url;
    ck_fails(post(&first, (struct xv_http_request){0}, SOON_MS, answer, sizeof answer, &error),
             XVSA_ERR_TLS, error);
    ck_ok(xv_trust_pin(first.trust, second.server.fingerprint, &error), error);
    ck_ok(post(&first, (struct xv_http_request){0}, SOON_MS, answer, sizeof answer, &error), error);
    first.url = url;
    stop(&first);
    stop(&second);
}
END_TEST

START_TEST(urls)
{
    struct xv_url url;
    struct xv_url other;
    char text[300];
    xvsa_error *error = NULL;
    ck_ok(xv_url_parse("https://[2001:db8::1]", &url, &error), error);
    ck_assert_str_eq(url.host, "2001:db8::1");
    ck_assert_uint_eq(url.port, 443);
    xv_url_format(&url, text, sizeof text);
    ck_assert_str_eq(text, "https://[2001:db8::1]:443");
    ck_ok(xv_url_parse("pool.example", &url, &error), error);
    ck_assert(url.tls);
    ck_ok(xv_url_parse("https://POOL.example:443/", &other, &error), error);
    ck_assert(xv_url_equal(&url, &other));
    ck_ok(xv_url_parse("http://10.0.0.1:8080", &url, &error), error);
    ck_assert(!url.tls);
    ck_assert_uint_eq(url.port, 8080);
    static const char *const bad[] = {"",
                                      "ftp://x",
                                      "https://",
                                      "https://u:secret@x",
                                      "https://x/path",
                                      "https://x?q",
                                      "https://x:99999"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        int rc = xv_url_parse(bad[i], &url, &error);
        ck_assert_msg(rc == XVSA_ERR_INVALID, "%s", bad[i]);
        ck_assert_ptr_null(strstr(xvsa_error_message(error), "secret"));
        xv_error_clear(&error);
    }
}
END_TEST

static void fill(Suite *suite)
{
    TCase *all = tcase_create("http");
    tcase_set_timeout(all, 60);
    tcase_add_test(all, connections_are_kept);
    tcase_add_test(all, broken_answers);
    tcase_add_test(all, endless_answers);
    tcase_add_test(all, deadlines_and_cancellation);
    tcase_add_test(all, nobody_there);
    tcase_add_test(all, redirects_are_not_followed);
    tcase_add_test(all, long_heads_are_not_sent);
    tcase_add_test(all, plain_http_needs_permission);
    tcase_add_test(all, uploads);
    tcase_add_test(all, refused_uploads_end);
    tcase_add_test(all, short_uploads_fail);
    tcase_add_test(all, pinned_certificates);
    tcase_add_test(all, first_use_is_remembered);
    tcase_add_test(all, urls);
    suite_add_tcase(suite, all);
}

UNIT_MAIN("http")
