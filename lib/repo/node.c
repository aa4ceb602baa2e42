/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "repo/node.h"

#include <stdlib.h>

#include "repo/fault.h"

#define VERSION    1
#define KIND_BYTES (XV_FAN / 4)
#define KINDS_AT   4
#define ID_INPUT   (5 + KIND_BYTES + XV_FAN * XV_ID_BYTES)

static void pack_kinds(const struct xv_node *node, uint8_t *out)
{
    memset(out, 0, KIND_BYTES);
    for (unsigned i = 0; i < XV_FAN; i++)
        out[i / 4] = (uint8_t)(out[i / 4] | node->kinds[i] << (2 * (i % 4)));
}

size_t xv_node_encode(const struct xv_node *node, uint8_t *out)
{
    uint8_t packs[XV_FAN][XV_HANDLE_BYTES];
    uint16_t index[XV_FAN];
    uint16_t count = 0;
    for (unsigned i = 0; i < XV_FAN; i++) {
        if (node->kinds[i] != XV_KIND_DATA)
            continue;
        const uint8_t *pack = node->refs[i].at.pack;
        uint16_t p = 0;
        /* Neighbours are mostly in one pack, the one met last. */
        if (count > 0 && memcmp(packs[count - 1], pack, XV_HANDLE_BYTES) == 0)
            p = (uint16_t)(count - 1);
        while (p < count && memcmp(packs[p], pack, XV_HANDLE_BYTES) != 0)
            p++;
        if (p == count)
            memcpy(packs[count++], pack, XV_HANDLE_BYTES);
        index[i] = p;
    }
    out[0] = VERSION;
    out[1] = node->level;
    xv_put16(out + 2, count);
    pack_kinds(node, out + KINDS_AT);
    memcpy(out + XV_NODE_FIXED, packs, (size_t)count * XV_HANDLE_BYTES);
    uint8_t *at = out + XV_NODE_FIXED + (size_t)count * XV_HANDLE_BYTES;
    for (unsigned i = 0; i < XV_FAN; i++) {
        if (node->kinds[i] != XV_KIND_DATA)
            continue;
        const struct xv_ref *ref = &node->refs[i];
        memcpy(at, ref->id, XV_ID_BYTES);
        xv_put16(at + 32, index[i]);
        xv_put16(at + 34, ref->at.slot);
        xv_put32(at + 36, ref->at.offset);
        xv_put32(at + 40, ref->at.length);
        at += XV_NODE_ENTRY;
    }
    return (size_t)(at - out);
}

/* Checks the parts before the entries; counts those. */
static int decode_head(const uint8_t *data, size_t length, const char *object, struct xv_node *node,
                       unsigned *ret_packs, unsigned *ret_entries, xvsa_error **error)
{
    if (length < XV_NODE_FIXED)
        return xv_fault(error, object, "a tree node is cut off");
    if (data[0] != VERSION)
        return xv_fail(error, XVSA_ERR_FORMAT, "repo",
                       "a tree node in '%s' has version %u, which this library does not know",
                       object, data[0]);
    unsigned entries = 0;
    node->level = data[1];
    for (unsigned i = 0; i < XV_FAN; i++) {
        node->kinds[i] = data[KINDS_AT + i / 4] >> (2 * (i % 4)) & 3;
        if (node->kinds[i] > XV_KIND_DATA)
            return xv_fault(error, object, "a tree node has an entry of an unknown kind");
        entries += node->kinds[i] == XV_KIND_DATA;
    }
    unsigned packs = xv_get16(data + 2);
    if (node->level >= XV_LEVELS || packs > XV_FAN ||
        length != XV_NODE_FIXED + packs * XV_HANDLE_BYTES + entries * XV_NODE_ENTRY)
        return xv_fault(error, object, "the parts of a tree node do not fit together");
    *ret_packs = packs;
    *ret_entries = entries;
    return 0;
}

int xv_node_decode(const uint8_t *data, size_t length, const char *object, struct xv_node *ret,
                   xvsa_error **error)
{
    unsigned packs = 0;
    unsigned entries = 0;
    int rc = decode_head(data, length, object, ret, &packs, &entries, error);
    if (rc != 0)
        return rc;
    const uint8_t *at = data + XV_NODE_FIXED + packs * XV_HANDLE_BYTES;
    for (unsigned i = 0; i < XV_FAN; i++) {
        if (ret->kinds[i] != XV_KIND_DATA)
            continue;
        struct xv_ref *ref = &ret->refs[i];
        unsigned pack = xv_get16(at + 32);
        if (pack >= packs)
            return xv_fault(error, object, "a tree node names a pack that it does not list");
        memcpy(ref->id, at, XV_ID_BYTES);
        memcpy(ref->at.pack, data + XV_NODE_FIXED + pack * XV_HANDLE_BYTES, XV_HANDLE_BYTES);
        ref->at.slot = xv_get16(at + 34);
        ref->at.offset = xv_get32(at + 36);
        ref->at.length = xv_get32(at + 40);
        at += XV_NODE_ENTRY;
    }
    return 0;
}

static size_t begin_input(uint8_t level, const uint8_t *kinds, uint8_t *input)
{
    memcpy(input, "XVN1", 4);
    input[4] = level;
    memcpy(input + 5, kinds, KIND_BYTES);
    return 5 + KIND_BYTES;
}

int xv_node_make_id(struct xv_crypt_tool *tool, const struct xv_node *node, uint8_t *ret_id,
                    xvsa_error **error)
{
    uint8_t input[ID_INPUT];
    uint8_t kinds[KIND_BYTES];
    pack_kinds(node, kinds);
    size_t length = begin_input(node->level, kinds, input);
    for (unsigned i = 0; i < XV_FAN; i++) {
        if (node->kinds[i] == XV_KIND_DATA) {
            memcpy(input + length, node->refs[i].id, XV_ID_BYTES);
            length += XV_ID_BYTES;
        }
    }
    return xv_node_id(tool, input, length, ret_id, error);
}

int xv_node_identify(struct xv_crypt_tool *tool, const uint8_t *data, size_t length,
                     const char *object, uint8_t *ret_id, xvsa_error **error)
{
    struct xv_node *node = malloc(sizeof *node);
    if (node == NULL)
        return xv_fail_memory(error);
    int rc = xv_node_decode(data, length, object, node, error);
    if (rc == 0)
        rc = xv_node_make_id(tool, node, ret_id, error);
    free(node);
    return rc;
}

uint8_t xv_node_kind(const struct xv_node *node)
{
    for (unsigned i = 1; i < XV_FAN; i++) {
        if (node->kinds[i] != node->kinds[0])
            return XV_KIND_DATA;
    }
    return node->kinds[0];
}
