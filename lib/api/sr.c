/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdlib.h>
#include <string.h>

#include "api/handles.h"
#include "base/buffer.h"
#include "base/options.h"

#define LIST_MAX 4096

static uint32_t live_hosts(const struct xv_inventory *inventory, const struct xv_sr *sr)
{
    uint32_t count = 0;
    for (size_t i = 0; i < inventory->host_count; i++)
        count += xv_inventory_reaches(inventory, &inventory->hosts[i], sr) ? 1 : 0;
    return count;
}

static int make_sr(const struct xv_inventory *inventory, const struct xv_sr *from, xvsa_sr **ret,
                   xvsa_error **error)
{
    xvsa_sr *sr = calloc(1, sizeof *sr);
    if (sr == NULL)
        return xv_fail_memory(error);
    atomic_init(&sr->references, 1);
    sr->uuid = strdup(from->uuid);
    sr->name = strdup(from->name);
    sr->type = strdup(from->type);
    uint32_t hosts = live_hosts(inventory, from);
    sr->info = (xvsa_sr_info){
        .shared = hosts > 1,
        .uuid = sr->uuid,
        .name = sr->name,
        .type = sr->type,
        .physical_size = from->physical_size,
        .physical_used = from->physical_used,
        .virtual_allocation = from->virtual_allocation,
        .host_count = hosts,
        .supports_cbt = from->supports_cbt,
    };
    if (sr->uuid == NULL || sr->name == NULL || sr->type == NULL) {
        xvsa_sr_unref(sr);
        return xv_fail_memory(error);
    }
    *ret = sr;
    return 0;
}

static int fail_ambiguous(const struct xv_inventory *inventory, const char *name,
                          xvsa_error **error)
{
    struct xv_buffer list;
    xv_buffer_init(&list, LIST_MAX);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < inventory->sr_count; i++) {
        if (strcmp(inventory->srs[i].name, name) == 0)
            rc = xv_buffer_format(&list, NULL, "%s%s", list.length == 0 ? "" : ", ",
                                  inventory->srs[i].uuid);
    }
    rc = xv_fail(error, XVSA_ERR_CONFLICT, "api", "several SRs have the name \"%s\": %s", name,
                 list.data == NULL ? "" : list.data);
    xv_buffer_free(&list);
    return rc;
}

static int find_sr(const struct xv_inventory *inventory, const char *id, const struct xv_sr **ret,
                   xvsa_error **error)
{
    *ret = NULL;
    for (size_t i = 0; i < inventory->sr_count; i++) {
        if (strcasecmp(inventory->srs[i].uuid, id) == 0) {
            *ret = &inventory->srs[i];
            return 0;
        }
    }
    for (size_t i = 0; i < inventory->sr_count; i++) {
        if (strcmp(inventory->srs[i].name, id) != 0)
            continue;
        if (*ret != NULL)
            return fail_ambiguous(inventory, id, error);
        *ret = &inventory->srs[i];
    }
    if (*ret == NULL)
        return xv_fail(error, XVSA_ERR_NOT_FOUND, "api",
                       "the pool has no SR with the uuid or name \"%s\"", id);
    return 0;
}

XVSA_API int32_t xvsa_pool_find_sr(xvsa_pool *pool, const char *uuid_or_name, const xvsa_call *call,
                                   xvsa_sr **ret, xvsa_error **error)
{
    struct xv_call within;
    struct xv_inventory *inventory = NULL;
    const struct xv_sr *sr = NULL;
    int rc = require(pool, "pool", error);
    if (rc == 0)
        rc = require(uuid_or_name, "uuid_or_name", error);
    if (rc == 0)
        rc = require(ret, "ret", error);
    if (rc == 0)
        rc = xv_call_resolve(call, &within, error);
    if (rc == 0)
        rc = xv_pool_inventory(pool_of(pool), &within, &inventory, error);
    if (rc != 0)
        return rc;
    rc = find_sr(inventory, uuid_or_name, &sr, error);
    if (rc == 0)
        rc = make_sr(inventory, sr, ret, error);
    xv_inventory_free(inventory);
    return rc;
}

XVSA_API xvsa_sr *xvsa_sr_ref(xvsa_sr *sr)
{
    if (sr != NULL)
        add_reference(&sr->references);
    return sr;
}

XVSA_API void xvsa_sr_unref(xvsa_sr *sr)
{
    if (sr == NULL || !drop_reference(&sr->references))
        return;
    free(sr->uuid);
    free(sr->name);
    free(sr->type);
    free(sr);
}

XVSA_API int32_t xvsa_sr_get_info(const xvsa_sr *sr, xvsa_sr_info *info, xvsa_error **error)
{
    int rc = require(sr, "sr", error);
    if (rc != 0)
        return rc;
    return xv_options_fill(info, &sr->info, sizeof sr->info, "xvsa_sr_info", error);
}
