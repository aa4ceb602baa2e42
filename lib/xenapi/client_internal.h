/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the files of the client share.
 */
#ifndef XV_XENAPI_CLIENT_INTERNAL_H
#define XV_XENAPI_CLIENT_INTERNAL_H

#include <pthread.h>

#include "net/http.h"
#include "xenapi/client.h"
#include "xenapi/xmlrpc.h"

#define XV_COMPONENT "xenapi"

struct xv_client {
    /* Set before the client is shared; then constant. */
    const struct xv_env *env;
    struct xv_trust *trust;
    struct xv_http *http;
    char *username;
    char *password;
    char *originator;
    struct xv_url *seeds; /* as configured */
    size_t seed_count;
    char *pool_uuid; /* expected, or of the first pool that answered */
    char *pool_name;
    char fingerprint[XV_FINGERPRINT_TEXT];

    pthread_mutex_t lock; /* all that follows */
    pthread_cond_t renewed;
    struct xv_url coordinator;
    char *session; /* NULL: none */
    struct xv_url *members;
    size_t member_count;
    uint64_t epoch;
    bool renewing;
    bool closed;
};

/* One request and its answer. */
struct xv_rpc {
    const char *method;
    const struct xv_value *params;
    bool idempotent;
    bool *delivered;        /* with on_member: set before its first call */
    xv_member_fn on_member; /* may be NULL */
    void *member_user;
    const char *const *wanted; /* with on_member: members of the records; NULL: all */
};

/* Sends one request to one member and reads the answer; repeats nothing. *ret_fingerprint, when not
 * NULL, receives that of the member (XV_FINGERPRINT_TEXT bytes). */
int xv_rpc_post(struct xv_client *client, const struct xv_url *url, const char *session,
                const struct xv_rpc *rpc, const struct xv_call *call, struct xv_answer *ret,
                bool *ret_sent, char *ret_fingerprint, xvsa_error **error) XV_MUST_CHECK;

/* Like xv_rpc_post; a failure answered by the pool becomes an error. */
int xv_rpc_ask(struct xv_client *client, const struct xv_url *url, const char *session,
               const struct xv_rpc *rpc, const struct xv_call *call, struct xv_value **ret,
               xvsa_error **error) XV_MUST_CHECK;

/* session.logout; a session that is gone already is success. */
int xv_session_end(struct xv_client *client, const struct xv_url *url, const char *session,
                   const struct xv_call *call, xvsa_error **error);

/* Repeats an RPC with the current session as far as it is safe. */
int xv_client_perform(struct xv_client *client, const struct xv_rpc *rpc,
                      const struct xv_call *call, struct xv_value **ret,
                      xvsa_error **error) XV_MUST_CHECK;

/* Logs in for the first time. */
int xv_session_open(struct xv_client *client, const struct xv_call *call,
                    xvsa_error **error) XV_MUST_CHECK;
/* Makes sure that the session is a newer one than that of epoch: logs in again, or waits for another
 * thread that does. */
int xv_session_renew(struct xv_client *client, uint64_t epoch, const struct xv_call *call,
                     xvsa_error **error) XV_MUST_CHECK;

/* URL of a member whose address the pool gave. */
void xv_client_member_url(const struct xv_client *client, const char *address, struct xv_url *ret);

/* An ARRAY of strings, the last argument being NULL; NULL without memory. */
struct xv_value *xv_params(const char *first, ...) __attribute__((sentinel));

#endif
