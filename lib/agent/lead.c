/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/state.h"

void xv_lead_look(struct xv_agent *agent)
{
    (void)agent;
}
void xv_lead_free(struct xv_lead *lead)
{
    (void)lead;
}
