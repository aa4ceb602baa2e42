/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "unit.h"

#include <poll.h>
#include <string.h>

#include "job/event.h"
#include "job/reason.h"

static char *next_type(struct xv_events *events)
{
    char *text = NULL;
    xvsa_error *error = NULL;
    ck_ok(xv_events_next(events, 0, &text, &error), error);
    json_t *event = json_loads(text, 0, NULL);
    free(text);
    char *type = strdup(json_string_value(json_object_get(event, "type")));
    json_decref(event);
    return type;
}

static bool is_readable(struct xv_events *events)
{
    struct pollfd fd = {.fd = xv_events_fd(events), .events = POLLIN};
    return poll(&fd, 1, 0) == 1;
}

START_TEST(events_come_in_order_and_end)
{
    struct xv_events *events = NULL;
    xvsa_error *error = NULL;
    char *text = NULL;
    ck_ok(xv_events_new(&events, &error), error);
    ck_assert(!is_readable(events));
    ck_fails(xv_events_next(events, 0, &text, &error), XVSA_ERR_TIMEOUT, error);
    xv_events_add(events, "started", NULL);
    ck_assert(is_readable(events));
    xv_events_add_progress(events, NULL);
    xv_events_add_progress(events, NULL);
    xv_events_add_last(events, "finished", NULL);
    xv_events_add(events, "late", NULL);
    static const char *const expected[] = {"started", "progress", "finished"};
    for (size_t i = 0; i < 3; i++) {
        char *type = next_type(events);
        ck_assert_str_eq(type, expected[i]);
        free(type);
    }
    ck_assert(!is_readable(events));
    ck_fails(xv_events_next(events, -1, &text, &error), XVSA_ERR_STATE, error);
    xv_events_free(events);
}
END_TEST

START_TEST(a_slow_consumer_loses_progress_first)
{
    struct xv_events *events = NULL;
    xvsa_error *error = NULL;
    ck_ok(xv_events_new(&events, &error), error);
    for (int i = 0; i < 150; i++) {
        xv_events_add(events, "reason", NULL);
        xv_events_add_progress(events, NULL);
    }
    xv_events_add_last(events, "finished", NULL);
    unsigned reasons = 0;
    unsigned all = 0;
    bool finished = false;
    while (!finished) {
        char *type = next_type(events);
        reasons += strcmp(type, "reason") == 0;
        finished = strcmp(type, "finished") == 0;
        free(type);
        all++;
    }
    ck_assert_uint_eq(reasons, 150);
    ck_assert_uint_le(all, 256);
    for (int i = 0; i < 10; i++)
        ck_assert(!is_readable(events));
    xv_events_free(events);
}
END_TEST

START_TEST(every_reason_has_a_name)
{
    for (int i = 0; i < XV_REASON_COUNT; i++) {
        enum xv_reason_code code = (enum xv_reason_code)i;
        ck_assert_ptr_nonnull(xv_reason_name(code));
        ck_assert_int_eq(xv_reason_find(xv_reason_name(code)), code);
        if (i > 0)
            ck_assert_int_lt(
                strcmp(xv_reason_name((enum xv_reason_code)(i - 1)), xv_reason_name(code)), 0);
    }
    ck_assert_int_eq(xv_reason_find("NO_SUCH_REASON"), XV_REASON_COUNT);
}
END_TEST

/* docs/reasons.md has a row "| `CODE` | severity | text |" for each, and no other. */
START_TEST(the_documentation_lists_every_reason)
{
    static const char *const severities[] = {"info", "warning", "error"};
    const char *root = getenv("XVSA_SOURCE_ROOT");
    ck_assert_msg(root != NULL, "XVSA_SOURCE_ROOT must name the source folder");
    char path[4096];
    snprintf(path, sizeof path, "%s/docs/reasons.md", root);
    FILE *file = fopen(path, "r");
    ck_assert_ptr_nonnull(file);
    static char text[65536];
    size_t length = fread(text, 1, sizeof text - 1, file);
    text[length] = '\0';
    fclose(file);
    int rows = 0;
    for (const char *c = text; (c = strstr(c, "\n| `")) != NULL; c++)
        rows++;
    ck_assert_int_eq(rows, XV_REASON_COUNT);
    for (int i = 0; i < XV_REASON_COUNT; i++) {
        struct xv_reasons list = {0};
        xv_reasons_add(&list, (enum xv_reason_code)i, NULL);
        json_t *json = xv_reasons_to_json(&list);
        char row[512];
        snprintf(row, sizeof row, "\n| `%s` | %s | %s |\n", xv_reason_name((enum xv_reason_code)i),
                 severities[xv_reason_severity((enum xv_reason_code)i)],
                 json_string_value(json_object_get(json_array_get(json, 0), "text")));
        ck_assert_msg(strstr(text, row) != NULL, "docs/reasons.md lacks%s", row);
        json_decref(json);
        xv_reasons_free(&list);
    }
}
END_TEST

START_TEST(policy_refuses_what_it_names)
{
    struct xv_reasons list = {0};
    struct xv_refusals refusals = {0};
    xvsa_error *error = NULL;
    xv_reasons_add(&list, XV_REASON_NBD_NOT_ENABLED, "pool %d", 1);
    xv_reasons_add(&list, XV_REASON_NBD_NOT_ENABLED, "pool %d", 2);
    ck_assert_uint_eq(list.count, 1);
    ck_ok(xv_reasons_check(&list, &refusals, "VM", &error), error);
    json_t *names = json_pack("[s]", "NBD_NOT_ENABLED");
    ck_ok(xv_refusals_read(names, "refuse", &refusals, &error), error);
    ck_fails(xv_reasons_check(&list, &refusals, "VM", &error), XVSA_ERR_REFUSED, error);
    json_decref(names);
    xv_reasons_free(&list);
    xv_reasons_add(&list, XV_REASON_NO_PROXY, NULL);
    refusals = (struct xv_refusals){0};
    ck_fails(xv_reasons_check(&list, &refusals, "VM", &error), XVSA_ERR_REFUSED, error);
    xv_reasons_free(&list);
}
END_TEST

START_TEST(errors_keep_their_chain)
{
    xvsa_error *error = NULL;
    const char *params[] = {"a", "b"};
    xv_fail(&error, XVSA_ERR_XENAPI, "xenapi", "VM.snapshot failed");
    xv_error_set_xenapi(error, "SR_FULL", params, 2);
    xv_error_wrap(&error, XVSA_ERR_XENAPI, "job", "VM \"w\xc3\xa4\"");
    json_t *json = xv_json_error(error);
    ck_assert_str_eq(json_string_value(json_object_get(json, "code")), "XENAPI");
    const json_t *cause = json_object_get(json, "cause");
    ck_assert_str_eq(json_string_value(json_object_get(cause, "message")), "VM.snapshot failed");
    const json_t *xenapi = json_object_get(cause, "xenapi");
    ck_assert_uint_eq(json_array_size(json_object_get(xenapi, "params")), 2);
    json_decref(json);
    xv_error_clear(&error);
    json = xv_json_text("bad \xff byte");
    ck_assert_str_eq(json_string_value(json), "bad ? byte");
    json_decref(json);
}
END_TEST

static void fill(Suite *suite)
{
    TCase *tests = tcase_create("report");
    tcase_add_test(tests, events_come_in_order_and_end);
    tcase_add_test(tests, a_slow_consumer_loses_progress_first);
    tcase_add_test(tests, every_reason_has_a_name);
    tcase_add_test(tests, the_documentation_lists_every_reason);
    tcase_add_test(tests, policy_refuses_what_it_names);
    tcase_add_test(tests, errors_keep_their_chain);
    suite_add_tcase(suite, tests);
}

UNIT_MAIN("report")
