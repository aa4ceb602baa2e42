/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Removing what dead jobs left in a pool. What carries a dead job's tag but may be somebody's copy of an
 * object of ours is not destroyed; only the tag is taken away.
 */
#include <stdlib.h>
#include <string.h>

#include "xenapi/vm_internal.h"

#define TAG_MAX 256

enum action {
    DETACH_VBD,
    DESTROY_SNAPSHOT,
    DESTROY_VM,
    UNMARK_VM,
    UNBLOCK_VM,
    DESTROY_VDI,
    UNMARK_VDI,
    ABANDON_TASK,
};

struct item {
    enum action action;
    char *ref;
    char *tag; /* whose blocks are to go; may be NULL */
};

/* A VDI as far as tasks and kept disks need it. */
struct known_vdi {
    char *ref;
    bool kept;
    bool dead;
    bool is_metadata; /* nothing of it can be transferred any more */
};

struct sweep {
    struct xv_client *client;
    const struct xv_call *call;
    xv_tag_fn is_dead;
    void *user;
    const char *const *keep; /* uuids */
    size_t keep_count;
    struct item *items;
    size_t count;
    size_t capacity;
    struct known_vdi *vdis; /* with a tag, or kept */
    size_t vdi_count;
    size_t vdi_capacity;
    char **tasks; /* pairs of task and VDI */
    size_t task_count;
    size_t task_capacity;
    size_t removed;
    size_t left;
    size_t machines_left; /* of these, snapshots and VMs */
    int first;
    xvsa_error *error;
};

/* Makes room for one more; false without memory. */
static bool reserve(void **items, size_t *capacity, size_t count, size_t size)
{
    if (count < *capacity)
        return true;
    size_t wanted = *capacity == 0 ? 16 : *capacity * 2;
    void *grown = realloc(*items, wanted * size);
    if (grown == NULL)
        return false;
    *items = grown;
    *capacity = wanted;
    return true;
}

static int add_item(struct sweep *sweep, enum action action, const char *ref, const char *tag,
                    xvsa_error **error)
{
    struct item item = {action, strdup(ref), tag == NULL ? NULL : strdup(tag)};
    void *items = sweep->items;
    bool room = reserve(&items, &sweep->capacity, sweep->count, sizeof item);
    sweep->items = items;
    if (room && item.ref != NULL && (tag == NULL || item.tag != NULL)) {
        sweep->items[sweep->count++] = item;
        return 0;
    }
    free(item.ref);
    free(item.tag);
    return xv_fail_memory(error);
}

static const char *tag_of(const struct xv_value *record)
{
    return xv_value_get_string(xv_value_get(record, "other_config"), XV_TAG_KEY, NULL);
}

static bool is_dead(struct sweep *sweep, const char *tag)
{
    return tag != NULL && sweep->is_dead(sweep->user, tag);
}

static bool has_prefix(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static int note_task(void *user, const char *ref, const struct xv_value *record, xvsa_error **error)
{
    struct sweep *sweep = user;
    if (!has_prefix(xv_value_get_string(record, "name_label", ""), XV_TASK_PREFIX) ||
        strcmp(xv_value_get_string(record, "status", ""), "pending") != 0)
        return 0;
    void *tasks = sweep->tasks;
    bool room = reserve(&tasks, &sweep->task_capacity, sweep->task_count, 2 * sizeof(char *));
    sweep->tasks = tasks;
    char *task = strdup(ref);
    char *vdi = strdup(xv_value_get_string(record, "name_description", ""));
    if (!room || task == NULL || vdi == NULL) {
        free(task);
        free(vdi);
        return xv_fail_memory(error);
    }
    sweep->tasks[2 * sweep->task_count] = task;
    sweep->tasks[2 * sweep->task_count + 1] = vdi;
    sweep->task_count++;
    return 0;
}

static bool is_kept(const struct sweep *sweep, const char *uuid)
{
    for (size_t i = 0; i < sweep->keep_count; i++) {
        if (strcmp(sweep->keep[i], uuid) == 0)
            return true;
    }
    return false;
}

static bool is_metadata(const char *type)
{
    return strcmp(type, "cbt_metadata") == 0;
}

static int know_vdi(struct sweep *sweep, const char *ref, struct known_vdi vdi, xvsa_error **error)
{
    void *vdis = sweep->vdis;
    bool room = reserve(&vdis, &sweep->vdi_capacity, sweep->vdi_count, sizeof *sweep->vdis);
    sweep->vdis = vdis;
    vdi.ref = strdup(ref);
    if (!room || vdi.ref == NULL) {
        free(vdi.ref);
        return xv_fail_memory(error);
    }
    sweep->vdis[sweep->vdi_count++] = vdi;
    return 0;
}

static int note_vdi(void *user, const char *ref, const struct xv_value *record, xvsa_error **error)
{
    struct sweep *sweep = user;
    const char *tag = tag_of(record);
    const struct known_vdi vdi = {
        .kept = is_kept(sweep, xv_value_get_string(record, "uuid", "")),
        .dead = is_dead(sweep, tag),
        .is_metadata = is_metadata(xv_value_get_string(record, "type", "")),
    };
    if (tag == NULL && !vdi.kept)
        return 0;
    int rc = know_vdi(sweep, ref, vdi, error);
    if (rc != 0 || vdi.kept || !vdi.dead)
        return rc;
    const struct xv_value *config = xv_value_get(record, "other_config");
    bool is_snapshot = xv_value_get_bool(record, "is_a_snapshot", false);
    /* A clone that somebody made of a snapshot of ours has its tag but was not created by us; a snapshot
     * that somebody took of a disk that we created has both. */
    bool is_created = xv_value_get(config, XV_CREATED_KEY) != NULL ||
                      (!is_snapshot && xv_value_get(config, XV_CLONE_KEY) != NULL);
    return add_item(sweep, vdi.is_metadata || is_snapshot != is_created ? DESTROY_VDI : UNMARK_VDI,
                    ref, NULL, error);
}

static int note_vbd(void *user, const char *ref, const struct xv_value *record, xvsa_error **error)
{
    struct sweep *sweep = user;
    if (!is_dead(sweep, tag_of(record)))
        return 0;
    return add_item(sweep, DETACH_VBD, ref, NULL, error);
}

static int note_blocks(struct sweep *sweep, const char *ref, const struct xv_value *record,
                       xvsa_error **error)
{
    const struct xv_value *blocked = xv_value_get(record, "blocked_operations");
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < xv_value_count(blocked); i++) {
        char tag[TAG_MAX];
        if (xv_vm_block_tag(xv_value_string(xv_value_at(blocked, i), ""), tag, sizeof tag) &&
            is_dead(sweep, tag))
            rc = add_item(sweep, UNBLOCK_VM, ref, tag, error);
    }
    return rc;
}

static int note_vm(void *user, const char *ref, const struct xv_value *record, xvsa_error **error)
{
    struct sweep *sweep = user;
    const char *tag = tag_of(record);
    const char *name = xv_value_get_string(record, "name_label", "");
    bool dead = is_dead(sweep, tag);
    if (xv_value_get_bool(record, "is_control_domain", false))
        return 0;
    if (xv_value_get_bool(record, "is_a_snapshot", false)) {
        /* A snapshot of ours is known by its name, also between its making and its tagging. A tag
         * alone may be a copy of its VM's. */
        bool named = has_prefix(name, XV_SNAPSHOT_PREFIX);
        if (named && is_dead(sweep, name + strlen(XV_SNAPSHOT_PREFIX)))
            return add_item(sweep, DESTROY_SNAPSHOT, ref, NULL, error);
        return !named && dead ? add_item(sweep, UNMARK_VM, ref, NULL, error) : 0;
    }
    bool unfinished = dead && has_prefix(name, XV_RESTORE_PREFIX) &&
                      xv_value_get(xv_value_get(record, "other_config"), XV_CREATED_KEY) != NULL;
    if (unfinished)
        return add_item(sweep, DESTROY_VM, ref, NULL, error);
    int rc = note_blocks(sweep, ref, record, error);
    if (rc == 0 && dead)
        rc = add_item(sweep, UNMARK_VM, ref, NULL, error);
    return rc;
}

static const struct known_vdi *find_vdi(const struct sweep *sweep, const char *ref)
{
    for (size_t i = 0; i < sweep->vdi_count; i++) {
        if (strcmp(sweep->vdis[i].ref, ref) == 0)
            return &sweep->vdis[i];
    }
    return NULL;
}

/* A pending transfer is stale when its disk is a dead job's; one whose disk has gone, or has become metadata of
 * changed blocks, belongs to nobody. */
static int judge_tasks(struct sweep *sweep, xvsa_error **error)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < sweep->task_count; i++) {
        const char *ref = sweep->tasks[2 * i + 1];
        const struct known_vdi *vdi = find_vdi(sweep, ref);
        bool stale = vdi != NULL && (vdi->dead || vdi->is_metadata);
        if (vdi == NULL) {
            xvsa_error *failure = NULL;
            char *type = NULL;
            rc = xv_ask_text(sweep->client, "VDI.get_type", xv_params(ref, NULL), sweep->call,
                             &type, &failure);
            bool gone = rc != 0 && xv_errors_is_gone(failure);
            stale = gone || (rc == 0 && is_metadata(type));
            rc = gone ? 0 : rc;
            if (rc != 0 && error != NULL)
                *error = xvsa_error_ref(failure);
            xvsa_error_unref(failure);
            free(type);
        }
        if (rc == 0 && stale)
            rc = add_item(sweep, ABANDON_TASK, sweep->tasks[2 * i], NULL, error);
    }
    return rc;
}

static int destroy_snapshot(struct sweep *sweep, const char *ref, xvsa_error **error)
{
    size_t count = 0;
    const char **keep = calloc(sweep->vdi_count + 1, sizeof *keep);
    if (keep == NULL)
        return xv_fail_memory(error);
    for (size_t i = 0; i < sweep->vdi_count; i++) {
        if (sweep->vdis[i].kept)
            keep[count++] = sweep->vdis[i].ref;
    }
    int rc = xv_snapshot_destroy(sweep->client, ref, keep, count, sweep->call, error);
    free(keep);
    return rc;
}

static int unmark(struct sweep *sweep, const char *class_name, const char *ref, xvsa_error **error)
{
    int rc = xv_record_unset_tag(sweep->client, class_name, ref, XV_TAG_KEY, sweep->call, error);
    if (rc == 0)
        rc =
            xv_record_unset_tag(sweep->client, class_name, ref, XV_CREATED_KEY, sweep->call, error);
    return rc;
}

/* A disk that a VM still has once all of ours are gone is somebody's: a restored one whose mark outlived
 * a crash, or one of a snapshot that was taken of it. */
static int destroy_vdi(struct sweep *sweep, const char *ref, xvsa_error **error)
{
    xvsa_error *failure = NULL;
    int rc = xv_vdi_destroy(sweep->client, ref, sweep->call, &failure);
    if (rc == XVSA_ERR_REFUSED && sweep->machines_left == 0) {
        xv_error_clear(&failure);
        rc = unmark(sweep, "VDI", ref, &failure);
    }
    if (rc != 0 && error != NULL)
        *error = failure;
    else
        xvsa_error_unref(failure);
    return rc;
}

/* A VBD of a snapshot or a template is a copy that somebody made of the machine: not ours. */
static int detach_vbd(struct sweep *sweep, const char *ref, xvsa_error **error)
{
    struct xv_value *vm = NULL;
    char *vm_ref = NULL;
    xvsa_error *failure = NULL;
    int rc = xv_ask_text(sweep->client, "VBD.get_VM", xv_params(ref, NULL), sweep->call, &vm_ref,
                         &failure);
    if (rc == 0)
        rc = xv_record_get(sweep->client, "VM", vm_ref, sweep->call, &vm, &failure);
    if (rc == 0)
        rc = xv_value_get_bool(vm, "is_a_snapshot", false) ||
                     xv_value_get_bool(vm, "is_a_template", false)
                 ? unmark(sweep, "VBD", ref, &failure)
                 : xv_vbd_remove(sweep->client, ref, sweep->call, &failure);
    if (rc != 0 && xv_errors_is_gone(failure))
        rc = 0;
    if (rc != 0 && error != NULL)
        *error = failure;
    else
        xvsa_error_unref(failure);
    xv_value_free(vm);
    free(vm_ref);
    return rc;
}

static int act(struct sweep *sweep, const struct item *item, xvsa_error **error)
{
    switch (item->action) {
    case DETACH_VBD:
        return detach_vbd(sweep, item->ref, error);
    case DESTROY_SNAPSHOT:
        return destroy_snapshot(sweep, item->ref, error);
    case DESTROY_VM:
        return xv_vm_destroy(sweep->client, item->ref, sweep->call, error);
    case UNMARK_VM:
        return unmark(sweep, "VM", item->ref, error);
    case UNBLOCK_VM:
        return xv_migration_unblock(sweep->client, item->ref, item->tag, sweep->call, error);
    case DESTROY_VDI:
        return destroy_vdi(sweep, item->ref, error);
    case UNMARK_VDI:
        return unmark(sweep, "VDI", item->ref, error);
    case ABANDON_TASK:
        xv_task_abandon(sweep->client, item->ref);
        return 0;
    }
    return 0;
}

static void act_on_all(struct sweep *sweep, enum action action)
{
    for (size_t i = 0; i < sweep->count; i++) {
        xvsa_error *error = NULL;
        if (sweep->items[i].action != action)
            continue;
        int rc = act(sweep, &sweep->items[i], &error);
        if (rc == 0) {
            sweep->removed++;
            continue;
        }
        sweep->left++;
        sweep->machines_left += action == DESTROY_SNAPSHOT || action == DESTROY_VM;
        xv_log(sweep->client->env, XVSA_LOG_WARNING, XV_COMPONENT, "a leftover stays: %s",
               xvsa_error_message(error));
        if (sweep->first == 0) {
            sweep->first = rc;
            sweep->error = error;
        } else {
            xvsa_error_unref(error);
        }
    }
}

/* Kept disks are the references of later backups: nothing of a dead job may hold them attached. */
static void release_kept(struct sweep *sweep)
{
    for (size_t i = 0; i < sweep->vdi_count; i++) {
        if (sweep->vdis[i].kept && sweep->vdis[i].dead)
            xv_vdi_detach_stale(sweep->client, sweep->vdis[i].ref, sweep->call);
    }
}

static int look(struct sweep *sweep, xvsa_error **error)
{
    int rc = xv_client_each_record(sweep->client, "task", note_task, sweep, sweep->call, error);
    if (rc == 0)
        rc = xv_client_each_record(sweep->client, "VDI", note_vdi, sweep, sweep->call, error);
    if (rc == 0)
        rc = xv_client_each_record(sweep->client, "VBD", note_vbd, sweep, sweep->call, error);
    if (rc == 0)
        rc = xv_client_each_record(sweep->client, "VM", note_vm, sweep, sweep->call, error);
    return rc != 0 ? rc : judge_tasks(sweep, error);
}

static void release(struct sweep *sweep)
{
    for (size_t i = 0; i < sweep->count; i++) {
        free(sweep->items[i].ref);
        free(sweep->items[i].tag);
    }
    for (size_t i = 0; i < sweep->vdi_count; i++)
        free(sweep->vdis[i].ref);
    for (size_t i = 0; i < 2 * sweep->task_count; i++)
        free(sweep->tasks[i]);
    free(sweep->items);
    free(sweep->vdis);
    free(sweep->tasks);
}

int xv_leftovers_remove(struct xv_client *client, xv_tag_fn is_dead_fn, void *user,
                        const char *const *keep, size_t keep_count, const struct xv_call *call,
                        size_t *ret_removed, size_t *ret_left, xvsa_error **error)
{
    static const enum action order[] = {ABANDON_TASK, DETACH_VBD, DESTROY_SNAPSHOT, DESTROY_VM,
                                        UNBLOCK_VM,   UNMARK_VM,  DESTROY_VDI,      UNMARK_VDI};
    struct sweep sweep = {.client = client,
                          .call = call,
                          .is_dead = is_dead_fn,
                          .user = user,
                          .keep = keep,
                          .keep_count = keep_count};
    int rc = look(&sweep, error);
    if (rc == 0) {
        release_kept(&sweep);
        for (size_t i = 0; i < sizeof order / sizeof order[0]; i++)
            act_on_all(&sweep, order[i]);
        rc = sweep.first;
        if (error != NULL && rc != 0)
            *error = xvsa_error_ref(sweep.error);
    }
    xvsa_error_unref(sweep.error);
    if (ret_removed != NULL)
        *ret_removed = sweep.removed;
    if (ret_left != NULL)
        *ret_left = sweep.left;
    release(&sweep);
    return rc;
}
