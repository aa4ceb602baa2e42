/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Members and their coordinator, over each kind of store.
 */
#include "unit.h"

#include <string.h>
#include <unistd.h>

#include "coord/member.h"
#include "stores.h"

#define SOON_MS 30000
#define TTL_MS  3000
#define KEPT_MS                                                                                    \
    6000 /* of members whose lease is seen to be kept, or taken away: twice what is short */
#define STEADY_MS 30000 /* of members that are not meant to lose their lease, however slow all is */

static struct stores stores;
static struct xv_kv *kv;
static xvsa_error *error;

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

static struct xv_member *join(const char *name, int64_t ttl_ms)
{
    struct xv_member *member = NULL;
    struct xv_member_options options = {
        .name = name, .pool = "pool-1", .facts = "{\"addr\":\"a:1\"}", .ttl_ms = ttl_ms};
    ck_ok(xv_member_join(kv, &options, NULL, &member, &error), error);
    ck_assert_int_eq(xv_member_state(member), XV_MEMBER_JOINED);
    return member;
}

static int64_t elect(struct xv_member *member)
{
    int64_t term = 0;
    ck_ok(xv_member_elect(member, NULL, &term, &error), error);
    return term;
}

static int64_t elect_at_last(struct xv_member *member)
{
    int64_t until = xv_clock_ms() + SOON_MS;
    int64_t term = 0;
    while (term == 0 && xv_clock_ms() < until) {
        term = elect(member);
        usleep(50000);
    }
    return term;
}

/* Decides something under a term; false when the term is over. */
static bool decide(struct xv_member *member, int64_t term)
{
    char key[XV_COORDINATOR_KEY_MAX];
    struct xv_kv_compare guard = xv_member_guard(member, term, key);
    struct xv_kv_op op = {XV_KV_PUT, "decision", xv_member_name(member), 0};
    bool succeeded = false;
    ck_ok(xv_kv_txn(kv, &guard, 1, &op, 1, NULL, &succeeded, NULL, &error), error);
    return succeeded;
}

/* All at once: a member must not join again in between and lose what it wrote. */
static void wipe(void)
{
    static const char *const prefixes[] = {"m/", "order/", "coord/", "epoch", "decision"};
    struct xv_kv_op ops[sizeof prefixes / sizeof prefixes[0]];
    bool succeeded = false;
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++)
        ops[i] = (struct xv_kv_op){.verb = XV_KV_DELETE_PREFIX, .key = prefixes[i]};
    ck_ok(xv_kv_txn(kv, NULL, 0, ops, sizeof prefixes / sizeof prefixes[0], NULL, &succeeded, NULL,
                    &error),
          error);
}

static void wait_for_generation(struct xv_member *member, uint32_t generation)
{
    int64_t until = xv_clock_ms() + SOON_MS;
    while ((xv_member_generation(member) < generation ||
            xv_member_state(member) != XV_MEMBER_JOINED) &&
           xv_clock_ms() < until)
        usleep(50000);
    ck_assert_uint_ge(xv_member_generation(member), generation);
    ck_assert_int_eq(xv_member_state(member), XV_MEMBER_JOINED);
}

static char *value_of(const char *key)
{
    struct xv_kv_list list;
    ck_ok(xv_kv_get(kv, key, NULL, &list, &error), error);
    char *value = list.count == 0 ? NULL : strdup(list.pairs[0].value);
    xv_kv_list_free(&list);
    return value;
}

START_TEST(members_are_seen)
{
    if (!stores_open(&stores, (enum store_kind)_i, &kv))
        return;
    struct xv_member *one = join("one", STEADY_MS);
    struct xv_member *two = join("two", STEADY_MS);
    struct xv_kv_list list;
    ck_ok(xv_kv_range(kv, "m/", NULL, &list, &error), error);
    ck_assert_uint_eq(list.count, 2);
    ck_assert_str_eq(list.pairs[0].key, "m/one");
    ck_assert_ptr_nonnull(strstr(list.pairs[0].value, "\"addr\":\"a:1\""));
    ck_assert_ptr_nonnull(strstr(list.pairs[0].value, "\"pool\":\"pool-1\""));
    ck_assert_int_eq(list.pairs[0].lease, xv_member_lease(one));
    xv_kv_list_free(&list);
    ck_ok(xv_member_tell(one, "{\"running\":3}", NULL, &error), error);
    char *value = value_of("m/one");
    ck_assert_ptr_nonnull(strstr(value, "\"running\":3"));
    free(value);
    ck_fails(xv_member_tell(one, "[]", NULL, &error), XVSA_ERR_INVALID, error);
    xv_member_leave(two);
    ck_ok(xv_kv_range(kv, "m/", NULL, &list, &error), error);
    ck_assert_uint_eq(list.count, 1);
    xv_kv_list_free(&list);
    ck_ok(xv_kv_range(kv, "order/pool-1/", NULL, &list, &error), error);
    ck_assert_uint_eq(list.count, 2);
    xv_kv_list_free(&list);
    xv_member_leave(one);
}
END_TEST

START_TEST(names_are_unique)
{
    if (!stores_open(&stores, (enum store_kind)_i, &kv))
        return;
    struct xv_member *one = join("one", STEADY_MS);
    struct xv_member *again = NULL;
    struct xv_member_options options = {.name = "one", .pool = "pool-1", .ttl_ms = TTL_MS};
    ck_fails(xv_member_join(kv, &options, NULL, &again, &error), XVSA_ERR_EXISTS, error);
    ck_assert_int_eq(xv_member_state(one), XV_MEMBER_JOINED);
    options.name = "a/b";
    ck_fails(xv_member_join(kv, &options, NULL, &again, &error), XVSA_ERR_INVALID, error);
    xv_member_leave(one);
    again = join("one", STEADY_MS);
    xv_member_leave(again);
}
END_TEST

START_TEST(the_lease_is_renewed)
{
    if (!stores_open(&stores, (enum store_kind)_i, &kv))
        return;
    struct xv_member *one = join("one", KEPT_MS);
    int64_t until = xv_clock_ms() + KEPT_MS + KEPT_MS / 3;
    while (xv_clock_ms() < until)
        usleep(100000);
    ck_assert_uint_eq(xv_member_generation(one), 1);
    char *value = value_of("m/one");
    ck_assert_ptr_nonnull(value);
    free(value);
    xv_member_leave(one);
}
END_TEST

START_TEST(the_first_added_coordinates)
{
    if (!stores_open(&stores, (enum store_kind)_i, &kv))
        return;
    struct xv_member *one = join("one", STEADY_MS);
    usleep(5000);
    struct xv_member *two = join("two", STEADY_MS);
    usleep(5000);
    struct xv_member *three = join("three", STEADY_MS);
    ck_assert_int_eq(elect(three), 0);
    ck_assert_int_eq(elect(two), 0);
    int64_t term = elect(one);
    ck_assert_int_gt(term, 0);
    ck_assert_int_eq(elect(two), 0);
    ck_assert_int_eq(elect(one), term);
    ck_assert(decide(one, term));
    ck_assert(!decide(two, term));
    ck_assert(!decide(two, 0));
    xv_member_leave(one);
    ck_assert_int_eq(elect(three), 0);
    int64_t next = elect_at_last(two);
    ck_assert_int_gt(next, term);
    ck_assert(decide(two, next));
    ck_assert(!decide(two, term));
    ck_ok(xv_member_resign(two, NULL, &error), error);
    ck_assert(!decide(two, next));
    ck_assert(!decide(two, 0));
    ck_ok(xv_member_resign(three, NULL, &error), error);
    int64_t third = elect_at_last(three);
    ck_assert_int_gt(third, next);
    ck_ok(xv_member_resign(two, NULL, &error), error);
    ck_assert_int_eq(elect(three), third);
    xv_member_leave(two);
    xv_member_leave(three);
}
END_TEST

START_TEST(a_lost_store_is_filled_again)
{
    if (!stores_open(&stores, (enum store_kind)_i, &kv))
        return;
    struct xv_epoch epoch;
    ck_ok(xv_epoch_ensure(kv, 4, NULL, NULL, &epoch, &error), error);
    struct xv_member *one = join("one", KEPT_MS);
    usleep(5000);
    struct xv_member *two = join("two", KEPT_MS);
    int64_t term = elect(one);
    char *before = value_of("order/pool-1/two");
    int64_t lease = xv_member_lease(two);
    wipe();
    wait_for_generation(one, 2);
    wait_for_generation(two, 2);
    ck_assert_int_ne(xv_member_lease(two), lease);
    char *after = value_of("order/pool-1/two");
    ck_assert_str_eq(before, after);
    free(before);
    free(after);
    struct xv_epoch present;
    ck_ok(xv_epoch_read(kv, NULL, &present, &error), error);
    ck_assert_int_eq(present.gen, 5);
    ck_assert_str_eq(present.site_uuid, epoch.site_uuid);
    ck_assert(!decide(one, term));
    ck_assert_int_gt(elect_at_last(one), term);
    xv_member_leave(one);
    xv_member_leave(two);
}
END_TEST

START_TEST(a_lost_lease_is_noticed)
{
    if (!stores_open(&stores, (enum store_kind)_i, &kv))
        return;
    struct xv_member *one = join("one", KEPT_MS);
    int64_t term = elect(one);
    ck_assert(decide(one, term));
    ck_ok(xv_kv_lease_revoke(kv, xv_member_lease(one), NULL, &error), error);
    ck_assert(!decide(one, term));
    wait_for_generation(one, 2);
    ck_assert(!decide(one, term));
    term = elect_at_last(one);
    ck_assert(decide(one, term));
    xv_member_leave(one);
}
END_TEST

static void fill(Suite *suite)
{
    TCase *tests = tcase_create("member");
    tcase_set_timeout(tests, 120);
    tcase_add_unchecked_fixture(tests, stores_start_etcd, stores_stop_etcd);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_loop_test(tests, members_are_seen, 0, STORE_KINDS);
    tcase_add_loop_test(tests, names_are_unique, 0, STORE_KINDS);
    tcase_add_loop_test(tests, the_lease_is_renewed, 0, STORE_KINDS);
    tcase_add_loop_test(tests, the_first_added_coordinates, 0, STORE_KINDS);
    tcase_add_loop_test(tests, a_lost_store_is_filled_again, 0, STORE_KINDS);
    tcase_add_loop_test(tests, a_lost_lease_is_noticed, 0, STORE_KINDS);
    suite_add_tcase(suite, tests);
}

UNIT_MAIN("member")
