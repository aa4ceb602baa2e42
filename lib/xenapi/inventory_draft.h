/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * An inventory whose records are being replaced: what events change between one inventory and the next.
 * Belongs to one thread at a time.
 */
#ifndef XV_XENAPI_INVENTORY_DRAFT_H
#define XV_XENAPI_INVENTORY_DRAFT_H

#include "xenapi/inventory_store.h"

/* What a change may mean. */
enum {
    XV_CHANGE_ANY = 1,   /* the inventory tells something else */
    XV_CHANGE_REACH = 2, /* who reaches what may have changed, too */
};

struct xv_draft;

/* Begins as a copy of the inventory. */
int xv_draft_new(const struct xv_inventory *inventory, struct xv_draft **ret,
                 xvsa_error **error) XV_MUST_CHECK;
void xv_draft_free(struct xv_draft *draft);

/* NULL for a class that the inventory does not use. The name's case does not matter. */
const struct xv_class_reader *xv_draft_class(const char *class_name);
/* Adds or replaces a record. Adds to *changes. */
int xv_draft_put(struct xv_draft *draft, const struct xv_class_reader *reader, const char *ref,
                 const struct xv_value *record, unsigned *changes,
                 xvsa_error **error) XV_MUST_CHECK;
/* Takes a record away; nothing happens when it is not there. Adds to *changes. */
void xv_draft_drop(struct xv_draft *draft, const struct xv_class_reader *reader, const char *ref,
                   unsigned *changes);
/* Records of a class, those that could not be read included. */
size_t xv_draft_count(struct xv_draft *draft, const struct xv_class_reader *reader);
/* Adds to *changes what differs in another inventory; the draft stays as it is. */
int xv_draft_compare(struct xv_draft *draft, const struct xv_inventory *other, unsigned *changes,
                     xvsa_error **error) XV_MUST_CHECK;

/* Makes the inventory of it, which takes the draft in every case. */
int xv_draft_finish(struct xv_draft *draft, struct xv_inventory **ret,
                    xvsa_error **error) XV_MUST_CHECK;

#endif
