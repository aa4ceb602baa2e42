/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A backup that goes on where an earlier attempt was. What was done belongs to one snapshot: a map named for the VM
 * itself tells which, together with what was known when it was taken; the maps of the disks tell what is
 * read. All are in the repository, so that a store that was lost changes nothing.
 */
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "job/metadata.h"
#include "job/task.h"
#include "repo/fault.h"

/* Key of the map that tells about the VM; those of the disks are uuids. */
#define VM_KEY "vm"

static const char *text_of(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text == NULL ? "" : text;
}

/* Reads the facts of a map; NULL when the work has none. *ret_lost: it had, but nobody knows any more of which
 * snapshot its progress is. */
static int recall(struct xv_backup *backup, json_t **ret, bool *ret_lost,
                  const struct xv_call *call, xvsa_error **error)
{
    struct xv_work_map map;
    xvsa_error *failure = NULL;
    *ret = NULL;
    int rc = xv_work_get_map(backup->run->job->plan->repo, backup->work_id, VM_KEY, call, &map,
                             &failure);
    *ret_lost = rc == XVSA_ERR_CORRUPT;
    if (rc == XVSA_ERR_NOT_FOUND || *ret_lost) {
        xvsa_error_unref(failure);
        return 0;
    }
    if (rc != 0) {
        if (error != NULL)
            *error = failure;
        else
            xvsa_error_unref(failure);
        return rc;
    }
    *ret = json_loads(map.facts, 0, NULL);
    *ret_lost = *ret == NULL;
    xv_work_map_free(&map);
    return 0;
}

static json_t *list_disks(const struct xv_vm_run *run)
{
    json_t *array = json_array();
    for (size_t i = 0; i < run->disk_count; i++) {
        if (!run->disks[i].plan->skipped)
            json_array_append_new(array, xv_json_text(run->disks[i].plan->vdi_uuid));
    }
    return array;
}

/* True when the snapshot that facts tell of is the one at hand, and holds the disks of the plan. */
static bool fits(const struct xv_backup *backup, const json_t *facts)
{
    json_t *disks = list_disks(backup->run);
    bool same = backup->snapshot_ref != NULL &&
                strcmp(text_of(facts, "snapshot"), backup->snapshot_uuid) == 0 &&
                json_equal(disks, json_object_get(facts, "disks"));
    json_decref(disks);
    return same;
}

static int renew_work(struct xv_backup *backup, xvsa_error **error)
{
    unsigned char id[XV_WORK_ID_LENGTH / 2];
    int rc = xv_random(id, sizeof id, error);
    if (rc == 0)
        xv_hex_encode(id, sizeof id, backup->work_id);
    return rc;
}

static int look_for_snapshot(struct xv_backup *backup, const struct xv_call *call,
                             xvsa_error **error)
{
    struct xv_value *record = NULL;
    xvsa_error *failure = NULL;
    int rc = xv_task_await_pool(backup->run, call, error);
    if (rc != 0)
        return rc;
    rc = xv_backup_find_snapshot(backup, call, &failure);
    if (rc == XVSA_ERR_NOT_FOUND) {
        xvsa_error_unref(failure);
        return 0;
    }
    if (rc == 0)
        rc = xv_record_get(backup->client, "VM", backup->snapshot_ref, call, &record, &failure);
    if (rc == 0)
        snprintf(backup->snapshot_uuid, sizeof backup->snapshot_uuid, "%s",
                 xv_value_get_string(record, "uuid", ""));
    xv_value_free(record);
    if (rc != 0 && error != NULL)
        *error = failure;
    else
        xvsa_error_unref(failure);
    return rc;
}

/* The point that the work was compared with; without it nothing can be kept. */
static int recall_base(struct xv_backup *backup, const json_t *facts, const struct xv_call *call,
                       xvsa_error **error)
{
    const char *id = text_of(facts, "base");
    if (backup->base != NULL && strcmp(xv_point_id(backup->base), id) == 0)
        return 0;
    xv_point_unref(backup->base);
    backup->base = NULL;
    if (id[0] == '\0')
        return 0;
    xvsa_error *failure = NULL;
    int rc = xv_repo_find_point(backup->run->job->plan->repo, id, call, &backup->base, &failure);
    if (rc == XVSA_ERR_NOT_FOUND)
        rc = xv_run_reason(backup->run, NULL, error, XV_REASON_BASE_POINT_GONE, "%s", id);
    else if (xv_fault_is_damage(rc))
        rc = xv_run_reason(backup->run, NULL, error, XV_REASON_BASE_POINT_DAMAGED, "%s",
                           xvsa_error_message(failure));
    else if (rc != 0 && error != NULL)
        *error = xvsa_error_ref(failure);
    xvsa_error_unref(failure);
    return rc;
}

/* What an earlier attempt left, before this one begins. Facts are NULL when there is nothing to go on with. */
static int find_earlier(struct xv_backup *backup, json_t **ret_facts, const struct xv_call *call,
                        xvsa_error **error)
{
    const struct xv_job_task *task = backup->run->job->task;
    const char *work = text_of(task->facts, "work");
    bool lost = false;
    snprintf(backup->work_id, sizeof backup->work_id, "%s",
             strlen(work) == XV_WORK_ID_LENGTH ? work : task->given.work_id);
    int rc = look_for_snapshot(backup, call, error);
    if (rc == 0)
        rc = recall(backup, ret_facts, &lost, call, error);
    if (rc != 0 || (*ret_facts == NULL && !lost))
        return rc;
    if (!lost && fits(backup, *ret_facts))
        return recall_base(backup, *ret_facts, call, error);
    /* What was done is of a snapshot that is gone, holds other disks or is not known: it must never be mixed with
     * a new one. */
    rc = xv_run_reason(backup->run, NULL, error, XV_REASON_SNAPSHOT_RETAKEN,
                       lost ? "the repository has lost which one it was" : NULL);
    json_decref(*ret_facts);
    *ret_facts = NULL;
    free(backup->snapshot_ref);
    backup->snapshot_ref = NULL;
    backup->snapshot_spoilt = true;
    return rc == 0 ? renew_work(backup, error) : rc;
}

static bool has_tag(void *user, const char *tag)
{
    return strcmp(user, tag) == 0;
}

/* The job has a point of this VM when an attempt died between its commit and its end. */
static int find_commit(struct xv_backup *backup, const struct xv_call *call, xvsa_error **error)
{
    struct xv_vm_run *run = backup->run;
    struct xv_point *point = NULL;
    char *text = NULL;
    char id[128];
    xvsa_error *failure = NULL;
    snprintf(id, sizeof id, "latest:%s", run->plan->uuid);
    int rc = xv_repo_find_point(run->job->plan->repo, id, call, &point, &failure);
    /* One that cannot be read is no backup, whoever made it. */
    if (xv_fault_is_damage(rc)) {
        xvsa_error_unref(failure);
        return 0;
    }
    if (rc == 0)
        rc = xv_point_describe(point, &text, &failure);
    json_t *document = text == NULL ? NULL : json_loads(text, 0, NULL);
    if (strcmp(text_of(document, "job"), run->job->id) == 0) {
        pthread_mutex_lock(&run->job->lock);
        snprintf(run->point_id, sizeof run->point_id, "%s", xv_point_id(point));
        pthread_mutex_unlock(&run->job->lock);
        backup->committed = true;
    }
    json_decref(document);
    free(text);
    xv_point_unref(point);
    if (rc != 0 && error != NULL)
        *error = failure;
    else
        xvsa_error_unref(failure);
    return rc;
}

/* Whoever was fenced may have begun the same work between our look and our beginning. */
static int check_still_none(struct xv_backup *backup, const struct xv_call *call,
                            xvsa_error **error)
{
    json_t *facts = NULL;
    bool lost = false;
    int rc = recall(backup, &facts, &lost, call, error);
    if (rc == 0 && (facts != NULL || lost)) {
        rc = xv_fail(error, XVSA_ERR_CONFLICT, "job",
                     "an earlier attempt began the work on VM %s at the same time",
                     backup->run->plan->uuid);
        xv_error_set_retryable(error == NULL ? NULL : *error, true);
    }
    json_decref(facts);
    return rc;
}

/* The snapshot is made, or taken over from an attempt that died before it could note it. */
static int begin_anew(struct xv_backup *backup, const struct xv_call *call, xvsa_error **error)
{
    struct xv_vm_run *run = backup->run;
    size_t removed = 0;
    size_t left = 0;
    int rc = check_still_none(backup, call, error);
    if (rc == 0)
        rc = xv_task_await_pool(run, call, error);
    if (rc == 0)
        backup->touched = true;
    if (rc == 0 && backup->snapshot_spoilt)
        rc = xv_leftovers_remove(backup->client, has_tag, run->tag, NULL, 0, call, &removed, &left,
                                 error);
    if (rc == 0 && backup->snapshot_ref == NULL)
        rc = xv_backup_enable_tracking(backup, call, error);
    if (rc == 0)
        rc = xv_metadata_gather(run, backup->vm_ref, call, &backup->metadata, error);
    if (rc == 0)
        rc = xv_backup_block_migration(backup, call, error);
    if (rc == 0)
        rc = xv_task_await_pool(run, call, error);
    if (rc == 0 && backup->snapshot_ref == NULL)
        rc = xv_backup_take_snapshot(backup, error);
    return rc;
}

/* Makes the work known: to the repository for good, to the store as a hint. */
static int note_work(struct xv_backup *backup, const struct xv_call *call, xvsa_error **error)
{
    const struct xv_point *base = xv_session_base(backup->session);
    struct xv_extents none;
    xv_extents_init(&none);
    json_t *facts =
        json_pack("{s:s, s:I, s:s, s:s, s:o}", "snapshot", backup->snapshot_uuid, "taken_ms",
                  (json_int_t)backup->taken_ms, "base", base == NULL ? "" : xv_point_id(base),
                  "metadata", backup->metadata, "disks", list_disks(backup->run));
    char *text = facts == NULL ? NULL : json_dumps(facts, JSON_COMPACT);
    json_decref(facts);
    if (text == NULL)
        return xv_fail_memory(error);
    const struct xv_work_disk map = {
        .key = VM_KEY,
        .device = "",
        .base_index = -1,
        .read = &none,
        .keep = &none,
        .facts = text,
    };
    int rc = xv_work_put_map(backup->session, &map, call, error);
    free(text);
    return rc;
}

static int note_store(struct xv_backup *backup, const struct xv_call *call, xvsa_error **error)
{
    json_t *facts = json_pack("{s:s, s:s, s:I}", "work", backup->work_id, "snapshot",
                              backup->snapshot_uuid, "taken_ms", (json_int_t)backup->taken_ms);
    return xv_task_note(backup->run, facts, call, error);
}

static int go_on(struct xv_backup *backup, const json_t *facts, xvsa_error **error)
{
    backup->touched = true;
    backup->migration_blocked = backup->run->job->plan->spec->block_migration;
    backup->metadata = strdup(text_of(facts, "metadata"));
    return backup->metadata == NULL ? xv_fail_memory(error) : 0;
}

int xv_task_prepare_backup(struct xv_backup *backup, const struct xv_call *call, xvsa_error **error)
{
    json_t *facts = NULL;
    int rc = xv_task_tell_attempt(backup->run, error);
    if (rc == 0)
        rc = find_earlier(backup, &facts, call, error);
    if (rc == 0)
        rc = xv_backup_begin(backup, call, error);
    if (rc == 0)
        rc = find_commit(backup, call, error);
    if (rc == 0 && backup->committed) {
        rc = xv_backup_recall_committed(backup, call, error);
    } else if (rc == 0) {
        rc = facts == NULL ? begin_anew(backup, call, error) : go_on(backup, facts, error);
        if (rc == 0)
            rc = xv_backup_read_snapshot(backup, call, error);
        if (rc == 0 && facts == NULL)
            rc = note_work(backup, call, error);
        if (rc == 0)
            rc = note_store(backup, call, error);
    }
    json_decref(facts);
    return rc;
}

static int take_map(struct xv_passage *passage, struct xv_work_map *map, bool *ret_known)
{
    json_t *facts = json_loads(map->facts, 0, NULL);
    const char *mode = text_of(facts, "mode");
    bool based = xv_session_base(passage->backup->session) != NULL;
    bool usable = map->size == passage->size && (map->keep.count == 0 || based) &&
                  strcmp(text_of(facts, "snapshot"), passage->disk->snapshot->vdi_uuid) == 0;
    for (enum xv_mode m = XV_MODE_FULL; usable && m <= XV_MODE_COMPARE; m++) {
        if (strcmp(mode, xv_mode_name(m)) == 0)
            xv_passage_set_mode(passage, m);
    }
    json_decref(facts);
    *ret_known = usable;
    if (!usable)
        return 0;
    passage->base_index = based ? map->base_index : -1;
    passage->read = map->read;
    passage->keep = map->keep;
    xv_extents_init(&map->read);
    xv_extents_init(&map->keep);
    return 0;
}

int xv_task_recall_map(struct xv_passage *passage, bool *ret_known, xvsa_error **error)
{
    struct xv_work_map map;
    xvsa_error *failure = NULL;
    *ret_known = false;
    int rc = xv_work_get_map(passage->disk->vm->job->plan->repo, passage->backup->work_id,
                             passage->disk->plan->vdi_uuid, &passage->call, &map, &failure);
    if (rc == 0) {
        rc = take_map(passage, &map, ret_known);
        xv_work_map_free(&map);
    } else if (rc == XVSA_ERR_NOT_FOUND || rc == XVSA_ERR_CORRUPT) {
        rc = 0;
    } else if (error != NULL) {
        *error = xvsa_error_ref(failure);
    }
    xvsa_error_unref(failure);
    return rc;
}

int xv_task_put_map(struct xv_passage *passage, xvsa_error **error)
{
    const struct xv_disk_run *disk = passage->disk;
    json_t *facts = json_pack("{s:s, s:s}", "mode", xv_mode_name(disk->mode), "snapshot",
                              disk->snapshot->vdi_uuid);
    char *text = facts == NULL ? NULL : json_dumps(facts, JSON_COMPACT);
    json_decref(facts);
    if (text == NULL)
        return xv_fail_memory(error);
    const struct xv_work_disk map = {
        .key = disk->plan->vdi_uuid,
        .device = disk->plan->device,
        .size = passage->size,
        .base_index = passage->base_index,
        .read = &passage->read,
        .keep = &passage->keep,
        .facts = text,
    };
    int rc = xv_work_put_map(passage->backup->session, &map, &passage->call, error);
    free(text);
    return rc;
}
