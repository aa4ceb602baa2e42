/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/site.h"

#include "api/handles.h"
#include "base/options.h"

static int check_options(const xvsa_site_options *options, xvsa_error **error)
{
    int rc =
        check_flags(options->flags, XVSA_SITE_ALLOW_PLAIN_HTTP, "xvsa_site_options.flags", error);
    if (rc == 0)
        rc = require(options->store, "xvsa_site_options.store", error);
    if (rc == 0)
        rc = require(options->name, "xvsa_site_options.name", error);
    if (rc == 0 && (options->certificate_file == NULL) != (options->key_file == NULL))
        rc = xv_fail(error, XVSA_ERR_INVALID, "api",
                     "xvsa_site_options: certificate_file and key_file belong together");
    return rc;
}

XVSA_API int32_t xvsa_site_open(xvsa_context *context, const xvsa_site_options *options,
                                const xvsa_call *call, xvsa_site **ret, xvsa_error **error)
{
    xvsa_site_options ours;
    struct xv_call within;
    struct xv_site *site = NULL;
    int rc = require(context, "context", error);
    if (rc == 0)
        rc = require(options, "options", error);
    if (rc == 0)
        rc = require(ret, "ret", error);
    if (rc == 0)
        rc = xv_options_copy(&ours, sizeof ours, options, "xvsa_site_options", error);
    if (rc == 0)
        rc = check_options(&ours, error);
    if (rc == 0)
        rc = xv_call_resolve(call, &within, error);
    if (rc == 0)
        rc = xv_site_open(engine_of(context), &ours, &within, &site, error);
    if (rc == 0)
        *ret = (xvsa_site *)site;
    return rc;
}

XVSA_API int32_t xvsa_site_close(xvsa_site *site, xvsa_error **error)
{
    int rc = require(site, "site", error);
    return rc != 0 ? rc : xv_site_close(site_of(site), error);
}

XVSA_API xvsa_site *xvsa_site_ref(xvsa_site *site)
{
    if (site != NULL)
        xv_site_ref(site_of(site));
    return site;
}

XVSA_API void xvsa_site_unref(xvsa_site *site)
{
    xv_site_unref(site_of(site));
}

/* Checks what every call on a site has in common, and holds the store open. */
static int enter(xvsa_site *site, const void *ret, const xvsa_call *call, struct xv_call *within,
                 xvsa_error **error)
{
    int rc = require(site, "site", error);
    if (rc == 0)
        rc = require(ret, "the place of the result", error);
    if (rc == 0)
        rc = xv_call_resolve(call, within, error);
    return rc != 0 ? rc : xv_site_enter(site_of(site), error);
}

static int32_t leave(xvsa_site *site, int rc)
{
    xv_site_leave(site_of(site));
    return rc;
}

XVSA_API int32_t xvsa_site_submit(xvsa_site *site, const char *spec, const xvsa_call *call,
                                  char **ret_job_id, xvsa_error **error)
{
    struct xv_call within;
    int rc = require(spec, "spec", error);
    if (rc == 0)
        rc = enter(site, ret_job_id, call, &within, error);
    if (rc != 0)
        return rc;
    return leave(site, xv_site_submit(site_of(site), spec, &within, ret_job_id, error));
}

XVSA_API int32_t xvsa_site_control(xvsa_site *site, const char *job_id, int32_t action,
                                   const xvsa_call *call, xvsa_error **error)
{
    struct xv_call within;
    int rc = require(job_id, "job_id", error);
    if (rc == 0 && (action < XVSA_CONTROL_SUSPEND || action > XVSA_CONTROL_CANCEL_NOW))
        rc = xv_fail(error, XVSA_ERR_INVALID, "api", "action: %d is no XVSA_CONTROL_*", action);
    if (rc == 0)
        rc = enter(site, job_id, call, &within, error);
    if (rc != 0)
        return rc;
    return leave(site, xv_site_control(site_of(site), job_id, action, &within, error));
}

XVSA_API int32_t xvsa_site_retry(xvsa_site *site, const char *job_id, const xvsa_call *call,
                                 char **ret_job_id, xvsa_error **error)
{
    struct xv_call within;
    int rc = require(job_id, "job_id", error);
    if (rc == 0)
        rc = enter(site, ret_job_id, call, &within, error);
    if (rc != 0)
        return rc;
    return leave(site, xv_site_retry(site_of(site), job_id, &within, ret_job_id, error));
}

XVSA_API int32_t xvsa_site_list_jobs(xvsa_site *site, uint32_t limit, const xvsa_call *call,
                                     char **ret_json, xvsa_error **error)
{
    struct xv_call within;
    int rc = enter(site, ret_json, call, &within, error);
    if (rc != 0)
        return rc;
    return leave(site, xv_site_list_jobs(site_of(site), limit, &within, ret_json, error));
}

XVSA_API int32_t xvsa_site_job(xvsa_site *site, const char *job_id, const xvsa_call *call,
                               char **ret_json, xvsa_error **error)
{
    struct xv_call within;
    int rc = require(job_id, "job_id", error);
    if (rc == 0)
        rc = enter(site, ret_json, call, &within, error);
    if (rc != 0)
        return rc;
    return leave(site, xv_site_job(site_of(site), job_id, &within, ret_json, error));
}

XVSA_API int32_t xvsa_site_wait(xvsa_site *site, const char *job_id, const xvsa_call *call,
                                xvsa_error **error)
{
    struct xv_call within;
    int rc = require(job_id, "job_id", error);
    if (rc == 0)
        rc = enter(site, job_id, call, &within, error);
    if (rc != 0)
        return rc;
    return leave(site, xv_site_wait(site_of(site), job_id, &within, error));
}

XVSA_API int32_t xvsa_site_members(xvsa_site *site, const xvsa_call *call, char **ret_json,
                                   xvsa_error **error)
{
    struct xv_call within;
    int rc = enter(site, ret_json, call, &within, error);
    if (rc != 0)
        return rc;
    return leave(site, xv_site_members(site_of(site), &within, ret_json, error));
}
