/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "net/url.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define COMPONENT "net"

static bool part(CURLU *handle, CURLUPart what, unsigned int flags, char *text, size_t size)
{
    char *found = NULL;
    text[0] = '\0';
    if (curl_url_get(handle, what, &found, flags) != CURLUE_OK || found == NULL)
        return true;
    size_t length = strlen(found);
    bool fits = length < size;
    if (fits)
        memcpy(text, found, length + 1);
    curl_free(found);
    return fits;
}

/* What is wrong with it, or NULL. */
static const char *read_parts(CURLU *handle, struct xv_url *ret)
{
    char scheme[16];
    char host[sizeof ret->host];
    char port[16];
    char path[8];
    char extra[8];
    if (!part(handle, CURLUPART_SCHEME, 0, scheme, sizeof scheme) ||
        (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0))
        return "the scheme must be https or http";
    if (!part(handle, CURLUPART_USER, 0, extra, sizeof extra) || extra[0] != '\0' ||
        !part(handle, CURLUPART_PASSWORD, 0, extra, sizeof extra) || extra[0] != '\0')
        return "credentials do not belong in it";
    if (!part(handle, CURLUPART_PATH, 0, path, sizeof path) ||
        (path[0] != '\0' && strcmp(path, "/") != 0) ||
        !part(handle, CURLUPART_QUERY, 0, extra, sizeof extra) || extra[0] != '\0')
        return "only scheme, host and port are allowed";
    if (!part(handle, CURLUPART_HOST, 0, host, sizeof host) || host[0] == '\0')
        return "it has no host";
    if (!part(handle, CURLUPART_PORT, CURLU_DEFAULT_PORT, port, sizeof port))
        return "the port is wrong";
    long number = strtol(port, NULL, 10);
    if (number < 1 || number > 65535)
        return "the port is wrong";
    *ret = (struct xv_url){.tls = strcmp(scheme, "https") == 0, .port = (uint16_t)number};
    size_t length = strlen(host);
    if (host[0] == '[')
        memcpy(ret->host, host + 1, length - 2);
    else
        memcpy(ret->host, host, length);
    return NULL;
}

int xv_url_parse(const char *text, struct xv_url *ret, xvsa_error **error)
{
    if (text == NULL || text[0] == '\0')
        return xv_fail(error, XVSA_ERR_INVALID, COMPONENT, "the pool's URL is empty");
    CURLU *handle = curl_url();
    if (handle == NULL)
        return xv_fail_memory(error);
    const char *problem = "it is not a URL";
    if (curl_url_set(handle, CURLUPART_URL, text, CURLU_DEFAULT_SCHEME) == CURLUE_OK)
        problem = read_parts(handle, ret);
    curl_url_cleanup(handle);
    if (problem == NULL)
        return 0;
    /* Credentials in it would be a secret. */
    const char *shown = strchr(text, '@') == NULL ? text : "(hidden)";
    return xv_fail(error, XVSA_ERR_INVALID, COMPONENT, "bad URL \"%.200s\": %s", shown, problem);
}

void xv_url_format(const struct xv_url *url, char *text, size_t size)
{
    bool brackets = strchr(url->host, ':') != NULL;
    snprintf(text, size, "%s://%s%s%s:%u", url->tls ? "https" : "http", brackets ? "[" : "",
             url->host, brackets ? "]" : "", (unsigned)url->port);
}

bool xv_url_equal(const struct xv_url *a, const struct xv_url *b)
{
    return a->tls == b->tls && a->port == b->port && strcasecmp(a->host, b->host) == 0;
}
