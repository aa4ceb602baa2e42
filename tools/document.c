/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Makes the library's document "job" from the command line and the configuration.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "config.h"

static bool is_uuid(const char *text)
{
    for (size_t i = 0; i < 36; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (text[i] == '\0' ||
            (dash ? text[i] != '-' : strchr("0123456789abcdefABCDEF", text[i]) == NULL))
            return false;
    }
    return text[36] == '\0';
}

static bool is_pattern(const char *text)
{
    return strpbrk(text, "*?[") != NULL;
}

/* "0" or "xvda". */
static bool is_device(const char *text)
{
    size_t digits = strspn(text, "0123456789");
    size_t letters =
        strncmp(text, "xvd", 3) == 0 ? strspn(text + 3, "abcdefghijklmnopqrstuvwxyz") : 0;
    return (digits > 0 && text[digits] == '\0') || (letters > 0 && text[3 + letters] == '\0');
}

static void add_match(json_t *list, const char *kind, const char *text)
{
    json_array_append_new(list, json_pack("{s:s}", kind, text));
}

static void add_matches(json_t *list, const char *kind, const struct texts *texts)
{
    for (size_t i = 0; i < texts->count; i++)
        add_match(list, kind, texts->items[i]);
}

static const char *kind_of_vm(const char *text)
{
    return is_uuid(text) ? "uuid" : is_pattern(text) ? "pattern" : "name";
}

/* "[VM:]DISK". */
static void add_disk(json_t *list, const char *text)
{
    const char *colon = strrchr(text, ':');
    const char *disk = colon != NULL ? colon + 1 : text;
    const char *kind = is_device(disk) ? "device" : kind_of_vm(disk);
    json_t *match = json_pack("{s:s}", kind, disk);
    if (colon != NULL)
        json_object_set_new(match, "vm", json_stringn(text, (size_t)(colon - text)));
    json_array_append_new(list, match);
}

static json_t *selection_of(const struct arguments *arguments)
{
    json_t *vms = json_array();
    if (arguments->all)
        json_array_append_new(vms, json_pack("{s:b}", "all", 1));
    for (size_t i = 0; i < arguments->operand_count; i++)
        add_match(vms, is_uuid(arguments->operands[i]) ? "uuid" : "name", arguments->operands[i]);
    add_matches(vms, "tag", &arguments->tag);
    add_matches(vms, "pattern", &arguments->pattern);

    json_t *excluded = json_array();
    for (size_t i = 0; i < arguments->exclude.count; i++)
        add_match(excluded, kind_of_vm(arguments->exclude.items[i]), arguments->exclude.items[i]);
    add_matches(excluded, "tag", &arguments->exclude_tag);
    json_t *disks = json_array();
    for (size_t i = 0; i < arguments->exclude_disk.count; i++)
        add_disk(disks, arguments->exclude_disk.items[i]);
    return json_pack("{s:o, s:{s:o, s:o}}", "vms", vms, "exclude", "vms", excluded, "disks", disks);
}

/* Adds a list of texts when it is not empty. */
static void set_texts(json_t *document, const char *member, const struct texts *texts)
{
    if (texts->count == 0)
        return;
    json_t *list = json_array();
    for (size_t i = 0; i < texts->count; i++)
        json_array_append_new(list, json_string(texts->items[i]));
    json_object_set_new(document, member, list);
}

/* Adds a text when there is one. */
static void set_text(json_t *document, const char *member, const char *text)
{
    if (text != NULL)
        json_object_set_new(document, member, json_string(text));
}

static int job_of_config(const struct session *session, json_t **ret)
{
    const char *name = session->arguments->job;
    if (session->config == NULL)
        return usage_error("--job %s: needs --config", name);
    const struct config_job *job = config_find_job(session->config, name);
    if (job == NULL)
        return usage_error("--job %s: the configuration has no such job", name);
    *ret = json_deep_copy(job->job);
    if (*ret != NULL && json_object_get(*ret, "name") == NULL)
        json_object_set_new(*ret, "name", json_string(name));
    if (strcmp(text_of(*ret, "type"), "backup") != 0) {
        json_decref(*ret);
        *ret = NULL;
        return usage_error("--job %s: its \"type\" is not \"backup\"", name);
    }
    return EXIT_OK;
}

int backup_document(const struct session *session, json_t **ret)
{
    const struct arguments *arguments = session->arguments;
    bool selects = arguments->all || arguments->operand_count > 0 || arguments->tag.count > 0 ||
                   arguments->pattern.count > 0;
    bool tunes = arguments->cbt != NULL || arguments->transport.count > 0 ||
                 arguments->refuse.count > 0 || arguments->insecure_nbd ||
                 arguments->allow_migration || arguments->parallel != 0 ||
                 arguments->exclude.count > 0 || arguments->exclude_tag.count > 0 ||
                 arguments->exclude_disk.count > 0;
    if (arguments->job != NULL && (selects || tunes || arguments->name != NULL))
        return usage_error(
            "--job takes the place of the options that choose VMs and tune a backup");
    if (arguments->job != NULL)
        return job_of_config(session, ret);
    if (!selects)
        return usage_error("which VMs? Name them, or give --all, --tag or --pattern");
    *ret = json_pack("{s:s, s:o}", "type", "backup", "selection", selection_of(arguments));
    set_text(*ret, "name", arguments->name);
    set_text(*ret, "cbt", arguments->cbt);
    set_texts(*ret, "transports", &arguments->transport);
    set_texts(*ret, "refuse", &arguments->refuse);
    if (arguments->insecure_nbd)
        json_object_set_new(*ret, "insecure_nbd", json_true());
    if (arguments->allow_migration)
        json_object_set_new(*ret, "block_migration", json_false());
    if (arguments->parallel != 0)
        json_object_set_new(*ret, "parallel_vms", json_integer(arguments->parallel));
    return EXIT_OK;
}

/* Adds "OLD=NEW" texts as members of an object; an empty NEW becomes null where nullable. */
static int set_pairs(json_t *document, const char *member, const char *option, bool nullable,
                     const struct texts *texts)
{
    json_t *map = json_object();
    int code = EXIT_OK;
    for (size_t i = 0; i < texts->count && code == EXIT_OK; i++) {
        const char *equals = strrchr(texts->items[i], '=');
        if (equals == NULL || equals == texts->items[i] || (equals[1] == '\0' && !nullable)) {
            code = usage_error("--%s %s: must be OLD=NEW", option, texts->items[i]);
            break;
        }
        char *from = strndup(texts->items[i], (size_t)(equals - texts->items[i]));
        if (from != NULL)
            json_object_set_new(map, from,
                                equals[1] == '\0' ? json_null() : json_string(equals + 1));
        free(from);
    }
    if (json_object_size(map) > 0)
        json_object_set(document, member, map);
    json_decref(map);
    return code;
}

int restore_document(const struct arguments *arguments, json_t **ret)
{
    struct texts points = {arguments->operands, arguments->operand_count};
    *ret = json_pack("{s:s}", "type", "restore");
    set_texts(*ret, "points", &points);
    set_texts(*ret, "refuse", &arguments->refuse);
    set_text(*ret, "vm_name", arguments->name);
    set_text(*ret, "default_sr", arguments->sr);
    set_text(*ret, "mac", arguments->mac);
    set_texts(*ret, "transports", &arguments->transport);
    int code = set_pairs(*ret, "srs", "sr-map", false, &arguments->sr_map);
    if (code == EXIT_OK)
        code = set_pairs(*ret, "disks", "disk-map", false, &arguments->disk_map);
    if (code == EXIT_OK)
        code = set_pairs(*ret, "networks", "network", true, &arguments->network);
    return code;
}

json_t *deployment_document(const struct arguments *arguments)
{
    json_t *document = json_object();
    bool selects = arguments->all || arguments->tag.count > 0 || arguments->pattern.count > 0;
    bool excludes = arguments->exclude.count > 0 || arguments->exclude_tag.count > 0 ||
                    arguments->exclude_disk.count > 0;
    if (selects || excludes) {
        struct arguments chosen = *arguments;
        chosen.all = !selects || arguments->all;
        json_object_set_new(document, "selection", selection_of(&chosen));
    }
    set_texts(document, "transports", &arguments->transport);
    if (arguments->insecure_nbd)
        json_object_set_new(document, "insecure_nbd", json_true());
    if (arguments->any_host)
        json_object_set_new(document, "network", json_true());
    return document;
}

int verify_document(const struct arguments *arguments, json_t **ret)
{
    *ret = json_pack("{s:s}", "type", "verify");
    if (arguments->operand_count > 0)
        set_text(*ret, "point", arguments->operands[0]);
    if (arguments->quick)
        json_object_set_new(*ret, "quick", json_true());
    return EXIT_OK;
}
