/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What every store must do, over each kind of store.
 */
#include "kv_case.h"

START_TEST(revisions_count_as_they_should)
{
    if (!open_both(_i))
        return;
    put(kv, "a", "1");
    struct xv_kv_pair first = facts(other, "a");
    ck_assert_int_gt(first.create_revision, 0);
    ck_assert_int_eq(first.create_revision, first.mod_revision);
    put(other, "a", "2");
    struct xv_kv_pair second = facts(kv, "a");
    ck_assert_int_eq(second.create_revision, first.create_revision);
    ck_assert_int_gt(second.mod_revision, first.mod_revision);
    xvsa_error *error = NULL;
    struct xv_kv_op ops[] = {{.verb = XV_KV_DELETE, .key = "a"},
                             {.verb = XV_KV_PUT, .key = "b", .value = ""}};
    bool succeeded = false;
    int64_t revision = 0;
    ck_ok(xv_kv_txn(kv, NULL, 0, ops, 2, NULL, &succeeded, &revision, &error), error);
    ck_assert(succeeded);
    ck_assert_int_eq(facts(other, "b").create_revision, revision);
    ck_assert_int_eq(facts(other, "a").create_revision, 0);
    put(kv, "a", "3");
    ck_assert_int_gt(facts(other, "a").create_revision, revision);
}
END_TEST

START_TEST(compares_guard)
{
    if (!open_both(_i))
        return;
    put(kv, "a", "x");
    put(kv, "a", "y");
    struct xv_kv_pair pair = facts(kv, "a");
    int64_t made = pair.create_revision;
    int64_t changed = pair.mod_revision;
    ck_assert(holds(other, (struct xv_kv_compare){"a", XV_KV_CREATE_REVISION, made, NULL}));
    ck_assert(!holds(other, (struct xv_kv_compare){"a", XV_KV_CREATE_REVISION, 0, NULL}));
    ck_assert(holds(other, (struct xv_kv_compare){"a", XV_KV_MOD_REVISION, changed, NULL}));
    ck_assert(!holds(other, (struct xv_kv_compare){"a", XV_KV_MOD_REVISION, made, NULL}));
    ck_assert(holds(other, (struct xv_kv_compare){"none", XV_KV_MOD_REVISION, 0, NULL}));
    ck_assert(!holds(other, (struct xv_kv_compare){"none", XV_KV_CREATE_REVISION, 7, NULL}));
    ck_assert(holds(other, (struct xv_kv_compare){"a", XV_KV_VALUE, 0, "y"}));
    ck_assert(!holds(other, (struct xv_kv_compare){"a", XV_KV_VALUE, 0, "x"}));
    ck_assert(!holds(other, (struct xv_kv_compare){"none", XV_KV_VALUE, 0, ""}));
    ck_assert(holds(other, (struct xv_kv_compare){"a", XV_KV_MOD_REVISION, changed, "y"}));
    ck_assert(!holds(other, (struct xv_kv_compare){"a", XV_KV_MOD_REVISION, changed, "x"}));
    ck_assert(!holds(other, (struct xv_kv_compare){"none", XV_KV_MOD_REVISION, 0, "x"}));
}
END_TEST

START_TEST(a_transaction_is_whole_or_not_at_all)
{
    if (!open_both(_i))
        return;
    xvsa_error *error = NULL;
    put(kv, "a", "1");
    struct xv_kv_compare compares[] = {{"a", XV_KV_CREATE_REVISION, facts(kv, "a").mod_revision, 0},
                                       {"b", XV_KV_CREATE_REVISION, 0, NULL}};
    struct xv_kv_op ops[] = {{XV_KV_PUT, "b", "2", 0}, {XV_KV_PUT, "c", "3", 0}};
    bool succeeded = false;
    ck_ok(xv_kv_txn(kv, compares, 2, ops, 2, NULL, &succeeded, NULL, &error), error);
    ck_assert(succeeded);
    ck_assert_uint_eq(count(other, ""), 3);
    ck_ok(xv_kv_txn(other, compares, 2, ops, 2, NULL, &succeeded, NULL, &error), error);
    ck_assert(!succeeded);
    /* A put that names no lease undoes all. */
    struct xv_kv_op bad[] = {{XV_KV_PUT, "d", "2", 0}, {XV_KV_PUT, "e", "3", 4711}};
    ck_fails(xv_kv_txn(kv, NULL, 0, bad, 2, NULL, &succeeded, NULL, &error), XVSA_ERR_NOT_FOUND,
             error);
    ck_assert_uint_eq(count(other, ""), 3);
}
END_TEST

START_TEST(ranges_are_whole_and_in_order)
{
    if (!open_both(_i))
        return;
    char keys[100][16];
    struct xv_kv_op ops[100];
    xvsa_error *error = NULL;
    for (int page = 0; page < 12; page++) {
        bool succeeded = false;
        for (int i = 0; i < 100; i++) {
            snprintf(keys[i], sizeof keys[i], "p/%05d", page * 100 + i);
            ops[i] = (struct xv_kv_op){XV_KV_PUT, keys[i], keys[i], 0};
        }
        ck_ok(xv_kv_txn(kv, NULL, 0, ops, 100, NULL, &succeeded, NULL, &error), error);
    }
    put(kv, "p", "before");
    put(kv, "p0", "behind");
    struct xv_kv_list list;
    ck_ok(xv_kv_range(other, "p/", NULL, &list, &error), error);
    ck_assert_uint_eq(list.count, 1200);
    for (size_t i = 0; i < list.count; i++) {
        ck_assert_str_eq(list.pairs[i].key, list.pairs[i].value);
        ck_assert_uint_eq(list.pairs[i].length, 7);
        if (i > 0)
            ck_assert_int_lt(strcmp(list.pairs[i - 1].key, list.pairs[i].key), 0);
    }
    xv_kv_list_free(&list);
    struct xv_kv_op delete = {.verb = XV_KV_DELETE_PREFIX, .key = "p/"};
    bool succeeded = false;
    ck_ok(xv_kv_txn(kv, NULL, 0, &delete, 1, NULL, &succeeded, NULL, &error), error);
    ck_assert_uint_eq(count(other, "p"), 2);
}
END_TEST

START_TEST(large_values_are_kept)
{
    if (!open_both(_i))
        return;
    char *value = malloc(XV_KV_VALUE_MAX + 1);
    ck_assert_ptr_nonnull(value);
    memset(value, 'x', XV_KV_VALUE_MAX);
    value[XV_KV_VALUE_MAX] = '\0';
    char key[16];
    for (int i = 0; i < 24; i++) {
        snprintf(key, sizeof key, "big/%02d", i);
        value[i] = 'y';
        put(kv, key, value);
        value[i] = 'x';
    }
    xvsa_error *error = NULL;
    struct xv_kv_list list;
    ck_ok(xv_kv_range(other, "big/", NULL, &list, &error), error);
    ck_assert_uint_eq(list.count, 24);
    for (size_t i = 0; i < list.count; i++) {
        ck_assert_uint_eq(list.pairs[i].length, XV_KV_VALUE_MAX);
        ck_assert(list.pairs[i].value[i] == 'y');
    }
    xv_kv_list_free(&list);
    free(value);
}
END_TEST

START_TEST(odd_requests_are_refused)
{
    if (!open_both(_i))
        return;
    xvsa_error *error = NULL;
    bool succeeded = false;
    struct xv_kv_op twice[] = {{XV_KV_PUT, "a", "1", 0}, {XV_KV_PUT, "a", "2", 0}};
    ck_fails(xv_kv_txn(kv, NULL, 0, twice, 2, NULL, &succeeded, NULL, &error), XVSA_ERR_INVALID,
             error);
    struct xv_kv_op below[] = {{XV_KV_PUT, "a/b", "1", 0}, {XV_KV_DELETE_PREFIX, "a/", NULL, 0}};
    ck_fails(xv_kv_txn(kv, NULL, 0, below, 2, NULL, &succeeded, NULL, &error), XVSA_ERR_INVALID,
             error);
    struct xv_kv_op own = {XV_KV_PUT, "n/a", "1", 0};
    ck_fails(xv_kv_txn(kv, NULL, 0, &own, 1, NULL, &succeeded, NULL, &error), XVSA_ERR_INVALID,
             error);
    struct xv_kv_op line = {XV_KV_PUT, "a\nb", "1", 0};
    ck_fails(xv_kv_txn(kv, NULL, 0, &line, 1, NULL, &succeeded, NULL, &error), XVSA_ERR_INVALID,
             error);
    struct xv_kv_op bare = {XV_KV_PUT, "a", NULL, 0};
    ck_fails(xv_kv_txn(kv, NULL, 0, &bare, 1, NULL, &succeeded, NULL, &error), XVSA_ERR_INVALID,
             error);
    int64_t lease = 0;
    ck_fails(xv_kv_lease_grant(kv, 10, NULL, &lease, &error), XVSA_ERR_INVALID, error);
}
END_TEST

START_TEST(leases_end)
{
    if (!open_both(_i))
        return;
    xvsa_error *error = NULL;
    int64_t lease = 0;
    int64_t left = 0;
    ck_ok(xv_kv_lease_grant(kv, 60000, NULL, &lease, &error), error);
    put_leased(kv, "l/a", "1", lease);
    put_leased(kv, "l/b", "1", lease);
    put(kv, "l/c", "1");
    ck_assert_int_eq(facts(other, "l/a").lease, lease);
    ck_ok(xv_kv_lease_renew(kv, lease, NULL, &left, &error), error);
    ck_assert_int_gt(left, 0);
    put(kv, "l/b", "kept"); /* no longer of the lease */
    ck_ok(xv_kv_lease_revoke(kv, lease, NULL, &error), error);
    ck_assert_uint_eq(count(other, "l/"), 2);
    ck_ok(xv_kv_lease_renew(kv, lease, NULL, &left, &error), error);
    ck_assert_int_eq(left, 0);
    ck_ok(xv_kv_lease_revoke(kv, lease, NULL, &error), error);
    struct xv_kv_op op = {XV_KV_PUT, "l/d", "1", lease};
    bool succeeded = false;
    ck_fails(xv_kv_txn(kv, NULL, 0, &op, 1, NULL, &succeeded, NULL, &error), XVSA_ERR_NOT_FOUND,
             error);
}
END_TEST

START_TEST(time_ends_a_lease)
{
    if (!open_both(_i))
        return;
    xvsa_error *error = NULL;
    int64_t lease = 0;
    ck_ok(xv_kv_lease_grant(kv, 2000, NULL, &lease, &error), error);
    put_leased(kv, "l/a", "1", lease);
    int64_t until = xv_clock_ms() + SOON_MS;
    while (count(other, "l/") == 1 && xv_clock_ms() < until)
        usleep(50000);
    ck_assert_uint_eq(count(other, "l/"), 0);
}
END_TEST

START_TEST(what_changed_since_is_read)
{
    if (!open_both(_i))
        return;
    xvsa_error *error = NULL;
    struct xv_kv_list list;
    put(kv, "s/a", "1");
    put(kv, "s/b", "1");
    put(kv, "s/c", "1");
    ck_ok(xv_kv_range(kv, "s/", NULL, &list, &error), error);
    int64_t revision = list.revision;
    ck_assert_int_eq(list.total, 3);
    xv_kv_list_free(&list);
    put(other, "s/b", "2");
    put(other, "s/d", "2");
    put(other, "t/e", "2");
    ck_ok(xv_kv_range_since(kv, "s/", revision + 1, NULL, &list, &error), error);
    ck_assert_uint_eq(list.count, 2);
    ck_assert_str_eq(list.pairs[0].key, "s/b");
    ck_assert_str_eq(list.pairs[0].value, "2");
    ck_assert_str_eq(list.pairs[1].key, "s/d");
    ck_assert_int_eq(list.total, 4);
    revision = list.revision;
    xv_kv_list_free(&list);
    const struct xv_kv_op delete = {.verb = XV_KV_DELETE, .key = "s/a"};
    bool succeeded = false;
    ck_ok(xv_kv_txn(other, NULL, 0, &delete, 1, NULL, &succeeded, NULL, &error), error);
    ck_ok(xv_kv_range_since(kv, "s/", revision + 1, NULL, &list, &error), error);
    ck_assert_uint_eq(list.count, 0);
    ck_assert_int_eq(list.total, 3);
    xv_kv_list_free(&list);
}
END_TEST

/* Pages are no limit, neither for all keys nor for those that changed. */
START_TEST(what_changed_since_has_pages)
{
    if (!open_both(_i))
        return;
    xvsa_error *error = NULL;
    struct xv_kv_list list;
    put(kv, "s/first", "1");
    int64_t since = facts(kv, "s/first").mod_revision + 1;
    for (int i = 0; i < 600; i += XV_KV_TXN_MAX) {
        char keys[XV_KV_TXN_MAX][16];
        struct xv_kv_op ops[XV_KV_TXN_MAX];
        bool succeeded = false;
        for (int j = 0; j < XV_KV_TXN_MAX; j++) {
            snprintf(keys[j], sizeof keys[j], "s/%04d", i + j);
            ops[j] = (struct xv_kv_op){XV_KV_PUT, keys[j], "1", 0};
        }
        ck_ok(xv_kv_txn(other, NULL, 0, ops, XV_KV_TXN_MAX, NULL, &succeeded, NULL, &error), error);
    }
    ck_ok(xv_kv_range_since(kv, "s/", since, NULL, &list, &error), error);
    ck_assert_uint_eq(list.count, 600);
    ck_assert_int_eq(list.total, 601);
    xv_kv_list_free(&list);
    ck_ok(xv_kv_range(kv, "s/", NULL, &list, &error), error);
    ck_assert_uint_eq(list.count, 601);
    ck_assert_int_eq(list.total, 601);
    xv_kv_list_free(&list);
}
END_TEST

START_TEST(a_watch_wakes)
{
    if (!open_both(_i))
        return;
    xvsa_error *error = NULL;
    struct xv_kv_watch *watch = NULL;
    ck_ok(xv_kv_watch_open(kv, "w/", &watch, &error), error);
    settle(watch);
    put(other, "w/a", "1");
    ck_assert(told(watch, SOON_MS));
    settle(watch);
    put(other, "elsewhere", "1");
    ck_assert(!told(watch, 300));
    struct xv_kv_op delete = {.verb = XV_KV_DELETE_PREFIX, .key = "w/"};
    bool succeeded = false;
    ck_ok(xv_kv_txn(other, NULL, 0, &delete, 1, NULL, &succeeded, NULL, &error), error);
    ck_assert(told(watch, SOON_MS));
    settle(watch);
    /* A lease that is there still when all is quiet: what is told then is its end. */
    int64_t lease = 0;
    int64_t left = 0;
    while (left == 0) {
        ck_ok(xv_kv_lease_grant(other, 3000, NULL, &lease, &error), error);
        put_leased(other, "w/b", "1", lease);
        ck_assert(told(watch, SOON_MS));
        settle(watch);
        ck_ok(xv_kv_lease_renew(other, lease, NULL, &left, &error), error);
    }
    ck_assert(told(watch, SOON_MS));
    ck_assert_uint_eq(count(other, "w/"), 0);
    xv_kv_watch_close(watch);
}
END_TEST

/* Keys that a filter was asked about, and those that wake. */
struct filter {
    char asked[256];
    const char *waking;
    bool any;
};

static bool filter_wakes(void *user, const char *key)
{
    struct filter *filter = user;
    size_t length = strlen(filter->asked);
    if (key == NULL)
        return filter->any = true;
    snprintf(filter->asked + length, sizeof filter->asked - length, "%s ", key);
    return strcmp(key, filter->waking) == 0;
}

START_TEST(a_watch_is_filtered)
{
    if (!open_both(_i))
        return;
    xvsa_error *error = NULL;
    struct filter filter = {.waking = "w/b"};
    struct xv_kv_watch *watch = NULL;
    ck_ok(xv_kv_watch_open(kv, "", &watch, &error), error);
    xv_kv_watch_filter(watch, filter_wakes, &filter);
    settle(watch);
    ck_assert(xv_kv_watch_is_live(watch));
    filter.any = false;
    filter.asked[0] = '\0';
    put(other, "w/a", "1");
    int64_t until = xv_clock_ms() + SOON_MS;
    while (filter.asked[0] == '\0' && xv_clock_ms() < until)
        ck_assert(!told(watch, 500));
    ck_assert_str_eq(filter.asked, "w/a ");
    filter.asked[0] = '\0';
    const struct xv_kv_op ops[] = {{XV_KV_PUT, "w/b", "1", 0}, {XV_KV_PUT, "w/c", "1", 0}};
    bool succeeded = false;
    ck_ok(xv_kv_txn(other, NULL, 0, ops, 2, NULL, &succeeded, NULL, &error), error);
    ck_assert(told(watch, SOON_MS));
    settle(watch);
    ck_assert_str_eq(filter.asked, "w/b w/c ");
    /* Nothing of the store's own, and nothing was lost on the way. */
    ck_assert(!filter.any);
    xv_kv_watch_close(watch);
}
END_TEST

static void *fire(void *cancel)
{
    usleep(100000);
    xvsa_cancel_fire(cancel);
    return NULL;
}

START_TEST(a_watch_can_be_cancelled)
{
    if (!open_both(_i))
        return;
    xvsa_error *error = NULL;
    struct xv_kv_watch *watch = NULL;
    struct xv_call call = {0};
    bool changed = true;
    pthread_t thread;
    ck_ok(xvsa_cancel_new(&call.cancel, &error), error);
    ck_ok(xv_kv_watch_open(kv, "w/", &watch, &error), error);
    settle(watch);
    pthread_create(&thread, NULL, fire, call.cancel);
    ck_fails(xv_kv_watch_wait(watch, SOON_MS, &call, &changed, &error), XVSA_ERR_CANCELLED, error);
    pthread_join(thread, NULL);
    ck_fails(xv_kv_watch_wait(watch, SOON_MS, &call, &changed, &error), XVSA_ERR_CANCELLED, error);
    struct xv_kv_list list;
    ck_fails(xv_kv_range(kv, "", &call, &list, &error), XVSA_ERR_CANCELLED, error);
    xv_kv_watch_close(watch);
    xvsa_cancel_unref(call.cancel);
}
END_TEST

START_TEST(threads_do_not_lose_changes)
{
    if (!open_both(_i))
        return;
    pthread_t threads[WRITERS];
    for (int i = 0; i < WRITERS; i++)
        pthread_create(&threads[i], NULL, add_up, i % 2 == 0 ? kv : other);
    for (int i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    xvsa_error *error = NULL;
    struct xv_kv_list list;
    ck_ok(xv_kv_get(kv, "sum", NULL, &list, &error), error);
    ck_assert_int_eq(atoi(list.pairs[0].value), WRITERS * ADDS);
    xv_kv_list_free(&list);
}
END_TEST

START_TEST(epochs_only_grow)
{
    if (!open_both(_i))
        return;
    xvsa_error *error = NULL;
    struct xv_epoch one;
    struct xv_epoch two;
    ck_ok(xv_epoch_read(kv, NULL, &one, &error), error);
    ck_assert_int_eq(one.gen, 0);
    ck_ok(xv_epoch_ensure(kv, 3, NULL, NULL, &one, &error), error);
    ck_assert_int_eq(one.gen, 3);
    ck_ok(xv_epoch_ensure(other, 2, NULL, NULL, &two, &error), error);
    ck_assert_str_eq(one.value, two.value);
    ck_assert(holds(other, xv_epoch_guard(&one)));
    ck_ok(xv_epoch_ensure(other, 5, "11111111-2222-3333-4444-555555555555", NULL, &two, &error),
          error);
    ck_assert_int_eq(two.gen, 5);
    ck_assert_str_eq(one.site_uuid, two.site_uuid);
    ck_assert(!holds(other, xv_epoch_guard(&one)));
    ck_assert(holds(kv, xv_epoch_guard(&two)));
    int64_t token = 0;
    ck_ok(xv_epoch_token(&two, 17, &token, &error), error);
    ck_assert_int_eq(token, 5 * (INT64_C(1) << 44) + 17);
    ck_assert_int_eq(xv_epoch_of_token(token), 5);
    ck_fails(xv_epoch_token(&two, INT64_C(1) << 44, &token, &error), XVSA_ERR_LIMIT, error);
    put(kv, XV_EPOCH_KEY, "{}");
    ck_fails(xv_epoch_read(kv, NULL, &one, &error), XVSA_ERR_FORMAT, error);
}
END_TEST

START_TEST(prefixes_keep_sites_apart)
{
    if (!open_both(_i) || _i == STORE_MEMORY)
        return;
    struct xv_kv *site = NULL;
    ck_assert(stores_open_at(&stores, (enum store_kind)_i, "other", &site));
    put(kv, "a", "1");
    ck_assert_uint_eq(count(site, ""), 0);
    put(site, "a", "2");
    ck_assert_uint_eq(count(kv, ""), 1);
    xv_kv_close(site);
}
END_TEST

START_TEST(addresses_are_checked)
{
    static const char *const bad[] = {
        "", "file:x", "etcd:", "etcd:https://", "etcd:http://a:1", "etcd:https://u:p@h:1"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        xvsa_error *error = NULL;
        struct xv_kv_options options = {.url = bad[i]};
        ck_fails(xv_kv_open(&options, NULL, &kv, &error), XVSA_ERR_INVALID, error);
    }
}
END_TEST

static void fill(Suite *suite)
{
    TCase *tests = tcase_create("kv");
    tcase_set_timeout(tests, 120);
    tcase_add_unchecked_fixture(tests, stores_start_etcd, stores_stop_etcd);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_loop_test(tests, revisions_count_as_they_should, 0, STORE_KINDS);
    tcase_add_loop_test(tests, compares_guard, 0, STORE_KINDS);
    tcase_add_loop_test(tests, a_transaction_is_whole_or_not_at_all, 0, STORE_KINDS);
    tcase_add_loop_test(tests, ranges_are_whole_and_in_order, 0, STORE_KINDS);
    tcase_add_loop_test(tests, large_values_are_kept, 0, STORE_KINDS);
    tcase_add_loop_test(tests, odd_requests_are_refused, 0, STORE_KINDS);
    tcase_add_loop_test(tests, leases_end, 0, STORE_KINDS);
    tcase_add_loop_test(tests, time_ends_a_lease, 0, STORE_KINDS);
    tcase_add_loop_test(tests, what_changed_since_is_read, 0, STORE_KINDS);
    tcase_add_loop_test(tests, what_changed_since_has_pages, 0, STORE_KINDS);
    tcase_add_loop_test(tests, a_watch_wakes, 0, STORE_KINDS);
    tcase_add_loop_test(tests, a_watch_is_filtered, 0, STORE_KINDS);
    tcase_add_loop_test(tests, a_watch_can_be_cancelled, 0, STORE_KINDS);
    tcase_add_loop_test(tests, threads_do_not_lose_changes, 0, STORE_KINDS);
    tcase_add_loop_test(tests, epochs_only_grow, 0, STORE_KINDS);
    tcase_add_loop_test(tests, prefixes_keep_sites_apart, 0, STORE_KINDS);
    tcase_add_test(tests, addresses_are_checked);
    suite_add_tcase(suite, tests);
}

UNIT_MAIN("kv")
