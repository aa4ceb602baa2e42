/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "xenapi/inventory_store.h"

#include <stdlib.h>
#include <string.h>

#define COMPONENT   "xenapi"
#define BLOCK_SIZE  (64u << 10)
#define OBJECTS_MAX (4u << 20) /* of one class */

struct xv_arena_block {
    struct xv_arena_block *next;
    size_t used;
    size_t size;
    _Alignas(max_align_t) char data[];
};

struct xv_store *xv_store_new(void)
{
    struct xv_store *store = calloc(1, sizeof *store);
    if (store == NULL)
        return NULL;
    atomic_init(&store->references, 1);
    store->hosts.item_size = sizeof(struct xv_host);
    store->metrics.item_size = sizeof(struct xv_metrics);
    store->srs.item_size = sizeof(struct xv_sr);
    store->pbds.item_size = sizeof(struct xv_pbd);
    store->networks.item_size = sizeof(struct xv_network);
    store->pifs.item_size = sizeof(struct xv_pif);
    store->vdis.item_size = sizeof(struct xv_vdi);
    store->vbds.item_size = sizeof(struct xv_vbd);
    store->vifs.item_size = sizeof(struct xv_vif);
    store->vms.item_size = sizeof(struct xv_vm);
    store->drivers.item_size = sizeof(struct xv_driver);
    store->omissions.item_size = sizeof(struct xv_omission);
    return store;
}

void xv_store_free(struct xv_store *store)
{
    if (store == NULL ||
        atomic_fetch_sub_explicit(&store->references, 1, memory_order_acq_rel) != 1)
        return;
    struct xv_list *lists[] = {&store->hosts, &store->metrics,  &store->srs,
                               &store->pbds,  &store->networks, &store->pifs,
                               &store->vdis,  &store->vbds,     &store->vifs,
                               &store->vms,   &store->drivers,  &store->omissions};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        free(lists[i]->items);
        free(lists[i]->links);
    }
    while (store->arena != NULL) {
        struct xv_arena_block *block = store->arena;
        store->arena = block->next;
        free(block);
    }
    free(store->index);
    free(store);
}

/* The public part begins the store. */
struct xv_store *xv_store_of(const struct xv_inventory *inventory)
{
    return (struct xv_store *)(uintptr_t)inventory;
}

struct xv_list *xv_store_list(struct xv_store *store, const struct xv_class_reader *reader)
{
    return reader->list_offset == SIZE_MAX
               ? NULL
               : (struct xv_list *)(void *)((char *)store + reader->list_offset);
}

size_t xv_store_count(struct xv_store *store, const struct xv_class_reader *reader)
{
    const struct xv_list *list = xv_store_list(store, reader);
    const struct xv_omission *omissions = store->omissions.items;
    size_t count = list == NULL ? 1 : list->count;
    for (size_t i = 0; i < store->omissions.count; i++)
        count += strcmp(omissions[i].class_name, reader->class_name) == 0;
    return count;
}

void *xv_store_alloc(struct xv_store *store, size_t size)
{
    size = (size + sizeof(void *) - 1) & ~(sizeof(void *) - 1);
    struct xv_arena_block *block = store->arena;
    if (block == NULL || block->size - block->used < size) {
        size_t room = size > BLOCK_SIZE ? size : BLOCK_SIZE;
        block = malloc(sizeof *block + room);
        if (block == NULL)
            return NULL;
        *block = (struct xv_arena_block){.next = store->arena, .size = room};
        store->arena = block;
        store->arena_size += room;
    }
    void *memory = block->data + block->used;
    block->used += size;
    return memory;
}

void xv_store_take_text(struct xv_store *store, struct xv_store *other)
{
    struct xv_arena_block **end = &store->arena;
    while (*end != NULL)
        end = &(*end)->next;
    *end = other->arena;
    store->arena_size += other->arena_size;
    other->arena = NULL;
    other->arena_size = 0;
}

const char *xv_store_text(struct xv_store *store, const char *text)
{
    if (text == NULL || text[0] == '\0')
        return "";
    if (strcmp(text, XV_NULL_REF) == 0)
        return XV_NULL_REF;
    size_t length = strlen(text) + 1;
    char *copy = xv_store_alloc(store, length);
    return copy == NULL ? NULL : memcpy(copy, text, length);
}

static bool grow(struct xv_list *list)
{
    if (list->count == OBJECTS_MAX)
        return false;
    size_t capacity = list->capacity == 0 ? 16 : list->capacity * 2;
    void *items = realloc(list->items, capacity * list->item_size);
    if (items == NULL)
        return false;
    list->items = items;
    struct xv_links *links = realloc(list->links, capacity * sizeof *links);
    if (links == NULL)
        return false;
    list->links = links;
    list->capacity = capacity;
    return true;
}

void *xv_list_add(struct xv_list *list, const struct xv_links *links)
{
    if (list->count == list->capacity && !grow(list))
        return NULL;
    char *item = (char *)list->items + list->count * list->item_size;
    memset(item, 0, list->item_size);
    list->links[list->count] = links == NULL ? (struct xv_links){NULL, NULL} : *links;
    list->count++;
    return item;
}

/* FNV-1a; the table is only as large as the pool and a peer that makes its ids collide slows down
 * nobody but this call, which has a deadline. */
static size_t hash(enum xv_kind kind, const char *id)
{
    uint64_t value = 14695981039346656037u ^ (uint64_t)kind;
    for (; *id != '\0'; id++)
        value = (value ^ (unsigned char)*id) * 1099511628211u;
    return (size_t)(value ^ value >> 32);
}

static struct xv_index_entry *slot_of(const struct xv_store *store, enum xv_kind kind,
                                      const char *id)
{
    size_t at = hash(kind, id) & (store->index_size - 1);
    while (store->index[at].id != NULL &&
           (store->index[at].kind != kind || strcmp(store->index[at].id, id) != 0))
        at = (at + 1) & (store->index_size - 1);
    return &store->index[at];
}

static void put(struct xv_store *store, enum xv_kind kind, const char *id, const void *object)
{
    struct xv_index_entry *entry = slot_of(store, kind, id);
    if (id[0] != '\0' && entry->id == NULL)
        *entry = (struct xv_index_entry){id, object, kind};
}

const void *xv_store_find(const struct xv_store *store, enum xv_kind kind, const char *id)
{
    return id == NULL || id[0] == '\0' ? NULL : slot_of(store, kind, id)->object;
}

static int make_index(struct xv_store *store, xvsa_error **error)
{
    const struct xv_inventory *all = &store->public;
    size_t wanted = 4 * (all->host_count + all->sr_count + all->network_count + all->vm_count +
                         all->vdi_count) +
                    16;
    store->index_size = 16;
    while (store->index_size < wanted)
        store->index_size *= 2;
    store->index = calloc(store->index_size, sizeof *store->index);
    if (store->index == NULL)
        return xv_fail_memory(error);
    for (size_t i = 0; i < all->host_count; i++) {
        put(store, XV_KIND_HOST, all->hosts[i].ref, &all->hosts[i]);
        put(store, XV_KIND_HOST, all->hosts[i].uuid, &all->hosts[i]);
    }
    for (size_t i = 0; i < all->sr_count; i++) {
        put(store, XV_KIND_SR, all->srs[i].ref, &all->srs[i]);
        put(store, XV_KIND_SR, all->srs[i].uuid, &all->srs[i]);
    }
    for (size_t i = 0; i < all->network_count; i++) {
        put(store, XV_KIND_NETWORK, all->networks[i].ref, &all->networks[i]);
        put(store, XV_KIND_NETWORK, all->networks[i].uuid, &all->networks[i]);
    }
    for (size_t i = 0; i < all->vm_count; i++) {
        put(store, XV_KIND_VM, all->vms[i].ref, &all->vms[i]);
        put(store, XV_KIND_VM, all->vms[i].uuid, &all->vms[i]);
    }
    for (size_t i = 0; i < all->vdi_count; i++) {
        put(store, XV_KIND_VDI, all->vdis[i].ref, &all->vdis[i]);
        put(store, XV_KIND_VDI, all->vdis[i].uuid, &all->vdis[i]);
    }
    return 0;
}

static void publish(struct xv_store *store)
{
    struct xv_inventory *all = &store->public;
    all->hosts = store->hosts.items;
    all->host_count = store->hosts.count;
    all->srs = store->srs.items;
    all->sr_count = store->srs.count;
    all->pbds = store->pbds.items;
    all->pbd_count = store->pbds.count;
    all->networks = store->networks.items;
    all->network_count = store->networks.count;
    all->pifs = store->pifs.items;
    all->pif_count = store->pifs.count;
    all->vdis = store->vdis.items;
    all->vdi_count = store->vdis.count;
    all->vbds = store->vbds.items;
    all->vbd_count = store->vbds.count;
    all->vifs = store->vifs.items;
    all->vif_count = store->vifs.count;
    all->vms = store->vms.items;
    all->vm_count = store->vms.count;
    all->omissions = store->omissions.items;
    all->omission_count = store->omissions.count;
}

static void link_hosts(struct xv_store *store, const char *coordinator)
{
    struct xv_host *hosts = store->hosts.items;
    const struct xv_metrics *metrics = store->metrics.items;
    for (size_t i = 0; i < store->hosts.count; i++) {
        const char *wanted = store->hosts.links[i].first;
        hosts[i].coordinator = coordinator != NULL && strcmp(hosts[i].ref, coordinator) == 0;
        if (hosts[i].coordinator) {
            store->public.api_major = hosts[i].api_major;
            store->public.api_minor = hosts[i].api_minor;
        }
        for (size_t k = 0; k < store->metrics.count; k++) {
            if (strcmp(metrics[k].ref, wanted) == 0)
                hosts[i].live = metrics[k].live;
        }
    }
}

static void link_storage(struct xv_store *store)
{
    struct xv_sr *srs = store->srs.items;
    struct xv_pbd *pbds = store->pbds.items;
    struct xv_vdi *vdis = store->vdis.items;
    const struct xv_driver *drivers = store->drivers.items;
    for (size_t i = 0; i < store->srs.count; i++) {
        srs[i].thin = srs[i].declared_thin;
        for (size_t k = 0; k < store->drivers.count; k++) {
            if (strcmp(drivers[k].type, srs[i].type) != 0)
                continue;
            srs[i].supports_cbt = srs[i].supports_cbt || drivers[k].supports_cbt;
            srs[i].thin = srs[i].thin || drivers[k].thin;
        }
    }
    for (size_t i = 0; i < store->pbds.count; i++) {
        pbds[i].host = xv_store_find(store, XV_KIND_HOST, store->pbds.links[i].first);
        pbds[i].sr = xv_store_find(store, XV_KIND_SR, store->pbds.links[i].second);
    }
    for (size_t i = 0; i < store->vdis.count; i++)
        vdis[i].sr = xv_store_find(store, XV_KIND_SR, store->vdis.links[i].first);
}

static void link_devices(struct xv_store *store)
{
    struct xv_pif *pifs = store->pifs.items;
    struct xv_vbd *vbds = store->vbds.items;
    struct xv_vif *vifs = store->vifs.items;
    struct xv_vm *vms = store->vms.items;
    for (size_t i = 0; i < store->pifs.count; i++) {
        pifs[i].host = xv_store_find(store, XV_KIND_HOST, store->pifs.links[i].first);
        pifs[i].network = xv_store_find(store, XV_KIND_NETWORK, store->pifs.links[i].second);
    }
    for (size_t i = 0; i < store->vbds.count; i++) {
        vbds[i].vm = xv_store_find(store, XV_KIND_VM, store->vbds.links[i].first);
        vbds[i].vdi = xv_store_find(store, XV_KIND_VDI, store->vbds.links[i].second);
    }
    for (size_t i = 0; i < store->vifs.count; i++) {
        vifs[i].vm = xv_store_find(store, XV_KIND_VM, store->vifs.links[i].first);
        vifs[i].network = xv_store_find(store, XV_KIND_NETWORK, store->vifs.links[i].second);
    }
    for (size_t i = 0; i < store->vms.count; i++)
        vms[i].resident_on = xv_store_find(store, XV_KIND_HOST, store->vms.links[i].first);
}

/* The VM's own item, which the public interface shows as constant. */
static struct xv_vm *own_vm(struct xv_store *store, const struct xv_vm *vm)
{
    struct xv_vm *vms = store->vms.items;
    return vm == NULL ? NULL : &vms[vm - store->public.vms];
}

/* Each VM's devices, found from the devices' side: a VM's own lists may name some that are gone. */
static int group_devices(struct xv_store *store, xvsa_error **error)
{
    const struct xv_inventory *all = &store->public;
    const struct xv_vbd **vbds = xv_store_alloc(store, all->vbd_count * sizeof *vbds);
    const struct xv_vif **vifs = xv_store_alloc(store, all->vif_count * sizeof *vifs);
    if (vbds == NULL || vifs == NULL)
        return xv_fail_memory(error);
    struct xv_vm *vms = store->vms.items;
    struct xv_vm *vm;
    for (size_t i = 0; i < all->vbd_count; i++) {
        if ((vm = own_vm(store, all->vbds[i].vm)) != NULL)
            vm->vbd_count++;
    }
    for (size_t i = 0; i < all->vif_count; i++) {
        if ((vm = own_vm(store, all->vifs[i].vm)) != NULL)
            vm->vif_count++;
    }
    for (size_t i = 0; i < all->vm_count; i++) {
        vms[i].vbds = vbds;
        vms[i].vifs = vifs;
        vbds += vms[i].vbd_count;
        vifs += vms[i].vif_count;
        vms[i].vbd_count = 0;
        vms[i].vif_count = 0;
    }
    for (size_t i = 0; i < all->vbd_count; i++) {
        if ((vm = own_vm(store, all->vbds[i].vm)) != NULL)
            ((const struct xv_vbd **)(uintptr_t)vm->vbds)[vm->vbd_count++] = &all->vbds[i];
    }
    for (size_t i = 0; i < all->vif_count; i++) {
        if ((vm = own_vm(store, all->vifs[i].vm)) != NULL)
            ((const struct xv_vif **)(uintptr_t)vm->vifs)[vm->vif_count++] = &all->vifs[i];
    }
    return 0;
}

/* By position: a pool lists them in any order. */
static int compare_devices(const char *left, const char *right)
{
    long a = strtol(left, NULL, 10);
    long b = strtol(right, NULL, 10);
    return a != b ? (a < b ? -1 : 1) : strcmp(left, right);
}

static int compare_vbds(const void *left, const void *right)
{
    return compare_devices((*(const struct xv_vbd *const *)left)->device,
                           (*(const struct xv_vbd *const *)right)->device);
}

static int compare_vifs(const void *left, const void *right)
{
    return compare_devices((*(const struct xv_vif *const *)left)->device,
                           (*(const struct xv_vif *const *)right)->device);
}

static void sort_devices(struct xv_store *store)
{
    for (size_t i = 0; i < store->public.vm_count; i++) {
        struct xv_vm *vm = &((struct xv_vm *)store->vms.items)[i];
        if (vm->vbd_count > 1)
            qsort((void *)(uintptr_t)vm->vbds, vm->vbd_count, sizeof(struct xv_vbd *),
                  compare_vbds);
        if (vm->vif_count > 1)
            qsort((void *)(uintptr_t)vm->vifs, vm->vif_count, sizeof(struct xv_vif *),
                  compare_vifs);
    }
}

int xv_store_finish(struct xv_store *store, xvsa_error **error)
{
    publish(store);
    int rc = make_index(store, error);
    if (rc != 0)
        return rc;
    link_hosts(store, store->coordinator);
    link_storage(store);
    link_devices(store);
    const struct xv_sr *default_sr = xv_store_find(store, XV_KIND_SR, store->default_sr);
    store->public.default_sr = default_sr == NULL ? NULL : default_sr->ref;
    rc = xv_store_link_chains(store, error);
    if (rc == 0)
        rc = group_devices(store, error);
    if (rc == 0)
        sort_devices(store);
    return rc;
}
