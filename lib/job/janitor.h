/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Removes from a pool what dead jobs left there.
 */
#ifndef XV_JOB_JANITOR_H
#define XV_JOB_JANITOR_H

#include "job/pool.h"

/* Looks at the intents of this state file whose owner died or that were abandoned, and removes what
 * carries their tags. Objects of jobs that live stay, in this process and in others. job_name (may be
 * NULL or "") also gives those of an earlier run of this job that kept its state in memory. Failures are
 * logged and leave the intents for the next time. */
void xv_janitor_run(struct xv_pool *pool, const char *job_name, const struct xv_call *call);

#endif
