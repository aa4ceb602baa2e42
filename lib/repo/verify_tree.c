/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Going through the trees: every node is read, every chunk must be listed in its pack and not be among
 * what was found bad. Subtrees that were found sound are not gone through again for other points.
 */
#include <stdlib.h>

#include "repo/verify.h"

struct walk {
    struct xv_verify *verify;
    const struct xv_point *point;
    const struct xv_stored_disk *disk;
    bool collect;
    struct xv_location told; /* the frame that was told last: once for each disk is enough */
    bool have_told;
};

void xv_verify_tree_free(struct xv_verify *verify)
{
    xv_fetch_free(&verify->fetch);
    for (size_t i = 0; verify->cached != NULL && i < XV_CACHED_PACKS; i++)
        xv_pack_index_free(&verify->cached[i].index);
    free(verify->cached);
    free(verify->clean);
}

/* Keyed hashes: 64 bits of them do not meet by accident. */
static uint64_t *clean_slot(uint64_t *slots, size_t count, uint64_t key)
{
    size_t at = (size_t)key & (count - 1);
    while (slots[at] != 0 && slots[at] != key)
        at = (at + 1) & (count - 1);
    return &slots[at];
}

static uint64_t clean_key(const uint8_t *id)
{
    uint64_t key = xv_get64(id);
    return key == 0 ? 1 : key;
}

static bool is_clean(const struct xv_verify *verify, const uint8_t *id)
{
    return verify->clean != NULL &&
           *clean_slot(verify->clean, verify->clean_slots, clean_key(id)) != 0;
}

static int mark_clean(struct xv_verify *verify, const uint8_t *id, xvsa_error **error)
{
    if (verify->clean_count * 2 >= verify->clean_slots) {
        size_t slots = verify->clean_slots == 0 ? 1024 : verify->clean_slots * 2;
        uint64_t *grown = calloc(slots, sizeof *grown);
        if (grown == NULL)
            return xv_fail_memory(error);
        for (size_t i = 0; i < verify->clean_slots; i++) {
            if (verify->clean[i] != 0)
                *clean_slot(grown, slots, verify->clean[i]) = verify->clean[i];
        }
        free(verify->clean);
        verify->clean = grown;
        verify->clean_slots = slots;
    }
    uint64_t *slot = clean_slot(verify->clean, verify->clean_slots, clean_key(id));
    verify->clean_count += *slot == 0;
    *slot = clean_key(id);
    return 0;
}

/* The table of a pack, kept for a while. */
static int pack_index(struct xv_verify *verify, const uint8_t *pack,
                      const struct xv_pack_index **ret, xvsa_error **error)
{
    if (verify->cached == NULL)
        verify->cached = calloc(XV_CACHED_PACKS, sizeof *verify->cached);
    if (verify->cached == NULL)
        return xv_fail_memory(error);
    struct xv_cached_pack *oldest = &verify->cached[0];
    for (size_t i = 0; i < XV_CACHED_PACKS; i++) {
        struct xv_cached_pack *entry = &verify->cached[i];
        if (entry->used > 0 && memcmp(entry->index.pack, pack, XV_HANDLE_BYTES) == 0) {
            entry->used = ++verify->clock;
            *ret = &entry->index;
            return 0;
        }
        if (entry->used < oldest->used)
            oldest = entry;
    }
    struct xv_pack_index index;
    int rc = xv_pack_index_read(verify->repo->target, verify->repo->crypt, false, pack, &index,
                                verify->call, error);
    if (rc != 0)
        return rc;
    xv_pack_index_free(&oldest->index);
    oldest->index = index;
    oldest->used = ++verify->clock;
    *ret = &oldest->index;
    return 0;
}

/* Is the chunk at this place, as far as the table tells and the packs were read? */
static int check_place(struct xv_verify *verify, const uint8_t *id, const struct xv_location *at,
                       uint32_t extent, xvsa_error **error)
{
    char name[XV_NAME_BYTES];
    const struct xv_pack_index *index = NULL;
    xv_pack_name(false, at->pack, name);
    const struct xv_bad_frame *bad = xv_verify_bad(verify, at->pack, at->offset);
    if (bad != NULL)
        return xv_fault(error, name, "%s", bad->message);
    int rc = pack_index(verify, at->pack, &index, error);
    if (rc != 0)
        return rc;
    const struct xv_frame *frame = xv_pack_index_find(index, at->offset);
    if (frame == NULL || at->slot >= frame->count || xv_frame_length(frame) != at->length ||
        memcmp(xv_frame_entry_id(frame, at->slot), id, XV_ID_BYTES) != 0)
        return xv_fault(error, name, "it does not list a chunk where the tree says");
    if (xv_frame_entry_length(frame, at->slot) > extent)
        return xv_fault(error, name, "a chunk is longer than its place");
    return 0;
}

static int check_chunk(struct xv_verify *verify, const struct xv_ref *ref, uint32_t extent,
                       xvsa_error **error)
{
    xvsa_error *first = NULL;
    int rc = check_place(verify, ref->id, &ref->at, extent, &first);
    if (rc == 0)
        return 0;
    if (xv_fault_is_damage(rc)) {
        /* A reader would look elsewhere too. */
        struct xv_segment_entry entry;
        bool found = false;
        int again = xv_index_sync(verify->repo->index, verify->call, NULL);
        if (again == 0)
            again = xv_index_find(verify->repo->index, xv_frame_opener_tool(verify->opener),
                                  ref->id, &found, &entry, verify->call, NULL);
        if (again == 0 && found && !entry.node &&
            memcmp(entry.ref.at.pack, ref->at.pack, XV_HANDLE_BYTES) != 0 &&
            check_place(verify, ref->id, &entry.ref.at, extent, NULL) == 0) {
            xvsa_error_unref(first);
            return 0;
        }
    }
    if (error != NULL)
        *error = first;
    else
        xvsa_error_unref(first);
    return rc;
}

static int want(struct xv_verify *verify, const struct xv_location *at, xvsa_error **error)
{
    struct xv_wanted *last =
        verify->wanted_count == 0 ? NULL : &verify->wanted[verify->wanted_count - 1];
    if (last != NULL && last->offset == at->offset &&
        memcmp(last->pack, at->pack, XV_HANDLE_BYTES) == 0)
        return 0;
    if (verify->wanted_count == verify->wanted_capacity) {
        size_t capacity = verify->wanted_capacity == 0 ? 1024 : verify->wanted_capacity * 2;
        struct xv_wanted *grown = realloc(verify->wanted, capacity * sizeof *grown);
        if (grown == NULL)
            return xv_fail_memory(error);
        verify->wanted = grown;
        verify->wanted_capacity = capacity;
    }
    struct xv_wanted *entry = &verify->wanted[verify->wanted_count++];
    memcpy(entry->pack, at->pack, XV_HANDLE_BYTES);
    entry->offset = at->offset;
    return 0;
}

static int tell(struct walk *walk, int rc, xvsa_error *e, const struct xv_location *at,
                const char *object, xvsa_error **error)
{
    bool again = walk->have_told && walk->told.offset == at->offset &&
                 memcmp(walk->told.pack, at->pack, XV_HANDLE_BYTES) == 0;
    if (xv_fault_is_damage(rc) && (walk->collect || again)) {
        xvsa_error_unref(e);
        return 0;
    }
    walk->told = *at;
    walk->have_told = true;
    return xv_verify_note(walk->verify, rc, e, object, walk->point->id, walk->disk->facts.key,
                          error);
}

static int walk_leaf(struct walk *walk, const struct xv_node *leaf, uint64_t index, bool *ret_sound,
                     xvsa_error **error)
{
    struct xv_verify *verify = walk->verify;
    uint32_t chunk_size = xv_repo_chunk_size(verify->repo);
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < XV_FAN; i++) {
        const struct xv_ref *ref = &leaf->refs[i];
        uint64_t begins = (index * XV_FAN + i) * chunk_size;
        xvsa_error *e = NULL;
        if (leaf->kinds[i] != XV_KIND_DATA)
            continue;
        if (walk->collect) {
            rc = want(verify, &ref->at, error);
            continue;
        }
        char name[XV_NAME_BYTES];
        xv_pack_name(false, ref->at.pack, name);
        uint64_t left = walk->disk->facts.size > begins ? walk->disk->facts.size - begins : 0;
        int checked = left == 0 ? xv_fault(&e, name, "a chunk is beyond the disk's end")
                                : check_chunk(verify, ref,
                                              left < chunk_size ? (uint32_t)left : chunk_size, &e);
        if (checked != 0) {
            *ret_sound = false;
            rc = tell(walk, checked, e, &ref->at, name, error);
        }
    }
    return rc;
}

static int load_node(struct walk *walk, const struct xv_ref *ref, unsigned level,
                     struct xv_node *ret, xvsa_error **error)
{
    struct xv_verify *verify = walk->verify;
    const uint8_t *data;
    uint32_t length;
    int rc = xv_fetch_ref(verify->repo, verify->opener, true, ref, &verify->fetch, &data, &length,
                          verify->call, error);
    if (rc == 0)
        rc = xv_node_decode(data, length, verify->fetch.object, ret, error);
    if (rc == 0 && ret->level != level)
        rc = xv_fault(error, verify->fetch.object, "a tree node is of level %u instead of %u",
                      ret->level, level);
    if (rc == 0)
        verify->result.bytes += length;
    else
        /* What the packs' check found about it is told with this. */
        (void)xv_verify_bad(verify, ref->at.pack, ref->at.offset);
    return rc;
}

static int walk_node(struct walk *walk, const struct xv_ref *ref, unsigned level, uint64_t index,
                     bool *ret_sound, xvsa_error **error)
{
    struct xv_verify *verify = walk->verify;
    /* What is sound depends on the place too when the disk ends there, but a node says by its kinds
     * where it ends, and a short chunk only fits the last place. */
    if (!walk->collect && is_clean(verify, ref->id))
        return 0;
    int rc = xv_call_check(verify->call, "repo", "verifying", error);
    if (rc != 0)
        return rc;
    struct xv_node *node = malloc(sizeof *node);
    if (node == NULL)
        return xv_fail_memory(error);
    xvsa_error *e = NULL;
    char name[XV_NAME_BYTES];
    bool sound = true;
    xv_pack_name(true, ref->at.pack, name);
    rc = load_node(walk, ref, level, node, &e);
    if (rc != 0) {
        sound = false;
        rc = tell(walk, rc, e, &ref->at, name, error);
    } else if (level == 0) {
        rc = walk_leaf(walk, node, index, &sound, error);
    } else {
        for (unsigned i = 0; rc == 0 && i < XV_FAN; i++) {
            if (node->kinds[i] == XV_KIND_DATA)
                rc = walk_node(walk, &node->refs[i], level - 1, index * XV_FAN + i, &sound, error);
        }
    }
    free(node);
    if (rc == 0 && sound && !walk->collect)
        rc = mark_clean(verify, ref->id, error);
    *ret_sound = *ret_sound && sound;
    return rc;
}

int xv_verify_disk(struct xv_verify *verify, const struct xv_point *point,
                   const struct xv_stored_disk *disk, bool collect, xvsa_error **error)
{
    struct walk walk = {.verify = verify, .point = point, .disk = disk, .collect = collect};
    bool sound = true;
    uint64_t chunks = xv_disk_chunks(disk->facts.size, xv_repo_chunk_size(verify->repo));
    if (disk->root.level != xv_root_level(chunks)) {
        char name[XV_NAME_BYTES];
        xv_handle_name("rp", point->id_bytes, name);
        if (!collect)
            xv_verify_tell(verify, name, point->id, disk->facts.key,
                           "the root of a disk is not of the level that its size needs");
        return 0;
    }
    if (disk->root.kind != XV_KIND_DATA)
        return 0;
    return walk_node(&walk, &disk->root.ref, disk->root.level, 0, &sound, error);
}
