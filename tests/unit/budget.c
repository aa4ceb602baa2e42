/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * How a member divides its NBD connections among disks of its own tasks and units of others.
 */
#include "unit.h"

#include <sched.h>
#include <string.h>

#include "agent/budget.h"
#include "base/thread.h"

#define DISK XV_SCHED_DISK_CONNECTIONS

static const struct xv_limits limits = {.host_connections = 2 * DISK};
static struct xv_agent agent;

/* The lock may be taken again by the thread that has it: so a test gives connections back and asks for
 * them with nobody in between. */
static void set_up(void)
{
    pthread_mutexattr_t attributes;
    memset(&agent, 0, sizeof agent);
    agent.neighbours = 1;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
    ck_assert_int_eq(pthread_mutex_init(&agent.lock, &attributes), 0);
    pthread_mutexattr_destroy(&attributes);
    xv_condition_init(&agent.changed);
}

static void tear_down(void)
{
    pthread_cond_destroy(&agent.changed);
    pthread_mutex_destroy(&agent.lock);
}

struct disk {
    pthread_t thread;
    int rc;
    uint32_t got;
    xvsa_error *error;
};

static void *await(void *argument)
{
    struct disk *disk = argument;
    disk->rc = xv_budget_await(&agent, &limits, DISK, &disk->got, NULL, &disk->error);
    return NULL;
}

static void start(struct disk *disk)
{
    *disk = (struct disk){.rc = -1};
    ck_assert_int_eq(pthread_create(&disk->thread, NULL, await, disk), 0);
}

static void end(struct disk *disk)
{
    ck_assert_int_eq(pthread_join(disk->thread, NULL), 0);
    ck_ok(disk->rc, disk->error);
    ck_assert_uint_eq(disk->got, DISK);
}

/* Returns once so many disks wait; Check's own time limit ends a wait in vain. */
static void await_waiting(uint32_t count)
{
    uint32_t waiting;
    do {
        sched_yield();
        pthread_mutex_lock(&agent.lock);
        waiting = agent.disks_waiting;
        pthread_mutex_unlock(&agent.lock);
    } while (waiting != count);
}

/* A unit ends, and the same helper asks for the next one before any disk has woken. */
static uint32_t unit_follows_unit(void)
{
    pthread_mutex_lock(&agent.lock);
    xv_budget_disconnect(&agent, DISK);
    uint32_t got = xv_budget_connect(&agent, &limits, DISK);
    pthread_mutex_unlock(&agent.lock);
    return got;
}

START_TEST(own_disks_come_before_units)
{
    struct disk disks[2];
    for (int i = 0; i < 2; i++)
        ck_assert_uint_eq(xv_budget_connect(&agent, &limits, DISK), DISK);
    for (int i = 0; i < 2; i++)
        start(&disks[i]);
    await_waiting(2);
    ck_assert_uint_eq(unit_follows_unit(), 0);
    await_waiting(1);
    ck_assert_uint_eq(unit_follows_unit(), 0);
    for (int i = 0; i < 2; i++)
        end(&disks[i]);
    ck_assert_uint_eq(agent.connections, 2 * DISK);
    /* With no disk waiting, what is given back is for units again. */
    ck_assert_uint_eq(unit_follows_unit(), DISK);
}
END_TEST

START_TEST(units_follow_units_while_no_disk_waits)
{
    uint32_t got = 0;
    xvsa_error *error = NULL;
    ck_ok(xv_budget_await(&agent, &limits, DISK, &got, NULL, &error), error);
    ck_assert_uint_eq(got, DISK);
    ck_assert_uint_eq(xv_budget_connect(&agent, &limits, DISK), DISK);
    ck_assert_uint_eq(xv_budget_connect(&agent, &limits, DISK), 0);
    ck_assert_uint_eq(unit_follows_unit(), DISK);
}
END_TEST

START_TEST(a_disk_that_gave_up_holds_nobody_up)
{
    uint32_t got = 0;
    struct xv_call call = {0};
    xvsa_error *error = NULL;
    ck_ok(xvsa_cancel_new(&call.cancel, &error), error);
    xvsa_cancel_fire(call.cancel);
    for (int i = 0; i < 2; i++)
        ck_assert_uint_eq(xv_budget_connect(&agent, &limits, DISK), DISK);
    ck_fails(xv_budget_await(&agent, &limits, DISK, &got, &call, &error), XVSA_ERR_CANCELLED,
             error);
    ck_assert_uint_eq(got, 0);
    ck_assert_uint_eq(agent.connections, 2 * DISK);
    ck_assert_uint_eq(unit_follows_unit(), DISK);
    xvsa_cancel_unref(call.cancel);
}
END_TEST

/* Of more members than connections the last ones have none for units, yet own tasks get on. */
START_TEST(a_disk_gets_one_on_a_crowded_host)
{
    uint32_t got = 0;
    xvsa_error *error = NULL;
    agent.neighbours = 3 * DISK;
    agent.neighbour_rank = 3 * DISK - 1;
    ck_assert_uint_eq(xv_budget_connect(&agent, &limits, DISK), 0);
    ck_ok(xv_budget_await(&agent, &limits, DISK, &got, NULL, &error), error);
    ck_assert_uint_eq(got, 1);
    ck_assert_uint_eq(agent.connections, 1);
}
END_TEST

static void fill(Suite *suite)
{
    TCase *tests = tcase_create("budget");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, own_disks_come_before_units);
    tcase_add_test(tests, units_follow_units_while_no_disk_waits);
    tcase_add_test(tests, a_disk_that_gave_up_holds_nobody_up);
    tcase_add_test(tests, a_disk_gets_one_on_a_crowded_host);
    suite_add_tcase(suite, tests);
}

UNIT_MAIN("budget")
