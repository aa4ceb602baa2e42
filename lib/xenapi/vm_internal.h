/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the files about virtual machines share.
 */
#ifndef XV_XENAPI_VM_INTERNAL_H
#define XV_XENAPI_VM_INTERNAL_H

#include "xenapi/operations_internal.h"

/* False for map keys that a server would store but could never give back over XML-RPC. */
bool xv_is_sendable_key(const char *key);
/* A copy of a map without such keys and, when it is an other_config, without what belongs to the old
 * machine alone. NULL without memory. */
struct xv_value *xv_vm_clean_map(const struct xv_value *map, bool is_config);

/* Blocks an operation with a reason that holds tag; one that is blocked by somebody else stays so. */
int xv_vm_block(struct xv_client *client, const char *vm, const char *operation, const char *tag,
                const struct xv_call *call, xvsa_error **error) XV_MUST_CHECK;
/* Takes away every block whose reason holds tag. */
int xv_vm_unblock(struct xv_client *client, const char *vm, const char *tag,
                  const struct xv_call *call, xvsa_error **error) XV_MUST_CHECK;
/* The tag of a reason of ours, copied into tag; false when it is not ours. */
bool xv_vm_block_tag(const char *reason, char *tag, size_t size);

#endif
