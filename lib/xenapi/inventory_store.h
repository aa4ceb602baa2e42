/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Where an inventory keeps its objects while it is read and afterwards.
 */
#ifndef XV_XENAPI_INVENTORY_STORE_H
#define XV_XENAPI_INVENTORY_STORE_H

#include "xenapi/inventory.h"

enum xv_kind { XV_KIND_HOST, XV_KIND_SR, XV_KIND_NETWORK, XV_KIND_VM, XV_KIND_VDI };

/* References that an object holds, resolved once all are read. */
struct xv_links {
    const char *first;
    const char *second;
};

/* Objects of one class, in an array that may move until all are read. */
struct xv_list {
    void *items;
    size_t item_size;
    size_t count;
    size_t capacity;
    struct xv_links *links;
};

struct xv_index_entry {
    const char *id;
    const void *object;
    enum xv_kind kind;
};

struct xv_arena_block;

struct xv_store {
    struct xv_inventory public; /* first: the inventory handed out */
    const char *coordinator;    /* reference of the pool's coordinator host */
    struct xv_arena_block *arena;
    struct xv_list hosts, metrics, srs, pbds, networks, pifs, vdis, vbds, vifs, vms, drivers,
        omissions;
    struct xv_index_entry *index;
    size_t index_size; /* a power of two */
};

/* What host_metrics and SM records give; not part of the inventory. */
struct xv_metrics {
    const char *ref;
    bool live;
};

struct xv_driver {
    const char *type;
    bool supports_cbt;
};

struct xv_store *xv_store_new(void);
void xv_store_free(struct xv_store *store);
/* Memory that lives as long as the store, aligned for pointers. NULL without memory. */
void *xv_store_alloc(struct xv_store *store, size_t size);
/* A copy; text NULL counts as "". */
const char *xv_store_text(struct xv_store *store, const char *text);
/* Appends a zeroed item; NULL without memory. */
void *xv_list_add(struct xv_list *list, const struct xv_links *links);

/* Resolves references and makes the index. */
int xv_store_finish(struct xv_store *store, xvsa_error **error) XV_MUST_CHECK;
const void *xv_store_find(const struct xv_store *store, enum xv_kind kind, const char *id);

/* Reads one record into the store; user is the store. */
struct xv_class_reader {
    const char *class_name;
    xv_record_fn read;
    size_t list_offset; /* of the list it fills, in struct xv_store; SIZE_MAX: none */
    bool optional;      /* old servers lack the class */
};
extern const struct xv_class_reader xv_class_readers[];
extern const size_t xv_class_reader_count;

#endif
