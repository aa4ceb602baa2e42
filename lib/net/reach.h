/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Which of several hosts accept a connection, found out side by side: a dead host takes as long as all.
 */
#ifndef XV_NET_REACH_H
#define XV_NET_REACH_H

#include "base/call.h"
#include "net/url.h"

#define XV_REACH_MAX 128 /* hosts that are asked at once */

enum xv_reach {
    XV_REACH_UNKNOWN, /* no answer so far */
    XV_REACH_ANSWERS, /* it took a connection */
    XV_REACH_REFUSES, /* it can be known at once that it does not */
};

/* Tries to connect to the first XV_REACH_MAX of the urls whose state is UNKNOWN and changes the states.
 * Returns when all of these are known, a moment after the first is, or after limit_ms. Errors: CANCELLED,
 * TIMEOUT (the call's), MEMORY, INTERNAL. */
int xv_reach(const struct xv_url *urls, enum xv_reach *states, size_t count, int64_t limit_ms,
             const struct xv_call *call, xvsa_error **error) XV_MUST_CHECK;

#endif
