/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Where an inventory keeps its objects while it is read and afterwards.
 */
#ifndef XV_XENAPI_INVENTORY_STORE_H
#define XV_XENAPI_INVENTORY_STORE_H

#include <stdatomic.h>

#include "xenapi/inventory.h"

enum xv_kind { XV_KIND_HOST, XV_KIND_SR, XV_KIND_NETWORK, XV_KIND_VM, XV_KIND_VDI };

/* References that an object holds, resolved once all are read; kept, for a copy resolves them anew. */
struct xv_links {
    const char *first;
    const char *second;
};

/* Objects of one class, in an array that may move until all are read. Each begins with its reference. */
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
    atomic_uint references;
    const char *coordinator; /* reference of the pool's coordinator host */
    const char *default_sr;  /* as the pool tells it; it may dangle */
    struct xv_arena_block *arena;
    size_t arena_size; /* bytes of all blocks */
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
    const char *ref;
    const char *type;
    bool supports_cbt, thin;
};

struct xv_store *xv_store_new(void);
/* Drops a reference. */
void xv_store_free(struct xv_store *store);
/* The store of an inventory. */
struct xv_store *xv_store_of(const struct xv_inventory *inventory);
/* The same records with text of their own, neither resolved nor indexed. */
int xv_store_copy(const struct xv_store *from, struct xv_store **ret,
                  xvsa_error **error) XV_MUST_CHECK;
/* Memory that lives as long as the store, aligned for pointers. NULL without memory. */
void *xv_store_alloc(struct xv_store *store, size_t size);
/* A copy; text NULL counts as "". */
const char *xv_store_text(struct xv_store *store, const char *text);
/* Texts of another store become this one's. */
void xv_store_take_text(struct xv_store *store, struct xv_store *other);
/* Appends a zeroed item; NULL without memory. */
void *xv_list_add(struct xv_list *list, const struct xv_links *links);

/* Takes over the records of a store that has other classes, which is empty afterwards. */
int xv_store_join(struct xv_store *store, struct xv_store *other, xvsa_error **error) XV_MUST_CHECK;

/* Resolves references and makes the index: no record may be added any more. */
int xv_store_finish(struct xv_store *store, xvsa_error **error) XV_MUST_CHECK;
/* Measures the chains of the VDIs, when their SRs are known. */
int xv_store_link_chains(struct xv_store *store, xvsa_error **error) XV_MUST_CHECK;
const void *xv_store_find(const struct xv_store *store, enum xv_kind kind, const char *id);

struct xv_class_reader {
    const char *class_name;
    const char *const *members; /* that read looks at, NULL at the end */
    xv_record_fn read;          /* reads one record into the store, which is its user */
    size_t list_offset;         /* of the list it fills, in struct xv_store; SIZE_MAX: none */
    bool optional;              /* old servers lack the class */
    const size_t *texts;        /* offsets of the members of an item that are texts of the store */
    size_t text_count;
    /* Whether a change, either side of which may be NULL, may change who reaches what. NULL: never. */
    bool (*moves)(const void *before, const struct xv_links *links_before, const void *after,
                  const struct xv_links *links_after);
};
extern const struct xv_class_reader xv_class_readers[];
extern const size_t xv_class_reader_count;
/* Records of a class, those that could not be read included. */
size_t xv_store_count(struct xv_store *store, const struct xv_class_reader *reader);
/* NULL for a class without a list. */
struct xv_list *xv_store_list(struct xv_store *store, const struct xv_class_reader *reader);

#endif
