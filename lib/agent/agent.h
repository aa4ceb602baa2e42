/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A member of a site at work: coordinates its pool when it is its turn, owns tasks, and helps with others'.
 * Reference counted, and kept alive by its own threads until it was drained. Thread-safe.
 */
#ifndef XV_AGENT_AGENT_H
#define XV_AGENT_AGENT_H

#include "agent/site.h"
#include "job/pool.h"
#include "repo/repo.h"

struct xv_agent;

struct xv_agent_repo {
    const char *name;
    struct xv_repo *repo;
};

struct xv_agent_options {
    const char *name, *pool_name, *vm_uuid, *address;
    struct xv_pool *pool; /* its proxies are the agent's from now on */
    const struct xv_agent_repo *repos;
    size_t repo_count;
    uint32_t max_disks;
    bool hotadd;             /* disks are attached to the VM */
    const char *device_path; /* where its devices show up; NULL: /dev */
    int64_t ttl_ms, checkpoint_ms;
    uint64_t unit_bytes;
};

/* Text is copied, handles get a reference. */
int xv_agent_start(struct xv_site *site, const struct xv_agent_options *options,
                   const struct xv_call *call, struct xv_agent **ret,
                   xvsa_error **error) XV_MUST_CHECK;
int xv_agent_drain(struct xv_agent *agent, const struct xv_call *call,
                   xvsa_error **error) XV_MUST_CHECK;
struct xv_agent *xv_agent_ref(struct xv_agent *agent);
void xv_agent_unref(struct xv_agent *agent);

/* status.c; the caller frees the text. */
int xv_agent_status(struct xv_agent *agent, char **ret, xvsa_error **error) XV_MUST_CHECK;
int xv_agent_metrics(struct xv_agent *agent, char **ret, xvsa_error **error) XV_MUST_CHECK;

#endif
