/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/history.h"

#include "job/json.h"

#define LIMIT_DEFAULT 100u
#define LIMIT_MAX     10000u

static json_t *parse(const char *text)
{
    json_t *document = text == NULL ? NULL : json_loads(text, 0, NULL);
    return document == NULL ? json_null() : document;
}

/* The report's own summary and error; the whole report would make a list of many jobs very long. */
static int add_job(void *user, const struct xv_coord_job *job, xvsa_error **error)
{
    json_t *jobs = user;
    json_t *report = parse(job->report);
    json_t *object =
        json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:I, s:I, s:o, s:o, s:o}", "id",
                  xv_json_text(job->id), "type", xv_json_text(job->type), "name",
                  xv_json_text(job->name), "state", xv_json_text(job->state), "pool",
                  job->pool_uuid[0] == '\0' ? json_null() : xv_json_text(job->pool_uuid), "repo",
                  xv_json_text(job->repo_id), "started_ms", (json_int_t)job->started_ms, "ended_ms",
                  (json_int_t)job->ended_ms, "spec", parse(job->spec), "summary", json_null(),
                  "error", json_null());
    if (object != NULL && json_object_get(report, "summary") != NULL)
        json_object_set(object, "summary", json_object_get(report, "summary"));
    if (object != NULL && json_object_get(report, "error") != NULL)
        json_object_set(object, "error", json_object_get(report, "error"));
    json_decref(report);
    if (json_array_append_new(jobs, object) != 0)
        return xv_fail_memory(error);
    return 0;
}

int xv_history_list(struct xv_engine *engine, uint32_t limit, char **ret, xvsa_error **error)
{
    limit = limit == 0 ? LIMIT_DEFAULT : limit > LIMIT_MAX ? LIMIT_MAX : limit;
    json_t *jobs = json_array();
    if (jobs == NULL)
        return xv_fail_memory(error);
    int rc = xv_coord_jobs(xv_engine_coord(engine), limit, add_job, jobs, error);
    if (rc != 0) {
        json_decref(jobs);
        return rc;
    }
    return xv_json_print(jobs, ret, error);
}
