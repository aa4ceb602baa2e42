/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * xvsa repo init, info and verify.
 */
#include <stdio.h>
#include <string.h>

#include "cli.h"

/* Members of a document, one a line; sizes in units. */
static void print_members(const json_t *object, int indent)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)object, name, value)
    {
        char text[TEXT_SIZE];
        size_t length = strlen(name);
        bool is_bytes = strncmp(name, "bytes", 5) == 0 || strcmp(name, "chunk_size") == 0 ||
                        (length > 6 && strcmp(name + length - 6, "_bytes") == 0);
        bool is_instant = length > 3 && strcmp(name + length - 3, "_ms") == 0;
        printf("%*s%-*s ", indent, "", 24 - indent, name);
        if (json_is_object(value)) {
            printf("\n");
            print_members(value, indent + 2);
        } else if (json_is_string(value)) {
            printf("%s\n", json_string_value(value));
        } else if (json_is_integer(value) && is_bytes) {
            printf("%s\n", size_text((uint64_t)json_integer_value(value), text));
        } else if (json_is_integer(value) && is_instant) {
            printf("%s\n", instant_text(json_integer_value(value), text));
        } else if (json_is_integer(value)) {
            printf("%lld\n", (long long)json_integer_value(value));
        } else if (json_is_boolean(value)) {
            printf("%s\n", json_is_true(value) ? "yes" : "no");
        } else {
            printf("-\n");
        }
    }
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
    print_members(info, 0);
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
