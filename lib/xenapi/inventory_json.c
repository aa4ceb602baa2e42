/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The JSON document "inventory" (docs/documents.md).
 */
#include <string.h>

#include "xenapi/inventory.h"

/* Text from a pool is valid UTF-8, for it came out of an XML parser. NULL becomes null. */
static json_t *text(const char *value)
{
    return value == NULL ? json_null() : json_string(value);
}

static json_t *size(uint64_t value)
{
    return json_integer(value > INT64_MAX ? INT64_MAX : (json_int_t)value);
}

static json_t *host_json(const struct xv_host *host)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:b, s:b, s:b}", "uuid", text(host->uuid), "name",
                     text(host->name), "address", text(host->address), "product",
                     text(host->product), "enabled", host->enabled, "live", host->live,
                     "coordinator", host->coordinator);
}

static json_t *hosts_of_sr(const struct xv_inventory *all, const struct xv_sr *sr)
{
    json_t *hosts = json_array();
    for (size_t i = 0; i < all->host_count; i++) {
        if (xv_inventory_reaches(all, &all->hosts[i], sr))
            json_array_append_new(hosts, text(all->hosts[i].uuid));
    }
    return hosts;
}

static json_t *sr_json(const struct xv_inventory *all, const struct xv_sr *sr)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:b, s:b, s:b, s:b, s:o, s:o, s:o, s:o}", "uuid",
                     text(sr->uuid), "name", text(sr->name), "type", text(sr->type), "content_type",
                     text(sr->content_type), "shared", sr->shared, "supports_cbt", sr->supports_cbt,
                     "thin", sr->thin, "coalesces", sr->coalesces, "physical_size",
                     size(sr->physical_size), "physical_used", size(sr->physical_used),
                     "virtual_allocation", size(sr->virtual_allocation), "hosts",
                     hosts_of_sr(all, sr));
}

static json_t *addresses_of(const struct xv_inventory *all, const struct xv_network *network)
{
    json_t *addresses = json_array();
    for (size_t i = 0; i < all->pif_count; i++) {
        const struct xv_pif *pif = &all->pifs[i];
        if (pif->network == network && pif->host != NULL && pif->attached &&
            pif->address[0] != '\0')
            json_array_append_new(addresses, json_pack("{s:o, s:o}", "host", text(pif->host->uuid),
                                                       "address", text(pif->address)));
    }
    return addresses;
}

static json_t *network_json(const struct xv_inventory *all, const struct xv_network *network)
{
    const char *nbd = network->nbd ? "tls" : network->insecure_nbd ? "insecure" : "none";
    return json_pack("{s:o, s:o, s:o, s:s, s:o}", "uuid", text(network->uuid), "name",
                     text(network->name), "bridge", text(network->bridge), "nbd", nbd, "addresses",
                     addresses_of(all, network));
}

static json_t *disk_json(const struct xv_vbd *vbd)
{
    const struct xv_vdi *vdi = vbd->vdi;
    return json_pack("{s:o, s:b, s:o, s:o, s:o, s:o, s:o, s:o, s:b, s:b, s:b, s:i, s:b}", "device",
                     text(vbd->device), "bootable", vbd->bootable, "mode", text(vbd->mode), "uuid",
                     text(vdi->uuid), "name", text(vdi->name), "sr",
                     text(vdi->sr == NULL ? NULL : vdi->sr->uuid), "size", size(vdi->size),
                     "physical_used", size(vdi->physical_used), "cbt_enabled", vdi->cbt_enabled,
                     "sharable", vdi->sharable, "attached", vbd->attached, "chain", (int)vdi->chain,
                     "coalescible", vdi->coalescible);
}

static json_t *disks_json(const struct xv_vm *vm)
{
    json_t *disks = json_array();
    for (size_t i = 0; i < vm->vbd_count; i++) {
        if (vm->vbds[i]->vdi != NULL && strcmp(vm->vbds[i]->type, "Disk") == 0)
            json_array_append_new(disks, disk_json(vm->vbds[i]));
    }
    return disks;
}

static json_t *interfaces_json(const struct xv_vm *vm)
{
    json_t *interfaces = json_array();
    for (size_t i = 0; i < vm->vif_count; i++) {
        const struct xv_vif *vif = vm->vifs[i];
        json_array_append_new(interfaces,
                              json_pack("{s:o, s:o, s:o}", "device", text(vif->device), "mac",
                                        text(vif->mac), "network",
                                        text(vif->network == NULL ? NULL : vif->network->uuid)));
    }
    return interfaces;
}

static json_t *tags_json(const struct xv_vm *vm)
{
    json_t *tags = json_array();
    for (size_t i = 0; i < vm->tag_count; i++)
        json_array_append_new(tags, text(vm->tags[i]));
    return tags;
}

static json_t *vm_json(const struct xv_vm *vm)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "uuid", text(vm->uuid), "name",
                     text(vm->name), "power_state", text(vm->power_state), "host",
                     text(vm->resident_on == NULL ? NULL : vm->resident_on->uuid), "tags",
                     tags_json(vm), "disks", disks_json(vm), "interfaces", interfaces_json(vm));
}

static json_t *pool_json(const struct xv_inventory *all)
{
    const struct xv_sr *sr = xv_inventory_sr(all, all->default_sr);
    return json_pack("{s:o, s:o, s:I, s:I, s:b, s:o}", "uuid", text(all->pool_uuid), "name",
                     text(all->pool_name), "api_major", (json_int_t)all->api_major, "api_minor",
                     (json_int_t)all->api_minor, "cbt_licensed", all->cbt_licensed, "default_sr",
                     text(sr == NULL ? NULL : sr->uuid));
}

/* Arrays append even after a failure; a missing element shows as a failed pack. */
json_t *xv_inventory_to_json(const struct xv_inventory *all)
{
    json_t *hosts = json_array();
    json_t *srs = json_array();
    json_t *networks = json_array();
    json_t *vms = json_array();
    json_t *omissions = json_array();
    int failed = 0;
    for (size_t i = 0; i < all->host_count; i++)
        failed |= json_array_append_new(hosts, host_json(&all->hosts[i]));
    for (size_t i = 0; i < all->sr_count; i++)
        failed |= json_array_append_new(srs, sr_json(all, &all->srs[i]));
    for (size_t i = 0; i < all->network_count; i++)
        failed |= json_array_append_new(networks, network_json(all, &all->networks[i]));
    for (size_t i = 0; i < all->vm_count; i++) {
        const struct xv_vm *vm = &all->vms[i];
        if (!vm->is_template && !vm->is_snapshot && !vm->is_control_domain)
            failed |= json_array_append_new(vms, vm_json(vm));
    }
    for (size_t i = 0; i < all->omission_count; i++) {
        const struct xv_omission *omission = &all->omissions[i];
        failed |= json_array_append_new(
            omissions, json_pack("{s:s, s:o, s:o}", "class", omission->class_name, "ref",
                                 text(omission->ref), "why", text(omission->why)));
    }
    json_t *whole =
        json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "pool", pool_json(all), "hosts", hosts, "srs",
                  srs, "networks", networks, "vms", vms, "omissions", omissions);
    if (failed == 0)
        return whole;
    json_decref(whole);
    return NULL;
}
