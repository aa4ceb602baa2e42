/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/slots.h"

#include <stdlib.h>

#include "base/thread.h"
#include "sched/admission.h"

/* How soon a waiting thread notices that its token fired. */
#define WAIT_MS 200

struct xv_slots {
    pthread_mutex_t lock; /* guards left and connections */
    pthread_cond_t given_back;
    uint32_t *left;        /* of each proxy */
    uint32_t *connections; /* to each host */
    size_t proxies, hosts;
};

int xv_slots_new(const uint32_t *limits, size_t proxies, size_t hosts, struct xv_slots **ret,
                 xvsa_error **error)
{
    struct xv_slots *slots = calloc(1, sizeof *slots);
    if (slots == NULL)
        return xv_fail_memory(error);
    pthread_mutex_init(&slots->lock, NULL);
    xv_condition_init(&slots->given_back);
    slots->left = calloc(proxies + 1, sizeof *slots->left);
    slots->connections = calloc(hosts + 1, sizeof *slots->connections);
    if (slots->left == NULL || slots->connections == NULL) {
        xv_slots_free(slots);
        return xv_fail_memory(error);
    }
    slots->proxies = proxies;
    slots->hosts = hosts;
    for (size_t i = 0; i < proxies; i++)
        slots->left[i] = limits[i];
    *ret = slots;
    return 0;
}

void xv_slots_free(struct xv_slots *slots)
{
    if (slots == NULL)
        return;
    free(slots->left);
    free(slots->connections);
    pthread_cond_destroy(&slots->given_back);
    pthread_mutex_destroy(&slots->lock);
    free(slots);
}

/* The caller holds the lock. */
static bool is_free(const struct xv_slots *slots, size_t proxy, size_t host, uint32_t connections)
{
    if (proxy < slots->proxies && slots->left[proxy] == 0)
        return false;
    return host >= slots->hosts ||
           slots->connections[host] + connections <= XV_SCHED_HOST_CONNECTIONS;
}

int xv_slots_take(struct xv_slots *slots, size_t proxy, size_t host, uint32_t connections,
                  const struct xv_call *call, xvsa_error **error)
{
    int rc = 0;
    pthread_mutex_lock(&slots->lock);
    while (!is_free(slots, proxy, host, connections)) {
        rc = xv_call_check(call, "job", "waiting for a free proxy", error);
        if (rc != 0)
            break;
        xv_condition_wait(&slots->given_back, &slots->lock, WAIT_MS);
    }
    if (rc == 0) {
        if (proxy < slots->proxies)
            slots->left[proxy]--;
        if (host < slots->hosts)
            slots->connections[host] += connections;
    }
    pthread_mutex_unlock(&slots->lock);
    return rc;
}

void xv_slots_give_back(struct xv_slots *slots, size_t proxy, size_t host, uint32_t connections)
{
    pthread_mutex_lock(&slots->lock);
    if (proxy < slots->proxies)
        slots->left[proxy]++;
    if (host < slots->hosts)
        slots->connections[host] -= connections;
    pthread_cond_broadcast(&slots->given_back);
    pthread_mutex_unlock(&slots->lock);
}
