/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The virtualization client of one pool: session with the coordinator, which it follows when it moves,
 * calls, tasks and bulk transfers. Thread-safe.
 */
#ifndef XV_XENAPI_CLIENT_H
#define XV_XENAPI_CLIENT_H

#include "base/call.h"
#include "base/env.h"
#include "xenapi/value.h"

#define XV_NULL_REF "OpaqueRef:NULL"

struct xv_client;

struct xv_client_options {
    const struct xv_env *env;
    const char *const *urls;
    uint32_t url_count;
    const char *username;
    const char *password;
    const char *ca_file;
    const char *const *fingerprints;
    uint32_t fingerprint_count;
    const char *originator;
    const char *pool_uuid; /* expected; NULL: any */
    uint32_t flags;        /* XVSA_POOL_* */
};

/* Logs in. Copies everything. */
int xv_client_open(const struct xv_client_options *options, const struct xv_call *call,
                   struct xv_client **ret, xvsa_error **error) XV_MUST_CHECK;
/* Logs out and ends the connections; calls made later fail with STATE. */
int xv_client_close(struct xv_client *client, const struct xv_call *call, xvsa_error **error);
/* After close, or to give up a session without logout. */
void xv_client_free(struct xv_client *client);
const char *xv_client_pool_uuid(const struct xv_client *client);
const char *xv_client_pool_name(const struct xv_client *client);
const char *xv_client_fingerprint(const struct xv_client *client);
/* Grows by one with every change of session or coordinator: what was read before must be read again and
 * tasks of before are lost. */
uint64_t xv_client_epoch(struct xv_client *client);

/* One call. params: an ARRAY without the session, which is put in front; NULL for none; left to the
 * caller. *ret: the Value. idempotent tells that a call whose outcome is unknown (connection lost after
 * sending) may simply be repeated; others then fail with UNKNOWN_OUTCOME. A renewed login repeats a call
 * that failed with SESSION_INVALID or HOST_IS_SLAVE, for these were not executed; busy answers that the
 * server gives before executing are repeated until the deadline. Failures of the pool carry the XenAPI
 * code; well-known ones map to better codes (docs/errors.md). */
int xv_client_call(struct xv_client *client, const char *method, const struct xv_value *params,
                   bool idempotent, const struct xv_call *call, struct xv_value **ret,
                   xvsa_error **error) XV_MUST_CHECK;

/* Async.<method>: starts the task, waits for it through event.from (else by polling), destroys it. On
 * cancellation the task is cancelled. *ret (may be NULL): the result's reference or text as STRING, or
 * its ARRAY. When the task vanished, was lost with its coordinator, or the answer to its start was lost:
 * UNKNOWN_OUTCOME; the caller looks for the effect. */
int xv_client_run(struct xv_client *client, const char *method, const struct xv_value *params,
                  const struct xv_call *call, struct xv_value **ret,
                  xvsa_error **error) XV_MUST_CHECK;

/* Streams <class>.get_all_records: record is freed after each call of fn; fn's non-zero result stops and
 * is returned. The reply may be far larger than memory ought to hold. */
typedef int (*xv_record_fn)(void *user, const char *ref, const struct xv_value *record,
                            xvsa_error **error);
int xv_client_each_record(struct xv_client *client, const char *class_name, xv_record_fn fn,
                          void *user, const struct xv_call *call, xvsa_error **error) XV_MUST_CHECK;
/* The same with those members of the records only that are named, NULL being the last name; NULL: all. */
int xv_client_each_part(struct xv_client *client, const char *class_name,
                        const char *const *members, xv_record_fn fn, void *user,
                        const struct xv_call *call, xvsa_error **error) XV_MUST_CHECK;

/* The current session's reference, for export names that have to be built by hand. A secret: wipe with
 * xv_free_secret. NULL without memory. */
char *xv_client_session(struct xv_client *client);

#endif
