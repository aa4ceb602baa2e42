/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The body of a progress object: a map or what is done.
 */
#include "repo/progress.h"

#include "repo_fuzz.h"

#define CHUNK 65536u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct xv_progress progress;
    xvsa_error *error = NULL;
    if (xv_progress_decode("w/0", data, size, CHUNK, &progress, &error) == 0) {
        struct xv_progress_run run;
        uint64_t next = progress.first;
        uint64_t refs = 0;
        xv_progress_begin(&run, &progress);
        while (xv_progress_next(&run)) {
            if (run.first != next || run.count == 0)
                abort();
            next += run.count;
            bool data_run = progress.content == XV_PROGRESS_DONE && run.kind == XV_KIND_DATA;
            for (uint64_t i = 0; data_run && i < run.count; i++, refs++) {
                struct xv_ref ref;
                xv_progress_ref(&run, i, &ref);
                if (xv_progress_pack(&run, i) >= progress.pack_count)
                    abort();
            }
        }
        if (next != progress.end || refs != progress.ref_count ||
            progress.end > progress.size / CHUNK + 1)
            abort();
    }
    xvsa_error_unref(error);
    return 0;
}
