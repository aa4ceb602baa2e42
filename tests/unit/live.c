/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What events make of an inventory, and when it is read anew instead.
 */
#include <jansson.h>
#include <poll.h>

#include "inventory_pool.h"
#include "xenapi/client_internal.h"
#include "xenapi/live_internal.h"

/* Events applied to the sample pool -------------------------------------------------------------- */

static struct xv_draft *draft_of(const struct xv_inventory *all)
{
    struct xv_draft *draft = NULL;
    xvsa_error *error = NULL;
    ck_ok(xv_draft_new(all, &draft, &error), error);
    return draft;
}

static unsigned put(struct xv_draft *draft, const char *class_name, const char *ref,
                    const char *record)
{
    struct xv_value *value = NULL;
    xvsa_error *error = NULL;
    unsigned changes = 0;
    ck_ok(xv_value_from_json(record, &value, &error), error);
    ck_ok(xv_draft_put(draft, xv_draft_class(class_name), ref, value, &changes, &error), error);
    xv_value_free(value);
    return changes;
}

static unsigned drop(struct xv_draft *draft, const char *class_name, const char *ref)
{
    unsigned changes = 0;
    xv_draft_drop(draft, xv_draft_class(class_name), ref, &changes);
    return changes;
}

static struct xv_inventory *finish(struct xv_draft *draft)
{
    struct xv_inventory *all = NULL;
    xvsa_error *error = NULL;
    ck_ok(xv_draft_finish(draft, &all, &error), error);
    return all;
}

#define REACH (XV_CHANGE_ANY | XV_CHANGE_REACH)
#define VM_G1                                                                                      \
    "\"uuid\":\"vm-1\",\"name_label\":\"web\",\"power_state\":\"Running\",\"tags\":[\"a\",\"b\"]"

static const struct {
    const char *class_name, *ref;
    const char *record; /* NULL: it goes */
    unsigned changes;
} steps[] = {
    {"vm", "g1", "{" VM_G1 ",\"resident_on\":\"h1\"}", 0},
    {"vm", "g1", "{" VM_G1 ",\"resident_on\":\"h1\",\"memory_target\":\"5\"}", 0},
    {"vm", "g1", "{" VM_G1 ",\"resident_on\":\"h2\"}", REACH},
    {"vm", "g1", "{\"uuid\":\"vm-1\",\"resident_on\":\"h1\",\"tags\":[\"a\"]}", XV_CHANGE_ANY},
    {"vm", "g2", NULL, XV_CHANGE_ANY},
    {"vm", "g1", NULL, REACH},
    {"vm", "g7", NULL, 0},
    {"vm", "g7", "{\"uuid\":\"vm-7\"}", XV_CHANGE_ANY},
    {"VM", "g7", "{\"uuid\":\"vm-7\",\"resident_on\":\"h1\"}", REACH},
    {"pbd", "b2", "{\"host\":\"h2\",\"SR\":\"s1\",\"currently_attached\":true}", 0},
    {"pbd", "b2", "{\"host\":\"h2\",\"SR\":\"s1\",\"currently_attached\":false}", REACH},
    {"pbd", "b2", NULL, REACH},
    {"host_metrics", "m1", "{\"live\":true}", 0},
    {"host_metrics", "m1", "{\"live\":false}", REACH},
    {"sr", "s2", "{\"uuid\":\"sr-2\",\"name_label\":\"other\",\"type\":\"iso\"}", 0},
    {"sr", "s2", "{\"uuid\":\"sr-2\",\"name_label\":\"new\",\"type\":\"iso\"}", XV_CHANGE_ANY},
    {"sr", "s2", "{\"uuid\":\"sr-2\",\"name_label\":\"other\",\"type\":\"iso\",\"shared\":true}",
     REACH},
    {"sr", "s3", "{\"uuid\":\"sr-3\",\"type\":\"nfs\"}", REACH},
    {"vdi", "v3", "{\"uuid\":\"vdi-3\",\"SR\":\"s1\"}", XV_CHANGE_ANY},
    {"vdi", "v1", NULL, XV_CHANGE_ANY},
    {"vbd", "x1", NULL, XV_CHANGE_ANY},
    {"vif", "f9", "{\"VM\":\"g1\",\"network\":\"n1\",\"device\":\"1\"}", XV_CHANGE_ANY},
    {"network", "n1", NULL, XV_CHANGE_ANY},
    {"pool", "p", "{\"uuid\":\"pool-1\",\"name_label\":\"Pool\",\"master\":\"h2\"}", REACH},
};

START_TEST(changes_are_told)
{
    struct pool pool = sample;
    struct xv_client *client = connect_to(&pool);
    struct xv_inventory *all = read_from(client);
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        struct xv_draft *draft = draft_of(all);
        unsigned changes = steps[i].record == NULL
                               ? drop(draft, steps[i].class_name, steps[i].ref)
                               : put(draft, steps[i].class_name, steps[i].ref, steps[i].record);
        ck_assert_msg(changes == steps[i].changes, "step %zu: %u", i, changes);
        /* A second time nothing changes. */
        changes = steps[i].record == NULL
                      ? drop(draft, steps[i].class_name, steps[i].ref)
                      : put(draft, steps[i].class_name, steps[i].ref, steps[i].record);
        ck_assert_msg(changes == 0, "step %zu again: %u", i, changes);
        /* A comparison with the inventory that came of it finds the same kind of change. */
        struct xv_inventory *next = finish(draft);
        struct xv_draft *before = draft_of(all);
        xvsa_error *error = NULL;
        ck_ok(xv_draft_compare(before, next, &changes, &error), error);
        ck_assert_msg((changes & steps[i].changes) == steps[i].changes, "step %zu: %u", i, changes);
        ck_assert_msg((changes == 0) == (steps[i].changes == 0), "step %zu: %u", i, changes);
        xv_draft_free(before);
        xv_inventory_free(next);
    }
    ck_assert_ptr_null(xv_draft_class("console"));
    xv_inventory_free(all);
    disconnect(&pool, client);
}
END_TEST

START_TEST(the_next_inventory_is_whole)
{
    struct pool pool = sample;
    struct xv_client *client = connect_to(&pool);
    struct xv_inventory *all = read_from(client);
    struct xv_draft *draft = draft_of(all);
    put(draft, "vm", "g1", "{" VM_G1 ",\"resident_on\":\"h2\"}");
    put(draft, "host_metrics", "m2", "{\"live\":true}");
    put(draft, "vdi", "v3", "{\"uuid\":\"vdi-3\",\"SR\":\"s1\",\"name_label\":\"late\"}");
    put(draft, "vbd", "x9",
        "{\"VM\":\"g1\",\"VDI\":\"v3\",\"type\":\"Disk\",\"userdevice\":\"1\"}");
    drop(draft, "vbd", "x2");
    drop(draft, "vm", "g2");
    struct xv_inventory *next = finish(draft);
    const struct xv_vm *vm = xv_inventory_vm(next, "vm-1");
    ck_assert_str_eq(vm->resident_on->uuid, "host-2");
    ck_assert(vm->resident_on->live);
    ck_assert_uint_eq(vm->vbd_count, 2);
    ck_assert_str_eq(vm->vbds[1]->vdi->name, "late");
    ck_assert_str_eq(vm->vbds[1]->vdi->sr->uuid, "sr-1");
    ck_assert_str_eq(vm->tags[1], "b");
    ck_assert_ptr_null(xv_inventory_vm(next, "vm-2"));
    ck_assert(xv_inventory_host(next, "h1")->coordinator);
    ck_assert_str_eq(next->default_sr, "s1");
    ck_assert_int_eq(next->api_minor, 21);
    ck_assert(xv_inventory_sr(next, "sr-1")->supports_cbt);
    ck_assert(
        xv_inventory_reaches(next, xv_inventory_host(next, "h2"), xv_inventory_sr(next, "s1")));
    /* The one before is as it was. */
    ck_assert_uint_eq(xv_inventory_vm(all, "vm-1")->vbd_count, 2);
    ck_assert_str_eq(xv_inventory_vm(all, "vm-1")->resident_on->uuid, "host-1");
    ck_assert_ptr_nonnull(xv_inventory_vm(all, "vm-2"));
    xv_inventory_free(all);
    xv_inventory_free(next);
    disconnect(&pool, client);
}
END_TEST

/* Thousands of records come, change and go; the table grows and replaced text is given up. */
START_TEST(many_changes)
{
    struct pool pool = sample;
    struct xv_client *client = connect_to(&pool);
    struct xv_inventory *all = read_from(client);
    struct xv_draft *draft = draft_of(all);
    char ref[32];
    char record[2048];
    char filler[1024];
    memset(filler, 'x', sizeof filler - 1);
    filler[sizeof filler - 1] = '\0';
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < 1500; i++) {
            snprintf(ref, sizeof ref, "w%d", i);
            snprintf(record, sizeof record, "{\"uuid\":\"disk-%d\",\"name_label\":\"%s%d\"}", i,
                     filler, round);
            ck_assert_uint_eq(put(draft, "VDI", ref, record), XV_CHANGE_ANY);
        }
    }
    for (int i = 0; i < 1500; i += 3) {
        snprintf(ref, sizeof ref, "w%d", i);
        ck_assert_uint_eq(drop(draft, "VDI", ref), XV_CHANGE_ANY);
    }
    ck_assert_uint_eq(xv_draft_count(draft, xv_draft_class("VDI")), 2 + 1000);
    struct xv_inventory *next = finish(draft);
    for (int i = 0; i < 1500; i++) {
        snprintf(ref, sizeof ref, "disk-%d", i);
        const struct xv_vdi *vdi = xv_inventory_vdi(next, ref);
        ck_assert(i % 3 == 0 ? vdi == NULL : vdi->name[strlen(vdi->name) - 1] == '3');
    }
    xv_inventory_free(next);
    xv_inventory_free(all);
    disconnect(&pool, client);
}
END_TEST

/* A pool that is asked again and again ---------------------------------------------------------------- */

static struct xv_live *live_of(struct xv_client *client)
{
    struct xv_live *live = NULL;
    xvsa_error *error = NULL;
    ck_ok(xv_live_new(client, &live, &error), error);
    return live;
}

static struct xv_inventory *ask(struct xv_live *live, int64_t max_age_ms)
{
    struct xv_inventory *all = NULL;
    xvsa_error *error = NULL;
    struct xv_call call = xv_call_within(NULL, SOON_MS);
    ck_ok(xv_live_inventory(live, max_age_ms, &call, &all, &error), error);
    return all;
}

#define PBD_GONE EVENT("pbd", "del", "b2", "")
#define VM_MOVED                                                                                   \
    EVENT("vm", "mod", "g1",                                                                       \
          SNAPSHOT(MEMBER("uuid", "vm-1") MEMBER("name_label", "web")                              \
                       MEMBER("power_state", "Running") MEMBER("resident_on", "h2")))

START_TEST(events_instead_of_reading)
{
    struct pool pool = sample;
    pool.script[0] = EVENTS("t1", "", VM_MOVED PBD_GONE EVENT("console", "del", "c", ""));
    struct xv_client *client = connect_to(&pool);
    struct xv_live *live = live_of(client);
    ck_assert_uint_eq(xv_live_version(live).any, 0);
    struct xv_inventory *first = ask(live, 0);
    ck_assert_uint_eq(first->generation, 1);
    struct xv_inventory *second = ask(live, 0);
    ck_assert_str_eq(xv_inventory_vm(second, "vm-1")->resident_on->uuid, "host-2");
    ck_assert_uint_eq(second->pbd_count, 2);
    ck_assert_uint_eq(second->generation, 2);
    ck_assert_uint_eq(xv_live_version(live).reach, 2);
    ck_assert_uint_eq(first->pbd_count, 3);
    /* Nothing happened since. */
    struct xv_inventory *third = ask(live, 0);
    ck_assert_ptr_eq(third, second);
    ck_assert_int_eq(atomic_load(&pool.readings), 1);
    int waits = atomic_load(&pool.waits);
    xv_inventory_free(third);
    third = ask(live, 600000);
    ck_assert_ptr_eq(third, second);
    ck_assert_int_eq(atomic_load(&pool.waits), waits);
    xv_inventory_free(first);
    xv_inventory_free(second);
    xv_inventory_free(third);
    xv_live_free(live);
    disconnect(&pool, client);
}
END_TEST

START_TEST(read_anew_when_events_fail)
{
    static const char *const troubles[] = {
        "!EVENT_FROM_TOKEN_PARSE_FAILURE",
        "!EVENTS_LOST",
        "<struct><oops></struct>",
        "<struct>" MEMBER("token", "t1") "</struct>",
        EVENTS("t1", "", EVENT("vm", "mod", "g1", "")),
    };
    for (size_t i = 0; i < sizeof troubles / sizeof troubles[0]; i++) {
        struct pool pool = sample;
        pool.script[0] = troubles[i];
        struct xv_client *client = connect_to(&pool);
        struct xv_live *live = live_of(client);
        xv_inventory_free(ask(live, 0));
        struct xv_inventory *again = ask(live, 0);
        ck_assert_uint_eq(again->vm_count, 2);
        ck_assert_int_eq(atomic_load(&pool.readings), 2);
        /* What was read is what was known. */
        ck_assert_uint_eq(again->generation, 1);
        xv_inventory_free(again);
        xv_inventory_free(ask(live, 0));
        ck_assert_int_eq(atomic_load(&pool.readings), 2);
        xv_live_free(live);
        disconnect(&pool, client);
    }
}
END_TEST

START_TEST(forgotten_deletions_show_in_the_counts)
{
    struct pool pool = sample;
    pool.script[0] = EVENTS("t1", COUNT("vm", "1") COUNT("task", "7"), "");
    pool.script[1] = EVENTS("t2", COUNT("vm", "1") COUNT("vdi", "2"), "");
    pool.script[2] = EVENTS("t3", COUNT("vm", "2") COUNT("pool", "1"), "");
    struct xv_client *client = connect_to(&pool);
    struct xv_live *live = live_of(client);
    xv_inventory_free(ask(live, 0));
    /* Right after a reading numbers that differ mean nothing that reading again would cure. */
    xv_inventory_free(ask(live, 0));
    ck_assert_int_eq(atomic_load(&pool.readings), 1);
    live->loaded_ms -= 120000;
    xv_inventory_free(ask(live, 0));
    ck_assert_int_eq(atomic_load(&pool.readings), 2);
    live->loaded_ms -= 120000;
    xv_inventory_free(ask(live, 0));
    ck_assert_int_eq(atomic_load(&pool.readings), 2);
    xv_live_free(live);
    disconnect(&pool, client);
}
END_TEST

START_TEST(read_anew_after_a_while_and_a_new_login)
{
    struct pool pool = sample;
    struct xv_client *client = connect_to(&pool);
    struct xv_live *live = live_of(client);
    xvsa_error *error = NULL;
    xv_inventory_free(ask(live, 0));
    live->loaded_ms -= 3600 * 1000;
    xv_inventory_free(ask(live, 0));
    ck_assert_int_eq(atomic_load(&pool.readings), 2);
    live->heard_ms -= 600 * 1000;
    xv_inventory_free(ask(live, 0));
    ck_assert_int_eq(atomic_load(&pool.readings), 3);
    struct xv_call call = xv_call_within(NULL, SOON_MS);
    ck_ok(xv_session_renew(client, xv_client_epoch(client), &call, &error), error);
    struct xv_inventory *all = ask(live, 0);
    ck_assert_int_eq(atomic_load(&pool.readings), 4);
    ck_assert_uint_eq(all->epoch, xv_client_epoch(client));
    ck_assert_uint_eq(all->generation, 1);
    xv_inventory_free(all);
    xv_live_free(live);
    disconnect(&pool, client);
}
END_TEST

START_TEST(servers_without_events)
{
    struct pool pool = sample;
    pool.mute = true;
    struct xv_client *client = connect_to(&pool);
    struct xv_live *live = live_of(client);
    for (int i = 1; i <= 3; i++) {
        xv_inventory_free(ask(live, 0));
        ck_assert_int_eq(atomic_load(&pool.readings), i);
    }
    ck_assert_uint_eq(xv_live_version(live).any, 1);
    xv_inventory_free(ask(live, 600000));
    ck_assert_int_eq(atomic_load(&pool.readings), 3);
    xv_live_free(live);
    disconnect(&pool, client);
}
END_TEST

START_TEST(a_closed_pool_fails)
{
    struct pool pool = sample;
    struct xv_client *client = connect_to(&pool);
    struct xv_live *live = live_of(client);
    struct xv_live_watch *watch = NULL;
    xvsa_error *error = NULL;
    struct xv_inventory *all = NULL;
    struct xv_call call = xv_call_within(NULL, SOON_MS);
    xv_inventory_free(ask(live, 0));
    xv_live_stop(live);
    ck_ok(xv_client_close(client, &call, &error), error);
    ck_fails(xv_live_inventory(live, 0, &call, &all, &error), XVSA_ERR_STATE, error);
    ck_fails(xv_live_watch_open(live, &watch, &error), XVSA_ERR_STATE, error);
    xv_live_free(live);
    disconnect(&pool, client);
}
END_TEST

/* Watches ------------------------------------------------------------------------------------------ */

static bool is_readable(const struct xv_live_watch *watch, int ms)
{
    struct pollfd fd = {.fd = xv_live_watch_fd(watch), .events = POLLIN};
    return poll(&fd, 1, ms) > 0;
}

static struct xv_live_watch *watch_of(struct xv_live *live)
{
    struct xv_live_watch *watch = NULL;
    xvsa_error *error = NULL;
    ck_ok(xv_live_watch_open(live, &watch, &error), error);
    return watch;
}

START_TEST(watches_are_signalled)
{
    struct pool pool = sample;
    pool.script[0] =
        EVENTS("t1", "", EVENT("host_metrics", "mod", "m1", SNAPSHOT(MEMBER("live", YES))));
    pool.script[1] = EVENTS("t2", "", PBD_GONE);
    pool.script[2] = "!";
    pool.script[3] = EVENTS("t4", "", VM_MOVED);
    struct xv_client *client = connect_to(&pool);
    struct xv_live *live = live_of(client);
    struct xv_live_watch *one = watch_of(live);
    struct xv_live_watch *two = watch_of(live);
    struct xv_live_version version = {0};
    while (version.reach < 3) {
        ck_assert(is_readable(one, SOON_MS));
        version = xv_live_watch_take(one);
    }
    ck_assert_uint_eq(version.reach, 3);
    ck_assert_uint_eq(version.any, 3);
    ck_assert(is_readable(two, SOON_MS));
    ck_assert_uint_eq(xv_live_watch_take(two).any, 3);
    xv_live_watch_close(one);
    /* The thread's knowledge costs no question. */
    struct xv_inventory *all = ask(live, 600000);
    ck_assert_uint_eq(all->generation, 3);
    ck_assert_str_eq(xv_inventory_vm(all, "vm-1")->resident_on->uuid, "host-2");
    xv_inventory_free(all);
    xv_live_watch_close(two);
    xv_live_watch_close(NULL);
    ck_assert(!live->has_thread);
    /* And again from the beginning. */
    two = watch_of(live);
    ck_assert(live->has_thread);
    xv_live_watch_close(two);
    xv_live_free(live);
    disconnect(&pool, client);
}
END_TEST

/* A server that answers at once without events is not asked without a pause. */
START_TEST(haste_is_slowed_down)
{
    struct pool pool = sample;
    pool.hasty = true;
    struct xv_client *client = connect_to(&pool);
    struct xv_live *live = live_of(client);
    int64_t began = xv_clock_ms();
    struct xv_live_watch *watch = watch_of(live);
    ck_assert(is_readable(watch, SOON_MS));
    usleep(1500000);
    int64_t seconds = (xv_clock_ms() - began) / 1000;
    ck_assert_int_le(atomic_load(&pool.waits), (int)seconds + 2);
    xv_live_watch_close(watch);
    xv_live_free(live);
    disconnect(&pool, client);
}
END_TEST

struct asker {
    struct xv_live *live;
    pthread_t thread;
    uint64_t last;
};

static void *ask_often(void *argument)
{
    struct asker *asker = argument;
    for (int i = 0; i < 40; i++) {
        struct xv_inventory *all = ask(asker->live, i % 3 == 0 ? 0 : 50);
        ck_assert_uint_ge(all->generation, asker->last);
        ck_assert_ptr_nonnull(xv_inventory_vm(all, "vm-1"));
        asker->last = all->generation;
        xv_inventory_free(all);
    }
    return NULL;
}

START_TEST(many_ask_at_once)
{
    struct pool pool = sample;
    pool.script[0] = EVENTS("t1", "", VM_MOVED);
    pool.script[1] = "!EVENTS_LOST";
    pool.script[2] = EVENTS("t2", "", PBD_GONE);
    pool.script[3] = "!EVENTS_LOST";
    struct xv_client *client = connect_to(&pool);
    struct xv_live *live = live_of(client);
    struct xv_live_watch *watch = watch_of(live);
    struct asker askers[4] = {0};
    for (size_t i = 0; i < 4; i++) {
        askers[i].live = live;
        ck_assert_int_eq(pthread_create(&askers[i].thread, NULL, ask_often, &askers[i]), 0);
    }
    for (size_t i = 0; i < 4; i++)
        pthread_join(askers[i].thread, NULL);
    xv_live_watch_close(watch);
    xv_live_free(live);
    disconnect(&pool, client);
}
END_TEST

static void fill(Suite *suite)
{
    TCase *all = tcase_create("live");
    tcase_set_timeout(all, 90);
    tcase_add_test(all, changes_are_told);
    tcase_add_test(all, the_next_inventory_is_whole);
    tcase_add_test(all, many_changes);
    tcase_add_test(all, events_instead_of_reading);
    tcase_add_test(all, read_anew_when_events_fail);
    tcase_add_test(all, forgotten_deletions_show_in_the_counts);
    tcase_add_test(all, read_anew_after_a_while_and_a_new_login);
    tcase_add_test(all, servers_without_events);
    tcase_add_test(all, a_closed_pool_fails);
    tcase_add_test(all, watches_are_signalled);
    tcase_add_test(all, haste_is_slowed_down);
    tcase_add_test(all, many_ask_at_once);
    suite_add_tcase(suite, all);
}

UNIT_MAIN("live")
