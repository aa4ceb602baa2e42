/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Copies between public structures, which begin with their size and only grow at the end, and ours.
 */
#ifndef XV_BASE_OPTIONS_H
#define XV_BASE_OPTIONS_H

#include <stddef.h>

#include "base/error.h"

/* Copies the caller's structure into ours (ours_size bytes, zeroed first). from NULL means all
 * defaults. A longer structure is accepted when what we do not know of it is zero. */
int xv_options_copy(void *ours, size_t ours_size, const void *from, const char *type,
                    xvsa_error **error) XV_MUST_CHECK;

/* Copies ours into the caller's structure, whose size member says how much of it there is. */
int xv_options_fill(void *to, const void *ours, size_t ours_size, const char *type,
                    xvsa_error **error) XV_MUST_CHECK;

#endif
