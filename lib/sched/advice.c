/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The fewest further proxies that bring every VM to a goal.
 */
#include <stdlib.h>
#include <string.h>

#include "sched/cover.h"
#include "sched/reach.h"

/* The needs of a goal, with the sets of hosts that they point to. */
struct needs {
    struct xv_cover_need *items;
    bool *hosts; /* [need * host_count + host] */
    size_t count;
};

static bool misses(const struct work *work, enum xv_goal goal, size_t vm)
{
    const struct xv_reach_vm *it = &work->arena->vms[vm];
    if (!it->reached)
        return true;
    if (goal >= XV_GOAL_PROXY_LOSS && it->fatal_proxy_count > 0)
        return true;
    return goal >= XV_GOAL_HOST_LOSS && it->fatal_host_count > 0;
}

/* Some SR of it is attached to no host, or to one only that may be lost. */
static bool is_incurable(const struct work *work, enum xv_goal goal, size_t vm)
{
    const struct xv_reach_vm *it = &work->arena->vms[vm];
    return (!it->reached && !it->curable) || (goal == XV_GOAL_HOST_LOSS && it->host_inherent);
}

/* What the SR lacks for the goal. */
static void add_need(const struct work *work, enum xv_goal goal, size_t sr, struct needs *needs)
{
    const struct xv_sched_site *site = work->site;
    const struct sr_reach *it = &work->srs[sr];
    bool distinct = goal == XV_GOAL_HOST_LOSS && it->hosts > 1;
    size_t wanted = goal == XV_GOAL_REACH ? 1 : 2;
    size_t have = distinct ? it->bases : it->proxies;
    if (have >= wanted)
        return;
    bool *hosts = needs->hosts + needs->count * site->host_count;
    for (size_t host = 0; host < site->host_count; host++) {
        bool is_base = work->base_hosts[sr * site->host_count + host];
        hosts[host] = site->attached[host * site->sr_count + sr] && !(distinct && is_base);
    }
    needs->items[needs->count++] =
        (struct xv_cover_need){hosts, (uint32_t)(wanted - have), distinct};
}

static int find_needs(const struct work *work, enum xv_goal goal, struct needs *needs,
                      xvsa_error **error)
{
    const struct xv_sched_site *site = work->site;
    bool *used = calloc(site->sr_count + 1, sizeof *used);
    needs->items = calloc(site->sr_count + 1, sizeof *needs->items);
    needs->hosts = calloc(site->sr_count * site->host_count + 1, sizeof *needs->hosts);
    if (used == NULL || needs->items == NULL || needs->hosts == NULL) {
        free(used);
        return xv_fail_memory(error);
    }
    for (size_t i = 0; i < work->vm_count; i++) {
        const struct xv_reach_vm *vm = &work->arena->vms[i];
        for (size_t j = 0; (vm->reached || vm->curable) && j < work->vms[i].disk_count; j++)
            used[work->vms[i].disks[j].sr] = true;
    }
    for (size_t sr = 0; sr < site->sr_count; sr++) {
        if (used[sr])
            add_need(work, goal, sr, needs);
    }
    free(used);
    return 0;
}

static int list_vms(const struct work *work, enum xv_goal goal, struct xv_advice *advice,
                    xvsa_error **error)
{
    size_t *list = calloc(work->vm_count + 1, sizeof *list);
    if (list == NULL)
        return xv_fail_memory(error);
    work->arena->advice[goal] = list;
    advice->cured = list;
    for (size_t i = 0; i < work->vm_count; i++) {
        if (misses(work, goal, i) && !is_incurable(work, goal, i))
            list[advice->cured_count++] = i;
    }
    advice->incurable = list + advice->cured_count;
    for (size_t i = 0; i < work->vm_count; i++) {
        if (misses(work, goal, i) && is_incurable(work, goal, i))
            list[advice->cured_count + advice->incurable_count++] = i;
    }
    return 0;
}

static bool before(const struct xv_sched_site *site, size_t a, size_t b)
{
    const char *key_a = site->host_keys == NULL ? "" : site->host_keys[a];
    const char *key_b = site->host_keys == NULL ? "" : site->host_keys[b];
    int order = strcmp(key_a, key_b);
    return order != 0 ? order < 0 : a < b;
}

static void rank_hosts(const struct xv_sched_site *site, size_t *ranks)
{
    for (size_t i = 0; i < site->host_count; i++) {
        ranks[i] = 0;
        for (size_t j = 0; j < site->host_count; j++)
            ranks[i] += j != i && before(site, j, i) ? 1 : 0;
    }
}

static int note_additions(const struct work *work, enum xv_goal goal, const size_t *ranks,
                          const struct xv_cover *cover, struct xv_advice *advice,
                          xvsa_error **error)
{
    size_t hosts = work->site->host_count;
    struct xv_addition *list = calloc(hosts + 1, sizeof *list);
    if (list == NULL)
        return xv_fail_memory(error);
    work->arena->additions[goal] = list;
    for (size_t rank = 0; rank < hosts; rank++) {
        for (size_t host = 0; host < hosts; host++) {
            if (ranks[host] == rank && cover->additions[host] > 0)
                list[advice->count++] = (struct xv_addition){host, cover->additions[host]};
        }
    }
    advice->additions = list;
    advice->proxies = cover->sum;
    advice->at_least = cover->at_least;
    advice->exact = cover->exact;
    return 0;
}

int xv_advise(const struct work *work, enum xv_goal goal, xvsa_error **error)
{
    struct xv_advice *advice = &work->arena->deployment.advice[goal];
    const struct xv_sched_site *site = work->site;
    struct needs needs = {0};
    struct xv_cover cover = {.additions = calloc(site->host_count + 1, sizeof *cover.additions)};
    size_t *ranks = calloc(site->host_count + 1, sizeof *ranks);
    int rc = cover.additions == NULL || ranks == NULL ? xv_fail_memory(error) : 0;
    if (rc == 0) {
        rank_hosts(site, ranks);
        rc = find_needs(work, goal, &needs, error);
    }
    if (rc == 0)
        rc = xv_cover_solve(site->host_count, ranks, needs.items, needs.count, &cover, error);
    if (rc == 0)
        rc = list_vms(work, goal, advice, error);
    if (rc == 0)
        rc = note_additions(work, goal, ranks, &cover, advice, error);
    free(needs.items);
    free(needs.hosts);
    free(cover.additions);
    free(ranks);
    return rc;
}
