/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * xvsa points, point show and point delete.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

static int with_repo(const struct arguments *arguments, bool only_reads,
                     int (*work)(struct session *session))
{
    struct session session;
    int code = session_open(&session, arguments);
    session.only_reads = only_reads;
    if (code == EXIT_OK)
        code = session_open_repo(&session);
    if (code == EXIT_OK)
        code = work(&session);
    session_close(&session);
    return code;
}

static int list_points(struct session *session)
{
    char *document = NULL;
    xvsa_error *error = NULL;
    if (xvsa_repo_list_points(session->repo, session->arguments->vm, &session->call, &document,
                              &error) != XVSA_OK)
        return fail(error, "cannot list the restore points");
    if (session->arguments->json)
        return print_document(document);
    json_t *points = parse_document(document, "points");
    if (points == NULL)
        return EXIT_FAILED;
    print_points(points);
    json_decref(points);
    return EXIT_OK;
}

static int find_point(struct session *session, xvsa_point **ret)
{
    xvsa_error *error = NULL;
    if (xvsa_repo_find_point(session->repo, session->arguments->operands[0], &session->call, ret,
                             &error) != XVSA_OK)
        return fail(error, "cannot open the restore point");
    return EXIT_OK;
}

static int show_point(struct session *session)
{
    xvsa_point *point = NULL;
    char *document = NULL;
    xvsa_error *error = NULL;
    int code = find_point(session, &point);
    if (code == EXIT_OK && xvsa_point_describe(point, &document, &error) != XVSA_OK)
        code = fail(error, "cannot describe the restore point");
    xvsa_point_unref(point);
    if (code != EXIT_OK)
        return code;
    if (session->arguments->json)
        return print_document(document);
    json_t *value = parse_document(document, "point");
    if (value == NULL)
        return EXIT_FAILED;
    print_point(value);
    json_decref(value);
    return EXIT_OK;
}

/* Asks before something that cannot be undone. */
static int confirm(const struct arguments *arguments, const xvsa_point *point)
{
    if (arguments->yes)
        return EXIT_OK;
    if (isatty(STDIN_FILENO) != 1)
        return usage_error("point delete: give --yes where there is nobody to ask");
    fprintf(stderr, "Delete restore point %s for ever? [y/N] ", xvsa_point_id(point));
    char answer[16] = "";
    if (fgets(answer, sizeof answer, stdin) == NULL || (answer[0] != 'y' && answer[0] != 'Y')) {
        complain("nothing was deleted");
        return EXIT_CANCELLED;
    }
    return EXIT_OK;
}

static int delete_point(struct session *session)
{
    xvsa_point *point = NULL;
    xvsa_error *error = NULL;
    int code = find_point(session, &point);
    if (code == EXIT_OK)
        code = confirm(session->arguments, point);
    if (code == EXIT_OK && xvsa_point_delete(point, &session->call, &error) != XVSA_OK)
        code = fail(error, "cannot delete the restore point");
    if (code == EXIT_OK && session->arguments->json)
        printf("{\"deleted\": \"%s\"}\n", xvsa_point_id(point));
    else if (code == EXIT_OK)
        printf("deleted %s\n", xvsa_point_id(point));
    xvsa_point_unref(point);
    return code;
}

int command_points(const struct arguments *arguments)
{
    return with_repo(arguments, true, list_points);
}

int command_point_show(const struct arguments *arguments)
{
    return with_repo(arguments, true, show_point);
}

int command_point_delete(const struct arguments *arguments)
{
    return with_repo(arguments, false, delete_point);
}
