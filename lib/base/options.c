/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/options.h"

#include <string.h>

/* No structure of ours comes near; a larger size is a caller's uninitialised memory. */
#define SIZE_MAX_SANE 4096
/* size and flags: the least that any version of any structure had. */
#define SIZE_MIN 8

static int check_size(uint32_t size, const char *type, xvsa_error **error)
{
    if (size < SIZE_MIN || size > SIZE_MAX_SANE)
        return xv_fail(error, XVSA_ERR_ABI, "base",
                       "%s: its size member is %u; use the initialiser of the header", type, size);
    return 0;
}

int xv_options_copy(void *ours, size_t ours_size, const void *from, const char *type,
                    xvsa_error **error)
{
    memset(ours, 0, ours_size);
    if (from == NULL)
        return 0;
    uint32_t size;
    memcpy(&size, from, sizeof size);
    int rc = check_size(size, type, error);
    if (rc != 0)
        return rc;
    for (size_t i = ours_size; i < size; i++) {
        if (((const unsigned char *)from)[i] != 0)
            return xv_fail(error, XVSA_ERR_ABI, "base",
                           "%s: byte %zu is set but unknown to this version of the library", type,
                           i);
    }
    memcpy(ours, from, size < ours_size ? size : ours_size);
    return 0;
}

int xv_options_fill(void *to, const void *ours, size_t ours_size, const char *type,
                    xvsa_error **error)
{
    if (to == NULL)
        return xv_fail(error, XVSA_ERR_INVALID, "base", "%s: NULL", type);
    uint32_t size;
    memcpy(&size, to, sizeof size);
    int rc = check_size(size, type, error);
    if (rc != 0)
        return rc;
    memset(to, 0, size);
    memcpy(to, ours, size < ours_size ? size : ours_size);
    memcpy(to, &size, sizeof size);
    return 0;
}
