/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Lines of JSON, each the message of a journal entry, replayed one after the other.
 */
#include "repo_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct xv_state state;
    xv_state_init(&state);
    for (size_t at = 0; at < size;) {
        const uint8_t *end = memchr(data + at, '\n', size - at);
        size_t length = end == NULL ? size - at : (size_t)(end - data) - at;
        json_t *entry = json_loadb((const char *)data + at, length, JSON_REJECT_DUPLICATES, NULL);
        uint64_t accepted;
        xvsa_error *error = NULL;
        if (json_is_object(entry) && xv_state_apply(&state, entry, "j/0", &accepted, &error) == 0) {
            for (size_t i = 0; i < state.session_count; i++) {
                for (size_t k = 0; k < state.point_count; k++)
                    (void)xv_state_pins(&state.sessions[i], state.points[k].id.bytes);
            }
            for (size_t i = 0; i < state.work_count; i++) {
                if (xv_state_work(&state, state.works[i].id.bytes) == NULL ||
                    state.works[i].key == NULL)
                    abort();
            }
        }
        xvsa_error_unref(error);
        json_decref(entry);
        at += length + 1;
    }
    xv_state_free(&state);

    /* And the input as a stored object. */
    uint8_t *repaired = fuzz_repair(data, size);
    json_t *entry = NULL;
    xvsa_error *error = NULL;
    if (xv_journal_decode(fuzz_crypt(), "j/0000000000000001", repaired, size, &entry, &error) == 0)
        json_decref(entry);
    xvsa_error_unref(error);
    free(repaired);
    return 0;
}
