/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * xvsa, the command-line tool: chooses the command and prints help.
 */
#include <locale.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"

static void print_overview(void)
{
    printf("Usage: %s COMMAND [OPTIONS] [ARGUMENTS]\n\n"
           "Backs up and restores virtual machines of XenServer and XCP-ng pools.\n\nCommands:\n",
           PROGRAM);
    for (size_t i = 0; i < command_count; i++)
        printf("  %-14s %-12s %s\n", commands[i].name, commands[i].operands, commands[i].summary);
    printf("\n\"%s COMMAND --help\" tells the options of a command. General options:\n", PROGRAM);
    static const struct option_spec *const groups[] = {general_options, NULL};
    print_options(groups);
    printf("Passwords come from --password-file, --password-fd or a prompt, never from arguments\n"
           "or the environment; passphrases alike.\n\n"
           "Exit codes:\n"
           "  %d  done\n"
           "  %d  failed\n"
           "  %d  wrong arguments or configuration\n"
           "  %d  done in part: some VMs failed, the report tells which\n"
           "  %d  refused by the plan or by a policy\n"
           "  %d  cancelled (Ctrl-C finishes the VMs under way; a second one stops at once)\n"
           "  %d  stored data is damaged\n"
           "  %d  wrong credentials, or a peer that is not trusted\n",
           EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_PARTIAL, EXIT_REFUSED, EXIT_CANCELLED,
           EXIT_DAMAGED, EXIT_DENIED);
}

static void print_command_help(const struct command *command)
{
    printf("Usage: %s %s [OPTIONS] %s\n\n%s.\n", PROGRAM, command->name, command->operands,
           command->summary);
    if (command->details != NULL)
        printf("\n%s\n", command->details);
    printf("\nOptions:\n");
    print_options(command->groups);
}

/* Finds the command that argv begins with; *ret_words tells how many words name it. */
static const struct command *find_command(int argc, char **argv, int *ret_words)
{
    for (size_t i = 0; i < command_count; i++) {
        const char *name = commands[i].name;
        const char *space = strchr(name, ' ');
        size_t first = space != NULL ? (size_t)(space - name) : strlen(name);
        if (argc < 1 || strlen(argv[0]) != first || strncmp(argv[0], name, first) != 0)
            continue;
        *ret_words = space != NULL ? 2 : 1;
        if (space == NULL || (argc > 1 && strcmp(argv[1], space + 1) == 0))
            return &commands[i];
    }
    return NULL;
}

static int complain_unknown(int argc, char **argv)
{
    size_t length = strlen(argv[0]);
    for (size_t i = 0; i < command_count; i++) {
        if (strncmp(commands[i].name, argv[0], length) == 0 && commands[i].name[length] == ' ')
            return usage_error("\"%s%s%s\" is not a command; there is \"%s\" and maybe others",
                               argv[0], argc > 1 ? " " : "", argc > 1 ? argv[1] : "",
                               commands[i].name);
    }
    return usage_error("\"%s\" is not a command", argv[0]);
}

static bool asks_for_help(const char *text)
{
    return strcmp(text, "--help") == 0 || strcmp(text, "-h") == 0 || strcmp(text, "help") == 0;
}

static int run_command(const struct command *command, int argc, char **argv)
{
    struct arguments arguments;
    int code = arguments_parse(command, argc, argv, &arguments);
    if (code == EXIT_OK && arguments.help) {
        print_command_help(command);
    } else if (code == EXIT_OK) {
        code = stop_install();
        if (code == EXIT_OK)
            code = command->run(&arguments);
        stop_clear();
    }
    arguments_clear(&arguments);
    return code;
}

int main(int argc, char **argv)
{
    setlocale(LC_CTYPE, "");
    argc--;
    argv++;
    if (argc == 0) {
        usage_error("which command?");
        return EXIT_USAGE;
    }
    if (strcmp(argv[0], "--version") == 0) {
        printf("%s %s\n", PROGRAM, xvsa_version_string());
        return finish_output(EXIT_OK);
    }
    int words = 0;
    const struct command *command = find_command(argc, argv, &words);
    if (command == NULL && asks_for_help(argv[argc - 1])) {
        print_overview();
        return finish_output(EXIT_OK);
    }
    if (command == NULL)
        return complain_unknown(argc, argv);
    return finish_output(run_command(command, argc - words, argv + words));
}
