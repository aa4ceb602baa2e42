/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * From records to objects. A member that a server does not have gets the value that means "feature
 * absent".
 */
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "xenapi/inventory_store.h"
#include "xenapi/operations.h"

/* Copies texts of one record; remembers whether memory ran out. */
struct copier {
    struct xv_store *store;
    const struct xv_value *record;
    bool failed;
};

static const char *keep(struct copier *copier, const char *value)
{
    const char *copy = xv_store_text(copier->store, value);
    copier->failed = copier->failed || copy == NULL;
    return copy == NULL ? "" : copy;
}

static const char *text(struct copier *copier, const char *key)
{
    return keep(copier, xv_value_get_string(copier->record, key, ""));
}

static const char *ref_of(struct copier *copier, const char *key)
{
    return keep(copier, xv_value_get_string(copier->record, key, XV_NULL_REF));
}

/* A map's entry, or NULL when it is not there. */
static const char *entry(struct copier *copier, const char *map, const char *key)
{
    const char *value = xv_value_get_string(xv_value_get(copier->record, map), key, NULL);
    return value == NULL ? NULL : keep(copier, value);
}

static bool flag(const struct copier *copier, const char *key)
{
    return xv_value_get_bool(copier->record, key, false);
}

static uint64_t size_of(const struct copier *copier, const char *key)
{
    int64_t size = xv_value_get_int(copier->record, key, 0);
    return size < 0 ? 0 : (uint64_t)size;
}

static bool set_holds(const struct xv_value *set, const char *wanted)
{
    for (size_t i = 0; i < xv_value_count(set); i++) {
        if (strcmp(xv_value_string(xv_value_at(set, i), ""), wanted) == 0)
            return true;
    }
    return false;
}

static int finish(const struct copier *copier, const void *item, xvsa_error **error)
{
    return item == NULL || copier->failed ? xv_fail_memory(error) : 0;
}

static int read_pool(void *user, const char *ref, const struct xv_value *record, xvsa_error **error)
{
    struct copier copier = {.store = user, .record = record};
    struct xv_inventory *all = &copier.store->public;
    const struct xv_value *restrictions = xv_value_get(record, "restrictions");
    all->pool_ref = keep(&copier, ref);
    all->pool_uuid = text(&copier, "uuid");
    all->pool_name = text(&copier, "name_label");
    copier.store->default_sr = ref_of(&copier, "default_SR");
    all->cbt_licensed = strcmp(xv_value_get_string(restrictions, "restrict_cbt", ""), "false") == 0;
    copier.store->coordinator = ref_of(&copier, "master");
    return finish(&copier, record, error);
}

static int read_host(void *user, const char *ref, const struct xv_value *record, xvsa_error **error)
{
    struct copier copier = {.store = user, .record = record};
    const struct xv_value *software = xv_value_get(record, "software_version");
    struct xv_links links = {.first = ref_of(&copier, "metrics")};
    struct xv_host *host = xv_list_add(&copier.store->hosts, &links);
    char product[200];
    if (host == NULL)
        return xv_fail_memory(error);
    snprintf(product, sizeof product, "%.90s %.90s",
             xv_value_get_string(software, "product_brand", ""),
             xv_value_get_string(software, "product_version", ""));
    host->ref = keep(&copier, ref);
    host->uuid = text(&copier, "uuid");
    host->name = text(&copier, "name_label");
    host->address = text(&copier, "address");
    host->product = keep(&copier, product[0] == ' ' ? product + 1 : product);
    host->enabled = flag(&copier, "enabled");
    host->api_major = xv_value_get_int(record, "API_version_major", 0);
    host->api_minor = xv_value_get_int(record, "API_version_minor", 0);
    return finish(&copier, host, error);
}

static int read_metrics(void *user, const char *ref, const struct xv_value *record,
                        xvsa_error **error)
{
    struct copier copier = {.store = user, .record = record};
    struct xv_metrics *metrics = xv_list_add(&copier.store->metrics, NULL);
    if (metrics == NULL)
        return xv_fail_memory(error);
    metrics->ref = keep(&copier, ref);
    metrics->live = flag(&copier, "live");
    return finish(&copier, metrics, error);
}

static bool has_feature(const struct xv_value *record, const char *name)
{
    return xv_value_get(xv_value_get(record, "features"), name) != NULL ||
           set_holds(xv_value_get(record, "capabilities"), name);
}

static int read_driver(void *user, const char *ref, const struct xv_value *record,
                       xvsa_error **error)
{
    struct copier copier = {.store = user, .record = record};
    struct xv_driver *driver = xv_list_add(&copier.store->drivers, NULL);
    if (driver == NULL)
        return xv_fail_memory(error);
    driver->ref = keep(&copier, ref);
    driver->type = text(&copier, "type");
    driver->supports_cbt = has_feature(record, "VDI_CONFIG_CBT");
    driver->thin = has_feature(record, "THIN_PROVISIONING");
    return finish(&copier, driver, error);
}

static bool entry_is(const struct xv_value *record, const char *map, const char *key,
                     const char *wanted)
{
    return strcmp(xv_value_get_string(xv_value_get(record, map), key, ""), wanted) == 0;
}

static int read_sr(void *user, const char *ref, const struct xv_value *record, xvsa_error **error)
{
    struct copier copier = {.store = user, .record = record};
    struct xv_sr *sr = xv_list_add(&copier.store->srs, NULL);
    if (sr == NULL)
        return xv_fail_memory(error);
    sr->ref = keep(&copier, ref);
    sr->uuid = text(&copier, "uuid");
    sr->name = text(&copier, "name_label");
    sr->type = text(&copier, "type");
    sr->content_type = text(&copier, "content_type");
    sr->shared = flag(&copier, "shared");
    sr->physical_size = size_of(&copier, "physical_size");
    sr->physical_used = size_of(&copier, "physical_utilisation");
    sr->virtual_allocation = size_of(&copier, "virtual_allocation");
    sr->declared_thin = entry_is(record, "sm_config", "allocation", "thin");
    sr->coalesces = !entry_is(record, "other_config", "gc", "false") &&
                    !entry_is(record, "other_config", "coalesce", "false");
    return finish(&copier, sr, error);
}

static int read_pbd(void *user, const char *ref, const struct xv_value *record, xvsa_error **error)
{
    struct copier copier = {.store = user, .record = record};
    struct xv_links links = {ref_of(&copier, "host"), ref_of(&copier, "SR")};
    struct xv_pbd *pbd = xv_list_add(&copier.store->pbds, &links);
    if (pbd == NULL)
        return xv_fail_memory(error);
    pbd->ref = keep(&copier, ref);
    pbd->attached = flag(&copier, "currently_attached");
    return finish(&copier, pbd, error);
}

static int read_network(void *user, const char *ref, const struct xv_value *record,
                        xvsa_error **error)
{
    struct copier copier = {.store = user, .record = record};
    struct xv_network *network = xv_list_add(&copier.store->networks, NULL);
    if (network == NULL)
        return xv_fail_memory(error);
    network->ref = keep(&copier, ref);
    network->uuid = text(&copier, "uuid");
    network->name = text(&copier, "name_label");
    network->bridge = text(&copier, "bridge");
    network->nbd = set_holds(xv_value_get(record, "purpose"), "nbd");
    network->insecure_nbd = set_holds(xv_value_get(record, "purpose"), "insecure_nbd");
    return finish(&copier, network, error);
}

static int read_pif(void *user, const char *ref, const struct xv_value *record, xvsa_error **error)
{
    struct copier copier = {.store = user, .record = record};
    struct xv_links links = {ref_of(&copier, "host"), ref_of(&copier, "network")};
    struct xv_pif *pif = xv_list_add(&copier.store->pifs, &links);
    if (pif == NULL)
        return xv_fail_memory(error);
    pif->ref = keep(&copier, ref);
    pif->address = text(&copier, "IP");
    pif->attached = flag(&copier, "currently_attached");
    pif->management = flag(&copier, "management");
    return finish(&copier, pif, error);
}

static int read_vdi(void *user, const char *ref, const struct xv_value *record, xvsa_error **error)
{
    struct copier copier = {.store = user, .record = record};
    struct xv_links links = {.first = ref_of(&copier, "SR")};
    struct xv_vdi *vdi = xv_list_add(&copier.store->vdis, &links);
    if (vdi == NULL)
        return xv_fail_memory(error);
    vdi->ref = keep(&copier, ref);
    vdi->uuid = text(&copier, "uuid");
    vdi->name = text(&copier, "name_label");
    vdi->type = text(&copier, "type");
    vdi->snapshot_of = ref_of(&copier, "snapshot_of");
    vdi->size = size_of(&copier, "virtual_size");
    vdi->physical_used = size_of(&copier, "physical_utilisation");
    vdi->managed = xv_value_get_bool(record, "managed", true);
    vdi->missing = flag(&copier, "missing");
    vdi->sharable = flag(&copier, "sharable");
    vdi->read_only = flag(&copier, "read_only");
    vdi->is_snapshot = flag(&copier, "is_a_snapshot");
    vdi->cbt_enabled = flag(&copier, "cbt_enabled");
    vdi->reset_on_boot = strcmp(xv_value_get_string(record, "on_boot", ""), "reset") == 0;
    vdi->vhd_parent = entry(&copier, "sm_config", "vhd-parent");
    vdi->tag = entry(&copier, "other_config", XV_TAG_KEY);
    return finish(&copier, vdi, error);
}

static int read_vbd(void *user, const char *ref, const struct xv_value *record, xvsa_error **error)
{
    struct copier copier = {.store = user, .record = record};
    struct xv_links links = {ref_of(&copier, "VM"), ref_of(&copier, "VDI")};
    struct xv_vbd *vbd = xv_list_add(&copier.store->vbds, &links);
    if (vbd == NULL)
        return xv_fail_memory(error);
    vbd->ref = keep(&copier, ref);
    vbd->device = text(&copier, "userdevice");
    vbd->type = text(&copier, "type");
    vbd->mode = text(&copier, "mode");
    vbd->bootable = flag(&copier, "bootable");
    vbd->attached = flag(&copier, "currently_attached");
    vbd->tag = entry(&copier, "other_config", XV_TAG_KEY);
    return finish(&copier, vbd, error);
}

static int read_vif(void *user, const char *ref, const struct xv_value *record, xvsa_error **error)
{
    struct copier copier = {.store = user, .record = record};
    struct xv_links links = {ref_of(&copier, "VM"), ref_of(&copier, "network")};
    struct xv_vif *vif = xv_list_add(&copier.store->vifs, &links);
    if (vif == NULL)
        return xv_fail_memory(error);
    vif->ref = keep(&copier, ref);
    vif->device = text(&copier, "device");
    vif->mac = text(&copier, "MAC");
    return finish(&copier, vif, error);
}

static void read_tags(struct copier *copier, struct xv_vm *vm)
{
    const struct xv_value *tags = xv_value_get(copier->record, "tags");
    size_t count = xv_value_kind(tags) == XV_VALUE_ARRAY ? xv_value_count(tags) : 0;
    if (count == 0)
        return;
    const char **copies = xv_store_alloc(copier->store, count * sizeof *copies);
    if (copies == NULL) {
        copier->failed = true;
        return;
    }
    for (size_t i = 0; i < count; i++)
        copies[i] = keep(copier, xv_value_string(xv_value_at(tags, i), ""));
    vm->tags = copies;
    vm->tag_count = count;
}

static int read_vm(void *user, const char *ref, const struct xv_value *record, xvsa_error **error)
{
    struct copier copier = {.store = user, .record = record};
    struct xv_links links = {.first = ref_of(&copier, "resident_on")};
    struct xv_vm *vm = xv_list_add(&copier.store->vms, &links);
    if (vm == NULL)
        return xv_fail_memory(error);
    vm->ref = keep(&copier, ref);
    vm->uuid = text(&copier, "uuid");
    vm->name = text(&copier, "name_label");
    vm->power_state = text(&copier, "power_state");
    vm->snapshot_of = ref_of(&copier, "snapshot_of");
    vm->is_template = flag(&copier, "is_a_template");
    vm->is_snapshot = flag(&copier, "is_a_snapshot");
    vm->is_control_domain = flag(&copier, "is_control_domain");
    vm->has_vusbs = xv_value_count(xv_value_get(record, "VUSBs")) > 0;
    vm->tag = entry(&copier, "other_config", XV_TAG_KEY);
    read_tags(&copier, vm);
    return finish(&copier, vm, error);
}

static bool always_moves(const void *before, const struct xv_links *links_before, const void *after,
                         const struct xv_links *links_after)
{
    (void)before;
    (void)links_before;
    (void)after;
    (void)links_after;
    return true;
}

/* Their fill level changes all the time. */
static bool sr_moves(const void *before, const struct xv_links *links_before, const void *after,
                     const struct xv_links *links_after)
{
    const struct xv_sr *old = before;
    const struct xv_sr *new = after;
    (void)links_before;
    (void)links_after;
    return old == NULL || new == NULL || old->shared != new->shared ||
           strcmp(old->type, new->type) != 0;
}

static const char *place_of(const void *vm, const struct xv_links *links)
{
    return vm == NULL ? XV_NULL_REF : links->first;
}

static bool vm_moves(const void *before, const struct xv_links *links_before, const void *after,
                     const struct xv_links *links_after)
{
    return strcmp(place_of(before, links_before), place_of(after, links_after)) != 0;
}

#define TEXTS(type, ...) static const size_t type##_texts[] = {__VA_ARGS__}
#define AT(type, member) offsetof(struct xv_##type, member)
TEXTS(host, AT(host, ref), AT(host, uuid), AT(host, name), AT(host, address), AT(host, product));
TEXTS(metrics, AT(metrics, ref));
TEXTS(driver, AT(driver, ref), AT(driver, type));
TEXTS(sr, AT(sr, ref), AT(sr, uuid), AT(sr, name), AT(sr, type), AT(sr, content_type));
TEXTS(pbd, AT(pbd, ref));
TEXTS(network, AT(network, ref), AT(network, uuid), AT(network, name), AT(network, bridge));
TEXTS(pif, AT(pif, ref), AT(pif, address));
TEXTS(vdi, AT(vdi, ref), AT(vdi, uuid), AT(vdi, name), AT(vdi, type), AT(vdi, snapshot_of),
      AT(vdi, vhd_parent), AT(vdi, tag));
TEXTS(vbd, AT(vbd, ref), AT(vbd, device), AT(vbd, type), AT(vbd, mode), AT(vbd, tag));
TEXTS(vif, AT(vif, ref), AT(vif, device), AT(vif, mac));
TEXTS(vm, AT(vm, ref), AT(vm, uuid), AT(vm, name), AT(vm, power_state), AT(vm, snapshot_of),
      AT(vm, tag));

#define MEMBERS(type, ...) static const char *const type##_members[] = {__VA_ARGS__, NULL}
MEMBERS(pool, "uuid", "name_label", "default_SR", "master", "restrictions");
MEMBERS(host, "uuid", "name_label", "address", "enabled", "metrics", "software_version",
        "API_version_major", "API_version_minor");
MEMBERS(metrics, "live");
MEMBERS(driver, "type", "features", "capabilities");
MEMBERS(sr, "uuid", "name_label", "type", "content_type", "shared", "physical_size",
        "physical_utilisation", "virtual_allocation", "sm_config", "other_config");
MEMBERS(pbd, "host", "SR", "currently_attached");
MEMBERS(network, "uuid", "name_label", "bridge", "purpose");
MEMBERS(pif, "host", "network", "IP", "currently_attached", "management");
MEMBERS(vdi, "uuid", "name_label", "type", "SR", "snapshot_of", "virtual_size",
        "physical_utilisation", "managed", "missing", "sharable", "read_only", "is_a_snapshot",
        "cbt_enabled", "on_boot", "sm_config", "other_config");
MEMBERS(vbd, "VM", "VDI", "userdevice", "type", "mode", "bootable", "currently_attached",
        "other_config");
MEMBERS(vif, "VM", "network", "device", "MAC");
MEMBERS(vm, "uuid", "name_label", "power_state", "resident_on", "snapshot_of", "is_a_template",
        "is_a_snapshot", "is_control_domain", "VUSBs", "other_config", "tags");

#define LIST(class_name, name, type, moves)                                                        \
    {                                                                                              \
        class_name, type##_members, read_##type, offsetof(struct xv_store, name), false,           \
            type##_texts, sizeof type##_texts / sizeof(size_t), moves                              \
    }

const struct xv_class_reader xv_class_readers[] = {
    {"pool", pool_members, read_pool, SIZE_MAX, false, NULL, 0, always_moves},
    LIST("host", hosts, host, always_moves),
    LIST("host_metrics", metrics, metrics, always_moves),
    {"SM", driver_members, read_driver, offsetof(struct xv_store, drivers), true, driver_texts,
     sizeof driver_texts / sizeof(size_t), NULL},
    LIST("SR", srs, sr, sr_moves),
    LIST("PBD", pbds, pbd, always_moves),
    LIST("network", networks, network, NULL),
    LIST("PIF", pifs, pif, NULL),
    LIST("VIF", vifs, vif, NULL),
    LIST("VBD", vbds, vbd, NULL),
    LIST("VDI", vdis, vdi, NULL),
    LIST("VM", vms, vm, vm_moves),
};
const size_t xv_class_reader_count = sizeof xv_class_readers / sizeof xv_class_readers[0];
