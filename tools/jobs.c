/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * xvsa jobs and config check.
 */
#include <stdio.h>
#include <stdlib.h>

#include "cli.h"
#include "config.h"

static int list_jobs(struct session *session)
{
    const struct arguments *arguments = session->arguments;
    if (!session_keeps_state(session))
        return usage_error(
            "jobs are kept in a state file: give --state FILE, or --config with one");
    if (arguments->limit < 0 || arguments->limit > UINT32_MAX)
        return usage_error("--limit: must be from 0 to %lld", (long long)UINT32_MAX);
    char *document = NULL;
    xvsa_error *error = NULL;
    if (xvsa_context_list_jobs(session->context, (uint32_t)arguments->limit, &document, &error) !=
        XVSA_OK)
        return fail(error, "cannot read the jobs");
    if (arguments->json)
        return print_document(document);
    json_t *jobs = parse_document(document, "jobs");
    if (jobs == NULL)
        return EXIT_FAILED;
    print_jobs(jobs);
    json_decref(jobs);
    return EXIT_OK;
}

int command_jobs(const struct arguments *arguments)
{
    struct session session;
    int code = session_open(&session, arguments);
    if (code == EXIT_OK)
        code = list_jobs(&session);
    session_close(&session);
    return code;
}

int command_config_check(const struct arguments *arguments)
{
    struct config *config = NULL;
    char *problem = NULL;
    if (!config_load(arguments->operands[0], &config, &problem)) {
        complain("%s", problem != NULL ? problem : "out of memory");
        free(problem);
        return EXIT_USAGE;
    }
    if (arguments->json)
        printf("{\"pools\": %zu, \"repositories\": %zu, \"jobs\": %zu}\n", config->pool_count,
               config->repository_count, config->job_count);
    else
        printf("%s: good: %zu pools, %zu repositories, %zu jobs\n", arguments->operands[0],
               config->pool_count, config->repository_count, config->job_count);
    config_free(config);
    return EXIT_OK;
}
