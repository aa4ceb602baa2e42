/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What tasks of a job amount to together.
 */
#ifndef XV_AGENT_SUMMARY_H
#define XV_AGENT_SUMMARY_H

#include "agent/record.h"

struct xv_summary {
    uint64_t tasks[XV_TASK_CANCELLED + 1]; /* by state */
    uint64_t bytes_total, bytes_read, bytes_stored, bytes_written;
};

/* entry: what is known of the task, as in "site-job". */
void xv_summary_add(struct xv_summary *summary, const struct xv_task_record *task,
                    const json_t *entry);
/* Adds the "summary" of a part. */
void xv_summary_add_json(struct xv_summary *summary, const json_t *other);
json_t *xv_summary_to_json(const struct xv_summary *summary);

#endif
