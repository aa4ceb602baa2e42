/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "xenapi/xmlrpc.h"

#include <math.h>
#include <string.h>

#include "unit.h"

#define HEAD                                                                                       \
    "<?xml version=\"1.0\"?><methodResponse><params><param><value><struct><member><name>Status"    \
    "</name><value>Success</value></member><member><name>Value</name>"
#define TAIL "</member></struct></value></param></params></methodResponse>"

struct input {
    const char *text;
    size_t left;
    size_t step;
};

static int feed(void *user, void *data, size_t room, size_t *ret_length, xvsa_error **error)
{
    struct input *input = user;
    (void)error;
    size_t length = input->left < room ? input->left : room;
    length = input->step > 0 && length > input->step ? input->step : length;
    memcpy(data, input->text, length);
    input->text += length;
    input->left -= length;
    *ret_length = length;
    return 0;
}

static int decode_in_steps(const char *text, size_t step, struct xv_answer *ret, xvsa_error **error)
{
    struct input input = {text, strlen(text), step};
    struct xv_xmlrpc_input setup = {.source = feed, .user = &input, .what = "test"};
    return xv_xmlrpc_decode(&setup, ret, error);
}

static int decode(const char *text, struct xv_answer *ret, xvsa_error **error)
{
    return decode_in_steps(text, 0, ret, error);
}

/* The Value of a success. */
static struct xv_value *value_of(const char *text)
{
    xvsa_error *error = NULL;
    struct xv_answer answer = {0};
    char whole[4096];
    snprintf(whole, sizeof whole, "%s%s%s", HEAD, text, TAIL);
    for (size_t step = 1; step < 9; step += 3) {
        ck_ok(decode_in_steps(whole, step, &answer, &error), error);
        ck_assert(answer.success);
        xv_value_free(answer.value);
    }
    ck_ok(decode(whole, &answer, &error), error);
    return answer.value;
}

static void refuse(const char *text, int code)
{
    xvsa_error *error = NULL;
    struct xv_answer answer = {0};
    ck_fails(decode(text, &answer, &error), code, error);
}

START_TEST(types)
{
    struct xv_value *value = value_of(
        "<value><struct><member><name>s</name><value>a &amp; b</value></member>"
        "<member><name>t</name><value><string>x</string></value></member>"
        "<member><name>e</name><value/></member><member><name>i</name><value><i4>-5</i4></value>"
        "</member><member><name>n</name><value><int>7</int></value></member>"
        "<member><name>l</name><value><i8>9000000000</i8></value></member>"
        "<member><name>b</name><value><boolean>1</boolean></value></member>"
        "<member><name>d</name><value><double>0.25</double></value></member>"
        "<member><name>inf</name><value><double>inf</double></value></member>"
        "<member><name>nan</name><value><double>nan</double></value></member>"
        "<member><name>time</name><value><dateTime.iso8601>20260821T10:11:12Z</dateTime.iso8601>"
        "</value></member><member><name>nil</name><value><nil/></value></member>"
        "<member><name>none</name><value><array><data></data></array></value></member>"
        "<member><name>set</name>\n <value> <array> <data> <value>1</value> <value>2</value>"
        " </data> </array> </value></member></struct></value>");
    ck_assert_str_eq(xv_value_get_string(value, "s", ""), "a & b");
    ck_assert_str_eq(xv_value_get_string(value, "t", ""), "x");
    ck_assert_str_eq(xv_value_get_string(value, "e", "?"), "");
    ck_assert_int_eq(xv_value_get_int(value, "i", 0), -5);
    ck_assert_int_eq(xv_value_get_int(value, "n", 0), 7);
    ck_assert_int_eq(xv_value_get_int(value, "l", 0), 9000000000);
    ck_assert(xv_value_get_bool(value, "b", false));
    ck_assert_double_eq(xv_value_double(xv_value_get(value, "d"), 0), 0.25);
    ck_assert_double_infinite(xv_value_double(xv_value_get(value, "inf"), 0));
    ck_assert_double_nan(xv_value_double(xv_value_get(value, "nan"), 0));
    ck_assert_int_eq(xv_value_time_ms(xv_value_get(value, "time")), 1787307072000);
    ck_assert_int_eq((int)xv_value_kind(xv_value_get(value, "nil")), XV_VALUE_NIL);
    ck_assert_ptr_nonnull(xv_value_get(value, "nil"));
    ck_assert_uint_eq(xv_value_count(xv_value_get(value, "none")), 0);
    ck_assert_uint_eq(xv_value_count(xv_value_get(value, "set")), 2);
    xv_value_free(value);
}
END_TEST

START_TEST(bare_keys)
{
    struct xv_value *value =
        value_of("<value><struct><member><name>a & b</name><value>1</value></member>"
                 "<member><name>x < y</name><value>2</value></member>"
                 "<member><name></na</name><value>3</value></member>"
                 "<member><name>p &amp; q</name><value>4</value></member>"
                 "<member><name>&&lt;&am</name><value>5</value></member>"
                 "<member><name>c\001d</name><value>6</value></member>"
                 "<member><name><name></name><value>7</value></member></struct></value>");
    ck_assert_int_eq(xv_value_get_int(value, "a & b", 0), 1);
    ck_assert_int_eq(xv_value_get_int(value, "x < y", 0), 2);
    ck_assert_int_eq(xv_value_get_int(value, "</na", 0), 3);
    ck_assert_int_eq(xv_value_get_int(value, "p & q", 0), 4);
    ck_assert_int_eq(xv_value_get_int(value, "&<&am", 0), 5);
    ck_assert_int_eq(xv_value_get_int(value, "cd", 0), 6);
    ck_assert_int_eq(xv_value_get_int(value, "<name>", 0), 7);
    xv_value_free(value);
}
END_TEST

START_TEST(failures_are_answers)
{
    xvsa_error *error = NULL;
    struct xv_answer answer = {0};
    ck_ok(decode("<methodResponse><params><param><value><struct><member><name>Status</name><value>"
                 "Failure</value></member><member><name>ErrorDescription</name><value><array><data>"
                 "<value>VDI_IN_USE</value><value>ref</value></data></array></value></member>"
                 "</struct></value></param></params></methodResponse>",
                 &answer, &error),
          error);
    ck_assert(!answer.success);
    ck_assert_uint_eq(xv_value_count(answer.value), 2);
    ck_assert_str_eq(xv_value_string(xv_value_at(answer.value, 0), ""), "VDI_IN_USE");
    xv_value_free(answer.value);
}
END_TEST

START_TEST(malformed_answers)
{
    static const char *const texts[] = {
        "",
        "hello",
        "<html><body>404</body></html>",
        HEAD "<value>cut",
        HEAD "<value>x</value>",
        HEAD "<value>x</value>" TAIL "<more/>",
        HEAD "<value>x</value>" TAIL "text",
        HEAD "<value><boolean>yes</boolean></value>" TAIL,
        HEAD "<value><i4>1.5</i4></value>" TAIL,
        HEAD "<value><i4></i4></value>" TAIL,
        HEAD "<value><double>much</double></value>" TAIL,
        HEAD "<value><colour>red</colour></value>" TAIL,
        HEAD "<value>text<i4>1</i4></value>" TAIL,
        HEAD "<value><i4>1</i4>text</value>" TAIL,
        HEAD "<value><i4><b/>1</i4></value>" TAIL,
        HEAD "<value><array></array></value>" TAIL,
        HEAD "<value><array><data><item/></data></array></value>" TAIL,
        HEAD "<value><struct><member><value>1</value></member></struct></value>" TAIL,
        HEAD "<value><struct><member><name>a</name></member></struct></value>" TAIL,
        HEAD "<value>&unknown;</value>" TAIL,
        HEAD "<value>\xff\xfe</value>" TAIL,
        HEAD "<value>1</value></member><member><name>Value</name><value>2</value>" TAIL,
        "<methodResponse><params><param><value><struct></struct></value></param></params>"
        "</methodResponse>",
        "<methodResponse><params><param><value><struct><member><name>Status</name><value>Failure"
        "</value></member></struct></value></param></params></methodResponse>",
        "<methodResponse><params><param><value><struct><member><name>Status</name><value>Success"
        "</value></member></struct></value></param></params></methodResponse>",
        "<methodResponse><fault><value><struct><member><name>faultCode</name><value><int>1</int>"
        "</value></member><member><name>faultString</name><value>no</value></member></struct>"
        "</value></fault></methodResponse>",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        refuse(texts[i], XVSA_ERR_PROTOCOL);
}
END_TEST

START_TEST(entities_are_refused)
{
    refuse("<?xml version=\"1.0\"?><!DOCTYPE lolz [<!ENTITY lol \"lol\"><!ENTITY lol2 "
           "\"&lol;&lol;&lol;&lol;\">]><methodResponse><params/></methodResponse>",
           XVSA_ERR_PROTOCOL);
    refuse("<!DOCTYPE x SYSTEM \"http://192.0.2.1/x.dtd\"><methodResponse/>", XVSA_ERR_PROTOCOL);
    /* Neither does another encoding carry one past the filter. */
    xvsa_error *error = NULL;
    static const char wide[] = "\xff\xfe<\0!\0D\0O\0C\0T\0Y\0P\0E\0 \0x\0>\0";
    struct input input = {wide, sizeof wide - 1, 0};
    struct xv_xmlrpc_input setup = {.source = feed, .user = &input, .what = "test"};
    struct xv_answer answer = {0};
    ck_fails(xv_xmlrpc_decode(&setup, &answer, &error), XVSA_ERR_PROTOCOL, error);
}
END_TEST

START_TEST(deep_nesting_is_refused)
{
    char text[40000] = HEAD;
    size_t used = strlen(text);
    for (int i = 0; i < 1000; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "<value><array><data>");
    refuse(text, XVSA_ERR_LIMIT);
}
END_TEST

/* Repeats a text without end. */
static int feed_forever(void *user, void *data, size_t room, size_t *ret_length, xvsa_error **error)
{
    static const char head[] = HEAD;
    struct input *input = user;
    (void)error;
    char *output = data;
    if (input->left == 0) {
        memcpy(data, head, sizeof head - 1);
        *ret_length = sizeof head - 1;
        input->left = 1;
        return 0;
    }
    size_t length = strlen(input->text);
    *ret_length = 0;
    while (*ret_length + length <= room) {
        memcpy(output + *ret_length, input->text, length);
        *ret_length += length;
    }
    return 0;
}

static void refuse_endless(const char *text)
{
    xvsa_error *error = NULL;
    struct input input = {.text = text};
    struct xv_xmlrpc_input setup = {.source = feed_forever,
                                    .user = &input,
                                    .what = "test",
                                    .text_max = 1 << 20,
                                    .value_max = 100000};
    struct xv_answer answer = {0};
    ck_fails(xv_xmlrpc_decode(&setup, &answer, &error), XVSA_ERR_LIMIT, error);
}

START_TEST(endless_answers_are_refused)
{
    refuse_endless("aaaaaaaaaaaaaaaa");
    refuse_endless("<value");
    refuse_endless("<value><array><data><value/>");
}
END_TEST

START_TEST(too_many_values_are_refused)
{
    static const char head[] = HEAD "<value><array><data>";
    xvsa_error *error = NULL;
    struct xv_buffer text;
    struct xv_answer answer = {0};
    xv_buffer_init(&text, 1 << 24);
    ck_ok(xv_buffer_add_text(&text, head, &error), error);
    for (int i = 0; i < 2000; i++)
        ck_ok(xv_buffer_add_text(&text, "<value/>", &error), error);
    struct input input = {text.data, text.length, 0};
    struct xv_xmlrpc_input setup = {
        .source = feed, .user = &input, .what = "test", .value_max = 1000};
    ck_fails(xv_xmlrpc_decode(&setup, &answer, &error), XVSA_ERR_LIMIT, error);
    xv_buffer_free(&text);
}
END_TEST

struct seen {
    int count;
    int64_t sum;
};

static int on_member(void *user, const char *key, struct xv_value *value, xvsa_error **error)
{
    struct seen *seen = user;
    seen->count++;
    seen->sum += xv_value_get_int(value, "n", 0);
    bool stop = strcmp(key, "stop") == 0;
    xv_value_free(value);
    return stop ? xv_fail(error, XVSA_ERR_CONFLICT, "test", "stopped") : 0;
}

static int stream(const char *text, struct seen *seen, struct xv_answer *ret, xvsa_error **error)
{
    struct input input = {text, strlen(text), 7};
    struct xv_xmlrpc_input setup = {.source = feed,
                                    .user = &input,
                                    .what = "test",
                                    .on_member = on_member,
                                    .member_user = seen};
    return xv_xmlrpc_decode(&setup, ret, error);
}

START_TEST(members_are_streamed)
{
    xvsa_error *error = NULL;
    struct seen seen = {0};
    struct xv_answer answer = {0};
    ck_ok(stream(HEAD "<value><struct><member><name>a</name><value><struct><member><name>n</name>"
                      "<value>3</value></member></struct></value></member><member><name>b</name>"
                      "<value><struct><member><name>n</name><value>4</value></member></struct>"
                      "</value></member></struct></value>" TAIL,
                 &seen, &answer, &error),
          error);
    ck_assert(answer.success);
    ck_assert_ptr_null(answer.value);
    ck_assert_int_eq(seen.count, 2);
    ck_assert_int_eq(seen.sum, 7);
    ck_ok(stream(HEAD "<value><struct></struct></value>" TAIL, &seen, &answer, &error), error);
    ck_fails(stream(HEAD "<value><struct><member><name>stop</name><value>1</value></member>", &seen,
                    &answer, &error),
             XVSA_ERR_CONFLICT, error);
    ck_fails(stream(HEAD "<value>text</value>" TAIL, &seen, &answer, &error), XVSA_ERR_PROTOCOL,
             error);
}
END_TEST

/* Keeps the records as text: "ref{json}". */
static int collect_record(void *user, const char *key, struct xv_value *value, xvsa_error **error)
{
    struct xv_buffer *text = user;
    char *json = xv_value_to_json(value);
    int rc = xv_buffer_format(text, error, "%s%s", key, json == NULL ? "?" : json);
    free(json);
    xv_value_free(value);
    return rc;
}

static int prune(const char *records, const char *const *wanted, size_t step,
                 struct xv_buffer *text, xvsa_error **error)
{
    char whole[8192];
    struct xv_answer answer = {0};
    int length = snprintf(whole, sizeof whole, "%s%s%s", HEAD, records, TAIL);
    ck_assert_int_lt(length, (int)sizeof whole);
    struct input input = {whole, (size_t)length, step};
    struct xv_xmlrpc_input setup = {.source = feed,
                                    .user = &input,
                                    .what = "test",
                                    .on_member = collect_record,
                                    .wanted = wanted,
                                    .member_user = text};
    text->length = 0;
    return xv_xmlrpc_decode(&setup, &answer, error);
}

#define FIELD(name, value)  "<member><name>" name "</name><value>" value "</value></member>"
#define RECORD(ref, fields) FIELD(ref, "<struct>" fields "</struct>")

START_TEST(unwanted_members_are_taken_out)
{
    static const char *const wanted[] = {"a", "map", "set", NULL};
    static const char *const none[] = {NULL};
    static const struct {
        const char *records;
        const char *kept;
    } cases[] = {
        {RECORD("r", FIELD("a", "1") FIELD("b", "2")), "r{\"a\":\"1\"}"},
        {RECORD("r", FIELD("b", "2") FIELD("a", "1") FIELD("c", "3")), "r{\"a\":\"1\"}"},
        {RECORD("r", FIELD("b", "<array><data><value>x</value><value/></data></array>"))
             RECORD("a", FIELD("a", "&lt;/member&gt;")),
         "r{}a{\"a\":\"</member>\"}"},
        /* Of a map all keys are kept, or none; records may be named like members. */
        {RECORD("b", FIELD("map", "<struct>" FIELD("b", "1") FIELD("a", "2") "</struct>")),
         "b{\"map\":{\"b\":\"1\",\"a\":\"2\"}}"},
        {RECORD("r", FIELD("b", "<struct>" FIELD("a", "1")
                                    FIELD("x", "<struct>" FIELD("a", "2") "</struct>") "</struct>")
                         FIELD("a", "3")),
         "r{\"a\":\"3\"}"},
        /* The server does not escape the keys of maps. */
        {RECORD("r", FIELD("b", "<struct>" FIELD("</member><member>", "1") FIELD("<name>", "2")
                                    FIELD("</nam", "3") "</struct>") FIELD("a", "4")),
         "r{\"a\":\"4\"}"},
        {RECORD("r", FIELD("map", "<struct>" FIELD("</struct><member>", "1") "</struct>")
                         FIELD("b", "2")),
         "r{\"map\":{\"</struct><member>\":\"1\"}}"},
        /* Another layout than the server's is not pruned, but read. */
        {"<member> <name>r</name> <value> <struct> <member> <name>b</name> <value>1</value> "
         "</member>"
         " </struct> </value> </member>",
         "r{\"b\":\"1\"}"},
        {RECORD("r", FIELD("set", "<array><data><value>1</value></data></array>") FIELD("ab", "")
                         FIELD("", "x")),
         "r{\"set\":[\"1\"]}"},
    };
    struct xv_buffer text;
    xvsa_error *error = NULL;
    xv_buffer_init(&text, 1 << 16);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char records[4096];
        snprintf(records, sizeof records, "<value><struct>%s</struct></value>", cases[i].records);
        for (size_t step = 0; step < 40; step++) {
            ck_ok(prune(records, wanted, step, &text, &error), error);
            ck_assert_str_eq(text.data, cases[i].kept);
        }
    }
    ck_ok(prune("<value><struct>" RECORD("r", FIELD("a", "1")) "</struct></value>", none, 0, &text,
                &error),
          error);
    ck_assert_str_eq(text.data, "r{}");
    xv_buffer_free(&text);
}
END_TEST

START_TEST(pruned_answers_are_still_checked)
{
    static const char *const wanted[] = {"a", NULL};
    static const char *const broken[] = {
        "<value><struct>" RECORD("r", FIELD("b", "<struct><member>")) "</struct></value>",
        "<value><struct>" RECORD("r", "<member><name>b</name><value>1</value>") "</struct></value>",
        "<value><struct>" RECORD("r", "<member><name>b") "</struct></value>",
        "<value><struct>" RECORD("r", FIELD("a", "<oops>")) "</struct></value>",
        "<value><struct>" RECORD("r", FIELD("b", "1")) "<oops></struct></value>",
        "<!DOCTYPE x><value><struct>" RECORD("r", FIELD("b", "1")) "</struct></value>",
    };
    struct xv_buffer text;
    xv_buffer_init(&text, 1 << 16);
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        for (size_t step = 0; step < 20; step++) {
            xvsa_error *error = NULL;
            ck_fails(prune(broken[i], wanted, step, &text, &error), XVSA_ERR_PROTOCOL, error);
        }
    }
    xv_buffer_free(&text);
}
END_TEST

START_TEST(encoding)
{
    xvsa_error *error = NULL;
    struct xv_buffer text;
    struct xv_value *params = xv_value_new_array();
    struct xv_value *map = xv_value_new_struct();
    ck_assert(xv_value_set_bool(map, "b", false));
    ck_assert(xv_value_set(map, "d", xv_value_new_double(30)));
    ck_assert(xv_value_set_int(map, "i", -3));
    ck_assert(xv_value_add(params, xv_value_new_string("a<b>&\"c\"\r\n\xc3\xa4")));
    ck_assert(xv_value_add(params, map));
    ck_assert(xv_value_add(params, xv_value_new_array()));
    xv_buffer_init(&text, 4096);
    ck_ok(xv_xmlrpc_encode(&text, "VM.create", "OpaqueRef:s", params, &error), error);
    ck_assert_str_eq(text.data,
                     "<?xml version=\"1.0\"?><methodCall><methodName>VM.create</methodName><params>"
                     "<param><value>OpaqueRef:s</value></param><param><value>a&lt;b&gt;&amp;"
                     "&quot;c&quot;&#13;\n\xc3\xa4</value></param><param><value><struct><member>"
                     "<name>b</name><value><boolean>0</boolean></value></member><member><name>d"
                     "</name><value><double>30.0</double></value></member><member><name>i</name>"
                     "<value>-3</value></member></struct></value></param><param><value><array>"
                     "<data></data></array></value></param></params></methodCall>");
    xv_buffer_free(&text);
    xv_value_free(params);
}
END_TEST

static void refuse_param(struct xv_value *param, int code)
{
    xvsa_error *error = NULL;
    struct xv_buffer text;
    struct xv_value *params = xv_value_new_array();
    ck_assert(xv_value_add(params, param));
    xv_buffer_init(&text, XV_XMLRPC_REQUEST_MAX);
    ck_fails(xv_xmlrpc_encode(&text, "x", NULL, params, &error), code, error);
    xv_buffer_free(&text);
    xv_value_free(params);
}

START_TEST(what_is_not_sent)
{
    static const char *const keys[] = {"a&b", "a<b", ""};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        struct xv_value *map = xv_value_new_struct();
        ck_assert(xv_value_set_string(map, keys[i], "x"));
        refuse_param(map, XVSA_ERR_INVALID);
    }
    static const char *const texts[] = {"\x01", "\xff", "\xc0\xaf", "\xed\xa0\x80", "\xc3"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        refuse_param(xv_value_new_string(texts[i]), XVSA_ERR_INVALID);
    char *large = malloc(XV_XMLRPC_REQUEST_MAX);
    ck_assert_ptr_nonnull(large);
    memset(large, 'x', XV_XMLRPC_REQUEST_MAX - 1);
    large[XV_XMLRPC_REQUEST_MAX - 1] = '\0';
    refuse_param(xv_value_new_string(large), XVSA_ERR_LIMIT);
    free(large);
}
END_TEST

START_TEST(task_results)
{
    xvsa_error *error = NULL;
    struct xv_value *value = NULL;
    ck_ok(xv_xmlrpc_decode_result("<value>OpaqueRef:1</value>", &value, &error), error);
    ck_assert_str_eq(xv_value_string(value, ""), "OpaqueRef:1");
    xv_value_free(value);
    ck_ok(xv_xmlrpc_decode_result("<value><array><data><value>a</value></data></array></value>",
                                  &value, &error),
          error);
    ck_assert_uint_eq(xv_value_count(value), 1);
    xv_value_free(value);
    ck_ok(xv_xmlrpc_decode_result("", &value, &error), error);
    ck_assert_str_eq(xv_value_string(value, "?"), "");
    xv_value_free(value);
    ck_ok(xv_xmlrpc_decode_result("any text", &value, &error), error);
    ck_assert_str_eq(xv_value_string(value, ""), "any text");
    xv_value_free(value);
    ck_fails(xv_xmlrpc_decode_result("<value>cut", &value, &error), XVSA_ERR_PROTOCOL, error);
}
END_TEST

static void fill(Suite *suite)
{
    TCase *all = tcase_create("xmlrpc");
    tcase_set_timeout(all, 60);
    tcase_add_test(all, types);
    tcase_add_test(all, bare_keys);
    tcase_add_test(all, failures_are_answers);
    tcase_add_test(all, malformed_answers);
    tcase_add_test(all, entities_are_refused);
    tcase_add_test(all, deep_nesting_is_refused);
    tcase_add_test(all, endless_answers_are_refused);
    tcase_add_test(all, too_many_values_are_refused);
    tcase_add_test(all, members_are_streamed);
    tcase_add_test(all, unwanted_members_are_taken_out);
    tcase_add_test(all, pruned_answers_are_still_checked);
    tcase_add_test(all, encoding);
    tcase_add_test(all, what_is_not_sent);
    tcase_add_test(all, task_results);
    suite_add_tcase(suite, all);
}

UNIT_MAIN("xmlrpc")
