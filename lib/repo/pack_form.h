/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The outer parts of a pack, for its writer.
 */
#ifndef XV_REPO_PACK_FORM_H
#define XV_REPO_PACK_FORM_H

#include "repo/crypt.h"

/* Writes XV_PACK_HEAD_BYTES; size is the whole pack's. */
void xv_pack_head_encode(const struct xv_crypt *crypt, bool nodes, const uint8_t *session,
                         uint8_t chunk_log2, uint64_t size, uint8_t *out);
/* Writes XV_PACK_TAIL_BYTES. */
int xv_pack_tail_encode(const struct xv_crypt *crypt, const char *name, const uint8_t *head,
                        const uint8_t *table, uint32_t table_offset, uint32_t table_length,
                        uint32_t frames, uint8_t *out, xvsa_error **error) XV_MUST_CHECK;

#endif
