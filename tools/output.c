/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Messages, documents and units for people.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli.h"

/* Names come from pools and files: control characters must not reach a terminal. */
static void print_clean(FILE *file, const char *text)
{
    for (const unsigned char *p = (const unsigned char *)text; *p != '\0'; p++) {
        if ((*p < 0x20 && *p != '\n') || *p == 0x7f)
            fprintf(file, "\\x%02x", *p);
        else
            fputc(*p, file);
    }
}

void say(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    char *text = NULL;
    if (vasprintf(&text, format, list) < 0)
        text = NULL;
    va_end(list);
    if (text != NULL)
        print_clean(stdout, text);
    else
        complain("out of memory");
    free(text);
}

void complain(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    char *text = NULL;
    if (vasprintf(&text, format, list) < 0)
        text = NULL;
    va_end(list);
    fprintf(stderr, "%s: ", PROGRAM);
    print_clean(stderr, text != NULL ? text : "out of memory");
    fputc('\n', stderr);
    free(text);
}

int usage_error(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    char *text = NULL;
    if (vasprintf(&text, format, list) < 0)
        text = NULL;
    va_end(list);
    complain("%s", text != NULL ? text : "out of memory");
    fprintf(stderr, "See \"%s --help\".\n", PROGRAM);
    free(text);
    return EXIT_USAGE;
}

int exit_code_of(int32_t code)
{
    switch (code) {
    case XVSA_OK:
        return EXIT_OK;
    case XVSA_ERR_PARTIAL:
        return EXIT_PARTIAL;
    case XVSA_ERR_REFUSED:
        return EXIT_REFUSED;
    case XVSA_ERR_CANCELLED:
        return EXIT_CANCELLED;
    case XVSA_ERR_CORRUPT:
        return EXIT_DAMAGED;
    case XVSA_ERR_AUTH:
    case XVSA_ERR_DENIED:
    case XVSA_ERR_TLS:
        return EXIT_DENIED;
    default:
        return EXIT_FAILED;
    }
}

int fail(xvsa_error *error, const char *what)
{
    complain("%s: %s", what, xvsa_error_message(error));
    const xvsa_error *cause = xvsa_error_cause(error);
    for (int depth = 0; cause != NULL && depth < 8; depth++) {
        fprintf(stderr, "  because: ");
        print_clean(stderr, xvsa_error_message(cause));
        fputc('\n', stderr);
        cause = xvsa_error_cause(cause);
    }
    const char *xenapi = xvsa_error_xenapi_code(error);
    if (xenapi != NULL) {
        fprintf(stderr, "  the pool answered: ");
        print_clean(stderr, xenapi);
        for (uint32_t i = 0; i < xvsa_error_xenapi_param_count(error); i++) {
            fputc(' ', stderr);
            print_clean(stderr, xvsa_error_xenapi_param(error, i));
        }
        fputc('\n', stderr);
    }
    fprintf(stderr, "  (%s) %s\n", xvsa_code_name(xvsa_error_code(error)),
            xvsa_error_advice(error));
    int code = exit_code_of(xvsa_error_code(error));
    xvsa_error_unref(error);
    return code;
}

int print_document(char *document)
{
    size_t length = strlen(document);
    fputs(document, stdout);
    if (length == 0 || document[length - 1] != '\n')
        fputc('\n', stdout);
    xvsa_free(document);
    return EXIT_OK;
}

json_t *parse_document(char *document, const char *what)
{
    json_error_t where;
    json_t *value = json_loads(document, 0, &where);
    if (value == NULL)
        complain("the library's document \"%s\" is not valid JSON: line %d: %s", what, where.line,
                 where.text);
    xvsa_free(document);
    return value;
}

int finish_output(int code)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return code;
    if (errno != EPIPE)
        complain("the output cannot be written: %s", strerror(errno));
    return code == EXIT_OK ? EXIT_FAILED : code;
}

const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

int64_t number_of(const json_t *object, const char *key)
{
    return (int64_t)json_integer_value(json_object_get(object, key));
}

bool is_true(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

const char *size_text(uint64_t bytes, char buffer[TEXT_SIZE])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 1023.95 && unit + 1 < sizeof units / sizeof units[0]) {
        value /= 1024;
        unit++;
    }
    snprintf(buffer, TEXT_SIZE, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
    return buffer;
}

const char *duration_text(int64_t ms, char buffer[TEXT_SIZE])
{
    int64_t seconds = ms / 1000;
    if (ms < 10000)
        snprintf(buffer, TEXT_SIZE, "%.1f s", (double)ms / 1000);
    else if (seconds < 3600)
        snprintf(buffer, TEXT_SIZE, "%d:%02d", (int)(seconds / 60), (int)(seconds % 60));
    else
        snprintf(buffer, TEXT_SIZE, "%lld:%02d:%02d", (long long)(seconds / 3600),
                 (int)(seconds / 60 % 60), (int)(seconds % 60));
    return buffer;
}

const char *instant_text(int64_t ms, char buffer[TEXT_SIZE])
{
    time_t seconds = (time_t)(ms / 1000);
    struct tm parts;
    if (ms <= 0 || localtime_r(&seconds, &parts) == NULL ||
        strftime(buffer, TEXT_SIZE, "%Y-%m-%d %H:%M:%S", &parts) == 0)
        snprintf(buffer, TEXT_SIZE, "-");
    return buffer;
}
