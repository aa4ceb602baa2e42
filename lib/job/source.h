/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A snapshot's disk as a source: opened and read through what the job's policy allows, falling back from one
 * transport to the next, each time with a reason.
 */
#ifndef XV_JOB_SOURCE_H
#define XV_JOB_SOURCE_H

#include "job/plan.h"
#include "job/transfer.h"
#include "xenapi/operations.h"

/* Belongs to one thread. */
struct xv_source {
    /* Set by the maker; borrowed. */
    const struct xv_env *env;
    struct xv_client *client;
    const struct xv_inventory *inventory;
    const struct xv_spec *spec;
    const struct xv_host *host; /* that is asked first; NULL: any */
    const char *vdi_ref, *vdi_uuid;
    uint64_t size;
    bool nbd;
    struct xv_proxy
        *proxy; /* to whose VM the disk is attached, which is this one; NULL: it is not hot-added */
    const char *tag;     /* of what is made in the pool for that */
    xvsa_cancel *cancel; /* once it is fired, failures are somebody's wish */
    /* Tells a reason; fails when the policy refuses it. */
    int (*tell)(void *user, enum xv_reason_code code, const char *detail, xvsa_error **error);
    /* Told when something made for hot-add could not be removed. */
    void (*left)(void *user, const char *why);
    void *user;
    struct xv_rate *rate; /* of reading; NULL: no limit */
    uint32_t connections; /* of NBD */

    bool device;          /* one of the proxy's is taken */
    struct xv_disk *disk; /* NULL until opened */
    int64_t reopened_ms;  /* xv_clock_ms; 0: never */
};

/* Does nothing when it is open. */
int xv_source_open(struct xv_source *source, const struct xv_call *call,
                   xvsa_error **error) XV_MUST_CHECK;
void xv_source_close(struct xv_source *source);
/* True when any part can be read at any time, so that it is opened once for all. */
bool xv_source_is_seekable(const struct xv_source *source);
/* "hotadd", "nbd", "http"; NULL while closed. */
const char *xv_source_transport(const struct xv_source *source);

/* Puts ranges of the disk into the writer, opening it first where that is needed; a transport that fails on the
 * way is opened anew or replaced, and what went through is not read again. */
int xv_source_move(struct xv_source *source, struct xv_intake *intake,
                   const struct xv_extents *ranges, struct xv_disk_writer *writer,
                   const struct xv_call *call, xvsa_error **error) XV_MUST_CHECK;

#endif
