/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Opens what a command works with, from its options and the configuration. An option given on the
 * command line wins over the configuration.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "config.h"

static void print_log(void *user, int32_t level, const char *component, const char *message)
{
    static const char *const names[] = {"", "error", "warning", "info", "debug"};
    (void)user;
    bool known = level >= XVSA_LOG_ERROR && level <= XVSA_LOG_DEBUG;
    complain("%s: %s: %s", known ? names[level] : "log", component, message);
}

static int read_log_level(const char *name, int32_t *ret)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    *ret = 0;
    for (int i = 0; name != NULL && i < 4; i++) {
        if (strcmp(name, names[i]) == 0)
            *ret = i + 1;
    }
    if (name != NULL && *ret == 0)
        return usage_error("--log-level: \"%s\" is not error, warning, info or debug", name);
    return EXIT_OK;
}

bool session_keeps_state(const struct session *session)
{
    return session->arguments->state != NULL ||
           (session->config != NULL && session->config->state != NULL);
}

static int open_context(struct session *session)
{
    const struct arguments *arguments = session->arguments;
    const struct config *config = session->config;
    xvsa_context_options options = XVSA_CONTEXT_OPTIONS_INIT;
    options.log = print_log;
    options.state_path = arguments->state;
    const char *level = arguments->log_level;
    if (config != NULL) {
        options.worker_threads = (uint32_t)config->worker_threads;
        options.memory_limit = (uint64_t)config->memory_limit;
        if (options.state_path == NULL)
            options.state_path = config->state;
        if (level == NULL)
            level = config->log_level;
    }
    int code = read_log_level(level, &options.log_level);
    if (code != EXIT_OK)
        return code;
    xvsa_error *error = NULL;
    if (xvsa_context_new(&options, &session->context, &error) != XVSA_OK)
        return fail(error, "cannot start");
    return EXIT_OK;
}

int session_open(struct session *session, const struct arguments *arguments)
{
    *session = (struct session){.arguments = arguments, .call = XVSA_CALL_INIT};
    session->call.cancel = stop_token();
    if (arguments->config != NULL) {
        char *problem = NULL;
        if (!config_load(arguments->config, &session->config, &problem)) {
            complain("%s", problem != NULL ? problem : "out of memory");
            free(problem);
            return EXIT_USAGE;
        }
    }
    return open_context(session);
}

/* The job of the configuration that --job names; NULL without. */
static const struct config_job *chosen_job(const struct session *session)
{
    const char *name = session->arguments->job;
    return name != NULL && session->config != NULL ? config_find_job(session->config, name) : NULL;
}

/* Pool of the configuration that the command line means; NULL with EXIT_OK when it gives URLs. */
static int choose_pool(const struct session *session, const struct config_pool **ret)
{
    const struct texts *given = &session->arguments->pool;
    *ret = NULL;
    if (given->count > 0 && strstr(given->items[0], "://") != NULL)
        return EXIT_OK;
    if (session->config == NULL)
        return given->count == 0
                   ? usage_error("which pool? Give --pool URL, or --config with a pool")
                   : usage_error("--pool %s: neither a URL nor, without --config, a known name",
                                 given->items[0]);
    if (given->count > 1)
        return usage_error("--pool: a name of the configuration stands alone");
    const struct config_job *job = chosen_job(session);
    const char *name = given->count == 1 ? given->items[0] : job != NULL ? job->pool : NULL;
    if (name == NULL && session->joins_site)
        name = session->config->site->pool;
    if (name != NULL) {
        *ret = config_find_pool(session->config, name);
        if (*ret == NULL)
            return usage_error("--pool %s: the configuration has no such pool", name);
        return EXIT_OK;
    }
    if (session->config->pool_count != 1)
        return usage_error("which pool? The configuration has %zu; give --pool NAME",
                           session->config->pool_count);
    *ret = &session->config->pools[0];
    return EXIT_OK;
}

/* Options that the command line leaves open come from the configuration. */
static void fill_pool_options(const struct session *session, const struct config_pool *pool,
                              xvsa_pool_options *options)
{
    const struct arguments *arguments = session->arguments;
    bool trust_first = arguments->trust_first || (pool != NULL && pool->trust_on_first_use);
    bool plain_http = arguments->plain_http || (pool != NULL && pool->allow_plain_http);
    bool no_recovery = arguments->no_recovery || (pool != NULL && pool->no_recovery);
    options->flags = (trust_first ? XVSA_POOL_TRUST_ON_FIRST_USE : 0) |
                     (plain_http ? XVSA_POOL_ALLOW_PLAIN_HTTP : 0) |
                     (no_recovery ? XVSA_POOL_NO_RECOVERY : 0);
    options->urls = arguments->pool.items;
    options->url_count = (uint32_t)arguments->pool.count;
    options->username = arguments->user;
    options->ca_file = arguments->ca_file;
    options->fingerprints = arguments->fingerprint.items;
    options->fingerprint_count = (uint32_t)arguments->fingerprint.count;
    options->pool_uuid = arguments->pool_uuid;
    options->originator = PROGRAM;
    if (pool != NULL) {
        options->urls = (const char *const *)pool->urls.items;
        options->url_count = (uint32_t)pool->urls.count;
        if (options->username == NULL)
            options->username = pool->username;
        if (options->ca_file == NULL)
            options->ca_file = pool->ca_file;
        if (options->pool_uuid == NULL)
            options->pool_uuid = pool->pool_uuid;
        if (options->fingerprint_count == 0) {
            options->fingerprints = (const char *const *)pool->fingerprints.items;
            options->fingerprint_count = (uint32_t)pool->fingerprints.count;
        }
    }
    if (options->username == NULL)
        options->username = "root";
}

static int log_in(struct session *session, const struct config_pool *pool)
{
    xvsa_pool_options options = XVSA_POOL_OPTIONS_INIT;
    fill_pool_options(session, pool, &options);
    const struct arguments *arguments = session->arguments;
    char what[256];
    snprintf(what, sizeof what, "password of %s at %s", options.username, options.urls[0]);
    const char *file = arguments->password_file;
    if (file == NULL && arguments->password_fd < 0 && pool != NULL)
        file = pool->password_file;
    struct secret_source source = {what, file, arguments->password_fd, false};
    struct secret password;
    int code = secret_read(&source, &password);
    if (code != EXIT_OK)
        return code;
    options.password = password.bytes;
    xvsa_error *error = NULL;
    int32_t result =
        xvsa_pool_open(session->context, &options, &session->call, &session->pool, &error);
    secret_wipe(&password);
    if (result != XVSA_OK)
        return fail(error, "cannot log in to the pool");
    if ((options.flags & XVSA_POOL_TRUST_ON_FIRST_USE) != 0 && options.ca_file == NULL &&
        options.fingerprint_count == 0 && xvsa_pool_fingerprint(session->pool) != NULL)
        complain("the pool's certificate was trusted unseen; from now on give --fingerprint %s",
                 xvsa_pool_fingerprint(session->pool));
    return EXIT_OK;
}

static int add_proxy(struct session *session, const xvsa_proxy_options *options)
{
    xvsa_error *error = NULL;
    xvsa_proxy **grown =
        realloc(session->proxies, (session->proxy_count + 1) * sizeof *session->proxies);
    if (grown == NULL) {
        complain("out of memory");
        return EXIT_FAILED;
    }
    session->proxies = grown;
    if (xvsa_proxy_add(session->pool, options, &session->call, &grown[session->proxy_count],
                       &error) != XVSA_OK)
        return fail(error, "cannot add a proxy");
    session->proxy_count++;
    return EXIT_OK;
}

/* Reads "VM[,name=TEXT][,disks=NUMBER][,here][,devices=PATH]" and adds the proxy. */
static int add_proxy_of_text(struct session *session, const char *text)
{
    char *copy = strdup(text);
    if (copy == NULL) {
        complain("out of memory");
        return EXIT_FAILED;
    }
    xvsa_proxy_options options = XVSA_PROXY_OPTIONS_INIT;
    char *rest = copy;
    options.vm_uuid = strsep(&rest, ",");
    int code = EXIT_OK;
    for (char *part; code == EXIT_OK && (part = strsep(&rest, ",")) != NULL;) {
        char *end = part;
        if (strncmp(part, "name=", 5) == 0 && part[5] != '\0') {
            options.name = part + 5;
            continue;
        }
        if (strcmp(part, "here") == 0) {
            options.flags |= XVSA_PROXY_HERE;
            continue;
        }
        if (strncmp(part, "devices=", 8) == 0 && part[8] != '\0') {
            options.device_path = part + 8;
            continue;
        }
        unsigned long disks = strncmp(part, "disks=", 6) == 0 ? strtoul(part + 6, &end, 10) : 0;
        if (disks < 1 || disks > 64 || *end != '\0')
            code = usage_error(
                "--proxy %s: \"%s\" is not name=TEXT, disks=1..64, here or devices=PATH", text,
                part);
        options.max_disks = (uint32_t)disks;
    }
    if (code == EXIT_OK)
        code = add_proxy(session, &options);
    free(copy);
    return code;
}

static int add_proxies(struct session *session, const struct config_pool *pool)
{
    const struct texts *given = &session->arguments->proxy;
    int code = EXIT_OK;
    for (size_t i = 0; i < given->count && code == EXIT_OK; i++)
        code = add_proxy_of_text(session, given->items[i]);
    for (size_t i = 0; pool != NULL && given->count == 0 && i < pool->proxy_count; i++) {
        xvsa_proxy_options options = XVSA_PROXY_OPTIONS_INIT;
        options.name = pool->proxies[i].name;
        options.vm_uuid = pool->proxies[i].vm_uuid;
        options.max_disks = (uint32_t)pool->proxies[i].max_disks;
        options.flags = pool->proxies[i].here ? XVSA_PROXY_HERE : 0;
        options.device_path = pool->proxies[i].device_path;
        if (code == EXIT_OK)
            code = add_proxy(session, &options);
    }
    return code;
}

int session_open_pool(struct session *session)
{
    const struct config_pool *pool;
    int code = choose_pool(session, &pool);
    if (code == EXIT_OK)
        code = log_in(session, pool);
    if (code == EXIT_OK && !session->joins_site)
        code = add_proxies(session, pool);
    return code;
}

/* Logs in to a pool (NULL: the one that URLs name) and keeps it in the list. */
static int add_pool(struct session *session, const struct config_pool *pool)
{
    xvsa_pool **grown = realloc(session->pools, (session->pool_count + 1) * sizeof *grown);
    if (grown == NULL) {
        complain("out of memory");
        return EXIT_FAILED;
    }
    session->pools = grown;
    int code = log_in(session, pool);
    if (session->pool == NULL)
        return code;
    code = add_proxies(session, pool);
    session->pools[session->pool_count++] = session->pool;
    session->pool = NULL;
    return code;
}

static int add_named_pools(struct session *session)
{
    const struct texts *given = &session->arguments->pool;
    const struct config *config = session->config;
    size_t count = given->count > 0 ? given->count : config->pool_count;
    if (count == 0)
        return usage_error("which pool? The configuration has none");
    if (count > 1 && session->arguments->proxy.count > 0)
        return usage_error("--proxy: only with one pool; the configuration tells those of several");
    int code = EXIT_OK;
    for (size_t i = 0; i < count && code == EXIT_OK; i++) {
        const struct config_pool *pool =
            given->count > 0 ? config_find_pool(config, given->items[i]) : &config->pools[i];
        code = pool != NULL
                   ? add_pool(session, pool)
                   : usage_error("--pool %s: the configuration has no such pool", given->items[i]);
    }
    return code;
}

int session_open_pools(struct session *session)
{
    const struct texts *given = &session->arguments->pool;
    bool named = given->count == 0 || strstr(given->items[0], "://") == NULL;
    if (named && session->config != NULL)
        return add_named_pools(session);
    const struct config_pool *pool;
    int code = choose_pool(session, &pool);
    return code == EXIT_OK ? add_pool(session, pool) : code;
}

static int choose_repo(const struct session *session, const struct config_repository **ret,
                       const char **ret_url)
{
    const char *given = session->arguments->repo;
    *ret = NULL;
    *ret_url = given;
    if (given != NULL && (strstr(given, "://") != NULL || strcmp(given, "memory:") == 0))
        return EXIT_OK;
    if (session->config == NULL)
        return given == NULL
                   ? usage_error("which repository? Give --repo URL, or --config with a repository")
                   : usage_error("--repo %s: not a URL; a folder is written file://%s%s", given,
                                 given[0] == '/' ? "" : "/", given);
    const struct config_job *job = chosen_job(session);
    const char *name = given != NULL ? given : job != NULL ? job->repository : NULL;
    if (name != NULL) {
        *ret = config_find_repository(session->config, name);
        if (*ret == NULL)
            return usage_error("--repo %s: the configuration has no such repository", name);
    } else if (session->config->repository_count == 1) {
        *ret = &session->config->repositories[0];
    } else {
        return usage_error("which repository? The configuration has %zu; give --repo NAME",
                           session->config->repository_count);
    }
    *ret_url = (*ret)->url;
    return EXIT_OK;
}

static void fill_repo_options(const struct session *session, const struct config_repository *repo,
                              xvsa_repo_options *options)
{
    const struct arguments *arguments = session->arguments;
    bool plain = arguments->no_encryption || (repo != NULL && repo->no_encryption);
    bool read_only =
        session->only_reads || arguments->read_only || (repo != NULL && repo->read_only);
    options->flags = (plain ? XVSA_REPO_NO_ENCRYPTION : 0) | (read_only ? XVSA_REPO_READ_ONLY : 0);
    options->chunk_size = (uint32_t)arguments->chunk_size;
    options->compression_level = (int32_t)arguments->compression;
    options->kdf_log_n = (uint32_t)arguments->kdf_cost;
    if (repo == NULL)
        return;
    if (options->chunk_size == 0)
        options->chunk_size = (uint32_t)repo->chunk_size;
    if (options->compression_level == 0)
        options->compression_level = (int32_t)repo->compression_level;
    if (options->kdf_log_n == 0)
        options->kdf_log_n = (uint32_t)repo->kdf_log_n;
}

static int open_target(struct session *session, const struct config_repository *repo,
                       const char *url, bool create)
{
    char *options =
        repo != NULL && repo->options != NULL ? json_dumps(repo->options, JSON_COMPACT) : NULL;
    xvsa_error *error = NULL;
    int32_t result = xvsa_target_open(session->context, url, create ? XVSA_TARGET_CREATE : 0,
                                      options, &session->target, &error);
    free(options);
    return result == XVSA_OK ? EXIT_OK : fail(error, "cannot open the repository's place");
}

/* Opens the repository, or makes it; repo is NULL for one that the configuration does not have. */
static int reach(struct session *session, const struct config_repository *repo, const char *url,
                 bool make)
{
    const struct arguments *arguments = session->arguments;
    int code = open_target(session, repo, url, make);
    if (code != EXIT_OK)
        return code;
    xvsa_repo_options options = XVSA_REPO_OPTIONS_INIT;
    fill_repo_options(session, repo, &options);
    struct secret passphrase = {NULL, 0};
    if ((options.flags & XVSA_REPO_NO_ENCRYPTION) == 0) {
        char what[256];
        snprintf(what, sizeof what, "passphrase of %s", url);
        const char *file = arguments->passphrase_file;
        if (file == NULL && arguments->passphrase_fd < 0 && repo != NULL)
            file = repo->passphrase_file;
        struct secret_source source = {what, file, arguments->passphrase_fd, make};
        code = secret_read(&source, &passphrase);
        if (code != EXIT_OK)
            return code;
    }
    options.passphrase = passphrase.bytes;
    options.passphrase_size = passphrase.size;
    xvsa_error *error = NULL;
    int32_t result = (make ? xvsa_repo_init : xvsa_repo_open)(
        session->target, &options, &session->call, &session->repo, &error);
    secret_wipe(&passphrase);
    if (result != XVSA_OK)
        return fail(error, make ? "cannot make the repository" : "cannot open the repository");
    return EXIT_OK;
}

static int reach_repo(struct session *session, bool make)
{
    const struct config_repository *repo;
    const char *url;
    int code = choose_repo(session, &repo, &url);
    return code != EXIT_OK ? code : reach(session, repo, url, make);
}

int session_open_named_repo(struct session *session, const struct config_repository *repo)
{
    return reach(session, repo, repo->url, false);
}

int session_open_repo(struct session *session)
{
    return reach_repo(session, false);
}

int session_init_repo(struct session *session)
{
    return reach_repo(session, true);
}

static void log_out(xvsa_pool *pool)
{
    if (pool == NULL)
        return;
    xvsa_call call = XVSA_CALL_INIT;
    call.timeout_ms = 10000; /* a session that stays expires at the server */
    xvsa_error *error = NULL;
    if (xvsa_pool_close(pool, &call, &error) != XVSA_OK) {
        complain("warning: the pool was not logged out of: %s", xvsa_error_message(error));
        xvsa_error_unref(error);
    }
}

void session_close(struct session *session)
{
    log_out(session->pool);
    for (size_t i = 0; i < session->pool_count; i++)
        log_out(session->pools[i]);
    for (size_t i = 0; i < session->proxy_count; i++)
        xvsa_proxy_unref(session->proxies[i]);
    free(session->proxies);
    xvsa_site_unref(session->site);
    xvsa_pool_unref(session->pool);
    for (size_t i = 0; i < session->pool_count; i++)
        xvsa_pool_unref(session->pools[i]);
    free(session->pools);
    xvsa_repo_unref(session->repo);
    xvsa_target_unref(session->target);
    xvsa_context_unref(session->context);
    config_free(session->config);
}
