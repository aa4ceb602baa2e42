/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/job.h"

#include "api/handles.h"
#include "base/options.h"

static struct xv_plan *plan_of(const xvsa_plan *plan)
{
    return (struct xv_plan *)(uintptr_t)plan;
}

static struct xv_job *job_of(const xvsa_job *job)
{
    return (struct xv_job *)(uintptr_t)job;
}

XVSA_API int32_t xvsa_plan_new(xvsa_context *context, const char *spec, xvsa_pool *pool,
                               xvsa_repo *repo, const xvsa_call *call, xvsa_plan **ret,
                               xvsa_error **error)
{
    struct xv_call within;
    int rc = require(context, "context", error);
    if (rc == 0)
        rc = require(spec, "spec", error);
    if (rc == 0)
        rc = require(repo, "repo", error);
    if (rc == 0)
        rc = require(ret, "ret", error);
    if (rc == 0 && repo->target->engine != engine_of(context))
        rc = xv_fail(error, XVSA_ERR_INVALID, "api", "repo was opened with another context");
    if (rc == 0 && pool != NULL && xv_pool_engine(pool_of(pool)) != engine_of(context))
        rc = xv_fail(error, XVSA_ERR_INVALID, "api", "pool was opened with another context");
    if (rc == 0)
        rc = xv_call_resolve(call, &within, error);
    struct xv_plan *plan = NULL;
    if (rc == 0)
        rc =
            xv_plan_new(engine_of(context), spec, pool_of(pool), repo->repo, &within, &plan, error);
    if (rc == 0)
        *ret = (xvsa_plan *)plan;
    return rc;
}

XVSA_API xvsa_plan *xvsa_plan_ref(xvsa_plan *plan)
{
    if (plan != NULL)
        xv_plan_ref(plan_of(plan));
    return plan;
}

XVSA_API void xvsa_plan_unref(xvsa_plan *plan)
{
    xv_plan_unref(plan_of(plan));
}

XVSA_API int32_t xvsa_plan_describe(const xvsa_plan *plan, char **ret_json, xvsa_error **error)
{
    int rc = require(plan, "plan", error);
    if (rc == 0)
        rc = require(ret_json, "ret_json", error);
    return rc != 0 ? rc : xv_json_print(xv_plan_to_json(plan_of(plan)), ret_json, error);
}

XVSA_API int32_t xvsa_job_start(xvsa_plan *plan, xvsa_job **ret, xvsa_error **error)
{
    struct xv_job *job = NULL;
    int rc = require(plan, "plan", error);
    if (rc == 0)
        rc = require(ret, "ret", error);
    if (rc == 0)
        rc = xv_job_start(plan_of(plan), &job, error);
    if (rc == 0)
        *ret = (xvsa_job *)job;
    return rc;
}

XVSA_API xvsa_job *xvsa_job_ref(xvsa_job *job)
{
    if (job != NULL)
        xv_job_ref(job_of(job));
    return job;
}

XVSA_API void xvsa_job_unref(xvsa_job *job)
{
    xv_job_unref(job_of(job));
}

XVSA_API const char *xvsa_job_id(const xvsa_job *job)
{
    return job == NULL ? NULL : xv_job_id(job_of(job));
}

XVSA_API int32_t xvsa_job_get_progress(const xvsa_job *job, xvsa_progress *progress,
                                       xvsa_error **error)
{
    xvsa_progress ours;
    int rc = require(job, "job", error);
    if (rc != 0)
        return rc;
    xv_job_progress(job_of(job), &ours);
    return xv_options_fill(progress, &ours, sizeof ours, "xvsa_progress", error);
}

XVSA_API int32_t xvsa_job_event_fd(const xvsa_job *job)
{
    return job == NULL ? -1 : xv_job_event_fd(job_of(job));
}

XVSA_API int32_t xvsa_job_next_event(xvsa_job *job, int64_t timeout_ms, char **ret_json,
                                     xvsa_error **error)
{
    int rc = require(job, "job", error);
    if (rc == 0)
        rc = require(ret_json, "ret_json", error);
    return rc != 0 ? rc : xv_job_next_event(job_of(job), timeout_ms, ret_json, error);
}

XVSA_API int32_t xvsa_job_wait(xvsa_job *job, int64_t timeout_ms, xvsa_error **error)
{
    int rc = require(job, "job", error);
    return rc != 0 ? rc : xv_job_wait(job_of(job), timeout_ms, error);
}

XVSA_API int32_t xvsa_job_cancel(xvsa_job *job, int32_t level, xvsa_error **error)
{
    int rc = require(job, "job", error);
    if (rc == 0 && level != XVSA_CANCEL_GRACEFUL && level != XVSA_CANCEL_NOW)
        rc = xv_fail(error, XVSA_ERR_INVALID, "api", "level: %d is no XVSA_CANCEL_*", level);
    if (rc == 0)
        xv_job_cancel(job_of(job), level);
    return rc;
}

XVSA_API int32_t xvsa_job_suspend(xvsa_job *job, xvsa_error **error)
{
    int rc = require(job, "job", error);
    return rc != 0 ? rc : xv_job_suspend(job_of(job), error);
}

XVSA_API int32_t xvsa_job_resume(xvsa_job *job, xvsa_error **error)
{
    int rc = require(job, "job", error);
    return rc != 0 ? rc : xv_job_resume(job_of(job), error);
}

XVSA_API int32_t xvsa_job_report(const xvsa_job *job, char **ret_json, xvsa_error **error)
{
    int rc = require(job, "job", error);
    if (rc == 0)
        rc = require(ret_json, "ret_json", error);
    return rc != 0 ? rc : xv_job_report(job_of(job), ret_json, error);
}
