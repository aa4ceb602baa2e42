/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "net/reach.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>

#define COMPONENT "net"
#define GRACE_MS  250 /* for others after the first answer, so that their order counts */

struct probe {
    CURLM *multi;
    CURL *hosts[XV_REACH_MAX];
    size_t count;
    size_t known;
};

static bool add_host(struct probe *probe, const struct xv_url *url, enum xv_reach *state)
{
    struct xv_url plain = *url;
    char text[320];
    CURL *easy = curl_easy_init();
    /* Only the connection is of interest: TLS and trust come with the real request. */
    plain.tls = false;
    xv_url_format(&plain, text, sizeof text);
    if (easy == NULL || curl_easy_setopt(easy, CURLOPT_URL, text) != CURLE_OK ||
        curl_easy_setopt(easy, CURLOPT_CONNECT_ONLY, 1L) != CURLE_OK ||
        curl_easy_setopt(easy, CURLOPT_PROXY, "") != CURLE_OK ||
        curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) != CURLE_OK ||
        curl_easy_setopt(easy, CURLOPT_PRIVATE, (char *)state) != CURLE_OK ||
        curl_multi_add_handle(probe->multi, easy) != CURLM_OK) {
        curl_easy_cleanup(easy);
        return false;
    }
    probe->hosts[probe->count++] = easy;
    return true;
}

static void take_outcomes(struct probe *probe)
{
    const CURLMsg *message;
    int left = 0;
    while ((message = curl_multi_info_read(probe->multi, &left)) != NULL) {
        char *state = NULL;
        if (message->msg != CURLMSG_DONE ||
            curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &state) != CURLE_OK)
            continue;
        *(enum xv_reach *)(void *)state =
            message->data.result == CURLE_OK ? XV_REACH_ANSWERS : XV_REACH_REFUSES;
        probe->known++;
    }
}

static int run(struct probe *probe, int64_t limit_ms, const struct xv_call *call,
               xvsa_error **error)
{
    int64_t until = xv_clock_ms() + limit_ms;
    bool begun = false; /* somebody is known */
    for (;;) {
        int running = 0;
        int rc = xv_call_check(call, COMPONENT, "looking for living hosts", error);
        if (rc != 0)
            return rc;
        CURLMcode code = curl_multi_perform(probe->multi, &running);
        take_outcomes(probe);
        if (!begun && probe->known > 0) {
            begun = true;
            until = until < xv_clock_ms() + GRACE_MS ? until : xv_clock_ms() + GRACE_MS;
        }
        int64_t left = until - xv_clock_ms();
        if (code == CURLM_OK && (probe->known == probe->count || left <= 0))
            return 0;
        struct curl_waitfd wait = {.fd = call == NULL ? -1 : xv_cancel_fd(call->cancel),
                                   .events = CURL_WAIT_POLLIN};
        if (code == CURLM_OK)
            code = curl_multi_poll(probe->multi, &wait, wait.fd >= 0 ? 1 : 0,
                                   (int)xv_call_left(call, left < 1000 ? left : 1000), NULL);
        if (code != CURLM_OK)
            return xv_fail(error, XVSA_ERR_INTERNAL, COMPONENT, "cannot look for living hosts: %s",
                           curl_multi_strerror(code));
    }
}

int xv_reach(const struct xv_url *urls, enum xv_reach *states, size_t count, int64_t limit_ms,
             const struct xv_call *call, xvsa_error **error)
{
    struct probe probe = {.multi = curl_multi_init()};
    bool good = probe.multi != NULL;
    for (size_t i = 0; good && i < count && probe.count < XV_REACH_MAX; i++)
        good = states[i] != XV_REACH_UNKNOWN || add_host(&probe, &urls[i], &states[i]);
    int rc = good ? run(&probe, limit_ms, call, error) : xv_fail_memory(error);
    for (size_t i = 0; i < probe.count; i++) {
        curl_multi_remove_handle(probe.multi, probe.hosts[i]);
        curl_easy_cleanup(probe.hosts[i]);
    }
    curl_multi_cleanup(probe.multi);
    return rc;
}
