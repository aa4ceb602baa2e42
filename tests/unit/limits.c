/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "unit.h"

#include <string.h>

#include "job/limits.h"

#define AT(day, hour) ((day)*1440u + (hour)*60u)

static struct xv_job_limits read_limits(const char *text)
{
    struct xv_job_limits limits;
    xvsa_error *error = NULL;
    json_t *json = json_loads(text, 0, NULL);
    ck_assert_ptr_nonnull(json);
    ck_ok(xv_job_limits_read(json, "job.limits", &limits, &error), error);
    json_decref(json);
    return limits;
}

START_TEST(nothing_said_limits_nothing)
{
    struct xv_job_limits limits = read_limits("{}");
    ck_assert(xv_windows_at(&limits.windows, 77).open);
    ck_assert_uint_eq(xv_curve_at(&limits.rate, 77).rate, XV_RATE_UNLIMITED);
    ck_assert_uint_eq(limits.limits.job_vms, 0);
    xv_job_limits_free(&limits);
    xvsa_error *error = NULL;
    ck_ok(xv_job_limits_read(NULL, "job.limits", &limits, &error), error);
    ck_assert(xv_windows_at(&limits.windows, 77).open);
    xv_job_limits_free(&limits);
}
END_TEST

START_TEST(windows_are_nights)
{
    struct xv_job_limits limits =
        read_limits("{\"windows\": [{\"days\": [\"mon\", \"sun\"], \"from\": \"22:00\", \"to\": "
                    "\"06:00\"}, {\"days\": [\"wed\"]}]}");
    ck_assert(!xv_windows_at(&limits.windows, AT(0, 21)).open);
    ck_assert(xv_windows_at(&limits.windows, AT(0, 22)).open);
    ck_assert(xv_windows_at(&limits.windows, AT(1, 5)).open);
    ck_assert(!xv_windows_at(&limits.windows, AT(1, 6)).open);
    ck_assert(xv_windows_at(&limits.windows, AT(2, 0)).open);
    ck_assert_uint_eq(xv_windows_at(&limits.windows, AT(2, 0)).minutes, 1440);
    ck_assert(xv_windows_at(&limits.windows, AT(6, 23)).open);
    ck_assert(xv_windows_at(&limits.windows, AT(0, 5)).open);
    xv_job_limits_free(&limits);
}
END_TEST

START_TEST(the_lowest_rate_holds)
{
    struct xv_job_limits limits = read_limits(
        "{\"rate\": 500, \"vms\": 3, \"sr_transfers\": 4, \"host_connections\": 8, \"rates\": "
        "[{\"from\": \"08:00\", \"to\": \"18:00\", \"rate\": 100}, "
        "{\"days\": [\"fri\"], \"from\": \"17:00\", \"to\": \"20:00\", \"rate\": 0}]}");
    ck_assert_uint_eq(limits.limits.job_vms, 3);
    ck_assert_uint_eq(limits.limits.sr_transfers, 4);
    ck_assert_uint_eq(limits.limits.host_connections, 8);
    ck_assert_uint_eq(xv_curve_at(&limits.rate, AT(0, 7)).rate, 500);
    ck_assert_uint_eq(xv_curve_at(&limits.rate, AT(0, 7)).minutes, 60);
    ck_assert_uint_eq(xv_curve_at(&limits.rate, AT(3, 8)).rate, 100);
    ck_assert_uint_eq(xv_curve_at(&limits.rate, AT(4, 17)).rate, 0);
    ck_assert_uint_eq(xv_curve_at(&limits.rate, AT(4, 19)).rate, 0);
    ck_assert_uint_eq(xv_curve_at(&limits.rate, AT(4, 20)).rate, 500);
    xv_job_limits_free(&limits);
}
END_TEST

START_TEST(nonsense_is_refused)
{
    static const char *const texts[] = {
        "{\"window\": []}",
        "{\"vms\": 0}",
        "{\"host_connections\": 17}",
        "{\"rate\": -1}",
        "{\"windows\": [{\"from\": \"25:00\"}]}",
        "{\"windows\": [{\"from\": \"2:00\"}]}",
        "{\"windows\": [{\"from\": \"22:60\"}]}",
        "{\"windows\": [{\"from\": \"24:01\"}]}",
        "{\"windows\": [{\"days\": [\"someday\"]}]}",
        "{\"windows\": [{\"rate\": 5}]}",
        "{\"windows\": [7]}",
        "{\"rates\": [{\"from\": \"08:00\"}]}",
        "{\"rates\": {}}",
        "[]",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct xv_job_limits limits;
        xvsa_error *error = NULL;
        json_t *json = json_loads(texts[i], 0, NULL);
        ck_assert_ptr_nonnull(json);
        ck_fails(xv_job_limits_read(json, "job.limits", &limits, &error), XVSA_ERR_INVALID, error);
        xv_job_limits_free(&limits);
        json_decref(json);
    }
}
END_TEST

START_TEST(the_week_begins_on_monday)
{
    setenv("TZ", "UTC", 1);
    /* 1970-01-01 was a Thursday, 2024-01-01 a Monday. */
    ck_assert_uint_eq(xv_week_minute(0), AT(3, 0));
    ck_assert_uint_eq(xv_week_minute(INT64_C(1704067200000)), 0);
    ck_assert_uint_eq(xv_week_minute(INT64_C(1704067200000) - 60000), XV_WEEK_MINUTES - 1);
    ck_assert_uint_eq(xv_week_minute(INT64_C(1704067200000) + 90 * 60000), 90);
}
END_TEST

static void fill(Suite *suite)
{
    TCase *tests = tcase_create("limits");
    tcase_add_test(tests, nothing_said_limits_nothing);
    tcase_add_test(tests, windows_are_nights);
    tcase_add_test(tests, the_lowest_rate_holds);
    tcase_add_test(tests, nonsense_is_refused);
    tcase_add_test(tests, the_week_begins_on_monday);
    suite_add_tcase(suite, tests);
}

UNIT_MAIN("limits")
