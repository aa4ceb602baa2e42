/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a job is asked to do: the JSON document "job".
 */
#ifndef XV_JOB_SPEC_H
#define XV_JOB_SPEC_H

#include "job/reason.h"
#include "job/selection.h"

enum xv_job_type { XV_JOB_BACKUP, XV_JOB_RESTORE, XV_JOB_VERIFY };

enum xv_cbt_policy {
    XV_CBT_AUTO, /* use it, and switch it on where that is possible */
    XV_CBT_USE,  /* use it where it is on */
    XV_CBT_OFF,
};

enum xv_mac_policy {
    XV_MAC_AUTO, /* keep unless another VM of the pool has it */
    XV_MAC_KEEP,
    XV_MAC_RENEW,
};

struct xv_spec {
    enum xv_job_type type;
    const char *name; /* "" for none; text belongs to json */
    struct xv_refusals refusals;
    int64_t time_limit_ms;  /* of the whole job; 0: none */
    int64_t retry_attempts; /* of each VM */
    int64_t retry_delay_ms;
    int64_t priority;           /* in a site's queue: higher ones first */
    const char *only_failed_of; /* id of an earlier job; NULL: none */
    bool use_hotadd, use_nbd, use_http;
    bool wants_hotadd; /* it is asked for by name */
    /* backup */
    struct xv_selection *selection;
    enum xv_cbt_policy cbt;
    bool insecure_nbd, block_migration;
    int64_t parallel_vms; /* 0: as many as the proxies take disks */
    int64_t snapshot_timeout_ms;
    int64_t sr_reserve_bytes; /* that a VM's snapshots must leave free on an SR */
    int64_t sr_reserve_percent;
    int64_t
        chain_depth; /* nodes a disk's chain may have before its snapshot; 0: the scheduler's default */
    /* restore */
    const json_t *points;   /* array of texts */
    const json_t *srs;      /* object: SR of the backup -> SR of the pool; NULL: none */
    const json_t *disks;    /* object: uuid of the backup's VDI -> SR of the pool; NULL: none */
    const json_t *networks; /* object: network of the backup -> network of the pool or null */
    const char *default_sr; /* NULL: none */
    const char *vm_name;    /* "{name}" stands for the name in the backup */
    enum xv_mac_policy mac;
    /* verify */
    const char *point; /* NULL: everything */
    bool quick;

    json_t *json;
};

int xv_spec_read(const char *text, struct xv_spec **ret, xvsa_error **error) XV_MUST_CHECK;
void xv_spec_free(struct xv_spec *spec);
const char *xv_job_type_name(enum xv_job_type type);

#endif
