/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Records are found by class and reference in a table with open addressing; a record that goes leaves
 * its place to the last one of its class.
 */
#include "xenapi/inventory_draft.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define ITEM_MAX    256        /* bytes of an item */
#define GARBAGE_MIN (1u << 20) /* replaced text that is put up with */

_Static_assert(sizeof(struct xv_vm) <= ITEM_MAX && sizeof(struct xv_vdi) <= ITEM_MAX &&
                   sizeof(struct xv_sr) <= ITEM_MAX && sizeof(struct xv_host) <= ITEM_MAX &&
                   sizeof(struct xv_network) <= ITEM_MAX && sizeof(struct xv_vbd) <= ITEM_MAX,
               "items are compared in buffers of this size");

/* Where a record is. list is NULL in a free slot. */
struct slot {
    const struct xv_list *list;
    size_t index;
};

struct xv_draft {
    struct xv_store *store; /* not finished */
    struct slot *slots;
    size_t slot_count; /* a power of two */
    size_t used;
    size_t fresh_size; /* of the store's text when nothing was replaced yet */
};

static const char *ref_at(const struct xv_list *list, size_t index)
{
    const char *const *item = (const void *)((const char *)list->items + index * list->item_size);
    return *item;
}

/* As in the inventory's index: nobody but this pool's own reader suffers from collisions. */
static size_t hash(const struct xv_list *list, const char *ref)
{
    uint64_t value = 14695981039346656037u ^ (uint64_t)(uintptr_t)list;
    for (; *ref != '\0'; ref++)
        value = (value ^ (unsigned char)*ref) * 1099511628211u;
    return (size_t)(value ^ value >> 32);
}

/* The record's slot, or the free one where it would be. */
static struct slot *find(const struct xv_draft *draft, const struct xv_list *list, const char *ref)
{
    size_t at = hash(list, ref) & (draft->slot_count - 1);
    while (
        draft->slots[at].list != NULL &&
        (draft->slots[at].list != list || strcmp(ref_at(list, draft->slots[at].index), ref) != 0))
        at = (at + 1) & (draft->slot_count - 1);
    return &draft->slots[at];
}

/* Frees a slot; those that were pushed behind it move up. */
static void release(struct xv_draft *draft, struct slot *slot)
{
    size_t mask = draft->slot_count - 1;
    size_t hole = (size_t)(slot - draft->slots);
    for (size_t at = (hole + 1) & mask; draft->slots[at].list != NULL; at = (at + 1) & mask) {
        const struct slot *other = &draft->slots[at];
        size_t home = hash(other->list, ref_at(other->list, other->index)) & mask;
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            draft->slots[hole] = *other;
            hole = at;
        }
    }
    draft->slots[hole].list = NULL;
    draft->used--;
}

static void fill_table(struct xv_draft *draft)
{
    draft->used = 0;
    for (size_t i = 0; i < xv_class_reader_count; i++) {
        const struct xv_list *list = xv_store_list(draft->store, &xv_class_readers[i]);
        for (size_t k = 0; list != NULL && k < list->count; k++) {
            *find(draft, list, ref_at(list, k)) = (struct slot){list, k};
            draft->used++;
        }
    }
}

static size_t count_records(struct xv_store *store)
{
    size_t count = 0;
    for (size_t i = 0; i < xv_class_reader_count; i++) {
        const struct xv_list *list = xv_store_list(store, &xv_class_readers[i]);
        count += list == NULL ? 0 : list->count;
    }
    return count;
}

static int make_table(struct xv_draft *draft, xvsa_error **error)
{
    size_t wanted = 2 * count_records(draft->store) + 64;
    size_t count = 64;
    while (count < wanted)
        count *= 2;
    struct slot *slots = calloc(count, sizeof *slots);
    if (slots == NULL)
        return xv_fail_memory(error);
    free(draft->slots);
    draft->slots = slots;
    draft->slot_count = count;
    fill_table(draft);
    return 0;
}

/* Takes the records out of a store into one of its own. */
static int adopt(struct xv_draft *draft, const struct xv_store *from, xvsa_error **error)
{
    struct xv_store *copy = NULL;
    int rc = xv_store_copy(from, &copy, error);
    if (rc != 0)
        return rc;
    xv_store_free(draft->store);
    draft->store = copy;
    draft->fresh_size = copy->arena_size;
    return make_table(draft, error);
}

int xv_draft_new(const struct xv_inventory *inventory, struct xv_draft **ret, xvsa_error **error)
{
    struct xv_draft *draft = calloc(1, sizeof *draft);
    if (draft == NULL)
        return xv_fail_memory(error);
    int rc = adopt(draft, xv_store_of(inventory), error);
    if (rc != 0) {
        xv_draft_free(draft);
        return rc;
    }
    *ret = draft;
    return 0;
}

void xv_draft_free(struct xv_draft *draft)
{
    if (draft == NULL)
        return;
    xv_store_free(draft->store);
    free(draft->slots);
    free(draft);
}

const struct xv_class_reader *xv_draft_class(const char *class_name)
{
    for (size_t i = 0; i < xv_class_reader_count; i++) {
        if (strcasecmp(xv_class_readers[i].class_name, class_name) == 0)
            return &xv_class_readers[i];
    }
    return NULL;
}

static bool same_text(const char *left, const char *right)
{
    return left == NULL || right == NULL ? left == right : strcmp(left, right) == 0;
}

static bool same_tags(const struct xv_vm *left, const struct xv_vm *right)
{
    if (left->tag_count != right->tag_count)
        return false;
    for (size_t i = 0; i < left->tag_count; i++) {
        if (strcmp(left->tags[i], right->tags[i]) != 0)
            return false;
    }
    return true;
}

/* Texts are compared by what they say, the rest of the item as it is: items are zeroed before they are
 * filled, so padding does not differ. */
static bool same_item(const struct xv_class_reader *reader, size_t size, const void *left,
                      const void *right)
{
    _Alignas(max_align_t) char a[ITEM_MAX];
    _Alignas(max_align_t) char b[ITEM_MAX];
    memcpy(a, left, size);
    memcpy(b, right, size);
    for (size_t i = 0; i < reader->text_count; i++) {
        const char **x = (const char **)(void *)(a + reader->texts[i]);
        const char **y = (const char **)(void *)(b + reader->texts[i]);
        if (!same_text(*x, *y))
            return false;
        *x = NULL;
        *y = NULL;
    }
    if (reader->list_offset == offsetof(struct xv_store, vms)) {
        struct xv_vm *x = (void *)a;
        struct xv_vm *y = (void *)b;
        if (!same_tags(x, y))
            return false;
        x->tags = NULL;
        y->tags = NULL;
    }
    return memcmp(a, b, size) == 0;
}

static bool same_links(const struct xv_links *left, const struct xv_links *right)
{
    return same_text(left->first, right->first) && same_text(left->second, right->second);
}

static void judge(const struct xv_class_reader *reader, const void *before,
                  const struct xv_links *links_before, const void *after,
                  const struct xv_links *links_after, unsigned *changes)
{
    *changes |= XV_CHANGE_ANY;
    if (reader->moves != NULL && reader->moves(before, links_before, after, links_after))
        *changes |= XV_CHANGE_REACH;
}

/* A record that can be read now is left out no more. */
static void forget_omission(struct xv_draft *draft, const struct xv_class_reader *reader,
                            const char *ref)
{
    struct xv_list *list = &draft->store->omissions;
    struct xv_omission *omissions = list->items;
    for (size_t i = 0; i < list->count; i++) {
        if (strcmp(omissions[i].ref, ref) == 0 &&
            strcmp(omissions[i].class_name, reader->class_name) == 0) {
            omissions[i] = omissions[--list->count];
            return;
        }
    }
}

static void compare_pools(const struct xv_store *before, const struct xv_store *after,
                          unsigned *changes)
{
    if (!same_text(before->coordinator, after->coordinator))
        *changes |= XV_CHANGE_ANY | XV_CHANGE_REACH;
    if (!same_text(before->default_sr, after->default_sr) ||
        !same_text(before->public.pool_name, after->public.pool_name) ||
        before->public.cbt_licensed != after->public.cbt_licensed)
        *changes |= XV_CHANGE_ANY;
}

static int put_pool(struct xv_draft *draft, const struct xv_class_reader *reader, const char *ref,
                    const struct xv_value *record, unsigned *changes, xvsa_error **error)
{
    struct xv_store before = {.public = draft->store->public,
                              .coordinator = draft->store->coordinator,
                              .default_sr = draft->store->default_sr};
    int rc = reader->read(draft->store, ref, record, error);
    if (rc == 0)
        compare_pools(&before, draft->store, changes);
    return rc;
}

/* The record was appended to its list: it replaces the one of the same reference, or stays. */
static void settle(struct xv_draft *draft, const struct xv_class_reader *reader,
                   struct xv_list *list, const char *ref, unsigned *changes)
{
    size_t last = list->count - 1;
    char *after = (char *)list->items + last * list->item_size;
    struct slot *slot = find(draft, list, ref);
    if (slot->list == NULL) {
        *slot = (struct slot){list, last};
        draft->used++;
        judge(reader, NULL, NULL, after, &list->links[last], changes);
        return;
    }
    char *before = (char *)list->items + slot->index * list->item_size;
    if (!same_item(reader, list->item_size, before, after) ||
        !same_links(&list->links[slot->index], &list->links[last]))
        judge(reader, before, &list->links[slot->index], after, &list->links[last], changes);
    memcpy(before, after, list->item_size);
    list->links[slot->index] = list->links[last];
    list->count--;
}

int xv_draft_put(struct xv_draft *draft, const struct xv_class_reader *reader, const char *ref,
                 const struct xv_value *record, unsigned *changes, xvsa_error **error)
{
    struct xv_list *list = xv_store_list(draft->store, reader);
    if (list == NULL)
        return put_pool(draft, reader, ref, record, changes, error);
    int rc = reader->read(draft->store, ref, record, error);
    if (rc != 0)
        return rc;
    forget_omission(draft, reader, ref);
    settle(draft, reader, list, ref, changes);
    if (2 * draft->used > draft->slot_count)
        rc = make_table(draft, error);
    if (rc == 0 && draft->store->arena_size > 2 * draft->fresh_size + GARBAGE_MIN)
        rc = adopt(draft, draft->store, error);
    return rc;
}

void xv_draft_drop(struct xv_draft *draft, const struct xv_class_reader *reader, const char *ref,
                   unsigned *changes)
{
    struct xv_list *list = xv_store_list(draft->store, reader);
    forget_omission(draft, reader, ref);
    struct slot *slot = list == NULL ? NULL : find(draft, list, ref);
    if (slot == NULL || slot->list == NULL)
        return;
    size_t index = slot->index;
    size_t last = list->count - 1;
    judge(reader, (char *)list->items + index * list->item_size, &list->links[index], NULL, NULL,
          changes);
    release(draft, slot);
    if (index != last) {
        find(draft, list, ref_at(list, last))->index = index;
        memcpy((char *)list->items + index * list->item_size,
               (char *)list->items + last * list->item_size, list->item_size);
        list->links[index] = list->links[last];
    }
    list->count--;
}

size_t xv_draft_count(struct xv_draft *draft, const struct xv_class_reader *reader)
{
    return xv_store_count(draft->store, reader);
}

/* Records that are there no more count for the worst. */
static void compare_list(struct xv_draft *draft, const struct xv_class_reader *reader,
                         struct xv_store *other, unsigned *changes)
{
    struct xv_list *before = xv_store_list(draft->store, reader);
    struct xv_list *after = xv_store_list(other, reader);
    size_t kept = 0;
    for (size_t i = 0; i < after->count; i++) {
        const char *item = (const char *)after->items + i * after->item_size;
        const struct slot *slot = find(draft, before, ref_at(after, i));
        const char *old = slot->list == NULL
                              ? NULL
                              : (const char *)before->items + slot->index * before->item_size;
        const struct xv_links *links = old == NULL ? NULL : &before->links[slot->index];
        kept += old != NULL;
        if (old == NULL || !same_item(reader, after->item_size, old, item) ||
            !same_links(links, &after->links[i]))
            judge(reader, old, links, item, &after->links[i], changes);
    }
    if (kept < before->count)
        *changes |= XV_CHANGE_ANY | (reader->moves == NULL ? 0 : XV_CHANGE_REACH);
}

int xv_draft_compare(struct xv_draft *draft, const struct xv_inventory *other, unsigned *changes,
                     xvsa_error **error)
{
    struct xv_store *copy = NULL;
    int rc = xv_store_copy(xv_store_of(other), &copy, error);
    if (rc != 0)
        return rc;
    compare_pools(draft->store, copy, changes);
    for (size_t i = 0; i < xv_class_reader_count; i++) {
        if (xv_store_list(copy, &xv_class_readers[i]) != NULL)
            compare_list(draft, &xv_class_readers[i], copy, changes);
    }
    xv_store_free(copy);
    return 0;
}

int xv_draft_finish(struct xv_draft *draft, struct xv_inventory **ret, xvsa_error **error)
{
    struct xv_store *store = draft->store;
    draft->store = NULL;
    xv_draft_free(draft);
    int rc = xv_store_finish(store, error);
    if (rc != 0) {
        xv_store_free(store);
        return rc;
    }
    *ret = &store->public;
    return 0;
}
