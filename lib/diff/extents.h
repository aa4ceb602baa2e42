/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Sets of byte ranges of a disk. Ranges are kept sorted, disjoint and not adjacent.
 */
#ifndef XV_DIFF_EXTENTS_H
#define XV_DIFF_EXTENTS_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct xv_range {
    uint64_t offset;
    uint64_t length; /* > 0 */
};

struct xv_extents {
    struct xv_range *ranges;
    size_t count;
    size_t capacity;
};

void xv_extents_init(struct xv_extents *set);
void xv_extents_free(struct xv_extents *set);
/* Adds a range anywhere; cheap at the end. length 0 adds nothing. Fails with INVALID when
 * offset + length overflows. */
int xv_extents_add(struct xv_extents *set, uint64_t offset, uint64_t length,
                   xvsa_error **error) XV_MUST_CHECK;
/* ret must be initialised and empty; a and b are left alone. */
int xv_extents_union(const struct xv_extents *a, const struct xv_extents *b, struct xv_extents *ret,
                     xvsa_error **error) XV_MUST_CHECK;
int xv_extents_intersect(const struct xv_extents *a, const struct xv_extents *b,
                         struct xv_extents *ret, xvsa_error **error) XV_MUST_CHECK;
/* Ranges of a without those of b. */
int xv_extents_subtract(const struct xv_extents *a, const struct xv_extents *b,
                        struct xv_extents *ret, xvsa_error **error) XV_MUST_CHECK;
/* Grows every range outwards to multiples of unit (a power of two), cut at end. */
int xv_extents_align(const struct xv_extents *set, uint64_t unit, uint64_t end,
                     struct xv_extents *ret, xvsa_error **error) XV_MUST_CHECK;
uint64_t xv_extents_bytes(const struct xv_extents *set);

#endif
