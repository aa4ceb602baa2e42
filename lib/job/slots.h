/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Budgets of a job: disks that a proxy moves at once, and NBD connections to a host, which has 16 for
 * everybody. Thread-safe.
 */
#ifndef XV_JOB_SLOTS_H
#define XV_JOB_SLOTS_H

#include "base/call.h"

struct xv_slots;

/* limits[proxy]: disks at once. */
int xv_slots_new(const uint32_t *limits, size_t proxies, size_t hosts, struct xv_slots **ret,
                 xvsa_error **error) XV_MUST_CHECK;
void xv_slots_free(struct xv_slots *slots);
/* Waits for a place at the proxy and for connections to its host, of which one job opens XV_SCHED_HOST_CONNECTIONS at
 * most; the rest is for others. */
int xv_slots_take(struct xv_slots *slots, size_t proxy, size_t host, uint32_t connections,
                  const struct xv_call *call, xvsa_error **error) XV_MUST_CHECK;
void xv_slots_give_back(struct xv_slots *slots, size_t proxy, size_t host, uint32_t connections);

#endif
