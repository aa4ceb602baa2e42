/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Snapshots of whole virtual machines.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "xenapi/operations_internal.h"

#define NAME_MAX_LENGTH 300
#define FIND_TRIES      3
#define FIND_PAUSE_MS   1000

/* A disk that a VM or snapshot has. */
struct disk {
    char *vdi;
    char *device;
};

struct disks {
    struct disk *items;
    size_t count;
};

static void free_disks(struct disks *disks)
{
    for (size_t i = 0; i < disks->count; i++) {
        free(disks->items[i].vdi);
        free(disks->items[i].device);
    }
    free(disks->items);
    *disks = (struct disks){0};
}

static bool has_disk(const struct disks *disks, const char *vdi)
{
    for (size_t i = 0; i < disks->count; i++) {
        if (strcmp(disks->items[i].vdi, vdi) == 0)
            return true;
    }
    return false;
}

static int add_disk(struct disks *disks, const struct xv_value *vbd, xvsa_error **error)
{
    const char *vdi = xv_value_get_string(vbd, "VDI", "");
    if (strcmp(xv_value_get_string(vbd, "type", ""), "Disk") != 0 || xv_is_null_ref(vdi) ||
        has_disk(disks, vdi))
        return 0;
    struct disk disk = {strdup(vdi), strdup(xv_value_get_string(vbd, "userdevice", ""))};
    if (disk.vdi == NULL || disk.device == NULL) {
        free(disk.vdi);
        free(disk.device);
        return xv_fail_memory(error);
    }
    disks->items[disks->count++] = disk;
    return 0;
}

/* The disks of a VM record, CDs left out, each once. The caller frees them, also after a failure. */
static int list_disks(struct xv_client *client, const struct xv_value *vm,
                      const struct xv_call *call, struct disks *ret, xvsa_error **error)
{
    const struct xv_value *vbds = xv_value_get(vm, "VBDs");
    ret->items = calloc(xv_value_count(vbds) + 1, sizeof *ret->items);
    if (ret->items == NULL)
        return xv_fail_memory(error);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < xv_value_count(vbds); i++) {
        struct xv_value *vbd = NULL;
        xvsa_error *failure = NULL;
        rc = xv_record_get(client, "VBD", xv_value_string(xv_value_at(vbds, i), ""), call, &vbd,
                           &failure);
        if (rc == 0)
            rc = add_disk(ret, vbd, &failure);
        else if (xv_errors_is_gone(failure))
            rc = 0;
        if (rc != 0 && error != NULL)
            *error = xvsa_error_ref(failure);
        xvsa_error_unref(failure);
        xv_value_free(vbd);
    }
    return rc;
}

static bool is_listed(const char *const *refs, size_t count, const char *ref)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(refs[i], ref) == 0)
            return true;
    }
    return false;
}

static struct xv_value *snapshot_params(const char *vm_ref, const char *name,
                                        const char *const *skip, size_t skip_count)
{
    struct xv_value *params = xv_params(vm_ref, name, NULL);
    if (skip_count == 0)
        return params;
    /* Older servers know two parameters only: the third is sent when there is something in it. */
    struct xv_value *set = xv_value_new_array();
    bool good = true;
    for (size_t i = 0; good && i < skip_count; i++)
        good = xv_value_add(set, xv_value_new_string(skip[i]));
    if (!good) {
        xv_value_free(set);
        set = NULL;
    }
    if (xv_value_add(params, set))
        return params;
    xv_value_free(params);
    return NULL;
}

/* Looks for a snapshot whose making got no answer. NOT_FOUND when there is none. */
static int find_by_name(struct xv_client *client, const char *vm_ref, const char *name,
                        const struct xv_call *call, char **ret, xvsa_error **error)
{
    struct xv_value *refs = NULL;
    int rc =
        xv_ask(client, "VM.get_by_name_label", xv_params(name, NULL), true, call, &refs, error);
    for (size_t i = 0; rc == 0 && *ret == NULL && i < xv_value_count(refs); i++) {
        char *source = NULL;
        const char *ref = xv_value_string(xv_value_at(refs, i), "");
        rc = xv_ask_text(client, "VM.get_snapshot_of", xv_params(ref, NULL), call, &source, error);
        if (rc == 0 && strcmp(source, vm_ref) == 0) {
            *ret = strdup(ref);
            rc = *ret == NULL ? xv_fail_memory(error) : 0;
        }
        free(source);
    }
    xv_value_free(refs);
    if (rc == 0 && *ret == NULL)
        rc = xv_fail(error, XVSA_ERR_NOT_FOUND, XV_COMPONENT, "there is no snapshot \"%s\"", name);
    return rc;
}

static int find_lost(struct xv_client *client, const char *vm_ref, const char *name,
                     const struct xv_call *call, char **ret, xvsa_error **error)
{
    for (int attempt = 1;; attempt++) {
        xvsa_error *failure = NULL;
        int rc = find_by_name(client, vm_ref, name, call, ret, &failure);
        if (rc != XVSA_ERR_NOT_FOUND || attempt == FIND_TRIES) {
            if (rc == XVSA_ERR_NOT_FOUND) {
                xv_error_clear(&failure);
                rc = xv_fail(&failure, XVSA_ERR_UNKNOWN_OUTCOME, XV_COMPONENT,
                             "the answer to VM.snapshot was lost and no snapshot \"%s\" is there",
                             name);
                xv_error_set_retryable(failure, true);
            }
            if (rc != 0 && error != NULL)
                *error = failure;
            else
                xvsa_error_unref(failure);
            return rc;
        }
        xvsa_error_unref(failure);
        rc = xv_call_sleep(call, FIND_PAUSE_MS, XV_COMPONENT, "looking for the snapshot", error);
        if (rc != 0)
            return rc;
    }
}

static int make_snapshot(struct xv_client *client, const char *vm_ref, const char *name,
                         const char *const *skip, size_t skip_count, const struct xv_call *call,
                         char **ret, xvsa_error **error)
{
    xvsa_error *failure = NULL;
    int rc = xv_run(client, "VM.snapshot", snapshot_params(vm_ref, name, skip, skip_count), call,
                    ret, &failure);
    if (skip_count > 0 && xv_error_is_xenapi(failure, "MESSAGE_PARAMETER_COUNT_MISMATCH")) {
        xv_error_clear(&failure);
        rc = xv_run(client, "VM.snapshot", snapshot_params(vm_ref, name, NULL, 0), call, ret,
                    &failure);
    }
    if (rc == XVSA_ERR_UNKNOWN_OUTCOME) {
        xv_error_clear(&failure);
        rc = find_lost(client, vm_ref, name, call, ret, &failure);
    }
    if (rc == 0)
        return 0;
    if (error == NULL) {
        xvsa_error_unref(failure);
        return rc;
    }
    *error = failure;
    xv_error_wrap(error, rc, XV_COMPONENT, "cannot snapshot the VM %s: %s", vm_ref,
                  xvsa_error_message(failure));
    xv_error_set_detail(*error, "vm", vm_ref);
    return rc;
}

/* Tags the snapshot's disks and destroys those that were not wanted, in case the server could not leave
 * them out. */
static int settle_disks(struct xv_client *client, const struct disks *disks, const char *tag,
                        const char *const *skip, size_t skip_count, const struct xv_call *call,
                        xvsa_error **error)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < disks->count; i++)
        rc = xv_record_set_tag(client, "VDI", disks->items[i].vdi, XV_TAG_KEY, tag, call, error);
    for (size_t i = 0; rc == 0 && skip_count > 0 && i < disks->count; i++) {
        char *source = NULL;
        rc = xv_ask_text(client, "VDI.get_snapshot_of", xv_params(disks->items[i].vdi, NULL), call,
                         &source, error);
        if (rc == 0 && is_listed(skip, skip_count, source))
            rc = xv_run(client, "VDI.destroy", xv_params(disks->items[i].vdi, NULL), call, NULL,
                        error);
        free(source);
    }
    return rc;
}

/* A disk can be missing from a snapshot without any error. */
static void warn_missing(struct xv_client *client, const char *vm_ref, const struct disks *disks,
                         size_t skip_count, const struct xv_call *call)
{
    struct disks expected = {0};
    struct xv_value *vm = NULL;
    if (xv_record_get(client, "VM", vm_ref, call, &vm, NULL) == 0 &&
        list_disks(client, vm, call, &expected, NULL) == 0 &&
        disks->count + skip_count < expected.count)
        xv_log(client->env, XVSA_LOG_WARNING, XV_COMPONENT,
               "the snapshot of the VM %s has %zu disks, the VM %zu", vm_ref, disks->count,
               expected.count);
    free_disks(&expected);
    xv_value_free(vm);
}

static int settle(struct xv_client *client, const char *vm_ref, const char *snapshot,
                  const char *tag, const char *const *skip, size_t skip_count,
                  const struct xv_call *call, xvsa_error **error)
{
    struct disks disks = {0};
    struct xv_value *record = NULL;
    /* The VM's own other_config was copied: whatever tag it brought is replaced. */
    int rc = xv_record_set_tag(client, "VM", snapshot, XV_TAG_KEY, tag, call, error);
    if (rc == 0)
        rc = xv_record_get(client, "VM", snapshot, call, &record, error);
    if (rc == 0)
        rc = list_disks(client, record, call, &disks, error);
    if (rc == 0)
        rc = settle_disks(client, &disks, tag, skip, skip_count, call, error);
    if (rc == 0)
        warn_missing(client, vm_ref, &disks, skip_count, call);
    free_disks(&disks);
    xv_value_free(record);
    return rc;
}

static int make_name(const char *tag, char name[NAME_MAX_LENGTH], xvsa_error **error)
{
    int length = snprintf(name, NAME_MAX_LENGTH, XV_SNAPSHOT_PREFIX "%s", tag);
    if (length < 0 || length >= NAME_MAX_LENGTH)
        return xv_fail(error, XVSA_ERR_INVALID, XV_COMPONENT, "the tag is too long");
    return 0;
}

int xv_snapshot_find(struct xv_client *client, const char *vm_ref, const char *tag,
                     const char *const *skip, size_t skip_count, const struct xv_call *call,
                     char **ret_ref, xvsa_error **error)
{
    char name[NAME_MAX_LENGTH];
    char *snapshot = NULL;
    int rc = make_name(tag, name, error);
    if (rc == 0)
        rc = find_by_name(client, vm_ref, name, call, &snapshot, error);
    if (rc == 0)
        rc = settle(client, vm_ref, snapshot, tag, skip, skip_count, call, error);
    if (rc != 0) {
        free(snapshot);
        return rc;
    }
    *ret_ref = snapshot;
    return 0;
}

int xv_snapshot_take(struct xv_client *client, const char *vm_ref, const char *tag,
                     const char *const *skip, size_t skip_count, const struct xv_call *call,
                     char **ret_ref, xvsa_error **error)
{
    char name[NAME_MAX_LENGTH];
    char *snapshot = NULL;
    int rc = make_name(tag, name, error);
    if (rc == 0)
        rc = make_snapshot(client, vm_ref, name, skip, skip_count, call, &snapshot, error);
    if (rc != 0)
        return rc;
    rc = settle(client, vm_ref, snapshot, tag, skip, skip_count, call, error);
    if (rc != 0) {
        struct xv_call grace = xv_call_within(NULL, XV_GRACE_MS);
        xvsa_error *failure = NULL;
        if (xv_snapshot_destroy(client, snapshot, NULL, 0, &grace, &failure) != 0)
            xv_log(client->env, XVSA_LOG_WARNING, XV_COMPONENT, "%s", xvsa_error_message(failure));
        xvsa_error_unref(failure);
        free(snapshot);
        return rc;
    }
    *ret_ref = snapshot;
    return 0;
}

static int describe(struct xv_client *client, const struct disk *disk, const struct xv_call *call,
                    struct xv_snapshot_disk *ret, xvsa_error **error)
{
    struct xv_value *vdi = NULL;
    char *source = NULL;
    int rc = xv_record_get(client, "VDI", disk->vdi, call, &vdi, error);
    if (rc != 0)
        return rc;
    const char *snapshot_of = xv_value_get_string(vdi, "snapshot_of", XV_NULL_REF);
    if (!xv_is_null_ref(snapshot_of)) {
        /* The source may have been destroyed since. */
        xvsa_error *failure = NULL;
        rc = xv_ask_text(client, "VDI.get_uuid", xv_params(snapshot_of, NULL), call, &source,
                         &failure);
        if (rc != 0 && xv_errors_is_gone(failure))
            rc = 0;
        if (rc != 0 && error != NULL)
            *error = xvsa_error_ref(failure);
        xvsa_error_unref(failure);
    }
    int64_t size = xv_value_get_int(vdi, "virtual_size", -1);
    if (rc == 0 && size < 0)
        rc = xv_fail(error, XVSA_ERR_PROTOCOL, XV_COMPONENT, "the disk %s has no size", disk->vdi);
    if (rc == 0) {
        *ret = (struct xv_snapshot_disk){
            .vdi_ref = strdup(disk->vdi),
            .vdi_uuid = strdup(xv_value_get_string(vdi, "uuid", "")),
            .source_uuid = source == NULL ? strdup("") : source,
            .device = strdup(disk->device),
            .sr_ref = strdup(xv_value_get_string(vdi, "SR", XV_NULL_REF)),
            .size = (uint64_t)size,
            .cbt_enabled = xv_value_get_bool(vdi, "cbt_enabled", false),
        };
        source = NULL;
        if (ret->vdi_ref == NULL || ret->vdi_uuid == NULL || ret->source_uuid == NULL ||
            ret->device == NULL || ret->sr_ref == NULL)
            rc = xv_fail_memory(error);
    }
    free(source);
    xv_value_free(vdi);
    return rc;
}

int xv_snapshot_disks(struct xv_client *client, const char *snapshot_ref,
                      const struct xv_call *call, struct xv_snapshot_disk **ret, size_t *ret_count,
                      xvsa_error **error)
{
    struct disks disks = {0};
    struct xv_value *record = NULL;
    struct xv_snapshot_disk *list = NULL;
    size_t count = 0;
    int rc = xv_record_get(client, "VM", snapshot_ref, call, &record, error);
    if (rc == 0)
        rc = list_disks(client, record, call, &disks, error);
    if (rc == 0) {
        list = calloc(disks.count + 1, sizeof *list);
        rc = list == NULL ? xv_fail_memory(error) : 0;
    }
    for (size_t i = 0; rc == 0 && i < disks.count; i++)
        rc = describe(client, &disks.items[i], call, &list[count++], error);
    free_disks(&disks);
    xv_value_free(record);
    if (rc != 0) {
        xv_snapshot_disks_free(list, count);
        return rc;
    }
    *ret = list;
    *ret_count = count;
    return 0;
}

void xv_snapshot_disks_free(struct xv_snapshot_disk *disks, size_t count)
{
    for (size_t i = 0; disks != NULL && i < count; i++) {
        free(disks[i].vdi_ref);
        free(disks[i].vdi_uuid);
        free(disks[i].source_uuid);
        free(disks[i].device);
        free(disks[i].sr_ref);
    }
    free(disks);
}

int xv_vm_destroy(struct xv_client *client, const char *ref, const struct xv_call *call,
                  xvsa_error **error)
{
    xvsa_error *failure = NULL;
    int rc = xv_run(client, "VM.destroy", xv_params(ref, NULL), call, NULL, &failure);
    if (rc == XVSA_ERR_UNKNOWN_OUTCOME) {
        xv_error_clear(&failure);
        rc = xv_run(client, "VM.destroy", xv_params(ref, NULL), call, NULL, &failure);
    }
    if (rc != 0 && xv_errors_is_gone(failure))
        rc = 0;
    if (rc != 0 && error != NULL) {
        *error = failure;
        xv_error_wrap(error, rc, XV_COMPONENT, "cannot destroy the VM %s: %s", ref,
                      xvsa_error_message(failure));
        xv_error_set_detail(*error, "vm", ref);
    } else {
        xvsa_error_unref(failure);
    }
    return rc;
}

/* Destroys the disks that are not kept; goes on after a failure and returns the first. */
static int destroy_disks(struct xv_client *client, const struct disks *disks,
                         const char *const *keep, size_t keep_count, const struct xv_call *call,
                         xvsa_error **error)
{
    int first = 0;
    for (size_t i = 0; i < disks->count; i++) {
        if (is_listed(keep, keep_count, disks->items[i].vdi))
            continue;
        int rc = xv_vdi_destroy(client, disks->items[i].vdi, call, first == 0 ? error : NULL);
        if (first == 0)
            first = rc;
    }
    return first;
}

int xv_snapshot_destroy(struct xv_client *client, const char *snapshot_ref, const char *const *keep,
                        size_t keep_count, const struct xv_call *call, xvsa_error **error)
{
    struct disks disks = {0};
    struct xv_value *record = NULL;
    xvsa_error *failure = NULL;
    int rc = xv_record_get(client, "VM", snapshot_ref, call, &record, &failure);
    if (rc == 0)
        rc = list_disks(client, record, call, &disks, &failure);
    /* VM.destroy leaves the disks, which cannot be found any more without it: list them first. */
    if (rc == 0)
        rc = xv_vm_destroy(client, snapshot_ref, call, &failure);
    if (rc == 0)
        rc = destroy_disks(client, &disks, keep, keep_count, call, &failure);
    if (rc != 0 && record == NULL && xv_errors_is_gone(failure))
        rc = 0;
    if (rc != 0 && error != NULL)
        *error = failure;
    else
        xvsa_error_unref(failure);
    free_disks(&disks);
    xv_value_free(record);
    return rc;
}
