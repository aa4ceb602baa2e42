/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Making a virtual machine from a saved record.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "xenapi/operations_internal.h"
#include "xenapi/vm_internal.h"

/* Members that VM.create takes and that mean the same in any pool. References of the saved record are of
 * another time and place, and what the server keeps for itself it would refuse or ignore. */
static const char *const kept_members[] = {
    "name_description",
    "user_version",
    "memory_static_max",
    "memory_dynamic_max",
    "memory_dynamic_min",
    "memory_static_min",
    "VCPUs_params",
    "VCPUs_max",
    "VCPUs_at_startup",
    "actions_after_softreboot",
    "actions_after_shutdown",
    "actions_after_reboot",
    "actions_after_crash",
    "PV_bootloader",
    "PV_kernel",
    "PV_ramdisk",
    "PV_args",
    "PV_bootloader_args",
    "PV_legacy_args",
    "HVM_boot_policy",
    "HVM_boot_params",
    "platform",
    "PCI_bus",
    "recommendations",
    "xenstore_data",
    "tags",
    "start_delay",
    "shutdown_delay",
    "order",
    "hardware_platform_version",
    "reference_label",
    "domain_type",
    "NVRAM",
};

/* The server has no default for these. */
static const struct {
    const char *name;
    const char *value; /* NULL: an empty map */
} required_members[] = {
    {"user_version", "1"},
    {"memory_static_max", "1073741824"},
    {"memory_dynamic_max", "1073741824"},
    {"memory_dynamic_min", "1073741824"},
    {"memory_static_min", "0"},
    {"VCPUs_params", NULL},
    {"VCPUs_max", "1"},
    {"VCPUs_at_startup", "1"},
    {"actions_after_shutdown", "destroy"},
    {"actions_after_reboot", "restart"},
    {"actions_after_crash", "restart"},
    {"PV_bootloader", ""},
    {"PV_kernel", ""},
    {"PV_ramdisk", ""},
    {"PV_args", ""},
    {"PV_bootloader_args", ""},
    {"PV_legacy_args", ""},
    {"HVM_boot_policy", ""},
    {"HVM_boot_params", NULL},
    {"platform", NULL},
    {"PCI_bus", ""},
    {"recommendations", ""},
};

/* Keys of other_config that belong to the old machine alone. mac_seed would make the server derive the
 * same addresses again. */
static const char *const dropped_config[] = {XV_TAG_KEY, XV_CREATED_KEY, "mac_seed",
                                             "default_template", "xensource_internal"};

bool xv_is_sendable_key(const char *key)
{
    return key[0] != '\0' && strpbrk(key, "&<") == NULL;
}

static bool is_dropped(const char *key)
{
    for (size_t i = 0; i < sizeof dropped_config / sizeof dropped_config[0]; i++) {
        if (strcmp(dropped_config[i], key) == 0)
            return true;
    }
    return !xv_is_sendable_key(key);
}

/* A copy of a map without the keys that must not be sent. */
struct xv_value *xv_vm_clean_map(const struct xv_value *map, bool is_config)
{
    struct xv_value *copy = xv_value_new_struct();
    for (size_t i = 0; copy != NULL && i < xv_value_count(map); i++) {
        const char *key = xv_value_key_at(map, i);
        if (is_config ? is_dropped(key) : !xv_is_sendable_key(key))
            continue;
        if (!xv_value_set(copy, key, xv_value_copy(xv_value_at(map, i)))) {
            xv_value_free(copy);
            return NULL;
        }
    }
    return copy;
}

static bool copy_members(struct xv_value *target, const struct xv_value *record)
{
    bool good = true;
    for (size_t i = 0; good && i < sizeof kept_members / sizeof kept_members[0]; i++) {
        const struct xv_value *member = xv_value_get(record, kept_members[i]);
        if (member == NULL)
            continue;
        bool is_map = xv_value_kind(member) == XV_VALUE_STRUCT;
        good = xv_value_set(target, kept_members[i],
                            is_map ? xv_vm_clean_map(member, false) : xv_value_copy(member));
    }
    for (size_t i = 0; good && i < sizeof required_members / sizeof required_members[0]; i++) {
        const char *name = required_members[i].name;
        if (xv_value_get(target, name) != NULL)
            continue;
        good = xv_value_set(target, name,
                            required_members[i].value == NULL
                                ? xv_value_new_struct()
                                : xv_value_new_string(required_members[i].value));
    }
    return good;
}

/* Windows sees from a new one that it was restored. Machines that had none get none. */
static bool set_generation(struct xv_value *target, const struct xv_value *record)
{
    int64_t parts[2];
    char text[64];
    if (xv_value_get_string(record, "generation_id", "")[0] == '\0')
        return true;
    if (xv_random(parts, sizeof parts, NULL) != 0)
        return false;
    snprintf(text, sizeof text, "%lld:%lld", (long long)parts[0], (long long)parts[1]);
    return xv_value_set_string(target, "generation_id", text);
}

static bool set_own_members(struct xv_value *target, const struct xv_value *record,
                            const char *name, const char *tag, const char *id)
{
    char *label = NULL;
    if (asprintf(&label, XV_RESTORE_PREFIX "%s", name) < 0)
        return false;
    struct xv_value *config = xv_vm_clean_map(xv_value_get(record, "other_config"), true);
    bool good = tag == NULL || xv_value_set_string(config, XV_TAG_KEY, tag);
    good = good && xv_value_set_string(config, XV_CREATED_KEY, id);
    good = xv_value_set(target, "other_config", config) && good;
    good = good && xv_value_set_string(target, "name_label", label);
    free(label);
    good = good && xv_value_set_bool(target, "is_a_template", false);
    good = good && xv_value_set_string(target, "affinity", XV_NULL_REF);
    good = good && xv_value_set_bool(target, "has_vendor_device",
                                     xv_value_get_bool(record, "has_vendor_device", false));
    double multiplier = xv_value_double(xv_value_get(record, "HVM_shadow_multiplier"), 1.0);
    if (multiplier < 1.0 || multiplier > 1.0)
        good =
            good && xv_value_set(target, "HVM_shadow_multiplier", xv_value_new_double(multiplier));
    return good && set_generation(target, record);
}

static struct xv_value *create_params(const struct xv_value *record, const char *name,
                                      const char *tag, const char *id)
{
    struct xv_value *params = xv_value_new_array();
    struct xv_value *target = xv_value_new_struct();
    bool good = target != NULL && copy_members(target, record) &&
                set_own_members(target, record, name, tag, id);
    good = xv_value_add(params, target) && good;
    if (good)
        return params;
    xv_value_free(params);
    return NULL;
}

int xv_vm_block_start(struct xv_client *client, const char *vm, const char *tag,
                      const struct xv_call *call, xvsa_error **error)
{
    int rc = xv_vm_block(client, vm, "start", tag, call, error);
    return rc != 0 ? rc : xv_vm_block(client, vm, "start_on", tag, call, error);
}

int xv_vm_create(struct xv_client *client, const struct xv_value *record, const char *name,
                 const char *tag, const char *id, const struct xv_call *call, char **ret_ref,
                 xvsa_error **error)
{
    char random[XV_CREATED_ID];
    char *ref = NULL;
    xvsa_error *failure = NULL;
    int rc = 0;
    if (id == NULL) {
        rc = xv_created_id(random, error);
        id = random;
    }
    if (rc != 0)
        return rc;
    rc = xv_run(client, "VM.create", create_params(record, name, tag, id), call, &ref, &failure);
    if (rc == XVSA_ERR_UNKNOWN_OUTCOME) {
        xv_error_clear(&failure);
        rc = xv_created_find(client, "VM", XV_CREATED_KEY, id, call, &ref, &failure);
    }
    if (rc == 0) {
        rc = xv_vm_block_start(client, ref, tag, call, &failure);
        if (rc != 0) {
            struct xv_call grace = xv_call_within(NULL, XV_GRACE_MS);
            if (xv_vm_destroy(client, ref, &grace, NULL) != 0)
                xv_log(client->env, XVSA_LOG_WARNING, XV_COMPONENT,
                       "the unfinished VM %s is left behind", ref);
        }
    }
    if (rc != 0) {
        free(ref);
        if (error == NULL) {
            xvsa_error_unref(failure);
            return rc;
        }
        *error = failure;
        return xv_error_wrap(error, rc, XV_COMPONENT, "cannot create the VM \"%s\": %s", name,
                             xvsa_error_message(failure));
    }
    *ret_ref = ref;
    return 0;
}
