/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What tests of stores share: two handles of one store, and short ways to use them.
 */
#ifndef XV_TESTS_KV_CASE_H
#define XV_TESTS_KV_CASE_H

#include "unit.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "coord/epoch.h"
#include "coord/kv.h"
#include "stores.h"

#define SOON_MS 30000

static struct stores stores;
static struct xv_kv *kv;
static struct xv_kv *other; /* another handle of the same store, or the same in memory */

static inline void set_up(void)
{
    stores_start(&stores);
}

static inline void tear_down(void)
{
    if (other != kv)
        xv_kv_close(other);
    xv_kv_close(kv);
    kv = NULL;
    other = NULL;
    stores_stop(&stores);
}

/* Opens the kind of store twice; false when there is none of that kind here. */
static inline bool open_both(int kind)
{
    if (!stores_open(&stores, (enum store_kind)kind, &kv))
        return false;
    other = kv;
    return kind == STORE_MEMORY || stores_open(&stores, (enum store_kind)kind, &other);
}

static inline void put_leased(struct xv_kv *store, const char *key, const char *value,
                              int64_t lease)
{
    xvsa_error *error = NULL;
    struct xv_kv_op op = {XV_KV_PUT, key, value, lease};
    bool succeeded = false;
    ck_ok(xv_kv_txn(store, NULL, 0, &op, 1, NULL, &succeeded, NULL, &error), error);
    ck_assert(succeeded);
}

static inline void put(struct xv_kv *store, const char *key, const char *value)
{
    put_leased(store, key, value, 0);
}

/* Tells whether the compare holds, changing nothing. */
static inline bool holds(struct xv_kv *store, struct xv_kv_compare compare)
{
    xvsa_error *error = NULL;
    bool succeeded = false;
    ck_ok(xv_kv_txn(store, &compare, 1, NULL, 0, NULL, &succeeded, NULL, &error), error);
    return succeeded;
}

static inline size_t count(struct xv_kv *store, const char *prefix)
{
    xvsa_error *error = NULL;
    struct xv_kv_list list;
    ck_ok(xv_kv_range(store, prefix, NULL, &list, &error), error);
    size_t result = list.count;
    xv_kv_list_free(&list);
    return result;
}

static inline struct xv_kv_pair facts(struct xv_kv *store, const char *key)
{
    xvsa_error *error = NULL;
    struct xv_kv_list list;
    ck_ok(xv_kv_get(store, key, NULL, &list, &error), error);
    struct xv_kv_pair pair = {0};
    if (list.count == 1)
        pair = list.pairs[0];
    pair.key = NULL;
    pair.value = NULL;
    xv_kv_list_free(&list);
    return pair;
}

/* Waits until the watch tells of a change, or not at all. */
static inline bool told(struct xv_kv_watch *watch, int64_t timeout_ms)
{
    xvsa_error *error = NULL;
    bool changed = false;
    ck_ok(xv_kv_watch_wait(watch, timeout_ms, NULL, &changed, &error), error);
    return changed;
}

/* Waits until the watch is open and has nothing more to tell: its opening may count as a change. */
static inline void settle(struct xv_kv_watch *watch)
{
    int64_t until = xv_clock_ms() + SOON_MS;
    while ((told(watch, 300) || !xv_kv_watch_is_live(watch)) && xv_clock_ms() < until)
        ;
    ck_assert(xv_kv_watch_is_live(watch));
}

#define WRITERS 4
#define ADDS    25

/* Adds to a number in one key, each time comparing its revision. */
static inline void *add_up(void *store)
{
    for (int i = 0; i < ADDS; i++) {
        bool succeeded = false;
        while (!succeeded) {
            struct xv_kv_list list;
            char value[32];
            ck_assert_int_eq(xv_kv_get(store, "sum", NULL, &list, NULL), 0);
            int64_t seen = list.count == 0 ? 0 : list.pairs[0].mod_revision;
            snprintf(value, sizeof value, "%d",
                     list.count == 0 ? 1 : atoi(list.pairs[0].value) + 1);
            xv_kv_list_free(&list);
            struct xv_kv_compare compare = {"sum", XV_KV_MOD_REVISION, seen, NULL};
            struct xv_kv_op op = {XV_KV_PUT, "sum", value, 0};
            ck_assert_int_eq(xv_kv_txn(store, &compare, 1, &op, 1, NULL, &succeeded, NULL, NULL),
                             0);
        }
    }
    return NULL;
}

#endif
