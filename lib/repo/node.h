/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Nodes of the tree that a disk is kept as. A node of level 0, a leaf, has chunks; others have nodes.
 */
#ifndef XV_REPO_NODE_H
#define XV_REPO_NODE_H

#include "repo/crypt.h"

struct xv_node {
    uint8_t level;
    uint8_t kinds[XV_FAN];      /* XV_KIND_* */
    struct xv_ref refs[XV_FAN]; /* of entries of kind DATA */
};

#define XV_NODE_FIXED 36
#define XV_NODE_ENTRY 44
/* Every entry in another pack is the most there can be. */
#define XV_NODE_BYTES_MAX (XV_NODE_FIXED + XV_FAN * (XV_HANDLE_BYTES + XV_NODE_ENTRY))

/* Writes at most XV_NODE_BYTES_MAX bytes; returns their number. */
size_t xv_node_encode(const struct xv_node *node, uint8_t *out);
/* object: the pack it came from, for messages. */
int xv_node_decode(const uint8_t *data, size_t length, const char *object, struct xv_node *ret,
                   xvsa_error **error) XV_MUST_CHECK;
/* Id of a node: of its level, kinds and ids. Where its children are does not matter. */
int xv_node_make_id(struct xv_crypt_tool *tool, const struct xv_node *node, uint8_t *ret_id,
                    xvsa_error **error) XV_MUST_CHECK;
/* Id of an encoded node. */
int xv_node_identify(struct xv_crypt_tool *tool, const uint8_t *data, size_t length,
                     const char *object, uint8_t *ret_id, xvsa_error **error) XV_MUST_CHECK;

/* XV_KIND_HOLE or XV_KIND_ZERO when all entries are of that kind, XV_KIND_DATA otherwise. */
uint8_t xv_node_kind(const struct xv_node *node);

/* Number of chunks below an entry of a node of this level. */
static inline uint64_t xv_node_span(unsigned level)
{
    return 1ull << (XV_FAN_LOG2 * level);
}

/* Level of the root of a disk with this many chunks. */
static inline unsigned xv_root_level(uint64_t chunks)
{
    unsigned level = 0;
    while (level + 1 < XV_LEVELS && xv_node_span(level + 1) < chunks)
        level++;
    return level;
}

#endif
