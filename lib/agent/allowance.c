/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/help.h"

void xv_allowance_disconnect(struct xv_allowance *allowance)
{
    if (allowance->connections > 0)
        xv_budget_disconnect(allowance->agent, allowance->connections);
    allowance->connections = 0;
}

void xv_allowance_give_back(struct xv_allowance *allowance)
{
    if (allowance->agent == NULL)
        return;
    xv_allowance_disconnect(allowance);
    xv_turn_leave(allowance->turn);
    xv_rate_leave(allowance->agent, allowance->rate);
    *allowance = (struct xv_allowance){0};
}

/* A place among the transfers of the disk's SR. */
static int enter(struct xv_agent *agent, const struct xv_offer *offer,
                 const struct xv_limits *limits, struct xv_allowance *ret, bool *ret_allowed,
                 xvsa_error **error)
{
    struct xv_call call = xv_agent_call(agent);
    if (limits->sr_transfers == 0 || !xv_is_word(offer->disk.sr_uuid))
        return 0;
    int rc = xv_turn_take(agent, offer->job->job.id, offer->disk.sr_uuid, limits->sr_transfers,
                          &call, &ret->turn, error);
    *ret_allowed = ret->turn != NULL;
    return rc;
}

int xv_allowance_take(struct xv_agent *agent, const struct xv_offer *offer,
                      struct xv_allowance *ret, bool *ret_allowed, xvsa_error **error)
{
    struct xv_job_limits limits;
    *ret = (struct xv_allowance){.agent = agent};
    *ret_allowed = true;
    int rc = xv_job_limits_read(json_object_get(offer->job->job.json, "limits"), "job.limits",
                                &limits, error);
    if (rc == 0 && offer->disk.nbd) {
        ret->connections = xv_budget_connect(agent, &limits.limits, XV_SCHED_DISK_CONNECTIONS);
        *ret_allowed = ret->connections > 0;
    }
    if (rc == 0 && *ret_allowed)
        rc = enter(agent, offer, &limits.limits, ret, ret_allowed, error);
    if (rc == 0 && *ret_allowed)
        rc = xv_rate_join(agent, offer->job, &ret->rate, error);
    if (rc != 0 || !*ret_allowed)
        xv_allowance_give_back(ret);
    xv_job_limits_free(&limits);
    return rc;
}
