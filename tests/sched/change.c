/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Faults, their discovery, checkpoints and the end of operation windows.
 */
#include <string.h>

#include "sim.h"

/* Stops a transfer. kept: what it has moved is acknowledged; else only what was at the last
 * checkpoint. */
static void stop(struct sim *sim, struct sim_pool *pool, struct sim_proxy *proxy,
                 struct sim_place *place, bool kept)
{
    struct sim_disk *disk = &pool->tasks[place->vm].disks[place->disk];
    struct sim_unit *unit = &disk->units[place->unit];
    place->busy = false;
    disk->movers--;
    if (kept) {
        disk->left -= unit->left - place->left;
        unit->left = place->left;
        return;
    }
    double again = unit->left - place->left;
    sim->resent += again;
    if (proxy->rate > 0 && again / proxy->rate > sim->resent_most)
        sim->resent_most = again / proxy->rate;
}

static void free_unit(struct sim_pool *pool, const struct sim_place *place)
{
    struct sim_disk *disk = &pool->tasks[place->vm].disks[place->disk];
    disk->units[place->unit].claimer = XV_SCHED_NONE;
    disk->free_count++;
}

static void lose_proxy(struct sim *sim, struct sim_pool *pool, size_t index)
{
    struct sim_proxy *proxy = &pool->proxies[index];
    if (!proxy->alive)
        return;
    if (sim_coordinator(sim, pool) == index)
        pool->coordinator_from = sim->now + SIM_LEASE + SIM_ELECTION;
    proxy->alive = false;
    proxy->noticed = false;
    proxy->died_at = sim->now;
    for (size_t i = 0; i < SIM_PLACES; i++) {
        if (proxy->places[i].busy)
            stop(sim, pool, proxy, &proxy->places[i], false);
    }
}

static void lose_host(struct sim *sim, struct sim_pool *pool, size_t host)
{
    for (size_t i = 0; i < pool->site.proxy_count; i++) {
        if (pool->workers[i].host == host)
            lose_proxy(sim, pool, i);
        /* Who reads from it over the network finds another one. */
        for (size_t j = 0; pool->proxies[i].alive && j < SIM_PLACES; j++) {
            struct sim_place *place = &pool->proxies[i].places[j];
            if (place->busy && place->host == host) {
                stop(sim, pool, &pool->proxies[i], place, false);
                free_unit(pool, place);
            }
        }
    }
    pool->lost_host_at = sim->now;
    for (size_t sr = 0; sr < pool->site.sr_count; sr++)
        pool->attached[host * pool->site.sr_count + sr] = false;
}

static void apply(struct sim *sim, struct sim_fault *fault)
{
    struct sim_pool *pool = &sim->pools[fault->pool];
    fault->applied = true;
    switch (fault->kind) {
    case SIM_LOSE_PROXY:
        lose_proxy(sim, pool, fault->subject);
        break;
    case SIM_LOSE_HOST:
        lose_host(sim, pool, fault->subject);
        break;
    case SIM_SET_RATE:
        pool->proxies[fault->subject].rate = fault->rate;
        break;
    case SIM_RETURN_PROXY: {
        struct xv_moves moves;
        xvsa_error *error = NULL;
        pool->proxies[fault->subject].alive = true;
        if (xv_assignment_join(pool->assignment, fault->subject, pool->workers[fault->subject].host,
                               &moves, &error) != 0)
            sim_violate(sim, "joining failed: %s", xvsa_error_message(error));
        break;
    }
    }
}

static void each_transfer(struct sim *sim, bool end)
{
    for (size_t i = 0; i < sim->pool_count; i++) {
        struct sim_pool *pool = &sim->pools[i];
        for (size_t j = 0; j < pool->site.proxy_count * SIM_PLACES; j++) {
            struct sim_place *place = &pool->proxies[j / SIM_PLACES].places[j % SIM_PLACES];
            if (!place->busy)
                continue;
            struct sim_disk *disk = &pool->tasks[place->vm].disks[place->disk];
            disk->left -= disk->units[place->unit].left - place->left;
            disk->units[place->unit].left = place->left;
            if (end) {
                stop(sim, pool, &pool->proxies[j / SIM_PLACES], place, true);
                free_unit(pool, place);
            }
        }
    }
}

void sim_change(struct sim *sim)
{
    double until;
    if (!sim_window(sim, sim->now, &until).open) {
        each_transfer(sim, true);
        for (size_t i = 0; i < sim->pool_count; i++) {
            struct sim_pool *pool = &sim->pools[i];
            for (size_t j = 0; j < pool->vm_count; j++) {
                if (pool->tasks[j].state == SIM_PREPARING) {
                    pool->tasks[j].state = SIM_WAITING;
                    pool->vms[j].taken = false;
                }
            }
        }
    } else if (sim->now - (double)(uint64_t)(sim->now / SIM_CHECKPOINT) * SIM_CHECKPOINT < 1e-9) {
        each_transfer(sim, false);
    }
    for (size_t i = 0; i < sim->fault_count; i++) {
        if (!sim->faults[i].applied && sim->faults[i].at <= sim->now)
            apply(sim, &sim->faults[i]);
    }
}

/* What the coordinator does when the assignment has changed: tasks of the lost go to others, VMs
 * that are out of reach fail. */
static void take_over(struct sim *sim, struct sim_pool *pool)
{
    for (size_t i = 0; i < pool->vm_count; i++) {
        struct sim_task *task = &pool->tasks[i];
        struct xv_sched_vm *vm = &pool->vms[i];
        if (task->state >= SIM_DONE)
            continue;
        if (vm->owner == XV_SCHED_NONE) {
            task->state = SIM_FAILED;
            vm->taken = false;
            sim->failed++;
            continue;
        }
        if (task->state == SIM_WAITING || !pool->workers[task->owner].lost)
            continue;
        task->owner = vm->owner;
        task->ready_at = sim->now + SIM_TAKE_OVER;
        if (task->state == SIM_PREPARING)
            task->ready_at += SIM_PREPARE;
    }
}

/* After a host was lost what is attached has changed: the assignment is made anew. */
static void assign_anew(struct sim *sim, struct sim_pool *pool)
{
    xvsa_error *error = NULL;
    xv_assignment_free(pool->assignment);
    pool->assignment = NULL;
    for (size_t i = 0; i < pool->site.proxy_count; i++) {
        pool->workers[i].bytes = 0;
        pool->workers[i].running = 0;
    }
    for (size_t i = 0; i < pool->vm_count; i++)
        pool->vms[i].owner = pool->tasks[i].owner;
    if (xv_assignment_new(&pool->site, pool->vms, pool->vm_count, &pool->assignment, &error) != 0)
        sim_violate(sim, "planning failed: %s", xvsa_error_message(error));
    for (size_t i = 0; i < pool->vm_count; i++) {
        if (pool->tasks[i].state >= SIM_DONE)
            xv_assignment_finish(pool->assignment, i, XV_SCHED_NONE);
    }
}

/* The lease of a lost proxy has run out: its claims are void, and the assignment changes once there
 * is somebody to change it. */
static void notice(struct sim *sim, struct sim_pool *pool, size_t index, bool anew)
{
    struct sim_proxy *proxy = &pool->proxies[index];
    struct xv_moves moves;
    xvsa_error *error = NULL;
    proxy->noticed = true;
    for (size_t i = 0; i < pool->vm_count; i++) {
        struct sim_task *task = &pool->tasks[i];
        for (size_t j = 0; task->state == SIM_OPEN && j < pool->vms[i].disk_count; j++) {
            for (size_t k = 0; k < task->disks[j].unit_count; k++) {
                struct sim_unit *unit = &task->disks[j].units[k];
                if (!unit->done && unit->claimer == index) {
                    unit->claimer = XV_SCHED_NONE;
                    task->disks[j].free_count++;
                }
            }
        }
    }
    if (anew)
        pool->workers[index].lost = true;
    else if (xv_assignment_lose(pool->assignment, index, &moves, &error) != 0)
        sim_violate(sim, "replanning failed: %s", xvsa_error_message(error));
}

static bool anybody_lives(const struct sim_pool *pool)
{
    for (size_t i = 0; i < pool->site.proxy_count; i++) {
        if (pool->proxies[i].alive)
            return true;
    }
    return false;
}

/* Nobody is left who could go on. */
static void give_up(struct sim *sim, struct sim_pool *pool)
{
    for (size_t i = 0; i < pool->vm_count; i++) {
        if (pool->tasks[i].state < SIM_DONE) {
            pool->tasks[i].state = SIM_FAILED;
            sim->failed++;
        }
    }
}

void sim_notice(struct sim *sim)
{
    for (size_t i = 0; i < sim->pool_count; i++) {
        struct sim_pool *pool = &sim->pools[i];
        if (!anybody_lives(pool))
            give_up(sim, pool);
        if (sim_coordinator(sim, pool) == XV_SCHED_NONE)
            continue;
        bool anew = pool->lost_host_at > 0 && sim->now >= pool->lost_host_at + SIM_LEASE;
        bool changed = anew;
        for (size_t j = 0; j < pool->site.proxy_count; j++) {
            const struct sim_proxy *proxy = &pool->proxies[j];
            if (!proxy->alive && !proxy->noticed && sim->now >= proxy->died_at + SIM_LEASE) {
                notice(sim, pool, j, pool->lost_host_at > 0);
                changed = true;
            }
        }
        if (anew) {
            pool->lost_host_at = 0;
            assign_anew(sim, pool);
        }
        if (changed)
            take_over(sim, pool);
    }
}
