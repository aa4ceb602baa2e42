/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What an agent remembers of the store, so that a store that was lost and made anew learns it again: jobs, parts,
 * tasks and what their reports say so far. Belongs to the thread that works.
 */
#ifndef XV_AGENT_MIRROR_H
#define XV_AGENT_MIRROR_H

#include "agent/state.h"

struct xv_mirror;

void xv_mirror_free(struct xv_mirror *mirror);
/* Tells the store what it forgot, when it is another one than at the last look. Fails while it is not ready. */
int xv_mirror_keep(struct xv_agent *agent, const struct xv_call *call,
                   xvsa_error **error) XV_MUST_CHECK;
/* Remembers what was seen. */
void xv_mirror_learn(struct xv_agent *agent, const struct xv_view *view);

#endif
