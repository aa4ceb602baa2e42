/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The rate of a job, of which each member of its pools has an equal part: units are begun no faster than that. What
 * one member does not use is nobody's, so that the rate is never exceeded.
 */
#ifndef XV_AGENT_PACE_H
#define XV_AGENT_PACE_H

#include "agent/state.h"

/* Remembers this member's part of the rates of the jobs seen. */
void xv_pace_learn(struct xv_agent *agent, const struct xv_view *view);
/* Whether bytes of the job may begin to move now; if so they are counted. */
bool xv_pace_take(struct xv_agent *agent, const char *job_id, uint64_t bytes);

#endif
