/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Disks that a running machine has for as long as data moves: attaching and detaching them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "xenapi/vbd.h"

#define CREATE_TRIES  4
#define UNPLUG_TRIES  20
#define UNPLUG_MS     250 /* doubled up to: */
#define UNPLUG_MAX_MS 5000
#define POSITIONS     255
#define LETTERS       26u

static struct xv_value *vbd_params(const char *vm_ref, const char *vdi_ref, const char *tag,
                                   const char *id, bool writable)
{
    struct xv_value *record = xv_value_new_struct();
    struct xv_value *config = xv_value_new_struct();
    struct xv_value *params = xv_value_new_array();
    bool good = xv_value_set_string(config, XV_TAG_KEY, tag);
    good = good && xv_value_set_string(config, XV_CREATED_KEY, id);
    good = xv_value_set(record, "other_config", config) && good;
    good = good && xv_value_set_string(record, "VM", vm_ref) &&
           xv_value_set_string(record, "VDI", vdi_ref) &&
           xv_value_set_string(record, "userdevice", "autodetect") &&
           xv_value_set_bool(record, "bootable", false) &&
           xv_value_set_string(record, "mode", writable ? "RW" : "RO") &&
           xv_value_set_string(record, "type", "Disk") &&
           xv_value_set_bool(record, "unpluggable", true) &&
           xv_value_set_bool(record, "empty", false) &&
           xv_value_set_string(record, "qos_algorithm_type", "") &&
           xv_value_set(record, "qos_algorithm_params", xv_value_new_struct());
    good = xv_value_add(params, record) && good;
    if (good)
        return params;
    xv_value_free(params);
    return NULL;
}

int xv_vbd_add(struct xv_client *client, const char *vm_ref, const char *vdi_ref, const char *tag,
               bool writable, const struct xv_call *call, char **ret_ref, xvsa_error **error)
{
    for (int attempt = 1;; attempt++) {
        char id[XV_CREATED_ID];
        xvsa_error *failure = NULL;
        int rc = xv_created_id(id, error);
        if (rc != 0)
            return rc;
        rc = xv_run(client, "VBD.create", vbd_params(vm_ref, vdi_ref, tag, id, writable), call,
                    ret_ref, &failure);
        if (rc == XVSA_ERR_UNKNOWN_OUTCOME) {
            xv_error_clear(&failure);
            rc = xv_created_find(client, "VBD", XV_CREATED_KEY, id, call, ret_ref, &failure);
        }
        /* Somebody else took the position that the server had chosen. */
        bool again = xv_error_is_xenapi(failure, "DEVICE_ALREADY_EXISTS") && attempt < CREATE_TRIES;
        if (rc != 0 && !again && error != NULL)
            *error = failure;
        else
            xvsa_error_unref(failure);
        if (!again)
            return rc;
    }
}

int xv_vbd_plug(struct xv_client *client, const char *vbd_ref, const struct xv_call *call,
                xvsa_error **error)
{
    xvsa_error *failure = NULL;
    int rc = xv_run(client, "VBD.plug", xv_params(vbd_ref, NULL), call, NULL, &failure);
    if (rc == XVSA_ERR_UNKNOWN_OUTCOME) {
        xv_error_clear(&failure);
        rc = xv_run(client, "VBD.plug", xv_params(vbd_ref, NULL), call, NULL, &failure);
    }
    if (rc != 0 && xv_error_is_xenapi(failure, "DEVICE_ALREADY_ATTACHED"))
        rc = 0;
    if (rc != 0 && error != NULL)
        *error = failure;
    else
        xvsa_error_unref(failure);
    return rc;
}

int xv_vbd_node(struct xv_client *client, const char *vbd_ref, const struct xv_call *call,
                char ret[XV_VBD_NODE_MAX], xvsa_error **error)
{
    char *position = NULL;
    int rc =
        xv_ask_text(client, "VBD.get_userdevice", xv_params(vbd_ref, NULL), call, &position, error);
    if (rc != 0)
        return rc;
    char *end = NULL;
    unsigned long number = strtoul(position, &end, 10);
    /* The name becomes a part of a path: nothing but a number is taken from the pool. */
    if (position[0] < '0' || position[0] > '9' || *end != '\0' || number >= POSITIONS)
        rc = xv_fail(error, XVSA_ERR_PROTOCOL, XV_COMPONENT, "a disk was given the position \"%s\"",
                     position);
    else if (number < LETTERS)
        snprintf(ret, XV_VBD_NODE_MAX, "xvd%c", (char)('a' + number));
    else
        snprintf(ret, XV_VBD_NODE_MAX, "xvd%c%c", (char)('a' + number / LETTERS - 1),
                 (char)('a' + number % LETTERS));
    free(position);
    return rc;
}

/* What a VBD.unplug that failed leaves to do. */
enum remedy { DETACHED, GONE, RETRY, ALLOW, GIVE_UP };

static enum remedy judge(const xvsa_error *failure, int rc)
{
    if (xv_errors_is_gone(failure))
        return GONE;
    /* A machine that does not run has nothing attached but in its record. */
    if (xv_error_is_xenapi(failure, "DEVICE_ALREADY_DETACHED") ||
        xv_error_is_xenapi(failure, "DEVICE_NOT_ATTACHED") ||
        xv_error_is_xenapi(failure, "VM_BAD_POWER_STATE"))
        return DETACHED;
    if (xv_error_is_xenapi(failure, "VBD_NOT_UNPLUGGABLE"))
        return ALLOW;
    return rc == XVSA_ERR_BUSY || rc == XVSA_ERR_UNKNOWN_OUTCOME ? RETRY : GIVE_UP;
}

static int allow_unplug(struct xv_client *client, const char *vbd_ref, const struct xv_call *call,
                        xvsa_error **error)
{
    struct xv_value *params = xv_params(vbd_ref, NULL);
    struct xv_value *yes = xv_value_new_bool(true);
    if (xv_value_add(params, yes))
        return xv_ask(client, "VBD.set_unpluggable", params, true, call, NULL, error);
    xv_value_free(params);
    return xv_fail_memory(error);
}

/* A guest that still has the device open refuses to let it go; that passes, or somebody uses it. */
static int unplug(struct xv_client *client, const char *vbd_ref, const struct xv_call *call,
                  bool *ret_gone, xvsa_error **error)
{
    int64_t pause = UNPLUG_MS;
    for (int attempt = 1;; attempt++) {
        xvsa_error *failure = NULL;
        int rc = xv_run(client, "VBD.unplug", xv_params(vbd_ref, NULL), call, NULL, &failure);
        enum remedy remedy = rc == 0 ? DETACHED : judge(failure, rc);
        if (remedy == DETACHED || remedy == GONE) {
            xvsa_error_unref(failure);
            *ret_gone = remedy == GONE;
            return 0;
        }
        if (remedy == GIVE_UP || attempt == UNPLUG_TRIES || xv_call_left(call, pause) < pause) {
            if (error != NULL)
                *error = failure;
            else
                xvsa_error_unref(failure);
            return rc;
        }
        xvsa_error_unref(failure);
        rc = remedy == ALLOW ? allow_unplug(client, vbd_ref, call, error)
                             : xv_call_sleep(call, pause, XV_COMPONENT,
                                             "waiting for a device to be let go", error);
        if (rc != 0)
            return rc;
        pause = pause * 2 > UNPLUG_MAX_MS ? UNPLUG_MAX_MS : pause * 2;
    }
}

int xv_vbd_remove(struct xv_client *client, const char *vbd_ref, const struct xv_call *call,
                  xvsa_error **error)
{
    bool gone = false;
    xvsa_error *failure = NULL;
    int rc = unplug(client, vbd_ref, call, &gone, &failure);
    if (rc == 0 && !gone)
        rc = xv_run(client, "VBD.destroy", xv_params(vbd_ref, NULL), call, NULL, &failure);
    if (rc == XVSA_ERR_UNKNOWN_OUTCOME) {
        xv_error_clear(&failure);
        rc = xv_run(client, "VBD.destroy", xv_params(vbd_ref, NULL), call, NULL, &failure);
    }
    if (rc != 0 && xv_errors_is_gone(failure))
        rc = 0;
    if (rc != 0 && error != NULL) {
        *error = failure;
        xv_error_wrap(error, rc, XV_COMPONENT, "cannot detach the disk %s: %s", vbd_ref,
                      xvsa_error_message(failure));
    } else {
        xvsa_error_unref(failure);
    }
    return rc;
}
