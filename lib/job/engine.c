/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/engine.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

struct xv_engine {
    atomic_uint references;
    struct xv_env env;
    struct xv_coord *coord;
    struct xv_target_registry *registry;
    pthread_mutex_t lock; /* guards left */
    struct xv_share left; /* not taken by a job; a job that took the least allowed is not counted */
};

static void destroy(struct xv_engine *engine)
{
    xv_coord_close(engine->coord);
    if (engine->registry != NULL)
        xv_target_registry_free(engine->registry);
    pthread_mutex_destroy(&engine->lock);
    free(engine);
}

int xv_engine_new(const struct xv_env *env, const char *state_path, struct xv_engine **ret,
                  xvsa_error **error)
{
    struct xv_engine *engine = calloc(1, sizeof *engine);
    if (engine == NULL)
        return xv_fail_memory(error);
    atomic_init(&engine->references, 1);
    engine->env = *env;
    engine->left = (struct xv_share){env->worker_threads, env->memory_limit};
    pthread_mutex_init(&engine->lock, NULL);
    int rc = xv_target_registry_new(&engine->registry, error);
    if (rc == 0)
        rc = xv_coord_open(state_path, &engine->coord, error);
    if (rc != 0) {
        destroy(engine);
        return rc;
    }
    *ret = engine;
    return 0;
}

struct xv_engine *xv_engine_ref(struct xv_engine *engine)
{
    atomic_fetch_add_explicit(&engine->references, 1, memory_order_relaxed);
    return engine;
}

void xv_engine_unref(struct xv_engine *engine)
{
    if (engine != NULL &&
        atomic_fetch_sub_explicit(&engine->references, 1, memory_order_acq_rel) == 1)
        destroy(engine);
}

const struct xv_env *xv_engine_env(const struct xv_engine *engine)
{
    return &engine->env;
}

struct xv_coord *xv_engine_coord(const struct xv_engine *engine)
{
    return engine->coord;
}

struct xv_target_registry *xv_engine_registry(const struct xv_engine *engine)
{
    return engine->registry;
}

struct xv_share xv_engine_take(struct xv_engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    struct xv_share left = engine->left;
    bool alone = left.threads == engine->env.worker_threads;
    struct xv_share share = {alone ? left.threads : left.threads / 2, left.memory / 2};
    engine->left.threads -= share.threads;
    engine->left.memory -= share.memory;
    pthread_mutex_unlock(&engine->lock);
    return share;
}

void xv_engine_give_back(struct xv_engine *engine, struct xv_share share)
{
    pthread_mutex_lock(&engine->lock);
    engine->left.threads += share.threads;
    engine->left.memory += share.memory;
    pthread_mutex_unlock(&engine->lock);
}
