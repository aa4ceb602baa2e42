/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdlib.h>

#include "api/handles.h"
#include "base/options.h"

#define REPO_FLAGS (XVSA_REPO_NO_ENCRYPTION | XVSA_REPO_READ_ONLY)

typedef int (*repo_maker)(struct xv_target *target, const struct xv_repo_options *options,
                          const struct xv_call *call, struct xv_repo **ret, xvsa_error **error);

static int resolve_options(const xvsa_repo_options *from, const struct xv_env *env,
                           struct xv_repo_options *ret, xvsa_error **error)
{
    xvsa_repo_options ours;
    int rc = xv_options_copy(&ours, sizeof ours, from, "xvsa_repo_options", error);
    if (rc == 0)
        rc = check_flags(ours.flags, REPO_FLAGS, "xvsa_repo_options.flags", error);
    if (rc == 0 && ours.reserved != 0)
        rc = xv_fail(error, XVSA_ERR_ABI, "api", "xvsa_repo_options.reserved: must be 0");
    if (rc == 0 && ours.passphrase_size > 0)
        rc = require(ours.passphrase, "xvsa_repo_options.passphrase", error);
    if (rc != 0)
        return rc;
    *ret = (struct xv_repo_options){
        .env = env,
        .passphrase = ours.passphrase,
        .passphrase_size = (size_t)ours.passphrase_size,
        .flags = ours.flags,
        .chunk_size = ours.chunk_size,
        .compression_level = ours.compression_level,
        .kdf_log_n = ours.kdf_log_n,
    };
    return 0;
}

static int make_repo(xvsa_target *target, const xvsa_repo_options *options, const xvsa_call *call,
                     repo_maker maker, xvsa_repo **ret, xvsa_error **error)
{
    struct xv_repo_options ours;
    struct xv_call within;
    int rc = require(target, "target", error);
    if (rc == 0)
        rc = require(ret, "ret", error);
    if (rc == 0)
        rc = resolve_options(options, xv_engine_env(target->engine), &ours, error);
    if (rc == 0)
        rc = xv_call_resolve(call, &within, error);
    if (rc != 0)
        return rc;
    xvsa_repo *repo = calloc(1, sizeof *repo);
    if (repo == NULL)
        return xv_fail_memory(error);
    rc = maker(target->target, &ours, &within, &repo->repo, error);
    if (rc != 0) {
        free(repo);
        return rc;
    }
    atomic_init(&repo->references, 1);
    repo->target = xvsa_target_ref(target);
    *ret = repo;
    return XVSA_OK;
}

XVSA_API int32_t xvsa_repo_init(xvsa_target *target, const xvsa_repo_options *options,
                                const xvsa_call *call, xvsa_repo **ret, xvsa_error **error)
{
    return make_repo(target, options, call, xv_repo_init, ret, error);
}

XVSA_API int32_t xvsa_repo_open(xvsa_target *target, const xvsa_repo_options *options,
                                const xvsa_call *call, xvsa_repo **ret, xvsa_error **error)
{
    return make_repo(target, options, call, xv_repo_open, ret, error);
}

XVSA_API xvsa_repo *xvsa_repo_ref(xvsa_repo *repo)
{
    if (repo != NULL)
        add_reference(&repo->references);
    return repo;
}

XVSA_API void xvsa_repo_unref(xvsa_repo *repo)
{
    if (repo == NULL || !drop_reference(&repo->references))
        return;
    xv_repo_unref(repo->repo);
    xvsa_target_unref(repo->target);
    free(repo);
}

XVSA_API int32_t xvsa_repo_info(xvsa_repo *repo, const xvsa_call *call, char **ret_json,
                                xvsa_error **error)
{
    struct xv_call within;
    int rc = require(repo, "repo", error);
    if (rc == 0)
        rc = require(ret_json, "ret_json", error);
    if (rc == 0)
        rc = xv_call_resolve(call, &within, error);
    return rc != 0 ? rc : xv_repo_describe(repo->repo, &within, ret_json, error);
}

XVSA_API int32_t xvsa_repo_list_points(xvsa_repo *repo, const char *vm, const xvsa_call *call,
                                       char **ret_json, xvsa_error **error)
{
    struct xv_call within;
    int rc = require(repo, "repo", error);
    if (rc == 0)
        rc = require(ret_json, "ret_json", error);
    if (rc == 0)
        rc = xv_call_resolve(call, &within, error);
    return rc != 0 ? rc : xv_repo_list_points(repo->repo, vm, &within, ret_json, error);
}
