/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Reads the command line by tables, from which help is printed too. Options may stand before and
 * behind operands; "--" ends them; a value follows "=" or is the next argument.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

#define AT(field)   offsetof(struct arguments, field)
#define HELP_COLUMN 34  /* where explanations of options begin */
#define HELP_WIDTH  100 /* columns of help */

const struct option_spec general_options[] = {
    {"config", "FILE", "read pools, repositories and jobs from a JSON document", OPTION_TEXT, 'c',
     AT(config)},
    {"state", "FILE", "SQLite file that keeps jobs and what they made in pools", OPTION_TEXT, 0,
     AT(state)},
    {"json", NULL, "print the document of the result instead of tables", OPTION_FLAG, 0, AT(json)},
    {"quiet", NULL, "show no progress", OPTION_FLAG, 'q', AT(quiet)},
    {"log-level", "LEVEL", "error, warning (the default), info or debug; to the standard error",
     OPTION_TEXT, 0, AT(log_level)},
    {"help", NULL, "print this help", OPTION_FLAG, 'h', AT(help)},
    {NULL, NULL, NULL, OPTION_FLAG, 0, 0},
};

const struct option_spec pool_options[] = {
    {"pool", "NAME|URL", "pool of the configuration, or URL of a member; more URLs may follow",
     OPTION_TEXTS, 'p', AT(pool)},
    {"user", "NAME", "account in the pool (root)", OPTION_TEXT, 'u', AT(user)},
    {"password-file", "FILE", "file that holds the password", OPTION_TEXT, 0, AT(password_file)},
    {"password-fd", "NUMBER", "open descriptor to read the password from", OPTION_NUMBER, 0,
     AT(password_fd)},
    {"ca-file", "FILE", "PEM file with the CA of the members' certificates", OPTION_TEXT, 0,
     AT(ca_file)},
    {"fingerprint", "SHA256", "trust the certificate with this fingerprint; may be repeated",
     OPTION_TEXTS, 0, AT(fingerprint)},
    {"trust-first", NULL, "trust the certificate that the pool shows, and print its fingerprint",
     OPTION_FLAG, 0, AT(trust_first)},
    {"plain-http", NULL, "allow http:// URLs; the password is then sent in the clear", OPTION_FLAG,
     0, AT(plain_http)},
    {"pool-uuid", "UUID", "refuse any other pool", OPTION_TEXT, 0, AT(pool_uuid)},
    {"no-recovery", NULL, "leave objects of crashed jobs in the pool", OPTION_FLAG, 0,
     AT(no_recovery)},
    {"proxy", "VM[,KEY=VALUE...]",
     "uuid of a VM to run a proxy on, with name=TEXT, disks=NUMBER, here (this process runs on it) "
     "and "
     "devices=PATH; may be repeated",
     OPTION_TEXTS, 0, AT(proxy)},
    {NULL, NULL, NULL, OPTION_FLAG, 0, 0},
};

const struct option_spec repo_options[] = {
    {"repo", "NAME|URL", "repository of the configuration, or URL of its target (file:///folder)",
     OPTION_TEXT, 'r', AT(repo)},
    {"passphrase-file", "FILE", "file that holds the repository's passphrase", OPTION_TEXT, 0,
     AT(passphrase_file)},
    {"passphrase-fd", "NUMBER", "open descriptor to read the passphrase from", OPTION_NUMBER, 0,
     AT(passphrase_fd)},
    {"no-encryption", NULL, "the repository is not encrypted", OPTION_FLAG, 0, AT(no_encryption)},
    {"read-only", NULL, "never write to the repository; it may be on a read-only medium",
     OPTION_FLAG, 0, AT(read_only)},
    {NULL, NULL, NULL, OPTION_FLAG, 0, 0},
};

const struct option_spec selection_options[] = {
    {"all", NULL, "every VM of the pool", OPTION_FLAG, 'a', AT(all)},
    {"tag", "TAG", "VMs that carry a tag; may be repeated", OPTION_TEXTS, 0, AT(tag)},
    {"pattern", "GLOB", "VMs whose name matches, \"web-*\"; may be repeated", OPTION_TEXTS, 0,
     AT(pattern)},
    {"exclude", "VM", "leave out a VM by name, uuid or pattern; may be repeated", OPTION_TEXTS, 'x',
     AT(exclude)},
    {"exclude-tag", "TAG", "leave out VMs that carry a tag; may be repeated", OPTION_TEXTS, 0,
     AT(exclude_tag)},
    {"exclude-disk", "DISK", "leave out a disk by VDI uuid or by position; may be repeated",
     OPTION_TEXTS, 0, AT(exclude_disk)},
    {NULL, NULL, NULL, OPTION_FLAG, 0, 0},
};

const struct option_spec site_options[] = {
    {"store", "URL", "coordination store: sqlite:/path, or etcd:https://host:2379,...", OPTION_TEXT,
     0, AT(store)},
    {"site", "NAME", "name of the site in the store", OPTION_TEXT, 0, AT(site)},
    {NULL, NULL, NULL, OPTION_FLAG, 0, 0},
};

static void *place_of(struct arguments *arguments, const struct option_spec *spec)
{
    return (char *)arguments + spec->offset;
}

/* Finds by long name, of which length characters count, or by letter. */
static const struct option_spec *find_option(const struct command *command, const char *name,
                                             size_t length, char letter)
{
    for (const struct option_spec *const *group = command->groups; *group != NULL; group++) {
        for (const struct option_spec *spec = *group; spec->name != NULL; spec++) {
            if (letter != 0
                    ? spec->letter == letter
                    : strlen(spec->name) == length && strncmp(spec->name, name, length) == 0)
                return spec;
        }
    }
    return NULL;
}

static bool read_integer(const char *text, bool sized, int64_t *ret)
{
    errno = 0;
    char *end;
    long long value = strtoll(text, &end, 10);
    if (errno != 0 || end == text)
        return false;
    static const char units[] = "KMGT";
    if (sized && *end != '\0') {
        const char *unit = strchr(units, *end);
        if (unit == NULL)
            return false;
        for (const char *step = units; step <= unit; step++) {
            if (value > INT64_MAX / 1024 || value < 0)
                return false;
            value *= 1024;
        }
        end++;
        if (strcmp(end, "iB") == 0)
            end += 2;
    }
    *ret = value;
    return *end == '\0';
}

static int add_text(struct texts *texts, const char *text)
{
    const char **items = realloc(texts->items, (texts->count + 1) * sizeof *items);
    if (items == NULL) {
        complain("out of memory");
        return EXIT_FAILED;
    }
    texts->items = items;
    texts->items[texts->count++] = text;
    return EXIT_OK;
}

static int store(const struct option_spec *spec, const char *value, struct arguments *arguments)
{
    void *place = place_of(arguments, spec);
    switch (spec->kind) {
    case OPTION_FLAG:
        *(bool *)place = true;
        return EXIT_OK;
    case OPTION_TEXT:
        *(const char **)place = value;
        return EXIT_OK;
    case OPTION_TEXTS:
        return add_text(place, value);
    case OPTION_NUMBER:
    case OPTION_SIZE:
        if (read_integer(value, spec->kind == OPTION_SIZE, place))
            return EXIT_OK;
        return usage_error("--%s: \"%s\" is not a number%s", spec->name, value,
                           spec->kind == OPTION_SIZE ? " (a unit may follow: K, M, G, T)" : "");
    }
    return EXIT_FAILED;
}

/* Reads argv[*position], an option, and its value. */
static int read_option(const struct command *command, char **argv, int argc, int *position,
                       struct arguments *arguments)
{
    const char *text = argv[*position];
    const char *value = NULL;
    const struct option_spec *spec;
    if (text[1] == '-') {
        const char *equals = strchr(text, '=');
        size_t length = equals != NULL ? (size_t)(equals - text - 2) : strlen(text + 2);
        spec = find_option(command, text + 2, length, 0);
        value = equals != NULL ? equals + 1 : NULL;
    } else {
        spec = find_option(command, NULL, 0, text[1]);
        value = text[2] != '\0' ? text + 2 : NULL;
    }
    if (spec == NULL)
        return usage_error("\"%s\" is not an option of \"%s %s\"", text, PROGRAM, command->name);
    if (spec->kind == OPTION_FLAG && value != NULL)
        return usage_error("--%s takes no value", spec->name);
    if (spec->kind != OPTION_FLAG && value == NULL) {
        if (*position + 1 >= argc)
            return usage_error("--%s needs a value: %s", spec->name, spec->value);
        value = argv[++*position];
    }
    if (spec->kind != OPTION_FLAG && value[0] == '\0')
        return usage_error("--%s: the value is empty", spec->name);
    return store(spec, value, arguments);
}

int arguments_parse(const struct command *command, int argc, char **argv,
                    struct arguments *arguments)
{
    *arguments = (struct arguments){.password_fd = -1, .passphrase_fd = -1, .length = -1};
    struct texts operands = {NULL, 0};
    int code = EXIT_OK;
    bool only_operands = false;
    for (int i = 0; i < argc && code == EXIT_OK; i++) {
        if (!only_operands && strcmp(argv[i], "--") == 0)
            only_operands = true;
        else if (!only_operands && argv[i][0] == '-' && argv[i][1] != '\0')
            code = read_option(command, argv, argc, &i, arguments);
        else
            code = add_text(&operands, argv[i]);
    }
    arguments->operands = operands.items;
    arguments->operand_count = operands.count;
    if (code != EXIT_OK || arguments->help)
        return code;
    if (operands.count < command->min_operands)
        return usage_error("\"%s %s\" needs: %s", PROGRAM, command->name, command->operands);
    if (operands.count > command->max_operands)
        return usage_error("\"%s\" is one argument too many for \"%s %s\"",
                           operands.items[command->max_operands], PROGRAM, command->name);
    return EXIT_OK;
}

void arguments_clear(struct arguments *arguments)
{
    struct texts *lists[] = {
        &arguments->pool,        &arguments->fingerprint,  &arguments->proxy,
        &arguments->tag,         &arguments->pattern,      &arguments->exclude,
        &arguments->exclude_tag, &arguments->exclude_disk, &arguments->transport,
        &arguments->refuse,      &arguments->sr_map,       &arguments->disk_map,
        &arguments->network};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
        free(lists[i]->items);
    free(arguments->operands);
}

/* Prints text in the column of explanations, broken at spaces. */
static void print_wrapped(const char *text)
{
    size_t room = HELP_WIDTH - HELP_COLUMN;
    while (strlen(text) > room) {
        size_t length = room;
        while (length > 0 && text[length] != ' ')
            length--;
        if (length == 0)
            break;
        printf("%.*s\n%*s", (int)length, text, HELP_COLUMN, "");
        text += length + 1;
    }
    printf("%s\n", text);
}

void print_options(const struct option_spec *const *groups)
{
    for (; *groups != NULL; groups++) {
        for (const struct option_spec *spec = *groups; spec->name != NULL; spec++) {
            char letter[8] = "    ";
            if (spec->letter != 0)
                snprintf(letter, sizeof letter, "-%c, ", spec->letter);
            char name[80];
            int length =
                snprintf(name, sizeof name, "  %s--%s%s%s", letter, spec->name,
                         spec->value != NULL ? " " : "", spec->value != NULL ? spec->value : "");
            printf("%s", name);
            if (length + 1 > HELP_COLUMN)
                printf("\n%*s", HELP_COLUMN, "");
            else
                printf("%*s", HELP_COLUMN - length, "");
            print_wrapped(spec->help);
        }
        printf("\n");
    }
}
