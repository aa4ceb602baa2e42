/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a job's limits say about now.
 */
#include <string.h>

#include "agent/lead.h"
#include "job/limits.h"

/* "window" and "rate": nothing may be moved now; "". */
static const char *hold_of(const struct xv_job_limits *limits)
{
    uint32_t minute = xv_week_minute(xv_wall_ms());
    uint32_t minutes = 0;
    struct xv_admission admission =
        xv_admit_task(&limits->limits, &limits->windows, &limits->rate, minute, 0, &minutes);
    if (admission.verdict == XV_VERDICT_ADMIT)
        return "";
    return admission.why == XV_WHY_RATE_ZERO ? "rate" : "window";
}

int xv_lead_hold(struct xv_look *look, struct xv_view_job *job, bool *ret_changed,
                 xvsa_error **error)
{
    const json_t *document = json_object_get(job->job.json, "limits");
    struct xv_job_limits limits = {0};
    struct xv_txn txn;
    *ret_changed = false;
    if (document == NULL)
        return 0;
    int rc = xv_job_limits_read(document, "job.limits", &limits, error);
    const char *hold = rc == 0 ? hold_of(&limits) : "";
    xv_job_limits_free(&limits);
    if (rc != 0 || strcmp(hold, job->part->hold) == 0)
        return rc;
    xv_log(look->agent->env, XVSA_LOG_INFO, "agent", "%s: job %s: %s", look->agent->name,
           job->job.id,
           hold[0] == '\0' ? "goes on, its window is open" : "parked until its next window");
    xv_set_text(job->part->json, "hold", hold);
    xv_lead_begin(look, &txn);
    xv_txn_expect(&txn, XV_KV_MOD_REVISION, job->part->mod, "jp/%s/%s", job->job.id,
                  look->agent->pool_uuid);
    xv_txn_put(&txn, 0, job->part->json, "jp/%s/%s", job->job.id, look->agent->pool_uuid);
    return xv_lead_commit(look, &txn, ret_changed, NULL, error);
}

bool xv_lead_is_open(const struct xv_view_job *job)
{
    const json_t *document = json_object_get(job->job.json, "limits");
    struct xv_job_limits limits = {0};
    bool open = true;
    if (document != NULL && xv_job_limits_read(document, "job.limits", &limits, NULL) == 0)
        open = hold_of(&limits)[0] == '\0';
    xv_job_limits_free(&limits);
    return open;
}

uint32_t xv_lead_vms_limit(const struct xv_view_job *job)
{
    int64_t parallel = xv_member_number(job->job.spec, "parallel_vms");
    int64_t vms = xv_member_number(json_object_get(job->job.json, "limits"), "vms");
    int64_t pools = (int64_t)json_array_size(job->job.pools);
    /* Pools do not know what the others run: each has its part. */
    if (vms > 0 && pools > 1)
        vms = vms / pools > 0 ? vms / pools : 1;
    if (vms == 0 || (parallel > 0 && parallel < vms))
        vms = parallel;
    return vms <= 0 || vms > UINT32_MAX ? 0 : (uint32_t)vms;
}
