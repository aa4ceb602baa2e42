/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Changed-block maps: the answer of VDI.list_changed_blocks as ranges, and the random sample of
 * "unchanged" blocks that an incremental backup reads again to find a lying map.
 */
#ifndef XV_DIFF_CHANGES_H
#define XV_DIFF_CHANGES_H

#include "diff/extents.h"

/* Bytes that one bit of a changed-block bitmap stands for. */
#define XV_CBT_BLOCK 65536u

/* Turns a base64 bitmap (most significant bit first) of a disk of size bytes into ranges cut at size.
 * base_size is the size at the base snapshot; the area that was added since counts as zero unless
 * marked, and is reported as such by the caller's own handling. Fails with PROTOCOL when the length
 * is not the one of a disk of this size, when pad bits are set or the base64 is broken. */
int xv_changes_decode(const char *base64, uint64_t size, struct xv_extents *ret,
                      xvsa_error **error) XV_MUST_CHECK;

/* The same from raw bytes. */
int xv_changes_decode_bits(const uint8_t *bits, size_t length, uint64_t size,
                           struct xv_extents *ret, xvsa_error **error) XV_MUST_CHECK;

/* Chooses unchanged blocks to audit: permille of those outside changed, at least minimum of them (or
 * all when there are fewer), uniformly, from seed. */
int xv_changes_sample(const struct xv_extents *changed, uint64_t size, uint32_t unit,
                      uint32_t permille, uint32_t minimum, uint64_t seed, struct xv_extents *ret,
                      xvsa_error **error) XV_MUST_CHECK;

/* True when all bytes are zero. */
bool xv_is_zero(const void *data, size_t length);

#endif
