/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Block status of servers that offer it.
 */
#include <stdlib.h>
#include <string.h>

#include "disk/nbd.h"

#define STEP ((uint64_t)1 << 30) /* bytes asked about at once */

/* Ranges are grown to this unit, which bounds how many a server can make us remember. */
#define UNIT 65536u

#define PAUSE_MS 500

struct map {
    struct xv_extents *extents;
    uint64_t size;
    uint64_t at; /* known up to here */
    bool done;   /* the request was answered */
    int result;
    int code; /* of an error of ours */
    xvsa_error *error;
};

static int add_data(struct map *map, uint64_t offset, uint64_t length)
{
    uint64_t start = offset - offset % UNIT;
    uint64_t end = offset + length;
    end += (UNIT - end % UNIT) % UNIT;
    if (end > map->size)
        end = map->size;
    return xv_extents_add(map->extents, start, end - start, &map->error);
}

static int collect(void *user, const char *context, uint64_t offset, uint32_t *entries,
                   size_t count, int *error)
{
    struct map *map = user;
    (void)error;
    if (strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0 || offset != map->at)
        return 0;
    for (size_t i = 0; i + 1 < count && map->code == 0 && map->at < map->size; i += 2) {
        uint64_t length = entries[i];
        if (length > map->size - map->at)
            length = map->size - map->at;
        /* A hole that is not known to read as zeros may read as anything. */
        if ((entries[i + 1] & LIBNBD_STATE_ZERO) == 0)
            map->code = add_data(map, map->at, length);
        map->at += length;
    }
    return 0;
}

static int answered(void *user, int *error)
{
    struct map *map = user;
    map->done = true;
    map->result = *error;
    return 1;
}

/* One question and its answer. */
static int ask(struct xv_nbd_disk *disk, struct xv_nbd_link *link, struct map *map,
               const struct xv_call *call, xvsa_error **error)
{
    uint64_t length = map->size - map->at < STEP ? map->size - map->at : STEP;
    uint64_t before = map->at;
    map->done = false;
    link->deadline_ms = xv_clock_ms() + disk->options.request_timeout_ms;
    link->in_flight = 1;
    if (nbd_aio_block_status(
            link->nbd, length, before, (nbd_extent_callback){.callback = collect, .user_data = map},
            (nbd_completion_callback){.callback = answered, .user_data = map}, 0) < 0)
        return xv_fail(error, XVSA_ERR_NETWORK, XV_NBD_COMPONENT,
                       "cannot ask server %s for block status", link->place->label);
    int rc = 0;
    while (rc == 0 && !map->done)
        rc = xv_nbd_link_wait(link, call, "asking for block status", error);
    if (rc != 0)
        return rc;
    link->in_flight = 0;
    link->deadline_ms = 0;
    if (map->result != 0)
        return xv_fail(error, XVSA_ERR_NETWORK, XV_NBD_COMPONENT,
                       "server %s does not answer a question for block status: errno %d",
                       link->place->label, map->result);
    if (map->code == 0 && map->at <= before)
        return xv_fail(error, XVSA_ERR_PROTOCOL, XV_NBD_COMPONENT,
                       "server %s gave an empty block status", link->place->label);
    if (map->code != 0 && error != NULL) {
        *error = map->error;
        map->error = NULL;
    }
    return map->code;
}

static int ask_all(struct xv_nbd_disk *disk, struct xv_nbd_link **link, struct map *map,
                   const struct xv_call *call, xvsa_error **error)
{
    int rc = 0;
    if (*link == NULL) {
        rc = xv_nbd_link_start(disk, 0, link, error);
        if (rc == 0)
            rc = xv_nbd_link_finish(*link, call, error);
        if (rc == 0)
            rc = xv_nbd_disk_accept(disk, *link, error);
    }
    if (rc == 0 && nbd_can_meta_context((*link)->nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) != 1)
        return xv_fail(error, XVSA_ERR_UNSUPPORTED, XV_NBD_COMPONENT,
                       "server %s does not tell which parts of a disk are allocated",
                       (*link)->place->label);
    while (rc == 0 && map->at < map->size)
        rc = ask(disk, *link, map, call, error);
    return rc;
}

/* Asks until all is known; a lost connection is made again and goes on where it was. */
static int ask_until_known(struct xv_nbd_disk *disk, struct xv_nbd_link **link, struct map *map,
                           const struct xv_call *call, xvsa_error **error)
{
    uint32_t fruitless = 0;
    for (;;) {
        xvsa_error *why = NULL;
        uint64_t before = map->at;
        int rc = ask_all(disk, link, map, call, &why);
        fruitless = map->at > before ? 0 : fruitless + 1;
        bool again = (rc == XVSA_ERR_NETWORK || rc == XVSA_ERR_BUSY || rc == XVSA_ERR_TIMEOUT) &&
                     fruitless < XV_NBD_ATTEMPTS &&
                     xv_call_sleep(call, PAUSE_MS, XV_NBD_COMPONENT, "connecting again", NULL) == 0;
        if (rc != 0) {
            xv_nbd_link_close(*link);
            *link = NULL;
        }
        if (again) {
            xv_error_clear(&why);
            continue;
        }
        if (error != NULL)
            *error = why;
        else
            xv_error_clear(&why);
        return rc;
    }
}

int xv_nbd_map(struct xv_disk *base, struct xv_extents *ret, const struct xv_call *call,
               xvsa_error **error)
{
    struct xv_nbd_disk *disk = (struct xv_nbd_disk *)base;
    struct map map = {.extents = ret, .size = base->size};
    struct xv_nbd_link *link = NULL;
    uint32_t leased = 0;
    int rc = xv_nbd_disk_lease(disk, 1, &link, &leased, call, error);
    if (rc != 0)
        return rc;
    rc = ask_until_known(disk, &link, &map, call, error);
    xv_error_clear(&map.error);
    xv_nbd_disk_return(disk, &link, leased);
    return rc;
}
