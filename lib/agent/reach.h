/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The pool as the scheduler numbers it: living members of the pool are its proxies.
 */
#ifndef XV_AGENT_REACH_H
#define XV_AGENT_REACH_H

#include "agent/state.h"
#include "sched/sched.h"

struct xv_reach {
    struct xv_inventory *inventory;
    struct xv_proxy **proxies;
    size_t count;
    struct xv_sched_site site; /* proxies by their place in proxies */
};

/* Tells the own proxy, when it may, that this process runs on its VM. Others are left alone. */
int xv_reach_settle(const struct xv_agent *agent, struct xv_proxy *proxy,
                    xvsa_error **error) XV_MUST_CHECK;
/* Makes the pool's proxies those of the living members. */
int xv_reach_sync(struct xv_agent *agent, const struct xv_view *view,
                  xvsa_error **error) XV_MUST_CHECK;
int xv_reach_read(struct xv_agent *agent, const struct xv_call *call, struct xv_reach *ret,
                  xvsa_error **error) XV_MUST_CHECK;
void xv_reach_free(struct xv_reach *reach);
/* XV_SCHED_NONE when there is none. */
size_t xv_reach_proxy(const struct xv_reach *reach, const char *member);
size_t xv_reach_sr(const struct xv_reach *reach, const char *uuid);
size_t xv_reach_host(const struct xv_reach *reach, const char *uuid);

#endif
