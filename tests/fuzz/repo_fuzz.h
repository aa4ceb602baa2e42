/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the fuzz targets of stored objects share: keys without encryption, and repairing of the checksums
 * that would otherwise keep every mutation from getting further than the first check.
 */
#ifndef XV_TESTS_REPO_FUZZ_H
#define XV_TESTS_REPO_FUZZ_H

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "repo/internal.h"

static inline const struct xv_crypt *fuzz_crypt(void)
{
    static struct xv_crypt *crypt;
    static const uint8_t zeros[32];
    if (crypt == NULL && xv_crypt_new(zeros, zeros, XV_CIPHER_NONE, &crypt, NULL) != 0)
        abort();
    return crypt;
}

/* A copy of the input whose header and trailing checksum are right. */
static inline uint8_t *fuzz_repair(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size == 0 ? 1 : size);
    if (copy == NULL)
        abort();
    if (size > 0)
        memcpy(copy, data, size);
    if (size >= XV_HEADER_BYTES)
        xv_put64(copy + 56, XXH3_64bits(copy, 56));
    if (size >= XV_HEADER_BYTES + XV_TRAILER_BYTES)
        xv_object_finish(copy, size - XV_TRAILER_BYTES);
    return copy;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
