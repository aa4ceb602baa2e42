/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Proxies with a free place ask lib/sched what to do next, until none gets anything more.
 */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

/* What lib/sched is told, of one pool. */
struct view {
    struct xv_board *boards;
    size_t *board_vms, *board_disks;
    size_t board_count;
    struct xv_waiting *waiting;
    size_t *waiting_vms;
    size_t waiting_count;
    uint32_t host_connections[SIM_HOSTS], sr_transfers[SIM_SRS], proxy_disks[SIM_PROXIES];
    uint64_t sr_bytes[SIM_SRS];
    size_t preparing[SIM_PROXIES];
    struct xv_load load;
};

static void *take_memory(size_t count, size_t size)
{
    void *memory = calloc(count + 1, size);
    if (memory == NULL)
        abort();
    return memory;
}

static void add_board(struct sim_pool *pool, struct view *view, size_t vm, size_t index)
{
    const struct sim_task *task = &pool->tasks[vm];
    const struct sim_disk *disk = &task->disks[index];
    view->board_vms[view->board_count] = vm;
    view->board_disks[view->board_count] = index;
    view->boards[view->board_count++] =
        (struct xv_board){.key = task->key,
                          .sr = pool->vms[vm].disks[index].sr,
                          .vm_host = pool->vms[vm].host,
                          .owner = task->owner,
                          .priority = task->priority,
                          .units_free = (uint32_t)disk->free_count,
                          .bytes_left = (uint64_t)disk->left,
                          .movers = disk->movers,
                          .sr_bytes = view->sr_bytes[pool->vms[vm].disks[index].sr]};
}

static void look(struct sim *sim, struct sim_pool *pool, struct view *view)
{
    bool coordinated = sim_coordinator(sim, pool) != XV_SCHED_NONE;
    for (size_t i = 0; i < pool->vm_count; i++) {
        for (size_t j = 0; pool->tasks[i].state < SIM_COMMITTING && j < pool->vms[i].disk_count;
             j++)
            view->sr_bytes[pool->vms[i].disks[j].sr] += (uint64_t)pool->tasks[i].disks[j].left;
    }
    for (size_t i = 0; i < pool->vm_count; i++) {
        const struct sim_task *task = &pool->tasks[i];
        if (task->state == SIM_PREPARING)
            view->preparing[task->owner]++;
        for (size_t j = 0; task->state == SIM_OPEN && j < pool->vms[i].disk_count; j++) {
            if (task->disks[j].free_count > 0)
                add_board(pool, view, i, j);
        }
        if (task->state == SIM_WAITING && coordinated) {
            view->waiting_vms[view->waiting_count] = i;
            view->waiting[view->waiting_count++] =
                (struct xv_waiting){&pool->vms[i], task->rank, task->priority, 0};
        }
    }
    for (size_t i = 0; i < pool->site.proxy_count * SIM_PLACES; i++) {
        const struct sim_place *place = &pool->proxies[i / SIM_PLACES].places[i % SIM_PLACES];
        if (!place->busy)
            continue;
        view->host_connections[place->host] += place->connections;
        view->sr_transfers[pool->vms[place->vm].disks[place->disk].sr]++;
        view->proxy_disks[i / SIM_PLACES]++;
    }
    view->load = (struct xv_load){view->host_connections, view->sr_transfers, view->proxy_disks};
}

static struct sim_place *free_place(struct sim_proxy *proxy, uint32_t capacity)
{
    for (size_t i = 0; i < SIM_PLACES && i < capacity; i++) {
        if (!proxy->places[i].busy)
            return &proxy->places[i];
    }
    return NULL;
}

/* Between half and one and a half of SIM_CLAIM, always the same for the same transfer. */
static double claim_time(size_t vm, size_t disk, size_t unit, size_t proxy)
{
    uint64_t mix = ((vm * 31 + disk) * 131 + unit) * 31 + proxy;
    mix = (mix + 0x9e3779b97f4a7c15u) * 0xbf58476d1ce4e5b9u;
    return SIM_CLAIM * (0.5 + (double)(mix >> 40) / (double)(1 << 24));
}

static void begin_unit(struct sim *sim, struct sim_pool *pool, struct view *view, size_t index,
                       size_t board)
{
    size_t vm = view->board_vms[board];
    size_t disk_index = view->board_disks[board];
    struct sim_disk *disk = &pool->tasks[vm].disks[disk_index];
    struct sim_place *place = free_place(&pool->proxies[index], pool->workers[index].capacity);
    size_t sr = pool->vms[vm].disks[disk_index].sr;
    size_t unit = 0;
    while (disk->units[unit].done || disk->units[unit].claimer != XV_SCHED_NONE)
        unit++;
    size_t host = xv_sched_serving_host(&pool->site, index, sr, &view->load);
    bool nbd =
        xv_sched_best_transport(xv_sched_transports(&pool->site, index, sr)) == XV_TRANSPORT_NBD;
    uint32_t connections =
        nbd ? xv_admit_connections(&sim->limits, view->host_connections[host]) : 0;
    disk->units[unit].claimer = index;
    disk->free_count--;
    disk->movers++;
    *place = (struct sim_place){.busy = true,
                                .vm = vm,
                                .disk = disk_index,
                                .unit = unit,
                                .host = host,
                                .connections = connections,
                                .left = disk->units[unit].left,
                                .since = sim->now + claim_time(vm, disk_index, unit, index)};
    view->boards[board].units_free--;
    view->boards[board].movers++;
    view->host_connections[host] += connections;
    view->sr_transfers[sr]++;
    view->proxy_disks[index]++;
}

/* As the coordinator notes it in a task's record. */
static void note_size_of_site(const struct sim_pool *pool, struct sim_task *task)
{
    if (task->proxies != 0)
        return;
    for (size_t i = 0; i < pool->site.proxy_count; i++)
        task->proxies += !pool->workers[i].lost;
    for (size_t i = 0; i < pool->vm_count; i++) {
        if (pool->tasks[i].state == SIM_DONE || pool->tasks[i].state == SIM_FAILED)
            continue;
        for (size_t j = 0; j < pool->vms[i].disk_count; j++)
            task->outstanding += pool->vms[i].disks[j].bytes;
    }
}

static void begin_task(struct sim *sim, struct sim_pool *pool, struct view *view, size_t index,
                       size_t waiting)
{
    size_t vm = view->waiting_vms[waiting];
    struct sim_task *task = &pool->tasks[vm];
    task->state = SIM_PREPARING;
    task->owner = index;
    note_size_of_site(pool, task);
    task->ready_at = sim->now + SIM_PREPARE;
    pool->vms[vm].taken = true;
    view->preparing[index]++;
    view->waiting_count--;
    view->waiting[waiting] = view->waiting[view->waiting_count];
    view->waiting_vms[waiting] = view->waiting_vms[view->waiting_count];
}

/* What the proxy moves of each board; a disk that has no free unit is none. */
static void count_own_movers(const struct sim_pool *pool, struct view *view, size_t index)
{
    for (size_t i = 0; i < view->board_count; i++)
        view->boards[i].own_movers = 0;
    for (size_t i = 0; i < SIM_PLACES; i++) {
        const struct sim_place *place = &pool->proxies[index].places[i];
        for (size_t j = 0; place->busy && j < view->board_count; j++) {
            if (view->board_vms[j] == place->vm && view->board_disks[j] == place->disk)
                view->boards[j].own_movers++;
        }
    }
}

static bool is_admitted(const struct sim *sim, const struct sim_pool *pool, const struct view *view,
                        size_t index, size_t sr)
{
    uint32_t transport = xv_sched_best_transport(xv_sched_transports(&pool->site, index, sr));
    size_t host = xv_sched_serving_host(&pool->site, index, sr, &view->load);
    if (transport == 0 || host == XV_SCHED_NONE)
        return false;
    struct xv_limits limits = sim->limits;
    const struct xv_usage usage = {view->host_connections[host], view->proxy_disks[index],
                                   view->sr_transfers[sr]};
    if (pool->sr_limits[sr] != 0 &&
        (limits.sr_transfers == 0 || pool->sr_limits[sr] < limits.sr_transfers))
        limits.sr_transfers = pool->sr_limits[sr];
    return xv_admit_transfer(&limits, &usage, pool->workers[index].capacity, transport).verdict ==
           XV_VERDICT_ADMIT;
}

/* A proxy reads each disk of its own tasks with one stream, from the moment when the task is open: of those that it
 * does not read yet the one that was opened first. */
static size_t next_own_board(const struct sim *sim, const struct sim_pool *pool,
                             const struct view *view, size_t index)
{
    size_t best = XV_SCHED_NONE;
    for (size_t i = 0; i < view->board_count; i++) {
        const struct xv_board *board = &view->boards[i];
        uint64_t opened = pool->tasks[view->board_vms[i]].opened;
        if (board->owner == index && board->own_movers == 0 && board->units_free > 0 &&
            (best == XV_SCHED_NONE || opened < pool->tasks[view->board_vms[best]].opened) &&
            is_admitted(sim, pool, view, index, board->sr))
            best = i;
    }
    return best;
}

static bool begin_next_unit(struct sim *sim, struct sim_pool *pool, struct view *view, size_t index)
{
    if (free_place(&pool->proxies[index], pool->workers[index].capacity) == NULL)
        return false;
    count_own_movers(pool, view, index);
    size_t board = next_own_board(sim, pool, view, index);
    if (board == XV_SCHED_NONE)
        board = xv_sched_next_board(&pool->site, index, view->boards, view->board_count,
                                    &sim->limits, &view->load);
    if (board != XV_SCHED_NONE)
        begin_unit(sim, pool, view, index, board);
    return board != XV_SCHED_NONE;
}

/* Disks of the tasks that it owns. */
static uint32_t used_places(const struct sim_pool *pool, size_t index)
{
    size_t used = 0;
    for (size_t i = 0; i < pool->vm_count; i++) {
        enum sim_state state = pool->tasks[i].state;
        if (pool->tasks[i].owner == index &&
            (state == SIM_PREPARING || state == SIM_OPEN || state == SIM_COMMITTING))
            used += pool->vms[i].disk_count;
    }
    return (uint32_t)used;
}

static bool begin_next_task(struct sim *sim, struct sim_pool *pool, struct view *view, size_t index)
{
    size_t waiting = xv_sched_next_task(&pool->site, index, view->waiting, view->waiting_count);
    if (waiting == XV_SCHED_NONE)
        return false;
    uint32_t used = used_places(pool, index);
    uint32_t need = (uint32_t)view->waiting[waiting].vm->disk_count;
    if (!xv_sched_may_own(pool->workers[index].capacity, used, need))
        return false;
    begin_task(sim, pool, view, index, waiting);
    return true;
}

static bool ask(struct sim *sim, struct sim_pool *pool, struct view *view, size_t index)
{
    if (!pool->proxies[index].alive || pool->workers[index].lost)
        return false;
    bool task = begin_next_task(sim, pool, view, index);
    return begin_next_unit(sim, pool, view, index) || task;
}

void sim_dispatch(struct sim *sim)
{
    double until;
    if (!sim_window(sim, sim->now, &until).open)
        return;
    for (size_t i = 0; i < sim->pool_count; i++) {
        struct sim_pool *pool = &sim->pools[i];
        size_t most = pool->vm_count * SIM_DISKS;
        struct view view = {.boards = take_memory(most, sizeof *view.boards),
                            .board_vms = take_memory(most, sizeof(size_t)),
                            .board_disks = take_memory(most, sizeof(size_t)),
                            .waiting = take_memory(pool->vm_count, sizeof *view.waiting),
                            .waiting_vms = take_memory(pool->vm_count, sizeof(size_t))};
        look(sim, pool, &view);
        bool again = true;
        while (again) {
            again = false;
            for (size_t j = 0; j < pool->site.proxy_count; j++)
                again = ask(sim, pool, &view, j) || again;
        }
        free(view.boards);
        free(view.board_vms);
        free(view.board_disks);
        free(view.waiting);
        free(view.waiting_vms);
    }
}
