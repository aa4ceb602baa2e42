/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "repo_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct xv_node node;
    static struct xv_node again;
    static uint8_t encoded[XV_NODE_BYTES_MAX];
    xvsa_error *error = NULL;
    memset(&node, 0, sizeof node);
    memset(&again, 0, sizeof again);
    if (xv_node_decode(data, size, "n/0", &node, &error) == 0) {
        /* What was understood must survive being written and read. */
        size_t length = xv_node_encode(&node, encoded);
        if (length > sizeof encoded || xv_node_decode(encoded, length, "n/0", &again, NULL) != 0 ||
            memcmp(&node, &again, sizeof node) != 0)
            abort();
    }
    xvsa_error_unref(error);
    return 0;
}
