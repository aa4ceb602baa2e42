/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * How long planning takes: 100 000 disks of 50 000 VMs over 1 000 proxies, in 50 pools and in a
 * single one.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#include "scenario.h"

#define DISKS   100000u
#define PROXIES 1000u
#define LOSSES  50u

struct pool {
    struct xv_sched_site site;
    bool *attached;
    struct xv_sched_proxy *proxies;
    char (*keys)[24];
    struct xv_sched_disk *disks;
    struct xv_sched_vm *vms;
    size_t vm_count;
    struct xv_assignment *assignment;
};

static uint64_t state = 1;

/* SplitMix64. */
static uint64_t draw(uint64_t below)
{
    state += 0x9e3779b97f4a7c15u;
    uint64_t z = state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) % below;
}

static void *take_memory(size_t count, size_t size)
{
    void *memory = calloc(count + 1, size);
    if (memory == NULL)
        exit(2);
    return memory;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* A proxy on every other host, a local SR on each of those, shared SRs over eight hosts each. */
static void make_pool(struct pool *pool, size_t disks, size_t proxies)
{
    size_t hosts = proxies < 64 ? proxies : 64;
    size_t shared = hosts / 4 + 1;
    size_t srs = shared + hosts;
    pool->attached = take_memory(hosts * srs, sizeof *pool->attached);
    pool->proxies = take_memory(proxies, sizeof *pool->proxies);
    pool->keys = take_memory(proxies + disks, sizeof *pool->keys);
    pool->disks = take_memory(disks, sizeof *pool->disks);
    pool->vms = take_memory(disks, sizeof *pool->vms);
    pool->site = (struct xv_sched_site){.host_count = hosts,
                                        .sr_count = srs,
                                        .attached = pool->attached,
                                        .proxies = pool->proxies,
                                        .proxy_count = proxies};
    for (size_t i = 0; i < hosts; i++) {
        pool->attached[i * srs + shared + i] = true;
        for (size_t j = 0; j < shared; j++)
            pool->attached[i * srs + j] = (i / 4 + shared - j) % shared < 2;
    }
    for (size_t i = 0; i < proxies; i++) {
        snprintf(pool->keys[i], sizeof *pool->keys, "p%zu", i);
        pool->proxies[i] =
            (struct xv_sched_proxy){.host = i % hosts, .capacity = 4, .key = pool->keys[i]};
    }
    for (size_t i = 0; i < disks; i++) {
        bool local = draw(10) == 0;
        pool->disks[i].sr = local ? shared + draw(hosts) : draw(shared);
        pool->disks[i].bytes = (1 + draw(200)) << 30;
    }
    pool->vm_count = disks / 2;
    for (size_t i = 0; i < pool->vm_count; i++) {
        snprintf(pool->keys[proxies + i], sizeof *pool->keys, "v%zu", i);
        pool->vms[i] = (struct xv_sched_vm){.host = draw(hosts),
                                            .is_protected = draw(2) == 0,
                                            .failed = draw(20) == 0,
                                            .disks = &pool->disks[2 * i],
                                            .disk_count = 2,
                                            .key = pool->keys[proxies + i]};
    }
}

static void free_pool(struct pool *pool)
{
    xv_assignment_free(pool->assignment);
    free(pool->attached);
    free(pool->proxies);
    free(pool->keys);
    free(pool->disks);
    free(pool->vms);
}

static void check(int rc, const xvsa_error *error)
{
    if (rc == 0)
        return;
    fprintf(stderr, "sched-sim: %s\n", xvsa_error_message(error));
    exit(2);
}

static json_t *measure(size_t count)
{
    struct pool *pools = take_memory(count, sizeof *pools);
    xvsa_error *error = NULL;
    size_t assigned = 0;
    for (size_t i = 0; i < count; i++)
        make_pool(&pools[i], DISKS / count, PROXIES / count);
    double begin = now();
    for (size_t i = 0; i < count; i++)
        check(xv_assignment_new(&pools[i].site, pools[i].vms, pools[i].vm_count,
                                &pools[i].assignment, &error),
              error);
    double planning = now() - begin;
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < 2 * pools[i].vm_count; j++)
            assigned += pools[i].disks[j].proxy != XV_SCHED_NONE ? 1 : 0;
    }
    double worst = 0;
    size_t moved = 0;
    for (size_t i = 0; i < LOSSES; i++) {
        struct pool *pool = &pools[i % count];
        struct xv_moves moves;
        begin = now();
        check(xv_assignment_lose(pool->assignment, i / count, &moves, &error), error);
        double took = now() - begin;
        worst = took > worst ? took : worst;
        moved += moves.count;
    }
    for (size_t i = 0; i < count; i++)
        free_pool(&pools[i]);
    free(pools);
    return json_pack("{s:i, s:i, s:i, s:i, s:f, s:i, s:f, s:i}", "pools", (int)count, "proxies",
                     (int)PROXIES, "disks", (int)DISKS, "assigned", (int)assigned, "plan_s",
                     planning, "losses", (int)LOSSES, "replan_worst_s", worst, "moves", (int)moved);
}

int scale_run(void)
{
    static const size_t counts[] = {50, 1};
    for (size_t i = 0; i < 2; i++) {
        json_t *row = measure(counts[i]);
        struct rusage usage;
        getrusage(RUSAGE_SELF, &usage);
        json_object_set_new(row, "peak_mib", json_integer(usage.ru_maxrss / 1024));
        json_dumpf(row, stdout, JSON_REAL_PRECISION(4));
        printf("\n");
        json_decref(row);
    }
    return 0;
}
