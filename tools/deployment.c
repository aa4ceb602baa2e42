/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * xvsa plan --deployment: what proxies reach, what a loss would cost, where further ones would help.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
/* Bytes of a list of names in a table. */
#define NAMES_SIZE 160

/* Names of an array into buffer, "a, b, c and 4 more" when there is no room for all. */
static const char *names_text(const json_t *array, char buffer[NAMES_SIZE])
{
    const size_t room = NAMES_SIZE - 32; /* for " and N more" */
    size_t used = 0, index;
    json_t *item;
    buffer[0] = '\0';
    json_array_foreach(array, index, item)
    {
        const char *name = json_is_string(item) ? json_string_value(item) : text_of(item, "name");
        size_t length = strlen(name);
        if (used + length + 2 > room) {
            snprintf(buffer + used, NAMES_SIZE - used, "%s%zu more", index > 0 ? " and " : "",
                     json_array_size(array) - index);
            return buffer;
        }
        used +=
            (size_t)snprintf(buffer + used, NAMES_SIZE - used, "%s%s", index > 0 ? ", " : "", name);
    }
    return buffer;
}

static void print_proxies(const json_t *pool)
{
    static const char *const titles[] = {"PROXY", "VM", "HOST", "COORDINATES", "REACHES"};
    struct table *table = table_new(titles, COUNT(titles));
    size_t index;
    json_t *proxy;
    json_array_foreach(json_object_get(pool, "proxies"), index, proxy)
    {
        char reached[NAMES_SIZE];
        const json_t *reason = json_array_get(json_object_get(proxy, "reasons"), 0);
        const char *const cells[] = {
            text_of(proxy, "proxy"), text_of(json_object_get(proxy, "vm"), "name"),
            text_of(json_object_get(proxy, "host"), "name"),
            is_true(proxy, "coordinator") ? "yes" : "",
            reason != NULL ? text_of(reason, "code")
                           : names_text(json_object_get(proxy, "srs"), reached)};
        table_add(table, cells);
    }
    table_print(table);
}

/* "proxy-1 (host), proxy-2 (sr)": nearest first. */
static const char *routes_text(const json_t *disk, char buffer[NAMES_SIZE])
{
    size_t used = 0, index;
    json_t *route;
    snprintf(buffer, NAMES_SIZE, "%s", is_true(disk, "skipped") ? "left out" : "nobody");
    json_array_foreach(json_object_get(disk, "routes"), index, route)
    {
        char names[NAMES_SIZE];
        const char *transport =
            json_string_value(json_array_get(json_object_get(route, "transports"), 0));
        int length =
            snprintf(buffer + used, NAMES_SIZE - used, "%s%s (%s, %s)", index > 0 ? "; " : "",
                     names_text(json_object_get(route, "proxies"), names), text_of(route, "tier"),
                     transport != NULL ? transport : "");
        if (length < 0 || used + (size_t)length >= NAMES_SIZE)
            break; /* cut; the document has all */
        used += (size_t)length;
    }
    return buffer;
}

static void print_vms(const json_t *pool)
{
    static const char *const titles[] = {"VM", "STATE", "HOST", "DISK", "STORAGE", "PROXIES"};
    struct table *table = table_new(titles, COUNT(titles));
    size_t index;
    json_t *vm;
    json_array_foreach(json_object_get(pool, "vms"), index, vm)
    {
        const json_t *disks = json_object_get(vm, "disks");
        for (size_t i = 0; i == 0 || i < json_array_size(disks); i++) {
            const json_t *disk = json_array_get(disks, i);
            char routes[NAMES_SIZE];
            const char *const cells[] = {i == 0 ? text_of(vm, "name") : "",
                                         i == 0 ? text_of(vm, "state") : "",
                                         i == 0 ? text_of(json_object_get(vm, "host"), "name") : "",
                                         text_of(disk, "device"),
                                         text_of(json_object_get(disk, "sr"), "name"),
                                         disk == NULL ? "" : routes_text(disk, routes)};
            table_add(table, cells);
        }
    }
    table_print(table);
}

static void print_losses(const json_t *losses, const char *kind, const char *key)
{
    size_t index;
    json_t *loss;
    json_array_foreach(losses, index, loss)
    {
        char names[NAMES_SIZE];
        say("Loss of %s %s would leave unreached: %s\n", kind, text_of(loss, key),
            names_text(json_object_get(loss, "vms"), names));
    }
}

static void print_advice(const json_t *advice)
{
    const json_t *add = json_object_get(advice, "add");
    const json_t *incurable = json_object_get(advice, "incurable");
    char names[NAMES_SIZE];
    say("Advice (%s): ", text_of(advice, "goal"));
    if (json_array_size(add) == 0)
        say("%s", json_array_size(incurable) == 0 ? "nothing to add" : "no further proxy helps");
    else
        say("add %lld, %s: ", (long long)number_of(advice, "proxies"),
            is_true(advice, "exact") ? "the fewest possible" : "found step by step");
    size_t index;
    json_t *place;
    json_array_foreach(add, index, place)
        say("%s%lld on %s", index > 0 ? ", " : "", (long long)number_of(place, "proxies"),
            text_of(place, "name"));
    if (json_array_size(incurable) > 0)
        say("; cannot be cured: %s", names_text(incurable, names));
    say("\n");
}

static void print_pool(const json_t *pool, bool first)
{
    char names[NAMES_SIZE];
    const json_t *losses = json_object_get(pool, "losses");
    const json_t *unreached = json_object_get(pool, "unreached");
    size_t index;
    json_t *advice;
    say("%sPool %s %s\n\n", first ? "" : "\n", text_of(pool, "name"), text_of(pool, "uuid"));
    print_proxies(pool);
    say("\n");
    print_vms(pool);
    say("\n");
    if (json_array_size(unreached) > 0)
        say("Nobody reaches: %s\n", names_text(unreached, names));
    print_losses(json_object_get(losses, "proxies"), "proxy", "proxy");
    print_losses(json_object_get(losses, "hosts"), "host", "name");
    json_array_foreach(json_object_get(pool, "advice"), index, advice) print_advice(advice);
    if (json_array_size(json_object_get(pool, "omissions")) > 0)
        say("%zu objects of the pool could not be read and are missing here\n",
            json_array_size(json_object_get(pool, "omissions")));
}

static int print_deployment(char *document)
{
    json_t *deployment = parse_document(document, "deployment");
    if (deployment == NULL)
        return EXIT_FAILED;
    size_t index;
    json_t *pool;
    json_array_foreach(json_object_get(deployment, "pools"), index, pool)
        print_pool(pool, index == 0);
    json_decref(deployment);
    return EXIT_OK;
}

static int write_file(const struct arguments *arguments, const char *text)
{
    const char *path = arguments->html;
    int flags = O_WRONLY | O_CREAT | O_CLOEXEC | (arguments->force ? O_TRUNC : O_EXCL);
    int descriptor = open(path, flags, 0644);
    if (descriptor < 0 && errno == EEXIST)
        return usage_error("%s exists; give --force to replace it", path);
    FILE *file = descriptor < 0 ? NULL : fdopen(descriptor, "w");
    bool good = file != NULL && fputs(text, file) >= 0;
    if (file == NULL && descriptor >= 0)
        close(descriptor);
    if (file != NULL && fclose(file) != 0)
        good = false;
    if (good)
        return EXIT_OK;
    complain("%s cannot be written: %s", path, strerror(errno));
    return EXIT_FAILED;
}

static int draw(const struct arguments *arguments, const char *document)
{
    char *page = NULL;
    xvsa_error *error = NULL;
    if (xvsa_deployment_draw(document, &page, &error) != XVSA_OK)
        return fail(error, "cannot draw the deployment");
    if (strcmp(arguments->html, "-") == 0)
        return print_document(page);
    int code = write_file(arguments, page);
    xvsa_free(page);
    return code;
}

static int show(const struct session *session, const char *options)
{
    const struct arguments *arguments = session->arguments;
    char *document = NULL;
    xvsa_error *error = NULL;
    if (xvsa_deployment_plan(session->pools, (uint32_t)session->pool_count, options, &session->call,
                             &document, &error) != XVSA_OK)
        return fail(error, "the deployment cannot be described");
    int code = arguments->html != NULL ? draw(arguments, document) : EXIT_OK;
    if (code != EXIT_OK || (arguments->html != NULL && !arguments->json)) {
        xvsa_free(document);
        return code;
    }
    return arguments->json ? print_document(document) : print_deployment(document);
}

static int check(const struct arguments *arguments)
{
    if (!arguments->deployment)
        return usage_error("plan what? There are \"plan backup\", \"plan restore\" and "
                           "\"plan --deployment\"");
    if (arguments->html != NULL && arguments->json && strcmp(arguments->html, "-") == 0)
        return usage_error("--html - and --json both want the standard output");
    return EXIT_OK;
}

int command_plan_deployment(const struct arguments *arguments)
{
    struct session session;
    int code = check(arguments);
    if (code != EXIT_OK)
        return code;
    code = session_open(&session, arguments);
    json_t *document = code == EXIT_OK ? deployment_document(arguments) : NULL;
    char *options = document == NULL ? NULL : json_dumps(document, JSON_COMPACT);
    json_decref(document);
    if (code == EXIT_OK && options == NULL) {
        complain("out of memory, or an argument that is not UTF-8");
        code = EXIT_FAILED;
    }
    if (code == EXIT_OK)
        code = session_open_pools(&session);
    if (code == EXIT_OK)
        code = show(&session, options);
    free(options);
    session_close(&session);
    return code;
}
