/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * xvsa job: jobs of a site.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "config.h"

#define LOOK_MS 1000

typedef int (*site_work)(struct session *session);

static int with_site(const struct arguments *arguments, site_work work)
{
    struct session session;
    int code = session_open(&session, arguments);
    if (code == EXIT_OK)
        code = session_open_site(&session);
    if (code == EXIT_OK)
        code = work(&session);
    session_close(&session);
    return code;
}

/* ---- submit ---- */

static int read_document(const char *path, json_t **ret)
{
    bool standard = strcmp(path, "-") == 0;
    FILE *file = standard ? stdin : fopen(path, "rbe");
    json_error_t where;
    if (file == NULL) {
        complain("%s: cannot be read", path);
        return EXIT_USAGE;
    }
    *ret = json_loadf(file, JSON_REJECT_DUPLICATES, &where);
    if (!standard)
        fclose(file);
    if (*ret == NULL || !json_is_object(*ret)) {
        json_decref(*ret);
        *ret = NULL;
        return usage_error("%s: line %d, column %d: not a JSON object", path, where.line,
                           where.column);
    }
    return EXIT_OK;
}

/* A job of the configuration names its pool and repository as members call them. */
static void add_places(const struct session *session, json_t *document)
{
    const struct arguments *arguments = session->arguments;
    const struct config_job *job = arguments->job != NULL && session->config != NULL
                                       ? config_find_job(session->config, arguments->job)
                                       : NULL;
    const char *repository = arguments->repo != NULL ? arguments->repo
                             : job != NULL           ? job->repository
                                                     : NULL;
    if (repository != NULL)
        json_object_set_new(document, "repository", json_string(repository));
    if (arguments->pool.count > 0) {
        json_t *pools = json_array();
        for (size_t i = 0; i < arguments->pool.count; i++)
            json_array_append_new(pools, json_string(arguments->pool.items[i]));
        json_object_del(document, "pool");
        json_object_set_new(document, "pools", pools);
    } else if (job != NULL && job->pool != NULL) {
        json_object_set_new(document, "pool", json_string(job->pool));
    }
    if (arguments->priority != 0)
        json_object_set_new(document, "priority", json_integer(arguments->priority));
    if (arguments->time_limit != 0)
        json_object_set_new(document, "time_limit_ms", json_integer(arguments->time_limit * 1000));
}

static int make_document(const struct session *session, json_t **ret)
{
    const struct arguments *arguments = session->arguments;
    int code = arguments->document != NULL ? read_document(arguments->document, ret)
                                           : backup_document(session, ret);
    if (code == EXIT_OK)
        add_places(session, *ret);
    return code;
}

static int wait_for(struct session *session, const char *id)
{
    xvsa_error *error = NULL;
    xvsa_call call = session->call;
    call.timeout_ms = -1;
    if (xvsa_site_wait(session->site, id, &call, &error) != XVSA_OK)
        return fail(error, "job");
    return EXIT_OK;
}

static int show_id(const struct session *session, const char *id)
{
    if (session->arguments->json)
        say("{\"job\": \"%s\"}\n", id);
    else
        say("%s\n", id);
    return EXIT_OK;
}

static int submit(struct session *session)
{
    json_t *document = NULL;
    char *id = NULL;
    xvsa_error *error = NULL;
    int code = make_document(session, &document);
    char *spec = code == EXIT_OK ? json_dumps(document, JSON_COMPACT) : NULL;
    json_decref(document);
    if (code == EXIT_OK && spec == NULL) {
        complain("out of memory, or an argument that is not UTF-8");
        code = EXIT_FAILED;
    }
    if (code == EXIT_OK &&
        xvsa_site_submit(session->site, spec, &session->call, &id, &error) != XVSA_OK)
        code = fail(error, "the job was not submitted");
    free(spec);
    if (code == EXIT_OK)
        code = show_id(session, id);
    if (code == EXIT_OK && session->arguments->wait)
        code = wait_for(session, id);
    xvsa_free(id);
    return code;
}

int command_job_submit(const struct arguments *arguments)
{
    return with_site(arguments, submit);
}

static int retry(struct session *session)
{
    char *id = NULL;
    xvsa_error *error = NULL;
    if (xvsa_site_retry(session->site, session->arguments->operands[0], &session->call, &id,
                        &error) != XVSA_OK)
        return fail(error, "the job was not submitted anew");
    int code = show_id(session, id);
    xvsa_free(id);
    return code;
}

int command_job_retry(const struct arguments *arguments)
{
    return with_site(arguments, retry);
}

/* ---- looking ---- */

static int list(struct session *session)
{
    const struct arguments *arguments = session->arguments;
    char *document = NULL;
    xvsa_error *error = NULL;
    if (arguments->limit < 0 || arguments->limit > UINT32_MAX)
        return usage_error("--limit: must be from 0 to %lld", (long long)UINT32_MAX);
    if (xvsa_site_list_jobs(session->site, (uint32_t)arguments->limit, &session->call, &document,
                            &error) != XVSA_OK)
        return fail(error, "cannot read the jobs");
    if (arguments->json)
        return print_document(document);
    json_t *jobs = parse_document(document, "site-jobs");
    if (jobs == NULL)
        return EXIT_FAILED;
    print_site_jobs(jobs);
    json_decref(jobs);
    return EXIT_OK;
}

int command_job_list(const struct arguments *arguments)
{
    return with_site(arguments, list);
}

static int show(struct session *session)
{
    char *document = NULL;
    xvsa_error *error = NULL;
    if (xvsa_site_job(session->site, session->arguments->operands[0], &session->call, &document,
                      &error) != XVSA_OK)
        return fail(error, "cannot read the job");
    if (session->arguments->json)
        return print_document(document);
    json_t *job = parse_document(document, "site-job");
    if (job == NULL)
        return EXIT_FAILED;
    print_site_job(job);
    json_decref(job);
    return EXIT_OK;
}

int command_job_show(const struct arguments *arguments)
{
    return with_site(arguments, show);
}

static int wait_operand(struct session *session)
{
    return wait_for(session, session->arguments->operands[0]);
}

int command_job_wait(const struct arguments *arguments)
{
    return with_site(arguments, wait_operand);
}

/* One line for each task whose state or owner changed since the last look. */
static void tell_changes(const json_t *job, json_t *before)
{
    size_t i;
    json_t *vm;
    json_array_foreach(json_object_get(job, "vms"), i, vm)
    {
        char now[256];
        const char *owner = text_of(vm, "owner");
        snprintf(now, sizeof now, "%s%s%s", text_of(vm, "state"), owner[0] == '\0' ? "" : " at ",
                 owner);
        if (strcmp(text_of(before, text_of(vm, "uuid")), now) == 0)
            continue;
        json_object_set_new(before, text_of(vm, "uuid"), json_string(now));
        say("%s: %s\n", text_of(vm, "name"), now);
    }
    fflush(stdout);
}

/* Tells what changed; a store that does not answer for a while is asked again at the next look. */
static int look(struct session *session, const char *id, json_t *before, bool *ret_ended)
{
    char *document = NULL;
    xvsa_error *error = NULL;
    if (xvsa_site_job(session->site, id, &session->call, &document, &error) != XVSA_OK) {
        if (!xvsa_error_is_retryable(error))
            return fail(error, "cannot read the job");
        xvsa_error_unref(error);
        return EXIT_OK;
    }
    json_t *job = parse_document(document, "site-job");
    if (job != NULL && !session->arguments->json)
        tell_changes(job, before);
    *ret_ended = job == NULL || number_of(job, "ended_ms") != 0;
    json_decref(job);
    return EXIT_OK;
}

/* Members still work when this ends: a signal only ends the watching. */
static int watch(struct session *session)
{
    const char *id = session->arguments->operands[0];
    json_t *before = json_object();
    int code = EXIT_OK;
    for (bool ended = false; code == EXIT_OK && !ended;) {
        code = look(session, id, before, &ended);
        if (code != EXIT_OK)
            break;
        xvsa_call call = session->call;
        call.timeout_ms = LOOK_MS;
        int32_t result = ended ? XVSA_OK : xvsa_site_wait(session->site, id, &call, NULL);
        if (result == XVSA_ERR_CANCELLED && stop_level() > 0)
            code = EXIT_CANCELLED;
    }
    json_decref(before);
    if (code == EXIT_OK)
        code = show(session);
    if (code == EXIT_OK)
        code = wait_operand(session);
    return code;
}

int command_job_watch(const struct arguments *arguments)
{
    return with_site(arguments, watch);
}

/* ---- control ---- */

static int control(struct session *session, int32_t action)
{
    xvsa_error *error = NULL;
    if (xvsa_site_control(session->site, session->arguments->operands[0], action, &session->call,
                          &error) != XVSA_OK)
        return fail(error, "the job was not told");
    return EXIT_OK;
}

static int suspend(struct session *session)
{
    return control(session, XVSA_CONTROL_SUSPEND);
}

static int resume(struct session *session)
{
    return control(session, XVSA_CONTROL_RESUME);
}

static int cancel(struct session *session)
{
    return control(session,
                   session->arguments->now ? XVSA_CONTROL_CANCEL_NOW : XVSA_CONTROL_CANCEL);
}

int command_job_suspend(const struct arguments *arguments)
{
    return with_site(arguments, suspend);
}

int command_job_resume(const struct arguments *arguments)
{
    return with_site(arguments, resume);
}

int command_job_cancel(const struct arguments *arguments)
{
    return with_site(arguments, cancel);
}
