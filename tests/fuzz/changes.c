/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Input: 8 bytes of disk size (little endian), then the bitmap as base64.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "diff/changes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct xv_extents *set, uint64_t size)
{
    for (size_t i = 0; i < set->count; i++) {
        uint64_t end = set->ranges[i].offset + set->ranges[i].length;
        uint64_t before = i == 0 ? 0 : set->ranges[i - 1].offset + set->ranges[i - 1].length;
        if (set->ranges[i].length == 0 || end > size || (i > 0 && set->ranges[i].offset <= before))
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 8)
        return 0;
    uint64_t disk = 0;
    for (int i = 0; i < 8; i++)
        disk |= (uint64_t)data[i] << (8 * i);
    struct xv_extents set, sample;
    xv_extents_init(&set);
    xv_extents_init(&sample);
    char *base64 = strndup((const char *)data + 8, size - 8);
    if (base64 != NULL && xv_changes_decode(base64, disk, &set, NULL) == 0) {
        check(&set, disk);
        if (xv_changes_sample(&set, disk, XV_CBT_BLOCK, 10, 4, disk, &sample, NULL) == 0)
            check(&sample, disk);
    }
    xv_extents_free(&set);
    if (xv_changes_decode_bits(data + 8, size - 8, disk, &set, NULL) == 0)
        check(&set, disk);
    xv_extents_free(&set);
    xv_extents_free(&sample);
    free(base64);
    return 0;
}
