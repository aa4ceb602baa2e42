/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What members read of a site: brought up to date from an earlier view, it is as if it were read as a whole.
 */
#include "unit.h"

#include <string.h>

#include "agent/view.h"
#include "stores.h"

#define POOL "19e7e7f8-ad93-4ff0-8c14-80e07acdc1ef"
#define JOB  "0123456789abcdef0123456789abcdef"

static struct stores stores;
static struct xv_kv *kv;

static void set_up(void)
{
    stores_start(&stores);
}

static void tear_down(void)
{
    xv_kv_close(kv);
    kv = NULL;
    stores_stop(&stores);
}

static void run(const struct xv_kv_op *op)
{
    xvsa_error *error = NULL;
    bool succeeded = false;
    ck_ok(xv_kv_txn(kv, NULL, 0, op, 1, NULL, &succeeded, NULL, &error), error);
    ck_assert(succeeded);
}

static void put(const char *key, const char *value)
{
    run(&(struct xv_kv_op){.verb = XV_KV_PUT, .key = key, .value = value});
}

static void put_task(const char *pool, const char *subject, const char *state, int order)
{
    char key[XV_KEY_MAX];
    char value[256];
    snprintf(key, sizeof key, "v/" JOB "/%s/%s", pool, subject);
    snprintf(
        value, sizeof value,
        "{\"state\": \"%s\", \"name\": \"%s\", \"attempt\": 0, \"owner\": \"\", \"work\": \"\","
        " \"order\": %d, \"host\": \"\", \"disks\": []}",
        state, subject, order);
    put(key, value);
}

static void put_job(void)
{
    put("q/" JOB,
        "{\"id\": \"" JOB "\", \"spec\": {\"type\": \"backup\", \"name\": \"\"}, \"repository\":"
        " \"main\", \"pools\": [\"" POOL "\"], \"control\": \"run\", \"priority\": 0,"
        " \"submitted_ms\": 1}");
}

/* Tasks in their order: "<subject> <state>, ". before is replaced. */
static void read_view(struct xv_view *before, char *ret, size_t size)
{
    xvsa_error *error = NULL;
    struct xv_view view;
    ck_ok(xv_view_read(kv, NULL, POOL, before, NULL, &view, &error), error);
    ck_assert_uint_eq(view.job_count, 1);
    ret[0] = '\0';
    for (size_t i = 0; i < view.jobs[0].task_count; i++) {
        const struct xv_task_record *task = &view.jobs[0].tasks[i];
        size_t length = strlen(ret);
        snprintf(ret + length, size - length, "%s %s, ", task->subject,
                 xv_task_state_name(task->state));
    }
    xv_view_free(before);
    *before = view;
}

/* Both ways of reading say the same. */
static void check(struct xv_view *kept, const char *expected)
{
    char text[512];
    struct xv_view none = {0};
    read_view(kept, text, sizeof text);
    ck_assert_str_eq(text, expected);
    read_view(&none, text, sizeof text);
    ck_assert_str_eq(text, expected);
    xv_view_free(&none);
}

START_TEST(a_view_is_brought_up_to_date)
{
    struct xv_view view = {0};
    if (!stores_open(&stores, (enum store_kind)_i, &kv))
        return;
    put_job();
    check(&view, "");
    put_task(POOL, "b", "pending", 0);
    put_task(POOL, "a", "pending", 1);
    put_task(POOL, "d", "pending", 2);
    put_task("another-pool", "a", "running", 0);
    check(&view, "b pending, a pending, d pending, ");
    check(&view, "b pending, a pending, d pending, ");
    put_task(POOL, "a", "assigned", 1);
    put_task(POOL, "c", "pending", 3);
    check(&view, "b pending, a assigned, d pending, c pending, ");
    put_task(POOL, "e", "refused", 4);
    run(&(struct xv_kv_op){.verb = XV_KV_DELETE, .key = "v/" JOB "/" POOL "/b"});
    check(&view, "a assigned, d pending, c pending, e refused, ");
    run(&(struct xv_kv_op){.verb = XV_KV_DELETE, .key = "v/" JOB "/" POOL "/a"});
    put_task(POOL, "a", "running", 1);
    check(&view, "a running, d pending, c pending, e refused, ");
    run(&(struct xv_kv_op){.verb = XV_KV_DELETE_PREFIX, .key = "v/" JOB "/"});
    check(&view, "");
    xv_view_free(&view);
}
END_TEST

/* What has been done to a view that was not written down is not in the next one. */
START_TEST(a_view_is_what_the_store_has)
{
    struct xv_view view = {0};
    if (!stores_open(&stores, (enum store_kind)_i, &kv))
        return;
    put_job();
    put_task(POOL, "a", "pending", 0);
    check(&view, "a pending, ");
    xv_set_text(view.jobs[0].tasks[0].json, "state", "assigned");
    check(&view, "a pending, ");
    xv_view_free(&view);
}
END_TEST

START_TEST(views_rest_on_their_own_tasks)
{
    ck_assert(xv_view_rests_on("epoch", POOL));
    ck_assert(xv_view_rests_on("m/a", POOL));
    ck_assert(xv_view_rests_on("order/" POOL "/a", POOL));
    ck_assert(xv_view_rests_on("q/" JOB, POOL));
    ck_assert(xv_view_rests_on("jp/" JOB "/another-pool", POOL));
    ck_assert(xv_view_rests_on("r/" JOB "/a", POOL));
    ck_assert(xv_view_rests_on("v/" JOB "/" POOL "/a", POOL));
    ck_assert(!xv_view_rests_on("v/" JOB "/another-pool/a", POOL));
    ck_assert(!xv_view_rests_on("v/" JOB, POOL));
    ck_assert(!xv_view_rests_on("vr/" JOB "/" POOL "/a", POOL));
    ck_assert(!xv_view_rests_on("p/" JOB "/" POOL "/a", POOL));
    ck_assert(!xv_view_rests_on("coord/" POOL, POOL));
}
END_TEST

static void fill(Suite *suite)
{
    TCase *tests = tcase_create("view");
    tcase_set_timeout(tests, 120);
    tcase_add_unchecked_fixture(tests, stores_start_etcd, stores_stop_etcd);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_loop_test(tests, a_view_is_brought_up_to_date, 0, STORE_KINDS);
    tcase_add_loop_test(tests, a_view_is_what_the_store_has, 0, STORE_KINDS);
    tcase_add_test(tests, views_rest_on_their_own_tasks);
    suite_add_tcase(suite, tests);
}

UNIT_MAIN("view")
