/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Plans, and jobs run to their end: events and progress are shown, signals become cancellation, and
 * the report is printed whatever the outcome.
 */
#include <stdio.h>
#include <stdlib.h>

#include "cli.h"

#define EVENT_WAIT_MS 200

int make_plan(struct session *session, const json_t *document, xvsa_plan **ret)
{
    char *spec = json_dumps(document, JSON_COMPACT);
    if (spec == NULL) {
        complain("out of memory, or an argument that is not UTF-8");
        return EXIT_FAILED;
    }
    xvsa_error *error = NULL;
    int32_t result = xvsa_plan_new(session->context, spec, session->pool, session->repo,
                                   &session->call, ret, &error);
    free(spec);
    return result == XVSA_OK ? EXIT_OK : fail(error, "no plan can be made");
}

int show_plan(struct session *session, const xvsa_plan *plan)
{
    char *document = NULL;
    xvsa_error *error = NULL;
    if (xvsa_plan_describe(plan, &document, &error) != XVSA_OK)
        return fail(error, "cannot describe the plan");
    if (session->arguments->json)
        return print_document(document);
    json_t *value = parse_document(document, "plan");
    if (value == NULL)
        return EXIT_FAILED;
    print_plan(value);
    json_decref(value);
    return EXIT_OK;
}

/* Hands a new stop request on to the job; told is how far it knows. */
static void pass_stop_on(xvsa_job *job, struct progress *progress, int *told)
{
    int level = stop_level();
    if (level == *told)
        return;
    *told = level;
    xvsa_error *error = NULL;
    if (xvsa_job_cancel(job, level == 1 ? XVSA_CANCEL_GRACEFUL : XVSA_CANCEL_NOW, &error) !=
        XVSA_OK) {
        fail(error, "cannot cancel");
        return;
    }
    progress_line(progress, level == 1 ? "finishing the VMs under way; once more stops at once"
                                       : "stopping and cleaning up");
}

static void show_event(struct progress *progress, char *document)
{
    json_t *event = parse_document(document, "event");
    char *line = event != NULL ? event_line(event) : NULL;
    if (line != NULL)
        progress_line(progress, line);
    free(line);
    json_decref(event);
}

/* Follows a job until its last event. */
static void follow(xvsa_job *job, struct progress *progress)
{
    int told = 0;
    for (;;) {
        char *document = NULL;
        int32_t result = xvsa_job_next_event(job, EVENT_WAIT_MS, &document, NULL);
        if (result == XVSA_OK)
            show_event(progress, document);
        else if (result != XVSA_ERR_TIMEOUT)
            break; /* the last event was taken */
        pass_stop_on(job, progress, &told);
        xvsa_progress state = XVSA_PROGRESS_INIT;
        if (xvsa_job_get_progress(job, &state, NULL) == XVSA_OK)
            progress_update(progress, &state);
    }
}

static int show_report(struct session *session, const xvsa_job *job)
{
    char *document = NULL;
    xvsa_error *error = NULL;
    if (xvsa_job_report(job, &document, &error) != XVSA_OK)
        return fail(error, "cannot read the report");
    if (session->arguments->json)
        return print_document(document);
    json_t *report = parse_document(document, "report");
    if (report == NULL)
        return EXIT_FAILED;
    print_report(report);
    json_decref(report);
    return EXIT_OK;
}

int run_plan(struct session *session, xvsa_plan *plan, const char *verb)
{
    xvsa_job *job = NULL;
    xvsa_error *error = NULL;
    stop_guard_job(true);
    if (stop_level() > 0 || xvsa_job_start(plan, &job, &error) != XVSA_OK) {
        stop_guard_job(false);
        return error != NULL ? fail(error, "the job cannot start") : EXIT_CANCELLED;
    }
    struct progress *progress = progress_new(session->arguments, verb);
    follow(job, progress);
    progress_end(progress);
    stop_guard_job(false);
    int shown = show_report(session, job);
    int code = EXIT_OK;
    if (xvsa_job_wait(job, -1, &error) != XVSA_OK)
        code = fail(error, verb);
    xvsa_job_unref(job);
    return code != EXIT_OK ? code : shown;
}
