/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * NBD disks against nbdkit, qemu-nbd and the pool simulator's server, with and without TLS, directly
 * and through a relay that cuts or silences connections.
 */
#include "nbd_disk.h"

START_TEST(plain_server_is_read)
{
    struct place place;
    char text[400];
    if (skip_without("nbdkit"))
        return;
    make_disk(&place);
    uint16_t port = start_nbdkit(&place, NULL, file_plugin(&place, text, "", ""));
    struct xv_disk *disk =
        open_disk(server_at(port, NULL), (struct xv_nbd_options){.size = SIZE, .connections = 3});
    ck_assert_uint_eq(disk->size, SIZE);
    check_whole(disk);
    check_read(disk, 0, 512);
    check_read(disk, 777, 100001);
    check_read(disk, SIZE - 700, 700);
    check_read(disk, 511, 2 * MIB + 3);
    struct xv_extents some;
    xvsa_error *error = NULL;
    xv_extents_init(&some);
    for (uint64_t at = 65536; at < SIZE; at += 5 * 65536)
        ck_ok(xv_extents_add(&some, at, at % (1 << 20) == 0 ? 65536 : 3 * 65536, &error), error);
    check_stream(disk, &some);
    xv_extents_free(&some);
    check_stream(disk, &(struct xv_extents){0});
    ck_fails(xv_disk_allocated(disk, &some, NULL, &error), XVSA_ERR_UNSUPPORTED, error);
    struct xv_range odd = {100, 1000};
    struct xv_extents odd_set = {.ranges = &odd, .count = 1};
    ck_fails(stream(disk, &odd_set, NULL, 0, &error), XVSA_ERR_INVALID, error);
    xv_disk_close(disk);
    drop_place(&place);
}
END_TEST

START_TEST(tls_server_is_read)
{
    struct place place;
    char text[400];
    if (skip_without("nbdkit"))
        return;
    make_disk(&place);
    make_certificate(&place, "a");
    char *pem = read_text(&place, "a-cert.pem");
    uint16_t port = start_nbdkit(&place, "a", file_plugin(&place, text, "", ""));
    struct xv_disk *disk =
        open_disk(server_at(port, pem), (struct xv_nbd_options){.size = SIZE, .require_tls = true});
    check_whole(disk);
    check_read(disk, 5 * MIB + 1, 70000);
    xv_disk_close(disk);
    free(pem);
    drop_place(&place);
}
END_TEST

START_TEST(only_the_announced_certificate_is_trusted)
{
    struct place place;
    char text[400];
    if (skip_without("nbdkit"))
        return;
    make_disk(&place);
    make_certificate(&place, "a");
    make_certificate(&place, "b"); /* the same subject */
    /* c: signed by a, so a check by chain of trust would accept it. */
    shell("cd %s && openssl req -newkey rsa:2048 -nodes -subj /CN=host.pool -keyout c-key.pem "
          "-out c.csr 2>/dev/null && openssl x509 -req -in c.csr -CA a-cert.pem -CAkey a-key.pem "
          "-CAcreateserial -days 2 -out c-cert.pem 2>/dev/null",
          place.folder);
    char *pem = read_text(&place, "a-cert.pem");
    struct xv_nbd_options options = {.size = SIZE, .require_tls = true};
    uint16_t port = start_nbdkit(&place, "b", file_plugin(&place, text, "", ""));
    check_open_fails(server_at(port, pem), options, XVSA_ERR_TLS);
    port = start_nbdkit(&place, "c", file_plugin(&place, text, "", ""));
    check_open_fails(server_at(port, pem), options, XVSA_ERR_TLS);
    check_open_fails(server_at(port, "not a certificate"), options, XVSA_ERR_TLS);
    check_open_fails(server_at(port, NULL), options, XVSA_ERR_TLS);
    /* A server without TLS, and one that demands it. */
    options.require_tls = false;
    check_open_fails(server_at(port, NULL), options, XVSA_ERR_TLS);
    port = start_nbdkit(&place, NULL, file_plugin(&place, text, "", ""));
    check_open_fails(server_at(port, pem), options, XVSA_ERR_TLS);
    free(pem);
    drop_place(&place);
}
END_TEST

START_TEST(pool_server_is_read)
{
    struct place place;
    if (skip_without("python3"))
        return;
    make_disk(&place);
    bool tls = _i == 1;
    char *pem = NULL;
    if (tls) {
        make_certificate(&place, "a");
        pem = read_text(&place, "a-cert.pem");
    }
    uint16_t port = start_simulator(&place, tls ? "a" : NULL, EXPORT);
    struct xv_nbd_options options = {.size = SIZE, .require_tls = tls, .connections = 2};
    struct xv_disk *disk = open_disk(server_at(port, pem), options);
    check_whole(disk);
    check_read(disk, 1234567, 65536);
    struct xv_nbd_server other = server_at(port, pem);
    other.export_name = "/other?session_id=OpaqueRef:very-secret";
    check_open_fails(other, options, XVSA_ERR_NETWORK);
    if (!tls)
        check_open_fails(server_at(port, "x"), options, XVSA_ERR_TLS);
    xv_disk_close(disk);
    free(pem);
    drop_place(&place);
}
END_TEST

/* The server notices a closed connection when it gets to it. */
static struct xv_disk *open_disk_when_free(struct xv_nbd_server server,
                                           const struct xv_nbd_options *options)
{
    for (int tries = 0; tries < 200; tries++) {
        struct xv_disk *disk = NULL;
        xvsa_error *error = NULL;
        int rc = xv_nbd_disk_open(&server, 1, options, NULL, &disk, &error);
        if (rc == 0)
            return disk;
        ck_assert_msg(rc == XVSA_ERR_BUSY, "%s", xvsa_error_message(error));
        xvsa_error_unref(error);
        usleep(50000);
    }
    ck_abort_msg("the server stays full");
}

START_TEST(full_server_is_busy)
{
    struct place place;
    struct xv_disk *disks[16];
    if (skip_without("python3"))
        return;
    make_disk(&place);
    uint16_t port = start_simulator(&place, NULL, EXPORT);
    struct xv_nbd_options options = {.size = SIZE};
    for (int i = 0; i < 16; i++)
        disks[i] = open_disk(server_at(port, NULL), options);
    check_open_fails(server_at(port, NULL), options, XVSA_ERR_BUSY);
    check_whole(disks[7]);
    ck_assert_uint_eq(xv_nbd_disk_missing(disks[7]), 0);
    /* What a full server refuses is told once the disk was read over the rest. */
    xv_disk_close(disks[15]);
    options.connections = 3;
    options.request_size = 4096;
    options.disk_name = "d";
    disks[15] = open_disk_when_free(server_at(port, NULL), &options);
    check_whole(disks[15]);
    ck_assert_uint_ge(xv_nbd_disk_missing(disks[15]), 1);
    for (int i = 0; i < 16; i++)
        xv_disk_close(disks[i]);
    drop_place(&place);
}
END_TEST

/* Server, TLS and relay for the tests of disturbances. */
struct disturbed {
    struct place place;
    struct relay relay;
    char *pem;
    struct xv_nbd_server server;
};

/* One request at a time, as pool servers do: with more threads, nbdkit 1.32 can abort when it loses a
 * client. */
static bool set_up(struct disturbed *it, bool tls, const char *parameters)
{
    char text[400];
    memset(it, 0, sizeof *it);
    if (skip_without("nbdkit"))
        return false;
    make_disk(&it->place);
    if (tls) {
        make_certificate(&it->place, "a");
        it->pem = read_text(&it->place, "a-cert.pem");
    }
    const char *filter = *parameters == '\0' ? "-t 1" : "-t 1 --filter=error";
    start_relay(&it->relay, start_nbdkit(&it->place, tls ? "a" : NULL,
                                         file_plugin(&it->place, text, filter, parameters)));
    it->server = server_at(it->relay.port, it->pem);
    return true;
}

static void tear_down(struct disturbed *it)
{
    stop_relay(&it->relay);
    free(it->pem);
    drop_place(&it->place);
}

static void disturb(struct relay *relay, int connections, uint64_t least, uint64_t most, bool stall)
{
    atomic_store(&relay->least, least);
    atomic_store(&relay->most, most);
    atomic_store(&relay->stall, stall);
    atomic_store(&relay->disturb, connections);
}

START_TEST(cut_connections_lose_nothing)
{
    struct disturbed it;
    if (!set_up(&it, _i % 2 == 1, ""))
        return;
    disturb(&it.relay, 10, 300000, 4 * MIB, false);
    struct xv_disk *disk = open_disk(
        it.server, (struct xv_nbd_options){.size = SIZE, .connections = 1 + (uint32_t)_i / 2});
    check_whole(disk);
    ck_assert_uint_gt(atomic_load(&it.relay.connections), 3);
    disturb(&it.relay, 1000, 300000, 4 * MIB, false);
    for (uint64_t at = 0; at + MIB < SIZE; at += MIB)
        check_read(disk, at + 13, 300000);
    xv_disk_close(disk);
    tear_down(&it);
}
END_TEST

START_TEST(other_servers_take_over)
{
    struct disturbed it;
    struct xv_disk *disk = NULL;
    xvsa_error *error = NULL;
    char text[400];
    if (!set_up(&it, false, ""))
        return;
    struct xv_nbd_server servers[3] = {server_at(free_port(), NULL), it.server, it.server};
    servers[2].port = start_nbdkit(&it.place, NULL, file_plugin(&it.place, text, "", ""));
    struct xv_nbd_options options = {.size = SIZE, .disk_name = "d"};
    /* The first refuses, the second is cut for ever after one connection, the third is sound. */
    disturb(&it.relay, 1, 5 * MIB, 5 * MIB, false);
    ck_ok(xv_nbd_disk_open(servers, 3, &options, NULL, &disk, &error), error);
    disturb(&it.relay, 1000, 0, 0, false);
    check_whole(disk);
    xv_disk_close(disk);
    tear_down(&it);
}
END_TEST

START_TEST(server_that_went_away_is_an_error)
{
    struct disturbed it;
    xvsa_error *error = NULL;
    if (!set_up(&it, false, ""))
        return;
    disturb(&it.relay, 1, 2 * MIB, 2 * MIB, false);
    struct xv_disk *disk = open_disk(it.server, (struct xv_nbd_options){.size = SIZE});
    disturb(&it.relay, 1000, 0, 0, false);
    struct xv_range all = {0, SIZE};
    struct xv_extents ranges = {.ranges = &all, .count = 1};
    int rc = stream(disk, &ranges, NULL, 0, &error);
    ck_assert(rc == XVSA_ERR_BUSY || rc == XVSA_ERR_NETWORK);
    ck_assert(xvsa_error_is_retryable(error));
    check_discreet(error);
    xv_error_clear(&error);
    ck_assert_uint_eq(atomic_load(&it.relay.connections), 6);
    xv_disk_close(disk);
    check_open_fails(it.server, (struct xv_nbd_options){.size = SIZE}, XVSA_ERR_BUSY);
    tear_down(&it);
}
END_TEST

START_TEST(silent_connection_is_replaced)
{
    struct disturbed it;
    if (!set_up(&it, _i == 1, ""))
        return;
    disturb(&it.relay, 2, MIB, 6 * MIB, true);
    struct xv_disk *disk =
        open_disk(it.server, (struct xv_nbd_options){.size = SIZE, .request_timeout_ms = 1500});
    check_whole(disk);
    xv_disk_close(disk);
    tear_down(&it);
}
END_TEST

static void *fire_soon(void *cancel)
{
    usleep(100000);
    xvsa_cancel_fire(cancel);
    return NULL;
}

START_TEST(cancellation_does_not_wait_for_a_silent_server)
{
    struct disturbed it;
    xvsa_error *error = NULL;
    xvsa_cancel *cancel = NULL;
    pthread_t thread;
    char byte[512];
    if (!set_up(&it, _i == 1, ""))
        return;
    disturb(&it.relay, 1, 3 * MIB, 3 * MIB, true);
    struct xv_disk *disk =
        open_disk(it.server, (struct xv_nbd_options){.size = SIZE, .request_timeout_ms = 600000});
    ck_ok(xvsa_cancel_new(&cancel, &error), error);
    struct xv_call call = {.cancel = cancel};
    pthread_create(&thread, NULL, fire_soon, cancel);
    struct xv_range all = {0, SIZE};
    struct xv_extents ranges = {.ranges = &all, .count = 1};
    if (_i == 1) /* with TLS there is a second connection, silenced as well */
        disturb(&it.relay, 1000, 3 * MIB, 3 * MIB, true);
    ck_fails(stream(disk, &ranges, &call, 0, &error), XVSA_ERR_CANCELLED, error);
    pthread_join(thread, NULL);
    ck_fails(xv_disk_read(disk, 0, byte, 512, &call, &error), XVSA_ERR_CANCELLED, error);
    xv_disk_close(disk);
    /* A server that accepts and says nothing. */
    disturb(&it.relay, 1000, 1, 1, true);
    struct xv_disk *none = NULL;
    call = (struct xv_call){.deadline_ms = xv_clock_ms() + 100};
    ck_fails(xv_nbd_disk_open(&it.server, 1, NULL, &call, &none, &error), XVSA_ERR_TIMEOUT, error);
    struct xv_nbd_options options = {.request_timeout_ms = 100};
    ck_fails(xv_nbd_disk_open(&it.server, 1, &options, NULL, &none, &error), XVSA_ERR_TIMEOUT,
             error);
    xvsa_cancel_unref(cancel);
    tear_down(&it);
}
END_TEST

START_TEST(stopped_queue_ends_a_stream)
{
    struct disturbed it;
    xvsa_error *error = NULL;
    if (!set_up(&it, false, ""))
        return;
    struct xv_disk *disk = open_disk(it.server, (struct xv_nbd_options){.size = SIZE});
    struct xv_range all = {0, SIZE};
    struct xv_extents ranges = {.ranges = &all, .count = 1};
    ck_fails(stream(disk, &ranges, NULL, 3, &error), XVSA_ERR_CANCELLED, error);
    check_whole(disk);
    xv_disk_close(disk);
    tear_down(&it);
}
END_TEST

START_TEST(read_errors_are_tried_again_and_reported)
{
    struct disturbed it;
    xvsa_error *error = NULL;
    uint8_t byte[512];
    if (!set_up(&it, false, "error-pread=EIO error-pread-rate=3%"))
        return;
    struct xv_disk *disk = open_disk(it.server, (struct xv_nbd_options){.size = SIZE});
    check_whole(disk);
    xv_disk_close(disk);
    tear_down(&it);
    if (!set_up(&it, false, "error-pread=EIO error-pread-rate=100%"))
        return;
    disk = open_disk(it.server, (struct xv_nbd_options){.size = SIZE});
    ck_fails(xv_disk_read(disk, 0, byte, 512, NULL, &error), XVSA_ERR_IO, error);
    xv_disk_close(disk);
    tear_down(&it);
}
END_TEST

START_TEST(sizes_are_checked)
{
    struct place place;
    char text[400];
    if (skip_without("nbdkit"))
        return;
    make_disk(&place);
    uint16_t port = start_nbdkit(&place, NULL, file_plugin(&place, text, "", ""));
    check_open_fails(server_at(port, NULL), (struct xv_nbd_options){.size = SIZE + 512},
                     XVSA_ERR_PROTOCOL);
    static const uint64_t sizes[] = {0, SIZE - 512, SIZE - 100, 10 * MIB + 1, 1};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct xv_disk *disk =
            open_disk(server_at(port, NULL), (struct xv_nbd_options){.size = sizes[i]});
        ck_assert_uint_eq(disk->size, sizes[i] == 0 ? SIZE : sizes[i]);
        check_whole(disk);
        check_read(disk, disk->size - 1, 1);
        xv_disk_close(disk);
    }
    drop_place(&place);
    make_disk(&place);
    shell("truncate -s 100100 %s/disk", place.folder);
    port = start_nbdkit(&place, NULL, file_plugin(&place, text, "", ""));
    struct xv_disk *disk =
        open_disk(server_at(port, NULL), (struct xv_nbd_options){.size = 100100});
    check_whole(disk);
    check_read(disk, 100000, 100);
    xv_disk_close(disk);
    drop_place(&place);
}
END_TEST

START_TEST(wrong_arguments_are_refused)
{
    struct xv_nbd_server server = server_at(1, NULL);
    struct xv_disk *disk = NULL;
    xvsa_error *error = NULL;
    check_open_fails(server, (struct xv_nbd_options){.connections = 17}, XVSA_ERR_INVALID);
    check_open_fails(server, (struct xv_nbd_options){.request_size = 1000}, XVSA_ERR_INVALID);
    check_open_fails(server, (struct xv_nbd_options){.in_flight = 5000}, XVSA_ERR_INVALID);
    check_open_fails(server, (struct xv_nbd_options){.request_timeout_ms = -1}, XVSA_ERR_INVALID);
    server.address = "host.example";
    check_open_fails(server, (struct xv_nbd_options){0}, XVSA_ERR_INVALID);
    server.address = "";
    check_open_fails(server, (struct xv_nbd_options){0}, XVSA_ERR_INVALID);
    ck_fails(xv_nbd_disk_open(NULL, 0, NULL, NULL, &disk, &error), XVSA_ERR_INVALID, error);
    ck_fails(xv_nbd_disk_open_uri("http://x/", NULL, NULL, &disk, &error), XVSA_ERR_INVALID, error);
}
END_TEST

static void *read_many(void *disk)
{
    unsigned seed = (unsigned)(uintptr_t)pthread_self();
    for (int i = 0; i < 60; i++) {
        uint64_t offset = (uint64_t)rand_r(&seed) % (SIZE - 200000);
        check_read(disk, offset, 1 + (size_t)rand_r(&seed) % 200000);
    }
    return NULL;
}

START_TEST(reads_of_several_threads)
{
    struct disturbed it;
    pthread_t threads[5];
    if (!set_up(&it, _i == 1, ""))
        return;
    struct xv_disk *disk =
        open_disk(it.server, (struct xv_nbd_options){.size = SIZE, .connections = 3});
    for (int i = 0; i < 5; i++)
        pthread_create(&threads[i], NULL, read_many, disk);
    for (int i = 0; i < 5; i++)
        pthread_join(threads[i], NULL);
    ck_assert_uint_le(atomic_load(&it.relay.connections), 3);
    xv_disk_close(disk);
    tear_down(&it);
}
END_TEST

static void make_sparse(const struct place *place)
{
    shell("truncate -s 0 %s/disk && truncate -s %u %s/disk", place->folder, SIZE, place->folder);
    char path[200];
    int fd = open(place_path(place, path, "disk"), O_WRONLY | O_CLOEXEC);
    memset(content, 0, sizeof content);
    for (uint64_t at = 3 * MIB; at < SIZE; at += 6 * MIB + 4096) {
        memset(content + at, 0x5a, 10000);
        ck_assert_int_eq(pwrite(fd, content + at, 10000, (off_t)at), 10000);
    }
    close(fd);
}

static void check_map(const char *uri)
{
    struct xv_disk *disk = NULL;
    xvsa_error *error = NULL;
    struct xv_extents map;
    xv_extents_init(&map);
    ck_ok(xv_nbd_disk_open_uri(uri, NULL, NULL, &disk, &error), error);
    ck_assert_uint_eq(disk->size, SIZE);
    ck_ok(xv_disk_allocated(disk, &map, NULL, &error), error);
    ck_assert_uint_lt(xv_extents_bytes(&map), 2 * MIB);
    check_stream(disk, &map);
    for (size_t i = 0; i < SIZE; i++) {
        if (image[i] != content[i])
            ck_abort_msg("byte %zu is not in the map", i);
    }
    xv_extents_free(&map);
    xv_disk_close(disk);
}

START_TEST(uri_gives_the_map)
{
    struct place place;
    char path[200], ready[200], command[900], uri[300], text[400];
    struct xv_disk *disk = NULL;
    struct xv_extents map;
    xvsa_error *error = NULL;
    if (skip_without("nbdkit") || skip_without("qemu-nbd"))
        return;
    make_disk(&place);
    make_sparse(&place);
    place_path(&place, path, "socket");
    /* The socket is there before it is listened at, the other file is not. */
    place_path(&place, ready, "qemu-nbd.pid");
    snprintf(command, sizeof command,
             "qemu-nbd -r -t -e 8 -f raw -x '' -k %s --pid-file=%s %s/disk", path, ready,
             place.folder);
    wait_for_file(start_server(&place, command), ready);
    snprintf(uri, sizeof uri, "nbd+unix:///?socket=%s", path);
    check_map(uri);
    snprintf(uri, sizeof uri, "nbd://127.0.0.1:%u/",
             start_nbdkit(&place, NULL, file_plugin(&place, text, "", "")));
    check_map(uri);
    snprintf(uri, sizeof uri, "nbd://127.0.0.1:%u/",
             start_nbdkit(&place, NULL, file_plugin(&place, text, "--no-sr", "")));
    xv_extents_init(&map);
    ck_ok(xv_nbd_disk_open_uri(uri, NULL, NULL, &disk, &error), error);
    ck_fails(xv_disk_allocated(disk, &map, NULL, &error), XVSA_ERR_UNSUPPORTED, error);
    check_whole(disk);
    xv_disk_close(disk);
    struct xv_nbd_options tls = {.require_tls = true};
    ck_fails(xv_nbd_disk_open_uri(uri, &tls, NULL, &disk, &error), XVSA_ERR_TLS, error);
    drop_place(&place);
}
END_TEST

static void fill(Suite *suite)
{
    TCase *tests = tcase_create("nbd");
    tcase_set_timeout(tests, TIMEOUT);
    tcase_add_test(tests, plain_server_is_read);
    tcase_add_test(tests, tls_server_is_read);
    tcase_add_test(tests, only_the_announced_certificate_is_trusted);
    tcase_add_loop_test(tests, pool_server_is_read, 0, 2);
    tcase_add_test(tests, full_server_is_busy);
    tcase_add_loop_test(tests, cut_connections_lose_nothing, 0, 4);
    tcase_add_test(tests, other_servers_take_over);
    tcase_add_test(tests, server_that_went_away_is_an_error);
    tcase_add_loop_test(tests, silent_connection_is_replaced, 0, 2);
    tcase_add_loop_test(tests, cancellation_does_not_wait_for_a_silent_server, 0, 2);
    tcase_add_test(tests, stopped_queue_ends_a_stream);
    tcase_add_test(tests, read_errors_are_tried_again_and_reported);
    tcase_add_test(tests, sizes_are_checked);
    tcase_add_test(tests, wrong_arguments_are_refused);
    tcase_add_loop_test(tests, reads_of_several_threads, 0, 2);
    tcase_add_test(tests, uri_gives_the_map);
    suite_add_tcase(suite, tests);
}

UNIT_MAIN("nbd")
