/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/metadata.h"

#include <stdlib.h>
#include <string.h>

#include "job/selection.h"
#include "xenapi/operations.h"

#define FORMAT 1

static json_t *value_to_json(const struct xv_value *value)
{
    char *text = xv_value_to_json(value);
    json_t *json = text == NULL ? NULL : json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    free(text);
    return json;
}

int xv_metadata_value(const json_t *record, struct xv_value **ret, xvsa_error **error)
{
    char *text = json_dumps(record, JSON_COMPACT);
    if (text == NULL)
        return xv_fail_memory(error);
    int rc = xv_value_from_json(text, ret, error);
    free(text);
    return rc;
}

static int get_record(struct xv_vm_run *run, const char *class_name, const char *ref,
                      const struct xv_call *call, json_t **ret, xvsa_error **error)
{
    struct xv_value *value = NULL;
    struct xv_client *client = xv_pool_client(run->job->plan->pool);
    int rc = xv_record_get(client, class_name, ref, call, &value, error);
    if (rc != 0)
        return rc;
    *ret = value_to_json(value);
    xv_value_free(value);
    return *ret == NULL ? xv_fail_memory(error) : 0;
}

static json_t *sr_to_json(const struct xv_sr *sr)
{
    if (sr == NULL)
        return json_null();
    return json_pack("{s:o, s:o, s:o}", "uuid", xv_json_text(sr->uuid), "name",
                     xv_json_text(sr->name), "type", xv_json_text(sr->type));
}

/* VBDs with their records, CD drives included, but for those that a proxy has for a transfer only. */
static int gather_vbds(struct xv_vm_run *run, const struct xv_call *call, json_t *vbds,
                       json_t *vdis, xvsa_error **error)
{
    const struct xv_vm *vm = run->plan->vm;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < vm->vbd_count; i++) {
        const struct xv_vbd *vbd = vm->vbds[i];
        json_t *record = NULL;
        if (vbd->tag != NULL)
            continue;
        rc = get_record(run, "VBD", vbd->ref, call, &record, error);
        if (rc != 0)
            break;
        json_array_append_new(
            vbds, json_pack("{s:o, s:o}", "record", record, "vdi",
                            vbd->vdi == NULL ? json_null() : xv_json_text(vbd->vdi->uuid)));
        if (!xv_vbd_is_disk(vbd))
            continue;
        rc = get_record(run, "VDI", vbd->vdi->ref, call, &record, error);
        if (rc == 0)
            json_array_append_new(vdis, json_pack("{s:o, s:o, s:o, s:o}", "uuid",
                                                  xv_json_text(vbd->vdi->uuid), "name",
                                                  xv_json_text(vbd->vdi->name), "sr",
                                                  sr_to_json(vbd->vdi->sr), "record", record));
    }
    return rc;
}

static int gather_vifs(struct xv_vm_run *run, const struct xv_call *call, json_t *vifs,
                       xvsa_error **error)
{
    const struct xv_vm *vm = run->plan->vm;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < vm->vif_count; i++) {
        const struct xv_network *network = vm->vifs[i]->network;
        json_t *record = NULL;
        rc = get_record(run, "VIF", vm->vifs[i]->ref, call, &record, error);
        if (rc != 0)
            break;
        json_t *named = json_null();
        if (network != NULL)
            named = json_pack("{s:o, s:o, s:o}", "uuid", xv_json_text(network->uuid), "name",
                              xv_json_text(network->name), "bridge", xv_json_text(network->bridge));
        json_array_append_new(vifs, json_pack("{s:o, s:o}", "record", record, "network", named));
    }
    return rc;
}

static json_t *assemble(const struct xv_vm_run *run, json_t *vm, json_t *vbds, json_t *vdis,
                        json_t *vifs)
{
    const struct xv_plan *plan = run->job->plan;
    const struct xv_host *host = run->plan->vm->resident_on;
    return json_pack("{s:i, s:o, s:o, s:o, s:O, s:O, s:O}", "format", FORMAT, "pool",
                     xv_json_named(plan->inventory->pool_uuid, plan->inventory->pool_name), "host",
                     host == NULL ? json_null() : xv_json_named(host->uuid, host->name), "vm", vm,
                     "vbds", vbds, "vdis", vdis, "vifs", vifs);
}

int xv_metadata_gather(struct xv_vm_run *run, const char *vm_ref, const struct xv_call *call,
                       char **ret, xvsa_error **error)
{
    json_t *vm = NULL;
    json_t *vbds = json_array();
    json_t *vdis = json_array();
    json_t *vifs = json_array();
    int rc = vbds == NULL || vdis == NULL || vifs == NULL ? xv_fail_memory(error) : 0;
    if (rc == 0)
        rc = get_record(run, "VM", vm_ref, call, &vm, error);
    if (rc == 0)
        rc = gather_vbds(run, call, vbds, vdis, error);
    if (rc == 0)
        rc = gather_vifs(run, call, vifs, error);
    if (rc == 0 && json_array_size(json_object_get(vm, "VTPMs")) > 0)
        rc = xv_run_reason(run, NULL, error, XV_REASON_VTPM_NOT_SAVED, NULL);
    if (rc == 0) {
        rc = xv_json_print(assemble(run, vm, vbds, vdis, vifs), ret, error);
        vm = NULL;
    }
    json_decref(vm);
    json_decref(vbds);
    json_decref(vdis);
    json_decref(vifs);
    return rc;
}
