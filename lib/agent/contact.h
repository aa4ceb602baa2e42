/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Whether an agent reaches its pool: a thread asks the pool now and then, because those that work with the
 * pool may wait for it for long. A member that has not reached its pool for XV_CONTACT_AWAY_TTLS times to live
 * resigns as its coordinator and does not stand for election, as long as another member says that it does.
 */
#ifndef XV_AGENT_CONTACT_H
#define XV_AGENT_CONTACT_H

#include "agent/state.h"

#define XV_CONTACT_AWAY_TTLS 2

/* Starts the thread, once for an agent that has joined. */
int xv_contact_start(struct xv_agent *agent, xvsa_error **error) XV_MUST_CHECK;
/* Ends it and waits for that. Nothing to do when it was not started. */
void xv_contact_stop(struct xv_agent *agent);

#endif
