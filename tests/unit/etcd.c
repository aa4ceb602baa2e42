/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The shapes of etcd's JSON. A server ignores fields that it does not know, so that a misspelt name
 * would be a transaction that does less than it should.
 */
#include "unit.h"

#include <string.h>

#include "coord/kv_etcd.h"

START_TEST(a_transaction_is_spelt_right)
{
    struct xv_etcd_slot slot = {.key = (char[]){"s"}, .revision = 7};
    struct xv_kv_compare compares[] = {{"a", XV_KV_CREATE_REVISION, 0, NULL},
                                       {"b", XV_KV_MOD_REVISION, 9, "v"},
                                       {"c", XV_KV_VALUE, 0, ""}};
    struct xv_kv_op ops[] = {{XV_KV_PUT, "d", "val", 77},
                             {XV_KV_DELETE, "e", NULL, 0},
                             {XV_KV_DELETE_PREFIX, "f/", NULL, 0}};
    json_t *body = xv_etcd_make_txn(&slot, "0123456789abcdef", compares, 3, ops, 3);
    ck_assert_ptr_nonnull(body);
    json_t *put =
        json_object_get(json_array_get(json_object_get(body, "success"), 0), "request_put");
    ck_assert_uint_gt(strlen(json_string_value(json_object_get(put, "value"))), 24);
    ck_assert_int_eq(json_object_set_new(put, "value", json_string("mark")), 0);
    json_t *wanted = json_loads(
        "{\"compare\":["
        "{\"target\":\"MOD\",\"result\":\"EQUAL\",\"key\":\"cw==\",\"mod_revision\":\"7\"},"
        "{\"target\":\"CREATE\",\"result\":\"EQUAL\",\"key\":\"YQ==\",\"create_revision\":\"0\"},"
        "{\"target\":\"MOD\",\"result\":\"EQUAL\",\"key\":\"Yg==\",\"mod_revision\":\"9\"},"
        "{\"target\":\"VALUE\",\"result\":\"EQUAL\",\"key\":\"Yg==\",\"value\":\"dg==\"},"
        "{\"target\":\"VALUE\",\"result\":\"EQUAL\",\"key\":\"Yw==\",\"value\":\"\"}],"
        "\"success\":[{\"request_put\":{\"key\":\"cw==\",\"value\":\"mark\",\"lease\":\"0\"}},"
        "{\"request_put\":{\"key\":\"ZA==\",\"value\":\"dmFs\",\"lease\":\"77\"}},"
        "{\"request_delete_range\":{\"key\":\"ZQ==\"}},"
        "{\"request_delete_range\":{\"key\":\"Zi8=\",\"range_end\":\"ZjA=\"}}],"
        "\"failure\":[{\"request_range\":{\"key\":\"cw==\"}}]}",
        0, NULL);
    ck_assert_ptr_nonnull(wanted);
    if (!json_equal(body, wanted))
        ck_abort_msg("%s", json_dumps(body, 0));
    json_decref(body);
    json_decref(wanted);
}
END_TEST

static int read_list(const char *text, struct xv_kv_list *list, xvsa_error **error)
{
    json_t *answer = NULL;
    size_t bytes = 0;
    int rc = xv_etcd_parse(text, strlen(text), &answer, error);
    if (rc == 0)
        rc = xv_etcd_read_pairs(answer, list, &bytes, error);
    json_decref(answer);
    return rc;
}

START_TEST(absent_fields_are_zero)
{
    xvsa_error *error = NULL;
    struct xv_kv_list list = {0};
    ck_ok(read_list("{\"header\":{\"revision\":\"3\"}}", &list, &error), error);
    ck_assert_uint_eq(list.count, 0);
    ck_ok(read_list("{\"kvs\":[{\"key\":\"YWI=\",\"create_revision\":\"2\",\"mod_revision\":3}]}",
                    &list, &error),
          error);
    ck_assert_uint_eq(list.count, 1);
    ck_assert_str_eq(list.pairs[0].key, "ab");
    ck_assert_str_eq(list.pairs[0].value, "");
    ck_assert_int_eq(list.pairs[0].lease, 0);
    ck_assert_int_eq(list.pairs[0].mod_revision, 3);
    xv_kv_list_free(&list);
}
END_TEST

START_TEST(nonsense_is_refused)
{
    static const char *const bad[] = {
        "404 page not found",
        "[]",
        "{\"kvs\":{}}",
        "{\"kvs\":[{\"key\":\"YQ\",\"create_revision\":\"2\",\"mod_revision\":\"2\"}]}",
        "{\"kvs\":[{\"key\":\"Y*==\",\"create_revision\":\"2\",\"mod_revision\":\"2\"}]}",
        "{\"kvs\":[{\"key\":7,\"create_revision\":\"2\",\"mod_revision\":\"2\"}]}",
        "{\"kvs\":[{\"key\":\"YQ==\",\"create_revision\":\"3\",\"mod_revision\":\"2\"}]}",
        "{\"kvs\":[{\"key\":\"YQ==\",\"create_revision\":\"x\",\"mod_revision\":\"2\"}]}",
        "{\"kvs\":[{\"key\":\"YQBi\",\"create_revision\":\"2\",\"mod_revision\":\"2\"}]}",
        "{\"kvs\":[{\"create_revision\":\"2\",\"mod_revision\":\"2\"}]}",
        "{\"kvs\":[{\"key\":\"YQ==\",\"create_revision\":\"99999999999999999999\"}]}",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        xvsa_error *error = NULL;
        struct xv_kv_list list = {0};
        ck_fails(read_list(bad[i], &list, &error), XVSA_ERR_PROTOCOL, error);
        xv_kv_list_free(&list);
    }
}
END_TEST

START_TEST(failures_are_read)
{
    static const char plain[] =
        "{\"error\":\"x\",\"message\":\"no\\n\\u001b[1m lease\",\"code\":5}";
    static const char stream[] = "{\"error\":{\"grpc_code\":14,\"message\":\"no leader\"}}";
    struct xv_etcd_failure failure;
    xv_etcd_read_failure(plain, strlen(plain), 404, &failure);
    ck_assert_int_eq(failure.code, XV_ETCD_NOT_FOUND);
    ck_assert_str_eq(failure.message, "no??[1m lease");
    xv_etcd_read_failure(stream, strlen(stream), 200, &failure);
    ck_assert_int_eq(failure.code, 14);
    ck_assert_str_eq(failure.message, "no leader");
    xv_etcd_read_failure("<html>", 6, 502, &failure);
    ck_assert_int_eq(failure.code, -1);
    ck_assert_int_eq(failure.status, 502);
}
END_TEST

START_TEST(events_are_read)
{
    static const struct {
        const char *line;
        enum xv_etcd_event event;
        const char *keys;
    } lines[] = {
        {"", XV_ETCD_NOTHING, NULL},
        {"{\"result\":{\"header\":{\"revision\":\"2\"},\"created\":true}}", XV_ETCD_CHANGED, NULL},
        {"{\"result\":{\"header\":{\"revision\":\"2\"}}}", XV_ETCD_NOTHING, NULL},
        {"{\"result\":{\"events\":[{\"kv\":{\"key\":\"YQ==\"}}]}}", XV_ETCD_CHANGED, "[\"a\"]"},
        {"{\"result\":{\"events\":[{\"kv\":{\"key\":\"YQ==\"}},{\"type\":\"DELETE\",\"kv\":{"
         "\"key\":"
         "\"Yg==\"}}]}}",
         XV_ETCD_CHANGED, "[\"a\", \"b\"]"},
        {"{\"result\":{\"events\":[{\"kv\":{\"key\":\"YQ==\"}},{\"kv\":{\"key\":7}}]}}",
         XV_ETCD_CHANGED, NULL},
        {"{\"result\":{\"events\":[{\"kv\":{\"key\":\"/w==\"}}]}}", XV_ETCD_CHANGED, NULL},
        {"{\"result\":{\"canceled\":true,\"compact_revision\":\"3\"}}", XV_ETCD_ENDED, NULL},
        {"{\"result\":{\"created\":true,\"canceled\":true,\"cancel_reason\":\"rpc error: code = "
         "PermissionDenied desc = etcdserver: permission denied\"}}",
         XV_ETCD_DENIED, NULL},
        {"{\"result\":{\"created\":true,\"canceled\":true,\"cancel_reason\":\"rpc error: code = "
         "Unauthenticated desc = etcdserver: invalid auth token\"}}",
         XV_ETCD_DENIED, NULL},
        {"{\"error\":{\"grpc_code\":14,\"message\":\"etcdserver: no leader\"}}", XV_ETCD_ENDED,
         NULL},
        {"nonsense", XV_ETCD_ENDED, NULL},
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        struct xv_etcd_failure failure;
        json_t *keys = NULL;
        ck_assert_int_eq(xv_etcd_read_event(lines[i].line, strlen(lines[i].line), &keys, &failure),
                         lines[i].event);
        char *text = keys == NULL ? NULL : json_dumps(keys, 0);
        ck_assert_pstr_eq(text, lines[i].keys);
        free(text);
        json_decref(keys);
    }
}
END_TEST

static void fill(Suite *suite)
{
    TCase *tests = tcase_create("etcd");
    tcase_add_test(tests, a_transaction_is_spelt_right);
    tcase_add_test(tests, absent_fields_are_zero);
    tcase_add_test(tests, nonsense_is_refused);
    tcase_add_test(tests, failures_are_read);
    tcase_add_test(tests, events_are_read);
    suite_add_tcase(suite, tests);
}

UNIT_MAIN("etcd")
