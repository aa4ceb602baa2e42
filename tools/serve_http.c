/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Health and metrics of a member over HTTP: /health (the process answers), /ready (it takes work), /status
 * (the document "agent"), /metrics (Prometheus). Nothing can be changed through it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "cli.h"

#define CONNECTIONS_MAX 32u
#define IDLE_SECONDS    10u
#define ADDRESS_MAX     80

struct serve_http {
    struct MHD_Daemon *daemon;
    xvsa_agent *agent;
    char address[ADDRESS_MAX];
};

struct reply {
    unsigned int status;
    const char *type;
    char *body; /* of the library; NULL: text */
    const char *text;
};

static bool is_ready(char *status)
{
    json_t *document = json_loads(status, 0, NULL);
    bool ready = strcmp(text_of(document, "state"), "joined") == 0 && is_true(document, "store") &&
                 is_true(document, "reaches_pool");
    json_decref(document);
    return ready;
}

static void make_reply(struct serve_http *http, const char *path, struct reply *reply)
{
    *reply = (struct reply){MHD_HTTP_INTERNAL_SERVER_ERROR, "text/plain", NULL, "failed\n"};
    if (strcmp(path, "/health") == 0) {
        *reply = (struct reply){MHD_HTTP_OK, "text/plain", NULL, "ok\n"};
    } else if (strcmp(path, "/metrics") == 0) {
        if (xvsa_agent_metrics(http->agent, &reply->body, NULL) == XVSA_OK) {
            reply->status = MHD_HTTP_OK;
            reply->type = "text/plain; version=0.0.4";
        }
    } else if (strcmp(path, "/status") == 0 || strcmp(path, "/ready") == 0) {
        if (xvsa_agent_status(http->agent, &reply->body, NULL) == XVSA_OK) {
            bool ready = path[1] == 's' || is_ready(reply->body);
            reply->status = ready ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE;
            reply->type = "application/json";
        }
    } else {
        *reply = (struct reply){MHD_HTTP_NOT_FOUND, "text/plain", NULL,
                                "there are /health, /ready, /status and /metrics\n"};
    }
}

static enum MHD_Result send_reply(struct MHD_Connection *connection, const struct reply *reply)
{
    const char *text = reply->body != NULL ? reply->body : reply->text;
    union {
        const char *from;
        void *to;
    } bytes = {text};
    struct MHD_Response *response =
        MHD_create_response_from_buffer(strlen(text), bytes.to, MHD_RESPMEM_MUST_COPY);
    if (response == NULL)
        return MHD_NO;
    enum MHD_Result result = MHD_NO;
    if (MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, reply->type) == MHD_YES &&
        MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store") == MHD_YES)
        result = MHD_queue_response(connection, reply->status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result answer(void *user, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *data,
                              size_t *data_size, void **state)
{
    (void)version;
    (void)data;
    (void)state;
    struct reply reply;
    if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0) {
        *data_size = 0;
        reply = (struct reply){MHD_HTTP_METHOD_NOT_ALLOWED, "text/plain", NULL, "GET only\n"};
        return send_reply(connection, &reply);
    }
    make_reply(user, url, &reply);
    enum MHD_Result result = send_reply(connection, &reply);
    xvsa_free(reply.body);
    return result;
}

union address {
    struct sockaddr plain;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

/* Reads "127.0.0.1:9190" or "[::1]:9190". */
static bool read_address(const char *text, union address *ret)
{
    char host[ADDRESS_MAX];
    const char *colon = strrchr(text, ':');
    char *end = NULL;
    unsigned long port = colon == NULL ? 0 : strtoul(colon + 1, &end, 10);
    if (colon == NULL || colon[1] == '\0' || *end != '\0' || port > 65535 ||
        (size_t)(colon - text) >= sizeof host)
        return false;
    *ret = (union address){.v6 = {0}};
    if (text[0] == '[' && colon > text + 1 && colon[-1] == ']') {
        snprintf(host, sizeof host, "%.*s", (int)(colon - text - 2), text + 1);
        ret->v6.sin6_family = AF_INET6;
        ret->v6.sin6_port = htons((uint16_t)port);
        return inet_pton(AF_INET6, host, &ret->v6.sin6_addr) == 1;
    }
    snprintf(host, sizeof host, "%.*s", (int)(colon - text), text);
    ret->v4.sin_family = AF_INET;
    ret->v4.sin_port = htons((uint16_t)port);
    return inet_pton(AF_INET, host, &ret->v4.sin_addr) == 1;
}

/* With the port that the system chose when none was given. */
static void note_address(struct serve_http *http, union address *address)
{
    char host[INET6_ADDRSTRLEN] = "";
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_BIND_PORT);
    bool v6 = address->plain.sa_family == AF_INET6;
    const void *place = v6 ? (const void *)&address->v6.sin6_addr : &address->v4.sin_addr;
    inet_ntop(address->plain.sa_family, place, host, sizeof host);
    snprintf(http->address, sizeof http->address, v6 ? "[%s]:%u" : "%s:%u", host,
             info == NULL ? 0u : (unsigned int)info->port);
}

int serve_http_start(const char *listen, xvsa_agent *agent, struct serve_http **ret)
{
    union address address;
    if (!read_address(listen, &address))
        return usage_error("listen: \"%s\" is not an ADDRESS:PORT such as 127.0.0.1:9190", listen);
    struct serve_http *http = calloc(1, sizeof *http);
    if (http == NULL) {
        complain("out of memory");
        return EXIT_FAILED;
    }
    http->agent = xvsa_agent_ref(agent);
    unsigned int flags = MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_ERROR_LOG;
    if (address.plain.sa_family == AF_INET6)
        flags |= MHD_USE_IPv6;
    http->daemon = MHD_start_daemon(flags, 0, NULL, NULL, answer, http, MHD_OPTION_SOCK_ADDR,
                                    &address.plain, MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX,
                                    MHD_OPTION_CONNECTION_TIMEOUT, IDLE_SECONDS, MHD_OPTION_END);
    if (http->daemon == NULL) {
        complain("cannot listen at %s: %s", listen, strerror(errno));
        serve_http_stop(http);
        return EXIT_FAILED;
    }
    note_address(http, &address);
    *ret = http;
    return EXIT_OK;
}

const char *serve_http_address(const struct serve_http *http)
{
    return http->address;
}

void serve_http_stop(struct serve_http *http)
{
    if (http == NULL)
        return;
    if (http->daemon != NULL)
        MHD_stop_daemon(http->daemon);
    xvsa_agent_unref(http->agent);
    free(http);
}
