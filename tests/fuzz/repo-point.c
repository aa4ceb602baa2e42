/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The message of a restore point.
 */
#include "repo_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct xv_point point = {0};
    xvsa_error *error = NULL;
    if (xv_point_decode("rp/0", data, size, &point, &error) == 0) {
        char *json = NULL;
        if (xv_point_describe(&point, &json, NULL) == 0)
            free(json);
        for (size_t i = 0; i < point.disk_count; i++) {
            if (point.disks[i].facts.key == NULL || point.disks[i].root.level >= XV_LEVELS)
                abort();
        }
    }
    xv_point_clear(&point);
    xvsa_error_unref(error);
    return 0;
}
