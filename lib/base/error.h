/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Errors: immutable once handed out, reference counted, free of thread-local state.
 *
 * Rule for every internal function that can fail: it returns 0 or a negative XVSA_ERR_* code and, on
 * failure only, stores one error object through its last parameter when that is not NULL.
 * Messages are one line, lower case, name the object concerned and never hold a secret.
 */
#ifndef XV_BASE_ERROR_H
#define XV_BASE_ERROR_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

#include "xvsa.h"

#define XV_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define XV_MUST_CHECK        __attribute__((warn_unused_result))

/* Makes an error and returns its code. component is a static string such as "xenapi" or "repo". */
int xv_fail(xvsa_error **ret, int code, const char *component, const char *format, ...)
    XV_PRINTF(4, 5);

/* Like xv_fail, for a failed system call; the code is derived from os_errno (ENOSPC, ENOENT, ...)
 * and the text of os_errno is appended. */
int xv_fail_errno(xvsa_error **ret, int os_errno, const char *component, const char *format, ...)
    XV_PRINTF(4, 5);

int xv_fail_memory(xvsa_error **ret);

/* Puts context above *ret, which becomes the cause; flags stay those of the cause, and so does the
 * code when code is 0. Does nothing when ret or *ret is NULL. Returns code. */
int xv_error_wrap(xvsa_error **ret, int code, const char *component, const char *format, ...)
    XV_PRINTF(4, 5);

/* The following decorate an error that the caller has just made and still owns alone; e may be NULL. */
void xv_error_set_xenapi(xvsa_error *e, const char *code, const char *const *params,
                         uint32_t count);
void xv_error_set_http(xvsa_error *e, int32_t status);
void xv_error_set_retryable(xvsa_error *e, bool retryable);
/* Names an object: key is a static string such as "pool", "vm", "vdi", "point", "object". */
void xv_error_set_detail(xvsa_error *e, const char *key, const char *value);

/* True when e's XenAPI code, or that of any cause below it, equals code. */
bool xv_error_is_xenapi(const xvsa_error *e, const char *code);

/* Frees *e and sets it to NULL; for errors that were handled. */
void xv_error_clear(xvsa_error **e);

#endif
