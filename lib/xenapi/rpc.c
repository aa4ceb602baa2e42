/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * One remote procedure call: encode, post, decode while it arrives.
 */
#include "xenapi/client_internal.h"

#include <stdarg.h>
#include <string.h>

#include "xenapi/errors.h"

#define ANSWER_MAX (256ull << 20)
#define STREAM_MAX (4ull << 30)

static int read_answer(void *user, void *data, size_t room, size_t *ret_length, xvsa_error **error)
{
    return xv_http_read(user, data, room, ret_length, error);
}

struct gate {
    const struct xv_rpc *rpc;
};

static int pass_member(void *user, const char *key, struct xv_value *value, xvsa_error **error)
{
    const struct gate *gate = user;
    if (gate->rpc->delivered != NULL)
        *gate->rpc->delivered = true;
    return gate->rpc->on_member(gate->rpc->member_user, key, value, error);
}

static int check_status(const struct xv_exchange *exchange, const struct xv_url *url,
                        const char *method, xvsa_error **error)
{
    int status = xv_http_status(exchange);
    if (status == 200)
        return 0;
    int rc =
        xv_fail(error, XVSA_ERR_PROTOCOL, XV_COMPONENT,
                "%s: %s answers with HTTP status %d instead of XML-RPC", method, url->host, status);
    if (error != NULL)
        xv_error_set_http(*error, status);
    return rc;
}

int xv_rpc_post(struct xv_client *client, const struct xv_url *url, const char *session,
                const struct xv_rpc *rpc, const struct xv_call *call, struct xv_answer *ret,
                bool *ret_sent, char *ret_fingerprint, xvsa_error **error)
{
    struct xv_buffer body;
    struct xv_exchange *exchange = NULL;
    bool streamed = rpc->on_member != NULL;
    struct gate gate = {rpc};
    if (ret_sent != NULL)
        *ret_sent = false;
    xv_buffer_init(&body, XV_XMLRPC_REQUEST_MAX);
    int rc = xv_xmlrpc_encode(&body, rpc->method, session, rpc->params, error);
    if (rc != 0) {
        xv_buffer_wipe(&body);
        return xv_error_wrap(error, rc, XV_COMPONENT, "cannot send %s", rpc->method);
    }
    struct xv_http_request request = {
        .method = "POST",
        .host = url,
        .target = "/",
        .content_type = "text/xml",
        .body = body.data,
        .body_length = body.length,
        .answer_ceiling = streamed ? STREAM_MAX : ANSWER_MAX,
        .fresh = !rpc->idempotent,
    };
    rc = xv_http_begin(client->http, &request, call, &exchange, ret_sent, error);
    if (rc == 0)
        rc = check_status(exchange, url, rpc->method, error);
    if (rc == 0 && ret_fingerprint != NULL)
        memcpy(ret_fingerprint, xv_http_fingerprint(exchange),
               strlen(xv_http_fingerprint(exchange)) + 1);
    if (rc == 0) {
        struct xv_xmlrpc_input input = {
            .source = read_answer,
            .user = exchange,
            .what = rpc->method,
            .on_member = streamed ? pass_member : NULL,
            .member_user = &gate,
            .wanted = rpc->wanted,
            .secret = session != NULL ? session : client->password,
        };
        rc = xv_xmlrpc_decode(&input, ret, error);
    }
    xv_http_end(exchange);
    xv_buffer_wipe(&body);
    return rc;
}

int xv_rpc_ask(struct xv_client *client, const struct xv_url *url, const char *session,
               const struct xv_rpc *rpc, const struct xv_call *call, struct xv_value **ret,
               xvsa_error **error)
{
    struct xv_answer answer = {0};
    int rc = xv_rpc_post(client, url, session, rpc, call, &answer, NULL, NULL, error);
    if (rc != 0)
        return rc;
    if (answer.success) {
        *ret = answer.value;
        return 0;
    }
    rc = xv_errors_fail(rpc->method, answer.value, session, error);
    xv_value_free(answer.value);
    return rc;
}

struct xv_value *xv_params(const char *first, ...)
{
    struct xv_value *params = xv_value_new_array();
    va_list args;
    va_start(args, first);
    bool good = true;
    for (const char *text = first; good && text != NULL; text = va_arg(args, const char *))
        good = xv_value_add(params, xv_value_new_string(text));
    va_end(args);
    if (good)
        return params;
    xv_value_free(params);
    return NULL;
}

int xv_session_end(struct xv_client *client, const struct xv_url *url, const char *session,
                   const struct xv_call *call, xvsa_error **error)
{
    struct xv_rpc rpc = {.method = "session.logout", .idempotent = true};
    struct xv_value *value = NULL;
    xvsa_error *failure = NULL;
    int rc = xv_rpc_ask(client, url, session, &rpc, call, &value, &failure);
    xv_value_free(value);
    /* A session that is gone is what was wanted. */
    if (xv_error_is_xenapi(failure, "SESSION_INVALID"))
        rc = 0;
    if (rc != 0 && error != NULL)
        *error = xvsa_error_ref(failure);
    xvsa_error_unref(failure);
    return rc;
}
