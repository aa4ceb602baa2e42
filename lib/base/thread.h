/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Threads: named, with every signal blocked so that the embedder's handlers never run in them.
 */
#ifndef XV_BASE_THREAD_H
#define XV_BASE_THREAD_H

#include <pthread.h>
#include <time.h>

#include "base/error.h"

/* name: at most 15 bytes. detached: nobody will join. thread may be NULL then. */
int xv_thread_start(const char *name, bool detached, void *(*body)(void *), void *argument,
                    pthread_t *thread, xvsa_error **error) XV_MUST_CHECK;

/* A condition variable whose timed waits use CLOCK_MONOTONIC. */
void xv_condition_init(pthread_cond_t *condition);
/* Waits at most ms. */
void xv_condition_wait(pthread_cond_t *condition, pthread_mutex_t *lock, int64_t ms);

#endif
