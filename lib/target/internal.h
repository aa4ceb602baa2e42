/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the files of this module share.
 */
#ifndef XV_TARGET_INTERNAL_H
#define XV_TARGET_INTERNAL_H

#include <stdatomic.h>

#include "base/buffer.h"
#include "target/target.h"

struct xv_target {
    atomic_uint references;
    xvsa_target_ops ops; /* a shorter structure of the embedder's was filled up with NULL */
    void *instance;
    const struct xv_env *env;
    char *url; /* without secrets */
};

/* Everything between a struct xv_call and the vtable's own. */
xvsa_target_call xv_target_call_of(const struct xv_call *call, uint32_t attempt);

/* True for 1 to 96 bytes of [a-z0-9/-] whose parts between slashes are not empty. */
bool xv_target_name_valid(const char *name);

#endif
