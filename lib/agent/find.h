/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a client of a site means by a name.
 */
#ifndef XV_AGENT_FIND_H
#define XV_AGENT_FIND_H

#include "agent/view.h"

/* Uuid of the pool that is given by name or uuid; NULL: the only one that members serve. Belongs to
 * members or is given itself. */
int xv_find_pool(const struct xv_view *members, const char *given, const char **ret,
                 xvsa_error **error) XV_MUST_CHECK;
/* Name of the repository; NULL: the only one that the members of these pools have. */
int xv_find_repository(const struct xv_view *members, const json_t *pools, const char *given,
                       const char **ret, xvsa_error **error) XV_MUST_CHECK;
/* Record of a job by its id or a beginning of it, from "q/" or "h/"; belongs to list, which the caller frees. */
int xv_find_job(struct xv_kv *kv, const char *given, const struct xv_call *call,
                struct xv_kv_list *list, struct xv_kv_pair **ret, xvsa_error **error) XV_MUST_CHECK;

#endif
