/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/thread.h"

#include <signal.h>

int xv_thread_start(const char *name, bool detached, void *(*body)(void *), void *argument,
                    pthread_t *thread, xvsa_error **error)
{
    pthread_t unused;
    pthread_attr_t attributes;
    sigset_t all;
    sigset_t before;
    int os_errno = pthread_attr_init(&attributes);
    if (os_errno != 0)
        return xv_fail_errno(error, os_errno, "base", "cannot start thread %s", name);
    if (detached)
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t *made = thread == NULL ? &unused : thread;
    os_errno = pthread_create(made, &attributes, body, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (os_errno != 0)
        return xv_fail_errno(error, os_errno, "base", "cannot start thread %s", name);
    if (!detached)
        pthread_setname_np(*made, name);
    return 0;
}

void xv_condition_init(pthread_cond_t *condition)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(condition, &attributes);
    pthread_condattr_destroy(&attributes);
}

void xv_condition_wait(pthread_cond_t *condition, pthread_mutex_t *lock, int64_t ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)(ms / 1000);
    until.tv_nsec += (long)(ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_cond_timedwait(condition, lock, &until);
}
