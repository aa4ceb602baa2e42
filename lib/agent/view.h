/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a member sees of the site at a time. Its parts may be of different
 * revisions; decisions are guarded by the revisions of what they rest on.
 */
#ifndef XV_AGENT_VIEW_H
#define XV_AGENT_VIEW_H

#include "agent/record.h"
#include "base/env.h"

struct xv_view_job {
    struct xv_queued_job job;
    struct xv_part *parts; /* of all its pools that began, by uuid */
    size_t part_count;
    struct xv_part *part;         /* of the view's pool; NULL: not there yet */
    struct xv_task_record *tasks; /* of the view's pool, in the order of work */
    size_t task_count;
    struct xv_kv_list entries; /* of tasks, as the store has them */
    struct xv_kv_list claims;  /* "r/<job>/" */
};

struct xv_view {
    struct xv_site_member *members; /* of all pools, in the order of addition */
    size_t member_count;
    struct xv_view_job *jobs; /* by priority, then submission */
    size_t job_count;
};

/* Jobs that have a part in the pool, and all members. Entries that are not understood are left out, with a line
 * in the log. before: a view of the same store, or an empty one; of the tasks that it has only those that changed
 * are read. It is of no use afterwards. */
int xv_view_read(struct xv_kv *kv, const struct xv_env *env, const char *pool,
                 struct xv_view *before, const struct xv_call *call, struct xv_view *ret,
                 xvsa_error **error) XV_MUST_CHECK;
void xv_view_free(struct xv_view *view);

/* Whether a view of the pool is read from the key. */
bool xv_view_rests_on(const char *key, const char *pool);

/* Members alone. */
int xv_view_read_members(struct xv_kv *kv, const struct xv_env *env, const struct xv_call *call,
                         struct xv_view *ret, xvsa_error **error) XV_MUST_CHECK;
struct xv_site_member *xv_view_member(const struct xv_view *view, const char *name);
struct xv_view_job *xv_view_job(const struct xv_view *view, const char *id);
struct xv_task_record *xv_view_task(const struct xv_view_job *job, const char *subject);
/* The claim of a task; NULL when nobody has it. */
const struct xv_kv_pair *xv_view_claim(const struct xv_view_job *job, const char *subject);

/* Why the tasks of the view's pool must not run: "suspend", "window"; "" when they may. */
const char *xv_view_hold(const struct xv_view_job *job);

#endif
