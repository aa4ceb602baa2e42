/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/plan.h"
#include "job/transport.h"

#include <stdlib.h>
#include <string.h>

static const char *const mode_names[] = {"full", "incremental", "compare"};

const char *xv_mode_name(enum xv_mode mode)
{
    return mode_names[mode];
}

static void free_vm(struct xv_plan_vm *vm)
{
    for (size_t i = 0; i < vm->disk_count; i++)
        xv_reasons_free(&vm->disks[i].reasons);
    for (size_t i = 0; i < vm->vif_count; i++)
        xv_reasons_free(&vm->vifs[i].reasons);
    free(vm->disks);
    free(vm->vifs);
    free(vm->helping_hosts);
    free(vm->new_name);
    xv_reasons_free(&vm->reasons);
    xvsa_error_unref(vm->refusal);
    json_decref(vm->metadata);
    if (vm->base != NULL)
        xv_point_unref(vm->base);
    if (vm->point != NULL)
        xv_point_unref(vm->point);
}

struct xv_plan *xv_plan_ref(struct xv_plan *plan)
{
    atomic_fetch_add_explicit(&plan->references, 1, memory_order_relaxed);
    return plan;
}

void xv_plan_unref(struct xv_plan *plan)
{
    if (plan == NULL || atomic_fetch_sub_explicit(&plan->references, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; i < plan->vm_count; i++)
        free_vm(&plan->vms[i]);
    free(plan->vms);
    xv_site_free(&plan->site);
    xv_proxies_free(plan->proxies, plan->proxy_count);
    if (plan->inventory != NULL)
        xv_inventory_free(plan->inventory);
    xv_spec_free(plan->spec);
    if (plan->repo != NULL)
        xv_repo_unref(plan->repo);
    xv_pool_unref(plan->pool);
    xv_engine_unref(plan->engine);
    free(plan);
}

static int look_at_pool(struct xv_plan *plan, const struct xv_call *call, xvsa_error **error)
{
    int rc = xv_pool_inventory(plan->pool, call, &plan->inventory, error);
    if (rc == 0)
        rc = xv_pool_proxies(plan->pool, &plan->proxies, &plan->proxy_count, error);
    if (rc == 0)
        rc = xv_site_make(plan->inventory, plan->proxies, plan->proxy_count, &plan->site, error);
    return rc;
}

static int fill(struct xv_plan *plan, const struct xv_call *call, xvsa_error **error)
{
    if (plan->spec->type == XV_JOB_VERIFY)
        return 0;
    if (plan->pool == NULL)
        return xv_fail(error, XVSA_ERR_INVALID, "job", "a %s needs a pool",
                       xv_job_type_name(plan->spec->type));
    int rc = look_at_pool(plan, call, error);
    if (rc == 0)
        rc = plan->spec->type == XV_JOB_BACKUP ? xv_plan_backup(plan, call, error)
                                               : xv_plan_restore(plan, call, error);
    if (rc == 0)
        rc = xv_plan_place(plan, error);
    return rc;
}

int xv_plan_new(struct xv_engine *engine, const char *spec, struct xv_pool *pool,
                struct xv_repo *repo, const struct xv_call *call, struct xv_plan **ret,
                xvsa_error **error)
{
    struct xv_plan *plan = calloc(1, sizeof *plan);
    if (plan == NULL)
        return xv_fail_memory(error);
    atomic_init(&plan->references, 1);
    atomic_init(&plan->started, false);
    plan->engine = xv_engine_ref(engine);
    plan->pool = pool == NULL ? NULL : xv_pool_ref(pool);
    plan->repo = xv_repo_ref(repo);
    int rc = xv_spec_read(spec, &plan->spec, error);
    if (rc == 0)
        rc = fill(plan, call, error);
    if (rc != 0) {
        xv_plan_unref(plan);
        return rc;
    }
    *ret = plan;
    return 0;
}

static json_t *proxies_to_json(const struct xv_plan *plan)
{
    json_t *array = json_array();
    for (size_t i = 0; i < plan->proxy_count; i++)
        json_array_append_new(array,
                              xv_proxy_reach_to_json(plan->proxies[i], i == 0, plan->inventory));
    return array;
}

json_t *xv_plan_disk_to_json(const struct xv_plan *plan, const struct xv_plan_disk *disk)
{
    bool backup = plan->spec->type == XV_JOB_BACKUP;
    const char *proxy =
        disk->proxy == XV_SCHED_NONE ? NULL : xv_proxy_name(plan->proxies[disk->proxy]);
    json_t *object = json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:s, s:o}", "device", xv_json_text(disk->device), "vdi",
        xv_json_text(disk->vdi_uuid), "name", xv_json_text(disk->name), "size",
        xv_json_count(disk->size), "sr",
        disk->sr == NULL ? json_null() : xv_json_named(disk->sr->uuid, disk->sr->name), "action",
        disk->skipped ? "skip"
        : backup      ? "backup"
                      : "restore",
        "proxy", xv_json_text(proxy));
    if (object == NULL || disk->skipped)
        return object;
    if (!backup) {
        json_object_set_new(object, "data_bytes", xv_json_count(disk->data_bytes));
        json_object_set_new(object, "transport", json_string(xv_transport_planned(plan, disk)));
    }
    return object;
}

static json_t *disks_to_json(const struct xv_plan *plan, const struct xv_plan_vm *vm)
{
    json_t *array = json_array();
    for (size_t i = 0; i < vm->disk_count; i++) {
        const struct xv_plan_disk *disk = &vm->disks[i];
        json_t *object = xv_plan_disk_to_json(plan, disk);
        if (!disk->skipped && plan->spec->type == XV_JOB_BACKUP) {
            json_object_set_new(object, "mode", json_string(xv_mode_name(disk->mode)));
            json_object_set_new(object, "transport", json_string(xv_transport_planned(plan, disk)));
        }
        json_object_set_new(object, "reasons", xv_reasons_to_json(&disk->reasons));
        json_array_append_new(array, object);
    }
    return array;
}

static json_t *vifs_to_json(const struct xv_plan_vm *vm)
{
    json_t *array = json_array();
    for (size_t i = 0; i < vm->vif_count; i++) {
        const struct xv_plan_vif *vif = &vm->vifs[i];
        const struct xv_network *network = vif->network;
        json_array_append_new(
            array,
            json_pack("{s:o, s:o, s:o, s:o, s:o}", "device", xv_json_text(vif->device), "mac",
                      vif->mac[0] == '\0' ? json_null() : xv_json_text(vif->mac), "saved_network",
                      xv_json_text(vif->saved_network), "network",
                      network == NULL ? json_null() : xv_json_named(network->uuid, network->name),
                      "reasons", xv_reasons_to_json(&vif->reasons)));
    }
    return array;
}

static json_t *helping_hosts_to_json(const struct xv_plan *plan, const struct xv_plan_vm *vm)
{
    json_t *array = json_array();
    for (size_t i = 0; vm->helping_hosts != NULL && i < plan->inventory->host_count; i++) {
        const struct xv_host *host = &plan->inventory->hosts[i];
        if (vm->helping_hosts[i] && host->live)
            json_array_append_new(array, xv_json_named(host->uuid, host->name));
    }
    return array;
}

static json_t *point_to_json(const struct xv_point *point)
{
    if (point == NULL)
        return json_null();
    return json_pack("{s:s, s:I}", "id", xv_point_id(point), "taken_ms",
                     (json_int_t)xv_point_taken_ms(point));
}

json_t *xv_plan_vm_to_json(const struct xv_plan *plan, const struct xv_plan_vm *vm)
{
    bool backup = plan->spec->type == XV_JOB_BACKUP;
    json_t *object =
        json_pack("{s:o, s:o}", "uuid", xv_json_text(vm->uuid), "name", xv_json_text(vm->name));
    json_object_set_new(object, backup ? "base" : "point",
                        point_to_json(backup ? vm->base : vm->point));
    if (!backup) {
        json_object_set_new(object, "new_name", xv_json_text(vm->new_name));
        json_object_set_new(object, "vifs", vifs_to_json(vm));
    }
    return object;
}

static json_t *vm_to_json(const struct xv_plan *plan, const struct xv_plan_vm *vm)
{
    json_t *object = xv_plan_vm_to_json(plan, vm);
    json_object_set_new(
        object, "action",
        json_string(vm->refusal != NULL ? "refuse" : xv_job_type_name(plan->spec->type)));
    json_object_set_new(object, "error", xv_json_error(vm->refusal));
    json_object_set_new(object, "helping_hosts", helping_hosts_to_json(plan, vm));
    json_object_set_new(object, "disks", disks_to_json(plan, vm));
    json_object_set_new(object, "reasons", xv_reasons_to_json(&vm->reasons));
    return object;
}

json_t *xv_omissions_to_json(const struct xv_inventory *inventory)
{
    json_t *array = json_array();
    for (size_t i = 0; inventory != NULL && i < inventory->omission_count; i++) {
        const struct xv_omission *omission = &inventory->omissions[i];
        json_array_append_new(array, json_pack("{s:s, s:o, s:o}", "class", omission->class_name,
                                               "ref", xv_json_text(omission->ref), "why",
                                               xv_json_text(omission->why)));
    }
    return array;
}

json_t *xv_plan_to_json(const struct xv_plan *plan)
{
    json_t *vms = json_array();
    uint64_t bytes = 0;
    json_int_t refused = 0;
    for (size_t i = 0; i < plan->vm_count; i++) {
        const struct xv_plan_vm *vm = &plan->vms[i];
        json_array_append_new(vms, vm_to_json(plan, vm));
        refused += vm->refusal != NULL;
        for (size_t j = 0; vm->refusal == NULL && j < vm->disk_count; j++)
            bytes += vm->disks[j].skipped ? 0 : vm->disks[j].size;
    }
    json_t *pool = json_null();
    if (plan->pool != NULL)
        pool = xv_json_named(xv_client_pool_uuid(xv_pool_client(plan->pool)),
                             xv_client_pool_name(xv_pool_client(plan->pool)));
    return json_pack("{s:s, s:s, s:o, s:{s:s}, s:o, s:o, s:{s:I, s:I, s:o}, s:o}", "type",
                     xv_job_type_name(plan->spec->type), "name", plan->spec->name, "pool", pool,
                     "repo", "id", xv_repo_id(plan->repo), "proxies", proxies_to_json(plan), "vms",
                     vms, "summary", "vms", (json_int_t)plan->vm_count, "refused", refused, "bytes",
                     xv_json_count(bytes), "omissions", xv_omissions_to_json(plan->inventory));
}
