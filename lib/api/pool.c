/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdlib.h>

#include "api/handles.h"
#include "base/buffer.h"
#include "base/options.h"
#include "job/janitor.h"
#include "job/selection.h"

#define POOL_FLAGS                                                                                 \
    (XVSA_POOL_TRUST_ON_FIRST_USE | XVSA_POOL_NO_RECOVERY | XVSA_POOL_ALLOW_PLAIN_HTTP)

static int check_texts(const char *const *texts, uint32_t count, const char *name,
                       xvsa_error **error)
{
    int rc = count == 0 ? 0 : require(texts, name, error);
    for (uint32_t i = 0; rc == 0 && i < count; i++) {
        if (texts[i] == NULL)
            rc = xv_fail(error, XVSA_ERR_INVALID, "api", "%s[%u] is NULL", name, i);
    }
    return rc;
}

static int check_options(const xvsa_pool_options *options, xvsa_error **error)
{
    int rc = check_flags(options->flags, POOL_FLAGS, "xvsa_pool_options.flags", error);
    if (rc == 0 && options->url_count == 0)
        rc = xv_fail(error, XVSA_ERR_INVALID, "api",
                     "xvsa_pool_options.urls: at least one is needed");
    if (rc == 0)
        rc = check_texts(options->urls, options->url_count, "xvsa_pool_options.urls", error);
    if (rc == 0)
        rc = check_texts(options->fingerprints, options->fingerprint_count,
                         "xvsa_pool_options.fingerprints", error);
    if (rc == 0)
        rc = require(options->username, "xvsa_pool_options.username", error);
    if (rc == 0)
        rc = require(options->password, "xvsa_pool_options.password", error);
    return rc;
}

static int open_client(struct xv_engine *engine, const xvsa_pool_options *options,
                       const struct xv_call *call, struct xv_client **ret, xvsa_error **error)
{
    const struct xv_client_options client_options = {
        .env = xv_engine_env(engine),
        .urls = options->urls,
        .url_count = options->url_count,
        .username = options->username,
        .password = options->password,
        .ca_file = options->ca_file,
        .fingerprints = options->fingerprints,
        .fingerprint_count = options->fingerprint_count,
        .originator = options->originator == NULL ? "libxvsa" : options->originator,
        .pool_uuid = options->pool_uuid,
        .flags = options->flags,
    };
    return xv_client_open(&client_options, call, ret, error);
}

XVSA_API int32_t xvsa_pool_open(xvsa_context *context, const xvsa_pool_options *options,
                                const xvsa_call *call, xvsa_pool **ret, xvsa_error **error)
{
    xvsa_pool_options ours;
    struct xv_call within;
    int rc = require(context, "context", error);
    if (rc == 0)
        rc = require(options, "options", error);
    if (rc == 0)
        rc = require(ret, "ret", error);
    if (rc == 0)
        rc = xv_options_copy(&ours, sizeof ours, options, "xvsa_pool_options", error);
    if (rc == 0)
        rc = check_options(&ours, error);
    if (rc == 0)
        rc = xv_call_resolve(call, &within, error);
    struct xv_client *client = NULL;
    if (rc == 0)
        rc = open_client(engine_of(context), &ours, &within, &client, error);
    struct xv_pool *pool = NULL;
    if (rc == 0)
        rc = xv_pool_new(engine_of(context), client, &pool, error);
    if (rc != 0)
        return rc;
    if ((ours.flags & XVSA_POOL_NO_RECOVERY) == 0)
        xv_janitor_run(pool, NULL, &within);
    *ret = (xvsa_pool *)pool;
    return XVSA_OK;
}

XVSA_API int32_t xvsa_pool_close(xvsa_pool *pool, const xvsa_call *call, xvsa_error **error)
{
    struct xv_call within;
    int rc = require(pool, "pool", error);
    if (rc == 0)
        rc = xv_call_resolve(call, &within, error);
    if (rc != 0)
        return rc;
    return xv_pool_close(pool_of(pool), &within, error);
}

XVSA_API xvsa_pool *xvsa_pool_ref(xvsa_pool *pool)
{
    if (pool != NULL)
        xv_pool_ref(pool_of(pool));
    return pool;
}

XVSA_API void xvsa_pool_unref(xvsa_pool *pool)
{
    xv_pool_unref(pool_of(pool));
}

XVSA_API const char *xvsa_pool_uuid(const xvsa_pool *pool)
{
    return pool == NULL ? NULL : xv_client_pool_uuid(xv_pool_client(pool_of(pool)));
}

XVSA_API const char *xvsa_pool_name(const xvsa_pool *pool)
{
    return pool == NULL ? NULL : xv_client_pool_name(xv_pool_client(pool_of(pool)));
}

XVSA_API const char *xvsa_pool_fingerprint(const xvsa_pool *pool)
{
    return pool == NULL ? NULL : xv_client_fingerprint(xv_pool_client(pool_of(pool)));
}

static int read_inventory(xvsa_pool *pool, const xvsa_call *call, struct xv_inventory **ret,
                          xvsa_error **error)
{
    struct xv_call within;
    int rc = require(pool, "pool", error);
    if (rc == 0)
        rc = xv_call_resolve(call, &within, error);
    if (rc != 0)
        return rc;
    return xv_pool_inventory(pool_of(pool), &within, ret, error);
}

XVSA_API int32_t xvsa_pool_inventory(xvsa_pool *pool, const xvsa_call *call, char **ret_json,
                                     xvsa_error **error)
{
    struct xv_call within;
    int rc = require(pool, "pool", error);
    if (rc == 0)
        rc = require(ret_json, "ret_json", error);
    if (rc == 0)
        rc = xv_call_resolve(call, &within, error);
    return rc != 0 ? rc : xv_pool_describe(pool_of(pool), &within, ret_json, error);
}

static int read_selection(const char *text, struct xv_selection **ret, xvsa_error **error)
{
    json_t *json = NULL;
    int rc = xv_json_parse(text, "selection", &json, error);
    if (rc == 0)
        rc = xv_selection_read(json, "selection", ret, error);
    json_decref(json);
    return rc;
}

XVSA_API int32_t xvsa_pool_list_vms(xvsa_pool *pool, const char *selection, const xvsa_call *call,
                                    char **ret_json, xvsa_error **error)
{
    struct xv_selection *parsed = NULL;
    struct xv_inventory *inventory = NULL;
    const struct xv_vm **vms = NULL;
    size_t count = 0;
    int rc = require(selection, "selection", error);
    if (rc == 0)
        rc = require(ret_json, "ret_json", error);
    if (rc == 0)
        rc = read_selection(selection, &parsed, error);
    if (rc == 0)
        rc = read_inventory(pool, call, &inventory, error);
    if (rc == 0)
        rc = xv_selection_vms(parsed, inventory, &vms, &count, error);
    if (rc == 0)
        rc = xv_json_print(xv_selection_to_json(vms, count), ret_json, error);
    free(vms);
    if (inventory != NULL)
        xv_inventory_free(inventory);
    xv_selection_free(parsed);
    return rc;
}
