/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Pools of a job that nobody serves any more. Their parts wait for members to come back, unless the job is told to
 * stop: then a coordinator of another pool ends them.
 */
#include <string.h>

#include "agent/lead.h"

static bool is_served(const struct xv_view *view, const char *pool)
{
    for (size_t i = 0; i < view->member_count; i++) {
        if (strcmp(view->members[i].pool, pool) == 0)
            return true;
    }
    return false;
}

static const struct xv_part *find_part(const struct xv_view_job *job, const char *pool)
{
    for (size_t i = 0; i < job->part_count; i++) {
        if (strcmp(job->parts[i].pool, pool) == 0)
            return &job->parts[i];
    }
    return NULL;
}

/* What its tasks left in the pool goes when it has a coordinator again. */
static int end_part(struct xv_look *look, struct xv_view_job *job, const char *pool,
                    const struct xv_part *part, xvsa_error **error)
{
    struct xv_txn txn;
    bool done = false;
    xvsa_error *problem = NULL;
    xv_fail(&problem, XVSA_ERR_CANCELLED, "agent",
            "pool %s: the job was cancelled while no member served the pool", pool);
    json_t *json = part == NULL ? json_pack("{s:{s:s, s:s}}", "pool", "uuid", pool, "name", "")
                                : json_deep_copy(part->json);
    xv_set_text(json, "state", "ended");
    xv_set_number(json, "ended_ms", xv_wall_ms());
    json_object_set_new(json, "error", xv_json_error(problem));
    xvsa_error_unref(problem);
    xv_lead_begin(look, &txn);
    xv_txn_expect(&txn, XV_KV_CREATE_REVISION, 0, "coord/%s", pool);
    xv_txn_expect(&txn, XV_KV_MOD_REVISION, part == NULL ? 0 : part->mod, "jp/%s/%s", job->job.id,
                  pool);
    xv_txn_put(&txn, 0, json, "jp/%s/%s", job->job.id, pool);
    json_decref(json);
    int rc = xv_lead_commit(look, &txn, &done, NULL, error);
    if (rc == 0 && done)
        xv_log(look->agent->env, XVSA_LOG_WARNING, "agent",
               "%s: job %s: ended the part of pool %s, which nobody serves", look->agent->name,
               job->job.id, pool);
    return rc;
}

int xv_lead_end_absent(struct xv_look *look, struct xv_view_job *job, xvsa_error **error)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < json_array_size(job->job.pools); i++) {
        const char *pool = json_string_value(json_array_get(job->job.pools, i));
        const struct xv_part *part = pool == NULL ? NULL : find_part(job, pool);
        if (pool != NULL && !is_served(look->view, pool) &&
            (part == NULL || part->state != XV_PART_ENDED))
            rc = end_part(look, job, pool, part, error);
    }
    return rc;
}
