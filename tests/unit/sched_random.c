/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Properties of scheduling over random pools, in the event simulator: nothing out of reach, no
 * budget exceeded at any instant, no dependence on the order of the input, and after a loss
 * whatever a survivor reaches is done all the same. The simulator itself checks reach and budgets
 * at every event.
 */
#include "unit.h"

#include <string.h>

#include "sim.h"

#define POOLS 1000

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

/* What is drawn before it is numbered, so that it can be numbered in several ways. */
struct draft {
    size_t hosts, srs, proxies, vms;
    bool network;
    bool attached[8][8];
    double sr_rates[8];
    uint32_t sr_limits[8];
    struct {
        size_t host;
        uint32_t capacity;
        double rate;
        bool network;
    } proxy[8];
    struct {
        size_t host;
        bool is_protected, failed;
        int32_t priority;
        size_t disks;
        size_t sr[3];
        uint64_t bytes[3];
    } vm[16];
};

static void draw_storage(struct draft *draft)
{
    draft->hosts = 1 + draw(6);
    draft->srs = 1 + draw(5);
    draft->network = draw(4) == 0;
    for (size_t i = 0; i < draft->hosts; i++) {
        for (size_t j = 0; j < draft->srs; j++)
            draft->attached[i][j] = draw(2) == 0;
    }
    for (size_t j = 0; j < draft->srs; j++) {
        draft->sr_limits[j] = draw(3) == 0 ? 1 + (uint32_t)draw(4) : 0;
        draft->sr_rates[j] = draw(4) == 0 ? 5e7 + (double)draw(100) * 1e6 : 0;
    }
}

static void draw_pool(struct draft *draft, uint64_t seed)
{
    state = seed;
    memset(draft, 0, sizeof *draft);
    draw_storage(draft);
    draft->proxies = 1 + draw(7);
    for (size_t i = 0; i < draft->proxies; i++) {
        draft->proxy[i].host = draw(draft->hosts);
        draft->proxy[i].capacity = 1 + (uint32_t)draw(5);
        draft->proxy[i].rate = 2e7 + (double)draw(200) * 1e6;
        draft->proxy[i].network = draw(2) == 0;
    }
    draft->vms = 1 + draw(15);
    for (size_t i = 0; i < draft->vms; i++) {
        draft->vm[i].host = draw(4) == 0 ? XV_SCHED_NONE : draw(draft->hosts);
        draft->vm[i].is_protected = draw(2) == 0;
        draft->vm[i].failed = draw(4) == 0;
        draft->vm[i].priority = (int32_t)draw(3) - 1;
        draft->vm[i].disks = draw(4);
        for (size_t j = 0; j < draft->vm[i].disks; j++) {
            draft->vm[i].sr[j] = draw(draft->srs);
            draft->vm[i].bytes[j] = draw(10) == 0 ? 0 : draw(UINT64_C(8) << 30);
        }
    }
}

/* Numbers: 0 to count - 1 in order, or mixed. */
static void number(size_t *places, size_t count, bool mixed)
{
    for (size_t i = 0; i < count; i++)
        places[i] = i;
    for (size_t i = count; mixed && i > 1; i--) {
        size_t other = draw(i);
        size_t kept = places[i - 1];
        places[i - 1] = places[other];
        places[other] = kept;
    }
}

struct numbers {
    size_t hosts[8], srs[8], proxies[8], vms[16];
};

static void build_storage(const struct draft *draft, const struct numbers *at,
                          struct sim_pool *pool)
{
    pool->site.host_count = draft->hosts;
    pool->site.sr_count = draft->srs;
    pool->site.network = draft->network;
    for (size_t i = 0; i < draft->hosts; i++) {
        snprintf(pool->host_keys[at->hosts[i]], SIM_NAME, "host%zu", i);
        for (size_t j = 0; j < draft->srs; j++)
            pool->attached[at->hosts[i] * draft->srs + at->srs[j]] = draft->attached[i][j];
    }
    for (size_t j = 0; j < draft->srs; j++) {
        snprintf(pool->sr_keys[at->srs[j]], SIM_NAME, "sr%zu", j);
        pool->sr_limits[at->srs[j]] = draft->sr_limits[j];
        pool->sr_rates[at->srs[j]] = draft->sr_rates[j];
    }
}

static void build_vms(const struct draft *draft, const struct numbers *at, struct sim_pool *pool)
{
    char key[SIM_NAME];
    sim_reserve(pool, draft->vms);
    for (size_t place = 0; place < draft->vms; place++) {
        size_t i = 0;
        while (at->vms[i] != place)
            i++;
        snprintf(key, sizeof key, "vm%02zu", i);
        size_t host = draft->vm[i].host;
        sim_add_vm(pool, key, host == XV_SCHED_NONE ? host : at->hosts[host], draft->vm[i].priority,
                   draft->vm[i].is_protected);
        pool->vms[place].failed = draft->vm[i].failed;
        for (size_t j = 0; j < draft->vm[i].disks; j++)
            sim_add_disk(pool, at->srs[draft->vm[i].sr[j]], draft->vm[i].bytes[j]);
    }
}

static struct sim *build(const struct draft *draft, bool mixed)
{
    struct numbers at;
    struct sim *sim = calloc(1, sizeof *sim);
    ck_assert_ptr_nonnull(sim);
    number(at.hosts, draft->hosts, mixed);
    number(at.srs, draft->srs, mixed);
    number(at.proxies, draft->proxies, mixed);
    number(at.vms, draft->vms, mixed);
    struct sim_pool *pool = &sim->pools[0];
    sim->pool_count = 1;
    build_storage(draft, &at, pool);
    pool->site.proxy_count = draft->proxies;
    for (size_t i = 0; i < draft->proxies; i++) {
        struct sim_proxy *proxy = &pool->proxies[at.proxies[i]];
        snprintf(proxy->key, SIM_NAME, "proxy%zu", i);
        proxy->rate = draft->proxy[i].rate;
        pool->workers[at.proxies[i]] =
            (struct xv_sched_proxy){.host = at.hosts[draft->proxy[i].host],
                                    .capacity = draft->proxy[i].capacity,
                                    .transports = XV_TRANSPORT_NBD | XV_TRANSPORT_HTTP,
                                    .network = draft->proxy[i].network};
    }
    build_vms(draft, &at, pool);
    return sim;
}

static void end(struct sim *sim)
{
    sim_free(sim);
    free(sim);
}

static void must_be_clean(const struct sim *sim, uint64_t seed)
{
    ck_assert_msg(sim->violations == 0, "seed %llu: %s", (unsigned long long)seed,
                  sim->first_violation);
}

/* Exactly the VMs that somebody reaches are done. */
START_TEST(what_is_reached_is_done)
{
    static struct draft draft;
    for (uint64_t seed = 0; seed < POOLS; seed++) {
        draw_pool(&draft, seed);
        struct sim *sim = build(&draft, false);
        sim_run(sim);
        must_be_clean(sim, seed);
        struct sim_pool *pool = &sim->pools[0];
        for (size_t i = 0; i < pool->vm_count; i++)
            ck_assert_msg((pool->tasks[i].state == SIM_DONE) ==
                              (xv_sched_eligible_count(&pool->site, &pool->vms[i]) > 0),
                          "seed %llu, VM %s", (unsigned long long)seed, pool->tasks[i].key);
        end(sim);
    }
}
END_TEST

/* Any proxy is lost at any moment, the first and coordinating one in half of the cases. */
START_TEST(a_loss_costs_only_what_nobody_else_reaches)
{
    static struct draft draft;
    for (uint64_t seed = 0; seed < POOLS; seed++) {
        draw_pool(&draft, seed);
        struct sim *sim = build(&draft, false);
        struct sim_pool *pool = &sim->pools[0];
        size_t lost = draw(2) == 0 ? 0 : draw(draft.proxies);
        sim->faults[sim->fault_count++] = (struct sim_fault){
            .kind = SIM_LOSE_PROXY, .at = (double)draw(4000) / 10, .subject = lost};
        sim_run(sim);
        must_be_clean(sim, seed);
        ck_assert_msg(sim->resent_most <= SIM_CHECKPOINT + 0.01, "seed %llu: %.1f s moved again",
                      (unsigned long long)seed, sim->resent_most);
        pool->workers[lost].lost = true;
        for (size_t i = 0; i < pool->vm_count; i++) {
            for (size_t j = 0; j < pool->vms[i].disk_count; j++)
                pool->vms[i].disks[j].done = false;
            ck_assert_msg(pool->tasks[i].state == SIM_DONE || draft.proxies == 1 ||
                              xv_sched_eligible_count(&pool->site, &pool->vms[i]) == 0,
                          "seed %llu: %s failed without need", (unsigned long long)seed,
                          pool->tasks[i].key);
        }
        end(sim);
    }
}
END_TEST

START_TEST(a_lost_host_costs_only_what_is_left_to_nobody)
{
    static struct draft draft;
    for (uint64_t seed = 0; seed < POOLS; seed++) {
        draw_pool(&draft, seed);
        struct sim *sim = build(&draft, false);
        struct sim_pool *pool = &sim->pools[0];
        sim->faults[sim->fault_count++] = (struct sim_fault){
            .kind = SIM_LOSE_HOST, .at = (double)draw(4000) / 10, .subject = draw(draft.hosts)};
        sim_run(sim);
        must_be_clean(sim, seed);
        bool anybody = false;
        for (size_t i = 0; i < draft.proxies; i++) {
            pool->workers[i].lost = !pool->proxies[i].alive;
            anybody = anybody || pool->proxies[i].alive;
        }
        for (size_t i = 0; anybody && i < pool->vm_count; i++)
            ck_assert_msg(pool->tasks[i].state == SIM_DONE ||
                              xv_sched_eligible_count(&pool->site, &pool->vms[i]) == 0,
                          "seed %llu: %s failed without need", (unsigned long long)seed,
                          pool->tasks[i].key);
        end(sim);
    }
}
END_TEST

/* Names say who it is in every numbering. */
static const char *key_of(const struct sim_pool *pool, size_t proxy)
{
    return proxy == XV_SCHED_NONE ? "nobody" : pool->proxies[proxy].key;
}

static size_t find_vm(const struct sim_pool *pool, const char *key)
{
    size_t i = 0;
    while (strcmp(pool->tasks[i].key, key) != 0)
        i++;
    return i;
}

static void plan(struct sim *sim)
{
    struct sim_pool *pool = &sim->pools[0];
    xvsa_error *error = NULL;
    pool->site.attached = pool->attached;
    pool->site.proxies = pool->workers;
    pool->site.sr_limits = pool->sr_limits;
    pool->site.host_keys = pool->host_key_list;
    for (size_t i = 0; i < pool->site.host_count; i++)
        pool->host_key_list[i] = pool->host_keys[i];
    for (size_t i = 0; i < pool->site.proxy_count; i++)
        pool->workers[i].key = pool->proxies[i].key;
    ck_ok(xv_assignment_new(&pool->site, pool->vms, pool->vm_count, &pool->assignment, &error),
          error);
}

START_TEST(the_order_of_the_input_does_not_matter)
{
    static struct draft draft;
    for (uint64_t seed = 0; seed < POOLS; seed++) {
        draw_pool(&draft, seed);
        struct sim *one = build(&draft, false);
        struct sim *other = build(&draft, true);
        plan(one);
        plan(other);
        const struct sim_pool *a = &one->pools[0];
        const struct sim_pool *b = &other->pools[0];
        for (size_t i = 0; i < a->vm_count; i++) {
            const struct xv_sched_vm *vm = &a->vms[i];
            const struct xv_sched_vm *same = &b->vms[find_vm(b, vm->key)];
            ck_assert_msg(strcmp(key_of(a, vm->owner), key_of(b, same->owner)) == 0,
                          "seed %llu: %s is owned by %s or %s", (unsigned long long)seed, vm->key,
                          key_of(a, vm->owner), key_of(b, same->owner));
            for (size_t j = 0; j < vm->disk_count; j++)
                ck_assert_str_eq(key_of(a, vm->disks[j].proxy), key_of(b, same->disks[j].proxy));
        }
        end(one);
        end(other);
    }
}
END_TEST

/* Who had each disk. */
struct holders {
    size_t proxies[16][3];
};

static struct holders note(const struct sim_pool *pool)
{
    struct holders holders = {0};
    for (size_t i = 0; i < pool->vm_count; i++) {
        for (size_t j = 0; j < pool->vms[i].disk_count; j++)
            holders.proxies[i][j] = pool->vms[i].disks[j].proxy;
    }
    return holders;
}

/* Nothing at the lost proxy, nothing out of reach, nothing moved without need; how many disks
 * changed hands. */
static size_t check_loss(const struct sim_pool *pool, const struct holders *before, size_t lost)
{
    size_t changed = 0;
    for (size_t i = 0; i < pool->vm_count; i++) {
        const struct xv_sched_vm *vm = &pool->vms[i];
        bool reached = xv_sched_eligible_count(&pool->site, vm) > 0;
        for (size_t j = 0; j < vm->disk_count; j++) {
            const struct xv_sched_disk *disk = &vm->disks[j];
            size_t was = before->proxies[i][j];
            ck_assert_int_eq(disk->proxy != XV_SCHED_NONE, reached);
            ck_assert(!reached || xv_sched_eligible(&pool->site, disk->proxy, disk->sr));
            ck_assert(was == lost || disk->proxy == was || !reached);
            changed += disk->proxy != was ? 1 : 0;
        }
    }
    return changed;
}

static void check_counts(const struct sim_pool *pool)
{
    uint64_t difference = 0;
    for (size_t i = 0; i < pool->vm_count; i++) {
        for (size_t j = 0; j < pool->vms[i].disk_count; j++) {
            if (pool->vms[i].disks[j].proxy != XV_SCHED_NONE)
                difference += pool->vms[i].disks[j].bytes;
        }
    }
    for (size_t i = 0; i < pool->site.proxy_count; i++)
        difference -= pool->workers[i].bytes;
    ck_assert_uint_eq(difference, 0);
}

START_TEST(a_replan_moves_what_must_move)
{
    static struct draft draft;
    for (uint64_t seed = 0; seed < POOLS; seed++) {
        draw_pool(&draft, seed);
        struct sim *sim = build(&draft, false);
        struct sim_pool *pool = &sim->pools[0];
        struct xv_moves moves;
        xvsa_error *error = NULL;
        plan(sim);
        struct holders before = note(pool);
        size_t lost = draw(draft.proxies);
        ck_ok(xv_assignment_lose(pool->assignment, lost, &moves, &error), error);
        size_t listed = 0;
        for (size_t i = 0; i < moves.count; i++)
            listed += moves.items[i].disk != XV_SCHED_NONE ? 1 : 0;
        ck_assert_uint_eq(check_loss(pool, &before, lost), listed);
        check_counts(pool);
        ck_ok(xv_assignment_join(pool->assignment, lost, pool->workers[lost].host, &moves, &error),
              error);
        check_counts(pool);
        for (size_t i = 0; i < pool->vm_count; i++)
            ck_assert_int_eq(pool->vms[i].owner != XV_SCHED_NONE,
                             xv_sched_eligible_count(&pool->site, &pool->vms[i]) > 0);
        end(sim);
    }
}
END_TEST

static void fill(Suite *suite)
{
    TCase *tests = tcase_create("random pools");
    tcase_set_timeout(tests, 240);
    tcase_add_test(tests, what_is_reached_is_done);
    tcase_add_test(tests, a_loss_costs_only_what_nobody_else_reaches);
    tcase_add_test(tests, a_lost_host_costs_only_what_is_left_to_nobody);
    tcase_add_test(tests, the_order_of_the_input_does_not_matter);
    tcase_add_test(tests, a_replan_moves_what_must_move);
    suite_add_tcase(suite, tests);
}

UNIT_MAIN("sched_random")
