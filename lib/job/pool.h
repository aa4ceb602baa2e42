/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A pool as jobs see it: its virtualization client and its proxies in the order they were added.
 * Reference counted. Thread-safe.
 */
#ifndef XV_JOB_POOL_H
#define XV_JOB_POOL_H

#include <pthread.h>

#include "job/engine.h"
#include "job/json.h"
#include "job/reason.h"
#include "sched/sched.h"
#include "xenapi/live.h"

#define XV_PROXY_DISKS 4

/* A worker bound to a VM of the pool. Text is immutable, but for the device path, which is set once; reference counted by whoever lists it. */
struct xv_proxy;

const char *xv_proxy_name(const struct xv_proxy *proxy);
const char *xv_proxy_vm_uuid(const struct xv_proxy *proxy);
uint32_t xv_proxy_max_disks(const struct xv_proxy *proxy);
/* Tells that this process runs on the proxy's VM, so that disks may be attached to it. device_path: folder
 * where its devices show up; NULL: /dev, and the VM's uuid is compared with that of this machine, where it
 * tells it. INVALID when it is another. */
int xv_proxy_run_here(struct xv_proxy *proxy, const char *device_path,
                      xvsa_error **error) XV_MUST_CHECK;
/* The folder; NULL when this process does not run on the proxy's VM. */
const char *xv_proxy_device_path(const struct xv_proxy *proxy);
/* Sets one of the proxy's positions for attached disks aside; false when all are taken. */
bool xv_proxy_take_device(struct xv_proxy *proxy);
void xv_proxy_give_device(struct xv_proxy *proxy);
struct xv_proxy *xv_proxy_ref(struct xv_proxy *proxy);
void xv_proxy_unref(struct xv_proxy *proxy);

struct xv_pool;

/* Takes client over, also when it fails. */
int xv_pool_new(struct xv_engine *engine, struct xv_client *client, struct xv_pool **ret,
                xvsa_error **error) XV_MUST_CHECK;
struct xv_pool *xv_pool_ref(struct xv_pool *pool);
void xv_pool_unref(struct xv_pool *pool);
/* Stops following the pool's events and logs out; later calls to the pool fail with STATE. */
int xv_pool_close(struct xv_pool *pool, const struct xv_call *call, xvsa_error **error);
struct xv_client *xv_pool_client(const struct xv_pool *pool);
/* What the pool holds, kept current; for watches (xenapi/live.h), which have to be closed before the
 * reference to the pool is dropped. */
struct xv_live *xv_pool_live(const struct xv_pool *pool);
/* What the pool holds now: as of the call's beginning or later. Dropped with xv_inventory_free. */
int xv_pool_inventory(struct xv_pool *pool, const struct xv_call *call, struct xv_inventory **ret,
                      xvsa_error **error) XV_MUST_CHECK;
/* JSON document "inventory", its proxies included; the caller frees it. */
int xv_pool_describe(struct xv_pool *pool, const struct xv_call *call, char **ret,
                     xvsa_error **error) XV_MUST_CHECK;
struct xv_engine *xv_pool_engine(const struct xv_pool *pool);

/* name NULL: that of the VM. EXISTS when name or VM is taken, NOT_FOUND for an unknown VM. The caller
 * owns the reference in *ret. */
int xv_pool_add_proxy(struct xv_pool *pool, const char *name, const char *vm_uuid,
                      uint32_t max_disks, const struct xv_call *call, struct xv_proxy **ret,
                      xvsa_error **error) XV_MUST_CHECK;
/* Lists a proxy (adds a reference); EXISTS as above. */
int xv_pool_list_proxy(struct xv_pool *pool, struct xv_proxy *proxy,
                       xvsa_error **error) XV_MUST_CHECK;
/* STATE when it is out already. */
int xv_pool_remove_proxy(struct xv_pool *pool, struct xv_proxy *proxy,
                         xvsa_error **error) XV_MUST_CHECK;
bool xv_pool_is_coordinator(struct xv_pool *pool, const struct xv_proxy *proxy);
/* The proxies of this instant, in order; each a reference, the array freed with xv_proxies_free. */
int xv_pool_proxies(struct xv_pool *pool, struct xv_proxy ***ret, size_t *ret_count,
                    xvsa_error **error) XV_MUST_CHECK;
void xv_proxies_free(struct xv_proxy **proxies, size_t count);

/* The live host where the proxy's VM runs, or NULL with a reason. */
const struct xv_host *xv_proxy_host(const struct xv_proxy *proxy,
                                    const struct xv_inventory *inventory,
                                    struct xv_reasons *reasons);
/* JSON document "reach". */
json_t *xv_proxy_reach_to_json(const struct xv_proxy *proxy, bool is_coordinator,
                               const struct xv_inventory *inventory);

/* The pool as the scheduler numbers it: hosts, SRs and proxies by their place in the inventory and in
 * proxies. Released with xv_site_free. */
int xv_site_make(const struct xv_inventory *inventory, struct xv_proxy *const *proxies,
                 size_t count, struct xv_sched_site *ret, xvsa_error **error) XV_MUST_CHECK;
void xv_site_free(struct xv_sched_site *site);

#endif
