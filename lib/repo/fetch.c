/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * From a reference to verified bytes.
 */
#include <stdlib.h>

#include "repo/internal.h"

#define FRAME_BYTES_MAX                                                                            \
    (XV_FRAME_FIXED + XV_FRAME_CHUNKS_MAX * XV_FRAME_ENTRY + XV_FRAME_SUMS + XV_FRAME_RAW_MAX +    \
     XV_TAG_BYTES)

void xv_fetch_free(struct xv_fetch *fetch)
{
    free(fetch->data);
    free(fetch->raw);
    *fetch = (struct xv_fetch){0};
}

static int ensure(uint8_t **data, size_t *capacity, size_t needed, xvsa_error **error)
{
    if (*capacity >= needed)
        return 0;
    free(*data);
    *capacity = 0;
    *data = malloc(needed);
    if (*data == NULL)
        return xv_fail_memory(error);
    *capacity = needed;
    return 0;
}

int xv_fetch_frame(struct xv_repo *repo, struct xv_frame_opener *opener, bool node,
                   const struct xv_location *at, struct xv_fetch *fetch, const struct xv_call *call,
                   xvsa_error **error)
{
    if (fetch->valid && fetch->at.offset == at->offset && fetch->at.length == at->length &&
        memcmp(fetch->at.pack, at->pack, XV_HANDLE_BYTES) == 0)
        return 0;
    fetch->valid = false;
    fetch->at = *at;
    xv_pack_name(node, at->pack, fetch->object);
    if (at->length < xv_frame_header_length(1) + XV_TAG_BYTES || at->length > FRAME_BYTES_MAX)
        return xv_fault(error, fetch->object, "a frame of %u bytes is impossible", at->length);
    int rc = ensure(&fetch->data, &fetch->data_capacity, at->length, error);
    if (rc == 0)
        rc = xv_target_get(repo->target, fetch->object, at->offset, fetch->data, at->length, call,
                           error);
    if (rc == 0)
        rc = xv_frame_decode(fetch->data, at->length, fetch->object, &fetch->frame, error);
    if (rc == 0 &&
        (fetch->frame.offset != at->offset || xv_frame_length(&fetch->frame) != at->length))
        rc = xv_fault(error, fetch->object, "frame %u is not where it should be",
                      fetch->frame.number);
    if (rc == 0)
        rc = ensure(&fetch->raw, &fetch->raw_capacity, fetch->frame.raw_length, error);
    if (rc == 0)
        rc = xv_frame_open(opener, at->pack, fetch->object, &fetch->frame, fetch->data, fetch->raw,
                           error);
    fetch->valid = rc == 0;
    return rc;
}

int xv_fetch_slot(struct xv_frame_opener *opener, bool node, const struct xv_fetch *fetch,
                  uint32_t slot, const uint8_t *id, const uint8_t **ret, uint32_t *ret_length,
                  xvsa_error **error)
{
    const struct xv_frame *frame = &fetch->frame;
    if (slot >= frame->count || memcmp(xv_frame_entry_id(frame, slot), id, XV_ID_BYTES) != 0)
        return xv_fault(error, fetch->object, "frame %u does not hold what is looked for in it",
                        frame->number);
    const uint8_t *bytes = fetch->raw;
    for (uint32_t i = 0; i < slot; i++)
        bytes += xv_frame_entry_length(frame, i);
    int rc = xv_frame_check(opener, node, fetch->object, frame, slot, bytes, error);
    if (rc != 0)
        return rc;
    *ret = bytes;
    *ret_length = xv_frame_entry_length(frame, slot);
    return 0;
}

static int fetch_at(struct xv_repo *repo, struct xv_frame_opener *opener, bool node,
                    const struct xv_location *at, const uint8_t *id, struct xv_fetch *fetch,
                    const uint8_t **ret, uint32_t *ret_length, const struct xv_call *call,
                    xvsa_error **error)
{
    int rc = xv_fetch_frame(repo, opener, node, at, fetch, call, error);
    if (rc == 0)
        rc = xv_fetch_slot(opener, node, fetch, at->slot, id, ret, ret_length, error);
    if (rc == XVSA_ERR_NOT_FOUND) {
        /* A missing pack is damage, not a wrong argument of the caller's. */
        xv_fault_drop(error);
        rc = xv_fault(error, fetch->object, "it is missing");
    }
    return rc;
}

static bool same_place(const struct xv_location *a, const struct xv_location *b)
{
    return a->offset == b->offset && a->slot == b->slot &&
           memcmp(a->pack, b->pack, XV_HANDLE_BYTES) == 0;
}

int xv_fetch_ref(struct xv_repo *repo, struct xv_frame_opener *opener, bool node,
                 const struct xv_ref *ref, struct xv_fetch *fetch, const uint8_t **ret,
                 uint32_t *ret_length, const struct xv_call *call, xvsa_error **error)
{
    xvsa_error *first = NULL;
    int rc = fetch_at(repo, opener, node, &ref->at, ref->id, fetch, ret, ret_length, call, &first);
    if (rc == 0)
        return 0;
    /* The hint may be old: the id is the truth, and the index knows where it is now. */
    xvsa_error *second = NULL;
    struct xv_segment_entry entry;
    bool found = false;
    int again = rc;
    if (xv_fault_is_damage(rc)) {
        again = xv_index_sync(repo->index, call, &second);
        if (again == 0)
            again = xv_index_find(repo->index, xv_frame_opener_tool(opener), ref->id, &found,
                                  &entry, call, &second);
        if (again == 0 && found && entry.node == node && !same_place(&entry.ref.at, &ref->at))
            again = fetch_at(repo, opener, node, &entry.ref.at, ref->id, fetch, ret, ret_length,
                             call, &second);
        else if (again == 0)
            again = rc;
    }
    xvsa_error_unref(second);
    if (again == 0 || error == NULL)
        xvsa_error_unref(first);
    else
        *error = first;
    return again == 0 ? 0 : rc;
}
