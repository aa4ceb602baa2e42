/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What an earlier job did not do, by its report in the state file.
 */
#ifndef XV_JOB_EARLIER_H
#define XV_JOB_EARLIER_H

#include "job/plan.h"

/* The VMs of the job's report that did not succeed, as an array of their entries, which the caller frees. NOT_FOUND when the
 * state has no such job, STATE when it has no report (yet), INVALID when it was of another type. */
int xv_earlier_failures(struct xv_engine *engine, const char *id, enum xv_job_type type,
                        json_t **ret, xvsa_error **error) XV_MUST_CHECK;

#endif
