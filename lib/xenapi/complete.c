/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The end of a restore: what VM.create does not take, then the final name, which makes the VM complete,
 * then our marks are taken away.
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "xenapi/vm_internal.h"

#define BIOS_VALUE_MAX 512

struct completion {
    struct xv_client *client;
    const char *vm;
    const struct xv_value *record;
    const struct xv_call *call;
    json_t *warnings;
};

static void warn(struct completion *completion, const char *what, const xvsa_error *error)
{
    json_t *text = error == NULL ? NULL : json_sprintf("%s: %s", what, xvsa_error_message(error));
    /* A message that is not UTF-8 costs the details only. */
    json_array_append_new(completion->warnings, text == NULL ? json_string(what) : text);
}

/* Does an optional part; what only this part cannot do becomes a warning. */
static int attempt(struct completion *completion, const char *what, const char *method,
                   struct xv_value *params, xvsa_error **error)
{
    xvsa_error *failure = NULL;
    int rc = xv_ask(completion->client, method, params, true, completion->call, NULL, &failure);
    /* What stands there already blocks as well, or was set by a call whose answer was lost. */
    if (xv_error_is_xenapi(failure, "MAP_DUPLICATE_KEY")) {
        xv_error_clear(&failure);
        rc = 0;
    }
    if (rc == XVSA_ERR_XENAPI || rc == XVSA_ERR_UNSUPPORTED || rc == XVSA_ERR_DENIED ||
        rc == XVSA_ERR_INVALID || rc == XVSA_ERR_EXISTS || rc == XVSA_ERR_STATE ||
        rc == XVSA_ERR_NOT_FOUND || rc == XVSA_ERR_CONFLICT) {
        warn(completion, what, failure);
        rc = 0;
    }
    if (rc != 0 && error != NULL)
        *error = failure;
    else
        xvsa_error_unref(failure);
    return rc;
}

/* The server takes some keys only, and of each printable ASCII. */
static bool is_bios_string(const char *key, const char *value)
{
    size_t length = strlen(value);
    if (strncmp(key, "oem-", 4) == 0 || strcmp(key, "hp-rombios") == 0 || length == 0 ||
        length > BIOS_VALUE_MAX)
        return false;
    for (; *value != '\0'; value++) {
        if ((unsigned char)*value < 0x20 || (unsigned char)*value > 0x7e)
            return false;
    }
    return true;
}

static int set_bios_strings(struct completion *completion, xvsa_error **error)
{
    const struct xv_value *saved = xv_value_get(completion->record, "bios_strings");
    struct xv_value *strings = xv_value_new_struct();
    bool good = true;
    for (size_t i = 0; good && i < xv_value_count(saved); i++) {
        const char *key = xv_value_key_at(saved, i);
        const char *value = xv_value_string(xv_value_at(saved, i), "");
        if (is_bios_string(key, value))
            good = xv_value_set_string(strings, key, value);
    }
    if (xv_value_count(strings) == 0) {
        xv_value_free(strings);
        return good ? 0 : xv_fail_memory(error);
    }
    struct xv_value *params = xv_params(completion->vm, NULL);
    good = xv_value_add(params, strings) && good;
    if (!good) {
        xv_value_free(params);
        params = NULL;
    }
    return attempt(completion, "BIOS strings were not restored", "VM.set_bios_strings", params,
                   error);
}

static int set_high_availability(struct completion *completion, xvsa_error **error)
{
    const char *priority = xv_value_get_string(completion->record, "ha_restart_priority", "");
    if (priority[0] == '\0')
        return 0;
    return attempt(completion, "the high availability priority was not restored",
                   "VM.set_ha_restart_priority", xv_params(completion->vm, priority, NULL), error);
}

static int restore_blocks(struct completion *completion, xvsa_error **error)
{
    const struct xv_value *blocked = xv_value_get(completion->record, "blocked_operations");
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < xv_value_count(blocked); i++) {
        char tag[256];
        const char *reason = xv_value_string(xv_value_at(blocked, i), "");
        const char *operation = xv_value_key_at(blocked, i);
        if (xv_vm_block_tag(reason, tag, sizeof tag))
            continue;
        /* Ours stand on start until the end, and these two are set after they have gone. */
        if (strcmp(operation, "start") == 0 || strcmp(operation, "start_on") == 0)
            continue;
        rc = attempt(completion, "a blocked operation was not restored",
                     "VM.add_to_blocked_operations",
                     xv_params(completion->vm, operation, reason, NULL), error);
    }
    return rc;
}

static int restore_start_blocks(struct completion *completion, xvsa_error **error)
{
    static const char *const operations[] = {"start", "start_on"};
    const struct xv_value *blocked = xv_value_get(completion->record, "blocked_operations");
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < 2; i++) {
        char tag[256];
        const char *reason = xv_value_get_string(blocked, operations[i], NULL);
        if (reason != NULL && !xv_vm_block_tag(reason, tag, sizeof tag))
            rc = attempt(completion, "a blocked operation was not restored",
                         "VM.add_to_blocked_operations",
                         xv_params(completion->vm, operations[i], reason, NULL), error);
    }
    return rc;
}

/* Names what a saved record has and this restore cannot make. */
static void warn_missing(struct completion *completion)
{
    static const struct {
        const char *member;
        const char *text;
    } parts[] = {
        {"VTPMs", "the virtual TPM was not restored; keys kept in it are lost to the new VM"},
        {"VGPUs", "the virtual GPU was not restored"},
        {"VUSBs", "USB devices were not restored"},
        {"attached_PCIs", "PCI devices were not restored"},
    };
    static const char *const maps[] = {"other_config", "platform", "xenstore_data",
                                       "HVM_boot_params", "VCPUs_params"};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (xv_value_count(xv_value_get(completion->record, parts[i].member)) > 0)
            warn(completion, parts[i].text, NULL);
    }
    for (size_t i = 0; i < sizeof maps / sizeof maps[0]; i++) {
        const struct xv_value *map = xv_value_get(completion->record, maps[i]);
        for (size_t k = 0; k < xv_value_count(map); k++) {
            if (!xv_is_sendable_key(xv_value_key_at(map, k)))
                json_array_append_new(
                    completion->warnings,
                    json_sprintf("the key \"%s\" of %s was not restored: XenServer "
                                 "could not give it back",
                                 xv_value_key_at(map, k), maps[i]));
        }
    }
}

/* Our marks on the VM; its tag tells whose they are. */
static int unmark_vm(struct completion *completion, xvsa_error **error)
{
    struct xv_value *config = NULL;
    int rc = xv_ask(completion->client, "VM.get_other_config", xv_params(completion->vm, NULL),
                    true, completion->call, &config, error);
    if (rc == 0)
        rc = xv_vm_unblock(completion->client, completion->vm,
                           xv_value_get_string(config, XV_TAG_KEY, ""), completion->call, error);
    xv_value_free(config);
    if (rc == 0)
        rc = xv_record_unset_tag(completion->client, "VM", completion->vm, XV_TAG_KEY,
                                 completion->call, error);
    if (rc == 0)
        rc = xv_record_unset_tag(completion->client, "VM", completion->vm, XV_CREATED_KEY,
                                 completion->call, error);
    return rc;
}

static int unmark_disks(struct completion *completion, xvsa_error **error)
{
    struct xv_value *vbds = NULL;
    int rc = xv_ask(completion->client, "VM.get_VBDs", xv_params(completion->vm, NULL), true,
                    completion->call, &vbds, error);
    for (size_t i = 0; rc == 0 && i < xv_value_count(vbds); i++) {
        char *vdi = NULL;
        rc = xv_ask_text(completion->client, "VBD.get_VDI",
                         xv_params(xv_value_string(xv_value_at(vbds, i), ""), NULL),
                         completion->call, &vdi, error);
        if (rc == 0 && !xv_is_null_ref(vdi))
            rc = xv_record_unset_tag(completion->client, "VDI", vdi, XV_TAG_KEY, completion->call,
                                     error);
        if (rc == 0 && !xv_is_null_ref(vdi))
            rc = xv_record_unset_tag(completion->client, "VDI", vdi, XV_CREATED_KEY,
                                     completion->call, error);
        free(vdi);
    }
    xv_value_free(vbds);
    return rc;
}

static int complete(struct completion *completion, const char *name, xvsa_error **error)
{
    int rc = set_bios_strings(completion, error);
    if (rc == 0)
        rc = set_high_availability(completion, error);
    if (rc == 0)
        rc = restore_blocks(completion, error);
    /* From here on a crash leaves a complete VM, whose marks the next clean-up only takes away. */
    if (rc == 0)
        rc = xv_ask(completion->client, "VM.set_name_label", xv_params(completion->vm, name, NULL),
                    true, completion->call, NULL, error);
    if (rc == 0)
        rc = unmark_vm(completion, error);
    if (rc == 0)
        rc = unmark_disks(completion, error);
    if (rc == 0)
        rc = restore_start_blocks(completion, error);
    return rc;
}

int xv_vm_complete(struct xv_client *client, const char *vm_ref, const struct xv_value *record,
                   const char *name, const struct xv_call *call, char **ret_warnings,
                   xvsa_error **error)
{
    struct completion completion = {client, vm_ref, record, call, json_array()};
    if (completion.warnings == NULL)
        return xv_fail_memory(error);
    warn_missing(&completion);
    int rc = complete(&completion, name, error);
    char *text = rc != 0 ? NULL : json_dumps(completion.warnings, JSON_COMPACT);
    json_decref(completion.warnings);
    if (rc != 0)
        return rc;
    if (text == NULL)
        return xv_fail_memory(error);
    if (ret_warnings != NULL)
        *ret_warnings = text;
    else
        free(text);
    return 0;
}
