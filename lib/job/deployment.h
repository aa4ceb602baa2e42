/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the proxies of pools reach, what the loss of one would cost, and where further ones would help: the
 * JSON document "deployment".
 */
#ifndef XV_JOB_DEPLOYMENT_H
#define XV_JOB_DEPLOYMENT_H

#include "job/plan.h"
#include "sched/deployment.h"

struct xv_deployment_options {
    struct xv_selection *selection; /* NULL: every VM but those that proxies run on */
    uint32_t transports;            /* mask of those allowed */
    bool insecure_nbd, network;
    json_t *json; /* that text in selection belongs to */
};

/* text: the JSON document "deployment-options", or NULL for the defaults. */
int xv_deployment_options_read(const char *text, struct xv_deployment_options *ret,
                               xvsa_error **error) XV_MUST_CHECK;
void xv_deployment_options_free(struct xv_deployment_options *options);

/* A disk of a VM; in the analysis it has the next number of its VM unless it is left out. */
struct xv_deployment_disk {
    const struct xv_vbd *vbd;
    bool skipped; /* no backup moves it; reasons say why */
    struct xv_reasons reasons;
};

struct xv_deployment_vm {
    const struct xv_vm *vm;
    struct xv_deployment_disk *disks;
    size_t disk_count;
};

/* One pool at one instant. Numbers of the analysis are indices of vms, of the site's proxies, and of the
 * inventory's hosts and SRs. */
struct xv_deployment_pool {
    struct xv_inventory *inventory;
    struct xv_proxy **proxies;
    size_t proxy_count;
    struct xv_sched_site site;
    char **host_keys; /* of site.host_keys */
    struct xv_deployment_vm *vms;
    struct xv_sched_vm *entries; /* the same VMs for the scheduler */
    struct xv_sched_disk *entry_disks;
    size_t vm_count;
    struct xv_deployment *analysis;
};

int xv_deployment_pool_read(struct xv_pool *pool, const struct xv_deployment_options *options,
                            const struct xv_call *call, struct xv_deployment_pool *ret,
                            xvsa_error **error) XV_MUST_CHECK;
void xv_deployment_pool_free(struct xv_deployment_pool *pool);
/* An element of "pools" of the document; NULL without memory. */
json_t *xv_deployment_pool_to_json(const struct xv_deployment_pool *pool);

/* The whole document about pools, in their order; the caller frees it. */
int xv_deployment_describe(struct xv_pool *const *pools, size_t count, const char *options,
                           const struct xv_call *call, char **ret,
                           xvsa_error **error) XV_MUST_CHECK;

#endif
