/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "repo/key.h"
#include "repo_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *repaired = fuzz_repair(data, size);
    struct xv_key_slot slot;
    xvsa_error *error = NULL;
    if (xv_key_slot_decode(repaired, size, "key/0", &slot, &error) == 0) {
        uint8_t again[XV_KEY_SLOT_BYTES];
        if (xv_key_slot_encode(&slot, again) > sizeof again)
            abort();
    }
    xvsa_error_unref(error);
    free(repaired);
    return 0;
}
