/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A frame whose seal is right and whose lengths and compressed bytes are anything: 1 byte compression,
 * 1 byte number of entries, 4 bytes raw length, 4 bytes length of each entry, payload.
 */
#include "repo_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t pack[XV_HANDLE_BYTES];
    static const uint8_t key[XV_KEY_BYTES];
    static uint8_t entries[256 * XV_FRAME_ENTRY];
    static struct xv_frame_opener *opener;
    static uint8_t *raw;
    if (opener == NULL && xv_frame_opener_new(fuzz_crypt(), &opener, NULL) != 0)
        abort();
    if (raw == NULL && (raw = malloc(XV_FRAME_RAW_MAX)) == NULL)
        abort();
    if (size < 6 || size < 6 + 4 * (size_t)data[1])
        return 0;
    struct xv_frame frame = {.count = data[1],
                             .raw_length = xv_get32(data + 2),
                             .compression = data[0],
                             .entries = entries};
    for (uint32_t i = 0; i < frame.count; i++)
        memcpy(entries + i * XV_FRAME_ENTRY + XV_ID_BYTES, data + 6 + 4 * i, 4);
    uint32_t payload = (uint32_t)(size - 6 - 4 * (size_t)frame.count);
    size_t length = xv_frame_header_length(frame.count) + payload + XV_TAG_BYTES;
    uint8_t *sealed = malloc(length);
    if (sealed == NULL || xv_frame_seal(xv_frame_opener_tool(opener), fuzz_crypt(), pack, key,
                                        &frame, data + size - payload, payload, sealed, NULL) != 0)
        abort();
    struct xv_frame decoded;
    xvsa_error *error = NULL;
    int rc = xv_frame_decode(sealed, length, "p/0", &decoded, &error);
    if (rc == 0 && xv_frame_length(&decoded) == length)
        rc = xv_frame_open(opener, pack, "p/0", &decoded, sealed, raw, &error);
    xvsa_error_unref(error);
    free(sealed);
    return 0;
}
