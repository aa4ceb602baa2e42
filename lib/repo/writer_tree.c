/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The tree of a disk that is being written. A bounded number of nodes is in memory; the one used
 * longest ago is stored and its parent told where, and comes back when it is touched again (its first
 * version is garbage then). So a disk of any size, written in any order, needs the same memory.
 */
#include <stdlib.h>
#include <zstd.h>

#include "repo/session.h"

#define SLOTS_MAX 1024u /* 8 MiB of nodes, for 8 GiB of disk at 64 KiB chunks */
#define BUCKETS   2048u

struct xv_slot {
    struct xv_slot *chain; /* in its bucket */
    struct xv_slot *newer;
    struct xv_slot *older;
    uint64_t index;
    bool dirty;
    struct xv_node node;
};

static struct xv_slot **bucket_of(struct xv_disk_writer *writer, unsigned level, uint64_t index)
{
    return &writer->buckets[(index * 2654435761u + level * 40503u) % BUCKETS];
}

static struct xv_slot *find(struct xv_disk_writer *writer, unsigned level, uint64_t index)
{
    if (writer->buckets == NULL)
        return NULL;
    struct xv_slot *slot = *bucket_of(writer, level, index);
    while (slot != NULL && (slot->index != index || slot->node.level != level))
        slot = slot->chain;
    return slot;
}

static void unlink_age(struct xv_disk_writer *writer, struct xv_slot *slot)
{
    if (slot->newer != NULL)
        slot->newer->older = slot->older;
    else
        writer->newest = slot->older;
    if (slot->older != NULL)
        slot->older->newer = slot->newer;
    else
        writer->oldest = slot->newer;
}

static void link_newest(struct xv_disk_writer *writer, struct xv_slot *slot)
{
    slot->newer = NULL;
    slot->older = writer->newest;
    if (writer->newest != NULL)
        writer->newest->newer = slot;
    else
        writer->oldest = slot;
    writer->newest = slot;
}

static void drop(struct xv_disk_writer *writer, struct xv_slot *slot)
{
    struct xv_slot **at = bucket_of(writer, slot->node.level, slot->index);
    while (*at != slot)
        at = &(*at)->chain;
    *at = slot->chain;
    unlink_age(writer, slot);
    writer->slot_count--;
    free(slot);
}

static int load(struct xv_disk_writer *writer, const struct xv_ref *ref, struct xv_slot *slot,
                unsigned level, const struct xv_call *call, xvsa_error **error)
{
    struct xv_repo *repo = writer->session->repo;
    const uint8_t *data;
    uint32_t length;
    xvsa_error *first = NULL;
    int rc =
        xv_fetch_ref(repo, writer->opener, true, ref, &writer->fetch, &data, &length, call, &first);
    if (rc != 0 && xv_fault_is_damage(rc)) {
        /* It may be in a pack of ours that is still in memory. */
        rc = xv_pack_writer_flush(writer->session->nodes, call, error);
        if (rc == 0)
            rc = xv_fetch_ref(repo, writer->opener, true, ref, &writer->fetch, &data, &length, call,
                              error);
    } else if (rc != 0 && error != NULL) {
        *error = xvsa_error_ref(first);
    }
    xvsa_error_unref(first);
    if (rc == 0)
        rc = xv_node_decode(data, length, writer->fetch.object, &slot->node, error);
    if (rc == 0 && slot->node.level != level)
        rc = xv_fault(error, writer->fetch.object, "a tree node is of level %u instead of %u",
                      slot->node.level, level);
    return rc;
}

static int get(struct xv_disk_writer *writer, unsigned level, uint64_t index, struct xv_slot **ret,
               const struct xv_call *call, xvsa_error **error)
{
    struct xv_slot *slot = find(writer, level, index);
    if (slot != NULL) {
        unlink_age(writer, slot);
        link_newest(writer, slot);
        *ret = slot;
        return 0;
    }
    uint8_t kind = writer->root.kind;
    struct xv_ref ref = writer->root.ref;
    int rc = 0;
    if (level < writer->root_level) {
        struct xv_slot *parent = NULL;
        rc = get(writer, level + 1, index / XV_FAN, &parent, call, error);
        if (rc != 0)
            return rc;
        kind = parent->node.kinds[index % XV_FAN];
        ref = parent->node.refs[index % XV_FAN];
    }
    if (writer->buckets == NULL)
        writer->buckets = calloc(BUCKETS, sizeof *writer->buckets);
    slot = writer->buckets == NULL ? NULL : calloc(1, sizeof *slot);
    if (slot == NULL)
        return xv_fail_memory(error);
    if (kind == XV_KIND_DATA)
        rc = load(writer, &ref, slot, level, call, error);
    else
        xv_node_fill(&slot->node, level, kind);
    if (rc != 0) {
        free(slot);
        return rc;
    }
    slot->index = index;
    slot->chain = *bucket_of(writer, level, index);
    *bucket_of(writer, level, index) = slot;
    link_newest(writer, slot);
    writer->slot_count++;
    *ret = slot;
    return 0;
}

/* Writes a node into a pack of nodes. */
static int store_node(struct xv_disk_writer *writer, const struct xv_node *node, struct xv_ref *ref,
                      const struct xv_call *call, xvsa_error **error)
{
    struct xv_session *session = writer->session;
    uint8_t raw[XV_NODE_BYTES_MAX];
    uint8_t packed[ZSTD_COMPRESSBOUND(XV_NODE_BYTES_MAX)];
    uint8_t entry[XV_FRAME_ENTRY];
    size_t length = xv_node_encode(node, raw);
    size_t packed_length =
        ZSTD_compressCCtx(writer->zstd, packed, sizeof packed, raw, length, session->repo->level);
    bool smaller = !ZSTD_isError(packed_length) && packed_length < length;
    memcpy(entry, ref->id, XV_ID_BYTES);
    xv_put32(entry + XV_ID_BYTES, (uint32_t)length);
    struct xv_frame frame = {.count = 1,
                             .raw_length = (uint32_t)length,
                             .compression = smaller ? XV_COMPRESSION_ZSTD : XV_COMPRESSION_NONE,
                             .entries = entry};
    int rc = xv_pack_writer_add(
        session->nodes, xv_frame_opener_tool(writer->opener), &frame, smaller ? packed : raw,
        (uint32_t)(smaller ? packed_length : length), ref->at.pack, call, error);
    if (rc != 0)
        return rc;
    ref->at.offset = frame.offset;
    ref->at.length = xv_frame_length(&frame);
    ref->at.slot = 0;
    struct xv_segment_entry known = {.ref = *ref, .node = true};
    return xv_known_add(&session->known, &known, 1, error);
}

/* A node that the pinned base has too, at the same place, is not written again. No other node is ever
 * taken over: one found through the index could be garbage whose chunks are gone. */
static int find_in_base(struct xv_disk_writer *writer, unsigned level, uint64_t index,
                        struct xv_ref *ref, bool *ret_found, const struct xv_call *call,
                        xvsa_error **error)
{
    uint8_t kind;
    struct xv_ref base;
    *ret_found = false;
    if (writer->base == NULL || level > writer->base_root.level)
        return 0;
    int rc = xv_tree_entry(writer->base, level, index, &kind, &base, call, error);
    if (rc == 0 && kind == XV_KIND_DATA && memcmp(base.id, ref->id, XV_ID_BYTES) == 0) {
        *ref = base;
        *ret_found = true;
    }
    return rc;
}

/* Tells the parent, or the writer for the root. */
static int tell_parent(struct xv_disk_writer *writer, unsigned level, uint64_t index, uint8_t kind,
                       const struct xv_ref *ref, const struct xv_call *call, xvsa_error **error)
{
    if (level == writer->root_level) {
        writer->root.kind = kind;
        writer->root.ref = *ref;
        return 0;
    }
    struct xv_slot *parent = NULL;
    int rc = get(writer, level + 1, index / XV_FAN, &parent, call, error);
    if (rc == 0) {
        parent->node.kinds[index % XV_FAN] = kind;
        parent->node.refs[index % XV_FAN] = *ref;
        parent->dirty = true;
    }
    return rc;
}

static int store(struct xv_disk_writer *writer, struct xv_slot *slot, const struct xv_call *call,
                 xvsa_error **error)
{
    if (!slot->dirty)
        return 0;
    unsigned level = slot->node.level;
    struct xv_ref ref = {0};
    uint8_t kind = xv_node_kind(&slot->node);
    int rc = 0;
    if (kind == XV_KIND_DATA) {
        bool found = false;
        rc = xv_node_make_id(xv_frame_opener_tool(writer->opener), &slot->node, ref.id, error);
        if (rc == 0)
            rc = find_in_base(writer, level, slot->index, &ref, &found, call, error);
        if (rc == 0 && !found)
            rc = store_node(writer, &slot->node, &ref, call, error);
    }
    if (rc == 0)
        rc = tell_parent(writer, level, slot->index, kind, &ref, call, error);
    if (rc == 0)
        slot->dirty = false;
    return rc;
}

int xv_grow_trim(struct xv_disk_writer *writer, const struct xv_call *call, xvsa_error **error)
{
    while (writer->slot_count > SLOTS_MAX) {
        struct xv_slot *slot = writer->oldest;
        int rc = store(writer, slot, call, error);
        if (rc != 0)
            return rc;
        drop(writer, slot);
    }
    return 0;
}

int xv_grow_place(struct xv_disk_writer *writer, const struct xv_placement *placement,
                  const struct xv_call *call, xvsa_error **error)
{
    struct xv_slot *leaf = writer->newest;
    uint64_t index = placement->chunk / XV_FAN;
    int rc = 0;
    if (leaf == NULL || leaf->node.level != 0 || leaf->index != index)
        rc = get(writer, 0, index, &leaf, call, error);
    if (rc != 0)
        return rc;
    unsigned at = (unsigned)(placement->chunk % XV_FAN);
    leaf->node.kinds[at] = placement->kind;
    leaf->node.refs[at] = placement->ref;
    leaf->dirty = true;
    return xv_grow_trim(writer, call, error);
}

/* Is nothing of this subtree there yet? */
static int untouched(struct xv_disk_writer *writer, unsigned level, uint64_t index, bool *ret,
                     const struct xv_call *call, xvsa_error **error)
{
    if (level == writer->root_level) {
        *ret = writer->root.kind == XV_KIND_HOLE && find(writer, level, index) == NULL;
        return 0;
    }
    struct xv_slot *parent = NULL;
    int rc = get(writer, level + 1, index / XV_FAN, &parent, call, error);
    if (rc != 0)
        return rc;
    *ret = parent->node.kinds[index % XV_FAN] == XV_KIND_HOLE;
    uint64_t first = index << (XV_FAN_LOG2 * level);
    for (struct xv_slot *slot = writer->newest; *ret && slot != NULL; slot = slot->older) {
        uint64_t begins = slot->index << (XV_FAN_LOG2 * slot->node.level);
        if (slot->node.level <= level && begins >= first && begins - first < xv_node_span(level))
            *ret = false;
    }
    return 0;
}

static int keep_leaf(struct xv_disk_writer *writer, uint64_t index, uint64_t first, uint64_t end,
                     const struct xv_call *call, xvsa_error **error)
{
    struct xv_node *base = malloc(sizeof *base);
    struct xv_slot *leaf = NULL;
    if (base == NULL)
        return xv_fail_memory(error);
    int rc = xv_tree_node(writer->base, 0, index, base, call, error);
    if (rc == 0)
        rc = get(writer, 0, index, &leaf, call, error);
    for (uint64_t chunk = first; rc == 0 && chunk < end; chunk++) {
        unsigned at = (unsigned)(chunk % XV_FAN);
        leaf->node.kinds[at] = base->kinds[at];
        leaf->node.refs[at] = base->refs[at];
        leaf->dirty = true;
    }
    free(base);
    return rc == 0 ? xv_grow_trim(writer, call, error) : rc;
}

/* Takes [first, end), which is inside the node, over from the base. */
static int keep_in(struct xv_disk_writer *writer, unsigned level, uint64_t index, uint64_t first,
                   uint64_t end, const struct xv_call *call, xvsa_error **error)
{
    uint64_t span = xv_node_span(level + 1);
    uint64_t node_first = index * span;
    uint64_t node_end = node_first + span;
    uint64_t base_chunks =
        xv_disk_chunks(writer->base_size, xv_repo_chunk_size(writer->session->repo));
    bool whole = first == node_first && (end == node_end || end == writer->chunks);
    /* A base that goes on behind the disk's end would bring chunks that the disk does not have. */
    bool fits = node_end <= writer->chunks || base_chunks <= writer->chunks;
    bool fresh = false;
    int rc = 0;
    if (whole && fits && level <= writer->base_root.level)
        rc = untouched(writer, level, index, &fresh, call, error);
    if (rc != 0)
        return rc;
    if (fresh) {
        uint8_t kind;
        struct xv_ref ref = {0};
        rc = xv_tree_entry(writer->base, level, index, &kind, &ref, call, error);
        if (rc == 0 && kind != XV_KIND_HOLE)
            rc = tell_parent(writer, level, index, kind, &ref, call, error);
        return rc;
    }
    if (level == 0)
        return keep_leaf(writer, index, first, end, call, error);
    uint64_t child_span = xv_node_span(level);
    for (uint64_t at = first; rc == 0 && at < end;) {
        uint64_t child = at / child_span;
        uint64_t child_end = (child + 1) * child_span;
        uint64_t until = child_end < end ? child_end : end;
        rc = keep_in(writer, level - 1, child, at, until, call, error);
        at = until;
    }
    return rc;
}

int xv_grow_keep(struct xv_disk_writer *writer, uint64_t first, uint64_t end,
                 const struct xv_call *call, xvsa_error **error)
{
    return keep_in(writer, writer->root_level, 0, first, end, call, error);
}

static struct xv_slot *oldest_of(struct xv_disk_writer *writer, unsigned level)
{
    struct xv_slot *slot = writer->oldest;
    while (slot != NULL && slot->node.level != level)
        slot = slot->newer;
    return slot;
}

int xv_grow_finish(struct xv_disk_writer *writer, const struct xv_call *call, xvsa_error **error)
{
    for (unsigned level = 0; level <= writer->root_level; level++) {
        struct xv_slot *slot;
        while ((slot = oldest_of(writer, level)) != NULL) {
            int rc = store(writer, slot, call, error);
            if (rc != 0)
                return rc;
            drop(writer, slot);
        }
    }
    return 0;
}

void xv_grow_free(struct xv_disk_writer *writer)
{
    while (writer->newest != NULL)
        drop(writer, writer->newest);
    free(writer->buckets);
    writer->buckets = NULL;
}
