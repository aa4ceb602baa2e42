/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A pool of the document "deployment".
 */
#include <stdlib.h>
#include <string.h>

#include "job/deployment.h"

/* Rows of the document "routes", made once for an SR and a host, and shared by all disks alike. */
struct routes {
    json_t **items; /* [sr * (host_count + 1) + host], the last host for VMs that do not run */
    size_t host_count, count;
};

static json_t *host_named(const struct xv_inventory *inventory, size_t host)
{
    return xv_json_named(inventory->hosts[host].uuid, inventory->hosts[host].name);
}

static json_t *proxy_text(const struct xv_deployment_pool *pool, size_t proxy)
{
    return xv_json_text(xv_proxy_name(pool->proxies[proxy]));
}

static int compare_named(const void *left, const void *right)
{
    const json_t *a = *(json_t *const *)left;
    const json_t *b = *(json_t *const *)right;
    int order = strcmp(json_string_value(json_object_get(a, "name")),
                       json_string_value(json_object_get(b, "name")));
    return order != 0 ? order
                      : strcmp(json_string_value(json_object_get(a, "uuid")),
                               json_string_value(json_object_get(b, "uuid")));
}

/* Sorts objects with a name and a uuid, so that the document does not depend on the pool's order of
 * records. Takes array. */
static json_t *sorted(json_t *array)
{
    size_t count = json_array_size(array);
    json_t **items = calloc(count + 1, sizeof *items);
    json_t *result = json_array();
    if (items == NULL || result == NULL) {
        free(items);
        json_decref(result);
        json_decref(array);
        return NULL;
    }
    for (size_t i = 0; i < count; i++)
        items[i] = json_array_get(array, i);
    qsort(items, count, sizeof *items, compare_named);
    for (size_t i = 0; i < count; i++)
        json_array_append(result, items[i]);
    free(items);
    json_decref(array);
    return result;
}

static json_t *hosts_json(const struct xv_inventory *inventory)
{
    json_t *array = json_array();
    for (size_t i = 0; i < inventory->host_count; i++) {
        const struct xv_host *host = &inventory->hosts[i];
        json_array_append_new(
            array, json_pack("{s:o, s:o, s:b, s:b, s:b}", "uuid", xv_json_text(host->uuid), "name",
                             xv_json_text(host->name), "live", host->live, "enabled", host->enabled,
                             "coordinator", host->coordinator));
    }
    return sorted(array);
}

/* Proxies that reach an SR; hosts tells where they are. */
static json_t *proxies_of_sr(const struct xv_deployment_pool *pool, size_t sr, bool *hosts,
                             size_t *ret_count)
{
    json_t *array = json_array();
    *ret_count = 0;
    for (size_t i = 0; i < pool->proxy_count; i++) {
        if (!xv_sched_eligible(&pool->site, i, sr))
            continue;
        json_array_append_new(array, proxy_text(pool, i));
        (*ret_count)++;
        if (pool->site.proxies[i].host < pool->site.host_count)
            hosts[pool->site.proxies[i].host] = true;
    }
    return array;
}

static const char *state_name(size_t proxies, size_t hosts)
{
    return proxies == 0   ? "unreached"
           : proxies == 1 ? "one-proxy"
           : hosts <= 1   ? "one-host"
                          : "covered";
}

static json_t *sr_json(const struct xv_deployment_pool *pool, size_t index, const size_t *disks)
{
    const struct xv_inventory *inventory = pool->inventory;
    const struct xv_sr *sr = &inventory->srs[index];
    size_t host_count = pool->site.host_count;
    bool *proxy_hosts = calloc(host_count + 1, sizeof *proxy_hosts);
    if (proxy_hosts == NULL)
        return NULL;
    size_t proxy_count = 0;
    json_t *proxies = proxies_of_sr(pool, index, proxy_hosts, &proxy_count);
    json_t *hosts = json_array();
    size_t where = 0;
    for (size_t i = 0; i < host_count; i++) {
        where += proxy_hosts[i] ? 1 : 0;
        if (pool->site.attached[i * pool->site.sr_count + index])
            json_array_append_new(hosts, host_named(inventory, i));
    }
    free(proxy_hosts);
    return json_pack("{s:o, s:o, s:o, s:o, s:b, s:I, s:o, s:o, s:s}", "uuid",
                     xv_json_text(sr->uuid), "name", xv_json_text(sr->name), "type",
                     xv_json_text(sr->type), "content_type", xv_json_text(sr->content_type),
                     "shared", sr->shared, "disks", (json_int_t)disks[index], "hosts",
                     sorted(hosts), "proxies", proxies, "state", state_name(proxy_count, where));
}

static json_t *srs_json(const struct xv_deployment_pool *pool)
{
    size_t count = pool->site.sr_count;
    size_t *disks = calloc(count + 1, sizeof *disks);
    if (disks == NULL)
        return NULL;
    for (size_t i = 0; i < pool->vm_count; i++) {
        for (size_t j = 0; j < pool->entries[i].disk_count; j++) {
            size_t sr = pool->entries[i].disks[j].sr;
            disks[sr < count ? sr : count]++;
        }
    }
    json_t *array = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(array, sr_json(pool, i, disks));
    free(disks);
    return sorted(array);
}

static json_t *proxies_json(const struct xv_deployment_pool *pool)
{
    json_t *array = json_array();
    for (size_t i = 0; i < pool->proxy_count; i++)
        json_array_append_new(array,
                              xv_proxy_reach_to_json(pool->proxies[i], i == 0, pool->inventory));
    return array;
}

static json_t *transports_json(uint32_t mask)
{
    json_t *array = json_array();
    while (mask != 0) {
        uint32_t best = xv_sched_best_transport(mask);
        json_array_append_new(array, json_string(xv_transport_name(best)));
        mask &= ~best;
    }
    return array;
}

/* Proxies of one tier and one choice of transports stand in one route; the analysis gives them in this
 * order but for the transports. */
static json_t *make_routes(const struct xv_deployment_pool *pool, const struct xv_reach_disk *disk)
{
    json_t *array = json_array();
    bool *done = calloc(disk->count + 1, sizeof *done);
    if (done == NULL) {
        json_decref(array);
        return NULL;
    }
    for (size_t i = 0; i < disk->count; i++) {
        const struct xv_reach *first = &disk->reach[i];
        if (done[i])
            continue;
        json_t *proxies = json_array();
        for (size_t j = i; j < disk->count; j++) {
            const struct xv_reach *reach = &disk->reach[j];
            if (reach->tier != first->tier || reach->transports != first->transports)
                continue;
            json_array_append_new(proxies, proxy_text(pool, reach->proxy));
            done[j] = true;
        }
        json_array_append_new(array, json_pack("{s:s, s:o, s:o}", "tier", xv_tier_name(first->tier),
                                               "transports", transports_json(first->transports),
                                               "proxies", proxies));
    }
    free(done);
    return array;
}

static json_t *routes_json(const struct xv_deployment_pool *pool, struct routes *routes, size_t sr,
                           size_t host, const struct xv_reach_disk *disk)
{
    if (sr >= pool->site.sr_count)
        return json_array();
    size_t place = host < routes->host_count ? host : routes->host_count;
    json_t **slot = &routes->items[sr * (routes->host_count + 1) + place];
    if (*slot == NULL)
        *slot = make_routes(pool, disk);
    return json_incref(*slot);
}

static json_t *disks_json(const struct xv_deployment_pool *pool, size_t index,
                          struct routes *routes)
{
    const struct xv_deployment_vm *vm = &pool->vms[index];
    const struct xv_sched_vm *entry = &pool->entries[index];
    json_t *array = json_array();
    size_t next = 0;
    for (size_t i = 0; i < vm->disk_count; i++) {
        const struct xv_deployment_disk *disk = &vm->disks[i];
        const struct xv_vdi *vdi = disk->vbd->vdi;
        json_t *found = NULL;
        if (disk->skipped) {
            found = json_array();
        } else {
            found = routes_json(pool, routes, entry->disks[next].sr, entry->host,
                                &pool->analysis->vms[index].disks[next]);
            next++;
        }
        json_array_append_new(
            array,
            json_pack("{s:o, s:o, s:o, s:o, s:o, s:b, s:o, s:o}", "device",
                      xv_json_text(disk->vbd->device), "vdi", xv_json_text(vdi->uuid), "name",
                      xv_json_text(vdi->name), "size", xv_json_count(vdi->size), "sr",
                      vdi->sr == NULL ? json_null() : xv_json_named(vdi->sr->uuid, vdi->sr->name),
                      "skipped", disk->skipped, "routes", found, "reasons",
                      xv_reasons_to_json(&disk->reasons)));
    }
    return array;
}

static const char *vm_state(const struct xv_reach_vm *reach)
{
    return !reach->reached                ? "unreached"
           : reach->fatal_proxy_count > 0 ? "one-proxy"
           : reach->fatal_host_count > 0  ? "one-host"
                                          : "covered";
}

static json_t *lost_with(const struct xv_deployment_pool *pool, const struct xv_reach_vm *reach)
{
    json_t *proxies = json_array();
    json_t *hosts = json_array();
    for (size_t i = 0; i < reach->fatal_proxy_count; i++)
        json_array_append_new(proxies, proxy_text(pool, reach->fatal_proxies[i]));
    for (size_t i = 0; i < reach->fatal_host_count; i++)
        json_array_append_new(hosts, host_named(pool->inventory, reach->fatal_hosts[i]));
    return json_pack("{s:o, s:o}", "proxies", proxies, "hosts", sorted(hosts));
}

static json_t *vm_json(const struct xv_deployment_pool *pool, size_t index, struct routes *routes)
{
    const struct xv_vm *vm = pool->vms[index].vm;
    const struct xv_reach_vm *reach = &pool->analysis->vms[index];
    const struct xv_host *host = vm->resident_on;
    return json_pack(
        "{s:o, s:o, s:o, s:o, s:s, s:I, s:o, s:b, s:b, s:o}", "uuid", xv_json_text(vm->uuid),
        "name", xv_json_text(vm->name), "power_state", xv_json_text(vm->power_state), "host",
        host == NULL ? json_null() : xv_json_named(host->uuid, host->name), "state",
        vm_state(reach), "whole", (json_int_t)reach->whole, "lost_with", lost_with(pool, reach),
        "curable", reach->reached || reach->curable, "host_inherent", reach->host_inherent, "disks",
        disks_json(pool, index, routes));
}

static json_t *vms_json(const struct xv_deployment_pool *pool)
{
    struct routes routes = {.host_count = pool->site.host_count};
    routes.count = pool->site.sr_count * (routes.host_count + 1);
    routes.items = calloc(routes.count + 1, sizeof *routes.items);
    if (routes.items == NULL)
        return NULL;
    json_t *array = json_array();
    for (size_t i = 0; i < pool->vm_count; i++)
        json_array_append_new(array, vm_json(pool, i, &routes));
    for (size_t i = 0; i < routes.count; i++)
        json_decref(routes.items[i]);
    free(routes.items);
    return array;
}

/* VMs by their numbers, which follow names. */
static json_t *named_vms(const struct xv_deployment_pool *pool, const size_t *vms, size_t count)
{
    json_t *array = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(
            array, xv_json_named(pool->vms[vms[i]].vm->uuid, pool->vms[vms[i]].vm->name));
    return array;
}

/* Losses that would leave VMs unreached. */
static json_t *losses_json(const struct xv_deployment_pool *pool)
{
    const struct xv_deployment *analysis = pool->analysis;
    json_t *proxies = json_array();
    json_t *hosts = json_array();
    for (size_t i = 0; i < analysis->proxy_loss_count; i++) {
        const struct xv_loss *loss = &analysis->proxy_losses[i];
        if (loss->vm_count > 0)
            json_array_append_new(proxies,
                                  json_pack("{s:o, s:o}", "proxy", proxy_text(pool, loss->subject),
                                            "vms", named_vms(pool, loss->vms, loss->vm_count)));
    }
    for (size_t i = 0; i < analysis->host_loss_count; i++) {
        const struct xv_loss *loss = &analysis->host_losses[i];
        json_t *entry = loss->vm_count == 0 ? NULL : host_named(pool->inventory, loss->subject);
        if (entry == NULL)
            continue;
        json_object_set_new(entry, "vms", named_vms(pool, loss->vms, loss->vm_count));
        json_array_append_new(hosts, entry);
    }
    return json_pack("{s:o, s:o}", "proxies", proxies, "hosts", sorted(hosts));
}

static json_t *advice_json(const struct xv_deployment_pool *pool, enum xv_goal goal)
{
    const struct xv_advice *advice = &pool->analysis->advice[goal];
    json_t *add = json_array();
    for (size_t i = 0; i < advice->count; i++) {
        json_t *entry = host_named(pool->inventory, advice->additions[i].host);
        json_object_set_new(entry, "proxies", json_integer(advice->additions[i].proxies));
        json_array_append_new(add, entry);
    }
    return json_pack("{s:s, s:I, s:I, s:b, s:o, s:o, s:o}", "goal", xv_goal_name(goal), "proxies",
                     (json_int_t)advice->proxies, "at_least", (json_int_t)advice->at_least, "exact",
                     advice->exact, "add", add, "cured",
                     named_vms(pool, advice->cured, advice->cured_count), "incurable",
                     named_vms(pool, advice->incurable, advice->incurable_count));
}

json_t *xv_deployment_pool_to_json(const struct xv_deployment_pool *pool)
{
    const struct xv_inventory *inventory = pool->inventory;
    const struct xv_deployment *analysis = pool->analysis;
    json_t *advice = json_array();
    for (int goal = 0; goal < XV_GOAL_COUNT; goal++)
        json_array_append_new(advice, advice_json(pool, (enum xv_goal)goal));
    return json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "uuid",
        xv_json_text(inventory->pool_uuid), "name", xv_json_text(inventory->pool_name),
        "transports", transports_json(pool->site.transports), "hosts", hosts_json(inventory), "srs",
        srs_json(pool), "proxies", proxies_json(pool), "vms", vms_json(pool), "unreached",
        named_vms(pool, analysis->unreached, analysis->unreached_count), "losses",
        losses_json(pool), "advice", advice, "omissions", xv_omissions_to_json(inventory));
}
