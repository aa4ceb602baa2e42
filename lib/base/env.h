/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Settings that every module needs: where log lines go, how many threads, how much memory. Owned by
 * the context, immutable, outlives everything made with it.
 */
#ifndef XV_BASE_ENV_H
#define XV_BASE_ENV_H

#include <stdint.h>

#include "base/error.h"

struct xv_env {
    xvsa_log_fn log;
    void *log_user;
    int32_t log_level;
    uint32_t worker_threads;
    uint64_t memory_limit; /* bytes of data buffers, all jobs together */
};

/* Sends a line to the embedder's sink when level is at most env->log_level. env may be NULL. Must not
 * be called with a lock held: the sink is the embedder's code. Never pass a secret. */
void xv_log(const struct xv_env *env, int32_t level, const char *component, const char *format, ...)
    XV_PRINTF(4, 5);

#endif
