/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Clients of a site: what they may submit, find and control while nobody works on it.
 */
#include "unit.h"

#include <jansson.h>
#include <string.h>

#include "agent/subject.h"
#include "xvsa.h"

#define POOL "19e7e7f8-ad93-4ff0-8c14-80e07acdc1ef"
#define SITE "b0145465-bbbf-a588-52fe-052b07acc3b7"
#define JOB  "0123456789abcdef0123456789abcdef"

static xvsa_context *context;
static xvsa_site *site;

static void open_site(void)
{
    xvsa_error *error = NULL;
    xvsa_site_options options = XVSA_SITE_OPTIONS_INIT;
    options.store = "sqlite:";
    options.name = "unit";
    ck_ok(xvsa_context_new(NULL, &context, &error), error);
    ck_ok(xvsa_site_open(context, &options, NULL, &site, &error), error);
}

static void close_site(void)
{
    xvsa_error *error = NULL;
    ck_ok(xvsa_site_close(site, &error), error);
    xvsa_site_unref(site);
    xvsa_context_unref(context);
}

static char *submit(const char *more)
{
    char spec[512];
    char *id = NULL;
    xvsa_error *error = NULL;
    snprintf(spec, sizeof spec,
             "{\"type\": \"backup\", \"selection\": {\"vms\": [{\"all\": true}]},"
             " \"pool\": \"" POOL "\", \"repository\": \"main\"%s}",
             more);
    ck_ok(xvsa_site_submit(site, spec, NULL, &id, &error), error);
    return id;
}

static json_t *job(const char *id)
{
    char *text = NULL;
    xvsa_error *error = NULL;
    ck_ok(xvsa_site_job(site, id, NULL, &text, &error), error);
    json_t *document = json_loads(text, 0, NULL);
    ck_assert_ptr_nonnull(document);
    xvsa_free(text);
    return document;
}

/* A backup of so many pools, each by a uuid. */
static int32_t submit_to(unsigned pools, xvsa_error **error)
{
    char uuid[40];
    char *id = NULL;
    json_t *array = json_array();
    for (unsigned i = 0; i < pools; i++) {
        snprintf(uuid, sizeof uuid, "19e7e7f8-ad93-4ff0-8c14-%012u", i);
        json_array_append_new(array, json_string(uuid));
    }
    json_t *spec = json_pack("{s:s, s:{s:[{s:b}]}, s:o, s:s}", "type", "backup", "selection", "vms",
                             "all", 1, "pools", array, "repository", "main");
    char *text = json_dumps(spec, 0);
    int32_t rc = xvsa_site_submit(site, text, NULL, &id, error);
    free(text);
    json_decref(spec);
    xvsa_free(id);
    return rc;
}

static void check_text(const char *id, const char *name, const char *expected)
{
    json_t *document = job(id);
    ck_assert_str_eq(json_string_value(json_object_get(document, name)), expected);
    json_decref(document);
}

START_TEST(what_cannot_be_submitted)
{
    static const struct {
        const char *spec;
        int32_t code;
    } cases[] = {
        {"", XVSA_ERR_INVALID},
        {"[]", XVSA_ERR_INVALID},
        {"{\"type\": \"backup\"}", XVSA_ERR_NOT_FOUND},
        {"{\"pool\": \"name\", \"type\": \"verify\"}", XVSA_ERR_NOT_FOUND},
        {"{\"pool\": \"" POOL "\", \"pools\": [\"" POOL "\"]}", XVSA_ERR_INVALID},
        {"{\"pools\": []}", XVSA_ERR_INVALID},
        {"{\"pools\": [1]}", XVSA_ERR_INVALID},
        {"{\"pool\": \"" POOL "\", \"type\": \"verify\"}", XVSA_ERR_INVALID},
        {"{\"pool\": \"" POOL "\", \"repository\": \"r\", \"type\": \"verify\", \"priority\": 101}",
         XVSA_ERR_INVALID},
        {"{\"pool\": \"" POOL "\", \"repository\": \"r\", \"type\": \"verify\", \"odd\": 1}",
         XVSA_ERR_INVALID},
        {"{\"pool\": \"" POOL "\", \"repository\": \"r\", \"type\": \"verify\","
         " \"limits\": {\"windows\": [{\"from\": \"25:00\"}]}}",
         XVSA_ERR_INVALID},
        {"{\"pool\": \"" POOL "\", \"repository\": \"r\", \"type\": \"backup\","
         " \"only_failed_of\": \"" JOB "\"}",
         XVSA_ERR_INVALID},
        {"{\"pools\": [\"" POOL "\", \"" SITE "\"], \"repository\": \"r\", \"type\": \"verify\"}",
         XVSA_ERR_INVALID},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *id = NULL;
        xvsa_error *error = NULL;
        ck_fails(xvsa_site_submit(site, cases[i].spec, NULL, &id, &error), cases[i].code, error);
    }
}
END_TEST

START_TEST(a_job_has_so_many_pools)
{
    xvsa_error *error = NULL;
    ck_ok(submit_to(64, &error), error);
    ck_fails(submit_to(65, &error), XVSA_ERR_INVALID, error);
}
END_TEST

START_TEST(a_job_is_found_by_the_beginning_of_its_id)
{
    char *id = submit("");
    char beginning[7];
    xvsa_error *error = NULL;
    char *text = NULL;
    snprintf(beginning, sizeof beginning, "%s", id);
    check_text(beginning, "id", id);
    check_text(id, "state", "queued");
    ck_fails(xvsa_site_job(site, "abc", NULL, &text, &error), XVSA_ERR_INVALID, error);
    ck_fails(xvsa_site_job(site, "x234567", NULL, &text, &error), XVSA_ERR_INVALID, error);
    ck_fails(xvsa_site_job(site, "q/", NULL, &text, &error), XVSA_ERR_INVALID, error);
    beginning[5] = beginning[5] == '0' ? '1' : '0';
    ck_fails(xvsa_site_job(site, beginning, NULL, &text, &error), XVSA_ERR_NOT_FOUND, error);
    xvsa_free(id);
}
END_TEST

START_TEST(jobs_are_listed_newest_first)
{
    char *first = submit("");
    char *second = submit(", \"priority\": 7, \"name\": \"nightly\"");
    char *text = NULL;
    xvsa_error *error = NULL;
    ck_ok(xvsa_site_list_jobs(site, 1, NULL, &text, &error), error);
    json_t *list = json_loads(text, 0, NULL);
    ck_assert_uint_eq(json_array_size(list), 1);
    xvsa_free(text);
    json_decref(list);
    ck_ok(xvsa_site_list_jobs(site, 0, NULL, &text, &error), error);
    list = json_loads(text, 0, NULL);
    ck_assert_uint_eq(json_array_size(list), 2);
    xvsa_free(text);
    json_decref(list);
    check_text(second, "name", "nightly");
    xvsa_free(first);
    xvsa_free(second);
}
END_TEST

START_TEST(control_goes_one_way_once_it_cancels)
{
    char *id = submit("");
    xvsa_error *error = NULL;
    ck_ok(xvsa_site_control(site, id, XVSA_CONTROL_SUSPEND, NULL, &error), error);
    check_text(id, "state", "suspended");
    ck_ok(xvsa_site_control(site, id, XVSA_CONTROL_RESUME, NULL, &error), error);
    check_text(id, "state", "queued");
    ck_ok(xvsa_site_control(site, id, XVSA_CONTROL_CANCEL, NULL, &error), error);
    check_text(id, "state", "cancelling");
    ck_fails(xvsa_site_control(site, id, XVSA_CONTROL_RESUME, NULL, &error), XVSA_ERR_STATE, error);
    ck_ok(xvsa_site_control(site, id, XVSA_CONTROL_CANCEL_NOW, NULL, &error), error);
    ck_fails(xvsa_site_control(site, id, XVSA_CONTROL_CANCEL, NULL, &error), XVSA_ERR_STATE, error);
    ck_fails(xvsa_site_control(site, id, 0, NULL, &error), XVSA_ERR_INVALID, error);
    ck_fails(xvsa_site_control(site, id, 5, NULL, &error), XVSA_ERR_INVALID, error);
    char *again = NULL;
    ck_fails(xvsa_site_retry(site, id, NULL, &again, &error), XVSA_ERR_STATE, error);
    xvsa_free(id);
}
END_TEST

START_TEST(waiting_ends_with_its_time)
{
    char *id = submit("");
    xvsa_error *error = NULL;
    xvsa_call call = XVSA_CALL_INIT;
    call.timeout_ms = 50;
    ck_fails(xvsa_site_wait(site, id, &call, &error), XVSA_ERR_TIMEOUT, error);
    ck_fails(xvsa_site_wait(site, JOB, &call, &error), XVSA_ERR_NOT_FOUND, error);
    xvsa_free(id);
}
END_TEST

START_TEST(a_closed_site_answers_state)
{
    xvsa_error *error = NULL;
    char *text = NULL;
    ck_ok(xvsa_site_members(site, NULL, &text, &error), error);
    ck_assert_str_eq(text, "{\"pools\":[],\"members\":[]}");
    xvsa_free(text);
    ck_ok(xvsa_site_close(site, &error), error);
    ck_fails(xvsa_site_members(site, NULL, &text, &error), XVSA_ERR_STATE, error);
}
END_TEST

START_TEST(options_of_a_site)
{
    xvsa_error *error = NULL;
    xvsa_site *other = NULL;
    xvsa_site_options options = XVSA_SITE_OPTIONS_INIT;
    options.store = "sqlite:";
    ck_fails(xvsa_site_open(context, &options, NULL, &other, &error), XVSA_ERR_INVALID, error);
    options.name = "Not a name";
    ck_fails(xvsa_site_open(context, &options, NULL, &other, &error), XVSA_ERR_INVALID, error);
    options.name = "unit";
    options.key_file = "key.pem";
    ck_fails(xvsa_site_open(context, &options, NULL, &other, &error), XVSA_ERR_INVALID, error);
    options.key_file = NULL;
    options.store = "what:";
    ck_assert_int_ne(xvsa_site_open(context, &options, NULL, &other, &error), XVSA_OK);
    xv_error_clear(&error);
}
END_TEST

START_TEST(tags_belong_to_jobs_of_their_site)
{
    char tag[XV_SITE_TAG_MAX];
    char id[XV_SITE_ID_LENGTH + 1];
    xv_tag_make(tag, JOB, "deadbeef-0000", SITE);
    ck_assert_str_eq(tag, "xvsa:" JOB ".deadbeef-0000:sb0145465bbbfa588");
    ck_assert(xv_tag_job(tag, SITE, id));
    ck_assert_str_eq(id, JOB);
    ck_assert(!xv_tag_job(tag, POOL, id));
    ck_assert(!xv_tag_job("xvsa:" JOB ":f0123456789abcdef", SITE, id));
    ck_assert(!xv_tag_job("xvsa-base:" JOB ".deadbeef-0000:sb0145465bbbfa588", SITE, id));
    ck_assert(!xv_tag_job("", SITE, id));
}
END_TEST

START_TEST(a_task_is_about_one_subject)
{
    json_t *spec = json_loads("{\"type\": \"backup\", \"selection\": {\"vms\": [{\"all\": true}],"
                              " \"exclude\": {\"vms\": [{\"name\": \"x\"}],"
                              " \"disks\": [{\"device\": \"1\"}]}}}",
                              0, NULL);
    const struct xv_queued_job queued = {.type = "backup", .spec = spec};
    char *text = xv_subject_spec(&queued, "u");
    ck_assert_str_eq(text, "{\"type\":\"backup\",\"selection\":{\"vms\":[{\"uuid\":\"u\"}],"
                           "\"exclude\":{\"disks\":[{\"device\":\"1\"}]}}}");
    free(text);
    json_decref(spec);
}
END_TEST

static void fill(Suite *suite)
{
    TCase *clients = tcase_create("clients");
    tcase_add_checked_fixture(clients, open_site, close_site);
    tcase_add_test(clients, what_cannot_be_submitted);
    tcase_add_test(clients, a_job_has_so_many_pools);
    tcase_add_test(clients, a_job_is_found_by_the_beginning_of_its_id);
    tcase_add_test(clients, jobs_are_listed_newest_first);
    tcase_add_test(clients, control_goes_one_way_once_it_cancels);
    tcase_add_test(clients, waiting_ends_with_its_time);
    tcase_add_test(clients, a_closed_site_answers_state);
    tcase_add_test(clients, options_of_a_site);
    suite_add_tcase(suite, clients);
    TCase *subjects = tcase_create("subjects");
    tcase_add_test(subjects, tags_belong_to_jobs_of_their_site);
    tcase_add_test(subjects, a_task_is_about_one_subject);
    suite_add_tcase(suite, subjects);
}

UNIT_MAIN("site")
