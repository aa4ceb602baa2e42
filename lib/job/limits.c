/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/limits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DAYS          7
#define DAY_MINUTES   1440u
#define ENTRIES_MAX   64
#define COUNT_MAX     1024
#define SERVER_LIMIT  16 /* NBD connections of a host, for everybody */
#define PATH_MAX_TEXT 128

/* Part of the days named, or of all. */
struct span {
    bool days[DAYS];
    uint32_t from, to; /* minutes of the day; to <= from: up to the next day */
    uint64_t rate;
};

static int read_time(const json_t *object, const char *path, const char *name, uint32_t *ret,
                     xvsa_error **error)
{
    const char *text = NULL;
    int rc = xv_json_read_text(object, path, name, &text, error);
    if (rc != 0 || text == NULL)
        return rc;
    unsigned int hour = 0;
    unsigned int minute = 0;
    int end = 0;
    bool shaped = strlen(text) == 5 && strspn(text, "0123456789:") == 5 &&
                  sscanf(text, "%2u:%2u%n", &hour, &minute, &end) == 2 && end == 5;
    if (!shaped || minute > 59 || hour * 60 + minute > DAY_MINUTES)
        return xv_fail(error, XVSA_ERR_INVALID, "job",
                       "%s.%s: \"%s\" is no time of day (\"22:30\")", path, name, text);
    *ret = hour * 60 + minute;
    return 0;
}

static int read_days(const json_t *object, const char *path, bool *days, xvsa_error **error)
{
    static const char *const names[DAYS] = {"mon", "tue", "wed", "thu", "fri", "sat", "sun"};
    const json_t *array = NULL;
    int rc = xv_json_read_array(object, path, "days", &array, error);
    if (rc != 0)
        return rc;
    for (size_t day = 0; day < DAYS; day++)
        days[day] = array == NULL;
    for (size_t i = 0; i < json_array_size(array); i++) {
        const char *name = json_string_value(json_array_get(array, i));
        size_t day = 0;
        while (day < DAYS && (name == NULL || strcmp(name, names[day]) != 0))
            day++;
        if (day == DAYS)
            return xv_fail(error, XVSA_ERR_INVALID, "job",
                           "%s.days[%zu]: must be mon, tue, wed, thu, fri, sat or sun", path, i);
        days[day] = true;
    }
    return 0;
}

/* rated: the entry has a rate. */
static int read_span(const json_t *object, const char *path, bool rated, struct span *ret,
                     xvsa_error **error)
{
    static const char *const members[] = {"days", "from", "to", "rate", NULL};
    static const char *const unrated[] = {"days", "from", "to", NULL};
    int64_t rate = -1;
    ret->to = DAY_MINUTES;
    int rc = xv_json_check_members(object, path, rated ? members : unrated, error);
    if (rc == 0)
        rc = read_days(object, path, ret->days, error);
    if (rc == 0)
        rc = read_time(object, path, "from", &ret->from, error);
    if (rc == 0)
        rc = read_time(object, path, "to", &ret->to, error);
    if (rc == 0 && rated)
        rc = xv_json_read_int(object, path, "rate", 0, INT64_MAX, &rate, error);
    if (rc == 0 && rated && rate < 0)
        rc = xv_fail(error, XVSA_ERR_INVALID, "job", "%s.rate: is missing", path);
    ret->rate = (uint64_t)rate;
    return rc;
}

static int read_spans(const json_t *object, const char *path, const char *name, bool rated,
                      struct span **ret, size_t *ret_count, xvsa_error **error)
{
    const json_t *array = NULL;
    int rc = xv_json_read_array(object, path, name, &array, error);
    if (rc != 0)
        return rc;
    size_t count = json_array_size(array);
    if (count > ENTRIES_MAX)
        return xv_fail(error, XVSA_ERR_INVALID, "job", "%s.%s: at most %d entries", path, name,
                       ENTRIES_MAX);
    *ret = calloc(count + 1, sizeof **ret);
    if (*ret == NULL)
        return xv_fail_memory(error);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        char where[PATH_MAX_TEXT];
        snprintf(where, sizeof where, "%s.%s[%zu]", path, name, i);
        rc = read_span(json_array_get(array, i), where, rated, &(*ret)[i], error);
    }
    *ret_count = count;
    return rc;
}

static struct xv_window window_of(const struct span *span, size_t day)
{
    uint32_t begin = (uint32_t)day * DAY_MINUTES + span->from;
    uint32_t length =
        span->to > span->from ? span->to - span->from : span->to + DAY_MINUTES - span->from;
    return (struct xv_window){begin % XV_WEEK_MINUTES, (begin + length) % XV_WEEK_MINUTES};
}

static int make_windows(const struct span *spans, size_t count, struct xv_job_limits *ret,
                        xvsa_error **error)
{
    ret->window_items = calloc(count * DAYS + 1, sizeof *ret->window_items);
    if (ret->window_items == NULL)
        return xv_fail_memory(error);
    for (size_t i = 0; i < count; i++) {
        for (size_t day = 0; day < DAYS; day++) {
            if (spans[i].days[day])
                ret->window_items[ret->windows.count++] = window_of(&spans[i], day);
        }
    }
    ret->windows.items = ret->window_items;
    return 0;
}

/* The least of the rates that hold at a minute. */
static uint64_t rate_at(const struct span *spans, size_t count, uint64_t always, uint32_t minute)
{
    uint64_t rate = always;
    for (size_t i = 0; i < count; i++) {
        for (size_t day = 0; day < DAYS; day++) {
            struct xv_window item = window_of(&spans[i], day);
            struct xv_windows window = {&item, 1};
            if (spans[i].days[day] && spans[i].rate < rate && xv_windows_at(&window, minute).open)
                rate = spans[i].rate;
        }
    }
    return rate;
}

static int compare_minutes(const void *left, const void *right)
{
    uint32_t a = ((const struct xv_curve_step *)left)->minute;
    uint32_t b = ((const struct xv_curve_step *)right)->minute;
    return a < b ? -1 : a > b;
}

/* A step wherever a span begins or ends. */
static int make_curve(const struct span *spans, size_t count, uint64_t always,
                      struct xv_job_limits *ret, xvsa_error **error)
{
    ret->steps = calloc(count * DAYS * 2 + 1, sizeof *ret->steps);
    if (ret->steps == NULL)
        return xv_fail_memory(error);
    size_t edges = 0;
    ret->steps[edges++].minute = 0;
    for (size_t i = 0; i < count * DAYS; i++) {
        if (!spans[i / DAYS].days[i % DAYS])
            continue;
        struct xv_window window = window_of(&spans[i / DAYS], i % DAYS);
        ret->steps[edges++].minute = window.begin;
        ret->steps[edges++].minute = window.end;
    }
    qsort(ret->steps, edges, sizeof *ret->steps, compare_minutes);
    for (size_t i = 0; i < edges; i++) {
        uint32_t minute = ret->steps[i].minute;
        uint64_t rate = rate_at(spans, count, always, minute);
        if (ret->rate.count == 0 || ret->steps[ret->rate.count - 1].rate != rate)
            ret->steps[ret->rate.count++] = (struct xv_curve_step){minute, rate};
    }
    ret->rate.steps = ret->steps;
    return 0;
}

static int read_numbers(const json_t *object, const char *path, struct xv_limits *ret,
                        uint64_t *ret_rate, xvsa_error **error)
{
    int64_t vms = 0;
    int64_t transfers = 0;
    int64_t connections = 0;
    int64_t rate = 0;
    int rc = xv_json_read_int(object, path, "vms", 1, COUNT_MAX, &vms, error);
    if (rc == 0)
        rc = xv_json_read_int(object, path, "sr_transfers", 1, COUNT_MAX, &transfers, error);
    if (rc == 0)
        rc = xv_json_read_int(object, path, "host_connections", 1, SERVER_LIMIT, &connections,
                              error);
    if (rc == 0)
        rc = xv_json_read_int(object, path, "rate", 1, INT64_MAX, &rate, error);
    ret->job_vms = (uint32_t)vms;
    ret->sr_transfers = (uint32_t)transfers;
    ret->host_connections = (uint32_t)connections;
    *ret_rate = rate == 0 ? XV_RATE_UNLIMITED : (uint64_t)rate;
    return rc;
}

static int read_times(const json_t *object, const char *path, uint64_t always,
                      struct xv_job_limits *ret, xvsa_error **error)
{
    struct span *windows = NULL;
    struct span *rates = NULL;
    size_t window_count = 0;
    size_t rate_count = 0;
    int rc = read_spans(object, path, "windows", false, &windows, &window_count, error);
    if (rc == 0)
        rc = read_spans(object, path, "rates", true, &rates, &rate_count, error);
    if (rc == 0)
        rc = make_windows(windows, window_count, ret, error);
    if (rc == 0)
        rc = make_curve(rates, rate_count, always, ret, error);
    free(windows);
    free(rates);
    return rc;
}

int xv_job_limits_read(const json_t *object, const char *path, struct xv_job_limits *ret,
                       xvsa_error **error)
{
    static const char *const members[] = {
        "vms", "sr_transfers", "host_connections", "rate", "rates", "windows", NULL};
    *ret = (struct xv_job_limits){0};
    if (object == NULL)
        return 0;
    uint64_t always = XV_RATE_UNLIMITED;
    int rc = xv_json_check_members(object, path, members, error);
    if (rc == 0)
        rc = read_numbers(object, path, &ret->limits, &always, error);
    if (rc == 0)
        rc = read_times(object, path, always, ret, error);
    return rc;
}

void xv_job_limits_free(struct xv_job_limits *limits)
{
    free(limits->window_items);
    free(limits->steps);
    *limits = (struct xv_job_limits){0};
}

uint32_t xv_week_minute(int64_t wall_ms)
{
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm local;
    if (localtime_r(&seconds, &local) == NULL)
        return 0;
    /* Sunday is 0 there. */
    uint32_t day = ((uint32_t)local.tm_wday + 6) % DAYS;
    return day * DAY_MINUTES + (uint32_t)local.tm_hour * 60 + (uint32_t)local.tm_min;
}
