/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Packs: objects of some 32 MiB made of frames and a footer that lists them.
 */
#ifndef XV_REPO_PACK_H
#define XV_REPO_PACK_H

#include "repo/frame.h"
#include "target/target.h"

/* Reading ---------------------------------------------------------------------------------------- */

/* The frames of a pack, from its footer, whose authentication was checked. */
struct xv_pack_index {
    uint8_t pack[XV_HANDLE_BYTES];
    uint64_t size; /* of the object */
    struct xv_frame *frames;
    uint32_t count;
    uint8_t *table; /* what the frames point into */
};

/* Checks the first XV_PACK_HEAD_BYTES of a pack. */
int xv_pack_head_check(const struct xv_crypt *crypt, bool nodes, const char *name,
                       const uint8_t *head, uint64_t size, xvsa_error **error) XV_MUST_CHECK;
/* Place of the table, from the last XV_PACK_TAIL_BYTES. */
int xv_pack_tail_decode(const char *name, const uint8_t *tail, uint64_t size,
                        uint32_t *ret_table_offset, uint32_t *ret_table_length,
                        xvsa_error **error) XV_MUST_CHECK;
/* Decodes a table; takes it over, also on failure. */
int xv_pack_index_decode(const struct xv_crypt *crypt, const char *name, const uint8_t *head,
                         uint8_t *table, const uint8_t *tail, uint64_t size,
                         struct xv_pack_index *ret, xvsa_error **error) XV_MUST_CHECK;
/* Reads a pack's head, tail and table. */
int xv_pack_index_read(struct xv_target *target, const struct xv_crypt *crypt, bool nodes,
                       const uint8_t *pack, struct xv_pack_index *ret, const struct xv_call *call,
                       xvsa_error **error) XV_MUST_CHECK;
void xv_pack_index_free(struct xv_pack_index *index);
/* The frame at an offset, or NULL. */
const struct xv_frame *xv_pack_index_find(const struct xv_pack_index *index, uint32_t offset);

/* Writing ---------------------------------------------------------------------------------------- */

/* Fills packs from several threads and puts the full ones from threads of its own. */
struct xv_pack_writer;

struct xv_pack_writer_options {
    const struct xv_crypt *crypt;
    struct xv_target *target;
    uint8_t session[XV_HANDLE_BYTES];
    bool nodes;
    uint8_t chunk_log2;
    uint32_t pack_target;
    uint32_t buffers;   /* packs in memory at once */
    uint32_t uploaders; /* threads that put them */
};

int xv_pack_writer_new(const struct xv_pack_writer_options *options, struct xv_pack_writer **ret,
                       xvsa_error **error) XV_MUST_CHECK;
/* Gives up what was not put. */
void xv_pack_writer_free(struct xv_pack_writer *writer);
/* Compressed content into the open pack, as one frame: *frame has number, offset and lengths filled
 * in, *ret_pack is the pack's id. */
int xv_pack_writer_add(struct xv_pack_writer *writer, struct xv_crypt_tool *tool,
                       struct xv_frame *frame, const void *payload, uint32_t payload_length,
                       uint8_t *ret_pack, const struct xv_call *call,
                       xvsa_error **error) XV_MUST_CHECK;
/* Closes the open pack and waits until everything added before was put. */
int xv_pack_writer_flush(struct xv_pack_writer *writer, const struct xv_call *call,
                         xvsa_error **error) XV_MUST_CHECK;
/* Bytes of the packs put or under way. */
uint64_t xv_pack_writer_bytes(struct xv_pack_writer *writer);

#endif
