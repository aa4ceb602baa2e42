/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/budget.h"

#include <string.h>

#include "base/thread.h"

/* A proxy's VM may migrate. */
#define AGE_MS 10000
/* Between two looks at whether a wait was cancelled. */
#define WAIT_MS 500

static bool is_ours(const struct xv_agent *agent, const struct xv_site_member *member)
{
    return strcmp(member->pool, agent->pool_uuid) == 0;
}

static const struct xv_host *host_of(const struct xv_inventory *inventory, const char *vm_uuid)
{
    for (size_t i = 0; i < inventory->vm_count; i++) {
        if (strcmp(inventory->vms[i].uuid, vm_uuid) == 0)
            return inventory->vms[i].resident_on;
    }
    return NULL;
}

/* Members on the same host, in the order of addition. Those that run on no host of the pool count as if they shared
 * one. */
static void count_neighbours(struct xv_agent *agent, const struct xv_view *view,
                             const struct xv_inventory *inventory)
{
    const struct xv_host *own = host_of(inventory, agent->vm_uuid);
    uint32_t count = 0;
    uint32_t rank = 0;
    for (size_t i = 0; i < view->member_count; i++) {
        const struct xv_site_member *member = &view->members[i];
        if (!is_ours(agent, member) || host_of(inventory, member->vm_uuid) != own)
            continue;
        if (strcmp(member->name, agent->name) == 0)
            rank = count;
        count++;
    }
    pthread_mutex_lock(&agent->lock);
    agent->neighbours = count == 0 ? 1 : count;
    agent->neighbour_rank = rank;
    pthread_mutex_unlock(&agent->lock);
}

void xv_budget_look(struct xv_agent *agent, const struct xv_view *view)
{
    int64_t members = 0;
    for (size_t i = 0; i < view->member_count; i++)
        members += is_ours(agent, &view->members[i]) ? view->members[i].create : 0;
    bool same = members == agent->neighbours_of;
    if (same && xv_clock_ms() - agent->neighbours_ms < AGE_MS)
        return;
    struct xv_inventory *inventory = NULL;
    const struct xv_call call = {.cancel = agent->cancel};
    xvsa_error *error = NULL;
    if (xv_pool_inventory(agent->pool, &call, &inventory, &error) == 0) {
        count_neighbours(agent, view, inventory);
        agent->neighbours_of = members;
        agent->neighbours_ms = xv_clock_ms();
    } else {
        xv_log(agent->env, XVSA_LOG_DEBUG, "agent", "%s: which members share its host: %s",
               agent->name, xvsa_error_message(error));
    }
    xvsa_error_unref(error);
    xv_inventory_free(inventory);
}

/* With the lock. least: this many exist at any rate. */
static uint32_t take(struct xv_agent *agent, const struct xv_limits *limits, uint32_t wanted,
                     uint32_t least)
{
    uint32_t count = agent->neighbours == 0 ? 1 : agent->neighbours;
    uint32_t share = xv_admit_host_share(limits, count, agent->neighbour_rank);
    share = share < least ? least : share;
    const struct xv_limits own = {.host_connections = share};
    /* There 0 stands for the default. */
    uint32_t got = share == 0 ? 0 : xv_admit_connections(&own, agent->connections);
    got = got > wanted ? wanted : got;
    agent->connections += got;
    return got;
}

uint32_t xv_budget_connect(struct xv_agent *agent, const struct xv_limits *limits, uint32_t wanted)
{
    pthread_mutex_lock(&agent->lock);
    uint32_t got = agent->disks_waiting > 0 ? 0 : take(agent, limits, wanted, 0);
    pthread_mutex_unlock(&agent->lock);
    return got;
}

int xv_budget_await(struct xv_agent *agent, const struct xv_limits *limits, uint32_t wanted,
                    uint32_t *ret, const struct xv_call *call, xvsa_error **error)
{
    int rc = 0;
    pthread_mutex_lock(&agent->lock);
    agent->disks_waiting++;
    /* A task that nobody else can own must get on. */
    while ((*ret = take(agent, limits, wanted, 1)) == 0) {
        rc = xv_call_check(call, "agent", "waiting for NBD connections to the host", error);
        if (rc != 0)
            break;
        xv_condition_wait(&agent->changed, &agent->lock, WAIT_MS);
    }
    agent->disks_waiting--;
    pthread_mutex_unlock(&agent->lock);
    return rc;
}

void xv_budget_disconnect(struct xv_agent *agent, uint32_t connections)
{
    pthread_mutex_lock(&agent->lock);
    agent->connections -= connections;
    pthread_cond_broadcast(&agent->changed);
    pthread_mutex_unlock(&agent->lock);
}
