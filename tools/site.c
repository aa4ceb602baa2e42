/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Connecting to a site, and xvsa site show.
 */
#include <stdlib.h>

#include "cli.h"
#include "config.h"

static int fill_options(const struct session *session, xvsa_site_options *options)
{
    static const struct config_site none = {0};
    const struct arguments *arguments = session->arguments;
    const struct config_site *site =
        session->config != NULL && session->config->site != NULL ? session->config->site : &none;
    options->store = arguments->store != NULL ? arguments->store : site->store;
    options->name = arguments->site != NULL ? arguments->site : site->name;
    options->flags = site->allow_plain_http ? XVSA_SITE_ALLOW_PLAIN_HTTP : 0;
    options->username = site->username;
    options->ca_file = site->ca_file;
    options->certificate_file = site->certificate_file;
    options->key_file = site->key_file;
    if (options->store == NULL || options->name == NULL)
        return usage_error("which site? Give --store and --site, or --config with a \"site\"");
    return EXIT_OK;
}

int session_open_site(struct session *session)
{
    xvsa_site_options options = XVSA_SITE_OPTIONS_INIT;
    struct secret password = {NULL, 0};
    int code = fill_options(session, &options);
    if (code == EXIT_OK && options.username != NULL) {
        struct secret_source source = {"password of the coordination store",
                                       session->config->site->password_file, -1, false};
        code = secret_read(&source, &password);
        options.password = password.bytes;
    }
    if (code != EXIT_OK)
        return code;
    xvsa_error *error = NULL;
    int32_t result =
        xvsa_site_open(session->context, &options, &session->call, &session->site, &error);
    secret_wipe(&password);
    return result == XVSA_OK ? EXIT_OK : fail(error, "cannot reach the coordination store");
}

int command_site_show(const struct arguments *arguments)
{
    struct session session;
    char *document = NULL;
    xvsa_error *error = NULL;
    int code = session_open(&session, arguments);
    if (code == EXIT_OK)
        code = session_open_site(&session);
    if (code == EXIT_OK &&
        xvsa_site_members(session.site, &session.call, &document, &error) != XVSA_OK)
        code = fail(error, "cannot read the site");
    if (code == EXIT_OK && arguments->json) {
        code = print_document(document);
    } else if (code == EXIT_OK) {
        json_t *site = parse_document(document, "site");
        code = site == NULL ? EXIT_FAILED : EXIT_OK;
        if (site != NULL)
            print_site(site);
        json_decref(site);
    }
    session_close(&session);
    return code;
}
