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
        if (text[i] == '\0' || (dash ? text[i] != '-' : strchr("0123456789abcdefABCDEF", text[i]) == NULL))
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
    size_t letters = strncmp(text, "xvd", 3) == 0 ? strspn(text + 3, "abcdefghijklmnopqrstuvwxyz") : 0;
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
    if (arguments->job != NULL && (selects || arguments->name != NULL))
        return usage_error("--job takes the place of a selection and of --name");
    if (arguments->job == NULL && !selects)
        return usage_error("which VMs? Name them, or give --all, --tag or --pattern");
    int code = EXIT_OK;
    if (arguments->job != NULL)
        code = job_of_config(session, ret);
    else
        *ret = json_pack("{s:s, s:o}", "type", "backup", "selection", selection_of(arguments));
    if (code == EXIT_OK && arguments->name != NULL)
        json_object_set_new(*ret, "name", json_string(arguments->name));
    if (code == EXIT_OK && arguments->full)
        json_object_set_new(*ret, "full", json_true());
    return code;
}

/* Adds "FROM=TO" texts as members of an object. */
static int add_pairs(json_t *document, const char *member, const char *option,
                     const struct texts *texts)
{
    for (size_t i = 0; i < texts->count; i++) {
        const char *equals = strchr(texts->items[i], '=');
        if (equals == NULL || equals == texts->items[i] || equals[1] == '\0')
            return usage_error("--%s %s: must be OLD=NEW", option, texts->items[i]);
        json_t *map = json_object_get(document, member);
        if (map == NULL) {
            json_object_set_new(document, member, json_object());
            map = json_object_get(document, member);
        }
        char *from = strndup(texts->items[i], (size_t)(equals - texts->items[i]));
        if (from != NULL)
            json_object_set_new(map, from, json_string(equals + 1));
        free(from);
    }
    return EXIT_OK;
}

int restore_document(const struct arguments *arguments, json_t **ret)
{
    *ret = json_pack("{s:s, s:s}", "type", "restore", "point", arguments->operands[0]);
    if (arguments->name != NULL)
        json_object_set_new(*ret, "vm_name", json_string(arguments->name));
    if (arguments->sr != NULL)
        json_object_set_new(*ret, "sr", json_string(arguments->sr));
    if (arguments->mac != NULL)
        json_object_set_new(*ret, "macs", json_string(arguments->mac));
    if (arguments->start)
        json_object_set_new(*ret, "start", json_true());
    int code = add_pairs(*ret, "srs", "disk-sr", &arguments->disk_sr);
    if (code == EXIT_OK)
        code = add_pairs(*ret, "networks", "network", &arguments->network);
    return code;
}

int verify_document(const struct arguments *arguments, json_t **ret)
{
    *ret = json_pack("{s:s}", "type", "verify");
    if (arguments->vm != NULL)
        json_object_set_new(*ret, "vm", json_string(arguments->vm));
    if (arguments->operand_count > 0) {
        json_t *points = json_array();
        for (size_t i = 0; i < arguments->operand_count; i++)
            json_array_append_new(points, json_string(arguments->operands[i]));
        json_object_set_new(*ret, "points", points);
    }
    return EXIT_OK;
}
