/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/pool.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct xv_pool {
    atomic_uint references;
    struct xv_engine *engine;
    struct xv_client *client;
    struct xv_live *live;
    pthread_mutex_t lock; /* guards proxies and proxy_count */
    struct xv_proxy **proxies;
    size_t proxy_count;
};

int xv_pool_new(struct xv_engine *engine, struct xv_client *client, struct xv_pool **ret,
                xvsa_error **error)
{
    struct xv_pool *pool = calloc(1, sizeof *pool);
    int rc = pool == NULL ? xv_fail_memory(error) : xv_live_new(client, &pool->live, error);
    if (rc != 0) {
        free(pool);
        xv_client_free(client);
        return rc;
    }
    atomic_init(&pool->references, 1);
    pool->engine = xv_engine_ref(engine);
    pool->client = client;
    pthread_mutex_init(&pool->lock, NULL);
    *ret = pool;
    return 0;
}

struct xv_pool *xv_pool_ref(struct xv_pool *pool)
{
    atomic_fetch_add_explicit(&pool->references, 1, memory_order_relaxed);
    return pool;
}

void xv_pool_unref(struct xv_pool *pool)
{
    if (pool == NULL || atomic_fetch_sub_explicit(&pool->references, 1, memory_order_acq_rel) != 1)
        return;
    xv_proxies_free(pool->proxies, pool->proxy_count);
    xv_live_free(pool->live);
    xv_client_free(pool->client);
    xv_engine_unref(pool->engine);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

int xv_pool_close(struct xv_pool *pool, const struct xv_call *call, xvsa_error **error)
{
    xv_live_stop(pool->live);
    return xv_client_close(pool->client, call, error);
}

struct xv_live *xv_pool_live(const struct xv_pool *pool)
{
    return pool->live;
}

int xv_pool_inventory(struct xv_pool *pool, const struct xv_call *call, struct xv_inventory **ret,
                      xvsa_error **error)
{
    return xv_live_inventory(pool->live, 0, call, ret, error);
}

struct xv_client *xv_pool_client(const struct xv_pool *pool)
{
    return pool->client;
}

struct xv_engine *xv_pool_engine(const struct xv_pool *pool)
{
    return pool->engine;
}

/* The caller holds the lock. */
static int append_proxy(struct xv_pool *pool, struct xv_proxy *proxy, xvsa_error **error)
{
    for (size_t i = 0; i < pool->proxy_count; i++) {
        if (strcmp(xv_proxy_name(pool->proxies[i]), xv_proxy_name(proxy)) == 0)
            return xv_fail(error, XVSA_ERR_EXISTS, "job",
                           "the pool has a proxy named \"%s\" already", xv_proxy_name(proxy));
        if (strcmp(xv_proxy_vm_uuid(pool->proxies[i]), xv_proxy_vm_uuid(proxy)) == 0)
            return xv_fail(error, XVSA_ERR_EXISTS, "job", "proxy \"%s\" runs on VM %s already",
                           xv_proxy_name(pool->proxies[i]), xv_proxy_vm_uuid(proxy));
    }
    struct xv_proxy **proxies =
        realloc(pool->proxies, (pool->proxy_count + 1) * sizeof(struct xv_proxy *));
    if (proxies == NULL)
        return xv_fail_memory(error);
    pool->proxies = proxies;
    pool->proxies[pool->proxy_count++] = xv_proxy_ref(proxy);
    return 0;
}

int xv_pool_list_proxy(struct xv_pool *pool, struct xv_proxy *proxy, xvsa_error **error)
{
    pthread_mutex_lock(&pool->lock);
    int rc = append_proxy(pool, proxy, error);
    pthread_mutex_unlock(&pool->lock);
    return rc;
}

int xv_pool_remove_proxy(struct xv_pool *pool, struct xv_proxy *proxy, xvsa_error **error)
{
    bool found = false;
    pthread_mutex_lock(&pool->lock);
    for (size_t i = 0; i < pool->proxy_count && !found; i++) {
        if (pool->proxies[i] == proxy) {
            pool->proxy_count--;
            memmove(&pool->proxies[i], &pool->proxies[i + 1],
                    (pool->proxy_count - i) * sizeof(struct xv_proxy *));
            found = true;
        }
    }
    pthread_mutex_unlock(&pool->lock);
    if (!found)
        return xv_fail(error, XVSA_ERR_STATE, "job", "proxy \"%s\" is not in the pool any more",
                       xv_proxy_name(proxy));
    xv_proxy_unref(proxy);
    return 0;
}

bool xv_pool_is_coordinator(struct xv_pool *pool, const struct xv_proxy *proxy)
{
    pthread_mutex_lock(&pool->lock);
    bool first = pool->proxy_count > 0 && pool->proxies[0] == proxy;
    pthread_mutex_unlock(&pool->lock);
    return first;
}

int xv_pool_proxies(struct xv_pool *pool, struct xv_proxy ***ret, size_t *ret_count,
                    xvsa_error **error)
{
    pthread_mutex_lock(&pool->lock);
    size_t count = pool->proxy_count;
    struct xv_proxy **proxies = calloc(count + 1, sizeof(struct xv_proxy *));
    for (size_t i = 0; proxies != NULL && i < count; i++)
        proxies[i] = xv_proxy_ref(pool->proxies[i]);
    pthread_mutex_unlock(&pool->lock);
    if (proxies == NULL)
        return xv_fail_memory(error);
    *ret = proxies;
    *ret_count = count;
    return 0;
}

static json_t *proxies_json(const struct xv_inventory *inventory, struct xv_proxy *const *proxies,
                            size_t count)
{
    json_t *array = json_array();
    for (size_t i = 0; i < count; i++) {
        if (json_array_append_new(array, xv_proxy_reach_to_json(proxies[i], i == 0, inventory)) !=
            0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

int xv_pool_describe(struct xv_pool *pool, const struct xv_call *call, char **ret,
                     xvsa_error **error)
{
    struct xv_inventory *inventory = NULL;
    struct xv_proxy **proxies = NULL;
    size_t count = 0;
    int rc = xv_pool_inventory(pool, call, &inventory, error);
    if (rc == 0)
        rc = xv_pool_proxies(pool, &proxies, &count, error);
    json_t *document = rc != 0 ? NULL : xv_inventory_to_json(inventory);
    if (rc == 0 &&
        json_object_set_new(document, "proxies", proxies_json(inventory, proxies, count)) != 0)
        rc = xv_fail_memory(error);
    if (rc == 0)
        rc = xv_json_print(document, ret, error);
    else
        json_decref(document);
    xv_proxies_free(proxies, count);
    xv_inventory_free(inventory);
    return rc;
}
