/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Units: how a disk is cut for several processes, and how specs of jobs ask for repetitions and limits.
 */
#include "unit.h"

#include <string.h>

#include "job/share.h"

#define CHUNK 65536u

static void add(struct xv_extents *set, uint64_t chunk, uint64_t chunks)
{
    xvsa_error *error = NULL;
    ck_ok(xv_extents_add(set, chunk * CHUNK, chunks * CHUNK, &error), error);
}

/* All units together are the set, each byte once, in order. */
static void check_units(const struct xv_extents *read, uint64_t unit_bytes)
{
    struct xv_extents sum;
    xvsa_error *error = NULL;
    uint64_t bytes = 0;
    uint64_t last = 0;
    xv_extents_init(&sum);
    uint32_t count = xv_units_count(read, unit_bytes, CHUNK);
    for (uint32_t i = 0; i < count; i++) {
        struct xv_extents slice;
        xv_extents_init(&slice);
        ck_ok(xv_units_slice(read, unit_bytes, CHUNK, i, &slice, &error), error);
        ck_assert_uint_gt(slice.count, 0);
        ck_assert_uint_ge(slice.ranges[0].offset, last);
        for (size_t j = 0; j < slice.count; j++) {
            ck_assert_uint_eq(slice.ranges[j].offset % CHUNK, 0);
            ck_ok(xv_extents_add(&sum, slice.ranges[j].offset, slice.ranges[j].length, &error),
                  error);
            last = slice.ranges[j].offset + slice.ranges[j].length;
        }
        bytes += xv_extents_bytes(&slice);
        if (i + 1 < count)
            ck_assert_uint_ge(xv_extents_bytes(&slice), unit_bytes);
        xv_extents_free(&slice);
    }
    ck_assert_uint_eq(bytes, xv_extents_bytes(read));
    ck_assert_uint_eq(sum.count, read->count);
    ck_assert_int_eq(memcmp(sum.ranges, read->ranges, sum.count * sizeof *sum.ranges), 0);
    xv_extents_free(&sum);
}

START_TEST(units_cover_a_set_once)
{
    struct xv_extents read;
    xvsa_error *error = NULL;
    xv_extents_init(&read);
    uint64_t at = 0;
    for (unsigned i = 0; i < 200; i++) {
        at += 1 + i * 7 % 5;
        add(&read, at, 1 + i * 13 % 11);
        at += 1 + i * 13 % 11;
    }
    /* The disk ends in the middle of a chunk. */
    ck_ok(xv_extents_add(&read, (at + 2) * CHUNK, 512, &error), error);
    for (uint64_t unit = 1; unit < 400; unit += 7) {
        check_units(&read, unit * CHUNK);
        check_units(&read, unit * CHUNK - 1);
    }
    check_units(&read, UINT64_MAX / 4);
    ck_assert_uint_eq(xv_units_count(&read, UINT64_MAX / 4, CHUNK), 1);
    xv_extents_free(&read);
}
END_TEST

START_TEST(a_unit_that_is_not_there_is_refused)
{
    struct xv_extents read;
    struct xv_extents slice;
    xvsa_error *error = NULL;
    xv_extents_init(&read);
    xv_extents_init(&slice);
    ck_assert_uint_eq(xv_units_count(&read, CHUNK, CHUNK), 0);
    ck_fails(xv_units_slice(&read, CHUNK, CHUNK, 0, &slice, &error), XVSA_ERR_INVALID, error);
    add(&read, 0, 10);
    ck_assert_uint_eq(xv_units_count(&read, 3 * CHUNK, CHUNK), 4);
    ck_fails(xv_units_slice(&read, 3 * CHUNK, CHUNK, 4, &slice, &error), XVSA_ERR_INVALID, error);
    /* Sizes without sense become a chunk. */
    ck_assert_uint_eq(xv_units_count(&read, 0, CHUNK), 10);
    xv_extents_free(&read);
    xv_extents_free(&slice);
}
END_TEST

static struct xv_spec *read_spec(const char *text)
{
    struct xv_spec *spec = NULL;
    xvsa_error *error = NULL;
    ck_ok(xv_spec_read(text, &spec, &error), error);
    return spec;
}

START_TEST(specs_ask_for_repetitions_and_limits)
{
    struct xv_spec *spec =
        read_spec("{\"type\":\"backup\",\"selection\":{\"vms\":[{\"all\":true}]}}");
    ck_assert_int_eq(spec->retry_attempts, 1);
    ck_assert_int_eq(spec->time_limit_ms, 0);
    ck_assert_int_eq(spec->priority, 0);
    xv_spec_free(spec);
    spec = read_spec("{\"type\":\"backup\",\"only_failed_of\":\"x\",\"time_limit_ms\":60000,"
                     "\"retry\":{\"attempts\":4,\"delay_ms\":0},\"priority\":-100}");
    ck_assert_ptr_nonnull(spec->selection);
    ck_assert_str_eq(spec->only_failed_of, "x");
    ck_assert_int_eq(spec->retry_attempts, 4);
    ck_assert_int_eq(spec->retry_delay_ms, 0);
    ck_assert_int_eq(spec->time_limit_ms, 60000);
    ck_assert_int_eq(spec->priority, -100);
    xv_spec_free(spec);
    spec = read_spec("{\"type\":\"restore\",\"only_failed_of\":\"x\"}");
    ck_assert_ptr_null(spec->points);
    xv_spec_free(spec);
}
END_TEST

START_TEST(wrong_specs_are_refused)
{
    static const char *const wrong[] = {
        "{\"type\":\"backup\"}",
        "{\"type\":\"restore\"}",
        "{\"type\":\"verify\",\"retry\":{\"attempts\":2}}",
        "{\"type\":\"verify\",\"priority\":101}",
        "{\"type\":\"verify\",\"time_limit_ms\":0}",
        "{\"type\":\"backup\",\"only_failed_of\":\"x\",\"retry\":{\"attempts\":0}}",
        "{\"type\":\"backup\",\"only_failed_of\":\"x\",\"retry\":{\"delay\":1}}",
        "{\"type\":\"backup\",\"only_failed_of\":1}",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct xv_spec *spec = NULL;
        xvsa_error *error = NULL;
        ck_fails(xv_spec_read(wrong[i], &spec, &error), XVSA_ERR_INVALID, error);
    }
}
END_TEST

static void fill(Suite *suite)
{
    TCase *units = tcase_create("units");
    tcase_add_test(units, units_cover_a_set_once);
    tcase_add_test(units, a_unit_that_is_not_there_is_refused);
    suite_add_tcase(suite, units);
    TCase *specs = tcase_create("specs");
    tcase_add_test(specs, specs_ask_for_repetitions_and_limits);
    tcase_add_test(specs, wrong_specs_are_refused);
    suite_add_tcase(suite, specs);
}

UNIT_MAIN("share")
