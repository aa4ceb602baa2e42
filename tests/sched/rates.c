/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * How fast each transfer goes: the links of proxies, hosts and SRs are shared max-min fairly, and
 * the target's by lib/sched's shares among the proxies. And the check that nobody has more than
 * there is.
 */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

#define LINKS (SIM_POOLS * (SIM_PROXIES + SIM_HOSTS + SIM_SRS))
#define FLOWS (SIM_POOLS * SIM_PROXIES * SIM_PLACES)

struct flow {
    struct sim_place *place;
    size_t links[3];
    bool fixed;
};

struct network {
    double left[LINKS];
    size_t users[LINKS];
    struct flow flows[FLOWS];
    size_t flow_count;
};

static size_t proxy_link(size_t pool, size_t proxy)
{
    return pool * (SIM_PROXIES + SIM_HOSTS + SIM_SRS) + proxy;
}

static size_t host_link(size_t pool, size_t host)
{
    return proxy_link(pool, SIM_PROXIES) + host;
}

static size_t sr_link(size_t pool, size_t sr)
{
    return host_link(pool, SIM_HOSTS) + sr;
}

static double or_unlimited(double rate)
{
    return rate > 0 ? rate : 1e15;
}

static void add_flows(struct sim *sim, struct network *net, size_t index)
{
    struct sim_pool *pool = &sim->pools[index];
    for (size_t i = 0; i < pool->site.proxy_count * SIM_PLACES; i++) {
        struct sim_place *place = &pool->proxies[i / SIM_PLACES].places[i % SIM_PLACES];
        place->rate = 0;
        if (!place->busy || place->since > sim->now || !pool->proxies[i / SIM_PLACES].alive)
            continue;
        size_t sr = pool->vms[place->vm].disks[place->disk].sr;
        struct flow *flow = &net->flows[net->flow_count++];
        *flow = (struct flow){
            place,
            {proxy_link(index, i / SIM_PLACES), host_link(index, place->host), sr_link(index, sr)},
            false};
        for (size_t j = 0; j < 3; j++)
            net->users[flow->links[j]]++;
    }
}

/* Raises all flows together; those on a link that is full stay as they are. */
static void fill_up(struct network *net)
{
    size_t open = net->flow_count;
    while (open > 0) {
        size_t tight = LINKS;
        for (size_t i = 0; i < LINKS; i++) {
            if (net->users[i] > 0 &&
                (tight == LINKS || net->left[i] / (double)net->users[i] <
                                       net->left[tight] / (double)net->users[tight]))
                tight = i;
        }
        double rate = net->left[tight] / (double)net->users[tight];
        for (size_t i = 0; i < net->flow_count; i++) {
            struct flow *flow = &net->flows[i];
            if (flow->fixed ||
                (flow->links[0] != tight && flow->links[1] != tight && flow->links[2] != tight))
                continue;
            flow->fixed = true;
            flow->place->rate = rate;
            open--;
            for (size_t j = 0; j < 3; j++) {
                net->users[flow->links[j]]--;
                net->left[flow->links[j]] -= rate;
            }
        }
    }
}

static double proxy_rate(const struct sim_proxy *proxy)
{
    double sum = 0;
    for (size_t i = 0; i < SIM_PLACES; i++)
        sum += proxy->places[i].busy ? proxy->places[i].rate : 0;
    return sum;
}

/* shares NULL: nothing but the links themselves limits. */
static void flow_freely(struct sim *sim, struct network *net, const uint64_t *shares)
{
    memset(net, 0, sizeof *net);
    for (size_t i = 0; i < sim->pool_count; i++) {
        struct sim_pool *pool = &sim->pools[i];
        for (size_t j = 0; j < pool->site.proxy_count; j++) {
            double share = shares == NULL ? 1e15 : (double)shares[i * SIM_PROXIES + j];
            net->left[proxy_link(i, j)] =
                pool->proxies[j].rate < share ? pool->proxies[j].rate : share;
        }
        for (size_t j = 0; j < SIM_HOSTS; j++)
            net->left[host_link(i, j)] = or_unlimited(pool->host_rates[j]);
        for (size_t j = 0; j < SIM_SRS; j++)
            net->left[sr_link(i, j)] = or_unlimited(pool->sr_rates[j]);
        add_flows(sim, net, i);
    }
    fill_up(net);
}

void sim_rates(struct sim *sim)
{
    static struct network net;
    double until;
    double target = sim_target_rate(sim, sim->now, &until);
    flow_freely(sim, &net, NULL);
    if (target >= 1e17)
        return;
    uint64_t demands[SIM_POOLS * SIM_PROXIES] = {0};
    uint64_t shares[SIM_POOLS * SIM_PROXIES];
    for (size_t i = 0; i < sim->pool_count; i++) {
        for (size_t j = 0; j < sim->pools[i].site.proxy_count; j++)
            demands[i * SIM_PROXIES + j] = (uint64_t)proxy_rate(&sim->pools[i].proxies[j]);
    }
    xv_rate_share((uint64_t)target, demands, SIM_POOLS * SIM_PROXIES, shares);
    flow_freely(sim, &net, shares);
}

static void check_proxy(struct sim *sim, struct sim_pool *pool, size_t index)
{
    const struct sim_proxy *proxy = &pool->proxies[index];
    size_t busy = 0;
    for (size_t i = 0; i < SIM_PLACES; i++) {
        const struct sim_place *place = &proxy->places[i];
        if (!place->busy)
            continue;
        busy++;
        size_t sr = pool->vms[place->vm].disks[place->disk].sr;
        if (!proxy->alive)
            sim_violate(sim, "%s moves although it is lost", proxy->key);
        if (!xv_sched_eligible(&pool->site, index, sr))
            sim_violate(sim, "%s moves a disk of SR %s out of its reach", proxy->key,
                        pool->sr_keys[sr]);
    }
    if (busy > pool->workers[index].capacity)
        sim_violate(sim, "%s moves %zu disks of %u", proxy->key, busy,
                    pool->workers[index].capacity);
    if (proxy_rate(proxy) > proxy->rate * 1.000001)
        sim_violate(sim, "%s moves faster than its link", proxy->key);
}

static void check_shared(struct sim *sim, struct sim_pool *pool, double *total)
{
    uint32_t connections[SIM_HOSTS] = {0};
    uint32_t transfers[SIM_SRS] = {0};
    uint32_t budget = sim->limits.host_connections == 0 ? XV_SCHED_HOST_CONNECTIONS
                                                        : sim->limits.host_connections;
    for (size_t i = 0; i < pool->site.proxy_count * SIM_PLACES; i++) {
        const struct sim_place *place = &pool->proxies[i / SIM_PLACES].places[i % SIM_PLACES];
        if (place->busy) {
            connections[place->host] += place->connections;
            transfers[pool->vms[place->vm].disks[place->disk].sr]++;
            *total += place->rate;
        }
    }
    for (size_t i = 0; i < pool->site.host_count; i++) {
        if (connections[i] > budget)
            sim_violate(sim, "host %s has %u connections", pool->host_keys[i], connections[i]);
    }
    for (size_t i = 0; i < pool->site.sr_count; i++) {
        uint32_t limit = pool->sr_limits[i];
        if (limit != 0 && transfers[i] > limit)
            sim_violate(sim, "SR %s has %u transfers of %u", pool->sr_keys[i], transfers[i], limit);
    }
}

void sim_check(struct sim *sim)
{
    double total = 0;
    double until;
    for (size_t i = 0; i < sim->pool_count; i++) {
        for (size_t j = 0; j < sim->pools[i].site.proxy_count; j++)
            check_proxy(sim, &sim->pools[i], j);
        check_shared(sim, &sim->pools[i], &total);
    }
    if (total > sim_target_rate(sim, sim->now, &until) * 1.000001)
        sim_violate(sim, "the target's link carries %.0f bytes per second", total);
    if (total > 0 && !sim_window(sim, sim->now, &until).open)
        sim_violate(sim, "something moves outside the window at %.0f s", sim->now);
}
