/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Which VMs and which of their disks a job is about: the JSON document "selection".
 */
#ifndef XV_JOB_SELECTION_H
#define XV_JOB_SELECTION_H

#include "job/json.h"
#include "xenapi/inventory.h"

struct xv_selection;

/* path names the member that json is, for errors. */
int xv_selection_read(const json_t *json, const char *path, struct xv_selection **ret,
                      xvsa_error **error) XV_MUST_CHECK;
void xv_selection_free(struct xv_selection *selection);

/* The VMs it names, in the order of names, then uuids; the caller frees the array. NOT_FOUND for a uuid
 * or name that no VM has. */
int xv_selection_vms(const struct xv_selection *selection, const struct xv_inventory *inventory,
                     const struct xv_vm ***ret, size_t *ret_count,
                     xvsa_error **error) XV_MUST_CHECK;

/* True when the selection leaves the disk of a VM out. */
bool xv_selection_excludes_disk(const struct xv_selection *selection, const struct xv_vbd *vbd);

/* True for a VBD that holds a disk (no CD, no floppy, not empty). */
bool xv_vbd_is_disk(const struct xv_vbd *vbd);

/* JSON document "vms". */
json_t *xv_selection_to_json(const struct xv_vm *const *vms, size_t count);

#endif
