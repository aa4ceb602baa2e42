/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Proxies that differ in load only form a group, a heap by work: of each group only the top
 * matters, and an SR has as many groups as hosts, more or less, however many proxies there are.
 */
#include <stdlib.h>
#include <string.h>

#include "sched/state.h"

static bool lighter(const struct xv_assignment *a, size_t left, size_t right)
{
    const struct worker *l = &a->workers[left];
    const struct worker *r = &a->workers[right];
    return l->work != r->work ? l->work < r->work : l->rank < r->rank;
}

static void put(struct xv_assignment *a, struct group *group, size_t place, size_t proxy)
{
    group->heap[place] = proxy;
    a->workers[proxy].heap_place = place;
}

static void rise(struct xv_assignment *a, struct group *group, size_t place)
{
    size_t proxy = group->heap[place];
    while (place > 0 && lighter(a, proxy, group->heap[(place - 1) / 2])) {
        put(a, group, place, group->heap[(place - 1) / 2]);
        place = (place - 1) / 2;
    }
    put(a, group, place, proxy);
}

static void sink(struct xv_assignment *a, struct group *group, size_t place)
{
    size_t proxy = group->heap[place];
    for (;;) {
        size_t child = 2 * place + 1;
        if (child + 1 < group->live && lighter(a, group->heap[child + 1], group->heap[child]))
            child++;
        if (child >= group->live || !lighter(a, group->heap[child], proxy))
            break;
        put(a, group, place, group->heap[child]);
        place = child;
    }
    put(a, group, place, proxy);
}

void xv_groups_resort(struct xv_assignment *a, size_t proxy)
{
    size_t place = a->workers[proxy].heap_place;
    if (place == XV_SCHED_NONE)
        return;
    struct group *group = &a->groups[a->workers[proxy].group];
    rise(a, group, place);
    sink(a, group, a->workers[proxy].heap_place);
}

void xv_groups_remove(struct xv_assignment *a, size_t proxy)
{
    size_t place = a->workers[proxy].heap_place;
    if (place == XV_SCHED_NONE)
        return;
    struct group *group = &a->groups[a->workers[proxy].group];
    size_t last = group->heap[--group->live];
    a->workers[proxy].heap_place = XV_SCHED_NONE;
    if (last == proxy)
        return;
    put(a, group, place, last);
    xv_groups_resort(a, last);
}

bool xv_group_reaches(const struct xv_assignment *a, const struct group *group, size_t sr)
{
    const struct xv_sched_site *site = a->site;
    if (sr >= site->sr_count)
        return false;
    if (group->host < site->host_count && site->attached[group->host * site->sr_count + sr])
        return group->transports != 0;
    return site->network && group->network && (group->transports & ~XV_TRANSPORT_HOTADD) != 0 &&
           a->sr_hosts.first[sr + 1] > a->sr_hosts.first[sr];
}

size_t xv_groups_choices(const struct xv_assignment *a, size_t sr)
{
    if (sr >= a->site->sr_count)
        return 0;
    size_t count = 0;
    for (size_t i = a->sr_groups.first[sr]; i < a->sr_groups.first[sr + 1]; i++) {
        const struct group *group = &a->groups[a->sr_groups.items[i]];
        count += group->transports == 0 ? 0 : group->live;
    }
    for (size_t i = 0; i < a->network_group_count; i++) {
        const struct group *group = &a->groups[a->network_groups[i]];
        bool near = group->host < a->site->host_count &&
                    a->site->attached[group->host * a->site->sr_count + sr];
        if (!near && xv_group_reaches(a, group, sr))
            count += group->live;
    }
    return count;
}

static struct group describe(const struct xv_sched_site *site, size_t proxy)
{
    const struct xv_sched_proxy *it = &site->proxies[proxy];
    uint32_t own = it->transports == 0 ? XV_TRANSPORT_ALL : it->transports;
    uint32_t policy = site->transports == 0 ? XV_TRANSPORT_ALL : site->transports;
    return (struct group){.host = it->host < site->host_count ? it->host : XV_SCHED_NONE,
                          .capacity = it->capacity == 0 ? 1 : it->capacity,
                          .transports = own & policy,
                          .network = it->network};
}

static int compare_groups(const struct group *a, const struct group *b)
{
    if (a->host != b->host)
        return a->host < b->host ? -1 : 1;
    if (a->capacity != b->capacity)
        return a->capacity < b->capacity ? -1 : 1;
    if (a->transports != b->transports)
        return a->transports < b->transports ? -1 : 1;
    return (int)a->network - (int)b->network;
}

struct sortable {
    struct group group;
    size_t proxy;
};

static int compare_sortables(const void *left, const void *right)
{
    const struct sortable *a = left;
    const struct sortable *b = right;
    int order = compare_groups(&a->group, &b->group);
    if (order != 0)
        return order;
    return a->proxy < b->proxy ? -1 : a->proxy > b->proxy;
}

/* Groups all proxies, also those that do not live, and heaps those that do. */
static void fill_groups(struct xv_assignment *a, const struct sortable *sorted)
{
    size_t count = a->site->proxy_count;
    a->group_count = 0;
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || compare_groups(&sorted[i - 1].group, &sorted[i].group) != 0) {
            a->groups[a->group_count] = sorted[i].group;
            a->groups[a->group_count++].heap = a->heaps + i;
        }
        struct group *group = &a->groups[a->group_count - 1];
        struct worker *worker = &a->workers[sorted[i].proxy];
        worker->group = a->group_count - 1;
        worker->capacity = group->capacity;
        worker->heap_place = XV_SCHED_NONE;
        if (!a->site->proxies[sorted[i].proxy].lost) {
            put(a, group, group->live, sorted[i].proxy);
            rise(a, group, group->live++);
        }
    }
}

static int make_groups(struct xv_assignment *a, xvsa_error **error)
{
    size_t count = a->site->proxy_count;
    struct sortable *sorted = calloc(count + 1, sizeof *sorted);
    a->groups = calloc(count + 1, sizeof *a->groups);
    a->heaps = calloc(count + 1, sizeof *a->heaps);
    a->network_groups = calloc(count + 1, sizeof *a->network_groups);
    if (sorted == NULL || a->groups == NULL || a->heaps == NULL || a->network_groups == NULL) {
        free(sorted);
        return xv_fail_memory(error);
    }
    for (size_t i = 0; i < count; i++)
        sorted[i] = (struct sortable){describe(a->site, i), i};
    qsort(sorted, count, sizeof *sorted, compare_sortables);
    fill_groups(a, sorted);
    free(sorted);
    for (size_t i = 0; i < a->group_count; i++) {
        if (a->site->network && a->groups[i].network)
            a->network_groups[a->network_group_count++] = i;
    }
    return 0;
}

/* Which of the subjects, each on a host, have each SR attached. */
static int make_lists(const struct xv_sched_site *site, const size_t *hosts, size_t count,
                      struct lists *ret, xvsa_error **error)
{
    size_t total = 0;
    for (size_t i = 0; i < count; i++) {
        for (size_t sr = 0; hosts[i] < site->host_count && sr < site->sr_count; sr++)
            total += site->attached[hosts[i] * site->sr_count + sr] ? 1 : 0;
    }
    ret->first = calloc(site->sr_count + 2, sizeof *ret->first);
    ret->items = calloc(total + 1, sizeof *ret->items);
    if (ret->first == NULL || ret->items == NULL)
        return xv_fail_memory(error);
    size_t next = 0;
    for (size_t sr = 0; sr < site->sr_count; sr++) {
        ret->first[sr] = next;
        for (size_t i = 0; i < count; i++) {
            if (hosts[i] < site->host_count && site->attached[hosts[i] * site->sr_count + sr])
                ret->items[next++] = i;
        }
    }
    ret->first[site->sr_count] = next;
    return 0;
}

int xv_groups_make(struct xv_assignment *a, xvsa_error **error)
{
    int rc = make_groups(a, error);
    if (rc != 0)
        return rc;
    size_t most = a->group_count > a->site->host_count ? a->group_count : a->site->host_count;
    size_t *hosts = calloc(most + 1, sizeof *hosts);
    if (hosts == NULL)
        return xv_fail_memory(error);
    for (size_t i = 0; i < a->group_count; i++)
        hosts[i] = a->groups[i].host;
    rc = make_lists(a->site, hosts, a->group_count, &a->sr_groups, error);
    for (size_t i = 0; i < a->site->host_count; i++)
        hosts[i] = i;
    if (rc == 0)
        rc = make_lists(a->site, hosts, a->site->host_count, &a->sr_hosts, error);
    free(hosts);
    return rc;
}

void xv_groups_free(struct xv_assignment *a)
{
    free(a->groups);
    free(a->heaps);
    free(a->network_groups);
    free(a->sr_groups.first);
    free(a->sr_groups.items);
    free(a->sr_hosts.first);
    free(a->sr_hosts.items);
    a->groups = NULL;
    a->heaps = NULL;
    a->network_groups = NULL;
    a->network_group_count = 0;
    a->sr_groups = (struct lists){NULL, NULL};
    a->sr_hosts = (struct lists){NULL, NULL};
}
