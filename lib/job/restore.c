/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Restore of one VM as a new one. Until it is completed everything made carries the job's tag and is
 * removed on failure, or by the janitor.
 */
#include "job/restore.h"

#include <stdlib.h>
#include <string.h>

#include "job/metadata.h"
#include "job/task.h"

/* A repository that may only be read restores all the same; the report says that nothing keeps the point
 * from being deleted meanwhile. */
static int pin_point(struct xv_restore *restore, const struct xv_call *call, xvsa_error **error)
{
    struct xv_vm_run *run = restore->run;
    struct xv_point *point = run->plan->point;
    char key[128];
    const struct xv_job_task *task = run->job->task;
    if (task == NULL)
        snprintf(key, sizeof key, "restore/%s/%zu", run->job->id, run->index);
    else /* a job may restore several points of a VM: each is a task of its own */
        snprintf(key, sizeof key, "restore/%s/%s", run->job->id, xv_point_id(point));
    const struct xv_session_options options = {.job_key = key,
                                               .base = point,
                                               .token = task == NULL ? 0 : task->given.token,
                                               .kind = XV_SESSION_RESTORE};
    xvsa_error *failure = NULL;
    int rc = xv_session_begin(run->job->plan->repo, &options, call, &restore->pin, &failure);
    if (rc == 0 && xv_session_base(restore->pin) == NULL)
        return xv_fail(error, XVSA_ERR_NOT_FOUND, "job", "point %s was deleted",
                       xv_point_id(point));
    bool stops = rc == XVSA_ERR_CANCELLED || (rc == XVSA_ERR_FENCED && task != NULL);
    if (stops && error != NULL)
        *error = xvsa_error_ref(failure);
    else if (rc != 0 && !stops)
        rc = xv_run_reason(run, NULL, error, XV_REASON_POINT_NOT_PINNED, "%s",
                           xvsa_error_message(failure));
    xvsa_error_unref(failure);
    return rc;
}

static void unpin_point(struct xv_restore *restore)
{
    if (restore->pin == NULL)
        return;
    const struct xv_call call = xv_run_cleanup_call();
    xvsa_error *error = NULL;
    if (xv_session_abort(restore->pin, &call, &error) != 0)
        xv_log(xv_engine_env(restore->run->job->engine), XVSA_LOG_WARNING, "job",
               "point %s stays pinned: %s", xv_point_id(restore->run->plan->point),
               xvsa_error_message(error));
    xvsa_error_unref(error);
    xv_session_free(restore->pin);
    restore->pin = NULL;
}

static int create_vm(struct xv_restore *restore, const char *id, const struct xv_call *call,
                     xvsa_error **error)
{
    return xv_vm_create(restore->client, restore->record, restore->run->plan->new_name,
                        restore->run->tag, id, call, &restore->vm_ref, error);
}

static int make_vm(struct xv_restore *restore, const struct xv_call *call, xvsa_error **error)
{
    struct xv_vm_run *run = restore->run;
    const json_t *saved = json_object_get(run->plan->metadata, "vm");
    int rc = xv_metadata_value(saved, &restore->record, error);
    if (rc != 0)
        return rc;
    if (run->job->task != NULL)
        return xv_restore_take_vm(restore, create_vm, call, error);
    rc = xv_run_intend(run, "restore", error);
    restore->touched = rc == 0;
    return rc == 0 ? create_vm(restore, NULL, call, error) : rc;
}

static const char *find_vdi(const struct xv_restore *restore, const char *uuid)
{
    for (size_t i = 0; i < restore->run->disk_count; i++) {
        if (uuid != NULL && strcmp(restore->run->disks[i].plan->vdi_uuid, uuid) == 0)
            return restore->vdi_refs[i];
    }
    return NULL;
}

/* Disks that the point has not (skipped ones) are left out; CD drives come back empty. */
static int make_vbds(struct xv_restore *restore, const struct xv_call *call, xvsa_error **error)
{
    const json_t *vbds = json_object_get(restore->run->plan->metadata, "vbds");
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < json_array_size(vbds); i++) {
        const json_t *saved = json_array_get(vbds, i);
        const json_t *record = json_object_get(saved, "record");
        const char *type = json_string_value(json_object_get(record, "type"));
        const char *vdi_ref = find_vdi(restore, json_string_value(json_object_get(saved, "vdi")));
        bool is_disk = type != NULL && strcmp(type, "Disk") == 0;
        if (is_disk && vdi_ref == NULL)
            continue;
        struct xv_value *value = NULL;
        rc = xv_metadata_value(record, &value, error);
        if (rc == 0)
            rc = xv_vbd_create(restore->client, restore->vm_ref, is_disk ? vdi_ref : NULL, value,
                               call, error);
        xv_value_free(value);
    }
    return rc;
}

static int make_vifs(struct xv_restore *restore, const struct xv_call *call, xvsa_error **error)
{
    const struct xv_plan_vm *plan = restore->run->plan;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < plan->vif_count; i++) {
        const struct xv_plan_vif *vif = &plan->vifs[i];
        if (vif->network == NULL)
            continue;
        struct xv_value *value = NULL;
        char *warning = NULL;
        rc = xv_metadata_value(vif->saved, &value, error);
        if (rc == 0)
            rc = xv_vif_create(restore->client, restore->vm_ref, vif->network->ref, vif->mac, value,
                               call, &warning, error);
        if (warning != NULL && json_array_append_new(restore->warnings, xv_json_text(warning)) != 0)
            rc = xv_fail_memory(error);
        free(warning);
        xv_value_free(value);
    }
    return rc;
}

/* One reason with all that the pool did not take; text: the last of it. */
static int note_warnings(struct xv_restore *restore, const char *text, xvsa_error **error)
{
    json_t *last = json_loads(text, 0, NULL);
    int rc = json_array_extend(restore->warnings, last) != 0 ? xv_fail_memory(error) : 0;
    if (rc == 0 && json_array_size(restore->warnings) > 0) {
        char *list = json_dumps(restore->warnings, JSON_COMPACT);
        rc = xv_run_reason(restore->run, NULL, error, XV_REASON_VM_PART_NOT_RESTORED, "%s",
                           list == NULL ? "" : list);
        free(list);
    }
    json_decref(last);
    return rc;
}

static int read_uuid(struct xv_restore *restore, const struct xv_call *call, xvsa_error **error)
{
    struct xv_value *record = NULL;
    int rc = xv_record_get(restore->client, "VM", restore->vm_ref, call, &record, error);
    if (rc != 0)
        return rc;
    char *uuid = strdup(xv_value_get_string(record, "uuid", ""));
    xv_value_free(record);
    if (uuid == NULL)
        return xv_fail_memory(error);
    pthread_mutex_lock(&restore->run->job->lock);
    restore->run->new_uuid = uuid;
    pthread_mutex_unlock(&restore->run->job->lock);
    return 0;
}

/* From here on VM and disks are the user's. */
static int complete(struct xv_restore *restore, const struct xv_call *call, xvsa_error **error)
{
    struct xv_vm_run *run = restore->run;
    char *warnings = NULL;
    int rc = read_uuid(restore, call, error);
    if (rc == 0 && run->job->task != NULL)
        rc = xv_restore_note_completion(restore, call, error);
    if (rc == 0)
        rc = xv_vm_complete(restore->client, restore->vm_ref, restore->record, run->plan->new_name,
                            call, &warnings, error);
    if (rc == 0)
        rc = note_warnings(restore, warnings, error);
    free(warnings);
    restore->completed = rc == 0;
    return rc;
}

static bool has_tag(void *user, const char *tag)
{
    return strcmp(user, tag) == 0;
}

/* Everything that was made goes, also what an answer that was lost made; of a restore that is complete, what
 * it does not need any more. */
static bool clean(struct xv_restore *restore)
{
    const struct xv_call wait = xv_run_cleanup_call();
    size_t removed = 0;
    size_t left = 0;
    xvsa_error *error = NULL;
    int rc = xv_task_await_pool(restore->run, &wait, &error);
    const struct xv_call call = xv_run_cleanup_call();
    /* A complete VM and its disks bear no marks any more: the sweep takes but what is attached elsewhere. One that an
     * earlier attempt began to complete may be the user's already: its marks tell. */
    bool whole = !restore->completed && !xv_restore_is_complete(restore);
    if (rc == 0 && whole && restore->vm_ref != NULL)
        rc = xv_vm_destroy(restore->client, restore->vm_ref, &call, &error);
    for (size_t i = 0; whole && rc == 0 && i < restore->run->disk_count; i++) {
        if (restore->vdi_refs[i] != NULL)
            rc = xv_vdi_destroy(restore->client, restore->vdi_refs[i], &call, &error);
    }
    if (rc == 0)
        rc = xv_leftovers_remove(restore->client, has_tag, restore->run->tag, NULL, 0, &call,
                                 &removed, &left, &error);
    if (rc != 0 || left > 0)
        xv_run_note(restore->run, NULL, XV_REASON_CLEANUP_PENDING, "%s",
                    error == NULL ? "objects are left" : xvsa_error_message(error));
    xvsa_error_unref(error);
    return rc == 0 && left == 0;
}

static int restore_vm(struct xv_restore *restore, xvsa_error **error)
{
    struct xv_call call = xv_run_step_call(restore->run);
    int rc = pin_point(restore, &call, error);
    if (rc == 0)
        rc = make_vm(restore, &call, error);
    /* An earlier attempt came so far that only the end is left. */
    if (rc == 0 && xv_restore_is_complete(restore))
        return complete(restore, &call, error);
    if (rc == 0)
        rc = xv_disks_run(restore->run, xv_restore_disk, NULL, NULL, error);
    call = xv_run_step_call(restore->run);
    if (rc == 0)
        rc = xv_task_await_pool(restore->run, &call, error);
    if (rc == 0)
        rc = make_vbds(restore, &call, error);
    if (rc == 0)
        rc = make_vifs(restore, &call, error);
    if (rc == 0)
        rc = complete(restore, &call, error);
    return rc;
}

/* Ends what was begun, in the way that the outcome asks for. */
static void conclude(struct xv_restore *restore, int rc, const xvsa_error *error)
{
    struct xv_vm_run *run = restore->run;
    if (rc == XVSA_ERR_FENCED)
        xv_task_fence(run, error);
    bool keep = xv_task_is_fenced(run) ||
                (rc != 0 && (xv_task_leaves(run, rc, error) || !xv_task_is_ours(run)));
    bool nothing = restore->completed && !atomic_load(&restore->attached_left);
    if (restore->touched && !keep)
        xv_run_settle(run, nothing || clean(restore));
    unpin_point(restore);
}

static void release(struct xv_restore *restore)
{
    for (size_t i = 0; restore->vdi_refs != NULL && i < restore->run->disk_count; i++)
        free(restore->vdi_refs[i]);
    free(restore->vdi_refs);
    free(restore->vm_ref);
    xv_value_free(restore->record);
    json_decref(restore->warnings);
    json_decref(restore->facts);
    pthread_mutex_destroy(&restore->noting);
    restore->run->work = NULL;
}

int xv_restore_vm(struct xv_vm_run *run, xvsa_error **error)
{
    struct xv_restore restore = {
        .run = run,
        .client = xv_pool_client(run->job->plan->pool),
        .vdi_refs = calloc(run->disk_count + 1, sizeof(char *)),
        .warnings = json_array(),
        .facts = run->job->task == NULL ? NULL : xv_restore_begin_facts(run),
    };
    xvsa_error *failure = NULL;
    pthread_mutex_init(&restore.noting, NULL);
    run->work = &restore;
    bool room = restore.vdi_refs != NULL && restore.warnings != NULL &&
                (restore.facts != NULL || run->job->task == NULL);
    int rc = room ? restore_vm(&restore, &failure) : xv_fail_memory(&failure);
    conclude(&restore, rc, failure);
    rc = xv_task_verdict(run, rc, &failure);
    release(&restore);
    if (rc != 0 && error != NULL)
        *error = failure;
    else
        xvsa_error_unref(failure);
    return rc;
}
