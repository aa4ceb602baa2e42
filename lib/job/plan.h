/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a job will do, computed before it does it. Immutable once made, except that it can be started
 * once. Reference counted.
 */
#ifndef XV_JOB_PLAN_H
#define XV_JOB_PLAN_H

#include <stdatomic.h>

#include "job/pool.h"
#include "job/spec.h"
#include "repo/repo.h"

enum xv_mode {
    XV_MODE_FULL,        /* everything is read; nothing to compare with */
    XV_MODE_INCREMENTAL, /* what changed block tracking names is read */
    XV_MODE_COMPARE,     /* everything is read, what differs from the base is stored */
};
const char *xv_mode_name(enum xv_mode mode);

struct xv_plan_disk {
    bool skipped;
    const char *device;
    const char *vdi_uuid; /* restore: as in the backup */
    const char *name;
    uint64_t size;
    const struct xv_sr *sr; /* restore: where it will be; NULL when not known */
    size_t proxy;           /* index into the plan's proxies; XV_SCHED_NONE */
    struct xv_reasons reasons;
    bool hotadd; /* it is to be attached to the proxy's VM */
    /* backup */
    const struct xv_vdi *vdi;
    enum xv_mode mode;
    int base_index;            /* disk of the VM's base point; -1: none */
    const char *base_snapshot; /* uuid of the VDI that tracking starts from; NULL: none */
    bool enable_cbt;           /* switch tracking on before the snapshot */
    bool nbd;                  /* else HTTP; of those that go over a network */
    /* restore */
    size_t index;        /* of the disk in the point */
    uint64_t data_bytes; /* that will be written */
};

struct xv_plan_vif {
    const char *device, *mac;         /* mac "": a new one */
    const char *saved_network;        /* name in the backup */
    const struct xv_network *network; /* NULL: left out */
    const json_t *saved;              /* what the point keeps of the interface */
    struct xv_reasons reasons;
};

struct xv_plan_vm {
    const char *uuid, *name;
    struct xv_reasons reasons;
    xvsa_error *refusal; /* NULL: will be done */
    bool *helping_hosts; /* of the inventory: where a proxy would help; NULL: none needed */
    struct xv_plan_disk *disks;
    size_t disk_count;
    /* backup */
    const struct xv_vm *vm;
    struct xv_point *base;
    /* restore */
    struct xv_point *point;
    json_t *metadata; /* of the point */
    char *new_name;
    struct xv_plan_vif *vifs;
    size_t vif_count;
};

struct xv_plan {
    atomic_uint references;
    atomic_bool started;
    struct xv_engine *engine;
    struct xv_spec *spec;
    struct xv_pool *pool; /* NULL for verify */
    struct xv_repo *repo;
    struct xv_inventory *inventory; /* text and objects of the plan belong to it */
    struct xv_proxy **proxies;
    size_t proxy_count;
    struct xv_sched_site site;
    struct xv_plan_vm *vms; /* in the order of work */
    size_t vm_count;
};

/* pool may be NULL for verify. */
int xv_plan_new(struct xv_engine *engine, const char *spec, struct xv_pool *pool,
                struct xv_repo *repo, const struct xv_call *call, struct xv_plan **ret,
                xvsa_error **error) XV_MUST_CHECK;
struct xv_plan *xv_plan_ref(struct xv_plan *plan);
void xv_plan_unref(struct xv_plan *plan);
/* Objects of the pool that could not be read, so that the plan does not have them. inventory may be
 * NULL. */
json_t *xv_omissions_to_json(const struct xv_inventory *inventory);
/* JSON document "plan". */
json_t *xv_plan_to_json(const struct xv_plan *plan);

/* The parts of a VM and of a disk that plan and report have in common. */
json_t *xv_plan_vm_to_json(const struct xv_plan *plan, const struct xv_plan_vm *vm);
json_t *xv_plan_disk_to_json(const struct xv_plan *plan, const struct xv_plan_disk *disk);

/* True for disks that cannot be part of a snapshot, or shall not; adds the reason. selection may be
 * NULL. */
bool xv_plan_skips_disk(const struct xv_selection *selection, const struct xv_vbd *vbd,
                        struct xv_reasons *reasons);

/* Makers of the VMs of a plan, by type. */
int xv_plan_backup(struct xv_plan *plan, const struct xv_call *call,
                   xvsa_error **error) XV_MUST_CHECK;
int xv_plan_restore(struct xv_plan *plan, const struct xv_call *call,
                    xvsa_error **error) XV_MUST_CHECK;

/* Gives each VM of the plan (vms, in the same order) its base. */
int xv_plan_bases(struct xv_plan *plan, const struct xv_vm **vms, const struct xv_call *call,
                  xvsa_error **error) XV_MUST_CHECK;
/* Adds the reasons why the VM's disks may not be snapshotted now. */
int xv_plan_admit(const struct xv_plan *plan, struct xv_plan_vm *vm,
                  xvsa_error **error) XV_MUST_CHECK;

/* Orders the VMs, gives their disks to proxies and refuses those that no proxy reaches or that a reason
 * or the policy speaks against. */
int xv_plan_place(struct xv_plan *plan, xvsa_error **error) XV_MUST_CHECK;

#endif
