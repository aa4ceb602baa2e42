/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a restore point keeps of a VM besides the bytes of its disks.
 */
#ifndef XV_JOB_METADATA_H
#define XV_JOB_METADATA_H

#include "job/run.h"

/* Reads the records of a VM, its VBDs, VIFs and VDIs: JSON document "metadata" (docs/documents.md), which
 * the caller frees. */
int xv_metadata_gather(struct xv_vm_run *run, const char *vm_ref, const struct xv_call *call,
                       char **ret, xvsa_error **error) XV_MUST_CHECK;

/* The record under name as a value; NULL when there is none. */
int xv_metadata_value(const json_t *record, struct xv_value **ret,
                      xvsa_error **error) XV_MUST_CHECK;

#endif
