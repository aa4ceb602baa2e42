/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Disks and network interfaces of a virtual machine that is being restored.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "xenapi/vm_internal.h"

/* True when the device that stands in the way is the one that was to be made: an answer was lost. */
static bool is_ours(struct xv_client *client, const char *class_name, const char *list,
                    const char *vm, const char *position_key, const char *position,
                    const char *target_key, const char *target, const struct xv_call *call)
{
    struct xv_value *refs = NULL;
    bool found = false;
    if (xv_ask(client, list, xv_params(vm, NULL), true, call, &refs, NULL) != 0)
        return false;
    for (size_t i = 0; !found && i < xv_value_count(refs); i++) {
        struct xv_value *record = NULL;
        if (xv_record_get(client, class_name, xv_value_string(xv_value_at(refs, i), ""), call,
                          &record, NULL) != 0)
            continue;
        found = strcmp(xv_value_get_string(record, position_key, ""), position) == 0 &&
                strcmp(xv_value_get_string(record, target_key, ""), target) == 0;
        xv_value_free(record);
    }
    xv_value_free(refs);
    return found;
}

static struct xv_value *with_record(struct xv_value *record, bool good)
{
    struct xv_value *params = xv_value_new_array();
    good = xv_value_add(params, record) && good;
    if (good)
        return params;
    xv_value_free(params);
    return NULL;
}

static bool set_quality(struct xv_value *record, const struct xv_value *saved)
{
    return xv_value_set_string(record, "qos_algorithm_type",
                               xv_value_get_string(saved, "qos_algorithm_type", "")) &&
           xv_value_set(record, "qos_algorithm_params",
                        xv_vm_clean_map(xv_value_get(saved, "qos_algorithm_params"), false)) &&
           xv_value_set(record, "other_config",
                        xv_vm_clean_map(xv_value_get(saved, "other_config"), true));
}

static struct xv_value *vbd_params(const char *vm_ref, const char *vdi_ref,
                                   const struct xv_value *saved)
{
    bool empty = xv_is_null_ref(vdi_ref);
    struct xv_value *record = xv_value_new_struct();
    bool good =
        xv_value_set_string(record, "VM", vm_ref) &&
        xv_value_set_string(record, "VDI", empty ? XV_NULL_REF : vdi_ref) &&
        xv_value_set_string(record, "userdevice",
                            xv_value_get_string(saved, "userdevice", "autodetect")) &&
        xv_value_set_bool(record, "bootable", xv_value_get_bool(saved, "bootable", false)) &&
        xv_value_set_string(record, "mode",
                            empty ? "RO" : xv_value_get_string(saved, "mode", "RW")) &&
        xv_value_set_string(record, "type", empty ? "CD" : "Disk") &&
        xv_value_set_bool(record, "unpluggable", xv_value_get_bool(saved, "unpluggable", true)) &&
        xv_value_set_bool(record, "empty", empty) && set_quality(record, saved);
    return with_record(record, good);
}

static int finish(int rc, xvsa_error *failure, const char *what, const char *vm_ref,
                  xvsa_error **error)
{
    if (rc == 0 || error == NULL) {
        xvsa_error_unref(failure);
        return rc;
    }
    *error = failure;
    return xv_error_wrap(error, rc, XV_COMPONENT, "cannot give the VM %s its %s: %s", vm_ref, what,
                         xvsa_error_message(failure));
}

int xv_vbd_create(struct xv_client *client, const char *vm_ref, const char *vdi_ref,
                  const struct xv_value *saved, const struct xv_call *call, xvsa_error **error)
{
    xvsa_error *failure = NULL;
    char *ref = NULL;
    const char *device = xv_value_get_string(saved, "userdevice", "");
    int rc = xv_run(client, "VBD.create", vbd_params(vm_ref, vdi_ref, saved), call, &ref, &failure);
    if ((rc == XVSA_ERR_UNKNOWN_OUTCOME || xv_error_is_xenapi(failure, "DEVICE_ALREADY_EXISTS")) &&
        is_ours(client, "VBD", "VM.get_VBDs", vm_ref, "userdevice", device, "VDI",
                xv_is_null_ref(vdi_ref) ? XV_NULL_REF : vdi_ref, call))
        rc = 0;
    free(ref);
    return finish(rc, failure, "disk", vm_ref, error);
}

static bool has_locking(const struct xv_value *saved)
{
    return strcmp(xv_value_get_string(saved, "locking_mode", "network_default"),
                  "network_default") != 0;
}

static struct xv_value *vif_params(const char *vm_ref, const char *network_ref, const char *mac,
                                   const struct xv_value *saved, bool with_locking)
{
    struct xv_value *record = xv_value_new_struct();
    bool good = xv_value_set_string(record, "VM", vm_ref) &&
                xv_value_set_string(record, "network", network_ref) &&
                xv_value_set_string(record, "device", xv_value_get_string(saved, "device", "0")) &&
                xv_value_set_string(record, "MAC", mac) &&
                xv_value_set_int(record, "MTU", xv_value_get_int(saved, "MTU", 1500)) &&
                set_quality(record, saved);
    if (with_locking && has_locking(saved)) {
        good = good && xv_value_set_string(record, "locking_mode",
                                           xv_value_get_string(saved, "locking_mode", ""));
        static const char *const sets[] = {"ipv4_allowed", "ipv6_allowed"};
        for (size_t i = 0; i < 2; i++) {
            if (xv_value_kind(xv_value_get(saved, sets[i])) == XV_VALUE_ARRAY)
                good = good &&
                       xv_value_set(record, sets[i], xv_value_copy(xv_value_get(saved, sets[i])));
        }
    }
    return with_record(record, good);
}

int xv_vif_create(struct xv_client *client, const char *vm_ref, const char *network_ref,
                  const char *mac, const struct xv_value *saved, const struct xv_call *call,
                  char **ret_warning, xvsa_error **error)
{
    xvsa_error *failure = NULL;
    char *ref = NULL;
    char *warning = NULL;
    const char *device = xv_value_get_string(saved, "device", "0");
    int rc = xv_run(client, "VIF.create", vif_params(vm_ref, network_ref, mac, saved, true), call,
                    &ref, &failure);
    if (rc == XVSA_ERR_UNSUPPORTED && has_locking(saved)) {
        if (asprintf(&warning, "the address locking of interface %s was not restored: %s", device,
                     xvsa_error_message(failure)) < 0)
            warning = NULL;
        xv_error_clear(&failure);
        if (warning == NULL)
            return xv_fail_memory(error);
        rc = xv_run(client, "VIF.create", vif_params(vm_ref, network_ref, mac, saved, false), call,
                    &ref, &failure);
    }
    if ((rc == XVSA_ERR_UNKNOWN_OUTCOME || xv_error_is_xenapi(failure, "DEVICE_ALREADY_EXISTS")) &&
        is_ours(client, "VIF", "VM.get_VIFs", vm_ref, "device", device, "network", network_ref,
                call))
        rc = 0;
    free(ref);
    *ret_warning = rc == 0 ? warning : NULL;
    if (rc != 0)
        free(warning);
    return finish(rc, failure, "network interface", vm_ref, error);
}
