/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sched/admission.h"

#include <string.h>

/* Of a thin volume's snapshot: its headers and its first block map. */
#define THIN_SNAPSHOT_BYTES (UINT64_C(8) << 20)
/* Thick volumes carry their block map beside the data: 4 bytes for each 2 MiB, in extents of 4 MiB.
 */
#define THICK_EXTENT_BYTES (UINT64_C(4) << 20)

static const struct xv_admission admitted = {XV_VERDICT_ADMIT, XV_WHY_NOTHING};

static struct xv_admission wait_for(enum xv_why why)
{
    return (struct xv_admission){XV_VERDICT_WAIT, why};
}

static struct xv_admission refuse(enum xv_why why)
{
    return (struct xv_admission){XV_VERDICT_REFUSE, why};
}

const char *xv_why_name(enum xv_why why)
{
    static const char *const names[] = {
        [XV_WHY_NOTHING] = "",
        [XV_WHY_CHAIN_TOO_DEEP] = "CHAIN_TOO_DEEP",
        [XV_WHY_HOST_BUSY] = "HOST_BUSY",
        [XV_WHY_JOB_BUSY] = "JOB_BUSY",
        [XV_WHY_OUTSIDE_WINDOW] = "OUTSIDE_WINDOW",
        [XV_WHY_PROXY_BUSY] = "PROXY_BUSY",
        [XV_WHY_RATE_ZERO] = "RATE_ZERO",
        [XV_WHY_SR_BUSY] = "SR_BUSY",
        [XV_WHY_SR_SPACE_LOW] = "SR_SPACE_LOW",
        [XV_WHY_NO_PROXY_REACHES_SR] = "NO_PROXY_REACHES_SR",
    };
    return names[why];
}

static uint32_t or_default(uint32_t value, uint32_t fallback)
{
    return value == 0 ? fallback : value;
}

uint32_t xv_admit_connections(const struct xv_limits *limits, uint32_t in_use)
{
    uint32_t budget = or_default(limits->host_connections, XV_SCHED_HOST_CONNECTIONS);
    uint32_t wanted = or_default(limits->disk_connections, XV_SCHED_DISK_CONNECTIONS);
    if (in_use >= budget)
        return 0;
    return budget - in_use < wanted ? budget - in_use : wanted;
}

uint32_t xv_admit_host_share(const struct xv_limits *limits, uint32_t proxies, uint32_t rank)
{
    uint32_t budget = or_default(limits->host_connections, XV_SCHED_HOST_CONNECTIONS);
    if (proxies == 0 || rank >= proxies)
        return 0;
    return budget / proxies + (rank < budget % proxies ? 1 : 0);
}

struct xv_admission xv_admit_transfer(const struct xv_limits *limits, const struct xv_usage *usage,
                                      uint32_t capacity, uint32_t transport)
{
    if (transport == 0)
        return refuse(XV_WHY_NO_PROXY_REACHES_SR);
    if (usage->proxy_disks >= or_default(capacity, 1))
        return wait_for(XV_WHY_PROXY_BUSY);
    if (limits->sr_transfers != 0 && usage->sr_transfers >= limits->sr_transfers)
        return wait_for(XV_WHY_SR_BUSY);
    if (transport == XV_TRANSPORT_NBD && xv_admit_connections(limits, usage->host_connections) == 0)
        return wait_for(XV_WHY_HOST_BUSY);
    return admitted;
}

bool xv_sr_is_thick(const char *type, bool thin_provisioned)
{
    static const char *const thick[] = {"lvm", "lvmoiscsi", "lvmohba", "lvmofcoe"};
    for (size_t i = 0; i < sizeof thick / sizeof *thick; i++) {
        if (type != NULL && strcmp(type, thick[i]) == 0)
            return !thin_provisioned;
    }
    return false;
}

static uint64_t add(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

uint64_t xv_snapshot_bytes(const struct xv_snapshot_sr *sr,
                           const struct xv_planned_snapshot_disk *disks, size_t count)
{
    bool thick = xv_sr_is_thick(sr->type, sr->thin);
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        /* The new leaf of a thick volume is as large as the disk, with its block map. */
        uint64_t size = disks[i].virtual_size;
        uint64_t map = (size / (UINT64_C(512) << 10) / THICK_EXTENT_BYTES + 2) * THICK_EXTENT_BYTES;
        sum = add(sum, thick ? add(size, map) : THIN_SNAPSHOT_BYTES);
    }
    return sum;
}

static uint64_t reserve_of(const struct xv_limits *limits, const struct xv_snapshot_sr *sr)
{
    uint32_t percent = limits->sr_free_percent > 100 ? 100 : limits->sr_free_percent;
    uint64_t part = sr->size / 100 * percent + sr->size % 100 * percent / 100;
    return part > limits->sr_free_bytes ? part : limits->sr_free_bytes;
}

static bool chains_are_short(const struct xv_limits *limits,
                             const struct xv_planned_snapshot_disk *disks, size_t count)
{
    uint32_t depth = or_default(limits->chain_depth, XV_SCHED_CHAIN_LIMIT - XV_SCHED_CHAIN_MARGIN);
    for (size_t i = 0; i < count; i++) {
        if (disks[i].chain >= depth)
            return false;
    }
    return true;
}

struct xv_admission xv_admit_snapshot(const struct xv_limits *limits,
                                      const struct xv_snapshot_sr *sr,
                                      const struct xv_planned_snapshot_disk *disks, size_t count,
                                      bool coalescing)
{
    if (!chains_are_short(limits, disks, count))
        return coalescing ? wait_for(XV_WHY_CHAIN_TOO_DEEP) : refuse(XV_WHY_CHAIN_TOO_DEEP);
    if (sr->size == 0)
        return admitted;
    uint64_t needed = add(xv_snapshot_bytes(sr, disks, count), reserve_of(limits, sr));
    uint64_t left = sr->used < sr->size ? sr->size - sr->used : 0;
    if (needed > left)
        return refuse(XV_WHY_SR_SPACE_LOW);
    if (sr->reserved > left || needed > left - sr->reserved)
        return wait_for(XV_WHY_SR_SPACE_LOW);
    return admitted;
}

struct xv_admission xv_admit_task(const struct xv_limits *limits, const struct xv_windows *windows,
                                  const struct xv_curve *rate, uint32_t minute,
                                  uint32_t running_vms, uint32_t *ret_minutes)
{
    struct xv_window_state window = xv_windows_at(windows, minute);
    struct xv_curve_state curve = xv_curve_at(rate, minute);
    *ret_minutes = window.minutes < curve.minutes ? window.minutes : curve.minutes;
    if (!window.open)
        return wait_for(XV_WHY_OUTSIDE_WINDOW);
    if (curve.rate == 0)
        return wait_for(XV_WHY_RATE_ZERO);
    if (limits->job_vms != 0 && running_vms >= limits->job_vms)
        return wait_for(XV_WHY_JOB_BUSY);
    return admitted;
}
