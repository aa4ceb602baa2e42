/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "api/handles.h"
#include "job/deployment.h"
#include "job/drawing.h"

#define POOLS_MAX 1024u

static int check_pools(xvsa_pool *const *pools, uint32_t count, xvsa_error **error)
{
    if (count == 0 || count > POOLS_MAX)
        return xv_fail(error, XVSA_ERR_INVALID, "api", "count: must be from 1 to %u", POOLS_MAX);
    int rc = require(pools, "pools", error);
    for (uint32_t i = 0; rc == 0 && i < count; i++) {
        if (pools[i] == NULL)
            rc = xv_fail(error, XVSA_ERR_INVALID, "api", "pools[%u] is NULL", i);
    }
    return rc;
}

XVSA_API int32_t xvsa_deployment_plan(xvsa_pool *const *pools, uint32_t count, const char *options,
                                      const xvsa_call *call, char **ret_json, xvsa_error **error)
{
    struct xv_call within;
    int rc = check_pools(pools, count, error);
    if (rc == 0)
        rc = require(ret_json, "ret_json", error);
    if (rc == 0)
        rc = xv_call_resolve(call, &within, error);
    if (rc != 0)
        return rc;
    return xv_deployment_describe((struct xv_pool *const *)pools, count, options, &within, ret_json,
                                  error);
}

XVSA_API int32_t xvsa_deployment_draw(const char *deployment, char **ret_html, xvsa_error **error)
{
    int rc = require(deployment, "deployment", error);
    if (rc == 0)
        rc = require(ret_html, "ret_html", error);
    return rc != 0 ? rc : xv_drawing_make(deployment, ret_html, error);
}
