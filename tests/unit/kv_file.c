/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a file that processes share must do besides.
 */
#include "kv_case.h"

#include "coord/kv_sqlite.h"

/* A child that puts a key with a lease and dies, or waits for its end. */
static pid_t live_elsewhere(bool wait_there)
{
    int ready[2];
    ck_assert_int_eq(pipe(ready), 0);
    pid_t child = unit_fork();
    if (child == 0) {
        struct xv_kv *mine = NULL;
        int64_t lease = 0;
        bool succeeded = false;
        if (!stores_open(&stores, STORE_FILE, &mine) ||
            xv_kv_lease_grant(mine, 3600000, NULL, &lease, NULL) != 0)
            _exit(1);
        struct xv_kv_op op = {XV_KV_PUT, "l/child", "1", lease};
        if (xv_kv_txn(mine, NULL, 0, &op, 1, NULL, &succeeded, NULL, NULL) != 0)
            _exit(1);
        if (write(ready[1], "x", 1) != 1)
            _exit(1);
        while (wait_there)
            pause();
        _exit(0);
    }
    char byte;
    ck_assert_int_eq(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    close(ready[1]);
    return child;
}

START_TEST(a_dead_process_has_no_lease)
{
    ck_assert(open_both(STORE_FILE));
    pid_t child = live_elsewhere(true);
    ck_assert_uint_eq(count(kv, "l/"), 1);
    struct xv_kv_watch *watch = NULL;
    xvsa_error *error = NULL;
    ck_ok(xv_kv_watch_open(kv, "l/", &watch, &error), error);
    kill(child, SIGSTOP);
    ck_assert(!told(watch, 500)); /* asleep is not dead */
    kill(child, SIGKILL);
    ck_assert_int_eq(waitpid(child, NULL, 0), child);
    ck_assert(told(watch, SOON_MS));
    ck_assert_uint_eq(count(kv, "l/"), 0);
    ck_assert_uint_eq(count(other, "l/"), 0);
    xv_kv_watch_close(watch);
}
END_TEST

static int64_t revision_of(struct xv_kv *store)
{
    xvsa_error *error = NULL;
    struct xv_kv_list list;
    ck_ok(xv_kv_range(store, "none/", NULL, &list, &error), error);
    int64_t revision = list.revision;
    xv_kv_list_free(&list);
    return revision;
}

static void *look_around(void *store)
{
    for (int i = 0; i < 50; i++)
        (void)count(store, "l/");
    return NULL;
}

START_TEST(a_lease_ends_once)
{
    ck_assert(open_both(STORE_FILE));
    struct xv_kv *handles[4] = {kv, other, NULL, NULL};
    pthread_t threads[4];
    pid_t child = live_elsewhere(true);
    for (int i = 2; i < 4; i++)
        ck_assert(stores_open(&stores, STORE_FILE, &handles[i]));
    int64_t before = revision_of(kv);
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, look_around, handles[i]);
    kill(child, SIGKILL);
    ck_assert_int_eq(waitpid(child, NULL, 0), child);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    ck_assert_uint_eq(count(kv, "l/"), 0);
    ck_assert_int_eq(revision_of(kv), before + 1);
    xv_kv_close(handles[2]);
    xv_kv_close(handles[3]);
}
END_TEST

START_TEST(a_handle_takes_its_leases_along)
{
    ck_assert(open_both(STORE_FILE));
    xvsa_error *error = NULL;
    int64_t lease = 0;
    struct xv_kv *third = NULL;
    ck_assert(stores_open(&stores, STORE_FILE, &third));
    ck_ok(xv_kv_lease_grant(third, XV_KV_TTL_PROCESS, NULL, &lease, &error), error);
    put_leased(third, "l/third", "1", lease);
    ck_assert_uint_eq(count(kv, "l/"), 1);
    xv_kv_close(third);
    ck_assert_uint_eq(count(kv, "l/"), 0);
}
END_TEST

START_TEST(processes_do_not_lose_changes)
{
    ck_assert(open_both(STORE_FILE));
    pid_t children[2];
    for (int i = 0; i < 2; i++) {
        children[i] = unit_fork();
        if (children[i] == 0) {
            struct xv_kv *mine = NULL;
            if (!stores_open(&stores, STORE_FILE, &mine))
                _exit(1);
            add_up(mine);
            xv_kv_close(mine);
            _exit(0);
        }
    }
    for (int i = 0; i < 2; i++) {
        int status = 1;
        ck_assert_int_eq(waitpid(children[i], &status, 0), children[i]);
        ck_assert_int_eq(status, 0);
    }
    xvsa_error *error = NULL;
    struct xv_kv_list list;
    ck_ok(xv_kv_get(kv, "sum", NULL, &list, &error), error);
    ck_assert_int_eq(atoi(list.pairs[0].value), 2 * ADDS);
    xv_kv_list_free(&list);
}
END_TEST

#define SYNC_FULL 2

/* What commits of the handle do now, in SQLite's number. */
static int64_t sync_of(struct xv_kv *store)
{
    struct xv_kv_sqlite *self = xv_kv_sqlite_enter(store, NULL);
    xvsa_error *error = NULL;
    int64_t level = -1;
    ck_ok(
        xv_sqlite_number(&self->sqlite, "read a setting", &level, &error, "PRAGMA synchronous", ""),
        error);
    xv_kv_sqlite_leave(self);
    return level;
}

static int refuse_full(void *user, int action, const char *name, const char *value,
                       const char *database, const char *trigger)
{
    (void)user;
    (void)database;
    (void)trigger;
    bool full = action == SQLITE_PRAGMA && strcmp(name, "synchronous") == 0 && value != NULL &&
                strcmp(value, "FULL") == 0;
    return full ? SQLITE_DENY : SQLITE_OK;
}

static void set_authorizer(struct xv_kv *store,
                           int (*authorizer)(void *, int, const char *, const char *, const char *,
                                             const char *))
{
    struct xv_kv_sqlite *self = xv_kv_sqlite_enter(store, NULL);
    ck_assert_int_eq(sqlite3_set_authorizer(self->sqlite.db, authorizer, NULL), SQLITE_OK);
    xv_kv_sqlite_leave(self);
}

/* Leases do not wait for the disk; what follows them does, or is not done. */
START_TEST(nothing_but_a_lease_is_less_durable)
{
    ck_assert(open_both(STORE_FILE));
    xvsa_error *error = NULL;
    int64_t lease = 0;
    int64_t left_ms = 0;
    bool succeeded = false;
    struct xv_kv_op op = {XV_KV_PUT, "a", "2", 0};
    ck_assert_int_eq(sync_of(kv), SYNC_FULL);
    put(kv, "a", "1");
    set_authorizer(kv, refuse_full);
    int granted = xv_kv_lease_grant(kv, 3600000, NULL, &lease, &error);
    ck_fails(xv_kv_txn(kv, NULL, 0, &op, 1, NULL, &succeeded, NULL, &error), XVSA_ERR_DENIED,
             error);
    ck_assert(!succeeded);
    ck_fails(xv_kv_lease_revoke(kv, lease, NULL, &error), XVSA_ERR_DENIED, error);
    ck_assert_int_eq(granted, 0);
    ck_ok(xv_kv_lease_renew(kv, lease, NULL, &left_ms, &error), error);
    ck_assert_int_eq(facts(other, "a").mod_revision, facts(other, "a").create_revision);
    set_authorizer(kv, NULL);
    put_leased(kv, "a", "2", lease);
    ck_assert_int_eq(sync_of(kv), SYNC_FULL);
    ck_ok(xv_kv_lease_renew(kv, lease, NULL, &left_ms, &error), error);
    ck_ok(xv_kv_lease_revoke(kv, lease, NULL, &error), error);
    ck_assert_int_eq(sync_of(kv), SYNC_FULL);
    ck_assert_uint_eq(count(other, "a"), 0);
}
END_TEST

static void fill(Suite *suite)
{
    TCase *tests = tcase_create("kv_file");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, a_dead_process_has_no_lease);
    tcase_add_test(tests, a_lease_ends_once);
    tcase_add_test(tests, a_handle_takes_its_leases_along);
    tcase_add_test(tests, processes_do_not_lose_changes);
    tcase_add_test(tests, nothing_but_a_lease_is_less_durable);
    suite_add_tcase(suite, tests);
}

UNIT_MAIN("kv_file")
