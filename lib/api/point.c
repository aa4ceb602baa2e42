/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdlib.h>

#include "api/handles.h"

XVSA_API int32_t xvsa_repo_find_point(xvsa_repo *repo, const char *id, const xvsa_call *call,
                                      xvsa_point **ret, xvsa_error **error)
{
    struct xv_call within;
    int rc = require(repo, "repo", error);
    if (rc == 0)
        rc = require(id, "id", error);
    if (rc == 0)
        rc = require(ret, "ret", error);
    if (rc == 0)
        rc = xv_call_resolve(call, &within, error);
    if (rc != 0)
        return rc;
    xvsa_point *point = calloc(1, sizeof *point);
    if (point == NULL)
        return xv_fail_memory(error);
    rc = xv_repo_find_point(repo->repo, id, &within, &point->point, error);
    if (rc != 0) {
        free(point);
        return rc;
    }
    atomic_init(&point->references, 1);
    point->repo = xvsa_repo_ref(repo);
    *ret = point;
    return XVSA_OK;
}

XVSA_API xvsa_point *xvsa_point_ref(xvsa_point *point)
{
    if (point != NULL)
        add_reference(&point->references);
    return point;
}

XVSA_API void xvsa_point_unref(xvsa_point *point)
{
    if (point == NULL || !drop_reference(&point->references))
        return;
    xv_point_unref(point->point);
    xvsa_repo_unref(point->repo);
    free(point);
}

XVSA_API const char *xvsa_point_id(const xvsa_point *point)
{
    return point == NULL ? NULL : xv_point_id(point->point);
}

XVSA_API int32_t xvsa_point_describe(const xvsa_point *point, char **ret_json, xvsa_error **error)
{
    int rc = require(point, "point", error);
    if (rc == 0)
        rc = require(ret_json, "ret_json", error);
    return rc != 0 ? rc : xv_point_describe(point->point, ret_json, error);
}

XVSA_API int32_t xvsa_point_delete(xvsa_point *point, const xvsa_call *call, xvsa_error **error)
{
    struct xv_call within;
    int rc = require(point, "point", error);
    if (rc == 0)
        rc = xv_call_resolve(call, &within, error);
    return rc != 0 ? rc : xv_point_delete(point->point, &within, error);
}
