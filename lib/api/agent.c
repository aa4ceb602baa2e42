/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/agent.h"

#include <stdlib.h>

#include "api/handles.h"
#include "base/options.h"

#define DISKS_MAX           64u
#define REPOSITORIES_MAX    256u
#define TTL_LEAST_MS        2000
#define TTL_MOST_MS         (60 * 60 * 1000)
#define CHECKPOINT_LEAST_MS 100
#define CHECKPOINT_MOST_MS  (60 * 60 * 1000)

static int check_repositories(const xvsa_agent_options *options, const struct xv_engine *engine,
                              xvsa_error **error)
{
    if (options->repository_count == 0 || options->repository_count > REPOSITORIES_MAX)
        return xv_fail(error, XVSA_ERR_INVALID, "api",
                       "xvsa_agent_options.repository_count: must be 1 to %u", REPOSITORIES_MAX);
    int rc = require(options->repositories, "xvsa_agent_options.repositories", error);
    for (uint32_t i = 0; rc == 0 && i < options->repository_count; i++) {
        const xvsa_agent_repository *entry = &options->repositories[i];
        if (entry->name == NULL || entry->name[0] == '\0' || entry->repo == NULL)
            rc = xv_fail(error, XVSA_ERR_INVALID, "api",
                         "xvsa_agent_options.repositories[%u]: name or repo is missing", i);
        else if (entry->repo->target->engine != engine)
            rc = xv_fail(error, XVSA_ERR_INVALID, "api",
                         "xvsa_agent_options.repositories[%u]: opened with another context", i);
    }
    return rc;
}

static int check_options(const xvsa_agent_options *options, const struct xv_engine *engine,
                         xvsa_error **error)
{
    int rc = check_flags(options->flags, XVSA_AGENT_HOTADD, "xvsa_agent_options.flags", error);
    if (rc == 0)
        rc = require(options->name, "xvsa_agent_options.name", error);
    if (rc == 0)
        rc = require(options->pool, "xvsa_agent_options.pool", error);
    if (rc == 0)
        rc = require(options->vm_uuid, "xvsa_agent_options.vm_uuid", error);
    if (rc == 0 && options->device_path != NULL &&
        ((options->flags & XVSA_AGENT_HOTADD) == 0 || options->device_path[0] != '/'))
        rc = xv_fail(error, XVSA_ERR_INVALID, "api",
                     "xvsa_agent_options.device_path: a path that begins with /, only with "
                     "XVSA_AGENT_HOTADD");
    if (rc == 0 && xv_pool_engine(pool_of(options->pool)) != engine)
        rc = xv_fail(error, XVSA_ERR_INVALID, "api",
                     "xvsa_agent_options.pool: opened with another context than the site");
    if (rc == 0 && options->max_disks > DISKS_MAX)
        rc = xv_fail(error, XVSA_ERR_INVALID, "api", "xvsa_agent_options.max_disks: at most %u",
                     DISKS_MAX);
    if (rc == 0 && options->lease_ttl_ms != 0 &&
        (options->lease_ttl_ms < TTL_LEAST_MS || options->lease_ttl_ms > TTL_MOST_MS))
        rc = xv_fail(error, XVSA_ERR_INVALID, "api",
                     "xvsa_agent_options.lease_ttl_ms: must be 0 or %d to %d", TTL_LEAST_MS,
                     TTL_MOST_MS);
    if (rc == 0 && options->checkpoint_ms != 0 &&
        (options->checkpoint_ms < CHECKPOINT_LEAST_MS ||
         options->checkpoint_ms > CHECKPOINT_MOST_MS))
        rc = xv_fail(error, XVSA_ERR_INVALID, "api",
                     "xvsa_agent_options.checkpoint_ms: must be 0 or %d to %d", CHECKPOINT_LEAST_MS,
                     CHECKPOINT_MOST_MS);
    return rc != 0 ? rc : check_repositories(options, engine, error);
}

static int start(struct xv_site *site, const xvsa_agent_options *options,
                 const struct xv_call *call, struct xv_agent **ret, xvsa_error **error)
{
    struct xv_agent_repo *repos = calloc(options->repository_count, sizeof *repos);
    if (repos == NULL)
        return xv_fail_memory(error);
    for (uint32_t i = 0; i < options->repository_count; i++)
        repos[i] = (struct xv_agent_repo){options->repositories[i].name,
                                          options->repositories[i].repo->repo};
    const struct xv_agent_options ours = {
        .name = options->name,
        .pool_name = options->pool_name,
        .vm_uuid = options->vm_uuid,
        .address = options->address,
        .pool = pool_of(options->pool),
        .repos = repos,
        .repo_count = options->repository_count,
        .max_disks = options->max_disks,
        .hotadd = (options->flags & XVSA_AGENT_HOTADD) != 0,
        .device_path = options->device_path,
        .ttl_ms = options->lease_ttl_ms,
        .checkpoint_ms = options->checkpoint_ms,
        .unit_bytes = options->unit_bytes,
    };
    int rc = xv_agent_start(site, &ours, call, ret, error);
    free(repos);
    return rc;
}

XVSA_API int32_t xvsa_agent_start(xvsa_site *site, const xvsa_agent_options *options,
                                  const xvsa_call *call, xvsa_agent **ret, xvsa_error **error)
{
    xvsa_agent_options ours;
    struct xv_call within;
    struct xv_agent *agent = NULL;
    int rc = require(site, "site", error);
    if (rc == 0)
        rc = require(options, "options", error);
    if (rc == 0)
        rc = require(ret, "ret", error);
    if (rc == 0)
        rc = xv_options_copy(&ours, sizeof ours, options, "xvsa_agent_options", error);
    if (rc == 0)
        rc = check_options(&ours, xv_site_engine(site_of(site)), error);
    if (rc == 0)
        rc = xv_call_resolve(call, &within, error);
    if (rc == 0)
        rc = start(site_of(site), &ours, &within, &agent, error);
    if (rc == 0)
        *ret = (xvsa_agent *)agent;
    return rc;
}

XVSA_API int32_t xvsa_agent_drain(xvsa_agent *agent, const xvsa_call *call, xvsa_error **error)
{
    struct xv_call within;
    int rc = require(agent, "agent", error);
    if (rc == 0)
        rc = xv_call_resolve(call, &within, error);
    return rc != 0 ? rc : xv_agent_drain(agent_of(agent), &within, error);
}

XVSA_API int32_t xvsa_agent_status(xvsa_agent *agent, char **ret_json, xvsa_error **error)
{
    int rc = require(agent, "agent", error);
    if (rc == 0)
        rc = require(ret_json, "ret_json", error);
    return rc != 0 ? rc : xv_agent_status(agent_of(agent), ret_json, error);
}

XVSA_API int32_t xvsa_agent_metrics(xvsa_agent *agent, char **ret_text, xvsa_error **error)
{
    int rc = require(agent, "agent", error);
    if (rc == 0)
        rc = require(ret_text, "ret_text", error);
    return rc != 0 ? rc : xv_agent_metrics(agent_of(agent), ret_text, error);
}

XVSA_API xvsa_agent *xvsa_agent_ref(xvsa_agent *agent)
{
    if (agent != NULL)
        xv_agent_ref(agent_of(agent));
    return agent;
}

XVSA_API void xvsa_agent_unref(xvsa_agent *agent)
{
    xv_agent_unref(agent_of(agent));
}
