/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Inside of the module: whether a process that wrote to the state file still lives.
 */
#ifndef XV_COORD_OWNER_H
#define XV_COORD_OWNER_H

#include <stdbool.h>

#include "base/error.h"
#include "coord/coord.h"

/* The file of an owner is locked as long as it is open. */
struct xv_owner {
    char *state_path; /* NULL: in memory; nobody else has to know */
    char id[XV_OWNER_MAX + 1];
    int fd; /* holds the lock that tells others that we live; -1 in memory */
};

/* A new identity: "f" or "m" and 16 hex digits. */
int xv_owner_name(bool in_memory, char id[XV_OWNER_MAX + 1], xvsa_error **error) XV_MUST_CHECK;
/* Becomes an owner. */
int xv_owner_claim(const char *state_path, struct xv_owner *ret, xvsa_error **error) XV_MUST_CHECK;
void xv_owner_release(struct xv_owner *owner);
/* True, too, when it cannot be told. */
bool xv_owner_is_alive(const struct xv_owner *self, const char *id);
/* Takes away the files of dead owners; true when others than self are alive. */
bool xv_owner_sweep(const struct xv_owner *self);

#endif
