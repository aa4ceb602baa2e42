/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Clock, deadlines and cancellation. Every function that may block takes a struct xv_call.
 */
#ifndef XV_BASE_CALL_H
#define XV_BASE_CALL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/* Milliseconds of CLOCK_MONOTONIC. */
int64_t xv_clock_ms(void);

/* Milliseconds of CLOCK_BOOTTIME, which also counts while the machine is suspended: for leases. */
int64_t xv_boottime_ms(void);

/* Milliseconds since 1970 of CLOCK_REALTIME; for display and records, never for decisions. */
int64_t xv_wall_ms(void);

/* A deadline and a token. NULL stands for no deadline and no token. */
struct xv_call {
    int64_t deadline_ms; /* xv_clock_ms() instant; 0: none */
    xvsa_cancel *cancel; /* may be NULL; borrowed */
};

/* Resolves the embedder's xvsa_call (may be NULL). Fails with XVSA_ERR_ABI on a wrong structure. */
int xv_call_resolve(const xvsa_call *from, struct xv_call *ret, xvsa_error **error) XV_MUST_CHECK;

/* The same token with a deadline that is not later than in_ms from now. */
struct xv_call xv_call_within(const struct xv_call *call, int64_t in_ms);

/* Milliseconds left, at most limit_ms (limit_ms < 0: no limit; the result is -1 then when there is no
 * deadline either). 0 when the deadline has passed. */
int64_t xv_call_left(const struct xv_call *call, int64_t limit_ms);

/* Fails with CANCELLED or TIMEOUT when the call should stop; what says what was being done. */
int xv_call_check(const struct xv_call *call, const char *component, const char *what,
                  xvsa_error **error) XV_MUST_CHECK;

/* Sleeps ms, or less when the token fires or the deadline passes; then fails like xv_call_check. */
int xv_call_sleep(const struct xv_call *call, int64_t ms, const char *component, const char *what,
                  xvsa_error **error) XV_MUST_CHECK;

/* A descriptor that becomes readable once the token fired and stays so; -1 for NULL. */
int xv_cancel_fd(const xvsa_cancel *cancel);

#endif
