/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * xvsa pool show.
 */
#include "cli.h"

static int show_inventory(struct session *session)
{
    char *document = NULL;
    xvsa_error *error = NULL;
    if (xvsa_pool_inventory(session->pool, &session->call, &document, &error) != XVSA_OK)
        return fail(error, "cannot read the pool");
    if (session->arguments->json)
        return print_document(document);
    json_t *inventory = parse_document(document, "inventory");
    if (inventory == NULL)
        return EXIT_FAILED;
    print_inventory(inventory);
    json_decref(inventory);
    return EXIT_OK;
}

int command_pool_show(const struct arguments *arguments)
{
    struct session session;
    int code = session_open(&session, arguments);
    if (code == EXIT_OK)
        code = session_open_pool(&session);
    if (code == EXIT_OK)
        code = show_inventory(&session);
    session_close(&session);
    return code;
}
