/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "unit.h"

#include <string.h>

#include "job/deployment.h"
#include "job/drawing.h"

static char *shown(const char *text, size_t columns)
{
    struct xv_page page;
    xvsa_error *error = NULL;
    char *result = NULL;
    xv_page_init(&page, &error);
    if (columns == 0)
        xv_page_text(&page, text);
    else
        xv_page_fit(&page, text, columns);
    ck_ok(xv_page_end(&page, &result), error);
    return result;
}

static void check_shown(const char *text, size_t columns, const char *expected)
{
    char *found = shown(text, columns);
    ck_assert_str_eq(found, expected);
    free(found);
}

START_TEST(text_never_becomes_markup)
{
    check_shown("<b a=\"1\" c='2'>&amp;", 0, "&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp;amp;");
    check_shown("plain", 0, "plain");
    check_shown("", 0, "");
}
END_TEST

START_TEST(hidden_characters_are_replaced)
{
    check_shown("a\x01\n\x7f", 0, "a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
    check_shown("\xe2\x80\xaegnp", 0, "\xef\xbf\xbdgnp");             /* right-to-left override */
    check_shown("a\xe2\x80\x8b", 0, "a\xef\xbf\xbd");                 /* zero width space */
    check_shown("\xef\xbf\xbf", 0, "\xef\xbf\xbd");                   /* no character at all */
    check_shown("\xf0\x9f\x92\xbe", 0, "\xf0\x9f\x92\xbe");           /* four bytes are kept */
    check_shown("\xc2\x80", 0, "\xef\xbf\xbd");                       /* a control of two bytes */
    check_shown("e\xcc\x81\xcc\x81\xcc\x81", 0, "e\xcc\x81\xcc\x81"); /* marks do not pile up */
}
END_TEST

START_TEST(bytes_that_are_not_utf8_are_replaced)
{
    static const char *const wrong[] = {"\x80", "\xff", "\xc0", "\xe2"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        check_shown(wrong[i], 0, "\xef\xbf\xbd");
    check_shown("\xc0\xaf", 0, "\xef\xbf\xbd\xef\xbf\xbd"); /* longer than need be */
    check_shown("\xe2\x82", 0, "\xef\xbf\xbd\xef\xbf\xbd"); /* ends too early */
    check_shown("\xed\xa0\x80", 0, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"); /* a surrogate */
    check_shown("\xf4\x90\x80\x80x", 0,
                "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdx"); /* beyond the last */
}
END_TEST

START_TEST(text_is_cut_by_columns)
{
    check_shown("proxy", 5, "proxy");
    check_shown("proxy-10", 5, "prox\xe2\x80\xa6");
    check_shown("\xe4\xb8\xad\xe6\x96\x87", 4, "\xe4\xb8\xad\xe6\x96\x87");
    check_shown("\xe4\xb8\xad\xe6\x96\x87", 3, "\xe4\xb8\xad\xe2\x80\xa6");
    check_shown("<<<<", 2, "&lt;\xe2\x80\xa6");
    ck_assert_uint_eq(xv_text_columns("a\xe4\xb8\xad"), 3);
    ck_assert_uint_eq(xv_text_columns("e\xcc\x81"), 1);
    ck_assert(xv_text_is_plain("abc"));
    ck_assert(!xv_text_is_plain("\xc3\xa9"));
}
END_TEST

START_TEST(other_documents_are_refused)
{
    static const char *const wrong[] = {"",
                                        "[]",
                                        "{}",
                                        "{\"pools\":1}",
                                        "{\"pools\":[1]}",
                                        "{\"pools\":[{}]}",
                                        "{\"pools\":[],\"pools\":[]}",
                                        "{\"pools\":[{\"vms\":{}}]}"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        xvsa_error *error = NULL;
        char *page = NULL;
        ck_fails(xv_drawing_make(wrong[i], &page, &error), XVSA_ERR_INVALID, error);
        ck_assert_ptr_null(page);
    }
}
END_TEST

/* Members of the wrong kind, missing ones and strange states are drawn as nothing. */
START_TEST(strange_members_do_no_harm)
{
    static const char *const strange[] = {
        "{\"pools\":[]}",
        "{\"pools\":[{\"vms\":[]}]}",
        "{\"pools\":[{\"vms\":[1,null,{}],\"hosts\":{},\"srs\":[7],\"proxies\":[[]],"
        "\"losses\":3,\"advice\":[{\"goal\":\"none\"},{\"goal\":\"reach\",\"add\":5}]}]}",
        "{\"made_ms\":9223372036854775807,\"pools\":[{\"vms\":[{\"state\":\"\\\"onload=x\","
        "\"name\":\"v\",\"disks\":[{\"size\":-1,\"routes\":[{\"proxies\":[1],\"tier\":7}]}]}],"
        "\"hosts\":[{\"uuid\":\"h\"},{\"uuid\":\"h\"}],\"srs\":[{\"disks\":1,\"hosts\":"
        "[{\"uuid\":\"h\"},{\"uuid\":\"h\"}]},{\"disks\":2,\"hosts\":[]}],"
        "\"proxies\":[{\"host\":{\"uuid\":\"h\"}},{\"reasons\":[{}]}]}]}",
    };
    for (size_t i = 0; i < sizeof strange / sizeof strange[0]; i++) {
        xvsa_error *error = NULL;
        char *page = NULL;
        ck_ok(xv_drawing_make(strange[i], &page, &error), error);
        ck_assert_ptr_nonnull(strstr(page, "</html>"));
        ck_assert_ptr_null(strstr(page, "\"onload"));
        free(page);
    }
}
END_TEST

START_TEST(options_are_read_strictly)
{
    static const char *const wrong[] = {
        "{\"transports\":[]}",       "{\"transports\":[\"ftp\"]}",
        "{\"network\":1}",           "{\"selection\":{}}",
        "{\"unknown\":1}",           "[]",
        "{\"transports\":\"http\"}", "{\"insecure_nbd\":null}",
    };
    struct xv_deployment_options options;
    xvsa_error *error = NULL;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        ck_fails(xv_deployment_options_read(wrong[i], &options, &error), XVSA_ERR_INVALID, error);
    ck_ok(xv_deployment_options_read(NULL, &options, &error), error);
    ck_assert_uint_eq(options.transports, XV_TRANSPORT_ALL);
    ck_assert(!options.network && options.selection == NULL);
    xv_deployment_options_free(&options);
    ck_ok(xv_deployment_options_read("{\"transports\":[\"nbd\",\"http\"],\"network\":true}",
                                     &options, &error),
          error);
    ck_assert_uint_eq(options.transports, XV_TRANSPORT_NBD | XV_TRANSPORT_HTTP);
    ck_assert(options.network);
    xv_deployment_options_free(&options);
}
END_TEST

static void fill(Suite *suite)
{
    TCase *page = tcase_create("page");
    tcase_add_test(page, text_never_becomes_markup);
    tcase_add_test(page, hidden_characters_are_replaced);
    tcase_add_test(page, bytes_that_are_not_utf8_are_replaced);
    tcase_add_test(page, text_is_cut_by_columns);
    suite_add_tcase(suite, page);
    TCase *drawing = tcase_create("drawing");
    tcase_add_test(drawing, other_documents_are_refused);
    tcase_add_test(drawing, strange_members_do_no_harm);
    tcase_add_test(drawing, options_are_read_strictly);
    suite_add_tcase(suite, drawing);
}

UNIT_MAIN("drawing")
