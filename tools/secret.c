/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Passwords and passphrases come from a descriptor, a file or a terminal, never from the command line
 * or the environment, where other users of the machine could read them.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "cli.h"

#define SECRET_SIZE_MAX 4096u

void secret_wipe(struct secret *secret)
{
    if (secret->bytes != NULL) {
        explicit_bzero(secret->bytes, SECRET_SIZE_MAX + 1);
        free(secret->bytes);
    }
    *secret = (struct secret){NULL, 0};
}

/* Reads up to the end, or to the end of a line, into a buffer of SECRET_SIZE_MAX + 1 bytes. */
static int read_bytes(int descriptor, bool one_line, struct secret *ret)
{
    ret->bytes = calloc(1, SECRET_SIZE_MAX + 1);
    if (ret->bytes == NULL)
        return ENOMEM;
    for (;;) {
        int problem = stop_await_input(descriptor);
        if (problem != 0)
            return problem;
        ssize_t got = read(descriptor, ret->bytes + ret->size, SECRET_SIZE_MAX + 1 - ret->size);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return errno;
        ret->size += (size_t)got;
        if (ret->size > SECRET_SIZE_MAX)
            return EFBIG;
        if (got == 0 || (one_line && memchr(ret->bytes, '\n', ret->size) != NULL))
            break;
    }
    if (ret->size > 0 && ret->bytes[ret->size - 1] == '\n')
        ret->size--;
    if (ret->size > 0 && ret->bytes[ret->size - 1] == '\r')
        ret->size--;
    ret->bytes[ret->size] = '\0';
    return 0;
}

static int report_problem(const char *what, const char *where, int problem, struct secret *secret)
{
    if (problem == 0 && secret->size > 0)
        return EXIT_OK;
    secret_wipe(secret);
    if (problem == EINTR) {
        complain("%s: cancelled", what);
        return EXIT_CANCELLED;
    }
    if (problem == EFBIG)
        complain("%s: %s holds more than %u bytes", what, where, SECRET_SIZE_MAX);
    else if (problem != 0)
        complain("%s: cannot be read from %s: %s", what, where, strerror(problem));
    else
        complain("%s: %s is empty", what, where);
    return EXIT_USAGE;
}

static int read_file(const struct secret_source *source, struct secret *ret)
{
    int file = open(source->file, O_RDONLY | O_CLOEXEC);
    struct stat info;
    if (file < 0 || fstat(file, &info) != 0) {
        int problem = errno;
        if (file >= 0)
            close(file);
        return report_problem(source->what, source->file, problem, ret);
    }
    if (S_ISREG(info.st_mode) && (info.st_mode & (S_IRWXG | S_IRWXO)) != 0)
        complain("warning: %s can be read by other users of this machine; chmod 600 it",
                 source->file);
    int problem = read_bytes(file, false, ret);
    close(file);
    return report_problem(source->what, source->file, problem, ret);
}

/* Asks once, with the echo off whatever happens in between. */
static int ask(int terminal, const char *question, struct secret *ret)
{
    struct termios before, silent;
    if (tcgetattr(terminal, &before) != 0)
        return errno;
    silent = before;
    silent.c_lflag &= ~(tcflag_t)ECHO;
    if (tcsetattr(terminal, TCSAFLUSH, &silent) != 0)
        return errno;
    dprintf(terminal, "%s: ", question); /* now, for what was typed before is dropped */
    int problem = read_bytes(terminal, true, ret);
    tcsetattr(terminal, TCSAFLUSH, &before);
    dprintf(terminal, "\n");
    return problem;
}

static int read_terminal(const struct secret_source *source, struct secret *ret)
{
    int terminal = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
    if (terminal < 0) {
        complain("%s: there is no terminal to ask at; give a file or a descriptor", source->what);
        return EXIT_USAGE;
    }
    char question[256];
    snprintf(question, sizeof question, "Enter the %s", source->what);
    int code = report_problem(source->what, "the answer", ask(terminal, question, ret), ret);
    if (code == EXIT_OK && source->confirm) {
        struct secret again = {NULL, 0};
        code = report_problem(source->what, "the answer", ask(terminal, "Again", &again), &again);
        if (code == EXIT_OK &&
            (again.size != ret->size || memcmp(again.bytes, ret->bytes, ret->size) != 0)) {
            complain("%s: the two answers differ", source->what);
            code = EXIT_USAGE;
        }
        secret_wipe(&again);
    }
    close(terminal);
    if (code != EXIT_OK)
        secret_wipe(ret);
    return code;
}

int secret_read(const struct secret_source *source, struct secret *ret)
{
    *ret = (struct secret){NULL, 0};
    if (source->descriptor >= 0) {
        if (source->descriptor > 1 << 20)
            return usage_error("%s: no such descriptor", source->what);
        return report_problem(source->what, "the descriptor",
                              read_bytes((int)source->descriptor, false, ret), ret);
    }
    return source->file != NULL ? read_file(source, ret) : read_terminal(source, ret);
}
