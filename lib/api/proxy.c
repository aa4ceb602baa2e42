/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdlib.h>

#include "api/handles.h"
#include "base/options.h"

#define DISKS_MAX 64u

static int make_handle(struct xv_pool *pool, struct xv_proxy *proxy, xvsa_proxy **ret,
                       xvsa_error **error)
{
    xvsa_proxy *handle = calloc(1, sizeof *handle);
    if (handle == NULL)
        return xv_fail_memory(error);
    atomic_init(&handle->references, 1);
    handle->pool = xv_pool_ref(pool);
    handle->proxy = proxy;
    *ret = handle;
    return 0;
}

static int add_proxy(struct xv_pool *pool, const xvsa_proxy_options *options,
                     const struct xv_call *call, xvsa_proxy **ret, xvsa_error **error)
{
    struct xv_proxy *proxy = NULL;
    int rc = xv_pool_add_proxy(pool, options->name, options->vm_uuid, options->max_disks, call,
                               &proxy, error);
    if (rc != 0)
        return rc;
    if ((options->flags & XVSA_PROXY_HERE) != 0)
        rc = xv_proxy_run_here(proxy, options->device_path, error);
    if (rc == 0)
        rc = make_handle(pool, proxy, ret, error);
    if (rc != 0) {
        int removed = xv_pool_remove_proxy(pool, proxy, NULL);
        (void)removed; /* the proxy was added just now; somebody else removed it at worst */
        xv_proxy_unref(proxy);
    }
    return rc;
}

XVSA_API int32_t xvsa_proxy_add(xvsa_pool *pool, const xvsa_proxy_options *options,
                                const xvsa_call *call, xvsa_proxy **ret, xvsa_error **error)
{
    xvsa_proxy_options ours;
    struct xv_call within;
    int rc = require(pool, "pool", error);
    if (rc == 0)
        rc = require(options, "options", error);
    if (rc == 0)
        rc = require(ret, "ret", error);
    if (rc == 0)
        rc = xv_options_copy(&ours, sizeof ours, options, "xvsa_proxy_options", error);
    if (rc == 0)
        rc = check_flags(ours.flags, XVSA_PROXY_HERE, "xvsa_proxy_options.flags", error);
    if (rc == 0)
        rc = require(ours.vm_uuid, "xvsa_proxy_options.vm_uuid", error);
    if (rc == 0 && (ours.name != NULL && ours.name[0] == '\0'))
        rc = xv_fail(error, XVSA_ERR_INVALID, "api", "xvsa_proxy_options.name: must not be empty");
    if (rc == 0 && (ours.max_disks > DISKS_MAX || ours.reserved != 0))
        rc = xv_fail(error, XVSA_ERR_INVALID, "api", "xvsa_proxy_options.max_disks: at most %u",
                     DISKS_MAX);
    if (rc == 0 && ours.device_path != NULL && (ours.flags & XVSA_PROXY_HERE) == 0)
        rc = xv_fail(error, XVSA_ERR_INVALID, "api",
                     "xvsa_proxy_options.device_path: only with XVSA_PROXY_HERE");
    if (rc == 0 && ours.device_path != NULL && ours.device_path[0] != '/')
        rc = xv_fail(error, XVSA_ERR_INVALID, "api",
                     "xvsa_proxy_options.device_path: must begin with /");
    if (rc == 0)
        rc = xv_call_resolve(call, &within, error);
    if (rc != 0)
        return rc;
    return add_proxy(pool_of(pool), &ours, &within, ret, error);
}

XVSA_API int32_t xvsa_proxy_remove(xvsa_proxy *proxy, xvsa_error **error)
{
    int rc = require(proxy, "proxy", error);
    return rc != 0 ? rc : xv_pool_remove_proxy(proxy->pool, proxy->proxy, error);
}

XVSA_API xvsa_proxy *xvsa_proxy_ref(xvsa_proxy *proxy)
{
    if (proxy != NULL)
        add_reference(&proxy->references);
    return proxy;
}

XVSA_API void xvsa_proxy_unref(xvsa_proxy *proxy)
{
    if (proxy == NULL || !drop_reference(&proxy->references))
        return;
    xv_proxy_unref(proxy->proxy);
    xv_pool_unref(proxy->pool);
    free(proxy);
}

XVSA_API const char *xvsa_proxy_name(const xvsa_proxy *proxy)
{
    return proxy == NULL ? NULL : xv_proxy_name(proxy->proxy);
}

XVSA_API int32_t xvsa_proxy_is_coordinator(const xvsa_proxy *proxy)
{
    return proxy != NULL && xv_pool_is_coordinator(proxy->pool, proxy->proxy);
}

XVSA_API int32_t xvsa_proxy_reach(xvsa_proxy *proxy, const xvsa_call *call, char **ret_json,
                                  xvsa_error **error)
{
    struct xv_call within;
    struct xv_inventory *inventory = NULL;
    int rc = require(proxy, "proxy", error);
    if (rc == 0)
        rc = require(ret_json, "ret_json", error);
    if (rc == 0)
        rc = xv_call_resolve(call, &within, error);
    if (rc == 0)
        rc = xv_pool_inventory(proxy->pool, &within, &inventory, error);
    if (rc != 0)
        return rc;
    bool coordinates = xv_pool_is_coordinator(proxy->pool, proxy->proxy);
    rc = xv_json_print(xv_proxy_reach_to_json(proxy->proxy, coordinates, inventory), ret_json,
                       error);
    xv_inventory_free(inventory);
    return rc;
}
