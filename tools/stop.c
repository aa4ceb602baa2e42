/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Signals end work in an orderly way. Outside jobs the first one cancels the call under way. While a
 * job runs the first SIGINT lets it finish the VMs under way, the second (or a SIGTERM) stops it at
 * once; a third has the signal's default effect. A member of a site drains at the first one, whichever
 * it is, and cancels at the second.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>

#include "cli.h"

static xvsa_cancel *token;
static atomic_int level;
static atomic_bool in_job;
static atomic_bool in_service;
static pthread_t main_thread;

static void on_signal(int number)
{
    /* Only the main thread waits in calls that a signal must interrupt; the library's threads may be
     * handed the signal all the same. */
    if (!pthread_equal(pthread_self(), main_thread)) {
        pthread_kill(main_thread, number);
        return;
    }
    int now = atomic_load(&level);
    bool serves = atomic_load(&in_service);
    int next = (number == SIGTERM && !serves) || now > 0 ? 2 : 1;
    if (now == 2) {
        signal(number, SIG_DFL);
        raise(number);
        return;
    }
    atomic_store(&level, next);
    if (serves ? next == 2 : !atomic_load(&in_job))
        xvsa_cancel_fire(token);
}

int stop_install(void)
{
    main_thread = pthread_self();
    xvsa_error *error = NULL;
    if (xvsa_cancel_new(&token, &error) != XVSA_OK)
        return fail(error, "cannot prepare for signals");
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigemptyset(&ignore.sa_mask);
    if (sigaction(SIGINT, &action, NULL) != 0 || sigaction(SIGTERM, &action, NULL) != 0 ||
        sigaction(SIGHUP, &action, NULL) != 0 || sigaction(SIGPIPE, &ignore, NULL) != 0) {
        complain("cannot prepare for signals");
        return EXIT_FAILED;
    }
    return EXIT_OK;
}

xvsa_cancel *stop_token(void)
{
    return token;
}

int stop_await_input(int descriptor)
{
    /* Blocked until the wait begins, so that no signal falls between the question and the wait. */
    sigset_t signals, before;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &signals, &before);
    struct pollfd input = {.fd = descriptor, .events = POLLIN};
    int problem = 0;
    do {
        if (stop_level() > 0)
            problem = EINTR;
        else if (ppoll(&input, 1, NULL, &before) < 0 && errno != EINTR)
            problem = errno;
    } while (problem == 0 && input.revents == 0);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return problem;
}

int stop_level(void)
{
    return atomic_load(&level);
}

void stop_guard_job(bool running)
{
    atomic_store(&in_job, running);
}

void stop_guard_service(bool running)
{
    atomic_store(&in_service, running);
}

void stop_clear(void)
{
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    xvsa_cancel_unref(token);
    token = NULL;
}
