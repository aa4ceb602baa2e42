/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The jobs that the state file knows.
 */
#ifndef XV_JOB_HISTORY_H
#define XV_JOB_HISTORY_H

#include "job/engine.h"

/* JSON document "jobs", newest first; limit 0: 100. The caller frees it. */
int xv_history_list(struct xv_engine *engine, uint32_t limit, char **ret,
                    xvsa_error **error) XV_MUST_CHECK;

#endif
