/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a job's limits say about now.
 */
#include <string.h>

#include "agent/lead.h"
#include "job/limits.h"
#include "job/reason.h"

#define MINUTE_MS 60000

/* What a job's limits say now. */
struct standing {
    const char *hold; /* OUTSIDE_WINDOW, RATE_ZERO: nothing may be moved; "" */
    int64_t until_ms; /* when that changes; 0: it does not by itself, or nothing is held */
    uint64_t rate;    /* bytes per second */
};

static struct xv_admission ask(const struct xv_job_limits *limits, uint32_t minute,
                               uint32_t *ret_minutes)
{
    return xv_admit_task(&limits->limits, &limits->windows, &limits->rate, minute, 0, ret_minutes);
}

/* Minutes until work may go on; XV_MINUTES_NEVER. */
static uint32_t find_opening(const struct xv_job_limits *limits, uint32_t minute)
{
    uint32_t passed = 0;
    while (passed < XV_WEEK_MINUTES) {
        uint32_t step = 0;
        if (ask(limits, (minute + passed) % XV_WEEK_MINUTES, &step).verdict == XV_VERDICT_ADMIT)
            return passed;
        if (step == XV_MINUTES_NEVER)
            break;
        passed += step;
    }
    return XV_MINUTES_NEVER;
}

static struct standing judge(const struct xv_job_limits *limits, int64_t now_ms)
{
    uint32_t minute = xv_week_minute(now_ms);
    uint32_t minutes = 0;
    struct xv_admission admission = ask(limits, minute, &minutes);
    struct standing standing = {"", 0, xv_curve_at(&limits->rate, minute).rate};
    if (admission.verdict == XV_VERDICT_ADMIT)
        return standing;
    uint32_t opening = find_opening(limits, minute);
    standing.hold = xv_why_name(admission.why);
    if (opening != XV_MINUTES_NEVER)
        standing.until_ms = (now_ms / MINUTE_MS + opening) * MINUTE_MS;
    return standing;
}

static bool is_known(const struct xv_part *part, const struct standing *standing)
{
    return strcmp(standing->hold, part->hold) == 0 &&
           xv_member_number(part->json, "hold_until_ms") == standing->until_ms &&
           json_object_get(part->json, "rate") != NULL &&
           xv_member_number(part->json, "rate") ==
               (standing->rate > INT64_MAX ? 0 : (int64_t)standing->rate);
}

static void write_down(json_t *part, const struct standing *standing)
{
    json_t *reasons = json_array();
    xv_set_text(part, "hold", standing->hold);
    xv_set_number(part, "hold_until_ms", standing->until_ms);
    json_object_set_new(part, "rate",
                        standing->rate > INT64_MAX ? json_null()
                                                   : json_integer((json_int_t)standing->rate));
    enum xv_reason_code code = xv_reason_find(standing->hold);
    if (code != XV_REASON_COUNT) {
        struct xv_reasons one = {0};
        xv_reasons_add(&one, code, NULL);
        json_decref(reasons);
        reasons = xv_reasons_to_json(&one);
        xv_reasons_free(&one);
    }
    json_object_set_new(part, "reasons", reasons);
}

static int put_part(struct xv_look *look, struct xv_view_job *job, const json_t *part,
                    bool *ret_changed, xvsa_error **error)
{
    struct xv_txn txn;
    xv_lead_begin(look, &txn);
    xv_txn_expect(&txn, XV_KV_MOD_REVISION, job->part == NULL ? 0 : job->part->mod, "jp/%s/%s",
                  job->job.id, look->agent->pool_uuid);
    xv_txn_put(&txn, 0, part, "jp/%s/%s", job->job.id, look->agent->pool_uuid);
    return xv_lead_commit(look, &txn, ret_changed, NULL, error);
}

/* A job that may not even be planned tells so in a part of its own. */
static json_t *waiting_part(const struct xv_look *look)
{
    return json_pack("{s:s, s:{s:s, s:s}}", "state", "planning", "pool", "uuid",
                     look->agent->pool_uuid, "name", look->agent->pool_name);
}

int xv_lead_hold(struct xv_look *look, struct xv_view_job *job, bool *ret_changed,
                 xvsa_error **error)
{
    const json_t *document = json_object_get(job->job.json, "limits");
    struct xv_job_limits limits = {0};
    if (ret_changed != NULL)
        *ret_changed = false;
    if (document == NULL)
        return 0;
    int rc = xv_job_limits_read(document, "job.limits", &limits, error);
    struct standing standing = judge(&limits, xv_wall_ms());
    xv_job_limits_free(&limits);
    if (rc != 0 || (job->part != NULL && is_known(job->part, &standing)))
        return rc;
    if (job->part == NULL || strcmp(standing.hold, job->part->hold) != 0)
        xv_log(look->agent->env, XVSA_LOG_INFO, "agent", "%s: job %s: %s%s", look->agent->name,
               job->job.id, standing.hold[0] == '\0' ? "may move" : "held: ", standing.hold);
    json_t *part = job->part == NULL ? waiting_part(look) : json_incref(job->part->json);
    write_down(part, &standing);
    rc = put_part(look, job, part, ret_changed, error);
    json_decref(part);
    return rc;
}

bool xv_lead_is_open(const struct xv_view_job *job)
{
    const json_t *document = json_object_get(job->job.json, "limits");
    struct xv_job_limits limits = {0};
    bool open = true;
    if (document != NULL && xv_job_limits_read(document, "job.limits", &limits, NULL) == 0)
        open = judge(&limits, xv_wall_ms()).hold[0] == '\0';
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
