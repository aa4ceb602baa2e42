/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the jobs of one context share: settings, state, kinds of targets, and the threads and memory that
 * they divide between them. Reference counted; outlives everything made with it. Thread-safe.
 */
#ifndef XV_JOB_ENGINE_H
#define XV_JOB_ENGINE_H

#include "base/env.h"
#include "coord/coord.h"
#include "target/target.h"

struct xv_engine;

/* What a job may use while it runs. */
struct xv_share {
    uint32_t threads;
    uint64_t memory;
};

/* state_path NULL: in memory. */
int xv_engine_new(const struct xv_env *env, const char *state_path, struct xv_engine **ret,
                  xvsa_error **error) XV_MUST_CHECK;
struct xv_engine *xv_engine_ref(struct xv_engine *engine);
void xv_engine_unref(struct xv_engine *engine);

const struct xv_env *xv_engine_env(const struct xv_engine *engine);
struct xv_coord *xv_engine_coord(const struct xv_engine *engine);
struct xv_target_registry *xv_engine_registry(const struct xv_engine *engine);

/* Takes half of the memory that the other jobs left, and half of the threads (all of them when there is
 * no other job). May be nothing: a job always goes on with one thread and the least memory it can work
 * with. To be given back. */
struct xv_share xv_engine_take(struct xv_engine *engine);
void xv_engine_give_back(struct xv_engine *engine, struct xv_share share);

#endif
