/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A VDI as a device of the machine that this process runs on. The order of taking it apart: close the
 * device, unplug, destroy the VBD, destroy the clone.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "xenapi/vbd.h"

#define IN_FLIGHT    8
#define NODE_MS      10000 /* for a device to show up, with its size and rights */
#define NODE_PAUSE   50
#define ABSENT_MS    3000 /* for the device of an earlier disk to go */
#define DETACH_MS    90000
#define PATH_MAX_LEN 1024

struct hotadd {
    struct xv_disk disk;
    struct xv_client *client;
    struct xv_hotadd_options options; /* text is borrowed while it is opened, but for: */
    char *name;                       /* the disk's, for messages */
    char *vm;
    const char *vdi; /* borrowed while it is opened */
    char *clone;     /* NULL: none */
    char *vbd;       /* NULL: none */
    struct xv_disk *file;
    enum xv_hotadd_fault fault;
};

static struct hotadd *of(struct xv_disk *disk)
{
    return (struct hotadd *)disk;
}

static int hotadd_read(struct xv_disk *disk, uint64_t offset, void *data, size_t length,
                       const struct xv_call *call, xvsa_error **error)
{
    return xv_disk_read(of(disk)->file, offset, data, length, call, error);
}

static int hotadd_allocated(struct xv_disk *disk, struct xv_extents *ret,
                            const struct xv_call *call, xvsa_error **error)
{
    return xv_disk_allocated(of(disk)->file, ret, call, error);
}

static int hotadd_stream(struct xv_disk *disk, const struct xv_extents *ranges,
                         struct xv_block_queue *queue, void *owner, const struct xv_call *call,
                         xvsa_error **error)
{
    return xv_disk_stream(of(disk)->file, ranges, queue, owner, call, error);
}

static int hotadd_write(struct xv_disk *disk, struct xv_block_queue *queue,
                        const struct xv_call *call, xvsa_error **error)
{
    return xv_disk_write(of(disk)->file, queue, call, error);
}

/* Has a clone outlive a VBD that could not be removed: its turn comes with the leftovers. */
static void hotadd_close(struct xv_disk *disk)
{
    struct hotadd *hotadd = of(disk);
    const struct xv_call call = xv_call_within(NULL, DETACH_MS);
    xvsa_error *error = NULL;
    int rc = 0;
    xv_disk_close(hotadd->file);
    if (hotadd->vbd != NULL)
        rc = xv_vbd_remove(hotadd->client, hotadd->vbd, &call, &error);
    if (rc == 0 && hotadd->clone != NULL)
        rc = xv_vdi_destroy(hotadd->client, hotadd->clone, &call, &error);
    if (rc != 0) {
        xv_log(hotadd->options.env, XVSA_LOG_WARNING, XV_COMPONENT, "disk %s stays attached: %s",
               hotadd->name, xvsa_error_message(error));
        if (hotadd->options.left != NULL)
            hotadd->options.left(hotadd->options.user, xvsa_error_message(error));
    }
    xvsa_error_unref(error);
    free(hotadd->name);
    free(hotadd->vm);
    free(hotadd->clone);
    free(hotadd->vbd);
    free(hotadd);
}

static const struct xv_disk_ops hotadd_ops = {
    .transport = "hotadd",
    .read = hotadd_read,
    .allocated = hotadd_allocated,
    .stream = hotadd_stream,
    .write = hotadd_write,
    .close = hotadd_close,
};

/* Finds the machine. *ret_hvm: it has no disks that are attached read-only. */
static int find_vm(struct hotadd *hotadd, const struct xv_call *call, bool *ret_hvm,
                   xvsa_error **error)
{
    struct xv_value *record = NULL;
    int rc =
        xv_record_find(hotadd->client, "VM", hotadd->options.vm_uuid, call, &hotadd->vm, error);
    if (rc == 0)
        rc = xv_record_get(hotadd->client, "VM", hotadd->vm, call, &record, error);
    if (rc != 0)
        return rc;
    const char *state = xv_value_get_string(record, "power_state", "");
    const char *type = xv_value_get_string(record, "domain_type", "unspecified");
    bool boots_as_hvm = xv_value_get_string(record, "HVM_boot_policy", "")[0] != '\0';
    *ret_hvm = strcmp(type, "hvm") == 0 || (strcmp(type, "unspecified") == 0 && boots_as_hvm);
    if (strcmp(state, "Running") != 0)
        rc = xv_fail(error, XVSA_ERR_STATE, XV_COMPONENT, "the VM %s does not run: it is %s",
                     hotadd->options.vm_uuid, state);
    xv_value_free(record);
    return rc;
}

static int find_position(struct hotadd *hotadd, const struct xv_call *call, xvsa_error **error)
{
    struct xv_value *free_positions = NULL;
    int rc = xv_ask(hotadd->client, "VM.get_allowed_VBD_devices", xv_params(hotadd->vm, NULL), true,
                    call, &free_positions, error);
    if (rc == 0 && xv_value_count(free_positions) == 0) {
        hotadd->fault = XV_HOTADD_NO_DEVICE;
        rc = xv_fail(error, XVSA_ERR_BUSY, XV_COMPONENT,
                     "the VM %s has no free position for a disk", hotadd->options.vm_uuid);
    }
    xv_value_free(free_positions);
    return rc;
}

/* The snapshot is marked before, so that the clone bears mark and tag from its first moment on; the
 * snapshot's mark goes again, lest a copy that somebody makes later is taken for ours. */
static int make_clone(struct hotadd *hotadd, const struct xv_call *call, xvsa_error **error)
{
    struct xv_client *client = hotadd->client;
    char id[XV_CREATED_ID];
    int rc =
        hotadd->options.cloning == NULL ? 0 : hotadd->options.cloning(hotadd->options.user, error);
    if (rc == 0)
        rc = xv_created_id(id, error);
    if (rc == 0)
        rc = xv_record_set_tag(client, "VDI", hotadd->vdi, XV_CLONE_KEY, id, call, error);
    if (rc != 0)
        return rc;
    xvsa_error *failure = NULL;
    rc = xv_run(client, "VDI.clone", xv_params(hotadd->vdi, NULL), call, &hotadd->clone, &failure);
    if (rc == XVSA_ERR_UNKNOWN_OUTCOME) {
        xv_error_clear(&failure);
        rc = xv_created_find(client, "VDI", XV_CLONE_KEY, id, call, &hotadd->clone, &failure);
    }
    if (rc == 0)
        rc = xv_record_set_tag(client, "VDI", hotadd->clone, XV_CREATED_KEY, id, call, &failure);
    const struct xv_call grace = xv_call_within(NULL, XV_GRACE_MS);
    if (xv_record_unset_tag(client, "VDI", hotadd->vdi, XV_CLONE_KEY, &grace, NULL) != 0)
        xv_log(hotadd->options.env, XVSA_LOG_INFO, XV_COMPONENT,
               "the mark of a clone stays on the disk %s", hotadd->name);
    if (rc != 0 && error != NULL)
        *error = failure;
    else
        xvsa_error_unref(failure);
    return rc;
}

static int join_path(const struct hotadd *hotadd, const char *node, char path[PATH_MAX_LEN],
                     xvsa_error **error)
{
    int length = snprintf(path, PATH_MAX_LEN, "%s/%s", hotadd->options.device_path, node);
    if (length > 0 && length < PATH_MAX_LEN)
        return 0;
    return xv_fail(error, XVSA_ERR_INVALID, XV_COMPONENT,
                   "the folder of devices has too long a name");
}

/* A device that is there before the disk was attached is not the disk's: this process runs somewhere
 * else than it was told, and would read, or write, what it must not. */
static int check_absent(struct hotadd *hotadd, const char *path, const struct xv_call *call,
                        xvsa_error **error)
{
    struct stat info;
    const struct xv_call limit = xv_call_within(call, ABSENT_MS);
    while (lstat(path, &info) == 0) {
        int rc = xv_call_check(call, XV_COMPONENT, "attaching a disk", error);
        if (rc != 0)
            return rc;
        if (xv_call_left(&limit, -1) == 0)
            return xv_fail(
                error, XVSA_ERR_CONFLICT, XV_COMPONENT,
                "'%s' is there although VM %s has no such disk: this process does not run "
                "on that VM",
                path, hotadd->options.vm_uuid);
        rc = xv_call_sleep(call, NODE_PAUSE, XV_COMPONENT, "attaching a disk", error);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static int open_node(struct hotadd *hotadd, const char *path, const struct xv_call *call,
                     xvsa_error **error)
{
    const struct xv_file_options options = {
        .name = hotadd->name,
        .size = hotadd->options.size,
        .in_flight = IN_FLIGHT,
        .direct = true,
        .exclusive = true,
        .writable = hotadd->options.writable,
    };
    const struct xv_call limit = xv_call_within(call, NODE_MS);
    for (;;) {
        xvsa_error *failure = NULL;
        int rc = xv_file_disk_open(path, &options, &hotadd->file, &failure);
        if (rc == 0 || rc == XVSA_ERR_MEMORY || xv_call_left(&limit, -1) == 0) {
            if (rc != 0 && error != NULL)
                *error = failure;
            else
                xvsa_error_unref(failure);
            return rc;
        }
        xvsa_error_unref(failure);
        rc = xv_call_check(call, XV_COMPONENT, "waiting for a device", error);
        if (rc == 0 &&
            xv_call_sleep(&limit, NODE_PAUSE, XV_COMPONENT, "waiting for a device", NULL) != 0)
            rc = xv_call_check(call, XV_COMPONENT, "waiting for a device", error);
        if (rc != 0)
            return rc;
    }
}

static int plug(struct hotadd *hotadd, const struct xv_call *call, xvsa_error **error)
{
    xvsa_error *failure = NULL;
    int rc = xv_vbd_plug(hotadd->client, hotadd->vbd, call, &failure);
    if (xv_error_is_xenapi(failure, "VM_REQUIRES_SR"))
        hotadd->fault = XV_HOTADD_SR_NOT_REACHED;
    if (rc != 0 && error != NULL)
        *error = failure;
    else
        xvsa_error_unref(failure);
    return rc;
}

static int attach(struct hotadd *hotadd, const struct xv_call *call, xvsa_error **error)
{
    const char *vdi = hotadd->clone != NULL ? hotadd->clone : hotadd->vdi;
    bool writable = hotadd->options.writable || hotadd->clone != NULL;
    char node[XV_VBD_NODE_MAX] = "";
    char path[PATH_MAX_LEN];
    int rc = xv_vbd_add(hotadd->client, hotadd->vm, vdi, hotadd->options.tag, writable, call,
                        &hotadd->vbd, error);
    if (rc == XVSA_ERR_EXISTS)
        hotadd->fault = XV_HOTADD_NO_DEVICE;
    if (rc == 0)
        rc = xv_vbd_node(hotadd->client, hotadd->vbd, call, node, error);
    if (rc == 0)
        rc = join_path(hotadd, node, path, error);
    if (rc == 0)
        rc = check_absent(hotadd, path, call, error);
    if (rc == 0)
        rc = plug(hotadd, call, error);
    return rc != 0 ? rc : open_node(hotadd, path, call, error);
}

/* Some machines that are not HVM refuse disks that are read-only, too. */
static int attach_or_clone(struct hotadd *hotadd, const struct xv_call *call, xvsa_error **error)
{
    xvsa_error *failure = NULL;
    int rc = attach(hotadd, call, &failure);
    if (rc == 0)
        return 0;
    bool refused = xv_error_is_xenapi(failure, "DISK_VBD_MUST_BE_READWRITE_FOR_HVM");
    if (!refused || hotadd->clone != NULL) {
        if (error != NULL)
            *error = failure;
        else
            xvsa_error_unref(failure);
        return rc;
    }
    xvsa_error_unref(failure);
    rc = xv_vbd_remove(hotadd->client, hotadd->vbd, call, error);
    if (rc != 0)
        return rc;
    free(hotadd->vbd);
    hotadd->vbd = NULL;
    rc = make_clone(hotadd, call, error);
    return rc != 0 ? rc : attach(hotadd, call, error);
}

static int open_hotadd(struct hotadd *hotadd, const struct xv_call *call, xvsa_error **error)
{
    bool hvm = false;
    int rc = find_vm(hotadd, call, &hvm, error);
    if (rc == 0)
        rc = find_position(hotadd, call, error);
    if (rc == 0 && hvm && !hotadd->options.writable)
        rc = make_clone(hotadd, call, error);
    return rc != 0 ? rc : attach_or_clone(hotadd, call, error);
}

int xv_vdi_open_hotadd(struct xv_client *client, const char *vdi_ref,
                       const struct xv_hotadd_options *options, const struct xv_call *call,
                       struct xv_disk **ret, enum xv_hotadd_fault *ret_fault, xvsa_error **error)
{
    struct hotadd *hotadd = calloc(1, sizeof *hotadd);
    *ret_fault = XV_HOTADD_FAILED;
    if (hotadd == NULL || (hotadd->name = strdup(options->disk_name)) == NULL) {
        free(hotadd);
        return xv_fail_memory(error);
    }
    hotadd->disk = (struct xv_disk){&hotadd_ops, options->size};
    hotadd->client = client;
    hotadd->options = *options;
    hotadd->vdi = vdi_ref;
    xvsa_error *failure = NULL;
    int rc = open_hotadd(hotadd, call, &failure);
    if (rc == 0) {
        *ret = &hotadd->disk;
        return 0;
    }
    *ret_fault = hotadd->fault;
    hotadd_close(&hotadd->disk);
    if (error == NULL) {
        xvsa_error_unref(failure);
        return rc;
    }
    *error = failure;
    return xv_error_wrap(error, rc, XV_COMPONENT, "cannot attach the disk %s to the VM %s: %s",
                         options->disk_name, options->vm_uuid, xvsa_error_message(failure));
}

static int add_text(char ***list, size_t *count, const char *text, xvsa_error **error)
{
    char **grown = realloc(*list, (*count + 1) * sizeof *grown);
    if (grown == NULL)
        return xv_fail_memory(error);
    *list = grown;
    grown[*count] = strdup(text);
    if (grown[*count] == NULL)
        return xv_fail_memory(error);
    ++*count;
    return 0;
}

static int list_vbd(struct xv_client *client, const char *vbd, const struct xv_call *call,
                    char ***list, size_t *count, xvsa_error **error)
{
    struct xv_value *record = NULL;
    xvsa_error *failure = NULL;
    int rc = xv_record_get(client, "VBD", vbd, call, &record, &failure);
    if (rc == 0 && xv_value_get(xv_value_get(record, "other_config"), XV_TAG_KEY) != NULL &&
        !xv_is_null_ref(xv_value_get_string(record, "VDI", "")))
        rc = add_text(list, count, xv_value_get_string(record, "VDI", ""), &failure);
    if (rc != 0 && xv_errors_is_gone(failure))
        rc = 0;
    if (rc != 0 && error != NULL)
        *error = failure;
    else
        xvsa_error_unref(failure);
    xv_value_free(record);
    return rc;
}

int xv_hotadd_list(struct xv_client *client, const char *vm_ref, const struct xv_call *call,
                   char ***ret, size_t *ret_count, xvsa_error **error)
{
    struct xv_value *vbds = NULL;
    char **list = NULL;
    size_t count = 0;
    int rc = xv_ask(client, "VM.get_VBDs", xv_params(vm_ref, NULL), true, call, &vbds, error);
    for (size_t i = 0; rc == 0 && i < xv_value_count(vbds); i++)
        rc =
            list_vbd(client, xv_value_string(xv_value_at(vbds, i), ""), call, &list, &count, error);
    xv_value_free(vbds);
    if (rc == 0) {
        *ret = list;
        *ret_count = count;
        return 0;
    }
    for (size_t i = 0; i < count; i++)
        free(list[i]);
    free(list);
    return rc;
}
