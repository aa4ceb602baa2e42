/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Objects of the pool that belong to jobs of this site: they go with the job, whichever process made them.
 */
#include <string.h>

#include "agent/lead.h"
#include "agent/subject.h"
#include "xenapi/operations.h"

/* A pool whose storage hangs must not keep its coordinator from everything else. */
#define SWEEP_MS 60000

struct sweep {
    struct xv_look *look;
    const char *job_id; /* NULL: all that are over */
    char site_uuid[XV_EPOCH_UUID_MAX + 1];
    json_t *over; /* by job: whether it is; asked once in a sweep */
};

static bool has_key(struct sweep *sweep, const char *prefix, const char *job_id, bool *ret_known)
{
    char key[XV_KEY_MAX];
    struct xv_kv_list list = {0};
    struct xv_call call = xv_agent_call(sweep->look->agent);
    snprintf(key, sizeof key, "%s/%s", prefix, job_id);
    *ret_known = xv_kv_get(sweep->look->agent->kv, key, &call, &list, NULL) == 0;
    bool has = *ret_known && list.count > 0;
    xv_kv_list_free(&list);
    return has;
}

/* A job that is not in the queue never comes back to it, except after a store was lost; whoever sweeps has
 * waited for the others to tell what they remember. */
static bool is_over(struct sweep *sweep, const char *job_id)
{
    const json_t *answer = json_object_get(sweep->over, job_id);
    if (answer != NULL)
        return json_is_true(answer);
    bool known = false;
    bool over = !has_key(sweep, "q", job_id, &known) && known;
    json_object_set_new(sweep->over, job_id, json_boolean(over));
    return over;
}

/* Asked for each tag; a coordinator that may not be one any more removes nothing. */
static bool is_dead(void *user, const char *tag)
{
    struct sweep *sweep = user;
    struct xv_agent *agent = sweep->look->agent;
    char job_id[XV_SITE_ID_LENGTH + 1];
    if (!xv_agent_is_joined(agent) || atomic_load(&agent->term) != sweep->look->lead->term ||
        !xv_tag_job(tag, sweep->site_uuid, job_id))
        return false;
    if (sweep->job_id != NULL)
        return strcmp(sweep->job_id, job_id) == 0;
    return is_over(sweep, job_id);
}

int xv_lead_sweep(struct xv_look *look, const char *job_id, xvsa_error **error)
{
    struct xv_agent *agent = look->agent;
    struct sweep sweep = {.look = look, .job_id = job_id, .over = json_object()};
    const struct xv_call call = xv_call_within(&look->call, SWEEP_MS);
    struct xv_epoch epoch;
    size_t removed = 0;
    size_t left = 0;
    xv_member_epoch(agent->member, &epoch);
    snprintf(sweep.site_uuid, sizeof sweep.site_uuid, "%s", epoch.site_uuid);
    int rc = xv_leftovers_remove(xv_pool_client(agent->pool), is_dead, &sweep, NULL, 0, &call,
                                 &removed, &left, error);
    json_decref(sweep.over);
    if (removed > 0 || left > 0)
        xv_log(agent->env, XVSA_LOG_INFO, "agent",
               "%s: pool %s: removed %zu objects of jobs that are over, %zu are left", agent->name,
               agent->pool_uuid, removed, left);
    if (rc == 0 && left > 0)
        rc = xv_fail(error, XVSA_ERR_BUSY, "agent", "%zu objects could not be removed", left);
    return rc;
}
