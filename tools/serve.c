/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * xvsa serve: a member of a site.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "config.h"

#define LISTEN_DEFAULT   "127.0.0.1:9190"
#define DRAIN_DEFAULT_MS 60000

struct service {
    struct session session;
    xvsa_agent_repository *repositories;
    uint32_t repository_count;
    xvsa_agent *agent;
    struct serve_http *http;
};

static const struct config_site *site_of(const struct service *service)
{
    return service->session.config == NULL ? NULL : service->session.config->site;
}

static int open_repositories(struct service *service)
{
    struct session *session = &service->session;
    const struct config *config = session->config;
    if (config->repository_count == 0)
        return usage_error("a member needs repositories in the configuration");
    service->repositories = calloc(config->repository_count, sizeof *service->repositories);
    if (service->repositories == NULL) {
        complain("out of memory");
        return EXIT_FAILED;
    }
    for (size_t i = 0; i < config->repository_count; i++) {
        int code = session_open_named_repo(session, &config->repositories[i]);
        xvsa_target_unref(session->target);
        session->target = NULL;
        if (code != EXIT_OK)
            return code;
        service->repositories[i].name = config->repositories[i].name;
        service->repositories[i].repo = session->repo;
        session->repo = NULL;
        service->repository_count++;
    }
    return EXIT_OK;
}

/* The pool that is served, and the entry of its proxies that is this member. */
static const struct config_pool *pool_of(const struct service *service)
{
    const struct config *config = service->session.config;
    const struct texts *given = &service->session.arguments->pool;
    const char *name = given->count > 0 ? given->items[0] : site_of(service)->pool;
    if (name != NULL)
        return config_find_pool(config, name);
    return config->pool_count == 1 ? &config->pools[0] : NULL;
}

static const struct config_proxy *proxy_of(const struct config_pool *pool, const char *name)
{
    for (size_t i = 0; i < pool->proxy_count; i++) {
        if (pool->proxies[i].name != NULL && strcmp(pool->proxies[i].name, name) == 0)
            return &pool->proxies[i];
    }
    return NULL;
}

static int fill_options(const struct service *service, xvsa_agent_options *options)
{
    const struct config_site *site = site_of(service);
    const struct config_pool *pool = pool_of(service);
    const char *given = service->session.arguments->member;
    options->name = given != NULL ? given : site->member;
    if (pool == NULL)
        return usage_error("which pool? Give --pool, or site.pool in the configuration");
    if (options->name == NULL)
        return usage_error("which member? Give --member, or site.member in the configuration");
    const struct config_proxy *proxy = proxy_of(pool, options->name);
    options->pool = service->session.pool;
    options->pool_name = pool->name;
    options->vm_uuid = site->vm_uuid != NULL ? site->vm_uuid
                       : proxy != NULL       ? proxy->vm_uuid
                                             : NULL;
    options->max_disks = (uint32_t)(site->max_disks != 0 ? site->max_disks
                                    : proxy != NULL      ? proxy->max_disks
                                                         : 0);
    options->flags = proxy != NULL && proxy->here ? XVSA_AGENT_HOTADD : 0;
    options->device_path = proxy != NULL ? proxy->device_path : NULL;
    options->lease_ttl_ms = site->lease_ttl_ms;
    options->checkpoint_ms = site->checkpoint_ms;
    options->unit_bytes = (uint64_t)site->unit_bytes;
    options->repositories = service->repositories;
    options->repository_count = service->repository_count;
    if (options->vm_uuid == NULL)
        return usage_error("which VM is \"%s\"? Give site.vm_uuid, or a proxy of the pool with this"
                           " name in the configuration",
                           options->name);
    return EXIT_OK;
}

static int join(struct service *service)
{
    xvsa_agent_options options = XVSA_AGENT_OPTIONS_INIT;
    struct session *session = &service->session;
    xvsa_error *error = NULL;
    int code = fill_options(service, &options);
    if (code != EXIT_OK)
        return code;
    options.address = session->arguments->listen;
    if (options.address == NULL && session->config->serve != NULL)
        options.address = session->config->serve->listen;
    if (options.address == NULL)
        options.address = LISTEN_DEFAULT;
    if (xvsa_agent_start(session->site, &options, &session->call, &service->agent, &error) !=
        XVSA_OK)
        return fail(error, "cannot join the site");
    code = serve_http_start(options.address, service->agent, &service->http);
    if (code == EXIT_OK && !session->arguments->quiet)
        complain("%s serves; health and metrics at http://%s/", options.name,
                 serve_http_address(service->http));
    return code;
}

/* Ends the member in an orderly way; a second signal hastens it. */
static int drain(struct service *service)
{
    const struct config_serve *serve = service->session.config->serve;
    xvsa_call call = XVSA_CALL_INIT;
    xvsa_error *error = NULL;
    call.timeout_ms = serve != NULL && serve->drain_ms != 0 ? serve->drain_ms : DRAIN_DEFAULT_MS;
    call.cancel = stop_token();
    notify("STOPPING=1");
    if (xvsa_agent_drain(service->agent, &call, &error) != XVSA_OK)
        return fail(error, "cannot leave the site in order");
    return EXIT_OK;
}

static int run(struct service *service)
{
    int code = join(service);
    if (code == EXIT_OK) {
        notify("READY=1");
        /* Until the first signal; there is no input to wait for. */
        stop_await_input(-1);
    }
    int drained = service->agent == NULL ? EXIT_OK : drain(service);
    return code != EXIT_OK ? code : drained;
}

static void close_service(struct service *service)
{
    serve_http_stop(service->http);
    xvsa_agent_unref(service->agent);
    for (uint32_t i = 0; i < service->repository_count; i++)
        xvsa_repo_unref(service->repositories[i].repo);
    free(service->repositories);
    session_close(&service->session);
}

int command_serve(const struct arguments *arguments)
{
    struct service service = {.agent = NULL};
    int code = session_open(&service.session, arguments);
    service.session.joins_site = true;
    if (code == EXIT_OK && site_of(&service) == NULL)
        code = usage_error("a member needs --config with a \"site\"");
    if (code == EXIT_OK)
        code = open_repositories(&service);
    if (code == EXIT_OK)
        code = session_open_pool(&service.session);
    if (code == EXIT_OK)
        code = session_open_site(&service.session);
    if (code == EXIT_OK) {
        stop_guard_service(true);
        code = run(&service);
        stop_guard_service(false);
    }
    close_service(&service);
    return code;
}
