/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Cutting what is to be read of a disk into units: consecutive slices of the ranges, as if they lay side by side.
 */
#include "job/share.h"

/* Whole chunks, and at least one. */
static uint64_t round_unit(uint64_t unit_bytes, uint32_t chunk)
{
    uint64_t chunks = unit_bytes / chunk + (unit_bytes % chunk != 0);
    return (chunks == 0 ? 1 : chunks) * chunk;
}

uint32_t xv_units_count(const struct xv_extents *read, uint64_t unit_bytes, uint32_t chunk)
{
    uint64_t unit = round_unit(unit_bytes, chunk);
    uint64_t bytes = xv_extents_bytes(read);
    uint64_t count = bytes / unit + (bytes % unit != 0);
    return count < XV_UNIT_NONE ? (uint32_t)count : XV_UNIT_NONE - 1;
}

int xv_units_slice(const struct xv_extents *read, uint64_t unit_bytes, uint32_t chunk,
                   uint32_t unit, struct xv_extents *ret, xvsa_error **error)
{
    uint64_t size = round_unit(unit_bytes, chunk);
    uint32_t count = xv_units_count(read, unit_bytes, chunk);
    if (unit >= count)
        return xv_fail(error, XVSA_ERR_INVALID, "job", "there is no unit %u of %u", unit, count);
    uint64_t begin = unit * size;
    uint64_t end = unit + 1 == count ? UINT64_MAX : begin + size;
    uint64_t before = 0;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < read->count && before < end; i++) {
        const struct xv_range *range = &read->ranges[i];
        uint64_t first = before > begin ? 0 : begin - before;
        uint64_t last = end - before < range->length ? end - before : range->length;
        if (first < last)
            rc = xv_extents_add(ret, range->offset + first, last - first, error);
        before += range->length;
    }
    return rc;
}
