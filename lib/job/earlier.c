/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/earlier.h"

#include <string.h>

#define LIMIT 10000u

struct search {
    const char *id;
    enum xv_job_type type;
    bool found, of_type;
    json_t *report;
};

static int look(void *user, const struct xv_coord_job *job, xvsa_error **error)
{
    struct search *search = user;
    (void)error;
    if (search->found || strcmp(job->id, search->id) != 0)
        return 0;
    search->found = true;
    search->of_type = strcmp(job->type, xv_job_type_name(search->type)) == 0;
    search->report = job->report == NULL ? NULL : json_loads(job->report, 0, NULL);
    return 0;
}

static int check(const struct search *search, xvsa_error **error)
{
    if (!search->found)
        return xv_fail(error, XVSA_ERR_NOT_FOUND, "job", "the state knows no job %s", search->id);
    if (!search->of_type)
        return xv_fail(error, XVSA_ERR_INVALID, "job", "job %s was no %s", search->id,
                       xv_job_type_name(search->type));
    if (search->report == NULL)
        return xv_fail(error, XVSA_ERR_STATE, "job", "job %s has no report", search->id);
    return 0;
}

int xv_earlier_failures(struct xv_engine *engine, const char *id, enum xv_job_type type,
                        json_t **ret, xvsa_error **error)
{
    struct search search = {.id = id, .type = type};
    int rc = xv_coord_jobs(xv_engine_coord(engine), LIMIT, look, &search, error);
    if (rc == 0)
        rc = check(&search, error);
    const json_t *vms = json_object_get(search.report, "vms");
    json_t *failed = json_array();
    for (size_t i = 0; rc == 0 && i < json_array_size(vms); i++) {
        json_t *vm = json_array_get(vms, i);
        const char *state = json_string_value(json_object_get(vm, "state"));
        if (state != NULL && strcmp(state, "succeeded") != 0)
            json_array_append(failed, vm);
    }
    json_decref(search.report);
    if (rc != 0 || failed == NULL) {
        json_decref(failed);
        return rc != 0 ? rc : xv_fail_memory(error);
    }
    *ret = failed;
    return 0;
}
