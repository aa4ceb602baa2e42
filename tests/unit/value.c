/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "xenapi/value.h"

#include <math.h>
#include <string.h>

#include "unit.h"
#include "xenapi/value_internal.h"

START_TEST(readers_fall_back)
{
    struct xv_value *text = xv_value_new_string("12x");
    ck_assert_int_eq(xv_value_int(text, -7), -7);
    ck_assert_int_eq(xv_value_int(NULL, 3), 3);
    ck_assert(xv_value_bool(text, true));
    ck_assert_str_eq(xv_value_string(NULL, "none"), "none");
    ck_assert_ptr_null(xv_value_get(text, "key"));
    ck_assert_uint_eq(xv_value_count(text), 0);
    xv_value_free(text);
    struct xv_value *large = xv_value_new_string("9223372036854775808");
    ck_assert_int_eq(xv_value_int(large, -1), -1);
    xv_value_free(large);
}
END_TEST

START_TEST(builders_own_children)
{
    struct xv_value *record = xv_value_new_struct();
    ck_assert(xv_value_set_string(record, "name", "a"));
    ck_assert(xv_value_set_string(record, "name", "b"));
    ck_assert(xv_value_set_int(record, "size", 5));
    ck_assert(!xv_value_set(record, "x", NULL));
    ck_assert(!xv_value_set(NULL, "x", xv_value_new_bool(true)));
    ck_assert(!xv_value_add(record, xv_value_new_bool(true)));
    ck_assert_uint_eq(xv_value_count(record), 2);
    ck_assert_str_eq(xv_value_get_string(record, "name", ""), "b");
    ck_assert_int_eq(xv_value_get_int(record, "size", 0), 5);
    ck_assert(xv_value_remove(record, "name"));
    ck_assert(!xv_value_remove(record, "name"));
    ck_assert_str_eq(xv_value_key_at(record, 0), "size");
    struct xv_value *copy = xv_value_copy(record);
    xv_value_free(record);
    ck_assert_int_eq(xv_value_get_int(copy, "size", 0), 5);
    xv_value_free(copy);
}
END_TEST

/* A peer may send a key twice: a copy answers as the original does. */
START_TEST(copies_are_alike)
{
    struct xv_value *record = xv_value_new_struct();
    ck_assert(xv_value_append_member(record, strdup("key"), xv_value_new_string("first")));
    ck_assert(xv_value_append_member(record, strdup("key"), xv_value_new_string("second")));
    struct xv_value *copy = xv_value_copy(record);
    ck_assert_uint_eq(xv_value_count(copy), 2);
    ck_assert_str_eq(xv_value_get_string(copy, "key", ""), xv_value_get_string(record, "key", ""));
    xv_value_free(copy);
    xv_value_free(record);
}
END_TEST

START_TEST(times)
{
    static const struct {
        const char *text;
        int64_t ms;
    } cases[] = {
        {"19700101T00:00:00Z", 0},
        {"20260821T10:11:12Z", 1787307072000},
        {"2026-08-21T10:11:12Z", 1787307072000},
        {"20260821T10:11:12", 1787307072000},
        {"20260821T10:11:12.250Z", 1787307072000},
        {"20260821T12:11:12+02:00", 1787307072000},
        {"20260821T12:11:12.5+0200", 1787307072000},
        {"20261321T10:11:12Z", 0},
        {"yesterday", 0},
        {"", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct xv_value *time = xv_value_new_time(cases[i].text);
        ck_assert_msg(xv_value_time_ms(time) == cases[i].ms, "%s", cases[i].text);
        xv_value_free(time);
    }
}
END_TEST

START_TEST(json_round_trip)
{
    xvsa_error *error = NULL;
    struct xv_value *back = NULL;
    struct xv_value *record = xv_value_new_struct();
    struct xv_value *list = xv_value_new_array();
    struct xv_value *map = xv_value_new_struct();
    ck_assert(xv_value_set_string(map, "$time", "not a time"));
    ck_assert(xv_value_add(list, xv_value_new_double(1.5)));
    ck_assert(xv_value_add(list, xv_value_new_double((double)INFINITY)));
    ck_assert(xv_value_add(list, xv_value_new_time("20260821T10:11:12Z")));
    ck_assert(xv_value_add(list, map));
    ck_assert(xv_value_set(record, "list", list));
    ck_assert(xv_value_set_bool(record, "yes", true));
    ck_assert(xv_value_set_string(record, "text", "\xc3\xa4 \"quoted\"\n"));
    char *text = xv_value_to_json(record);
    ck_assert_ptr_nonnull(text);
    ck_ok(xv_value_from_json(text, &back, &error), error);
    const struct xv_value *items = xv_value_get(back, "list");
    ck_assert_double_eq(xv_value_double(xv_value_at(items, 0), 0), 1.5);
    ck_assert_double_infinite(xv_value_double(xv_value_at(items, 1), 0));
    ck_assert_int_eq((int)xv_value_kind(xv_value_at(items, 2)), XV_VALUE_TIME);
    ck_assert_str_eq(xv_value_get_string(xv_value_at(items, 3), "$time", ""), "not a time");
    ck_assert_str_eq(xv_value_get_string(back, "text", ""), "\xc3\xa4 \"quoted\"\n");
    ck_assert(xv_value_get_bool(back, "yes", false));
    free(text);
    xv_value_free(record);
    xv_value_free(back);
}
END_TEST

START_TEST(json_refusals)
{
    xvsa_error *error = NULL;
    struct xv_value *value = NULL;
    char deep[400];
    memset(deep, '[', 150);
    memset(deep + 150, ']', 150);
    deep[300] = '\0';
    ck_fails(xv_value_from_json("{\"a\":", &value, &error), XVSA_ERR_FORMAT, error);
    ck_fails(xv_value_from_json("{\"a\":1,\"a\":2}", &value, &error), XVSA_ERR_FORMAT, error);
    ck_fails(xv_value_from_json(deep, &value, &error), XVSA_ERR_FORMAT, error);
}
END_TEST

static void fill(Suite *suite)
{
    TCase *all = tcase_create("value");
    tcase_add_test(all, readers_fall_back);
    tcase_add_test(all, builders_own_children);
    tcase_add_test(all, copies_are_alike);
    tcase_add_test(all, times);
    tcase_add_test(all, json_round_trip);
    tcase_add_test(all, json_refusals);
    suite_add_tcase(suite, all);
}

UNIT_MAIN("value")
