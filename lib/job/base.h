/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a disk is compared with: the disk of the base point, and whether changed block tracking can tell
 * the difference.
 */
#ifndef XV_JOB_BASE_H
#define XV_JOB_BASE_H

#include "job/plan.h"

/* Sets mode, base_index, base_snapshot and enable_cbt of a disk, with the reasons. base may be NULL. */
void xv_base_choose(const struct xv_spec *spec, const struct xv_inventory *inventory,
                    const struct xv_point *base, struct xv_plan_disk *disk);

/* What a point keeps of a disk; the caller frees it. snapshot_uuid: the VDI that the data were read
 * from. cbt: tracking was on. */
int xv_base_describe(const struct xv_plan_disk *disk, const char *snapshot_uuid, bool cbt,
                     char **ret, xvsa_error **error) XV_MUST_CHECK;

/* The tag of VDIs that are kept for tracking: they belong to the last point of a VM in a repository and
 * are nobody's leftovers. */
#define XV_BASE_TAG_MAX 96
void xv_base_tag(const struct xv_repo *repo, const char *vm_uuid, char tag[XV_BASE_TAG_MAX]);

#endif
