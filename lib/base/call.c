/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A token is an atomic flag plus an eventfd, so that both loops and polls notice it. The descriptor is
 * written once and never read: it stays readable.
 */
#include "base/call.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/options.h"

#define DEFAULT_TIMEOUT_MS (5 * 60 * 1000)

struct xvsa_cancel {
    atomic_uint references;
    atomic_bool fired;
    int fd;
};

static int64_t read_clock(clockid_t id)
{
    struct timespec now = {0};
    clock_gettime(id, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t xv_clock_ms(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

int64_t xv_boottime_ms(void)
{
    return read_clock(CLOCK_BOOTTIME);
}

int64_t xv_wall_ms(void)
{
    return read_clock(CLOCK_REALTIME);
}

int xv_call_resolve(const xvsa_call *from, struct xv_call *ret, xvsa_error **error)
{
    xvsa_call call;
    int rc = xv_options_copy(&call, sizeof call, from, "xvsa_call", error);
    if (rc != 0)
        return rc;
    int64_t timeout = call.timeout_ms == 0 ? DEFAULT_TIMEOUT_MS : call.timeout_ms;
    ret->deadline_ms = timeout < 0 ? 0 : xv_clock_ms() + timeout;
    ret->cancel = call.cancel;
    return 0;
}

struct xv_call xv_call_within(const struct xv_call *call, int64_t in_ms)
{
    struct xv_call result = {.deadline_ms = xv_clock_ms() + in_ms};
    if (call != NULL) {
        result.cancel = call->cancel;
        if (call->deadline_ms != 0 && call->deadline_ms < result.deadline_ms)
            result.deadline_ms = call->deadline_ms;
    }
    return result;
}

int64_t xv_call_left(const struct xv_call *call, int64_t limit_ms)
{
    if (call == NULL || call->deadline_ms == 0)
        return limit_ms;
    int64_t left = call->deadline_ms - xv_clock_ms();
    if (left < 0)
        left = 0;
    return limit_ms >= 0 && limit_ms < left ? limit_ms : left;
}

int xv_call_check(const struct xv_call *call, const char *component, const char *what,
                  xvsa_error **error)
{
    if (call == NULL)
        return 0;
    if (call->cancel != NULL && atomic_load(&call->cancel->fired))
        return xv_fail(error, XVSA_ERR_CANCELLED, component, "cancelled while %s", what);
    if (call->deadline_ms != 0 && xv_clock_ms() >= call->deadline_ms)
        return xv_fail(error, XVSA_ERR_TIMEOUT, component, "the deadline passed while %s", what);
    return 0;
}

int xv_call_sleep(const struct xv_call *call, int64_t ms, const char *component, const char *what,
                  xvsa_error **error)
{
    int64_t until = xv_clock_ms() + ms;
    for (;;) {
        int rc = xv_call_check(call, component, what, error);
        if (rc != 0)
            return rc;
        int64_t left = until - xv_clock_ms();
        if (left <= 0)
            return 0;
        int64_t wait = xv_call_left(call, left);
        struct pollfd fd = {.fd = call == NULL ? -1 : xv_cancel_fd(call->cancel), .events = POLLIN};
        if (poll(&fd, 1, wait > 60000 ? 60000 : (int)wait) < 0 && errno != EINTR)
            return xv_fail_errno(error, errno, component, "cannot wait while %s", what);
    }
}

int xv_cancel_fd(const xvsa_cancel *cancel)
{
    return cancel == NULL ? -1 : cancel->fd;
}

XVSA_API int32_t xvsa_cancel_new(xvsa_cancel **ret, xvsa_error **error)
{
    if (ret == NULL)
        return xv_fail(error, XVSA_ERR_INVALID, "base", "ret is NULL");
    xvsa_cancel *cancel = calloc(1, sizeof *cancel);
    if (cancel == NULL)
        return xv_fail_memory(error);
    cancel->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (cancel->fd < 0) {
        int saved = errno;
        free(cancel);
        return xv_fail_errno(error, saved, "base", "cannot make a cancellation token");
    }
    atomic_init(&cancel->references, 1);
    atomic_init(&cancel->fired, false);
    *ret = cancel;
    return XVSA_OK;
}

XVSA_API xvsa_cancel *xvsa_cancel_ref(xvsa_cancel *cancel)
{
    if (cancel != NULL)
        atomic_fetch_add_explicit(&cancel->references, 1, memory_order_relaxed);
    return cancel;
}

XVSA_API void xvsa_cancel_unref(xvsa_cancel *cancel)
{
    if (cancel != NULL &&
        atomic_fetch_sub_explicit(&cancel->references, 1, memory_order_acq_rel) == 1) {
        close(cancel->fd);
        free(cancel);
    }
}

XVSA_API void xvsa_cancel_fire(xvsa_cancel *cancel)
{
    if (cancel == NULL || atomic_exchange(&cancel->fired, true))
        return;
    uint64_t one = 1;
    /* An eventfd that was never written before has room for one write. */
    ssize_t written = write(cancel->fd, &one, sizeof one);
    (void)written;
}

XVSA_API int32_t xvsa_cancel_is_fired(const xvsa_cancel *cancel)
{
    return cancel != NULL && atomic_load(&cancel->fired);
}
