/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "repo/baton.h"

#include <time.h>

#define NAP_NS 100000000L

void xv_cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attributes);
    pthread_condattr_destroy(&attributes);
}

void xv_cond_nap(pthread_cond_t *cond, pthread_mutex_t *lock)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += NAP_NS;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_nsec -= 1000000000L;
        until.tv_sec++;
    }
    pthread_cond_timedwait(cond, lock, &until);
}

void xv_baton_init(struct xv_baton *baton)
{
    pthread_mutex_init(&baton->lock, NULL);
    xv_cond_init(&baton->freed);
    baton->held = false;
}

void xv_baton_destroy(struct xv_baton *baton)
{
    pthread_cond_destroy(&baton->freed);
    pthread_mutex_destroy(&baton->lock);
}

int xv_baton_take(struct xv_baton *baton, const struct xv_call *call, xvsa_error **error)
{
    int rc = 0;
    pthread_mutex_lock(&baton->lock);
    while (baton->held && rc == 0) {
        xv_cond_nap(&baton->freed, &baton->lock);
        if (baton->held)
            rc = xv_call_check(call, "repo", "waiting for another thread", error);
    }
    if (rc == 0)
        baton->held = true;
    pthread_mutex_unlock(&baton->lock);
    return rc;
}

void xv_baton_give(struct xv_baton *baton)
{
    pthread_mutex_lock(&baton->lock);
    baton->held = false;
    pthread_cond_signal(&baton->freed);
    pthread_mutex_unlock(&baton->lock);
}
