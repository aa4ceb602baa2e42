/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The outer parts of a pack: head, table of frames, tail.
 */
#include "repo/pack.h"

#include <stdlib.h>
#include <xxhash.h>

#include "repo/fault.h"
#include "repo/object.h"
#include "repo/pack_form.h"

static const uint8_t magic[4] = {'X', 'V', 'P', 'F'};

void xv_pack_head_encode(const struct xv_crypt *crypt, bool nodes, const uint8_t *session,
                         uint8_t chunk_log2, uint64_t size, uint8_t *out)
{
    struct xv_header header = {.type = nodes ? XV_TYPE_NODES : XV_TYPE_PACK,
                               .flags = XV_OBJECT_SEALED,
                               .body_length = size - XV_HEADER_BYTES};
    memcpy(header.repo_id, xv_crypt_repo_id(crypt), XV_HANDLE_BYTES);
    xv_header_encode(&header, out);
    memcpy(out + 64, session, XV_HANDLE_BYTES);
    memset(out + 80, 0, 16);
    out[80] = chunk_log2;
    out[81] = xv_crypt_cipher(crypt);
}

static int authenticator(const struct xv_crypt *crypt, const char *name, const uint8_t *head,
                         const uint8_t *table, uint32_t table_length, const uint8_t *tail,
                         uint8_t *ret_mac, xvsa_error **error)
{
    struct xv_piece pieces[] = {
        {name, strlen(name)}, {head, XV_PACK_HEAD_BYTES}, {table, table_length}, {tail, 32}};
    return xv_crypt_mac(crypt, XV_KEY_MAC, pieces, 4, ret_mac, error);
}

int xv_pack_tail_encode(const struct xv_crypt *crypt, const char *name, const uint8_t *head,
                        const uint8_t *table, uint32_t table_offset, uint32_t table_length,
                        uint32_t frames, uint8_t *out, xvsa_error **error)
{
    memset(out, 0, XV_PACK_TAIL_BYTES);
    memcpy(out, magic, sizeof magic);
    xv_put16(out + 4, 1);
    xv_put32(out + 8, frames);
    xv_put32(out + 12, table_length);
    xv_put64(out + 16, table_offset);
    xv_put64(out + 24, XXH3_64bits(table, table_length));
    return authenticator(crypt, name, head, table, table_length, out, out + 32, error);
}

int xv_pack_head_check(const struct xv_crypt *crypt, bool nodes, const char *name,
                       const uint8_t *head, uint64_t size, xvsa_error **error)
{
    struct xv_header header;
    int rc = xv_header_decode(head, XV_PACK_HEAD_BYTES, nodes ? XV_TYPE_NODES : XV_TYPE_PACK, name,
                              &header, error);
    if (rc != 0)
        return rc;
    if (memcmp(header.repo_id, xv_crypt_repo_id(crypt), XV_HANDLE_BYTES) != 0)
        return xv_fault(error, name, "it is not of this repository");
    if (header.body_length != size - XV_HEADER_BYTES)
        return xv_fault(error, name, "it is %llu bytes long, its header says otherwise",
                        (unsigned long long)size);
    return 0;
}

int xv_pack_tail_decode(const char *name, const uint8_t *tail, uint64_t size,
                        uint32_t *ret_table_offset, uint32_t *ret_table_length, xvsa_error **error)
{
    if (memcmp(tail, magic, sizeof magic) != 0)
        return xv_fault(error, name, "its footer is not one");
    if (xv_get16(tail + 4) != 1)
        return xv_fail(error, XVSA_ERR_FORMAT, "repo", "pack '%s' has a footer of version %u", name,
                       xv_get16(tail + 4));
    uint64_t offset = xv_get64(tail + 16);
    uint64_t length = xv_get32(tail + 12);
    if (size > XV_OBJECT_MAX || offset < XV_PACK_HEAD_BYTES || offset > size || length == 0 ||
        offset + length + XV_PACK_TAIL_BYTES != size)
        return xv_fault(error, name, "its footer does not fit its size");
    *ret_table_offset = (uint32_t)offset;
    *ret_table_length = (uint32_t)length;
    return 0;
}

static int decode_table(const char *name, const uint8_t *table, uint32_t length, uint32_t end,
                        struct xv_pack_index *ret, xvsa_error **error)
{
    uint32_t at = 0;
    uint64_t offset = XV_PACK_HEAD_BYTES;
    for (uint32_t i = 0; i < ret->count; i++) {
        struct xv_frame *frame = &ret->frames[i];
        int rc = xv_frame_decode(table + at, length - at, name, frame, error);
        if (rc != 0)
            return rc;
        if (frame->number != i || frame->offset != offset)
            return xv_fault(error, name, "its footer lists frames out of order");
        at += frame->header_length;
        offset += xv_frame_length(frame);
    }
    if (at != length || offset != end)
        return xv_fault(error, name, "its frames and its footer do not fit together");
    return 0;
}

int xv_pack_index_decode(const struct xv_crypt *crypt, const char *name, const uint8_t *head,
                         uint8_t *table, const uint8_t *tail, uint64_t size,
                         struct xv_pack_index *ret, xvsa_error **error)
{
    uint32_t offset = 0;
    uint32_t length = 0;
    uint8_t mac[XV_ID_BYTES];
    *ret = (struct xv_pack_index){.size = size, .table = table};
    int rc = xv_pack_tail_decode(name, tail, size, &offset, &length, error);
    if (rc == 0)
        rc = authenticator(crypt, name, head, table, length, tail, mac, error);
    if (rc == 0 &&
        (xv_get64(tail + 24) != XXH3_64bits(table, length) || !xv_same(mac, tail + 32, sizeof mac)))
        rc = xv_fault(error, name, "the authentication of its footer failed");
    ret->count = xv_get32(tail + 8);
    if (rc == 0 && (ret->count == 0 || ret->count > XV_PACK_FRAMES_MAX))
        rc = xv_fault(error, name, "its footer lists %u frames", ret->count);
    if (rc == 0) {
        ret->frames = calloc(ret->count, sizeof *ret->frames);
        rc = ret->frames == NULL ? xv_fail_memory(error)
                                 : decode_table(name, table, length, offset, ret, error);
    }
    if (rc != 0)
        xv_pack_index_free(ret);
    return rc;
}

int xv_pack_index_read(struct xv_target *target, const struct xv_crypt *crypt, bool nodes,
                       const uint8_t *pack, struct xv_pack_index *ret, const struct xv_call *call,
                       xvsa_error **error)
{
    char name[XV_NAME_BYTES];
    uint8_t head[XV_PACK_HEAD_BYTES];
    uint8_t tail[XV_PACK_TAIL_BYTES];
    uint64_t size = 0;
    uint32_t offset = 0;
    uint32_t length = 0;
    xv_pack_name(nodes, pack, name);
    int rc = xv_target_stat(target, name, &size, call, error);
    if (rc != 0)
        return rc;
    if (size < XV_PACK_HEAD_BYTES + XV_PACK_TAIL_BYTES)
        return xv_fault(error, name, "it is only %llu bytes long", (unsigned long long)size);
    rc = xv_target_get(target, name, 0, head, sizeof head, call, error);
    if (rc == 0)
        rc = xv_pack_head_check(crypt, nodes, name, head, size, error);
    if (rc == 0)
        rc = xv_target_get(target, name, size - sizeof tail, tail, sizeof tail, call, error);
    if (rc == 0)
        rc = xv_pack_tail_decode(name, tail, size, &offset, &length, error);
    if (rc != 0)
        return rc;
    uint8_t *table = malloc(length);
    if (table == NULL)
        return xv_fail_memory(error);
    rc = xv_target_get(target, name, offset, table, length, call, error);
    if (rc != 0) {
        free(table);
        return rc;
    }
    rc = xv_pack_index_decode(crypt, name, head, table, tail, size, ret, error);
    if (rc == 0)
        memcpy(ret->pack, pack, XV_HANDLE_BYTES);
    return rc;
}

void xv_pack_index_free(struct xv_pack_index *index)
{
    free(index->frames);
    free(index->table);
    *index = (struct xv_pack_index){0};
}

const struct xv_frame *xv_pack_index_find(const struct xv_pack_index *index, uint32_t offset)
{
    uint32_t low = 0;
    uint32_t high = index->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (index->frames[middle].offset < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low < index->count && index->frames[low].offset == offset ? &index->frames[low] : NULL;
}
