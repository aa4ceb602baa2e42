/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Helping: one unit of a disk is read through what its job's policy allows and stored in a part session of its
 * work. The owner finds in the journal what was done.
 */
#include "job/assist.h"

#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "job/part.h"
#include "job/source.h"
#include "sched/admission.h"

/* How old the picture of the pool may be that hosts and networks are looked up in. */
#define INVENTORY_MS 2000
/* What was moved before a failure is worth so much time to be kept. */
#define SAVE_MS 5000

/* One call of xv_assist. */
struct help {
    struct xv_assistant *assistant;
    const struct xv_assist_unit *unit;
    const struct xv_call *call;
    struct xv_part *part;
    struct xv_part_disk *disk;
    struct xv_inventory *inventory;
    struct xv_spec *spec;
    struct xv_reasons reasons;
    struct xv_extents missing;
};

static int tell(void *user, enum xv_reason_code code, const char *detail, xvsa_error **error)
{
    struct help *help = user;
    struct xv_reasons one = {0};
    char what[128];
    xv_reasons_add(&one, code, detail == NULL ? NULL : "%s", detail);
    xv_reasons_copy(&help->reasons, &one);
    snprintf(what, sizeof what, "disk %s (VDI %s)", help->unit->disk.device, help->unit->disk.key);
    int rc = xv_reasons_check(&one, &help->spec->refusals, what, error);
    xv_reasons_free(&one);
    return rc;
}

/* What of the unit nobody has done as far as the journal tells. */
static int list_missing(struct help *help, xvsa_error **error)
{
    const struct xv_assist_unit *unit = help->unit;
    struct xv_repo *repo = xv_assistant_repo(help->assistant);
    struct xv_extents slice;
    struct xv_extents done;
    xv_extents_init(&slice);
    xv_extents_init(&done);
    int rc = xv_units_slice(&help->disk->map.read, unit->disk.unit_bytes, xv_repo_chunk_size(repo),
                            unit->unit, &slice, error);
    if (rc == 0)
        rc = xv_work_done(repo, unit->work_id, unit->disk.key, help->call, &done, error);
    if (rc == 0)
        rc = xv_extents_subtract(&slice, &done, &help->missing, error);
    xv_extents_free(&slice);
    xv_extents_free(&done);
    return rc;
}

/* Where the virtual machine runs that this process is; NULL: nowhere. */
static const struct xv_host *find_host(const struct xv_inventory *inventory, const char *vm_uuid)
{
    for (size_t i = 0; vm_uuid != NULL && i < inventory->vm_count; i++) {
        if (strcmp(inventory->vms[i].uuid, vm_uuid) == 0)
            return inventory->vms[i].resident_on;
    }
    return NULL;
}

static void tell_left(void *user, const char *why)
{
    struct help *help = user;
    xv_reasons_add(&help->reasons, XV_REASON_CLEANUP_PENDING, "%s", why);
}

/* The proxy of this process, when the disk is to be attached to its VM; a reference. */
static int find_proxy(const struct help *help, const char *sr_uuid, struct xv_proxy **ret,
                      xvsa_error **error)
{
    const struct xv_inventory *inventory = help->inventory;
    const char *vm_uuid = help->unit->proxy_vm_uuid;
    const struct xv_sr *sr = xv_inventory_sr(inventory, sr_uuid);
    const struct xv_host *host = find_host(inventory, vm_uuid);
    struct xv_proxy **proxies = NULL;
    size_t count = 0;
    if (!help->spec->use_hotadd || host == NULL || sr == NULL ||
        !xv_inventory_reaches(inventory, host, sr))
        return 0;
    int rc = xv_pool_proxies(xv_assistant_pool(help->assistant), &proxies, &count, error);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        if (strcmp(xv_proxy_vm_uuid(proxies[i]), vm_uuid) == 0 &&
            xv_proxy_device_path(proxies[i]) != NULL)
            *ret = xv_proxy_ref(proxies[i]);
    }
    xv_proxies_free(proxies, count);
    return rc;
}

static int read_unit(struct help *help, xvsa_error **error)
{
    const struct xv_assist_unit *unit = help->unit;
    struct xv_client *client = xv_pool_client(xv_assistant_pool(help->assistant));
    const struct xv_inventory *inventory = help->inventory;
    char *vdi_ref = NULL;
    struct xv_value *vdi = NULL;
    struct xv_proxy *proxy = NULL;
    int rc = xv_record_find(client, "VDI", unit->disk.snapshot_uuid, help->call, &vdi_ref, error);
    if (rc == 0)
        rc = xv_record_get(client, "VDI", vdi_ref, help->call, &vdi, error);
    if (rc == 0)
        rc = find_proxy(help, unit->disk.sr_uuid, &proxy, error);
    /* What is made for the job bears the job's mark, which its snapshot has. */
    const char *tag = xv_value_get_string(xv_value_get(vdi, "other_config"), XV_TAG_KEY, NULL);
    struct xv_source source = {
        .env = xv_engine_env(xv_pool_engine(xv_assistant_pool(help->assistant))),
        .client = client,
        .inventory = inventory,
        .spec = help->spec,
        .host = find_host(inventory, unit->proxy_vm_uuid),
        .vdi_ref = vdi_ref,
        .vdi_uuid = unit->disk.snapshot_uuid,
        .size = unit->disk.size,
        .nbd = unit->disk.nbd && help->spec->use_nbd,
        .proxy = tag == NULL ? NULL : proxy,
        .tag = tag,
        .cancel = xv_part_cancel(help->part),
        .tell = tell,
        .left = tell_left,
        .user = help,
        .rate = unit->rate,
        .connections = unit->connections == 0 ? XV_SCHED_DISK_CONNECTIONS : unit->connections,
    };
    if (rc == 0)
        rc = xv_source_move(&source, xv_part_intake(help->part), &help->missing, help->disk->writer,
                            help->call, error);
    xv_source_close(&source);
    xv_proxy_unref(proxy);
    xv_value_free(vdi);
    free(vdi_ref);
    return rc;
}

/* What was moved is in the journal once this returns; after a failure as far as that goes quickly. */
static int save(struct help *help, int rc, xvsa_error **error)
{
    if (rc == 0)
        return xv_part_checkpoint(help->part, help->call, error);
    const struct xv_call brief = {.deadline_ms = xv_clock_ms() + SAVE_MS};
    xvsa_error *failure = NULL;
    if (rc != XVSA_ERR_FENCED && xv_part_checkpoint(help->part, &brief, &failure) != 0)
        xv_log(xv_engine_env(xv_pool_engine(xv_assistant_pool(help->assistant))), XVSA_LOG_INFO,
               "job", "what was moved of VDI %s is not kept: %s", help->unit->disk.key,
               xvsa_error_message(failure));
    xvsa_error_unref(failure);
    return rc;
}

static int move(struct help *help, uint64_t *ret_bytes, xvsa_error **error)
{
    int rc = list_missing(help, error);
    uint64_t bytes = xv_extents_bytes(&help->missing);
    if (rc != 0 || bytes == 0)
        return rc;
    rc = read_unit(help, error);
    if (rc == 0 && help->unit->moved != NULL)
        help->unit->moved(help->unit->user);
    rc = save(help, rc, error);
    if (rc == 0)
        *ret_bytes = bytes;
    return rc;
}

static int give_reasons(const struct help *help, char **ret, xvsa_error **error)
{
    if (ret == NULL || help->reasons.count == 0)
        return 0;
    json_t *array = xv_reasons_to_json(&help->reasons);
    return xv_json_print(array, ret, error);
}

int xv_assist(struct xv_assistant *assistant, const struct xv_assist_unit *unit,
              const struct xv_call *call, uint64_t *ret_bytes, char **ret_reasons,
              xvsa_error **error)
{
    struct help help = {.assistant = assistant, .unit = unit, .call = call};
    xv_extents_init(&help.missing);
    *ret_bytes = 0;
    if (ret_reasons != NULL)
        *ret_reasons = NULL;
    int rc = xv_spec_read(unit->spec, &help.spec, error);
    if (rc == 0)
        rc = xv_live_inventory(xv_pool_live(xv_assistant_pool(assistant)), INVENTORY_MS, call,
                               &help.inventory, error);
    if (rc == 0)
        rc = xv_part_take(assistant, unit, call, &help.part, error);
    if (rc == 0)
        rc = xv_part_open_disk(help.part, &unit->disk, call, &help.disk, error);
    if (rc == 0)
        rc = move(&help, ret_bytes, error);
    if (rc == 0)
        rc = give_reasons(&help, ret_reasons, error);
    xv_part_give_back(help.part, rc == XVSA_ERR_FENCED);
    xv_inventory_free(help.inventory);
    xv_spec_free(help.spec);
    xv_reasons_free(&help.reasons);
    xv_extents_free(&help.missing);
    return rc;
}
