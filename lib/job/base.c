/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/base.h"

#include <stdlib.h>
#include <string.h>

/* The base's disk with the same VDI, else the one at the same position. */
static int find_base_disk(const struct xv_point *base, struct xv_plan_disk *disk)
{
    size_t count = xv_point_disk_count(base);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(xv_point_disk(base, i)->key, disk->vdi_uuid) == 0)
            return (int)i;
    }
    for (size_t i = 0; i < count; i++) {
        if (strcmp(xv_point_disk(base, i)->device, disk->device) == 0) {
            xv_reasons_add(&disk->reasons, XV_REASON_DISK_REPLACED, "the base has VDI %s",
                           xv_point_disk(base, i)->key);
            return (int)i;
        }
    }
    xv_reasons_add(&disk->reasons, XV_REASON_DISK_NEW, NULL);
    return -1;
}

/* True when tracking is on now, or gives the reason and whether it is to be switched on. */
static bool tracking_is_on(const struct xv_spec *spec, const struct xv_inventory *inventory,
                           struct xv_plan_disk *disk)
{
    if (spec->cbt == XV_CBT_OFF) {
        xv_reasons_add(&disk->reasons, XV_REASON_CBT_DISABLED_BY_POLICY, NULL);
        return false;
    }
    if (disk->sr == NULL || !disk->sr->supports_cbt) {
        xv_reasons_add(&disk->reasons, XV_REASON_CBT_UNSUPPORTED_SR, "SR type %s",
                       disk->sr == NULL ? "?" : disk->sr->type);
        return false;
    }
    if (disk->vdi->cbt_enabled)
        return true;
    if (!inventory->cbt_licensed)
        xv_reasons_add(&disk->reasons, XV_REASON_CBT_NOT_LICENSED, NULL);
    else
        disk->enable_cbt = spec->cbt == XV_CBT_AUTO;
    return false;
}

/* Reads the base disk's metadata; *ret_snapshot is borrowed from document. */
static bool base_was_tracked(const json_t *document, const char **ret_snapshot)
{
    *ret_snapshot = json_string_value(json_object_get(document, "snapshot"));
    return *ret_snapshot != NULL && json_is_true(json_object_get(document, "cbt"));
}

static bool base_still_tracks(const struct xv_inventory *inventory, const char *snapshot_uuid,
                              struct xv_plan_disk *disk)
{
    const struct xv_vdi *snapshot = xv_inventory_vdi(inventory, snapshot_uuid);
    if (snapshot == NULL) {
        xv_reasons_add(&disk->reasons, XV_REASON_CBT_BASE_GONE, "VDI %s", snapshot_uuid);
        return false;
    }
    if (!snapshot->cbt_enabled || strcmp(snapshot->snapshot_of, disk->vdi->ref) != 0 ||
        snapshot->sr != disk->sr) {
        xv_reasons_add(&disk->reasons, XV_REASON_CBT_RESET,
                       "VDI %s is not a tracked snapshot of the disk any more", snapshot_uuid);
        return false;
    }
    disk->base_snapshot = snapshot->uuid;
    return true;
}

static bool can_use_tracking(const struct xv_spec *spec, const struct xv_inventory *inventory,
                             const struct xv_point *base, struct xv_plan_disk *disk)
{
    if (!tracking_is_on(spec, inventory, disk)) {
        if (base != NULL && spec->cbt != XV_CBT_OFF && disk->sr != NULL && disk->sr->supports_cbt)
            xv_reasons_add(&disk->reasons, XV_REASON_CBT_NOT_ENABLED, NULL);
        return false;
    }
    if (disk->base_index < 0)
        return false;
    const struct xv_point_disk *of_base = xv_point_disk(base, (size_t)disk->base_index);
    if (strcmp(of_base->key, disk->vdi_uuid) != 0)
        return false;
    if (disk->size < of_base->size) {
        xv_reasons_add(&disk->reasons, XV_REASON_DISK_SHRUNK, NULL);
        return false;
    }
    json_t *document = json_loads(of_base->metadata, 0, NULL);
    const char *snapshot_uuid = NULL;
    bool usable = false;
    if (!base_was_tracked(document, &snapshot_uuid))
        xv_reasons_add(&disk->reasons, XV_REASON_CBT_NOT_ENABLED, NULL);
    else
        usable = base_still_tracks(inventory, snapshot_uuid, disk);
    json_decref(document);
    return usable;
}

void xv_base_choose(const struct xv_spec *spec, const struct xv_inventory *inventory,
                    const struct xv_point *base, struct xv_plan_disk *disk)
{
    disk->base_index = -1;
    if (base == NULL)
        xv_reasons_add(&disk->reasons, XV_REASON_FIRST_BACKUP, NULL);
    else
        disk->base_index = find_base_disk(base, disk);
    bool tracked = can_use_tracking(spec, inventory, base, disk);
    disk->mode = tracked                 ? XV_MODE_INCREMENTAL
                 : disk->base_index >= 0 ? XV_MODE_COMPARE
                                         : XV_MODE_FULL;
}

int xv_base_describe(const struct xv_plan_disk *disk, const char *snapshot_uuid, bool cbt,
                     char **ret, xvsa_error **error)
{
    json_t *document =
        json_pack("{s:o, s:o, s:b, s:o, s:o}", "vdi", xv_json_text(disk->vdi_uuid), "snapshot",
                  xv_json_text(snapshot_uuid), "cbt", cbt, "name", xv_json_text(disk->name), "sr",
                  disk->sr == NULL ? json_null() : xv_json_named(disk->sr->uuid, disk->sr->name));
    return xv_json_print(document, ret, error);
}

void xv_base_tag(const struct xv_repo *repo, const char *vm_uuid, char tag[XV_BASE_TAG_MAX])
{
    snprintf(tag, XV_BASE_TAG_MAX, "xvsa-base:%s:%s", xv_repo_id(repo), vm_uuid);
}
