/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Stores made of stores: a copy of the records, with text of their own (no text that was replaced before
 * goes along), and the union of stores that hold different classes.
 */
#include <stdlib.h>
#include <string.h>

#include "xenapi/inventory_store.h"

struct copier {
    struct xv_store *to;
    bool failed;
};

static const char *keep(struct copier *copier, const char *text)
{
    if (text == NULL)
        return NULL;
    const char *copy = xv_store_text(copier->to, text);
    copier->failed = copier->failed || copy == NULL;
    return copy == NULL ? "" : copy;
}

static void copy_texts(struct copier *copier, const struct xv_class_reader *reader, char *item)
{
    for (size_t i = 0; i < reader->text_count; i++) {
        const char **text = (const char **)(void *)(item + reader->texts[i]);
        *text = keep(copier, *text);
    }
}

static bool reserve(struct xv_list *list, size_t count)
{
    if (count == 0)
        return true;
    list->items = calloc(count, list->item_size);
    list->links = calloc(count, sizeof *list->links);
    list->capacity = list->items == NULL || list->links == NULL ? 0 : count;
    return list->capacity > 0;
}

static void copy_list(struct copier *copier, const struct xv_class_reader *reader,
                      const struct xv_list *from, struct xv_list *to)
{
    if (!reserve(to, from->count)) {
        copier->failed = true;
        return;
    }
    for (size_t i = 0; i < from->count; i++) {
        char *item = (char *)to->items + i * to->item_size;
        memcpy(item, (const char *)from->items + i * from->item_size, to->item_size);
        copy_texts(copier, reader, item);
        to->links[i].first = keep(copier, from->links[i].first);
        to->links[i].second = keep(copier, from->links[i].second);
    }
    to->count = from->count;
}

static void copy_tags(struct copier *copier)
{
    struct xv_vm *vms = copier->to->vms.items;
    for (size_t i = 0; i < copier->to->vms.count; i++) {
        if (vms[i].tag_count == 0)
            continue;
        const char **tags = xv_store_alloc(copier->to, vms[i].tag_count * sizeof *tags);
        if (tags == NULL) {
            copier->failed = true;
            return;
        }
        for (size_t k = 0; k < vms[i].tag_count; k++)
            tags[k] = keep(copier, vms[i].tags[k]);
        vms[i].tags = tags;
    }
}

/* What finishing found out: it is found out anew, and items can be compared with what was just read. */
static void unresolve(struct xv_store *store)
{
    struct xv_host *hosts = store->hosts.items;
    struct xv_sr *srs = store->srs.items;
    struct xv_pbd *pbds = store->pbds.items;
    struct xv_pif *pifs = store->pifs.items;
    struct xv_vdi *vdis = store->vdis.items;
    for (size_t i = 0; i < store->hosts.count; i++) {
        hosts[i].live = false;
        hosts[i].coordinator = false;
    }
    for (size_t i = 0; i < store->srs.count; i++) {
        srs[i].supports_cbt = false;
        srs[i].thin = false;
    }
    for (size_t i = 0; i < store->pbds.count; i++) {
        pbds[i].host = NULL;
        pbds[i].sr = NULL;
    }
    for (size_t i = 0; i < store->pifs.count; i++) {
        pifs[i].host = NULL;
        pifs[i].network = NULL;
    }
    for (size_t i = 0; i < store->vdis.count; i++) {
        vdis[i].sr = NULL;
        vdis[i].chain = 0;
        vdis[i].coalescible = false;
    }
}

static void unresolve_vms(struct xv_store *store)
{
    struct xv_vbd *vbds = store->vbds.items;
    struct xv_vif *vifs = store->vifs.items;
    struct xv_vm *vms = store->vms.items;
    for (size_t i = 0; i < store->vbds.count; i++) {
        vbds[i].vm = NULL;
        vbds[i].vdi = NULL;
    }
    for (size_t i = 0; i < store->vifs.count; i++) {
        vifs[i].vm = NULL;
        vifs[i].network = NULL;
    }
    for (size_t i = 0; i < store->vms.count; i++) {
        vms[i].resident_on = NULL;
        vms[i].vbds = NULL;
        vms[i].vifs = NULL;
        vms[i].vbd_count = 0;
        vms[i].vif_count = 0;
    }
}

static void copy_omissions(struct copier *copier, const struct xv_list *from)
{
    const struct xv_omission *omissions = from->items;
    for (size_t i = 0; i < from->count; i++) {
        struct xv_omission *omission = xv_list_add(&copier->to->omissions, NULL);
        if (omission == NULL) {
            copier->failed = true;
            return;
        }
        omission->class_name = omissions[i].class_name;
        omission->ref = keep(copier, omissions[i].ref);
        omission->why = keep(copier, omissions[i].why);
    }
}

static void copy_pool(struct copier *copier, const struct xv_store *from)
{
    struct xv_inventory *all = &copier->to->public;
    all->pool_ref = keep(copier, from->public.pool_ref);
    all->pool_uuid = keep(copier, from->public.pool_uuid);
    all->pool_name = keep(copier, from->public.pool_name);
    all->cbt_licensed = from->public.cbt_licensed;
    all->epoch = from->public.epoch;
    all->generation = from->public.generation;
    copier->to->coordinator = keep(copier, from->coordinator);
    copier->to->default_sr = keep(copier, from->default_sr);
}

int xv_store_copy(const struct xv_store *from, struct xv_store **ret, xvsa_error **error)
{
    struct copier copier = {.to = xv_store_new()};
    if (copier.to == NULL)
        return xv_fail_memory(error);
    copy_pool(&copier, from);
    for (size_t i = 0; !copier.failed && i < xv_class_reader_count; i++) {
        const struct xv_class_reader *reader = &xv_class_readers[i];
        struct xv_list *list = xv_store_list(copier.to, reader);
        if (list != NULL)
            copy_list(&copier, reader, xv_store_list((struct xv_store *)(uintptr_t)from, reader),
                      list);
    }
    if (!copier.failed)
        copy_tags(&copier);
    if (!copier.failed)
        copy_omissions(&copier, &from->omissions);
    if (copier.failed) {
        xv_store_free(copier.to);
        return xv_fail_memory(error);
    }
    unresolve(copier.to);
    unresolve_vms(copier.to);
    *ret = copier.to;
    return 0;
}

static void take_pool(struct xv_store *store, const struct xv_store *other)
{
    struct xv_inventory *all = &store->public;
    if (other->public.pool_ref == NULL)
        return;
    all->pool_ref = other->public.pool_ref;
    all->pool_uuid = other->public.pool_uuid;
    all->pool_name = other->public.pool_name;
    all->cbt_licensed = other->public.cbt_licensed;
    store->coordinator = other->coordinator;
    store->default_sr = other->default_sr;
}

int xv_store_join(struct xv_store *store, struct xv_store *other, xvsa_error **error)
{
    const struct xv_omission *omissions = other->omissions.items;
    take_pool(store, other);
    for (size_t i = 0; i < other->omissions.count; i++) {
        struct xv_omission *omission = xv_list_add(&store->omissions, NULL);
        if (omission == NULL)
            return xv_fail_memory(error);
        *omission = omissions[i];
    }
    other->omissions.count = 0;
    for (size_t i = 0; i < xv_class_reader_count; i++) {
        struct xv_list *to = xv_store_list(store, &xv_class_readers[i]);
        struct xv_list *from = xv_store_list(other, &xv_class_readers[i]);
        if (to == NULL || from->count == 0)
            continue;
        free(to->items);
        free(to->links);
        *to = *from;
        *from = (struct xv_list){.item_size = from->item_size};
    }
    xv_store_take_text(store, other);
    return 0;
}
