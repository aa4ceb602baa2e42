/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The plan of a restore: which SR each disk goes to, which network each interface, names and MAC
 * addresses. What is not clear is refused with the choices listed.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buffer.h"
#include "job/earlier.h"
#include "job/plan.h"

#define TEXT_MAX 2048

static const char *text_at(const json_t *object, const char *name, const char *fallback)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text == NULL ? fallback : text;
}

static const json_t *find_by(const json_t *array, const char *name, const char *value)
{
    for (size_t i = 0; i < json_array_size(array); i++) {
        const json_t *item = json_array_get(array, i);
        if (strcmp(text_at(item, name, ""), value) == 0)
            return item;
    }
    return NULL;
}

/* SRs and networks alike: a name that must be one thing. */
struct candidate {
    const void *object;
    const char *uuid, *name;
};

/* By uuid, else by name; the number of those with the name, which choices lists when it is not 1. */
static size_t find_named(const struct candidate *all, size_t count, const char *id,
                         const void **ret, struct xv_buffer *choices)
{
    for (size_t i = 0; i < count; i++) {
        if (strcasecmp(all[i].uuid, id) == 0) {
            *ret = all[i].object;
            return 1;
        }
    }
    size_t found = 0;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(all[i].name, id) == 0) {
            *ret = all[i].object;
            found++;
        }
    }
    for (size_t i = 0; found != 1 && i < count; i++) {
        if (found > 1 && strcmp(all[i].name, id) != 0)
            continue;
        int rc = xv_buffer_format(choices, NULL, "%s%s (%s)", choices->length == 0 ? "" : ", ",
                                  all[i].name, all[i].uuid);
        if (rc != 0)
            break; /* the list is long enough */
    }
    return found;
}

/* What a thing is to be looked for by. */
struct wish {
    const char *explicit_id; /* from the job; NULL: none */
    const char *uuid, *name; /* as in the backup */
};

/* True when exactly one was found; else the reason is given. */
static bool resolve(const struct candidate *all, size_t count, const struct wish *wish,
                    enum xv_reason_code missing, enum xv_reason_code ambiguous,
                    struct xv_reasons *reasons, const void **ret)
{
    struct xv_buffer choices;
    xv_buffer_init(&choices, TEXT_MAX);
    const char *id = wish->explicit_id != NULL ? wish->explicit_id : wish->uuid;
    size_t found = find_named(all, count, id, ret, &choices);
    if (found == 0 && wish->explicit_id == NULL && wish->name[0] != '\0') {
        xv_buffer_free(&choices);
        id = wish->name;
        found = find_named(all, count, id, ret, &choices);
    }
    if (found != 1)
        xv_reasons_add(reasons, found == 0 ? missing : ambiguous, "\"%s\"; choices: %s", id,
                       choices.data == NULL ? "none" : choices.data);
    xv_buffer_free(&choices);
    return found == 1;
}

static int list_srs(const struct xv_inventory *inventory, struct candidate **ret, size_t *ret_count,
                    xvsa_error **error)
{
    struct candidate *all = calloc(inventory->sr_count + 1, sizeof *all);
    if (all == NULL)
        return xv_fail_memory(error);
    size_t count = 0;
    for (size_t i = 0; i < inventory->sr_count; i++) {
        const struct xv_sr *sr = &inventory->srs[i];
        if (strcmp(sr->content_type, "iso") != 0 && strcmp(sr->type, "udev") != 0)
            all[count++] = (struct candidate){sr, sr->uuid, sr->name};
    }
    *ret = all;
    *ret_count = count;
    return 0;
}

static const char *explicit_sr(const struct xv_spec *spec, const struct xv_plan_disk *disk,
                               const char *saved_uuid, const char *saved_name)
{
    const char *id = text_at(spec->disks, disk->vdi_uuid, NULL);
    if (id == NULL)
        id = text_at(spec->srs, saved_uuid, NULL);
    if (id == NULL)
        id = text_at(spec->srs, saved_name, NULL);
    return id != NULL ? id : spec->default_sr;
}

static int choose_sr(const struct xv_plan *plan, const json_t *saved_sr, struct xv_plan_disk *disk,
                     xvsa_error **error)
{
    struct candidate *all = NULL;
    size_t count = 0;
    int rc = list_srs(plan->inventory, &all, &count, error);
    if (rc != 0)
        return rc;
    const char *uuid = text_at(saved_sr, "uuid", "");
    const char *name = text_at(saved_sr, "name", "");
    const struct wish wish = {explicit_sr(plan->spec, disk, uuid, name), uuid, name};
    const void *found = NULL;
    if (resolve(all, count, &wish, XV_REASON_SR_NOT_FOUND, XV_REASON_SR_AMBIGUOUS, &disk->reasons,
                &found))
        disk->sr = found;
    free(all);
    return 0;
}

static int measure_data(struct xv_point *point, struct xv_plan_disk *disk,
                        const struct xv_call *call, xvsa_error **error)
{
    struct xv_disk *source = NULL;
    struct xv_extents data;
    xv_extents_init(&data);
    int rc = xv_point_open_disk(point, disk->index, call, &source, error);
    if (rc == 0)
        rc = xv_disk_allocated(source, &data, call, error);
    disk->data_bytes = xv_extents_bytes(&data);
    xv_extents_free(&data);
    xv_disk_close(source);
    return rc;
}

static int plan_disks(struct xv_plan *plan, struct xv_plan_vm *vm, const struct xv_call *call,
                      xvsa_error **error)
{
    size_t count = xv_point_disk_count(vm->point);
    vm->disks = calloc(count + 1, sizeof *vm->disks);
    if (vm->disks == NULL)
        return xv_fail_memory(error);
    const json_t *vdis = json_object_get(vm->metadata, "vdis");
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < count; i++) {
        const struct xv_point_disk *of_point = xv_point_disk(vm->point, i);
        const json_t *saved = find_by(vdis, "uuid", of_point->key);
        struct xv_plan_disk *disk = &vm->disks[i];
        *disk = (struct xv_plan_disk){
            .device = of_point->device,
            .vdi_uuid = of_point->key,
            .name = text_at(saved, "name", ""),
            .size = of_point->size,
            .proxy = XV_SCHED_NONE,
            .base_index = -1,
            .index = i,
        };
        vm->disk_count = i + 1;
        rc = choose_sr(plan, json_object_get(saved, "sr"), disk, error);
        if (rc == 0)
            rc = measure_data(vm->point, disk, call, error);
    }
    return rc;
}

static int list_networks(const struct xv_inventory *inventory, struct candidate **ret,
                         xvsa_error **error)
{
    *ret = calloc(inventory->network_count + 1, sizeof **ret);
    if (*ret == NULL)
        return xv_fail_memory(error);
    for (size_t i = 0; i < inventory->network_count; i++) {
        const struct xv_network *network = &inventory->networks[i];
        (*ret)[i] = (struct candidate){network, network->uuid, network->name};
    }
    return 0;
}

static int choose_network(const struct xv_plan *plan, const json_t *saved, struct xv_plan_vif *vif,
                          xvsa_error **error)
{
    const char *uuid = text_at(saved, "uuid", "");
    const char *name = text_at(saved, "name", "");
    const json_t *explicit_id = json_object_get(plan->spec->networks, uuid);
    if (explicit_id == NULL)
        explicit_id = json_object_get(plan->spec->networks, name);
    if (json_is_null(explicit_id)) {
        xv_reasons_add(&vif->reasons, XV_REASON_NETWORK_SKIPPED, NULL);
        return 0;
    }
    struct candidate *all = NULL;
    int rc = list_networks(plan->inventory, &all, error);
    if (rc != 0)
        return rc;
    const struct wish wish = {json_string_value(explicit_id), uuid, name};
    const void *found = NULL;
    if (resolve(all, plan->inventory->network_count, &wish, XV_REASON_NETWORK_NOT_FOUND,
                XV_REASON_NETWORK_AMBIGUOUS, &vif->reasons, &found))
        vif->network = found;
    free(all);
    return 0;
}

static bool mac_is_used(const struct xv_inventory *inventory, const char *mac)
{
    for (size_t i = 0; i < inventory->vif_count; i++) {
        const struct xv_vm *vm = inventory->vifs[i].vm;
        if (vm != NULL && !vm->is_snapshot && !vm->is_template &&
            strcasecmp(inventory->vifs[i].mac, mac) == 0)
            return true;
    }
    return false;
}

static void choose_mac(const struct xv_plan *plan, struct xv_plan_vif *vif)
{
    enum xv_mac_policy policy = plan->spec->mac;
    bool used = mac_is_used(plan->inventory, vif->mac);
    if (policy == XV_MAC_RENEW || (policy == XV_MAC_AUTO && used)) {
        xv_reasons_add(&vif->reasons, XV_REASON_MAC_RENEWED, "%s%s", vif->mac,
                       used ? " is in use in the pool" : "");
        vif->mac = "";
    } else if (used) {
        xv_reasons_add(&vif->reasons, XV_REASON_MAC_DUPLICATE, "%s", vif->mac);
    }
}

static int plan_vifs(struct xv_plan *plan, struct xv_plan_vm *vm, xvsa_error **error)
{
    const json_t *vifs = json_object_get(vm->metadata, "vifs");
    size_t count = json_array_size(vifs);
    vm->vifs = calloc(count + 1, sizeof *vm->vifs);
    if (vm->vifs == NULL)
        return xv_fail_memory(error);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < count; i++) {
        const json_t *saved = json_array_get(vifs, i);
        const json_t *record = json_object_get(saved, "record");
        const json_t *network = json_object_get(saved, "network");
        vm->vifs[i] = (struct xv_plan_vif){
            .device = text_at(record, "device", ""),
            .mac = text_at(record, "MAC", ""),
            .saved_network = text_at(network, "name", ""),
            .saved = record,
        };
        vm->vif_count = i + 1;
        rc = choose_network(plan, network, &vm->vifs[i], error);
        choose_mac(plan, &vm->vifs[i]);
    }
    return rc;
}

/* Replaces {name}, {date} and {point} in the job's name for restored VMs. */
static int make_name(struct xv_plan *plan, struct xv_plan_vm *vm, xvsa_error **error)
{
    char date[32];
    time_t seconds = (time_t)(xv_point_taken_ms(vm->point) / 1000);
    struct tm parts;
    gmtime_r(&seconds, &parts);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &parts);
    char point[9];
    snprintf(point, sizeof point, "%.8s", xv_point_id(vm->point));
    const char *const names[] = {"{name}", "{date}", "{point}"};
    const char *const values[] = {vm->name, date, point};
    struct xv_buffer text;
    xv_buffer_init(&text, TEXT_MAX);
    int rc = 0;
    for (const char *c = plan->spec->vm_name; rc == 0 && *c != '\0';) {
        size_t i = 0;
        while (i < 3 && strncmp(c, names[i], strlen(names[i])) != 0)
            i++;
        rc =
            i < 3 ? xv_buffer_add_text(&text, values[i], error) : xv_buffer_add(&text, c, 1, error);
        c += i < 3 ? strlen(names[i]) : 1;
    }
    if (rc == 0 && (vm->new_name = xv_buffer_steal(&text)) == NULL)
        rc = xv_fail_memory(error);
    xv_buffer_free(&text);
    for (size_t i = 0; rc == 0 && i < plan->inventory->vm_count; i++) {
        const struct xv_vm *other = &plan->inventory->vms[i];
        if (!other->is_snapshot && !other->is_template && strcmp(other->name, vm->new_name) == 0)
            xv_reasons_add(&vm->reasons, XV_REASON_NAME_TAKEN, "%s", other->uuid);
    }
    return rc;
}

/* What the plan puts on each SR must fit there. */
static void check_space(struct xv_plan *plan)
{
    for (size_t s = 0; s < plan->inventory->sr_count; s++) {
        const struct xv_sr *sr = &plan->inventory->srs[s];
        uint64_t needed = 0;
        uint64_t free_bytes =
            sr->physical_size > sr->physical_used ? sr->physical_size - sr->physical_used : 0;
        for (size_t i = 0; i < plan->vm_count; i++) {
            for (size_t j = 0; j < plan->vms[i].disk_count; j++) {
                struct xv_plan_disk *disk = &plan->vms[i].disks[j];
                if (disk->sr != sr)
                    continue;
                needed += disk->data_bytes;
                if (sr->physical_size > 0 && needed > free_bytes)
                    xv_reasons_add(&disk->reasons, XV_REASON_SR_TOO_SMALL,
                                   "SR %s (%s) has %llu bytes left, the plan needs %llu", sr->name,
                                   sr->uuid, (unsigned long long)free_bytes,
                                   (unsigned long long)needed);
            }
        }
    }
}

static int plan_vm(struct xv_plan *plan, const char *id, struct xv_plan_vm *vm,
                   const struct xv_call *call, xvsa_error **error)
{
    int rc = xv_repo_find_point(plan->repo, id, call, &vm->point, error);
    if (rc != 0)
        return rc;
    vm->uuid = xv_point_vm_uuid(vm->point);
    vm->name = xv_point_vm_name(vm->point);
    json_error_t fault;
    vm->metadata = json_loads(xv_point_metadata(vm->point), 0, &fault);
    if (vm->metadata == NULL)
        return xv_fail(error, XVSA_ERR_FORMAT, "job",
                       "restore point %s: its metadata cannot be read: %s", xv_point_id(vm->point),
                       fault.text);
    if (!json_is_object(json_object_get(vm->metadata, "vm")))
        return xv_fail(error, XVSA_ERR_FORMAT, "job",
                       "restore point %s: its metadata describe no VM", xv_point_id(vm->point));
    if (strcmp(xv_point_pool_uuid(vm->point), plan->inventory->pool_uuid) != 0)
        xv_reasons_add(&vm->reasons, XV_REASON_OTHER_POOL, "%s", xv_point_pool_uuid(vm->point));
    rc = make_name(plan, vm, error);
    if (rc == 0)
        rc = plan_disks(plan, vm, call, error);
    if (rc == 0)
        rc = plan_vifs(plan, vm, error);
    return rc;
}

/* Without points of its own, a repetition has those that an earlier job failed to restore. */
static int recall_points(struct xv_plan *plan, xvsa_error **error)
{
    struct xv_spec *spec = plan->spec;
    json_t *failed = NULL;
    if (spec->only_failed_of == NULL || spec->points != NULL)
        return 0;
    int rc =
        xv_earlier_failures(plan->engine, spec->only_failed_of, XV_JOB_RESTORE, &failed, error);
    if (rc != 0)
        return rc;
    json_t *points = json_array();
    for (size_t i = 0; i < json_array_size(failed); i++) {
        json_t *point = json_object_get(json_array_get(failed, i), "point");
        if (json_is_string(json_object_get(point, "id")))
            json_array_append(points, json_object_get(point, "id"));
    }
    json_decref(failed);
    if (json_object_set_new(spec->json, "points", points) != 0)
        return xv_fail_memory(error);
    spec->points = points;
    return 0;
}

int xv_plan_restore(struct xv_plan *plan, const struct xv_call *call, xvsa_error **error)
{
    int rc = recall_points(plan, error);
    if (rc != 0)
        return rc;
    size_t count = json_array_size(plan->spec->points);
    plan->vms = calloc(count + 1, sizeof *plan->vms);
    if (plan->vms == NULL)
        return xv_fail_memory(error);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        plan->vm_count = i + 1;
        rc = plan_vm(plan, json_string_value(json_array_get(plan->spec->points, i)), &plan->vms[i],
                     call, error);
    }
    if (rc == 0)
        check_space(plan);
    return rc;
}
