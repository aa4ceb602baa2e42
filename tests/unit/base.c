/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "unit.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "base/buffer.h"
#include "base/call.h"
#include "base/env.h"
#include "base/options.h"

START_TEST(error_keeps_code_and_cause)
{
    xvsa_error *error = NULL;
    ck_assert_int_eq(xv_fail(&error, XVSA_ERR_CORRUPT, "repo", "pack %d", 7), XVSA_ERR_CORRUPT);
    const char *params[] = {"a", "b"};
    xv_error_set_xenapi(error, "SR_FULL", params, 2);
    xv_error_set_detail(error, "point", "abc");
    xv_error_wrap(&error, XVSA_ERR_CORRUPT, "job", "vm 'x'");
    ck_assert_str_eq(xvsa_error_message(error), "vm 'x'");
    ck_assert_str_eq(xvsa_error_message(xvsa_error_cause(error)), "pack 7");
    ck_assert_str_eq(xvsa_error_xenapi_code(error), "SR_FULL");
    ck_assert_uint_eq(xvsa_error_xenapi_param_count(error), 2);
    ck_assert_str_eq(xvsa_error_xenapi_param(error, 1), "b");
    ck_assert_ptr_null(xvsa_error_xenapi_param(error, 2));
    ck_assert_str_eq(xvsa_error_detail(error, "point"), "abc");
    ck_assert(xv_error_is_xenapi(error, "SR_FULL"));
    xvsa_error_unref(error);
}
END_TEST

START_TEST(errno_maps_to_codes)
{
    xvsa_error *error = NULL;
    ck_fails(xv_fail_errno(&error, ENOSPC, "target", "write"), XVSA_ERR_SPACE, error);
    ck_fails(xv_fail_errno(&error, ENOENT, "target", "open"), XVSA_ERR_NOT_FOUND, error);
    ck_fails(xv_fail_memory(&error), XVSA_ERR_MEMORY, error);
}
END_TEST

START_TEST(every_code_has_name_and_advice)
{
    for (int code = -1; code >= -80; code--) {
        const char *name = xvsa_code_name(code);
        if (strcmp(name, "UNKNOWN_CODE") != 0)
            ck_assert_str_ne(xvsa_code_advice(code), "");
    }
    ck_assert_str_eq(xvsa_code_name(XVSA_ERR_UNKNOWN_OUTCOME), "UNKNOWN_OUTCOME");
}
END_TEST

START_TEST(buffer_has_a_ceiling)
{
    struct xv_buffer buffer;
    xvsa_error *error = NULL;
    xv_buffer_init(&buffer, 10);
    ck_ok(xv_buffer_add_text(&buffer, "12345", &error), error);
    ck_fails(xv_buffer_add_text(&buffer, "678901", &error), XVSA_ERR_LIMIT, error);
    ck_ok(xv_buffer_format(&buffer, &error, "%d", 67890), error);
    ck_assert_str_eq(buffer.data, "1234567890");
    xv_buffer_free(&buffer);
}
END_TEST

START_TEST(hex_round_trip)
{
    const unsigned char data[] = {0x00, 0xff, 0x1a};
    unsigned char back[3];
    char text[7];
    xv_hex_encode(data, 3, text);
    ck_assert_str_eq(text, "00ff1a");
    ck_assert_int_eq(xv_hex_decode(text, back, 3), 0);
    ck_assert_mem_eq(data, back, 3);
    ck_assert_int_eq(xv_hex_decode("00ff1", back, 3), -1);
    ck_assert_int_eq(xv_hex_decode("00ff1a0", back, 3), -1);
    ck_assert_int_eq(xv_hex_decode("00fg1a", back, 3), -1);
}
END_TEST

START_TEST(options_grow_only_at_the_end)
{
    struct {
        uint32_t size, flags;
        uint64_t old_member, new_member;
    } caller = {sizeof caller, 1, 2, 0};
    struct {
        uint32_t size, flags;
        uint64_t old_member;
    } ours;
    xvsa_error *error = NULL;
    ck_ok(xv_options_copy(&ours, sizeof ours, &caller, "t", &error), error);
    ck_assert_uint_eq(ours.old_member, 2);
    caller.new_member = 1;
    ck_fails(xv_options_copy(&ours, sizeof ours, &caller, "t", &error), XVSA_ERR_ABI, error);
    caller.size = 0;
    ck_fails(xv_options_copy(&ours, sizeof ours, &caller, "t", &error), XVSA_ERR_ABI, error);
}
END_TEST

START_TEST(cancel_stops_a_sleep)
{
    xvsa_cancel *cancel = NULL;
    xvsa_error *error = NULL;
    ck_ok(xvsa_cancel_new(&cancel, &error), error);
    struct xv_call call = {.cancel = cancel};
    ck_ok(xv_call_check(&call, "test", "testing", &error), error);
    xvsa_cancel_fire(cancel);
    xvsa_cancel_fire(cancel);
    struct pollfd fd = {.fd = xv_cancel_fd(cancel), .events = POLLIN};
    ck_assert_int_eq(poll(&fd, 1, 0), 1);
    ck_fails(xv_call_sleep(&call, 1000000, "test", "testing", &error), XVSA_ERR_CANCELLED, error);
    xvsa_cancel_unref(cancel);
    call = (struct xv_call){.deadline_ms = xv_clock_ms() + 5};
    ck_fails(xv_call_sleep(&call, 1000000, "test", "testing", &error), XVSA_ERR_TIMEOUT, error);
    ck_assert_int_eq(xv_call_left(&call, 100), 0);
    ck_assert_int_eq(xv_call_left(NULL, -1), -1);
}
END_TEST

static void fill(Suite *suite)
{
    TCase *tests = tcase_create("base");
    tcase_add_test(tests, error_keeps_code_and_cause);
    tcase_add_test(tests, errno_maps_to_codes);
    tcase_add_test(tests, every_code_has_name_and_advice);
    tcase_add_test(tests, buffer_has_a_ceiling);
    tcase_add_test(tests, hex_round_trip);
    tcase_add_test(tests, options_grow_only_at_the_end);
    tcase_add_test(tests, cancel_stops_a_sleep);
    suite_add_tcase(suite, tests);
}

UNIT_MAIN("base")
