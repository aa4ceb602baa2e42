/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "unit.h"

#include <string.h>

#include "sched/deployment.h"

#define MAX 12

/* A pool of one VM on each SR; drawn by set_sr and set_proxy. */
struct pool {
    bool attached[MAX * MAX];
    struct xv_sched_proxy proxies[MAX];
    struct xv_sched_disk disks[MAX];
    struct xv_sched_vm vms[MAX];
    struct xv_sched_site site;
    struct xv_deployment *found;
};

static void make(struct pool *pool, size_t hosts, size_t srs)
{
    xv_deployment_free(pool->found);
    memset(pool, 0, sizeof *pool);
    pool->site = (struct xv_sched_site){
        .host_count = hosts, .sr_count = srs, .attached = pool->attached, .proxies = pool->proxies};
    for (size_t i = 0; i < srs; i++) {
        pool->disks[i].sr = i;
        pool->vms[i] = (struct xv_sched_vm){
            .host = XV_SCHED_NONE, .disks = &pool->disks[i], .disk_count = 1, .key = "vm"};
    }
}

static void attach(struct pool *pool, size_t sr, size_t first, size_t last)
{
    for (size_t host = first; host <= last; host++)
        pool->attached[host * pool->site.sr_count + sr] = true;
}

static void add_proxy(struct pool *pool, size_t host)
{
    pool->proxies[pool->site.proxy_count++] =
        (struct xv_sched_proxy){.host = host, .capacity = 4, .network = true};
}

static const struct xv_deployment *analyse(struct pool *pool)
{
    xvsa_error *error = NULL;
    xv_deployment_free(pool->found);
    pool->found = NULL;
    ck_ok(xv_deployment_analyse(&pool->site, pool->vms, pool->site.sr_count, &pool->found, &error),
          error);
    return pool->found;
}

/* Pool B of the second deployment: hosts 5 to 7 as 0 to 2, two proxies each on 5 and 6 that share
 * an SR, host 7 with a local SR and one proxy. */
START_TEST(the_second_deployment)
{
    static struct pool pool;
    make(&pool, 3, 2);
    attach(&pool, 0, 0, 1);
    attach(&pool, 1, 2, 2);
    size_t hosts[] = {0, 0, 1, 1, 2};
    for (size_t i = 0; i < 5; i++)
        add_proxy(&pool, hosts[i]);
    const struct xv_deployment *found = analyse(&pool);
    ck_assert_uint_eq(found->unreached_count, 0);
    ck_assert_uint_eq(found->vms[0].disks[0].count, 4);
    ck_assert_uint_eq(found->vms[0].whole, 4);
    ck_assert_uint_eq(found->vms[0].fatal_proxy_count, 0);
    ck_assert_uint_eq(found->vms[0].fatal_host_count, 0);
    ck_assert_uint_eq(found->vms[1].fatal_proxy_count, 1);
    ck_assert_uint_eq(found->vms[1].fatal_proxies[0], 4);
    ck_assert_uint_eq(found->vms[1].fatal_hosts[0], 2);
    ck_assert(found->vms[1].host_inherent);
    ck_assert_uint_eq(found->proxy_losses[4].vm_count, 1);
    ck_assert_uint_eq(found->proxy_losses[0].vm_count, 0);
    ck_assert_uint_eq(found->host_losses[2].vms[0], 1);
    ck_assert_uint_eq(found->advice[XV_GOAL_REACH].proxies, 0);
    const struct xv_advice *advice = &found->advice[XV_GOAL_PROXY_LOSS];
    ck_assert(advice->exact);
    ck_assert_uint_eq(advice->proxies, 1);
    ck_assert_uint_eq(advice->additions[0].host, 2);
    ck_assert_uint_eq(advice->cured_count, 1);
    ck_assert_uint_eq(found->advice[XV_GOAL_HOST_LOSS].incurable_count, 1);
    make(&pool, 0, 0);
}
END_TEST

START_TEST(one_host_that_serves_both_is_enough)
{
    static struct pool pool;
    make(&pool, 5, 3);
    attach(&pool, 0, 0, 2);
    attach(&pool, 1, 2, 4);
    attach(&pool, 2, 4, 4);
    const struct xv_deployment *found = analyse(&pool);
    ck_assert_uint_eq(found->unreached_count, 3);
    ck_assert(found->vms[0].curable);
    const struct xv_advice *advice = &found->advice[XV_GOAL_REACH];
    ck_assert(advice->exact);
    ck_assert_uint_eq(advice->proxies, 2);
    ck_assert_uint_eq(advice->cured_count, 3);
    /* SR 0 and 1 twice on different hosts, SR 2 twice on host 4. */
    ck_assert_uint_eq(found->advice[XV_GOAL_HOST_LOSS].proxies, 4);
    make(&pool, 0, 0);
}
END_TEST

START_TEST(what_no_proxy_cures_is_said)
{
    static struct pool pool;
    make(&pool, 2, 2);
    attach(&pool, 0, 0, 1);
    add_proxy(&pool, 0);
    const struct xv_deployment *found = analyse(&pool);
    ck_assert_uint_eq(found->unreached_count, 1);
    ck_assert(!found->vms[1].curable);
    ck_assert_uint_eq(found->advice[XV_GOAL_REACH].incurable[0], 1);
    ck_assert_uint_eq(found->advice[XV_GOAL_REACH].proxies, 0);
    ck_assert_uint_eq(found->advice[XV_GOAL_PROXY_LOSS].proxies, 1);
    ck_assert_uint_eq(found->advice[XV_GOAL_HOST_LOSS].additions[0].host, 1);
    make(&pool, 0, 0);
}
END_TEST

START_TEST(the_network_counts_when_policy_allows)
{
    static struct pool pool;
    make(&pool, 2, 1);
    attach(&pool, 0, 0, 0);
    add_proxy(&pool, 1);
    ck_assert_uint_eq(analyse(&pool)->unreached_count, 1);
    pool.site.network = true;
    const struct xv_deployment *found = analyse(&pool);
    ck_assert_uint_eq(found->unreached_count, 0);
    ck_assert_int_eq(found->vms[0].disks[0].reach[0].tier, XV_TIER_NETWORK);
    ck_assert_uint_eq(found->vms[0].disks[0].reach[0].transports,
                      XV_TRANSPORT_NBD | XV_TRANSPORT_HTTP);
    /* Its own host, and the SR's only one. */
    ck_assert_uint_eq(found->vms[0].fatal_host_count, 2);
    make(&pool, 0, 0);
}
END_TEST

static bool is_met(struct pool *pool, enum xv_goal goal)
{
    const struct xv_deployment *found = analyse(pool);
    for (int i = 0; i <= (int)goal; i++) {
        if (found->advice[i].cured_count > 0)
            return false;
    }
    return true;
}

/* Every choice of hosts, up to two further proxies on each, for small pools: none is smaller. */
static uint32_t fewest(struct pool *pool, enum xv_goal goal)
{
    size_t hosts = pool->site.host_count;
    size_t before = pool->site.proxy_count;
    size_t combinations = 1;
    for (size_t i = 0; i < hosts; i++)
        combinations *= 3;
    uint32_t best = UINT32_MAX;
    for (size_t code = 0; code < combinations; code++) {
        uint32_t sum = 0;
        size_t rest = code;
        for (size_t host = 0; host < hosts; host++, rest /= 3) {
            for (size_t i = 0; i < rest % 3; i++, sum++)
                if (pool->site.proxy_count < MAX)
                    add_proxy(pool, host);
        }
        if (sum < best && before + sum <= MAX && is_met(pool, goal))
            best = sum;
        pool->site.proxy_count = before;
    }
    return best;
}

START_TEST(advice_is_the_fewest_and_enough)
{
    static struct pool pool;
    uint64_t state = 7;
    for (int round = 0; round < 40; round++) {
        make(&pool, 4, 5);
        for (size_t i = 0; i < 20; i++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            pool.attached[i] = (state >> 40) % 2 == 0;
        }
        add_proxy(&pool, (state >> 50) % 4);
        for (int goal = 0; goal < XV_GOAL_COUNT; goal++) {
            const struct xv_advice *advice = &analyse(&pool)->advice[goal];
            ck_assert(advice->exact);
            uint32_t proxies = advice->proxies;
            ck_assert_uint_eq(proxies, fewest(&pool, (enum xv_goal)goal));
        }
    }
    make(&pool, 0, 0);
}
END_TEST

static void fill(Suite *suite)
{
    TCase *tests = tcase_create("deployment");
    tcase_add_test(tests, the_second_deployment);
    tcase_add_test(tests, one_host_that_serves_both_is_enough);
    tcase_add_test(tests, what_no_proxy_cures_is_said);
    tcase_add_test(tests, the_network_counts_when_policy_allows);
    tcase_add_test(tests, advice_is_the_fewest_and_enough);
    suite_add_tcase(suite, tests);
}

UNIT_MAIN("sched_deployment")
