/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A pool's inventory that is kept: read once, then brought up to date by the pool's events. Without a
 * watch nothing runs between two questions: the events since the last one are fetched when somebody
 * asks. With a watch a thread waits for events. Thread-safe.
 */
#ifndef XV_XENAPI_LIVE_H
#define XV_XENAPI_LIVE_H

#include "xenapi/inventory.h"

struct xv_live;

/* The client outlives it. */
int xv_live_new(struct xv_client *client, struct xv_live **ret, xvsa_error **error) XV_MUST_CHECK;
/* Ends the thread; watches are not signalled any more, but have to be closed still. */
void xv_live_stop(struct xv_live *live);
/* After stop or without, when all watches are closed. */
void xv_live_free(struct xv_live *live);

/* The inventory as it was at most max_age_ms ago; 0: as it is when the call begins or later. That costs one
 * short call to the pool as a rule, and a full reading the first time, after a new login, when the events
 * fail, once an hour, and always with servers that have no event.from. The caller drops the
 * reference in *ret with xv_inventory_free. */
int xv_live_inventory(struct xv_live *live, int64_t max_age_ms, const struct xv_call *call,
                      struct xv_inventory **ret, xvsa_error **error) XV_MUST_CHECK;

/* Counters that grow with every change that was learnt of; 0 before the first reading. */
struct xv_live_version {
    uint64_t any;   /* that of the inventory: its generation */
    uint64_t reach; /* of hosts (live, coordinator), PBDs, shared SRs, and of where VMs run */
};
struct xv_live_version xv_live_version(struct xv_live *live);

/* A watch keeps the thread running, so that changes are learnt within a second or so of the pool. */
struct xv_live_watch;
int xv_live_watch_open(struct xv_live *live, struct xv_live_watch **ret,
                       xvsa_error **error) XV_MUST_CHECK;
/* NULL is allowed. The last one ends the thread. */
void xv_live_watch_close(struct xv_live_watch *watch);
/* Readable when a version grew since the watch was opened or last taken. */
int xv_live_watch_fd(const struct xv_live_watch *watch);
/* The versions of now; the descriptor is not readable any more until one grows. */
struct xv_live_version xv_live_watch_take(struct xv_live_watch *watch);

#endif
