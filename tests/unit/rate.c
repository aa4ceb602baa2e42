/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The token bucket: never faster than its rate, cancelled at once, and streams that keep to it.
 */
#include "unit.h"

#include <string.h>

#include "base/thread.h"
#include "job/rate.h"
#include "sched/window.h"

#define MIB   (UINT64_C(1) << 20)
#define BLOCK (64u << 10)

static struct xv_rate *new_rate(uint64_t limit)
{
    struct xv_rate *rate = NULL;
    xvsa_error *error = NULL;
    ck_ok(xv_rate_new(&rate, &error), error);
    xv_rate_set(rate, limit);
    return rate;
}

START_TEST(no_limit_never_waits)
{
    struct xv_rate *rate = new_rate(XV_RATE_UNLIMITED);
    const struct xv_call past = {.deadline_ms = 1};
    xvsa_error *error = NULL;
    for (int i = 0; i < 1000; i++)
        ck_ok(xv_rate_take(rate, UINT64_MAX / 2048, &past, &error), error);
    ck_ok(xv_rate_take(NULL, 1, &past, &error), error);
    ck_assert_uint_ne(xv_rate_demand(rate), XV_RATE_UNLIMITED);
    xv_rate_unref(rate);
}
END_TEST

START_TEST(never_faster_than_the_rate)
{
    struct xv_rate *rate = new_rate(10 * MIB);
    const struct xv_call call = {0};
    xvsa_error *error = NULL;
    int64_t begun = xv_clock_ms();
    for (int i = 0; i < 9; i++)
        ck_ok(xv_rate_take(rate, MIB / 2, &call, &error), error);
    /* The first piece needs no wait, and a quarter of a second may have been saved up. */
    ck_assert_int_ge(xv_clock_ms() - begun, 400 - 250);
    ck_assert_uint_eq(xv_rate_demand(rate), XV_RATE_UNLIMITED);
    ck_assert_uint_eq(xv_rate_demand(rate), 0);
    xv_rate_unref(rate);
}
END_TEST

START_TEST(nothing_moves_at_rate_zero)
{
    struct xv_rate *rate = new_rate(0);
    xvsa_cancel *cancel = NULL;
    xvsa_error *error = NULL;
    ck_ok(xvsa_cancel_new(&cancel, &error), error);
    const struct xv_call brief = {.cancel = cancel, .deadline_ms = xv_clock_ms() + 50};
    ck_fails(xv_rate_take(rate, 1, &brief, &error), XVSA_ERR_TIMEOUT, error);
    xvsa_cancel_fire(cancel);
    const struct xv_call call = {.cancel = cancel};
    ck_fails(xv_rate_take(rate, 1, &call, &error), XVSA_ERR_CANCELLED, error);
    xvsa_cancel_unref(cancel);
    xv_rate_unref(rate);
}
END_TEST

static void *lift(void *argument)
{
    const struct xv_call call = {0};
    int rc = xv_call_sleep(&call, 20, "test", "waiting", NULL);
    xv_rate_set(argument, rc == 0 ? XV_RATE_UNLIMITED : 1);
    return NULL;
}

START_TEST(a_higher_rate_wakes_who_waits)
{
    struct xv_rate *rate = new_rate(0);
    pthread_t thread;
    xvsa_error *error = NULL;
    ck_ok(xv_thread_start("lift", false, lift, rate, &thread, &error), error);
    const struct xv_call call = {0};
    ck_ok(xv_rate_take(rate, MIB, &call, &error), error);
    pthread_join(thread, NULL);
    xv_rate_unref(rate);
}
END_TEST

/* ---- streams ---- */

static int read_pattern(struct xv_disk *disk, uint64_t offset, void *data, size_t length,
                        const struct xv_call *call, xvsa_error **error)
{
    (void)disk;
    (void)call;
    (void)error;
    memset(data, (int)(offset / BLOCK % 251), length);
    return 0;
}

static const struct xv_disk_ops patterned = {.transport = "file", .read = read_pattern};

static void *drain(void *argument)
{
    struct xv_block_queue *queue = argument;
    struct xv_extents *seen = calloc(1, sizeof *seen);
    struct xv_block *block;
    while (seen != NULL && (block = xv_block_queue_pop(queue, NULL)) != NULL) {
        bool right = block->data[0] == (uint8_t)(block->offset / BLOCK % 251);
        if (!right || xv_extents_add(seen, block->offset, block->length, NULL) != 0)
            abort();
        xv_block_queue_release(queue, block);
    }
    return seen;
}

/* What comes through is what was asked for, each byte once, whatever the rate. */
static void check_stream(uint64_t limit, const struct xv_extents *ranges)
{
    struct xv_rate *rate = new_rate(limit);
    struct xv_disk disk = {&patterned, 64 * MIB};
    struct xv_block_queue *queue = NULL;
    xvsa_error *error = NULL;
    pthread_t thread;
    void *result = NULL;
    ck_ok(xv_block_queue_new(4, BLOCK, &queue, &error), error);
    ck_ok(xv_thread_start("drain", false, drain, queue, &thread, &error), error);
    const struct xv_call call = {0};
    ck_ok(xv_rate_stream(rate, &disk, ranges, queue, NULL, &call, &error), error);
    xv_block_queue_close(queue);
    pthread_join(thread, &result);
    struct xv_extents *seen = result;
    ck_assert_ptr_nonnull(seen);
    ck_assert_uint_eq(seen->count, ranges->count);
    for (size_t i = 0; i < seen->count; i++) {
        ck_assert_uint_eq(seen->ranges[i].offset, ranges->ranges[i].offset);
        ck_assert_uint_eq(seen->ranges[i].length, ranges->ranges[i].length);
    }
    xv_extents_free(seen);
    free(seen);
    xv_block_queue_free(queue);
    xv_rate_unref(rate);
}

START_TEST(streams_are_whole)
{
    static const struct xv_range some[] = {
        {0, BLOCK}, {3 * BLOCK, 40 * BLOCK}, {5 * MIB, 7 * MIB}, {63 * MIB, MIB - 512}};
    struct xv_extents ranges;
    xvsa_error *error = NULL;
    xv_extents_init(&ranges);
    check_stream(XV_RATE_UNLIMITED, &ranges);
    for (size_t i = 0; i < sizeof some / sizeof some[0]; i++)
        ck_ok(xv_extents_add(&ranges, some[i].offset, some[i].length, &error), error);
    check_stream(XV_RATE_UNLIMITED, &ranges);
    check_stream(100 * MIB, &ranges);
    check_stream(2000 * MIB, &ranges);
    xv_extents_free(&ranges);
}
END_TEST

static void fill(Suite *suite)
{
    TCase *tests = tcase_create("rate");
    tcase_add_test(tests, no_limit_never_waits);
    tcase_add_test(tests, never_faster_than_the_rate);
    tcase_add_test(tests, nothing_moves_at_rate_zero);
    tcase_add_test(tests, a_higher_rate_wakes_who_waits);
    tcase_add_test(tests, streams_are_whole);
    suite_add_tcase(suite, tests);
}

UNIT_MAIN("rate")
