/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Trees: huge and odd sizes, nodes that come and go while a disk is written, keeping from the base.
 */
#include "repo_kit.h"

#include "diff/extents.h"
#include "repo/session.h"

static struct xv_disk_writer *add_disk(struct xv_session *session, uint64_t size, int base)
{
    struct xv_disk_writer *writer = NULL;
    xvsa_error *error = NULL;
    ck_ok(xv_session_add_disk(session, "vdi-1", "0", size, base, NULL, &writer, &error), error);
    return writer;
}

static void keep(struct xv_disk_writer *writer, uint64_t offset, uint64_t length)
{
    struct xv_extents ranges;
    xvsa_error *error = NULL;
    xv_extents_init(&ranges);
    ck_ok(xv_extents_add(&ranges, offset, length, &error), error);
    ck_ok(xv_disk_writer_keep(writer, &ranges, NULL, &error), error);
    xv_extents_free(&ranges);
}

static void finish(struct xv_session *session, struct xv_disk_writer *writer, char *id)
{
    xvsa_error *error = NULL;
    ck_ok(xv_disk_writer_finish(writer, "{}", NULL, &error), error);
    kit_commit(session, id);
    xv_session_free(session);
}

static struct xv_disk *open_point(struct kit *kit, const char *id)
{
    struct xv_point *point = kit_find(kit, id);
    struct xv_disk *disk = NULL;
    xvsa_error *error = NULL;
    ck_ok(xv_point_open_disk(point, 0, NULL, &disk, &error), error);
    xv_point_unref(point);
    return disk;
}

static void expect_at(struct xv_disk *disk, uint64_t offset, const uint8_t *data, size_t length)
{
    uint8_t *back = malloc(length + 1);
    xvsa_error *error = NULL;
    ck_ok(xv_disk_read(disk, offset, back, length, NULL, &error), error);
    ck_assert(memcmp(back, data, length) == 0);
    free(back);
}

static void expect_clean(struct kit *kit)
{
    struct xv_verify_options options = {0};
    struct xv_verify_result result;
    xvsa_error *error = NULL;
    ck_ok(xv_repo_verify(kit->repo, &options, NULL, &result, &error), error);
    ck_assert_uint_eq(result.faults, 0);
}

START_TEST(huge_disk_needs_little)
{
    struct kit kit = kit_new(false);
    uint64_t size = (16ull << 40) - 512;
    uint8_t data[KIT_CHUNK];
    uint8_t zeros[KIT_CHUNK] = {0};
    char first[XV_POINT_ID_LENGTH + 1], second[XV_POINT_ID_LENGTH + 1];
    uint64_t last = (16ull << 40) - KIT_CHUNK;
    kit_fill(data, sizeof data, 1);
    struct xv_session *session = kit_begin(&kit, "k", NULL);
    struct xv_disk_writer *writer = add_disk(session, size, -1);
    kit_put(session, writer, 0, data, KIT_CHUNK);
    kit_put(session, writer, 5ull << 40, data, KIT_CHUNK);
    kit_put(session, writer, last, data, KIT_CHUNK - 512);
    finish(session, writer, first);
    struct xv_disk *disk = open_point(&kit, first);
    expect_at(disk, 0, data, KIT_CHUNK);
    expect_at(disk, 5ull << 40, data, KIT_CHUNK);
    expect_at(disk, last, data, KIT_CHUNK - 512);
    expect_at(disk, 9ull << 40, zeros, KIT_CHUNK);
    struct xv_extents allocated;
    xvsa_error *error = NULL;
    xv_extents_init(&allocated);
    ck_ok(xv_disk_allocated(disk, &allocated, NULL, &error), error);
    ck_assert_uint_eq(allocated.count, 3);
    ck_assert_uint_eq(xv_extents_bytes(&allocated), 3 * KIT_CHUNK - 512);
    xv_extents_free(&allocated);
    xvsa_extent extents[8];
    uint32_t count = 0;
    ck_ok(xv_point_disk_extents(disk, 0, size, extents, 8, &count, NULL, &error), error);
    ck_assert_uint_eq(count, 5);
    ck_assert_uint_eq(extents[4].offset, last);
    ck_assert_uint_eq(extents[1].kind, XVSA_EXTENT_HOLE);
    xv_disk_close(disk);

    /* An increment touches only the way to what changed. */
    struct xv_point *base = kit_find(&kit, first);
    session = kit_begin(&kit, "k", base);
    writer = add_disk(session, size, 0);
    keep(writer, 0, 9ull << 40);
    keep(writer, (9ull << 40) + KIT_CHUNK, size - (9ull << 40) - KIT_CHUNK);
    kit_put(session, writer, 9ull << 40, data, KIT_CHUNK);
    finish(session, writer, second);
    xv_point_unref(base);
    disk = open_point(&kit, second);
    expect_at(disk, 9ull << 40, data, KIT_CHUNK);
    expect_at(disk, 5ull << 40, data, KIT_CHUNK);
    expect_at(disk, last, data, KIT_CHUNK - 512);
    xv_disk_close(disk);
    expect_clean(&kit);
    kit_free(&kit);
}
END_TEST

START_TEST(nodes_come_back_when_touched_again)
{
    /* More leaves than are kept in memory, in two passes over the disk. */
    enum { LEAVES = 1500 };
    struct kit kit = kit_new(false);
    uint64_t leaf = 128ull * KIT_CHUNK;
    uint8_t data[KIT_CHUNK];
    uint8_t other[KIT_CHUNK];
    char id[XV_POINT_ID_LENGTH + 1];
    xvsa_error *error = NULL;
    kit_fill(data, sizeof data, 1);
    kit_fill(other, sizeof other, 2);
    struct xv_session *session = kit_begin(&kit, "k", NULL);
    struct xv_disk_writer *writer = add_disk(session, LEAVES * leaf, -1);
    struct xv_packer *packer = NULL;
    ck_ok(xv_packer_new(session, &packer, &error), error);
    for (int pass = 0; pass < 2; pass++) {
        for (uint64_t i = 0; i < LEAVES; i++)
            ck_ok(xv_packer_put(packer, writer, i * leaf + (pass == 0 ? 0 : 64 * KIT_CHUNK),
                                pass == 0 ? data : other, KIT_CHUNK, NULL, &error),
                  error);
        ck_ok(xv_packer_flush(packer, NULL, &error), error);
    }
    xv_packer_free(packer);
    finish(session, writer, id);
    struct xv_disk *disk = open_point(&kit, id);
    for (uint64_t i = 0; i < LEAVES; i += 7) {
        expect_at(disk, i * leaf, data, KIT_CHUNK);
        expect_at(disk, i * leaf + 64 * KIT_CHUNK, other, KIT_CHUNK);
    }
    xv_disk_close(disk);
    expect_clean(&kit);
    kit_free(&kit);
}
END_TEST

/* Writes a disk of one size, then one of another that keeps what it can. */
static void resize(uint64_t from, uint64_t to)
{
    struct kit kit = kit_new(false);
    uint64_t most = from > to ? from : to;
    uint8_t *data = calloc(1, most);
    char first[XV_POINT_ID_LENGTH + 1], second[XV_POINT_ID_LENGTH + 1];
    kit_fill(data, from, 3);
    kit_store(&kit, "k", data, from, first);
    struct xv_point *base = kit_find(&kit, first);
    struct xv_session *session = kit_begin(&kit, "k", base);
    struct xv_disk_writer *writer = add_disk(session, to, 0);
    bool cut = to < from && to % KIT_CHUNK != 0;
    uint64_t whole = cut ? to / KIT_CHUNK * KIT_CHUNK : to;
    if (whole > 0)
        keep(writer, 0, whole);
    if (cut)
        kit_put(session, writer, whole, data + whole, to - whole);
    finish(session, writer, second);
    xv_point_unref(base);
    kit_expect(&kit, first, 0, data, from);
    kit_expect(&kit, second, 0, data, to);
    expect_clean(&kit);
    free(data);
    kit_free(&kit);
}

START_TEST(disks_grow_and_shrink)
{
    resize(10 * KIT_CHUNK, 300 * KIT_CHUNK);
    resize(10 * KIT_CHUNK - 512, 300 * KIT_CHUNK - 1024);
    resize(128 * KIT_CHUNK, 128 * KIT_CHUNK + 512);
    resize(200 * KIT_CHUNK, 100 * KIT_CHUNK);
    resize(200 * KIT_CHUNK, 130 * KIT_CHUNK + 512);
    resize(512, 1024);
    resize(1024, 512);
}
END_TEST

START_TEST(unchanged_disk_writes_no_node)
{
    struct kit kit = kit_new(false);
    size_t size = 300 * KIT_CHUNK;
    uint8_t *data = malloc(size);
    char first[XV_POINT_ID_LENGTH + 1], second[XV_POINT_ID_LENGTH + 1];
    kit_fill(data, size, 3);
    kit_store(&kit, "k", data, size, first);
    struct xv_point *base = kit_find(&kit, first);
    struct xv_session *session = kit_begin(&kit, "k", base);
    struct xv_disk_writer *writer = add_disk(session, size, 0);
    kit_put(session, writer, 0, data, size);
    finish(session, writer, second);
    struct xv_point *point = kit_find(&kit, second);
    ck_assert(memcmp(&base->disks[0].root, &point->disks[0].root, sizeof base->disks[0].root) == 0);
    ck_assert_uint_eq(point->disks[0].stats.bytes_new, 0);
    xv_point_unref(point);
    xv_point_unref(base);
    free(data);
    kit_free(&kit);
}
END_TEST

START_TEST(empty_and_zero_disks)
{
    struct kit kit = kit_new(false);
    char id[XV_POINT_ID_LENGTH + 1];
    xvsa_error *error = NULL;
    struct xv_session *session = kit_begin(&kit, "k", NULL);
    uint8_t *zeros = calloc(1, 200 * KIT_CHUNK);
    struct xv_disk_writer *empty = add_disk(session, 0, -1);
    struct xv_disk_writer *hole = add_disk(session, 200 * KIT_CHUNK, -1);
    struct xv_disk_writer *zero = add_disk(session, 128 * KIT_CHUNK, -1);
    kit_put(session, zero, 0, zeros, 128 * KIT_CHUNK);
    ck_ok(xv_disk_writer_finish(empty, NULL, NULL, &error), error);
    ck_ok(xv_disk_writer_finish(hole, NULL, NULL, &error), error);
    ck_ok(xv_disk_writer_finish(zero, NULL, NULL, &error), error);
    kit_commit(session, id);
    xv_session_free(session);
    kit_expect(&kit, id, 0, zeros, 0);
    kit_expect(&kit, id, 1, zeros, 200 * KIT_CHUNK);
    kit_expect(&kit, id, 2, zeros, 128 * KIT_CHUNK);
    struct xv_point *point = kit_find(&kit, id);
    ck_assert_uint_eq(point->disks[1].root.kind, XV_KIND_HOLE);
    ck_assert_uint_eq(point->disks[2].root.kind, XV_KIND_ZERO);
    xv_point_unref(point);
    expect_clean(&kit);
    free(zeros);
    kit_free(&kit);
}
END_TEST

static void fill(Suite *suite)
{
    TCase *tests = tcase_create("tree");
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, huge_disk_needs_little);
    tcase_add_test(tests, nodes_come_back_when_touched_again);
    tcase_add_test(tests, disks_grow_and_shrink);
    tcase_add_test(tests, unchanged_disk_writes_no_node);
    tcase_add_test(tests, empty_and_zero_disks);
    suite_add_tcase(suite, tests);
}

UNIT_MAIN("repo_tree")
