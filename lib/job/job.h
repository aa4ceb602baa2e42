/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A running or finished execution of a plan. Reference counted, and kept alive by its own thread while
 * it runs. Thread-safe.
 */
#ifndef XV_JOB_JOB_H
#define XV_JOB_JOB_H

#include "job/plan.h"

struct xv_job;

/* STATE when the plan was started before, REFUSED when nothing in it can be done. */
int xv_job_start(struct xv_plan *plan, struct xv_job **ret, xvsa_error **error) XV_MUST_CHECK;
struct xv_job *xv_job_ref(struct xv_job *job);
void xv_job_unref(struct xv_job *job);
const char *xv_job_id(const struct xv_job *job);
void xv_job_progress(struct xv_job *job, xvsa_progress *ret);
int xv_job_event_fd(const struct xv_job *job);
int xv_job_next_event(struct xv_job *job, int64_t timeout_ms, char **ret,
                      xvsa_error **error) XV_MUST_CHECK;
int xv_job_wait(struct xv_job *job, int64_t timeout_ms, xvsa_error **error) XV_MUST_CHECK;
void xv_job_cancel(struct xv_job *job, int32_t level);
/* STATE when the job has ended or is being cancelled. Nothing changes when it is as asked already. */
int xv_job_suspend(struct xv_job *job, xvsa_error **error) XV_MUST_CHECK;
int xv_job_resume(struct xv_job *job, xvsa_error **error) XV_MUST_CHECK;
/* JSON document "report"; the caller frees it. */
int xv_job_report(struct xv_job *job, char **ret, xvsa_error **error) XV_MUST_CHECK;

#endif
