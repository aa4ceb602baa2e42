/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The handles of the public API that are more than an internal object under another name: each keeps
 * the handle it was made from alive. Contexts, pools, plans, jobs, sites and agents are struct
 * xv_engine, xv_pool, xv_plan, xv_job, xv_site and xv_agent themselves.
 */
#ifndef XV_API_HANDLES_H
#define XV_API_HANDLES_H

#include <stdatomic.h>

#include "agent/agent.h"
#include "job/engine.h"
#include "job/pool.h"
#include "repo/repo.h"

struct xvsa_sr {
    atomic_uint references;
    char *uuid, *name, *type;
    xvsa_sr_info info; /* its text members point to those above */
};

struct xvsa_proxy {
    atomic_uint references;
    struct xv_pool *pool;
    struct xv_proxy *proxy;
};

struct xvsa_target {
    atomic_uint references;
    struct xv_engine *engine; /* its registry holds the target's vtable */
    struct xv_target *target;
};

struct xvsa_repo {
    atomic_uint references;
    xvsa_target *target;
    struct xv_repo *repo;
};

struct xvsa_point {
    atomic_uint references;
    xvsa_repo *repo;
    struct xv_point *point;
};

struct xvsa_disk {
    atomic_uint references;
    xvsa_point *point;
    struct xv_disk *disk;
};

static inline struct xv_engine *engine_of(xvsa_context *context)
{
    return (struct xv_engine *)context;
}

static inline struct xv_pool *pool_of(const xvsa_pool *pool)
{
    return (struct xv_pool *)(uintptr_t)pool;
}

static inline struct xv_site *site_of(const xvsa_site *site)
{
    return (struct xv_site *)(uintptr_t)site;
}

static inline struct xv_agent *agent_of(const xvsa_agent *agent)
{
    return (struct xv_agent *)(uintptr_t)agent;
}

static inline void add_reference(atomic_uint *references)
{
    atomic_fetch_add_explicit(references, 1, memory_order_relaxed);
}

/* True when the last reference went. */
static inline bool drop_reference(atomic_uint *references)
{
    return atomic_fetch_sub_explicit(references, 1, memory_order_acq_rel) == 1;
}

/* Fails with INVALID when pointer is NULL. */
static inline int require(const void *pointer, const char *name, xvsa_error **error)
{
    return pointer != NULL ? 0 : xv_fail(error, XVSA_ERR_INVALID, "api", "%s is NULL", name);
}

/* Fails with INVALID when flags has a bit outside known. */
static inline int check_flags(uint32_t flags, uint32_t known, const char *name, xvsa_error **error)
{
    if ((flags & ~known) == 0)
        return 0;
    return xv_fail(error, XVSA_ERR_INVALID, "api", "%s: unknown bits 0x%x", name, flags & ~known);
}

#endif
