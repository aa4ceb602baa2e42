/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * xvsa repo init, info and verify.
 */
#include "cli.h"

static void print_sessions(const json_t *sessions)
{
    size_t index;
    json_t *session;
    json_array_foreach(sessions, index, session)
        say("Under way            %s of %s by %s\n", text_of(session, "kind"),
            text_of(session, "key"), text_of(session, "owner"));
}

static void print_info(const json_t *info)
{
    char chunk[TEXT_SIZE], stored[TEXT_SIZE], room[TEXT_SIZE], whole[TEXT_SIZE], made[TEXT_SIZE];
    say("Repository           %s\n", text_of(info, "id"));
    say("Target               %s\n", text_of(info, "url"));
    say("Made                 %s\n", instant_text(number_of(info, "created_ms"), made));
    say("Encrypted            %s\n", is_true(info, "encrypted") ? "yes" : "no");
    say("Chunk size           %s\n", size_text((uint64_t)number_of(info, "chunk_size"), chunk));
    say("Restore points       %lld\n", (long long)number_of(info, "points"));
    say("Stored               %lld objects, %s\n", (long long)number_of(info, "objects"),
        size_text((uint64_t)number_of(info, "bytes"), stored));
    if (json_object_get(info, "target_bytes") != NULL)
        say("Free on the target   %s of %s\n",
            size_text((uint64_t)number_of(info, "target_free_bytes"), room),
            size_text((uint64_t)number_of(info, "target_bytes"), whole));
    say("Conditional writes   %s\n", text_of(info, "conditional_writes"));
    say("Writers at a time    %s\n", text_of(info, "writers"));
    print_sessions(json_object_get(info, "sessions"));
    if (is_true(info, "damaged"))
        say("Damaged              %s\n", text_of(info, "damage"));
}

static int show_info(struct session *session)
{
    char *document = NULL;
    xvsa_error *error = NULL;
    if (xvsa_repo_info(session->repo, &session->call, &document, &error) != XVSA_OK)
        return fail(error, "cannot read the repository");
    if (session->arguments->json)
        return print_document(document);
    json_t *info = parse_document(document, "repo");
    if (info == NULL)
        return EXIT_FAILED;
    print_info(info);
    json_decref(info);
    return EXIT_OK;
}

int command_repo_init(const struct arguments *arguments)
{
    struct session session;
    int code = session_open(&session, arguments);
    if (code == EXIT_OK)
        code = session_init_repo(&session);
    if (code == EXIT_OK)
        code = show_info(&session);
    session_close(&session);
    return code;
}

int command_repo_info(const struct arguments *arguments)
{
    struct session session;
    int code = session_open(&session, arguments);
    if (code == EXIT_OK)
        code = session_open_repo(&session);
    if (code == EXIT_OK)
        code = show_info(&session);
    session_close(&session);
    return code;
}

int command_repo_verify(const struct arguments *arguments)
{
    struct session session;
    json_t *document = NULL;
    xvsa_plan *plan = NULL;
    int code = session_open(&session, arguments);
    session.only_reads = true;
    if (code == EXIT_OK)
        code = session_open_repo(&session);
    if (code == EXIT_OK)
        code = verify_document(arguments, &document);
    if (code == EXIT_OK)
        code = make_plan(&session, document, &plan);
    if (code == EXIT_OK)
        code = run_plan(&session, plan, "verify");
    json_decref(document);
    xvsa_plan_unref(plan);
    session_close(&session);
    return code;
}
