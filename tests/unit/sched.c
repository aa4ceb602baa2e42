/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "unit.h"

#include <string.h>

#include "sched/assignment.h"

#define HOSTS   6
#define SRS     5
#define PROXIES 8
#define VMS     40
#define DISKS   3

/* A random pool; everything in one structure so that a test only needs a seed. */
struct world {
    bool attached[HOSTS * SRS];
    struct xv_sched_proxy proxies[PROXIES];
    struct xv_sched_disk disks[VMS][DISKS];
    struct xv_sched_vm vms[VMS];
    char keys[VMS][8];
    struct xv_sched_site site;
};

static uint64_t state;

/* SplitMix64, so that a failing seed can be repeated anywhere. */
static uint64_t draw(uint64_t below)
{
    state += 0x9e3779b97f4a7c15u;
    uint64_t z = state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) % below;
}

static void make_world(struct world *world, uint64_t seed)
{
    state = seed;
    memset(world, 0, sizeof *world);
    for (size_t i = 0; i < HOSTS * SRS; i++)
        world->attached[i] = draw(3) != 0;
    for (size_t i = 0; i < PROXIES; i++) {
        world->proxies[i].host = draw(8) == 0 ? XV_SCHED_NONE : (size_t)draw(HOSTS);
        world->proxies[i].capacity = 1 + (uint32_t)draw(4);
    }
    for (size_t i = 0; i < VMS; i++) {
        snprintf(world->keys[i], sizeof world->keys[i], "vm%zu", i);
        for (size_t j = 0; j < DISKS; j++)
            world->disks[i][j] =
                (struct xv_sched_disk){.sr = (size_t)draw(SRS), .bytes = draw(1000)};
        world->vms[i] = (struct xv_sched_vm){
            .host = draw(4) == 0 ? XV_SCHED_NONE : (size_t)draw(HOSTS),
            .is_protected = draw(2) == 0,
            .failed = draw(4) == 0,
            .disks = world->disks[i],
            .disk_count = (size_t)draw(DISKS + 1),
            .key = world->keys[i],
        };
    }
    world->site = (struct xv_sched_site){.host_count = HOSTS,
                                         .sr_count = SRS,
                                         .attached = world->attached,
                                         .proxies = world->proxies,
                                         .proxy_count = 1 + (size_t)draw(PROXIES)};
}

static struct xv_assignment *assign(struct world *world)
{
    struct xv_assignment *assignment = NULL;
    xvsa_error *error = NULL;
    ck_ok(xv_assignment_new(&world->site, world->vms, VMS, &assignment, &error), error);
    return assignment;
}

START_TEST(never_outside_reach)
{
    static struct world world;
    for (uint64_t seed = 0; seed < 1000; seed++) {
        make_world(&world, seed);
        xv_assignment_free(assign(&world));
        for (size_t i = 0; i < VMS; i++) {
            bool given = world.vms[i].owner != XV_SCHED_NONE;
            ck_assert_int_eq(given, xv_sched_eligible_count(&world.site, &world.vms[i]) > 0);
            for (size_t j = 0; j < world.vms[i].disk_count; j++) {
                const struct xv_sched_disk *disk = &world.disks[i][j];
                if (given)
                    ck_assert(xv_sched_eligible(&world.site, disk->proxy, disk->sr));
                else
                    ck_assert_uint_eq(disk->proxy, XV_SCHED_NONE);
            }
        }
    }
}
END_TEST

START_TEST(what_is_given_is_counted)
{
    static struct world world;
    for (uint64_t seed = 0; seed < 200; seed++) {
        make_world(&world, seed);
        xv_assignment_free(assign(&world));
        uint64_t given = 0;
        uint64_t disks = 0;
        for (size_t i = 0; i < VMS; i++) {
            if (world.vms[i].owner == XV_SCHED_NONE)
                continue;
            for (size_t j = 0; j < world.vms[i].disk_count; j++)
                given += world.disks[i][j].bytes;
            disks += world.vms[i].disk_count;
        }
        uint64_t counted = 0;
        uint64_t running = 0;
        for (size_t i = 0; i < world.site.proxy_count; i++) {
            counted += world.proxies[i].bytes;
            running += world.proxies[i].running;
        }
        ck_assert_uint_eq(counted, given);
        ck_assert_uint_eq(running, disks);
    }
}
END_TEST

/* With equal proxies that reach everything the loads differ by little more than the largest disk.
 */
START_TEST(equal_proxies_are_balanced)
{
    static struct world world;
    for (uint64_t seed = 0; seed < 200; seed++) {
        make_world(&world, seed);
        memset(world.attached, 1, sizeof world.attached);
        for (size_t i = 0; i < PROXIES; i++) {
            world.proxies[i].host = i % HOSTS;
            world.proxies[i].capacity = 2;
        }
        for (size_t i = 0; i < VMS * DISKS; i++)
            world.disks[i / DISKS][i % DISKS].bytes <<= 30;
        xv_assignment_free(assign(&world));
        uint64_t least = UINT64_MAX;
        uint64_t most = 0;
        for (size_t i = 0; i < world.site.proxy_count; i++) {
            least = world.proxies[i].bytes < least ? world.proxies[i].bytes : least;
            most = world.proxies[i].bytes > most ? world.proxies[i].bytes : most;
        }
        ck_assert_uint_le(most - least, UINT64_C(2) * 1000 << 30);
    }
}
END_TEST

START_TEST(order_is_a_stable_permutation)
{
    static struct world world;
    for (uint64_t seed = 0; seed < 200; seed++) {
        make_world(&world, seed);
        size_t order[VMS];
        bool seen[VMS] = {false};
        xvsa_error *error = NULL;
        ck_ok(xv_sched_order(&world.site, world.vms, VMS, order, &error), error);
        for (size_t i = 0; i < VMS; i++) {
            ck_assert(!seen[order[i]]);
            seen[order[i]] = true;
            if (i == 0)
                continue;
            const struct xv_sched_vm *before = &world.vms[order[i - 1]];
            const struct xv_sched_vm *after = &world.vms[order[i]];
            ck_assert(!(before->is_protected && !after->is_protected));
            if (before->is_protected == after->is_protected)
                ck_assert(!(!before->failed && after->failed));
        }
    }
}
END_TEST

static size_t owner_of(struct xv_sched_site *site, struct xv_sched_vm *vm)
{
    struct xv_assignment *assignment = NULL;
    xvsa_error *error = NULL;
    ck_ok(xv_assignment_new(site, vm, 1, &assignment, &error), error);
    xv_assignment_free(assignment);
    return vm->owner;
}

START_TEST(own_host_wins_a_tie)
{
    bool attached[] = {true, true};
    struct xv_sched_proxy proxies[] = {{.host = 0, .capacity = 4}, {.host = 1, .capacity = 4}};
    struct xv_sched_site site = {
        .host_count = 2, .sr_count = 1, .attached = attached, .proxies = proxies, .proxy_count = 2};
    struct xv_sched_disk disk = {.sr = 0, .bytes = 100};
    struct xv_sched_vm vm = {.host = 1, .disks = &disk, .disk_count = 1, .key = "a"};
    ck_assert_uint_eq(owner_of(&site, &vm), 1);
    ck_assert_uint_eq(disk.proxy, 1);
    ck_assert_int_eq(disk.tier, XV_TIER_HOST);
    vm.host = XV_SCHED_NONE;
    proxies[1].bytes = 0;
    ck_assert_uint_eq(owner_of(&site, &vm), 0);
    ck_assert_int_eq(disk.tier, XV_TIER_SR);
    ck_assert_uint_eq(disk.proxy, 0);
}
END_TEST

START_TEST(helping_hosts_reach_what_is_missing)
{
    /* SR 0 on hosts 0 and 1, SR 1 on host 2 only; the proxy sits on host 0. */
    bool attached[] = {true, false, true, false, false, true};
    struct xv_sched_proxy proxies[] = {{.host = 0, .capacity = 4}};
    struct xv_sched_site site = {
        .host_count = 3, .sr_count = 2, .attached = attached, .proxies = proxies, .proxy_count = 1};
    struct xv_sched_disk disks[] = {{.sr = 0, .bytes = 1}, {.sr = 1, .bytes = 1}};
    struct xv_sched_vm vm = {.host = 0, .disks = disks, .disk_count = 2, .key = "a"};
    bool helps[3];
    ck_assert_uint_eq(owner_of(&site, &vm), XV_SCHED_NONE);
    ck_assert_uint_eq(xv_sched_helping_hosts(&site, &vm, helps), 1);
    ck_assert(!helps[0] && !helps[1] && helps[2]);
    site.proxy_count = 0;
    ck_assert_uint_eq(xv_sched_helping_hosts(&site, &vm, helps), 0);
    vm.disk_count = 1;
    ck_assert_uint_eq(xv_sched_helping_hosts(&site, &vm, helps), 2);
}
END_TEST

static void fill(Suite *suite)
{
    TCase *tests = tcase_create("sched");
    tcase_add_test(tests, never_outside_reach);
    tcase_add_test(tests, what_is_given_is_counted);
    tcase_add_test(tests, equal_proxies_are_balanced);
    tcase_add_test(tests, order_is_a_stable_permutation);
    tcase_add_test(tests, own_host_wins_a_tie);
    tcase_add_test(tests, helping_hosts_reach_what_is_missing);
    suite_add_tcase(suite, tests);
}

UNIT_MAIN("sched")
