/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Pools read and handed to the analysis of lib/sched.
 */
#include "job/deployment.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH "options"

static int read_transports(const json_t *array, uint32_t *ret, xvsa_error **error)
{
    static const uint32_t known[] = {XV_TRANSPORT_HOTADD, XV_TRANSPORT_NBD, XV_TRANSPORT_HTTP};
    if (array == NULL)
        return 0;
    *ret = 0;
    for (size_t i = 0; i < json_array_size(array); i++) {
        const char *name = json_string_value(json_array_get(array, i));
        uint32_t bit = 0;
        for (size_t j = 0; name != NULL && j < sizeof known / sizeof known[0]; j++) {
            if (strcmp(name, xv_transport_name(known[j])) == 0)
                bit = known[j];
        }
        if (bit == 0)
            return xv_fail(error, XVSA_ERR_INVALID, "job",
                           PATH ".transports[%zu]: must be \"hotadd\", \"nbd\" or \"http\"", i);
        *ret |= bit;
    }
    if (*ret == 0)
        return xv_fail(error, XVSA_ERR_INVALID, "job", PATH ".transports: must name at least one");
    return 0;
}

int xv_deployment_options_read(const char *text, struct xv_deployment_options *ret,
                               xvsa_error **error)
{
    static const char *const members[] = {"selection", "transports", "insecure_nbd", "network",
                                          NULL};
    struct xv_deployment_options options = {.transports = XV_TRANSPORT_ALL};
    const json_t *transports = NULL;
    int rc = text == NULL ? 0 : xv_json_parse(text, PATH, &options.json, error);
    if (rc == 0 && options.json != NULL)
        rc = xv_json_check_members(options.json, PATH, members, error);
    if (rc == 0)
        rc = xv_json_read_array(options.json, PATH, "transports", &transports, error);
    if (rc == 0)
        rc = read_transports(transports, &options.transports, error);
    if (rc == 0)
        rc = xv_json_read_bool(options.json, PATH, "insecure_nbd", &options.insecure_nbd, error);
    if (rc == 0)
        rc = xv_json_read_bool(options.json, PATH, "network", &options.network, error);
    const json_t *selection = json_object_get(options.json, "selection");
    if (rc == 0 && selection != NULL)
        rc = xv_selection_read(selection, PATH ".selection", &options.selection, error);
    if (rc != 0) {
        xv_deployment_options_free(&options);
        return rc;
    }
    *ret = options;
    return 0;
}

void xv_deployment_options_free(struct xv_deployment_options *options)
{
    xv_selection_free(options->selection);
    json_decref(options->json);
    *options = (struct xv_deployment_options){0};
}

static bool runs_proxy(const struct xv_deployment_pool *pool, const struct xv_vm *vm)
{
    for (size_t i = 0; i < pool->proxy_count; i++) {
        if (strcmp(xv_proxy_vm_uuid(pool->proxies[i]), vm->uuid) == 0)
            return true;
    }
    return false;
}

/* Without a selection: all VMs but those of proxies, which hold nothing that is not made anew. */
static int select_vms(const struct xv_deployment_pool *pool,
                      const struct xv_deployment_options *options, const struct xv_vm ***ret,
                      size_t *ret_count, xvsa_error **error)
{
    if (options->selection != NULL)
        return xv_selection_vms(options->selection, pool->inventory, ret, ret_count, error);
    json_t *all = json_pack("{s:[{s:b}]}", "vms", "all", 1);
    struct xv_selection *selection = NULL;
    const struct xv_vm **vms = NULL;
    size_t count = 0;
    int rc = all == NULL ? xv_fail_memory(error)
                         : xv_selection_read(all, "selection", &selection, error);
    if (rc == 0)
        rc = xv_selection_vms(selection, pool->inventory, &vms, &count, error);
    xv_selection_free(selection);
    json_decref(all);
    if (rc != 0)
        return rc;
    *ret_count = 0;
    for (size_t i = 0; i < count; i++) {
        if (!runs_proxy(pool, vms[i]))
            vms[(*ret_count)++] = vms[i];
    }
    *ret = vms;
    return 0;
}

/* Fills in one VM; its disks for the scheduler begin at next, behind whose last it returns. */
static struct xv_sched_disk *add_vm(struct xv_deployment_pool *pool, size_t index,
                                    const struct xv_selection *selection,
                                    struct xv_sched_disk *next)
{
    struct xv_deployment_vm *vm = &pool->vms[index];
    struct xv_sched_vm *entry = &pool->entries[index];
    const struct xv_inventory *inventory = pool->inventory;
    const struct xv_host *host = vm->vm->resident_on;
    *entry = (struct xv_sched_vm){
        .host = host == NULL ? XV_SCHED_NONE : (size_t)(host - inventory->hosts),
        .disks = next,
        .key = vm->vm->uuid,
    };
    for (size_t i = 0; i < vm->vm->vbd_count; i++) {
        const struct xv_vbd *vbd = vm->vm->vbds[i];
        if (!xv_vbd_is_disk(vbd))
            continue;
        struct xv_deployment_disk *disk = &vm->disks[vm->disk_count++];
        const struct xv_sr *sr = vbd->vdi->sr;
        disk->vbd = vbd;
        disk->skipped = xv_plan_skips_disk(selection, vbd, &disk->reasons);
        if (!disk->skipped)
            *next++ = (struct xv_sched_disk){
                .sr = sr == NULL ? XV_SCHED_NONE : (size_t)(sr - inventory->srs),
                .bytes = vbd->vdi->size,
                .proxy = XV_SCHED_NONE,
            };
    }
    entry->disk_count = (size_t)(next - entry->disks);
    return next;
}

static int add_vms(struct xv_deployment_pool *pool, const struct xv_vm *const *vms, size_t count,
                   const struct xv_selection *selection, xvsa_error **error)
{
    size_t disks = 0;
    for (size_t i = 0; i < count; i++)
        disks += vms[i]->vbd_count;
    pool->vms = calloc(count + 1, sizeof *pool->vms);
    pool->entries = calloc(count + 1, sizeof *pool->entries);
    pool->entry_disks = calloc(disks + 1, sizeof *pool->entry_disks);
    if (pool->vms == NULL || pool->entries == NULL || pool->entry_disks == NULL)
        return xv_fail_memory(error);
    struct xv_sched_disk *next = pool->entry_disks;
    for (size_t i = 0; i < count; i++) {
        pool->vms[i].vm = vms[i];
        pool->vms[i].disks = calloc(vms[i]->vbd_count + 1, sizeof *pool->vms[i].disks);
        pool->vm_count = i + 1;
        if (pool->vms[i].disks == NULL)
            return xv_fail_memory(error);
        next = add_vm(pool, i, selection, next);
    }
    return 0;
}

/* Keys make the choice between equal hosts depend on their names, not on the pool's order of records. One
 * that takes no new VMs comes last. */
static int add_keys(struct xv_deployment_pool *pool, xvsa_error **error)
{
    const struct xv_inventory *inventory = pool->inventory;
    pool->host_keys = calloc(inventory->host_count + 1, sizeof *pool->host_keys);
    if (pool->host_keys == NULL)
        return xv_fail_memory(error);
    for (size_t i = 0; i < inventory->host_count; i++) {
        if (asprintf(&pool->host_keys[i], "%d %s %s", inventory->hosts[i].enabled ? 0 : 1,
                     inventory->hosts[i].name, inventory->hosts[i].uuid) < 0) {
            pool->host_keys[i] = NULL;
            return xv_fail_memory(error);
        }
    }
    pool->site.host_keys = (const char *const *)pool->host_keys;
    return 0;
}

static uint32_t offered_transports(const struct xv_inventory *inventory,
                                   const struct xv_deployment_options *options)
{
    for (size_t i = 0; i < inventory->network_count; i++) {
        const struct xv_network *network = &inventory->networks[i];
        if (network->nbd || (network->insecure_nbd && options->insecure_nbd))
            return options->transports;
    }
    return options->transports & ~XV_TRANSPORT_NBD;
}

static int make_site(struct xv_deployment_pool *pool, const struct xv_deployment_options *options,
                     xvsa_error **error)
{
    int rc = xv_site_make(pool->inventory, pool->proxies, pool->proxy_count, &pool->site, error);
    if (rc != 0)
        return rc;
    uint32_t transports = offered_transports(pool->inventory, options);
    if (transports == 0)
        return xv_fail(error, XVSA_ERR_REFUSED, "job",
                       "pool %s offers NBD on no network, and no other transport is allowed",
                       pool->inventory->pool_uuid);
    pool->site.transports = transports;
    pool->site.network = options->network;
    for (size_t i = 0; i < pool->proxy_count; i++) {
        pool->site.proxies[i].network = options->network;
        pool->site.proxies[i].key = xv_proxy_name(pool->proxies[i]);
    }
    return add_keys(pool, error);
}

int xv_deployment_pool_read(struct xv_pool *pool, const struct xv_deployment_options *options,
                            const struct xv_call *call, struct xv_deployment_pool *ret,
                            xvsa_error **error)
{
    *ret = (struct xv_deployment_pool){0};
    const struct xv_vm **vms = NULL;
    size_t count = 0;
    int rc = xv_pool_inventory(pool, call, &ret->inventory, error);
    if (rc == 0)
        rc = xv_pool_proxies(pool, &ret->proxies, &ret->proxy_count, error);
    if (rc == 0)
        rc = make_site(ret, options, error);
    if (rc == 0)
        rc = select_vms(ret, options, &vms, &count, error);
    if (rc == 0)
        rc = add_vms(ret, vms, count, options->selection, error);
    if (rc == 0)
        rc = xv_deployment_analyse(&ret->site, ret->entries, ret->vm_count, &ret->analysis, error);
    free(vms);
    if (rc != 0)
        xv_deployment_pool_free(ret);
    return rc;
}

void xv_deployment_pool_free(struct xv_deployment_pool *pool)
{
    xv_deployment_free(pool->analysis);
    for (size_t i = 0; i < pool->vm_count; i++) {
        for (size_t j = 0; j < pool->vms[i].disk_count; j++)
            xv_reasons_free(&pool->vms[i].disks[j].reasons);
        free(pool->vms[i].disks);
    }
    free(pool->vms);
    free(pool->entries);
    free(pool->entry_disks);
    for (size_t i = 0; pool->host_keys != NULL && i < pool->inventory->host_count; i++)
        free(pool->host_keys[i]);
    free(pool->host_keys);
    xv_site_free(&pool->site);
    xv_proxies_free(pool->proxies, pool->proxy_count);
    if (pool->inventory != NULL)
        xv_inventory_free(pool->inventory);
    *pool = (struct xv_deployment_pool){0};
}

static int add_pool(struct xv_pool *pool, const struct xv_deployment_options *options,
                    const struct xv_call *call, json_t *array, xvsa_error **error)
{
    struct xv_deployment_pool read;
    int rc = xv_deployment_pool_read(pool, options, call, &read, error);
    if (rc != 0)
        return xv_error_wrap(error, rc, "job", "pool %s (%s): its deployment cannot be described",
                             xv_client_pool_name(xv_pool_client(pool)),
                             xv_client_pool_uuid(xv_pool_client(pool)));
    rc = json_array_append_new(array, xv_deployment_pool_to_json(&read));
    xv_deployment_pool_free(&read);
    return rc == 0 ? 0 : xv_fail_memory(error);
}

int xv_deployment_describe(struct xv_pool *const *pools, size_t count, const char *options,
                           const struct xv_call *call, char **ret, xvsa_error **error)
{
    struct xv_deployment_options parsed;
    int rc = xv_deployment_options_read(options, &parsed, error);
    if (rc != 0)
        return rc;
    json_t *array = json_array();
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = add_pool(pools[i], &parsed, call, array, error);
    xv_deployment_options_free(&parsed);
    if (rc != 0) {
        json_decref(array);
        return rc;
    }
    return xv_json_print(
        json_pack("{s:I, s:o}", "made_ms", (json_int_t)xv_wall_ms(), "pools", array), ret, error);
}
