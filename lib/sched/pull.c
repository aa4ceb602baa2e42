/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sched/pull.h"

#include <string.h>

/* Parts of what everybody has to do, and of one disk. */
#define PARTS_OF_SHARE 64u
#define PARTS_OF_DISK  8u

uint64_t xv_sched_unit_bytes(uint64_t bytes, uint64_t outstanding, size_t proxies)
{
    uint64_t all = outstanding > bytes ? outstanding : bytes;
    uint64_t unit = all / PARTS_OF_SHARE / (proxies == 0 ? 1 : proxies);
    if (unit > bytes / PARTS_OF_DISK)
        unit = bytes / PARTS_OF_DISK;
    if (unit < XV_UNIT_BYTES_MIN)
        return XV_UNIT_BYTES_MIN;
    if (unit > XV_UNIT_BYTES_MAX)
        return XV_UNIT_BYTES_MAX;
    return unit - unit % XV_UNIT_BYTES_STEP;
}

static int compare_keys(const char *a, const char *b)
{
    return strcmp(a == NULL ? "" : a, b == NULL ? "" : b);
}

static uint32_t used(const uint32_t *array, size_t index, size_t count)
{
    return array == NULL || index >= count ? 0 : array[index];
}

/* How many proxies reach the SR, and how many disks of it they may move at once. */
struct room {
    size_t proxies;
    uint64_t places;
};

static struct room room_for(const struct xv_sched_site *site, size_t sr)
{
    struct room room = {0, 0};
    for (size_t i = 0; i < site->proxy_count; i++) {
        if (!xv_sched_eligible(site, i, sr))
            continue;
        room.proxies++;
        room.places += site->proxies[i].capacity;
    }
    uint32_t limit = used(site->sr_limits, sr, site->sr_count);
    if (limit != 0 && limit < room.places)
        room.places = limit;
    return room;
}

/* Negative: SR a is in greater need of whoever can help. */
static int compare_pressure(const struct xv_sched_site *site, const struct xv_board *a,
                            const struct xv_board *b)
{
    if (a->sr == b->sr)
        return 0;
    struct room room_a = room_for(site, a->sr);
    struct room room_b = room_for(site, b->sr);
    if (a->sr_bytes > 0 && b->sr_bytes > 0 && room_a.places > 0 && room_b.places > 0) {
        uint64_t pressure_a = a->sr_bytes / room_a.places;
        uint64_t pressure_b = b->sr_bytes / room_b.places;
        if (pressure_a != pressure_b)
            return pressure_a > pressure_b ? -1 : 1;
    }
    if (room_a.proxies != room_b.proxies)
        return room_a.proxies < room_b.proxies ? -1 : 1;
    return room_a.places < room_b.places ? -1 : room_a.places > room_b.places;
}

size_t xv_sched_serving_host(const struct xv_sched_site *site, size_t proxy, size_t sr,
                             const struct xv_load *load)
{
    enum xv_tier tier = xv_sched_tier(site, proxy, sr, XV_SCHED_NONE);
    if (tier != XV_TIER_NETWORK)
        return tier == XV_TIER_NONE ? XV_SCHED_NONE : site->proxies[proxy].host;
    size_t best = XV_SCHED_NONE;
    for (size_t i = 0; i < site->host_count; i++) {
        if (site->attached[i * site->sr_count + sr] &&
            (best == XV_SCHED_NONE || used(load->host_connections, i, site->host_count) <
                                          used(load->host_connections, best, site->host_count)))
            best = i;
    }
    return best;
}

static bool may_move(const struct xv_sched_site *site, size_t proxy, size_t sr,
                     const struct xv_limits *limits, const struct xv_load *load)
{
    uint32_t transport = xv_sched_best_transport(xv_sched_transports(site, proxy, sr));
    if (transport == 0)
        return false;
    size_t host = xv_sched_serving_host(site, proxy, sr, load);
    struct xv_usage usage = {used(load->host_connections, host, site->host_count),
                             used(load->proxy_disks, proxy, site->proxy_count),
                             used(load->sr_transfers, sr, site->sr_count)};
    struct xv_limits own = *limits;
    uint32_t limit = used(site->sr_limits, sr, site->sr_count);
    if (limit != 0 && (own.sr_transfers == 0 || limit < own.sr_transfers))
        own.sr_transfers = limit;
    return xv_admit_transfer(&own, &usage, site->proxies[proxy].capacity, transport).verdict ==
           XV_VERDICT_ADMIT;
}

static bool by_network(const struct xv_sched_site *site, size_t proxy, const struct xv_board *board)
{
    return xv_sched_tier(site, proxy, board->sr, XV_SCHED_NONE) == XV_TIER_NETWORK;
}

/* Negative: the proxy should take a before b. */
static int compare_boards(const struct xv_sched_site *site, size_t proxy, const struct xv_board *a,
                          const struct xv_board *b)
{
    if (a->priority != b->priority)
        return a->priority > b->priority ? -1 : 1;
    bool far_a = by_network(site, proxy, a);
    bool far_b = by_network(site, proxy, b);
    if (far_a != far_b)
        return far_a ? 1 : -1;
    int order = compare_pressure(site, a, b);
    if (order != 0)
        return order;
    uint64_t left_a = a->bytes_left / ((uint64_t)a->movers + 1);
    uint64_t left_b = b->bytes_left / ((uint64_t)b->movers + 1);
    if (left_a != left_b)
        return left_a > left_b ? -1 : 1;
    if ((a->own_movers > 0) != (b->own_movers > 0))
        return a->own_movers > 0 ? -1 : 1;
    if (a->submitted != b->submitted)
        return a->submitted < b->submitted ? -1 : 1;
    return compare_keys(a->key, b->key);
}

/* Units of the SR's disks that nobody has claimed. */
static uint64_t free_units(const struct xv_board *boards, size_t count, size_t sr)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += boards[i].sr == sr ? boards[i].units_free : 0;
    return sum;
}

/* Who already moves something leaves the last free units to those who will be idle first; else they would share its
 * link while other links idle. */
static bool is_left_to_others(const struct xv_sched_site *site, size_t proxy,
                              const struct xv_board *boards, size_t count,
                              const struct xv_board *board, const struct xv_load *load)
{
    uint64_t busy = used(load->proxy_disks, proxy, site->proxy_count);
    return busy > 0 &&
           free_units(boards, count, board->sr) < busy * room_for(site, board->sr).proxies;
}

/* What a proxy takes for others its own disks do not get: those that fewer can help with go first. */
static bool is_needed_at_home(const struct xv_sched_site *site, size_t proxy,
                              const struct xv_board *boards, size_t count,
                              const struct xv_board *board)
{
    for (size_t i = 0; i < count; i++) {
        const struct xv_board *own = &boards[i];
        if (own->owner == proxy && own->units_free > 0 && own->priority >= board->priority &&
            xv_sched_eligible(site, proxy, own->sr) &&
            (by_network(site, proxy, board) || compare_pressure(site, own, board) < 0))
            return true;
    }
    return false;
}

size_t xv_sched_next_board(const struct xv_sched_site *site, size_t proxy,
                           const struct xv_board *boards, size_t count,
                           const struct xv_limits *limits, const struct xv_load *load)
{
    size_t best = XV_SCHED_NONE;
    for (size_t i = 0; i < count; i++) {
        if (boards[i].units_free == 0 || boards[i].owner == proxy)
            continue;
        if (best != XV_SCHED_NONE && compare_boards(site, proxy, &boards[i], &boards[best]) >= 0)
            continue;
        if (may_move(site, proxy, boards[i].sr, limits, load) &&
            !is_left_to_others(site, proxy, boards, count, &boards[i], load) &&
            !is_needed_at_home(site, proxy, boards, count, &boards[i]))
            best = i;
    }
    return best;
}

/* How many of the VM's disks the proxy reaches. */
static size_t reached_disks(const struct xv_sched_site *site, size_t proxy,
                            const struct xv_sched_vm *vm)
{
    size_t count = 0;
    for (size_t i = 0; i < vm->disk_count; i++)
        count += xv_sched_eligible(site, proxy, vm->disks[i].sr) ? 1 : 0;
    return count;
}

static bool may_own(const struct xv_sched_site *site, size_t proxy, const struct xv_sched_vm *vm)
{
    size_t reached = reached_disks(site, proxy, vm);
    if (reached == vm->disk_count)
        return !site->proxies[proxy].lost;
    if (reached == 0 || xv_sched_eligible_count(site, vm) == 0)
        return false;
    for (size_t i = 0; i < site->proxy_count; i++) {
        if (reached_disks(site, i, vm) == vm->disk_count)
            return false;
    }
    return true;
}

/* 0: given to the proxy, 1: to nobody that lives, 2: to another one. */
static int kinship(const struct xv_sched_site *site, size_t proxy, const struct xv_waiting *task)
{
    size_t owner = task->vm->owner;
    if (owner == proxy)
        return 0;
    return owner >= site->proxy_count || site->proxies[owner].lost ? 1 : 2;
}

static uint64_t burden(const struct xv_sched_site *site, size_t proxy)
{
    if (proxy >= site->proxy_count)
        return 0;
    uint32_t capacity = site->proxies[proxy].capacity;
    return site->proxies[proxy].bytes / (capacity == 0 ? 1 : capacity);
}

static int compare_tasks(const struct xv_sched_site *site, size_t proxy, const struct xv_waiting *a,
                         const struct xv_waiting *b)
{
    if (a->priority != b->priority)
        return a->priority > b->priority ? -1 : 1;
    int kin_a = kinship(site, proxy, a);
    int kin_b = kinship(site, proxy, b);
    if (kin_a != kin_b)
        return kin_a - kin_b;
    if (kin_a == 2 && burden(site, a->vm->owner) != burden(site, b->vm->owner))
        return burden(site, a->vm->owner) > burden(site, b->vm->owner) ? -1 : 1;
    if (a->submitted != b->submitted)
        return a->submitted < b->submitted ? -1 : 1;
    if (a->rank != b->rank)
        return a->rank < b->rank ? -1 : 1;
    return compare_keys(a->vm->key, b->vm->key);
}

size_t xv_sched_next_task(const struct xv_sched_site *site, size_t proxy,
                          const struct xv_waiting *tasks, size_t count)
{
    size_t best = XV_SCHED_NONE;
    for (size_t i = 0; i < count; i++) {
        if (best != XV_SCHED_NONE && compare_tasks(site, proxy, &tasks[i], &tasks[best]) >= 0)
            continue;
        if (may_own(site, proxy, tasks[i].vm))
            best = i;
    }
    return best;
}

bool xv_sched_may_own(uint32_t capacity, uint32_t used, uint32_t disks)
{
    return used < capacity && (used == 0 || used + disks <= capacity);
}
