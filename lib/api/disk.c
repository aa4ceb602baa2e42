/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdlib.h>
#include <string.h>

#include "api/handles.h"

/* Position of a device name as xapi counts: xvda is 0, xvdb 1, ... xvdaa 26; -1 for other texts. */
static long device_position(const char *text)
{
    if (strncmp(text, "xvd", 3) != 0 || text[3] == '\0' || strlen(text) > 5)
        return -1;
    long position = 0;
    for (const char *c = text + 3; *c != '\0'; c++) {
        if (*c < 'a' || *c > 'z')
            return -1;
        position = position * 26 + (*c - 'a' + 1);
    }
    return position - 1;
}

static int find_disk(const struct xv_point *point, const char *disk, size_t *ret,
                     xvsa_error **error)
{
    char position[24];
    long number = device_position(disk);
    snprintf(position, sizeof position, "%ld", number);
    for (size_t i = 0; i < xv_point_disk_count(point); i++) {
        const struct xv_point_disk *candidate = xv_point_disk(point, i);
        if (strcmp(candidate->device, disk) == 0 || strcasecmp(candidate->key, disk) == 0 ||
            (number >= 0 && strcmp(candidate->device, position) == 0)) {
            *ret = i;
            return 0;
        }
    }
    return xv_fail(error, XVSA_ERR_NOT_FOUND, "api", "restore point %s has no disk \"%s\"",
                   xv_point_id(point), disk);
}

XVSA_API int32_t xvsa_point_open_disk(xvsa_point *point, const char *disk, const xvsa_call *call,
                                      xvsa_disk **ret, xvsa_error **error)
{
    struct xv_call within;
    size_t index = 0;
    int rc = require(point, "point", error);
    if (rc == 0)
        rc = require(disk, "disk", error);
    if (rc == 0)
        rc = require(ret, "ret", error);
    if (rc == 0)
        rc = xv_call_resolve(call, &within, error);
    if (rc == 0)
        rc = find_disk(point->point, disk, &index, error);
    if (rc != 0)
        return rc;
    xvsa_disk *handle = calloc(1, sizeof *handle);
    if (handle == NULL)
        return xv_fail_memory(error);
    rc = xv_point_open_disk(point->point, index, &within, &handle->disk, error);
    if (rc != 0) {
        free(handle);
        return rc;
    }
    atomic_init(&handle->references, 1);
    handle->point = xvsa_point_ref(point);
    *ret = handle;
    return XVSA_OK;
}

XVSA_API xvsa_disk *xvsa_disk_ref(xvsa_disk *disk)
{
    if (disk != NULL)
        add_reference(&disk->references);
    return disk;
}

XVSA_API void xvsa_disk_unref(xvsa_disk *disk)
{
    if (disk == NULL || !drop_reference(&disk->references))
        return;
    xv_disk_close(disk->disk);
    xvsa_point_unref(disk->point);
    free(disk);
}

XVSA_API uint64_t xvsa_disk_size(const xvsa_disk *disk)
{
    return disk == NULL ? 0 : disk->disk->size;
}

static int check_range(const xvsa_disk *disk, uint64_t offset, uint64_t length, xvsa_error **error)
{
    uint64_t size = disk->disk->size;
    if (offset > size || length > size - offset)
        return xv_fail(error, XVSA_ERR_INVALID, "api",
                       "offset %llu, length %llu: beyond the disk's end at %llu",
                       (unsigned long long)offset, (unsigned long long)length,
                       (unsigned long long)size);
    return 0;
}

XVSA_API int32_t xvsa_disk_read(xvsa_disk *disk, uint64_t offset, void *buffer, uint64_t length,
                                const xvsa_call *call, xvsa_error **error)
{
    struct xv_call within;
    int rc = require(disk, "disk", error);
    if (rc == 0 && length > 0)
        rc = require(buffer, "buffer", error);
    if (rc == 0)
        rc = check_range(disk, offset, length, error);
    if (rc == 0)
        rc = xv_call_resolve(call, &within, error);
    if (rc != 0 || length == 0)
        return rc;
    return xv_disk_read(disk->disk, offset, buffer, (size_t)length, &within, error);
}

XVSA_API int32_t xvsa_disk_extents(xvsa_disk *disk, uint64_t offset, uint64_t length,
                                   xvsa_extent *extents, uint32_t count, uint32_t *ret_count,
                                   const xvsa_call *call, xvsa_error **error)
{
    struct xv_call within;
    int rc = require(disk, "disk", error);
    if (rc == 0)
        rc = require(extents, "extents", error);
    if (rc == 0)
        rc = require(ret_count, "ret_count", error);
    if (rc == 0 && count == 0)
        rc = xv_fail(error, XVSA_ERR_INVALID, "api", "count is 0");
    if (rc == 0)
        rc = check_range(disk, offset, length, error);
    if (rc == 0)
        rc = xv_call_resolve(call, &within, error);
    if (rc != 0)
        return rc;
    return xv_point_disk_extents(disk->disk, offset, length, extents, count, ret_count, &within,
                                 error);
}
