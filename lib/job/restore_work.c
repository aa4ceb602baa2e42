/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A restore that goes on where an earlier attempt was. What was made is found by ids that follow from the task, or by what
 * was noted; how far each disk is acknowledged is in the notes alone.
 */
#include <stdlib.h>
#include <string.h>

#include "job/restore.h"
#include "job/task.h"

static const char *text_of(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text == NULL ? "" : text;
}

json_t *xv_restore_begin_facts(const struct xv_vm_run *run)
{
    json_t *facts =
        run->job->task->facts == NULL ? json_object() : json_deep_copy(run->job->task->facts);
    if (facts != NULL && !json_is_object(json_object_get(facts, "disks")))
        json_object_set_new(facts, "disks", json_object());
    return facts;
}

bool xv_restore_was_begun(const struct xv_restore *restore)
{
    const struct xv_job_task *task = restore->run->job->task;
    return task != NULL && (task->given.attempt > 1 || task->facts != NULL);
}

bool xv_restore_is_complete(const struct xv_restore *restore)
{
    const struct xv_job_task *task = restore->run->job->task;
    return task != NULL && json_is_true(json_object_get(task->facts, "completing"));
}

void xv_restore_recall(struct xv_restore *restore, const struct xv_disk_run *disk, char uuid[64],
                       uint64_t *ret_offset)
{
    pthread_mutex_lock(&restore->noting);
    const json_t *disks = json_object_get(restore->facts, "disks");
    const json_t *noted = json_object_get(disks, disk->plan->vdi_uuid);
    json_int_t offset = json_integer_value(json_object_get(noted, "offset"));
    snprintf(uuid, 64, "%s", text_of(noted, "vdi"));
    pthread_mutex_unlock(&restore->noting);
    *ret_offset = offset < 0 ? 0 : (uint64_t)offset;
}

/* The notes as they are now. With noting. */
static int keep(struct xv_restore *restore, const struct xv_call *call, xvsa_error **error)
{
    json_t *facts = json_deep_copy(restore->facts);
    return facts == NULL ? xv_fail_memory(error) : xv_task_note(restore->run, facts, call, error);
}

int xv_restore_note(struct xv_restore *restore, const struct xv_disk_run *disk,
                    const char *vdi_uuid, uint64_t offset, const struct xv_call *call,
                    xvsa_error **error)
{
    pthread_mutex_lock(&restore->noting);
    json_t *noted = json_pack("{s:s, s:I}", "vdi", vdi_uuid, "offset", (json_int_t)offset);
    int rc = json_object_set_new(json_object_get(restore->facts, "disks"), disk->plan->vdi_uuid,
                                 noted) != 0
                 ? xv_fail_memory(error)
                 : keep(restore, call, error);
    pthread_mutex_unlock(&restore->noting);
    return rc;
}

static int note_vm(struct xv_restore *restore, const struct xv_call *call, xvsa_error **error)
{
    struct xv_value *record = NULL;
    int rc = xv_record_get(restore->client, "VM", restore->vm_ref, call, &record, error);
    if (rc != 0)
        return rc;
    pthread_mutex_lock(&restore->noting);
    json_object_set_new(restore->facts, "vm", json_string(xv_value_get_string(record, "uuid", "")));
    rc = keep(restore, call, error);
    pthread_mutex_unlock(&restore->noting);
    xv_value_free(record);
    return rc;
}

int xv_restore_note_completion(struct xv_restore *restore, const struct xv_call *call,
                               xvsa_error **error)
{
    pthread_mutex_lock(&restore->noting);
    json_object_set_new(restore->facts, "completing", json_true());
    int rc = keep(restore, call, error);
    pthread_mutex_unlock(&restore->noting);
    return rc;
}

static int find_vm(struct xv_restore *restore, const char *id, const struct xv_call *call,
                   xvsa_error **error)
{
    const char *uuid = text_of(restore->facts, "vm");
    xvsa_error *failure = NULL;
    int rc = XVSA_ERR_NOT_FOUND;
    if (uuid[0] != '\0')
        rc = xv_record_find(restore->client, "VM", uuid, call, &restore->vm_ref, &failure);
    if (rc == XVSA_ERR_NOT_FOUND && !xv_restore_is_complete(restore)) {
        xv_error_clear(&failure);
        rc = xv_created_look(restore->client, "VM", id, call, &restore->vm_ref, &failure);
        if (rc == XVSA_ERR_NOT_FOUND) {
            xv_error_clear(&failure);
            rc = 0;
        }
    }
    if (rc != 0 && error != NULL)
        *error = failure;
    else
        xvsa_error_unref(failure);
    if (rc == 0 && restore->vm_ref != NULL && !xv_restore_is_complete(restore))
        rc = xv_vm_block_start(restore->client, restore->vm_ref, restore->run->tag, call, error);
    return rc;
}

int xv_restore_take_vm(struct xv_restore *restore, xv_restore_create create,
                       const struct xv_call *call, xvsa_error **error)
{
    char id[33];
    xv_restore_make_id(restore->run, "vm", id);
    int rc = xv_task_tell_attempt(restore->run, error);
    if (rc == 0)
        rc = xv_task_await_pool(restore->run, call, error);
    restore->touched = rc == 0;
    if (rc == 0 && xv_restore_was_begun(restore))
        rc = find_vm(restore, id, call, error);
    if (rc == 0 && restore->vm_ref == NULL)
        rc = create(restore, id, call, error);
    return rc == 0 ? note_vm(restore, call, error) : rc;
}
