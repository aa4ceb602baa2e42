/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Operations of a VM that are blocked while a job needs it in place.
 */
#include <stdio.h>
#include <string.h>

#include "xenapi/vm_internal.h"

#define REASON_MAX 400

static void make_reason(const char *tag, char *reason, size_t size)
{
    snprintf(reason, size, XV_BLOCK_PREFIX "%s]", tag);
}

bool xv_vm_block_tag(const char *reason, char *tag, size_t size)
{
    size_t prefix = sizeof XV_BLOCK_PREFIX - 1;
    size_t length = strlen(reason);
    if (length <= prefix + 1 || strncmp(reason, XV_BLOCK_PREFIX, prefix) != 0 ||
        reason[length - 1] != ']' || length - prefix > size)
        return false;
    memcpy(tag, reason + prefix, length - prefix - 1);
    tag[length - prefix - 1] = '\0';
    return true;
}

/* The server does not do it by itself; a lack of permission only leaves a list of hints stale. */
static void refresh(struct xv_client *client, const char *vm, const struct xv_call *call)
{
    xvsa_error *error = NULL;
    if (xv_ask(client, "VM.update_allowed_operations", xv_params(vm, NULL), true, call, NULL,
               &error) != 0)
        xv_log(client->env, XVSA_LOG_DEBUG, XV_COMPONENT, "%s", xvsa_error_message(error));
    xvsa_error_unref(error);
}

int xv_vm_block(struct xv_client *client, const char *vm, const char *operation, const char *tag,
                const struct xv_call *call, xvsa_error **error)
{
    char reason[REASON_MAX];
    xvsa_error *failure = NULL;
    make_reason(tag == NULL ? "" : tag, reason, sizeof reason);
    int rc = xv_ask(client, "VM.add_to_blocked_operations", xv_params(vm, operation, reason, NULL),
                    true, call, NULL, &failure);
    if (xv_error_is_xenapi(failure, "MAP_DUPLICATE_KEY"))
        rc = 0;
    if (rc != 0 && error != NULL)
        *error = failure;
    else
        xvsa_error_unref(failure);
    return rc;
}

int xv_vm_unblock(struct xv_client *client, const char *vm, const char *tag,
                  const struct xv_call *call, xvsa_error **error)
{
    char reason[REASON_MAX];
    struct xv_value *blocked = NULL;
    make_reason(tag == NULL ? "" : tag, reason, sizeof reason);
    int rc = xv_ask(client, "VM.get_blocked_operations", xv_params(vm, NULL), true, call, &blocked,
                    error);
    for (size_t i = 0; rc == 0 && i < xv_value_count(blocked); i++) {
        if (strcmp(xv_value_string(xv_value_at(blocked, i), ""), reason) == 0)
            rc = xv_ask(client, "VM.remove_from_blocked_operations",
                        xv_params(vm, xv_value_key_at(blocked, i), NULL), true, call, NULL, error);
    }
    xv_value_free(blocked);
    if (rc == 0)
        refresh(client, vm, call);
    return rc;
}

int xv_migration_block(struct xv_client *client, const char *vm_ref, const char *tag,
                       const struct xv_call *call, xvsa_error **error)
{
    int rc = xv_vm_block(client, vm_ref, "pool_migrate", tag, call, error);
    if (rc == 0)
        rc = xv_vm_block(client, vm_ref, "migrate_send", tag, call, error);
    if (rc == 0)
        refresh(client, vm_ref, call);
    return rc;
}

int xv_migration_unblock(struct xv_client *client, const char *vm_ref, const char *tag,
                         const struct xv_call *call, xvsa_error **error)
{
    xvsa_error *failure = NULL;
    int rc = xv_vm_unblock(client, vm_ref, tag, call, &failure);
    if (rc != 0 && xv_errors_is_gone(failure))
        rc = 0;
    if (rc != 0 && error != NULL)
        *error = failure;
    else
        xvsa_error_unref(failure);
    return rc;
}
