/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Sessions: what is written comes back, what is the same is not stored again.
 */
#include "repo_kit.h"

#include "diff/extents.h"

#define DISK (40 * KIT_CHUNK)

START_TEST(full_point_comes_back)
{
    struct kit kit = kit_new(true);
    size_t length = 300 * KIT_CHUNK + 5120;
    uint8_t *data = calloc(1, length);
    char id[XV_POINT_ID_LENGTH + 1];
    kit_fill(data, 20 * KIT_CHUNK, 1);
    kit_fill(data + 150 * KIT_CHUNK, 30 * KIT_CHUNK, 2);
    kit_fill(data + 290 * KIT_CHUNK, 10 * KIT_CHUNK + 5120, 3);
    kit_store(&kit, "pool/vm-1", data, length, id);
    kit_expect(&kit, id, 0, data, length);
    kit_reopen(&kit);
    kit_expect(&kit, id, 0, data, length);
    kit_expect(&kit, "latest:web", 0, data, length);
    free(data);
    kit_free(&kit);
}
END_TEST

START_TEST(increment_keeps_and_compares)
{
    struct kit kit = kit_new(false);
    uint8_t *data = malloc(DISK);
    char first[XV_POINT_ID_LENGTH + 1], second[XV_POINT_ID_LENGTH + 1];
    kit_fill(data, DISK, 7);
    kit_store(&kit, "pool/vm-1", data, DISK, first);
    struct xv_point *base = kit_find(&kit, first);
    struct xv_session *session = kit_begin(&kit, "pool/vm-1", base);
    ck_assert_ptr_eq(xv_session_base(session), base);
    xvsa_error *error = NULL;
    struct xv_disk_writer *writer = NULL;
    ck_ok(xv_session_add_disk(session, "vdi-1", "0", DISK, 0, NULL, &writer, &error), error);
    struct xv_extents kept;
    xv_extents_init(&kept);
    ck_ok(xv_extents_add(&kept, 0, 10 * KIT_CHUNK, &error), error);
    ck_ok(xv_extents_add(&kept, 12 * KIT_CHUNK, DISK - 12 * KIT_CHUNK, &error), error);
    ck_ok(xv_disk_writer_keep(writer, &kept, NULL, &error), error);
    kit_fill(data + 10 * KIT_CHUNK, KIT_CHUNK, 99);
    kit_put(session, writer, 10 * KIT_CHUNK, data + 10 * KIT_CHUNK, 2 * KIT_CHUNK);
    bool same = false;
    ck_ok(xv_disk_writer_matches_base(writer, 11 * KIT_CHUNK, data + 11 * KIT_CHUNK, KIT_CHUNK, NULL,
                                      &same, &error), error);
    ck_assert(same);
    ck_ok(xv_disk_writer_matches_base(writer, 10 * KIT_CHUNK, data + 10 * KIT_CHUNK, 2 * KIT_CHUNK,
                                      NULL, &same, &error), error);
    ck_assert(!same);
    ck_ok(xv_disk_writer_finish(writer, "{}", NULL, &error), error);
    struct xv_store_stats stats;
    xv_disk_writer_stats(writer, &stats);
    ck_assert_uint_eq(stats.bytes_kept, DISK - 2 * KIT_CHUNK);
    ck_assert_uint_eq(stats.bytes_same, KIT_CHUNK);
    ck_assert_uint_eq(stats.bytes_new, KIT_CHUNK);
    kit_commit(session, second);
    xv_session_free(session);
    xv_point_unref(base);
    xv_extents_free(&kept);
    kit_expect(&kit, second, 0, data, DISK);
    free(data);
    kit_free(&kit);
}
END_TEST

static void fill(Suite *suite)
{
    TCase *tests = tcase_create("session");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, full_point_comes_back);
    tcase_add_test(tests, increment_keeps_and_compares);
    suite_add_tcase(suite, tests);
}

UNIT_MAIN("repo_session")
