/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Something that one thread holds at a time and may hold during input and output, where a mutex may
 * not be held: waiting for it ends with the call's deadline or cancellation.
 */
#ifndef XV_REPO_BATON_H
#define XV_REPO_BATON_H

#include <pthread.h>

#include "base/call.h"

struct xv_baton {
    pthread_mutex_t lock; /* guards held; never held while anything is done */
    pthread_cond_t freed;
    bool held;
};

void xv_baton_init(struct xv_baton *baton);
void xv_baton_destroy(struct xv_baton *baton);
int xv_baton_take(struct xv_baton *baton, const struct xv_call *call,
                  xvsa_error **error) XV_MUST_CHECK;
void xv_baton_give(struct xv_baton *baton);

/* A condition whose timed waits follow CLOCK_MONOTONIC. */
void xv_cond_init(pthread_cond_t *cond);
/* Waits for a signal for a tenth of a second at most, so that callers can look at their xv_call. */
void xv_cond_nap(pthread_cond_t *cond, pthread_mutex_t *lock);

#endif
