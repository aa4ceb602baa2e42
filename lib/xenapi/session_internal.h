/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The search for the coordinator: finding it (session.c) and learning the pool from it (member.c).
 */
#ifndef XV_XENAPI_SESSION_INTERNAL_H
#define XV_XENAPI_SESSION_INTERNAL_H

#include "xenapi/client_internal.h"

#define XV_HOPS_MAX    3
#define XV_DEAD_MAX    8
#define XV_MEMBERS_MAX 1024
#define XV_LOGIN_MS    30000 /* a member that answers slower is given up for the moment */

/* One attempt to find the coordinator. */
struct xv_search {
    struct xv_client *client;
    const struct xv_call *call;
    struct xv_url visited[XV_HOPS_MAX + 1]; /* of the present candidate's hops */
    size_t visited_count;
    struct xv_url dead[XV_DEAD_MAX]; /* gave no answer in the present sweep */
    size_t dead_count;
    char *session; /* of the login that succeeded */
    struct xv_url coordinator;
    struct xv_url *members;
    size_t member_count;
    char fingerprint[XV_FINGERPRINT_TEXT];
    char *pool_uuid;
    char *pool_name;
    xvsa_error *error; /* the most telling failure so far */
    bool wait;         /* some member asked for patience */
};

/* The following ask the coordinator that was logged in to. */
int xv_search_read_pool(struct xv_search *search, xvsa_error **error) XV_MUST_CHECK;
int xv_search_read_members(struct xv_search *search, xvsa_error **error) XV_MUST_CHECK;
/* Learns the certificates of the other members over the trusted connection. */
void xv_search_pin_members(struct xv_search *search);

#endif
