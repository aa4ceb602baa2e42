/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Limits of a job: how much at once, how fast, and when. JSON object "limits" of docs/documents.md,
 * for what lib/sched decides with.
 */
#ifndef XV_JOB_LIMITS_H
#define XV_JOB_LIMITS_H

#include "job/json.h"
#include "sched/admission.h"

struct xv_job_limits {
    struct xv_limits limits; /* 0 where nothing was said */
    struct xv_windows windows;
    struct xv_curve rate; /* of all members together, bytes per second */
    struct xv_window *window_items;
    struct xv_curve_step *steps;
};

/* object NULL: no limits. path names it in errors. INVALID for whatever the document does not know. *ret
 * is freed with xv_job_limits_free, also after a failure. */
int xv_job_limits_read(const json_t *object, const char *path, struct xv_job_limits *ret,
                       xvsa_error **error) XV_MUST_CHECK;
void xv_job_limits_free(struct xv_job_limits *limits);

/* Minute of the week of an instant (ms since 1970) in this process's time zone; 0: Monday 00:00. */
uint32_t xv_week_minute(int64_t wall_ms);

#endif
