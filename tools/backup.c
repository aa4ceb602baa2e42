/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * xvsa backup, restore, plan backup and plan restore: the same document leads to the plan that is
 * shown and to the job that is run.
 */
#include "cli.h"

static int work_on_pool(const struct arguments *arguments, bool restore, bool only_plan)
{
    struct session session;
    json_t *document = NULL;
    xvsa_plan *plan = NULL;
    int code = session_open(&session, arguments);
    session.only_reads = only_plan;
    if (code == EXIT_OK)
        code =
            restore ? restore_document(arguments, &document) : backup_document(&session, &document);
    if (code == EXIT_OK && !only_plan && !session_keeps_state(&session))
        complain(
            "warning: without --state nothing remembers what is made in the pool; after a crash "
            "only a run with the same --name cleans up");
    if (code == EXIT_OK)
        code = session_open_repo(&session);
    if (code == EXIT_OK)
        code = session_open_pool(&session);
    if (code == EXIT_OK)
        code = make_plan(&session, document, &plan);
    if (code == EXIT_OK)
        code = only_plan ? show_plan(&session, plan)
                         : run_plan(&session, plan, restore ? "restore" : "backup");
    json_decref(document);
    xvsa_plan_unref(plan);
    session_close(&session);
    return code;
}

int command_backup(const struct arguments *arguments)
{
    return work_on_pool(arguments, false, false);
}

int command_restore(const struct arguments *arguments)
{
    return work_on_pool(arguments, true, false);
}

int command_plan_backup(const struct arguments *arguments)
{
    return work_on_pool(arguments, false, true);
}

int command_plan_restore(const struct arguments *arguments)
{
    return work_on_pool(arguments, true, true);
}
