/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "diff/extents.h"

#include <stdlib.h>
#include <string.h>

#define COMPONENT "diff"

static uint64_t end_of(const struct xv_range *range)
{
    return range->offset + range->length;
}

void xv_extents_init(struct xv_extents *set)
{
    *set = (struct xv_extents){0};
}

void xv_extents_free(struct xv_extents *set)
{
    free(set->ranges);
    xv_extents_init(set);
}

/* Index of the first range that ends at or after offset, i.e. that could be merged with it. */
static size_t find(const struct xv_extents *set, uint64_t offset)
{
    size_t low = 0, high = set->count;
    if (high > 0 && end_of(&set->ranges[high - 1]) < offset)
        return high;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (end_of(&set->ranges[middle]) < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int reserve_one(struct xv_extents *set, xvsa_error **error)
{
    if (set->count < set->capacity)
        return 0;
    size_t capacity = set->capacity == 0 ? 16 : set->capacity * 2;
    if (capacity > SIZE_MAX / sizeof *set->ranges)
        return xv_fail_memory(error);
    struct xv_range *ranges = realloc(set->ranges, capacity * sizeof *ranges);
    if (ranges == NULL)
        return xv_fail_memory(error);
    set->ranges = ranges;
    set->capacity = capacity;
    return 0;
}

static int insert(struct xv_extents *set, size_t at, uint64_t offset, uint64_t length,
                  xvsa_error **error)
{
    int rc = reserve_one(set, error);
    if (rc != 0)
        return rc;
    memmove(&set->ranges[at + 1], &set->ranges[at], (set->count - at) * sizeof *set->ranges);
    set->ranges[at] = (struct xv_range){offset, length};
    set->count++;
    return 0;
}

int xv_extents_add(struct xv_extents *set, uint64_t offset, uint64_t length, xvsa_error **error)
{
    if (length == 0)
        return 0;
    if (length > UINT64_MAX - offset)
        return xv_fail(error, XVSA_ERR_INVALID, COMPONENT,
                       "a range of %llu bytes at %llu ends beyond 2^64", (unsigned long long)length,
                       (unsigned long long)offset);
    uint64_t end = offset + length;
    size_t first = find(set, offset);
    if (first == set->count || set->ranges[first].offset > end)
        return insert(set, first, offset, length, error);
    size_t last = first;
    while (last + 1 < set->count && set->ranges[last + 1].offset <= end)
        last++;
    struct xv_range *merged = &set->ranges[first];
    if (end_of(&set->ranges[last]) > end)
        end = end_of(&set->ranges[last]);
    if (merged->offset < offset)
        offset = merged->offset;
    *merged = (struct xv_range){offset, end - offset};
    memmove(merged + 1, &set->ranges[last + 1], (set->count - last - 1) * sizeof *set->ranges);
    set->count -= last - first;
    return 0;
}

int xv_extents_union(const struct xv_extents *a, const struct xv_extents *b, struct xv_extents *ret,
                     xvsa_error **error)
{
    size_t i = 0, k = 0;
    int rc = 0;
    while (rc == 0 && (i < a->count || k < b->count)) {
        bool from_a = k == b->count || (i < a->count && a->ranges[i].offset <= b->ranges[k].offset);
        const struct xv_range *next = from_a ? &a->ranges[i++] : &b->ranges[k++];
        rc = xv_extents_add(ret, next->offset, next->length, error);
    }
    return rc;
}

int xv_extents_intersect(const struct xv_extents *a, const struct xv_extents *b,
                         struct xv_extents *ret, xvsa_error **error)
{
    size_t i = 0, k = 0;
    int rc = 0;
    while (rc == 0 && i < a->count && k < b->count) {
        const struct xv_range *x = &a->ranges[i], *y = &b->ranges[k];
        uint64_t start = x->offset > y->offset ? x->offset : y->offset;
        uint64_t end = end_of(x) < end_of(y) ? end_of(x) : end_of(y);
        if (start < end)
            rc = xv_extents_add(ret, start, end - start, error);
        if (end_of(x) <= end_of(y))
            i++;
        else
            k++;
    }
    return rc;
}

int xv_extents_subtract(const struct xv_extents *a, const struct xv_extents *b,
                        struct xv_extents *ret, xvsa_error **error)
{
    size_t k = 0;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < a->count; i++) {
        uint64_t start = a->ranges[i].offset, end = end_of(&a->ranges[i]);
        while (k < b->count && end_of(&b->ranges[k]) <= start)
            k++;
        for (size_t hole = k; rc == 0 && hole < b->count && b->ranges[hole].offset < end; hole++) {
            if (b->ranges[hole].offset > start)
                rc = xv_extents_add(ret, start, b->ranges[hole].offset - start, error);
            start = end_of(&b->ranges[hole]);
            k = hole;
        }
        if (rc == 0 && start < end)
            rc = xv_extents_add(ret, start, end - start, error);
    }
    return rc;
}

int xv_extents_align(const struct xv_extents *set, uint64_t unit, uint64_t end,
                     struct xv_extents *ret, xvsa_error **error)
{
    if (unit == 0 || (unit & (unit - 1)) != 0)
        return xv_fail(error, XVSA_ERR_INVALID, COMPONENT, "unit %llu is not a power of two",
                       (unsigned long long)unit);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < set->count; i++) {
        uint64_t start = set->ranges[i].offset & ~(unit - 1);
        uint64_t stop = end_of(&set->ranges[i]);
        if (start >= end)
            break;
        uint64_t gap = (unit - (stop & (unit - 1))) & (unit - 1);
        stop = stop >= end || gap > end - stop ? end : stop + gap;
        rc = xv_extents_add(ret, start, stop - start, error);
    }
    return rc;
}

uint64_t xv_extents_bytes(const struct xv_extents *set)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < set->count; i++)
        bytes += set->ranges[i].length;
    return bytes;
}
