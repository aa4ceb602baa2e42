/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a coordinator tells of its pool: identity, members, certificates.
 */
#include <stdlib.h>
#include <string.h>

#include "xenapi/session_internal.h"

static int take_pool(void *user, const char *ref, struct xv_value *record, xvsa_error **error)
{
    struct xv_search *search = user;
    (void)ref;
    int rc = 0;
    if (search->pool_uuid == NULL) {
        search->pool_uuid = strdup(xv_value_get_string(record, "uuid", ""));
        search->pool_name = strdup(xv_value_get_string(record, "name_label", ""));
        if (search->pool_uuid == NULL || search->pool_name == NULL)
            rc = xv_fail_memory(error);
    }
    xv_value_free(record);
    return rc;
}

static int take_member(void *user, const char *ref, struct xv_value *record, xvsa_error **error)
{
    struct xv_search *search = user;
    const char *address = xv_value_get_string(record, "address", "");
    int rc = 0;
    (void)ref;
    if (search->member_count == XV_MEMBERS_MAX) {
        rc = xv_fail(error, XVSA_ERR_LIMIT, XV_COMPONENT, "the pool has more than %d hosts",
                     XV_MEMBERS_MAX);
    } else if (address[0] != '\0' && strlen(address) < sizeof search->members->host) {
        xv_client_member_url(search->client, address, &search->members[search->member_count]);
        search->member_count++;
    }
    xv_value_free(record);
    return rc;
}

static int take_certificate(void *user, const char *ref, struct xv_value *record,
                            xvsa_error **error)
{
    struct xv_search *search = user;
    const char *text = xv_value_get_string(record, "fingerprint_sha256", "");
    if (text[0] == '\0')
        text = xv_value_get_string(record, "fingerprint", "");
    int rc = 0;
    (void)ref;
    if (strcmp(xv_value_get_string(record, "type", ""), "host") == 0 && text[0] != '\0')
        rc = xv_trust_pin(search->client->trust, text, error);
    xv_value_free(record);
    return rc;
}

static int read_records(struct xv_search *search, const char *method, xv_member_fn take,
                        xvsa_error **error)
{
    struct xv_value *value = NULL;
    struct xv_call call = xv_call_within(search->call, XV_LOGIN_MS);
    struct xv_rpc rpc = {
        .method = method, .idempotent = true, .on_member = take, .member_user = search};
    int rc = xv_rpc_ask(search->client, &search->coordinator, search->session, &rpc, &call, &value,
                        error);
    xv_value_free(value);
    return rc;
}

static int pin_host_certificate(struct xv_search *search, const char *host_ref,
                                const struct xv_call *call, xvsa_error **error)
{
    struct xv_value *value = NULL;
    struct xv_value *params = xv_params(host_ref, NULL);
    struct xv_rpc rpc = {
        .method = "host.get_server_certificate", .params = params, .idempotent = true};
    int rc = params == NULL ? xv_fail_memory(error)
                            : xv_rpc_ask(search->client, &search->coordinator, search->session,
                                         &rpc, call, &value, error);
    if (rc == 0)
        rc = xv_trust_pin_pem(search->client->trust, xv_value_string(value, ""), error);
    xv_value_free(params);
    xv_value_free(value);
    return rc;
}

/* For servers older than Certificate records. One limit for all hosts: a dead one may answer late. */
static int pin_each_host(struct xv_search *search, xvsa_error **error)
{
    struct xv_value *hosts = NULL;
    struct xv_call call = xv_call_within(search->call, XV_LOGIN_MS);
    struct xv_rpc rpc = {.method = "host.get_all", .idempotent = true};
    int rc = xv_rpc_ask(search->client, &search->coordinator, search->session, &rpc, &call, &hosts,
                        error);
    for (size_t i = 0; rc == 0 && i < xv_value_count(hosts) && i < XV_MEMBERS_MAX; i++) {
        xvsa_error *ignored = NULL;
        /* A dead host cannot tell its certificate; the others still count. */
        if (pin_host_certificate(search, xv_value_string(xv_value_at(hosts, i), ""), &call,
                                 &ignored) != 0)
            xv_log(search->client->env, XVSA_LOG_DEBUG, XV_COMPONENT, "host certificate: %s",
                   xvsa_error_message(ignored));
        xvsa_error_unref(ignored);
    }
    xv_value_free(hosts);
    return rc;
}

/* Without them only the members whose certificates are trusted anyway can be reached, which is no reason
 * to fail. */
void xv_search_pin_members(struct xv_search *search)
{
    xvsa_error *error = NULL;
    if (!search->coordinator.tls)
        return;
    int rc = read_records(search, "Certificate.get_all_records", take_certificate, &error);
    if (rc == XVSA_ERR_UNSUPPORTED) {
        xv_error_clear(&error);
        rc = pin_each_host(search, &error);
    }
    if (rc != 0)
        xv_log(search->client->env, XVSA_LOG_WARNING, XV_COMPONENT,
               "the certificates of the pool's members cannot be learnt: %s",
               xvsa_error_message(error));
    xvsa_error_unref(error);
}

int xv_search_read_pool(struct xv_search *search, xvsa_error **error)
{
    free(search->pool_uuid);
    free(search->pool_name);
    search->pool_uuid = NULL;
    search->pool_name = NULL;
    int rc = read_records(search, "pool.get_all_records", take_pool, error);
    if (rc == 0 && (search->pool_uuid == NULL || search->pool_uuid[0] == '\0'))
        rc = xv_fail(error, XVSA_ERR_PROTOCOL, XV_COMPONENT, "%s does not tell its pool's uuid",
                     search->coordinator.host);
    return rc;
}

int xv_search_read_members(struct xv_search *search, xvsa_error **error)
{
    search->member_count = 0;
    return read_records(search, "host.get_all_records", take_member, error);
}
