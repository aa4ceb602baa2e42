/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Operation windows and rates by time of the week. Minutes of the week are local time as the caller
 * knows it, 0 is Monday 00:00. Pure.
 */
#ifndef XV_SCHED_WINDOW_H
#define XV_SCHED_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define XV_WEEK_MINUTES 10080u
/* No change is ahead. */
#define XV_MINUTES_NEVER  UINT32_MAX
#define XV_RATE_UNLIMITED UINT64_MAX

/* Open from begin up to, not including, end; end <= begin: over the end of the week, equal: always.
 */
struct xv_window {
    uint32_t begin, end;
};

/* May overlap, in any order. None at all: always open. */
struct xv_windows {
    const struct xv_window *items;
    size_t count;
};

struct xv_window_state {
    bool open;
    uint32_t minutes; /* until it changes, at least 1; XV_MINUTES_NEVER */
};

struct xv_window_state xv_windows_at(const struct xv_windows *windows, uint32_t minute);

/* From minute on, until the next step of the week. */
struct xv_curve_step {
    uint32_t minute;
    uint64_t rate; /* bytes per second; 0: nothing; XV_RATE_UNLIMITED */
};

/* Steps ascend by minute; the last one holds until the first of the next week. None: unlimited. */
struct xv_curve {
    const struct xv_curve_step *steps;
    size_t count;
};

struct xv_curve_state {
    uint64_t rate;
    uint32_t minutes; /* until the rate changes; XV_MINUTES_NEVER */
};

struct xv_curve_state xv_curve_at(const struct xv_curve *curve, uint32_t minute);

/* Shares a rate among members, max-min fair: nobody gets more than demands[i] (XV_RATE_UNLIMITED:
 * whatever there is), what one does not need goes to the others, and the shares sum to rate at
 * most. With rate XV_RATE_UNLIMITED each gets what it demands. Bytes lost to rounding go to the
 * first. */
void xv_rate_share(uint64_t rate, const uint64_t *demands, size_t count, uint64_t *shares);

#endif
