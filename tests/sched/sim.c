/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EVENTS_MAX 400000u
/* Bytes that are nothing: what rounding leaves. */
#define DUST 0.5

static void *take_memory(size_t count, size_t size)
{
    void *memory = calloc(count + 1, size);
    if (memory == NULL) {
        perror("sched-sim");
        exit(2);
    }
    return memory;
}

void sim_reserve(struct sim_pool *pool, size_t vms)
{
    pool->vms = take_memory(vms, sizeof *pool->vms);
    pool->tasks = take_memory(vms, sizeof *pool->tasks);
}

void sim_add_vm(struct sim_pool *pool, const char *key, size_t host, int32_t priority,
                bool is_protected)
{
    struct sim_task *task = &pool->tasks[pool->vm_count];
    snprintf(task->key, sizeof task->key, "%s", key);
    task->priority = priority;
    task->owner = XV_SCHED_NONE;
    pool->vms[pool->vm_count++] = (struct xv_sched_vm){.host = host,
                                                       .is_protected = is_protected,
                                                       .disks = task->wishes,
                                                       .key = task->key,
                                                       .owner = XV_SCHED_NONE};
}

void sim_add_disk(struct sim_pool *pool, size_t sr, uint64_t bytes)
{
    struct xv_sched_vm *vm = &pool->vms[pool->vm_count - 1];
    pool->tasks[pool->vm_count - 1].disks[vm->disk_count].left = (double)bytes;
    vm->disks[vm->disk_count++] = (struct xv_sched_disk){.sr = sr, .bytes = bytes};
}

void sim_free(struct sim *sim)
{
    for (size_t i = 0; i < sim->pool_count; i++) {
        struct sim_pool *pool = &sim->pools[i];
        for (size_t j = 0; j < pool->vm_count; j++) {
            for (size_t k = 0; k < SIM_DISKS; k++)
                free(pool->tasks[j].disks[k].units);
        }
        xv_assignment_free(pool->assignment);
        free(pool->vms);
        free(pool->tasks);
    }
}

void sim_violate(struct sim *sim, const char *format, ...)
{
    if (sim->violations++ > 0)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(sim->first_violation, sizeof sim->first_violation, format, args);
    va_end(args);
}

static uint32_t minute_at(const struct sim *sim, double now)
{
    return (sim->start_minute + (uint32_t)(now / 60)) % XV_WEEK_MINUTES;
}

static double instant_after(double now, uint32_t minutes)
{
    return minutes == XV_MINUTES_NEVER ? 1e18 : ((double)(uint64_t)(now / 60) + minutes) * 60;
}

struct xv_window_state sim_window(const struct sim *sim, double now, double *ret_until)
{
    struct xv_windows windows = {sim->windows, sim->window_count};
    struct xv_window_state state = xv_windows_at(&windows, minute_at(sim, now));
    *ret_until = instant_after(now, state.minutes);
    return state;
}

double sim_target_rate(const struct sim *sim, double now, double *ret_until)
{
    struct xv_curve curve = {sim->curve, sim->curve_count};
    struct xv_curve_state state = xv_curve_at(&curve, minute_at(sim, now));
    *ret_until = instant_after(now, state.minutes);
    return state.rate == XV_RATE_UNLIMITED ? 1e18 : (double)state.rate;
}

size_t sim_coordinator(const struct sim *sim, const struct sim_pool *pool)
{
    if (sim->now < pool->coordinator_from)
        return XV_SCHED_NONE;
    for (size_t i = 0; i < pool->site.proxy_count; i++) {
        if (pool->proxies[i].alive)
            return i;
    }
    return XV_SCHED_NONE;
}

static void begin_pool(struct sim *sim, struct sim_pool *pool)
{
    size_t *order = take_memory(pool->vm_count, sizeof *order);
    xvsa_error *error = NULL;
    pool->site.attached = pool->attached;
    pool->site.proxies = pool->workers;
    pool->site.sr_limits = pool->sr_limits;
    pool->site.host_keys = pool->host_key_list;
    for (size_t i = 0; i < pool->site.host_count; i++)
        pool->host_key_list[i] = pool->host_keys[i];
    for (size_t i = 0; i < pool->site.proxy_count; i++) {
        pool->workers[i].key = pool->proxies[i].key;
        pool->proxies[i].alive = true;
        pool->proxies[i].first_rate = pool->proxies[i].rate;
    }
    memcpy(pool->attached_first, pool->attached, sizeof pool->attached);
    if (xv_assignment_new(&pool->site, pool->vms, pool->vm_count, &pool->assignment, &error) != 0 ||
        xv_sched_order(&pool->site, pool->vms, pool->vm_count, order, &error) != 0)
        sim_violate(sim, "planning failed: %s", xvsa_error_message(error));
    for (size_t i = 0; i < pool->vm_count; i++) {
        pool->tasks[order[i]].rank = i;
        if (pool->vms[i].owner == XV_SCHED_NONE) {
            pool->tasks[i].state = SIM_FAILED;
            sim->failed++;
        }
    }
    free(order);
}

/* Ends a transfer; the unit is done, or goes back with what is left. */
static void end_transfer(struct sim *sim, struct sim_pool *pool, struct sim_proxy *proxy,
                         struct sim_place *place)
{
    struct sim_disk *disk = &pool->tasks[place->vm].disks[place->disk];
    struct sim_unit *unit = &disk->units[place->unit];
    place->busy = false;
    proxy->last_busy = sim->now;
    disk->movers--;
    if (unit->done)
        sim_violate(sim, "unit %zu of %s moved twice", place->unit, pool->tasks[place->vm].key);
    disk->left -= unit->left;
    unit->left = 0;
    unit->done = true;
    if (++disk->done_count == disk->unit_count) {
        pool->vms[place->vm].disks[place->disk].done = true;
        xv_assignment_finish(pool->assignment, place->vm, place->disk);
    }
}

static bool all_disks_done(const struct xv_sched_vm *vm)
{
    for (size_t i = 0; i < vm->disk_count; i++) {
        if (!vm->disks[i].done)
            return false;
    }
    return true;
}

/* Cuts the disks of a task that has been prepared into units. */
static void open_task(struct sim *sim, struct sim_pool *pool, size_t vm)
{
    struct sim_task *task = &pool->tasks[vm];
    task->state = SIM_OPEN;
    task->opened = ++sim->opened;
    for (size_t i = 0; i < pool->vms[vm].disk_count; i++) {
        struct sim_disk *disk = &task->disks[i];
        uint64_t bytes = pool->vms[vm].disks[i].bytes;
        if (disk->units != NULL)
            continue;
        uint64_t size = sim->unit_bytes != 0
                            ? sim->unit_bytes
                            : xv_sched_unit_bytes(bytes, task->outstanding, task->proxies);
        disk->unit_count = (size_t)((bytes + size - 1) / size);
        disk->free_count = disk->unit_count;
        disk->units = take_memory(disk->unit_count, sizeof *disk->units);
        for (size_t j = 0; j < disk->unit_count; j++) {
            uint64_t begin = j * size;
            disk->units[j].left = (double)(bytes - begin < size ? bytes - begin : size);
            disk->units[j].claimer = XV_SCHED_NONE;
        }
        pool->vms[vm].disks[i].done = disk->unit_count == 0;
    }
}

static void step_task(struct sim *sim, struct sim_pool *pool, size_t vm)
{
    struct sim_task *task = &pool->tasks[vm];
    bool alive = task->owner != XV_SCHED_NONE && pool->proxies[task->owner].alive;
    if (!alive || task->ready_at > sim->now)
        return;
    if (task->state == SIM_PREPARING)
        open_task(sim, pool, vm);
    if (task->state == SIM_OPEN && all_disks_done(&pool->vms[vm])) {
        task->state = SIM_COMMITTING;
        task->ready_at = sim->now + SIM_COMMIT;
    } else if (task->state == SIM_COMMITTING) {
        task->state = SIM_DONE;
        task->done_at = sim->now;
        sim->makespan = sim->now;
        sim->open_makespan = sim->open_time;
        sim->done++;
        pool->vms[vm].taken = false;
        xv_assignment_finish(pool->assignment, vm, XV_SCHED_NONE);
    }
}

static void step_all(struct sim *sim)
{
    for (size_t i = 0; i < sim->pool_count; i++) {
        for (size_t j = 0; j < sim->pools[i].vm_count; j++)
            step_task(sim, &sim->pools[i], j);
    }
}

static double earlier(double a, double b)
{
    return a < b ? a : b;
}

static double next_of_pool(const struct sim *sim, const struct sim_pool *pool)
{
    double next = 1e18;
    for (size_t i = 0; i < pool->vm_count; i++) {
        if (pool->tasks[i].state < SIM_DONE && pool->tasks[i].ready_at > sim->now)
            next = earlier(next, pool->tasks[i].ready_at);
    }
    for (size_t i = 0; i < pool->site.proxy_count; i++) {
        const struct sim_proxy *proxy = &pool->proxies[i];
        if (!proxy->alive && !proxy->noticed && proxy->died_at + SIM_LEASE > sim->now)
            next = earlier(next, proxy->died_at + SIM_LEASE);
        for (size_t j = 0; j < SIM_PLACES; j++) {
            const struct sim_place *place = &proxy->places[j];
            if (place->busy && proxy->alive && place->since > sim->now)
                next = earlier(next, place->since);
            if (place->busy && proxy->alive && place->rate > 0)
                next = earlier(next, sim->now + place->left / place->rate);
        }
    }
    if (pool->lost_host_at > 0 && pool->lost_host_at + SIM_LEASE > sim->now)
        next = earlier(next, pool->lost_host_at + SIM_LEASE);
    return pool->coordinator_from > sim->now ? earlier(next, pool->coordinator_from) : next;
}

/* The next instant at which anything can change; 1e18: never. */
static double next_event(const struct sim *sim)
{
    double next = 1e18;
    bool faults = false;
    for (size_t i = 0; i < sim->fault_count; i++) {
        if (!sim->faults[i].applied) {
            next = earlier(next, sim->faults[i].at);
            faults = true;
        }
    }
    for (size_t i = 0; i < sim->pool_count; i++)
        next = earlier(next, next_of_pool(sim, &sim->pools[i]));
    if (faults)
        next = earlier(next, ((double)(uint64_t)(sim->now / SIM_CHECKPOINT) + 1) * SIM_CHECKPOINT);
    double until;
    sim_window(sim, sim->now, &until);
    next = earlier(next, until);
    sim_target_rate(sim, sim->now, &until);
    return earlier(next, until);
}

static void advance(struct sim *sim, double until)
{
    double step = until - sim->now;
    double ignored;
    if (sim_window(sim, sim->now, &ignored).open)
        sim->open_time += step;
    sim->now = until;
    for (size_t i = 0; i < sim->pool_count; i++) {
        struct sim_pool *pool = &sim->pools[i];
        for (size_t j = 0; j < pool->site.proxy_count; j++) {
            struct sim_proxy *proxy = &pool->proxies[j];
            for (size_t k = 0; proxy->alive && k < SIM_PLACES; k++) {
                struct sim_place *place = &proxy->places[k];
                if (!place->busy)
                    continue;
                place->left -= place->rate * step;
                proxy->bytes += place->rate * step;
                if (place->left < DUST)
                    end_transfer(sim, pool, proxy, place);
            }
        }
    }
}

static bool is_over(const struct sim *sim)
{
    size_t all = 0;
    for (size_t i = 0; i < sim->pool_count; i++)
        all += sim->pools[i].vm_count;
    return sim->done + sim->failed >= all;
}

void sim_run(struct sim *sim)
{
    for (size_t i = 0; i < sim->pool_count; i++)
        begin_pool(sim, &sim->pools[i]);
    while (!is_over(sim) && sim->events++ < EVENTS_MAX) {
        sim_change(sim);
        sim_notice(sim);
        step_all(sim);
        sim_dispatch(sim);
        sim_rates(sim);
        sim_check(sim);
        if (is_over(sim))
            break;
        double next = next_event(sim);
        if (next >= 1e17)
            break;
        advance(sim, next);
    }
    if (!is_over(sim))
        sim_violate(sim, "stuck at %.0f s: %zu done, %zu failed", sim->now, sim->done, sim->failed);
}
