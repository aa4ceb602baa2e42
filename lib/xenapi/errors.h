/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * XenAPI error codes: what they mean in XVSA_ERR_* codes and whether a call may be repeated.
 */
#ifndef XV_XENAPI_ERRORS_H
#define XV_XENAPI_ERRORS_H

#include "xenapi/value.h"

enum xv_remedy {
    XV_REMEDY_NONE,
    XV_REMEDY_LATER,  /* may succeed later; not repeated here */
    XV_REMEDY_BUSY,   /* given before executing: repeat with growing pauses */
    XV_REMEDY_RENEW,  /* not executed: log in again, at the coordinator it names */
    XV_REMEDY_MEMBER, /* this member cannot serve now: look for one that can, or wait */
};

struct xv_error_entry {
    const char *code;
    int xvsa_code;
    enum xv_remedy remedy;
};

/* The entry of a XenAPI code; one with XVSA_ERR_XENAPI when it is not a known one. */
struct xv_error_entry xv_errors_find(const char *code);
/* Iteration for tests and documentation; NULL at the end. */
const struct xv_error_entry *xv_errors_at(size_t index);

/* Makes an error of an ErrorDescription. secret (may be NULL) is struck out of its parameters. */
int xv_errors_fail(const char *what, const struct xv_value *description, const char *secret,
                   xvsa_error **error);

/* True for text of the pool's that holds a session's reference or the secret (may be NULL): they are all
 * a thief needs. */
bool xv_errors_is_secret(const char *text, const char *secret);

/* True when the error says that the object is gone. */
bool xv_errors_is_gone(const xvsa_error *error);

#endif
