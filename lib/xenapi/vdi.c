/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Creating and destroying disks.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "xenapi/operations_internal.h"

#define INSIST_TRIES  12
#define INSIST_MS     250 /* doubled up to: */
#define INSIST_MAX_MS 5000

enum holder { CONTROL_DOMAIN, TRANSFER, MACHINE };

/* Who a VBD belongs to: a control domain, a transfer of ours, or a VM for good. */
static int find_holder(struct xv_client *client, const char *vbd, const struct xv_call *call,
                       enum holder *ret, xvsa_error **error)
{
    struct xv_value *record = NULL;
    struct xv_value *control = NULL;
    int rc = xv_record_get(client, "VBD", vbd, call, &record, error);
    if (rc == 0)
        rc = xv_ask(client, "VM.get_is_control_domain",
                    xv_params(xv_value_get_string(record, "VM", ""), NULL), true, call, &control,
                    error);
    bool tagged = xv_value_get(xv_value_get(record, "other_config"), XV_TAG_KEY) != NULL;
    *ret = xv_value_bool(control, false) ? CONTROL_DOMAIN : tagged ? TRANSFER : MACHINE;
    xv_value_free(control);
    xv_value_free(record);
    return rc;
}

static void try_vbd(struct xv_client *client, const char *method, const char *vbd,
                    const struct xv_call *call)
{
    xvsa_error *error = NULL;
    int rc = xv_run(client, method, xv_params(vbd, NULL), call, NULL, &error);
    if (rc != 0 && rc != XVSA_ERR_NOT_FOUND)
        xv_log(client->env, XVSA_LOG_INFO, XV_COMPONENT, "cannot detach a stale disk: %s",
               xvsa_error_message(error));
    xvsa_error_unref(error);
}

static void remove_vbd(struct xv_client *client, const char *vbd, const struct xv_call *call)
{
    xvsa_error *error = NULL;
    if (xv_vbd_remove(client, vbd, call, &error) != 0)
        xv_log(client->env, XVSA_LOG_INFO, XV_COMPONENT, "%s", xvsa_error_message(error));
    xvsa_error_unref(error);
}

void xv_vdi_detach_stale(struct xv_client *client, const char *vdi_ref, const struct xv_call *call)
{
    struct xv_value *vbds = NULL;
    if (xv_ask(client, "VDI.get_VBDs", xv_params(vdi_ref, NULL), true, call, &vbds, NULL) != 0)
        return;
    for (size_t i = 0; i < xv_value_count(vbds); i++) {
        const char *vbd = xv_value_string(xv_value_at(vbds, i), "");
        enum holder holder = MACHINE;
        if (find_holder(client, vbd, call, &holder, NULL) != 0 || holder == MACHINE)
            continue;
        if (holder == CONTROL_DOMAIN) {
            try_vbd(client, "VBD.unplug_force", vbd, call);
            try_vbd(client, "VBD.destroy", vbd, call);
        } else {
            remove_vbd(client, vbd, call);
        }
    }
    xv_value_free(vbds);
}

int xv_vdi_insist(struct xv_client *client, const char *vdi_ref, xv_vdi_operation operation,
                  const struct xv_call *call, xvsa_error **error)
{
    int64_t pause = INSIST_MS;
    for (int attempt = 1;; attempt++) {
        xvsa_error *failure = NULL;
        int rc = operation(client, vdi_ref, call, &failure);
        if (rc == 0)
            return 0;
        bool in_use = xv_error_is_xenapi(failure, "VDI_IN_USE") ||
                      xv_error_is_xenapi(failure, "SR_BACKEND_FAILURE_24");
        if (!in_use || attempt == INSIST_TRIES || xv_call_left(call, pause) < pause) {
            if (error != NULL)
                *error = failure;
            else
                xvsa_error_unref(failure);
            return rc;
        }
        xvsa_error_unref(failure);
        rc = xv_call_sleep(call, pause, XV_COMPONENT, "waiting for a disk to be released", error);
        if (rc != 0)
            return rc;
        pause = pause * 2 > INSIST_MAX_MS ? INSIST_MAX_MS : pause * 2;
        /* What just ended detaches by itself within a moment; what is left after that is stale. */
        if (attempt >= 3)
            xv_vdi_detach_stale(client, vdi_ref, call);
    }
}

/* Refuses when a VM has the disk for good: destroying it would take the disk away from whoever attached
 * it there. */
static int check_unused(struct xv_client *client, const char *vdi_ref, const struct xv_call *call,
                        xvsa_error **error)
{
    struct xv_value *vbds = NULL;
    int rc = xv_ask(client, "VDI.get_VBDs", xv_params(vdi_ref, NULL), true, call, &vbds, error);
    for (size_t i = 0; rc == 0 && i < xv_value_count(vbds); i++) {
        const char *vbd = xv_value_string(xv_value_at(vbds, i), "");
        enum holder holder = MACHINE;
        xvsa_error *failure = NULL;
        rc = find_holder(client, vbd, call, &holder, &failure);
        if (rc == 0 && holder == MACHINE) {
            rc = xv_fail(error, XVSA_ERR_REFUSED, XV_COMPONENT,
                         "the disk %s is not destroyed, because a VM has it as %s", vdi_ref, vbd);
        } else if (rc != 0 && xv_errors_is_gone(failure)) {
            rc = 0;
        } else if (rc != 0 && error != NULL) {
            *error = xvsa_error_ref(failure);
        }
        xvsa_error_unref(failure);
    }
    xv_value_free(vbds);
    return rc;
}

static int destroy_once(struct xv_client *client, const char *vdi_ref, const struct xv_call *call,
                        xvsa_error **error)
{
    int rc = check_unused(client, vdi_ref, call, error);
    if (rc == 0)
        rc = xv_run(client, "VDI.destroy", xv_params(vdi_ref, NULL), call, NULL, error);
    if (rc != XVSA_ERR_UNKNOWN_OUTCOME)
        return rc;
    xv_error_clear(error);
    return xv_run(client, "VDI.destroy", xv_params(vdi_ref, NULL), call, NULL, error);
}

int xv_vdi_destroy(struct xv_client *client, const char *ref, const struct xv_call *call,
                   xvsa_error **error)
{
    xvsa_error *failure = NULL;
    int rc = xv_vdi_insist(client, ref, destroy_once, call, &failure);
    if (rc != 0 && xv_errors_is_gone(failure))
        rc = 0;
    if (rc != 0 && error != NULL) {
        *error = failure;
        xv_error_wrap(error, rc, XV_COMPONENT, "cannot destroy the disk %s: %s", ref,
                      xvsa_error_message(failure));
        xv_error_set_detail(*error, "vdi", ref);
    } else {
        xvsa_error_unref(failure);
    }
    return rc;
}

static struct xv_value *vdi_record(const struct xv_vdi_spec *spec, const char *id)
{
    struct xv_value *record = xv_value_new_struct();
    struct xv_value *config = xv_value_new_struct();
    bool good = spec->tag == NULL || xv_value_set_string(config, XV_TAG_KEY, spec->tag);
    good = good && xv_value_set_string(config, XV_CREATED_KEY, id);
    good = xv_value_set(record, "other_config", config) && good;
    good = good && xv_value_set_string(record, "SR", spec->sr_ref);
    good = good && xv_value_set_string(record, "name_label", spec->name == NULL ? "" : spec->name);
    good = good && xv_value_set_string(record, "name_description",
                                       spec->description == NULL ? "" : spec->description);
    good = good && xv_value_set_int(record, "virtual_size", (int64_t)spec->size);
    good = good && xv_value_set_string(record, "type", spec->type == NULL ? "user" : spec->type);
    good = good && xv_value_set_bool(record, "sharable", false);
    good = good && xv_value_set_bool(record, "read_only", false);
    good = good && xv_value_set(record, "xenstore_data", xv_value_new_struct());
    /* A saved sm_config would break the new disk: it holds the old one's locks and parents. */
    good = good && xv_value_set(record, "sm_config", xv_value_new_struct());
    struct xv_value *params = xv_value_new_array();
    good = xv_value_add(params, record) && good;
    if (good)
        return params;
    xv_value_free(params);
    return NULL;
}

int xv_vdi_size(struct xv_client *client, const char *vdi_ref, const struct xv_call *call,
                uint64_t *ret, xvsa_error **error)
{
    struct xv_value *value = NULL;
    int rc =
        xv_ask(client, "VDI.get_virtual_size", xv_params(vdi_ref, NULL), true, call, &value, error);
    int64_t size = xv_value_int(value, -1);
    xv_value_free(value);
    if (rc == 0 && size < 0)
        rc = xv_fail(error, XVSA_ERR_PROTOCOL, XV_COMPONENT, "the disk %s has no size", vdi_ref);
    if (rc == 0)
        *ret = (uint64_t)size;
    return rc;
}

int xv_vdi_create(struct xv_client *client, const struct xv_vdi_spec *spec,
                  const struct xv_call *call, char **ret_ref, uint64_t *ret_size,
                  xvsa_error **error)
{
    char id[XV_CREATED_ID];
    char *ref = NULL;
    uint64_t size = 0;
    xvsa_error *failure = NULL;
    int rc = 0;
    if (spec->id != NULL)
        snprintf(id, sizeof id, "%s", spec->id);
    else
        rc = xv_created_id(id, error);
    if (rc != 0)
        return rc;
    rc = xv_run(client, "VDI.create", vdi_record(spec, id), call, &ref, &failure);
    if (rc == XVSA_ERR_UNKNOWN_OUTCOME) {
        xv_error_clear(&failure);
        rc = xv_created_find(client, "VDI", XV_CREATED_KEY, id, call, &ref, &failure);
    }
    if (rc == 0)
        rc = xv_vdi_size(client, ref, call, &size, &failure);
    if (rc == 0 && size < spec->size)
        rc = xv_fail(&failure, XVSA_ERR_PROTOCOL, XV_COMPONENT,
                     "the SR made a disk of %llu bytes instead of %llu", (unsigned long long)size,
                     (unsigned long long)spec->size);
    if (rc != 0) {
        free(ref);
        if (error == NULL) {
            xvsa_error_unref(failure);
            return rc;
        }
        *error = failure;
        return xv_error_wrap(error, rc, XV_COMPONENT, "cannot create the disk \"%s\": %s",
                             spec->name == NULL ? "" : spec->name, xvsa_error_message(failure));
    }
    *ret_ref = ref;
    if (ret_size != NULL)
        *ret_size = size;
    return 0;
}
