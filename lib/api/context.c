/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdlib.h>
#include <unistd.h>

#include "api/handles.h"
#include "base/options.h"
#include "job/history.h"

#define DEFAULT_MEMORY (512u << 20)
#define THREADS_MAX    1024u

XVSA_API uint32_t xvsa_version(void)
{
    return XVSA_VERSION;
}

XVSA_API const char *xvsa_version_string(void)
{
    return "0.1.0";
}

XVSA_API void xvsa_free(void *memory)
{
    free(memory);
}

static uint32_t processors(void)
{
    long count = sysconf(_SC_NPROCESSORS_ONLN);
    return count < 1 ? 1 : count > THREADS_MAX ? THREADS_MAX : (uint32_t)count;
}

static int check_options(const xvsa_context_options *options, xvsa_error **error)
{
    int rc = check_flags(options->flags, 0, "xvsa_context_options.flags", error);
    if (rc != 0)
        return rc;
    if (options->log_level < 0 || options->log_level > XVSA_LOG_DEBUG)
        return xv_fail(error, XVSA_ERR_INVALID, "api",
                       "xvsa_context_options.log_level: %d is no level", options->log_level);
    if (options->worker_threads > THREADS_MAX)
        return xv_fail(error, XVSA_ERR_INVALID, "api",
                       "xvsa_context_options.worker_threads: %u are more than %u",
                       options->worker_threads, THREADS_MAX);
    return 0;
}

XVSA_API int32_t xvsa_context_new(const xvsa_context_options *options, xvsa_context **ret,
                                  xvsa_error **error)
{
    xvsa_context_options ours;
    int rc = require(ret, "ret", error);
    if (rc == 0)
        rc = xv_options_copy(&ours, sizeof ours, options, "xvsa_context_options", error);
    if (rc == 0)
        rc = check_options(&ours, error);
    if (rc != 0)
        return rc;
    const struct xv_env env = {
        .log = ours.log,
        .log_user = ours.log_user,
        .log_level = ours.log_level == 0 ? XVSA_LOG_WARNING : ours.log_level,
        .worker_threads = ours.worker_threads == 0 ? processors() : ours.worker_threads,
        .memory_limit = ours.memory_limit == 0 ? DEFAULT_MEMORY : ours.memory_limit,
    };
    struct xv_engine *engine = NULL;
    rc = xv_engine_new(&env, ours.state_path, &engine, error);
    if (rc == 0)
        *ret = (xvsa_context *)engine;
    return rc;
}

XVSA_API xvsa_context *xvsa_context_ref(xvsa_context *context)
{
    if (context != NULL)
        xv_engine_ref(engine_of(context));
    return context;
}

XVSA_API void xvsa_context_unref(xvsa_context *context)
{
    xv_engine_unref(engine_of(context));
}

XVSA_API int32_t xvsa_context_list_jobs(xvsa_context *context, uint32_t limit, char **ret_json,
                                        xvsa_error **error)
{
    int rc = require(context, "context", error);
    if (rc == 0)
        rc = require(ret_json, "ret_json", error);
    if (rc != 0)
        return rc;
    return xv_history_list(engine_of(context), limit, ret_json, error);
}

XVSA_API int32_t xvsa_target_register(xvsa_context *context, const char *scheme,
                                      const xvsa_target_ops *ops, void *user, xvsa_error **error)
{
    int rc = require(context, "context", error);
    if (rc == 0)
        rc = require(scheme, "scheme", error);
    if (rc == 0)
        rc = require(ops, "ops", error);
    if (rc != 0)
        return rc;
    return xv_target_registry_add(xv_engine_registry(engine_of(context)), scheme, ops, user, error);
}
