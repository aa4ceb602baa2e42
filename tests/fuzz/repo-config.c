/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "repo_fuzz.h"

static void decode(const uint8_t *data, size_t size)
{
    struct xv_config config;
    xvsa_error *error = NULL;
    if (xv_config_decode(data, size, &config, &error) == 0 &&
        (config.chunk_log2 < XV_CHUNK_LOG2_MIN || config.chunk_log2 > XV_CHUNK_LOG2_MAX))
        abort();
    xvsa_error_unref(error);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *repaired = fuzz_repair(data, size);
    decode(data, size);
    decode(repaired, size);
    free(repaired);
    return 0;
}
