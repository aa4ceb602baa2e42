/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/reach.h"

#include <stdlib.h>
#include <string.h>

/* Looks may come many a second; the pool is asked no more often than this. */
#define INVENTORY_MS 2000

static bool is_living(const struct xv_agent *agent, const struct xv_view *view, const char *name)
{
    const struct xv_site_member *member = xv_view_member(view, name);
    return strcmp(name, agent->name) == 0 ||
           (member != NULL && strcmp(member->pool, agent->pool_uuid) == 0);
}

static struct xv_proxy *find(struct xv_proxy *const *proxies, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(xv_proxy_name(proxies[i]), name) == 0)
            return proxies[i];
    }
    return NULL;
}

int xv_reach_settle(const struct xv_agent *agent, struct xv_proxy *proxy, xvsa_error **error)
{
    if (!agent->hotadd || strcmp(xv_proxy_name(proxy), agent->name) != 0)
        return 0;
    return xv_proxy_run_here(proxy, agent->device_path, error);
}

/* A member whose VM is not in the pool cannot move anything, and must not keep the others from it. */
static int add(struct xv_agent *agent, const struct xv_site_member *member, xvsa_error **error)
{
    struct xv_proxy *proxy = NULL;
    xvsa_error *problem = NULL;
    struct xv_call call = xv_agent_call(agent);
    int rc = xv_pool_add_proxy(agent->pool, member->name, member->vm_uuid, member->max_disks, &call,
                               &proxy, &problem);
    if (rc == 0)
        rc = xv_reach_settle(agent, proxy, &problem);
    xv_proxy_unref(proxy);
    if (rc != XVSA_ERR_NOT_FOUND && rc != XVSA_ERR_EXISTS) {
        if (rc != 0 && error != NULL)
            *error = problem;
        return rc;
    }
    xv_log(agent->env, XVSA_LOG_DEBUG, "agent", "%s: member %s is no proxy of the pool: %s",
           agent->name, member->name, xvsa_error_message(problem));
    xvsa_error_unref(problem);
    return 0;
}

/* The agent's other thread may have been first. */
static int drop(struct xv_agent *agent, struct xv_proxy *proxy, xvsa_error **error)
{
    xvsa_error *problem = NULL;
    int rc = xv_pool_remove_proxy(agent->pool, proxy, &problem);
    if (rc == XVSA_ERR_STATE)
        rc = 0;
    if (rc != 0 && error != NULL)
        *error = problem;
    else
        xvsa_error_unref(problem);
    return rc;
}

int xv_reach_sync(struct xv_agent *agent, const struct xv_view *view, xvsa_error **error)
{
    struct xv_proxy **proxies = NULL;
    size_t count = 0;
    int rc = xv_pool_proxies(agent->pool, &proxies, &count, error);
    if (rc != 0)
        return rc;
    for (size_t i = 0; rc == 0 && i < count; i++) {
        if (!is_living(agent, view, xv_proxy_name(proxies[i])))
            rc = drop(agent, proxies[i], error);
    }
    for (size_t i = 0; rc == 0 && i < view->member_count; i++) {
        const struct xv_site_member *member = &view->members[i];
        if (strcmp(member->pool, agent->pool_uuid) == 0 &&
            find(proxies, count, member->name) == NULL)
            rc = add(agent, member, error);
    }
    xv_proxies_free(proxies, count);
    return rc;
}

int xv_reach_read(struct xv_agent *agent, const struct xv_call *call, struct xv_reach *ret,
                  xvsa_error **error)
{
    *ret = (struct xv_reach){0};
    int rc =
        xv_live_inventory(xv_pool_live(agent->pool), INVENTORY_MS, call, &ret->inventory, error);
    if (rc == 0)
        rc = xv_pool_proxies(agent->pool, &ret->proxies, &ret->count, error);
    if (rc == 0)
        rc = xv_site_make(ret->inventory, ret->proxies, ret->count, &ret->site, error);
    if (rc != 0)
        xv_reach_free(ret);
    return rc;
}

void xv_reach_free(struct xv_reach *reach)
{
    xv_site_free(&reach->site);
    xv_proxies_free(reach->proxies, reach->count);
    xv_inventory_free(reach->inventory);
    *reach = (struct xv_reach){0};
}

size_t xv_reach_proxy(const struct xv_reach *reach, const char *member)
{
    for (size_t i = 0; i < reach->count; i++) {
        if (strcmp(xv_proxy_name(reach->proxies[i]), member) == 0)
            return i;
    }
    return XV_SCHED_NONE;
}

size_t xv_reach_sr(const struct xv_reach *reach, const char *uuid)
{
    for (size_t i = 0; i < reach->inventory->sr_count; i++) {
        if (strcmp(reach->inventory->srs[i].uuid, uuid) == 0)
            return i;
    }
    return XV_SCHED_NONE;
}

size_t xv_reach_host(const struct xv_reach *reach, const char *uuid)
{
    for (size_t i = 0; i < reach->inventory->host_count; i++) {
        if (strcmp(reach->inventory->hosts[i].uuid, uuid) == 0)
            return i;
    }
    return XV_SCHED_NONE;
}
