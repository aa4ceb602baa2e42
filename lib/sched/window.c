/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sched/window.h"

/* Minutes from minute forward to target, 1 to a week. */
static uint32_t ahead(uint32_t minute, uint32_t target)
{
    uint32_t distance = (target % XV_WEEK_MINUTES + XV_WEEK_MINUTES - minute) % XV_WEEK_MINUTES;
    return distance == 0 ? XV_WEEK_MINUTES : distance;
}

static bool is_inside(const struct xv_window *window, uint32_t minute)
{
    uint32_t begin = window->begin % XV_WEEK_MINUTES;
    uint32_t end = window->end % XV_WEEK_MINUTES;
    if (begin == end)
        return true;
    if (begin < end)
        return minute >= begin && minute < end;
    return minute >= begin || minute < end;
}

static bool is_open(const struct xv_windows *windows, uint32_t minute)
{
    for (size_t i = 0; i < windows->count; i++) {
        if (is_inside(&windows->items[i], minute))
            return true;
    }
    return windows->count == 0;
}

struct xv_window_state xv_windows_at(const struct xv_windows *windows, uint32_t minute)
{
    minute %= XV_WEEK_MINUTES;
    struct xv_window_state state = {is_open(windows, minute), XV_MINUTES_NEVER};
    /* Only where a window begins or ends can anything change. */
    for (size_t i = 0; i < windows->count; i++) {
        uint32_t edges[] = {windows->items[i].begin % XV_WEEK_MINUTES,
                            windows->items[i].end % XV_WEEK_MINUTES};
        for (size_t j = 0; j < 2; j++) {
            uint32_t distance = ahead(minute, edges[j]);
            if (distance < state.minutes && is_open(windows, edges[j]) != state.open)
                state.minutes = distance;
        }
    }
    return state;
}

static uint64_t rate_at(const struct xv_curve *curve, uint32_t minute)
{
    if (curve->count == 0)
        return XV_RATE_UNLIMITED;
    uint64_t rate = curve->steps[curve->count - 1].rate;
    for (size_t i = 0; i < curve->count && curve->steps[i].minute <= minute; i++)
        rate = curve->steps[i].rate;
    return rate;
}

struct xv_curve_state xv_curve_at(const struct xv_curve *curve, uint32_t minute)
{
    minute %= XV_WEEK_MINUTES;
    struct xv_curve_state state = {rate_at(curve, minute), XV_MINUTES_NEVER};
    for (size_t i = 0; i < curve->count; i++) {
        uint32_t distance = ahead(minute, curve->steps[i].minute);
        if (distance < state.minutes && curve->steps[i].rate != state.rate)
            state.minutes = distance;
    }
    return state;
}

/* What those who demand more than their even share get at most: rises until no demand lies below.
 */
static uint64_t water_level(uint64_t rate, const uint64_t *demands, size_t count)
{
    uint64_t level = 0;
    for (;;) {
        uint64_t left = rate;
        size_t thirsty = 0;
        for (size_t i = 0; i < count; i++) {
            if (demands[i] <= level)
                left -= demands[i];
            else
                thirsty++;
        }
        if (thirsty == 0 || left / thirsty <= level)
            return level;
        level = left / thirsty;
    }
}

void xv_rate_share(uint64_t rate, const uint64_t *demands, size_t count, uint64_t *shares)
{
    if (rate == XV_RATE_UNLIMITED) {
        for (size_t i = 0; i < count; i++)
            shares[i] = demands[i];
        return;
    }
    uint64_t level = water_level(rate, demands, count);
    uint64_t left = rate;
    for (size_t i = 0; i < count; i++) {
        shares[i] = demands[i] < level ? demands[i] : level;
        left -= shares[i];
    }
    for (size_t i = 0; i < count && left > 0; i++) {
        uint64_t more = demands[i] - shares[i] < left ? demands[i] - shares[i] : left;
        shares[i] += more;
        left -= more;
    }
}
