/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "scenario.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MB  1e6
#define GIB 1073741824.0

static const char *current;

static void __attribute__((format(printf, 1, 2), noreturn)) complain(const char *format, ...)
{
    va_list args;
    fprintf(stderr, "%s: ", current);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n");
    exit(2);
}

static const char *text(const json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));
    if (value == NULL)
        complain("\"%s\" must be a text", key);
    return value;
}

static double number(const json_t *object, const char *key, double fallback)
{
    const json_t *value = json_object_get(object, key);
    return value == NULL || json_is_null(value) ? fallback : json_number_value(value);
}

/* Members of an array, at most so many. */
static size_t size_of(const json_t *array, const char *what, size_t most)
{
    if (array != NULL && !json_is_array(array))
        complain("\"%s\" must be an array", what);
    if (json_array_size(array) > most)
        complain("\"%s\": at most %zu", what, most);
    return json_array_size(array);
}

static size_t find(char (*names)[SIM_NAME], size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(names[i], name) == 0)
            return i;
    }
    complain("there is no \"%s\"", name);
}

static size_t find_proxy(const struct sim_pool *pool, const char *name)
{
    for (size_t i = 0; i < pool->site.proxy_count; i++) {
        if (strcmp(pool->proxies[i].key, name) == 0)
            return i;
    }
    return XV_SCHED_NONE;
}

static void read_hosts(const json_t *array, struct sim_pool *pool)
{
    pool->site.host_count = size_of(array, "hosts", SIM_HOSTS);
    for (size_t i = 0; i < pool->site.host_count; i++) {
        const json_t *host = json_array_get(array, i);
        snprintf(pool->host_keys[i], SIM_NAME, "%s", text(host, "name"));
        pool->host_rates[i] = number(host, "rate", 0) * MB;
    }
}

static void read_srs(const json_t *array, struct sim_pool *pool)
{
    pool->site.sr_count = size_of(array, "srs", SIM_SRS);
    for (size_t i = 0; i < pool->site.sr_count; i++) {
        const json_t *sr = json_array_get(array, i);
        const json_t *hosts = json_object_get(sr, "hosts");
        snprintf(pool->sr_keys[i], SIM_NAME, "%s", text(sr, "name"));
        pool->sr_rates[i] = number(sr, "rate", 0) * MB;
        pool->sr_limits[i] = (uint32_t)number(sr, "transfers", 0);
        for (size_t j = 0; j < size_of(hosts, "hosts", SIM_HOSTS); j++) {
            size_t host = find(pool->host_keys, pool->site.host_count,
                               json_string_value(json_array_get(hosts, j)));
            pool->attached[host * pool->site.sr_count + i] = true;
        }
    }
}

static void read_proxies(const json_t *array, struct sim_pool *pool)
{
    pool->site.proxy_count = size_of(array, "proxies", SIM_PROXIES);
    for (size_t i = 0; i < pool->site.proxy_count; i++) {
        const json_t *proxy = json_array_get(array, i);
        snprintf(pool->proxies[i].key, SIM_NAME, "%s", text(proxy, "name"));
        pool->proxies[i].rate = number(proxy, "rate", 100) * MB;
        pool->workers[i] = (struct xv_sched_proxy){
            .host = find(pool->host_keys, pool->site.host_count, text(proxy, "host")),
            .capacity = (uint32_t)number(proxy, "disks", 4),
            .transports = XV_TRANSPORT_NBD | XV_TRANSPORT_HTTP,
            .network = true};
        if (pool->workers[i].capacity > SIM_PLACES)
            complain("proxy %s: at most %d disks", pool->proxies[i].key, SIM_PLACES);
    }
}

static void read_vm(const json_t *vm, size_t copy, struct sim_pool *pool)
{
    char key[2 * SIM_NAME];
    const char *host = json_string_value(json_object_get(vm, "host"));
    const json_t *disks = json_object_get(vm, "disks");
    snprintf(key, sizeof key, "%.20s-%04zu", text(vm, "name"), copy);
    sim_add_vm(pool, key,
               host == NULL ? XV_SCHED_NONE : find(pool->host_keys, pool->site.host_count, host),
               (int32_t)number(vm, "priority", 0), json_is_true(json_object_get(vm, "protected")));
    for (size_t i = 0; i < size_of(disks, "disks", SIM_DISKS); i++) {
        const json_t *disk = json_array_get(disks, i);
        sim_add_disk(pool, find(pool->sr_keys, pool->site.sr_count, text(disk, "sr")),
                     (uint64_t)(number(disk, "gib", 0) * GIB));
    }
}

static void read_vms(const json_t *array, struct sim_pool *pool)
{
    size_t total = 0;
    for (size_t i = 0; i < json_array_size(array); i++)
        total += (size_t)number(json_array_get(array, i), "count", 1);
    sim_reserve(pool, total);
    for (size_t i = 0; i < json_array_size(array); i++) {
        const json_t *vm = json_array_get(array, i);
        for (size_t j = 0; j < (size_t)number(vm, "count", 1); j++)
            read_vm(vm, j, pool);
    }
}

static void read_fault(const json_t *fault, struct sim *sim)
{
    static const char *const kinds[] = {"lose_proxy", "lose_host", "set_rate", "return_proxy"};
    struct sim_fault *ret = &sim->faults[sim->fault_count++];
    ret->pool = (size_t)number(fault, "pool", 0);
    if (ret->pool >= sim->pool_count)
        complain("there is no pool %zu", ret->pool);
    struct sim_pool *pool = &sim->pools[ret->pool];
    ret->at = number(fault, "at", 0);
    ret->rate = number(fault, "rate", 0) * MB;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (json_object_get(fault, kinds[i]) == NULL)
            continue;
        const char *name = text(fault, kinds[i]);
        ret->kind = (enum sim_fault_kind)i;
        ret->subject = ret->kind == SIM_LOSE_HOST
                           ? find(pool->host_keys, pool->site.host_count, name)
                           : find_proxy(pool, name);
        if (ret->subject == XV_SCHED_NONE)
            complain("there is no proxy \"%s\"", name);
        return;
    }
    complain("a fault is one of lose_proxy, lose_host, set_rate, return_proxy");
}

static void read_times(const json_t *root, struct sim *sim)
{
    const json_t *windows = json_object_get(root, "windows");
    const json_t *curve = json_object_get(root, "target_curve");
    sim->start_minute = (uint32_t)number(root, "start_minute", 0);
    sim->unit_bytes = (uint64_t)(number(root, "unit_mib", 0) * 1048576);
    sim->window_count = size_of(windows, "windows", SIM_STEPS);
    for (size_t i = 0; i < sim->window_count; i++) {
        const json_t *window = json_array_get(windows, i);
        sim->windows[i] = (struct xv_window){(uint32_t)number(window, "begin", 0),
                                             (uint32_t)number(window, "end", 0)};
    }
    sim->curve_count = size_of(curve, "target_curve", SIM_STEPS);
    for (size_t i = 0; i < sim->curve_count; i++) {
        const json_t *step = json_array_get(curve, i);
        sim->curve[i] = (struct xv_curve_step){(uint32_t)number(step, "minute", 0),
                                               (uint64_t)(number(step, "rate", 0) * MB)};
    }
}

void scenario_read(const char *path, struct sim *sim)
{
    json_error_t problem;
    current = path;
    json_t *root = json_load_file(path, 0, &problem);
    if (root == NULL)
        complain("line %d: %s", problem.line, problem.text);
    const json_t *pools = json_object_get(root, "pools");
    const json_t *faults = json_object_get(root, "faults");
    sim->pool_count = size_of(pools, "pools", SIM_POOLS);
    read_times(root, sim);
    for (size_t i = 0; i < sim->pool_count; i++) {
        const json_t *pool = json_array_get(pools, i);
        sim->pools[i].site.network = json_is_true(json_object_get(pool, "network"));
        read_hosts(json_object_get(pool, "hosts"), &sim->pools[i]);
        read_srs(json_object_get(pool, "srs"), &sim->pools[i]);
        read_proxies(json_object_get(pool, "proxies"), &sim->pools[i]);
        read_vms(json_object_get(pool, "vms"), &sim->pools[i]);
    }
    for (size_t i = 0; i < size_of(faults, "faults", SIM_FAULTS); i++)
        read_fault(json_array_get(faults, i), sim);
    json_decref(root);
}

/* Of the proxies that live to the end, the one that was idle first, as a part of the makespan. */
static double balance(const struct sim *sim)
{
    double least = sim->makespan;
    for (size_t i = 0; i < sim->pool_count; i++) {
        for (size_t j = 0; j < sim->pools[i].site.proxy_count; j++) {
            const struct sim_proxy *proxy = &sim->pools[i].proxies[j];
            if (proxy->alive && proxy->last_busy < least)
                least = proxy->last_busy;
        }
    }
    return sim->makespan > 0 ? least / sim->makespan : 1;
}

static json_t *proxies_outcome(const struct sim *sim)
{
    json_t *array = json_array();
    for (size_t i = 0; i < sim->pool_count; i++) {
        for (size_t j = 0; j < sim->pools[i].site.proxy_count; j++) {
            const struct sim_proxy *proxy = &sim->pools[i].proxies[j];
            json_array_append_new(array, json_pack("{s:s, s:f, s:f, s:b}", "name", proxy->key,
                                                   "gib", proxy->bytes / GIB, "last_busy_s",
                                                   proxy->last_busy, "alive", proxy->alive));
        }
    }
    return array;
}

json_t *scenario_outcome(const struct sim *sim, const char *name)
{
    double bound = sim_bound(sim);
    double open = sim_open_time(sim, bound);
    return json_pack("{s:s, s:f, s:f, s:f, s:f, s:i, s:i, s:f, s:f, s:i, s:s, s:i, s:o}",
                     "scenario", name, "makespan_s", sim->makespan, "bound_s", bound, "ratio",
                     open > 0 ? sim->open_makespan / open : 1, "balance", balance(sim), "done",
                     (int)sim->done, "failed", (int)sim->failed, "resent_gib", sim->resent / GIB,
                     "resent_most_s", sim->resent_most, "violations", (int)sim->violations,
                     "first_violation", sim->first_violation, "events", (int)sim->events, "proxies",
                     proxies_outcome(sim));
}
