/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Error objects. Immutable after they left the library; the reference count is the only field that
 * changes then. The out-of-memory error is a static object that is never counted or freed.
 */
#include "base/error.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGE_MAX 1024
#define DETAILS_MAX 8

struct detail {
    const char *key;
    char *value;
};

struct xvsa_error {
    atomic_uint references;
    bool immortal;
    bool retryable;
    int32_t code;
    int32_t os_errno;
    int32_t http_status;
    const char *component;
    char *message;
    char *xenapi_code;
    char **xenapi_params;
    uint32_t xenapi_count;
    uint32_t detail_count;
    struct detail details[DETAILS_MAX];
    xvsa_error *cause;
};

static xvsa_error out_of_memory = {
    .immortal = true,
    .code = XVSA_ERR_MEMORY,
    .component = "base",
    .message = (char *)"out of memory",
};

static const struct {
    int32_t code;
    const char *name;
    const char *advice;
} codes[] = {
    {XVSA_OK, "OK", ""},
    {XVSA_ERR_INVALID, "INVALID", "correct the argument that the message names"},
    {XVSA_ERR_ABI, "ABI",
     "program and library disagree about a structure; rebuild against this version"},
    {XVSA_ERR_STATE, "STATE", "the object is not in a state that allows this call"},
    {XVSA_ERR_MEMORY, "MEMORY", "free memory or lower the memory limit and repeat"},
    {XVSA_ERR_LIMIT, "LIMIT", "a bound on data from outside was exceeded; the peer may be faulty"},
    {XVSA_ERR_BUSY, "BUSY", "somebody else uses the object; repeat later"},
    {XVSA_ERR_UNSUPPORTED, "UNSUPPORTED",
     "the peer or this build lacks the feature; use another way"},
    {XVSA_ERR_INTERNAL, "INTERNAL", "a fault of this library; report it with the message"},
    {XVSA_ERR_NOT_FOUND, "NOT_FOUND", "check the name or the identifier"},
    {XVSA_ERR_EXISTS, "EXISTS", "choose another name or open what exists"},
    {XVSA_ERR_CONFLICT, "CONFLICT", "somebody else changed it first; read again and repeat"},
    {XVSA_ERR_FENCED, "FENCED", "another session took over; this one's work is void"},
    {XVSA_ERR_AUTH, "AUTH", "check user name, password or passphrase"},
    {XVSA_ERR_DENIED, "DENIED", "the account lacks a permission; grant it or use another account"},
    {XVSA_ERR_TLS, "TLS", "check the certificate, the CA file or the pinned fingerprint"},
    {XVSA_ERR_NETWORK, "NETWORK", "check that the peer is reachable and repeat"},
    {XVSA_ERR_TIMEOUT, "TIMEOUT", "the peer is slow or dead; repeat or allow more time"},
    {XVSA_ERR_CANCELLED, "CANCELLED", "cancelled on request"},
    {XVSA_ERR_PROTOCOL, "PROTOCOL",
     "the peer sent something invalid; check that it is what it should be"},
    {XVSA_ERR_XENAPI, "XENAPI", "see the XenAPI code and its parameters"},
    {XVSA_ERR_TARGET, "TARGET", "the storage target failed; see the cause"},
    {XVSA_ERR_SPACE, "SPACE", "free or add space and repeat"},
    {XVSA_ERR_IO, "IO", "check the storage device"},
    {XVSA_ERR_CORRUPT, "CORRUPT", "stored data is damaged; verify the repository"},
    {XVSA_ERR_FORMAT, "FORMAT", "written by a newer or a different program; upgrade this library"},
    {XVSA_ERR_PARTIAL, "PARTIAL", "part of the work failed; see the report"},
    {XVSA_ERR_REFUSED, "REFUSED", "the plan or a policy refuses this; see the reasons"},
    {XVSA_ERR_UNKNOWN_OUTCOME, "UNKNOWN_OUTCOME",
     "it may or may not have happened; look before repeating"},
};

__attribute__((format(printf, 1, 0))) static char *format_text(const char *format, va_list args)
{
    char text[MESSAGE_MAX];
    int length = vsnprintf(text, sizeof text, format, args);
    if (length < 0)
        return NULL;
    return strdup(text);
}

static xvsa_error *make(int code, const char *component, char *message)
{
    xvsa_error *e = calloc(1, sizeof *e);
    if (e == NULL || message == NULL) {
        free(e);
        free(message);
        return &out_of_memory;
    }
    atomic_init(&e->references, 1);
    e->code = code;
    e->component = component;
    e->message = message;
    e->retryable = code == XVSA_ERR_NETWORK || code == XVSA_ERR_TIMEOUT || code == XVSA_ERR_BUSY ||
                   code == XVSA_ERR_CONFLICT;
    return e;
}

int xv_fail(xvsa_error **ret, int code, const char *component, const char *format, ...)
{
    if (ret != NULL) {
        va_list args;
        va_start(args, format);
        *ret = make(code, component, format_text(format, args));
        va_end(args);
    }
    return code;
}

static int code_of_errno(int os_errno)
{
    switch (os_errno) {
    case ENOENT:
        return XVSA_ERR_NOT_FOUND;
    case EEXIST:
        return XVSA_ERR_EXISTS;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return XVSA_ERR_SPACE;
    case EACCES:
    case EPERM:
    case EROFS:
        return XVSA_ERR_DENIED;
    case ENOMEM:
        return XVSA_ERR_MEMORY;
    case EBUSY:
    case EAGAIN:
        return XVSA_ERR_BUSY;
    case ETIMEDOUT:
        return XVSA_ERR_TIMEOUT;
    case ECONNREFUSED:
    case ECONNRESET:
    case EPIPE:
    case EHOSTUNREACH:
    case ENETUNREACH:
        return XVSA_ERR_NETWORK;
    default:
        return XVSA_ERR_IO;
    }
}

int xv_fail_errno(xvsa_error **ret, int os_errno, const char *component, const char *format, ...)
{
    int code = code_of_errno(os_errno);
    if (ret == NULL)
        return code;
    char text[MESSAGE_MAX];
    char reason[128];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (length < 0)
        text[0] = '\0';
    char whole[MESSAGE_MAX + 160];
    snprintf(whole, sizeof whole, "%s: %s", text, strerror_r(os_errno, reason, sizeof reason));
    *ret = make(code, component, strdup(whole));
    if (!(*ret)->immortal)
        (*ret)->os_errno = os_errno;
    return code;
}

int xv_fail_memory(xvsa_error **ret)
{
    if (ret != NULL)
        *ret = &out_of_memory;
    return XVSA_ERR_MEMORY;
}

int xv_error_wrap(xvsa_error **ret, int code, const char *component, const char *format, ...)
{
    if (ret == NULL || *ret == NULL)
        return code;
    va_list args;
    va_start(args, format);
    xvsa_error *outer = make(code == 0 ? (*ret)->code : code, component, format_text(format, args));
    va_end(args);
    if (outer->immortal)
        return code;
    xvsa_error *cause = *ret;
    outer->retryable = cause->retryable;
    outer->os_errno = cause->os_errno;
    outer->http_status = cause->http_status;
    outer->cause = cause;
    *ret = outer;
    return code;
}

void xv_error_set_xenapi(xvsa_error *e, const char *code, const char *const *params, uint32_t count)
{
    if (e == NULL || e->immortal || code == NULL)
        return;
    e->xenapi_code = strdup(code);
    e->xenapi_params = count == 0 ? NULL : calloc(count, sizeof *e->xenapi_params);
    if (e->xenapi_params == NULL)
        return;
    for (uint32_t i = 0; i < count; i++) {
        e->xenapi_params[i] = strdup(params[i]);
        if (e->xenapi_params[i] == NULL)
            return;
        e->xenapi_count = i + 1;
    }
}

void xv_error_set_http(xvsa_error *e, int32_t status)
{
    if (e != NULL && !e->immortal)
        e->http_status = status;
}

void xv_error_set_retryable(xvsa_error *e, bool retryable)
{
    if (e != NULL && !e->immortal)
        e->retryable = retryable;
}

void xv_error_set_detail(xvsa_error *e, const char *key, const char *value)
{
    if (e == NULL || e->immortal || value == NULL || e->detail_count == DETAILS_MAX)
        return;
    char *copy = strdup(value);
    if (copy == NULL)
        return;
    e->details[e->detail_count++] = (struct detail){key, copy};
}

bool xv_error_is_xenapi(const xvsa_error *e, const char *code)
{
    for (; e != NULL; e = e->cause) {
        if (e->xenapi_code != NULL && strcmp(e->xenapi_code, code) == 0)
            return true;
    }
    return false;
}

void xv_error_clear(xvsa_error **e)
{
    xvsa_error_unref(*e);
    *e = NULL;
}

/* Public accessors. They are here and not in api/ because only this file knows the layout. */

XVSA_API xvsa_error *xvsa_error_ref(xvsa_error *e)
{
    if (e != NULL && !e->immortal)
        atomic_fetch_add_explicit(&e->references, 1, memory_order_relaxed);
    return e;
}

XVSA_API void xvsa_error_unref(xvsa_error *e)
{
    while (e != NULL && !e->immortal &&
           atomic_fetch_sub_explicit(&e->references, 1, memory_order_acq_rel) == 1) {
        xvsa_error *cause = e->cause;
        for (uint32_t i = 0; i < e->xenapi_count; i++)
            free(e->xenapi_params[i]);
        for (uint32_t i = 0; i < e->detail_count; i++)
            free(e->details[i].value);
        free(e->xenapi_params);
        free(e->xenapi_code);
        free(e->message);
        free(e);
        e = cause;
    }
}

XVSA_API int32_t xvsa_error_code(const xvsa_error *e)
{
    return e == NULL ? XVSA_OK : e->code;
}

XVSA_API const char *xvsa_error_message(const xvsa_error *e)
{
    return e == NULL ? "" : e->message;
}

XVSA_API const char *xvsa_error_component(const xvsa_error *e)
{
    return e == NULL ? "" : e->component;
}

XVSA_API const char *xvsa_error_xenapi_code(const xvsa_error *e)
{
    for (; e != NULL; e = e->cause) {
        if (e->xenapi_code != NULL)
            return e->xenapi_code;
    }
    return NULL;
}

static const xvsa_error *with_xenapi(const xvsa_error *e)
{
    while (e != NULL && e->xenapi_code == NULL)
        e = e->cause;
    return e;
}

XVSA_API uint32_t xvsa_error_xenapi_param_count(const xvsa_error *e)
{
    e = with_xenapi(e);
    return e == NULL ? 0 : e->xenapi_count;
}

XVSA_API const char *xvsa_error_xenapi_param(const xvsa_error *e, uint32_t index)
{
    e = with_xenapi(e);
    return e == NULL || index >= e->xenapi_count ? NULL : e->xenapi_params[index];
}

XVSA_API int32_t xvsa_error_errno(const xvsa_error *e)
{
    return e == NULL ? 0 : e->os_errno;
}

XVSA_API int32_t xvsa_error_http_status(const xvsa_error *e)
{
    return e == NULL ? 0 : e->http_status;
}

XVSA_API int32_t xvsa_error_is_retryable(const xvsa_error *e)
{
    return e != NULL && e->retryable;
}

XVSA_API const char *xvsa_error_detail(const xvsa_error *e, const char *key)
{
    if (key == NULL)
        return NULL;
    for (; e != NULL; e = e->cause) {
        for (uint32_t i = 0; i < e->detail_count; i++) {
            if (strcmp(e->details[i].key, key) == 0)
                return e->details[i].value;
        }
    }
    return NULL;
}

XVSA_API const xvsa_error *xvsa_error_cause(const xvsa_error *e)
{
    return e == NULL ? NULL : e->cause;
}

XVSA_API const char *xvsa_error_advice(const xvsa_error *e)
{
    return e == NULL ? "" : xvsa_code_advice(e->code);
}

XVSA_API const char *xvsa_code_name(int32_t code)
{
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        if (codes[i].code == code)
            return codes[i].name;
    }
    return "UNKNOWN_CODE";
}

XVSA_API const char *xvsa_code_advice(int32_t code)
{
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        if (codes[i].code == code)
            return codes[i].advice;
    }
    return "";
}

static const char *known_component(const char *component)
{
    static const char *const known[] = {"target", "embedder"};
    for (size_t i = 0; component != NULL && i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(known[i], component) == 0)
            return known[i];
    }
    return "embedder";
}

XVSA_API int32_t xvsa_error_new(int32_t code, const char *component, const char *message,
                                int32_t os_errno, uint32_t flags, xvsa_error **ret)
{
    if (code >= 0)
        code = XVSA_ERR_INTERNAL;
    if (ret == NULL)
        return code;
    *ret = make(code, known_component(component), strdup(message == NULL ? "" : message));
    if (!(*ret)->immortal) {
        (*ret)->os_errno = os_errno;
        (*ret)->retryable = (flags & XVSA_ERROR_RETRYABLE) != 0 || (*ret)->retryable;
    }
    return code;
}
