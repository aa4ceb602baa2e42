/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/pace.h"

#include <string.h>

#include "job/limits.h"

static uint64_t rate_of(const struct xv_view_job *job)
{
    const json_t *document = json_object_get(job->job.json, "limits");
    struct xv_job_limits limits = {0};
    uint64_t rate = XV_RATE_UNLIMITED;
    if (document == NULL)
        return rate;
    if (xv_job_limits_read(document, "job.limits", &limits, NULL) == 0)
        rate = xv_curve_at(&limits.rate, xv_week_minute(xv_wall_ms())).rate;
    xv_job_limits_free(&limits);
    return rate;
}

/* Living members of the job's pools. */
static uint64_t members_of(const struct xv_view *view, const struct xv_view_job *job)
{
    uint64_t count = 0;
    for (size_t i = 0; i < view->member_count; i++) {
        for (size_t j = 0; j < json_array_size(job->job.pools); j++) {
            const char *pool = json_string_value(json_array_get(job->job.pools, j));
            count += pool != NULL && strcmp(pool, view->members[i].pool) == 0;
        }
    }
    return count == 0 ? 1 : count;
}

void xv_pace_learn(struct xv_agent *agent, const struct xv_view *view)
{
    json_t *paces = json_object();
    for (size_t i = 0; i < view->job_count; i++) {
        const struct xv_view_job *job = &view->jobs[i];
        uint64_t rate = rate_of(job);
        if (rate == XV_RATE_UNLIMITED)
            continue;
        rate /= members_of(view, job);
        json_object_set_new(paces, job->job.id,
                            json_pack("{s:I, s:I}", "rate",
                                      (json_int_t)(rate > INT64_MAX ? INT64_MAX : rate), "next_ms",
                                      (json_int_t)0));
    }
    pthread_mutex_lock(&agent->lock);
    json_t *before = agent->paces;
    const char *id;
    json_t *pace;
    json_object_foreach(paces, id, pace)
        xv_set_number(pace, "next_ms", xv_member_number(json_object_get(before, id), "next_ms"));
    agent->paces = paces;
    pthread_mutex_unlock(&agent->lock);
    json_decref(before);
}

bool xv_pace_take(struct xv_agent *agent, const char *job_id, uint64_t bytes)
{
    bool may = true;
    int64_t now = xv_clock_ms();
    pthread_mutex_lock(&agent->lock);
    json_t *pace = json_object_get(agent->paces, job_id);
    if (pace != NULL) {
        int64_t rate = xv_member_number(pace, "rate");
        int64_t next = xv_member_number(pace, "next_ms");
        may = rate > 0 && next <= now;
        if (may) {
            double takes = (double)bytes * 1000.0 / (double)rate;
            xv_set_number(pace, "next_ms",
                          now + (takes > 1e12 ? INT64_C(1000000000000) : (int64_t)takes));
        }
    }
    pthread_mutex_unlock(&agent->lock);
    return may;
}
