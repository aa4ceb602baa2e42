/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdlib.h>

#include "api/handles.h"

XVSA_API int32_t xvsa_target_open(xvsa_context *context, const char *url, uint32_t flags,
                                  const char *options, xvsa_target **ret, xvsa_error **error)
{
    int rc = require(context, "context", error);
    if (rc == 0)
        rc = require(url, "url", error);
    if (rc == 0)
        rc = require(ret, "ret", error);
    if (rc == 0)
        rc = check_flags(flags, XVSA_TARGET_CREATE, "flags", error);
    if (rc != 0)
        return rc;
    xvsa_target *target = calloc(1, sizeof *target);
    if (target == NULL)
        return xv_fail_memory(error);
    struct xv_engine *engine = engine_of(context);
    rc = xv_target_open(xv_engine_registry(engine), xv_engine_env(engine), url, flags, options,
                        &target->target, error);
    if (rc != 0) {
        free(target);
        return rc;
    }
    atomic_init(&target->references, 1);
    target->engine = xv_engine_ref(engine);
    *ret = target;
    return XVSA_OK;
}

XVSA_API int32_t xvsa_target_check(xvsa_target *target, const xvsa_call *call, char **ret_json,
                                   xvsa_error **error)
{
    struct xv_call within;
    int rc = require(target, "target", error);
    if (rc == 0)
        rc = require(ret_json, "ret_json", error);
    if (rc == 0)
        rc = xv_call_resolve(call, &within, error);
    return rc != 0 ? rc : xv_target_check(target->target, &within, ret_json, error);
}

XVSA_API xvsa_target *xvsa_target_ref(xvsa_target *target)
{
    if (target != NULL)
        add_reference(&target->references);
    return target;
}

XVSA_API void xvsa_target_unref(xvsa_target *target)
{
    if (target == NULL || !drop_reference(&target->references))
        return;
    xv_target_unref(target->target);
    xv_engine_unref(target->engine);
    free(target);
}
