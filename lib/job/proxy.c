/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Proxies: where they run now, and what they reach from there.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "job/pool.h"

/* Where a guest of Xen finds its own uuid. */
#define OWN_UUID  "/sys/hypervisor/uuid"
#define UUID_SIZE 64
/* Disks attached to one VM at once, over all jobs: each costs its host a process. */
#define DEVICES_MOST 16

struct xv_proxy {
    atomic_uint references;
    char *name;
    char *vm_uuid;
    uint32_t max_disks;
    _Atomic(char *) device_path; /* NULL: this process runs elsewhere */
    atomic_uint devices;         /* disks attached to its VM */
};

const char *xv_proxy_name(const struct xv_proxy *proxy)
{
    return proxy->name;
}

const char *xv_proxy_vm_uuid(const struct xv_proxy *proxy)
{
    return proxy->vm_uuid;
}

uint32_t xv_proxy_max_disks(const struct xv_proxy *proxy)
{
    return proxy->max_disks;
}

/* What a Xen guest knows itself by; false when this machine is none. */
static bool read_own_uuid(char *uuid, size_t size)
{
    FILE *file = fopen(OWN_UUID, "re");
    if (file == NULL)
        return false;
    bool found = fgets(uuid, (int)size, file) != NULL;
    fclose(file);
    uuid[strcspn(uuid, "\n")] = '\0';
    return found;
}

int xv_proxy_run_here(struct xv_proxy *proxy, const char *device_path, xvsa_error **error)
{
    char uuid[UUID_SIZE] = "";
    if (device_path == NULL && read_own_uuid(uuid, sizeof uuid) &&
        strcasecmp(uuid, proxy->vm_uuid) != 0)
        return xv_fail(error, XVSA_ERR_INVALID, "job",
                       "proxy %s: this process runs on the VM %s, not on %s", proxy->name, uuid,
                       proxy->vm_uuid);
    char *path = strdup(device_path == NULL ? "/dev" : device_path);
    char *none = NULL;
    if (path == NULL)
        return xv_fail_memory(error);
    if (atomic_compare_exchange_strong(&proxy->device_path, &none, path))
        return 0;
    free(path);
    return xv_fail(error, XVSA_ERR_STATE, "job", "proxy %s: its devices are known already",
                   proxy->name);
}

const char *xv_proxy_device_path(const struct xv_proxy *proxy)
{
    return atomic_load(&((struct xv_proxy *)(uintptr_t)proxy)->device_path);
}

bool xv_proxy_take_device(struct xv_proxy *proxy)
{
    if (atomic_fetch_add(&proxy->devices, 1) < DEVICES_MOST)
        return true;
    atomic_fetch_sub(&proxy->devices, 1);
    return false;
}

void xv_proxy_give_device(struct xv_proxy *proxy)
{
    atomic_fetch_sub(&proxy->devices, 1);
}

struct xv_proxy *xv_proxy_ref(struct xv_proxy *proxy)
{
    atomic_fetch_add_explicit(&proxy->references, 1, memory_order_relaxed);
    return proxy;
}

void xv_proxy_unref(struct xv_proxy *proxy)
{
    if (proxy == NULL ||
        atomic_fetch_sub_explicit(&proxy->references, 1, memory_order_acq_rel) != 1)
        return;
    free(proxy->name);
    free(proxy->vm_uuid);
    free(atomic_load(&proxy->device_path));
    free(proxy);
}

void xv_proxies_free(struct xv_proxy **proxies, size_t count)
{
    for (size_t i = 0; i < count; i++)
        xv_proxy_unref(proxies[i]);
    free(proxies);
}

static int make_proxy(const char *name, const char *vm_uuid, uint32_t max_disks,
                      struct xv_proxy **ret, xvsa_error **error)
{
    struct xv_proxy *proxy = calloc(1, sizeof *proxy);
    if (proxy == NULL)
        return xv_fail_memory(error);
    atomic_init(&proxy->references, 1);
    proxy->name = strdup(name);
    proxy->vm_uuid = strdup(vm_uuid);
    proxy->max_disks = max_disks == 0 ? XV_PROXY_DISKS : max_disks;
    if (proxy->name == NULL || proxy->vm_uuid == NULL) {
        xv_proxy_unref(proxy);
        return xv_fail_memory(error);
    }
    *ret = proxy;
    return 0;
}

int xv_pool_add_proxy(struct xv_pool *pool, const char *name, const char *vm_uuid,
                      uint32_t max_disks, const struct xv_call *call, struct xv_proxy **ret,
                      xvsa_error **error)
{
    struct xv_inventory *inventory = NULL;
    int rc = xv_pool_inventory(pool, call, &inventory, error);
    if (rc != 0)
        return rc;
    struct xv_proxy *proxy = NULL;
    const struct xv_vm *vm = xv_inventory_vm(inventory, vm_uuid);
    if (vm == NULL || vm->is_template || vm->is_snapshot)
        rc = xv_fail(error, XVSA_ERR_NOT_FOUND, "job", "proxy: the pool has no VM %s", vm_uuid);
    else
        rc = make_proxy(name == NULL ? vm->name : name, vm->uuid, max_disks, &proxy, error);
    xv_inventory_free(inventory);
    if (rc == 0)
        rc = xv_pool_list_proxy(pool, proxy, error);
    if (rc != 0) {
        xv_proxy_unref(proxy);
        return rc;
    }
    *ret = proxy;
    return 0;
}

const struct xv_host *xv_proxy_host(const struct xv_proxy *proxy,
                                    const struct xv_inventory *inventory,
                                    struct xv_reasons *reasons)
{
    const struct xv_vm *vm = xv_inventory_vm(inventory, proxy->vm_uuid);
    const struct xv_host *host = vm == NULL ? NULL : vm->resident_on;
    if (host == NULL) {
        xv_reasons_add(reasons, XV_REASON_PROXY_NOT_RUNNING, "proxy %s, VM %s: %s", proxy->name,
                       proxy->vm_uuid, vm == NULL ? "not in the pool any more" : vm->power_state);
        return NULL;
    }
    if (!host->live) {
        xv_reasons_add(reasons, XV_REASON_PROXY_HOST_NOT_LIVE, "proxy %s, host %s (%s)",
                       proxy->name, host->name, host->uuid);
        return NULL;
    }
    return host;
}

json_t *xv_proxy_reach_to_json(const struct xv_proxy *proxy, bool is_coordinator,
                               const struct xv_inventory *inventory)
{
    struct xv_reasons reasons = {0};
    const struct xv_host *host = xv_proxy_host(proxy, inventory, &reasons);
    const struct xv_vm *vm = xv_inventory_vm(inventory, proxy->vm_uuid);
    json_t *srs = json_array();
    for (size_t i = 0; host != NULL && i < inventory->sr_count; i++) {
        const struct xv_sr *sr = &inventory->srs[i];
        if (xv_inventory_reaches(inventory, host, sr))
            json_array_append_new(srs,
                                  json_pack("{s:o, s:o, s:o, s:b}", "uuid", xv_json_text(sr->uuid),
                                            "name", xv_json_text(sr->name), "type",
                                            xv_json_text(sr->type), "shared", sr->shared));
    }
    json_t *object =
        json_pack("{s:o, s:o, s:o, s:b, s:i, s:o, s:o}", "proxy", xv_json_text(proxy->name), "vm",
                  xv_json_named(proxy->vm_uuid, vm == NULL ? NULL : vm->name), "host",
                  host == NULL ? json_null() : xv_json_named(host->uuid, host->name), "coordinator",
                  is_coordinator, "max_disks", (int)proxy->max_disks, "srs", srs, "reasons",
                  xv_reasons_to_json(&reasons));
    xv_reasons_free(&reasons);
    return object;
}

static size_t host_index(const struct xv_inventory *inventory, const struct xv_host *host)
{
    return host == NULL ? XV_SCHED_NONE : (size_t)(host - inventory->hosts);
}

int xv_site_make(const struct xv_inventory *inventory, struct xv_proxy *const *proxies,
                 size_t count, struct xv_sched_site *ret, xvsa_error **error)
{
    size_t hosts = inventory->host_count;
    size_t srs = inventory->sr_count;
    bool *attached = calloc(hosts * srs + 1, sizeof *attached);
    struct xv_sched_proxy *workers = calloc(count + 1, sizeof *workers);
    if (attached == NULL || workers == NULL) {
        free(attached);
        free(workers);
        return xv_fail_memory(error);
    }
    for (size_t i = 0; i < inventory->pbd_count; i++) {
        const struct xv_pbd *pbd = &inventory->pbds[i];
        if (pbd->attached && pbd->host != NULL && pbd->host->live && pbd->sr != NULL)
            attached[host_index(inventory, pbd->host) * srs + (size_t)(pbd->sr - inventory->srs)] =
                true;
    }
    for (size_t i = 0; i < count; i++) {
        struct xv_reasons ignored = {0};
        const struct xv_host *host = xv_proxy_host(proxies[i], inventory, &ignored);
        xv_reasons_free(&ignored);
        workers[i] = (struct xv_sched_proxy){.host = host_index(inventory, host),
                                             .capacity = proxies[i]->max_disks,
                                             .key = proxies[i]->name};
    }
    *ret = (struct xv_sched_site){.host_count = hosts,
                                  .sr_count = srs,
                                  .attached = attached,
                                  .proxies = workers,
                                  .proxy_count = count};
    return 0;
}

void xv_site_free(struct xv_sched_site *site)
{
    free((bool *)(uintptr_t)site->attached);
    free(site->proxies);
    *site = (struct xv_sched_site){0};
}
