/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Lower bound of the makespan: the smallest T for which the work fits as a fluid through everything
 * that limits it: SRs, who reaches them, links of proxies (while they live, at the rate they have
 * then), of hosts, and the target's, open time alone counted. A maximum flow tells whether it fits.
 */
#include <float.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

#define NODES     (2 + 1 + SIM_POOLS * (2 * SIM_SRS + SIM_PROXIES + SIM_HOSTS))
#define ENDLESS   1e18
#define SEARCHES  60
#define TOLERANCE 1e-7

struct graph {
    double capacity[NODES][NODES];
};

enum { SOURCE, SINK, TARGET, FIRST };

static size_t node(size_t pool, size_t kind, size_t index)
{
    static const size_t offsets[] = {0, SIM_SRS, 2 * SIM_SRS, 2 * SIM_SRS + SIM_PROXIES};
    return FIRST + pool * (2 * SIM_SRS + SIM_PROXIES + SIM_HOSTS) + offsets[kind] + index;
}

enum { SR_IN, SR_OUT, PROXY, HOST };

/* Rate of a proxy at an instant, faults included. */
static double rate_at(const struct sim *sim, size_t pool, size_t proxy, double first_rate, double t)
{
    double rate = first_rate;
    bool alive = true;
    for (size_t i = 0; i < sim->fault_count; i++) {
        const struct sim_fault *fault = &sim->faults[i];
        if (fault->pool != pool || fault->at > t)
            continue;
        bool own = fault->subject == proxy;
        if (fault->kind == SIM_LOSE_PROXY && own)
            alive = false;
        if (fault->kind == SIM_LOSE_HOST && sim->pools[pool].workers[proxy].host == fault->subject)
            alive = false;
        if (fault->kind == SIM_SET_RATE && own)
            rate = fault->rate;
        if (fault->kind == SIM_RETURN_PROXY && own)
            alive = true;
    }
    return alive ? rate : 0;
}

/* The next instant after t at which anything may change. */
static double next_change(const struct sim *sim, double t)
{
    double until;
    double next = ENDLESS;
    sim_window(sim, t, &until);
    next = until < next ? until : next;
    sim_target_rate(sim, t, &until);
    next = until < next ? until : next;
    for (size_t i = 0; i < sim->fault_count; i++) {
        if (sim->faults[i].at > t && sim->faults[i].at < next)
            next = sim->faults[i].at;
    }
    return next;
}

/* Lets the time from the first possible byte to end go by. */
static void add_capacities(const struct sim *sim, double end, struct graph *graph)
{
    for (double t = SIM_PREPARE; t < end;) {
        double until;
        double next = next_change(sim, t);
        double step = (next < end ? next : end) - t;
        if (sim_window(sim, t, &until).open) {
            graph->capacity[TARGET][SINK] += sim_target_rate(sim, t, &until) * step;
            for (size_t i = 0; i < sim->pool_count; i++) {
                const struct sim_pool *pool = &sim->pools[i];
                for (size_t j = 0; j < pool->site.proxy_count; j++) {
                    size_t host = node(i, HOST, pool->workers[j].host);
                    graph->capacity[node(i, PROXY, j)][host] +=
                        rate_at(sim, i, j, pool->proxies[j].first_rate, t) * step;
                }
                for (size_t j = 0; j < pool->site.host_count; j++)
                    graph->capacity[node(i, HOST, j)][TARGET] +=
                        pool->host_rates[j] > 0 ? pool->host_rates[j] * step : ENDLESS;
                for (size_t j = 0; j < pool->site.sr_count; j++)
                    graph->capacity[node(i, SR_IN, j)][node(i, SR_OUT, j)] +=
                        pool->sr_rates[j] > 0 ? pool->sr_rates[j] * step : ENDLESS;
            }
        }
        t = next < end ? next : end;
    }
}

/* Demands of the VMs that are not refused, and who reaches what at the beginning. */
static double add_work(const struct sim *sim, struct graph *graph)
{
    double sum = 0;
    for (size_t i = 0; i < sim->pool_count; i++) {
        const struct sim_pool *pool = &sim->pools[i];
        for (size_t j = 0; j < pool->vm_count; j++) {
            for (size_t k = 0; pool->tasks[j].state != SIM_FAILED && k < pool->vms[j].disk_count;
                 k++) {
                double bytes = (double)pool->vms[j].disks[k].bytes;
                graph->capacity[SOURCE][node(i, SR_IN, pool->vms[j].disks[k].sr)] += bytes;
                sum += bytes;
            }
        }
        for (size_t j = 0; j < pool->site.proxy_count; j++) {
            for (size_t sr = 0; sr < pool->site.sr_count; sr++) {
                size_t host = pool->workers[j].host;
                if (pool->attached_first[host * pool->site.sr_count + sr] || pool->site.network)
                    graph->capacity[node(i, SR_OUT, sr)][node(i, PROXY, j)] = ENDLESS;
            }
        }
    }
    return sum;
}

/* One shortest augmenting path; what it carries, 0 for none. */
static double augment(struct graph *graph)
{
    size_t from[NODES];
    size_t queue[NODES];
    size_t head = 0;
    size_t tail = 0;
    memset(from, 0xff, sizeof from);
    queue[tail++] = SOURCE;
    from[SOURCE] = SOURCE;
    while (head < tail && from[SINK] == SIZE_MAX) {
        size_t at = queue[head++];
        for (size_t to = 0; to < NODES; to++) {
            if (from[to] == SIZE_MAX && graph->capacity[at][to] > TOLERANCE) {
                from[to] = at;
                queue[tail++] = to;
            }
        }
    }
    if (from[SINK] == SIZE_MAX)
        return 0;
    double flow = DBL_MAX;
    for (size_t at = SINK; at != SOURCE; at = from[at]) {
        double left = graph->capacity[from[at]][at];
        flow = left < flow ? left : flow;
    }
    for (size_t at = SINK; at != SOURCE; at = from[at]) {
        graph->capacity[from[at]][at] -= flow;
        graph->capacity[at][from[at]] += flow;
    }
    return flow;
}

static bool fits(const struct sim *sim, double end, struct graph *graph)
{
    memset(graph, 0, sizeof *graph);
    double work = add_work(sim, graph);
    add_capacities(sim, end, graph);
    double moved = 0;
    double flow;
    while ((flow = augment(graph)) > 0)
        moved += flow;
    return moved >= work * (1 - 1e-9) - 1;
}

double sim_bound(const struct sim *sim)
{
    struct graph *graph = malloc(sizeof *graph);
    if (graph == NULL)
        abort();
    double high = 60;
    while (high < 1e9 && !fits(sim, high, graph))
        high *= 2;
    double low = 0;
    for (int i = 0; i < SEARCHES && high - low > 1e-3; i++) {
        double middle = (low + high) / 2;
        if (fits(sim, middle, graph))
            high = middle;
        else
            low = middle;
    }
    free(graph);
    return low + SIM_COMMIT;
}

double sim_open_time(const struct sim *sim, double end)
{
    double open = 0;
    for (double t = 0; t < end;) {
        double until;
        bool is_open = sim_window(sim, t, &until).open;
        double next = until < end ? until : end;
        open += is_open ? next - t : 0;
        t = next;
    }
    return open;
}
