/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A rate that the transfers of a job in this process share: a token bucket. Thread-safe.
 */
#ifndef XV_JOB_RATE_H
#define XV_JOB_RATE_H

#include "disk/disk.h"

struct xv_rate;

/* No limit until one is set; one reference. */
int xv_rate_new(struct xv_rate **ret, xvsa_error **error) XV_MUST_CHECK;
struct xv_rate *xv_rate_ref(struct xv_rate *rate);
/* rate may be NULL. */
void xv_rate_unref(struct xv_rate *rate);

/* Bytes per second from now on; 0: nothing, XV_RATE_UNLIMITED: no limit. */
void xv_rate_set(struct xv_rate *rate, uint64_t bytes_per_second);
/* Waits until so many bytes may move. rate NULL: no limit. */
int xv_rate_take(struct xv_rate *rate, uint64_t bytes, const struct xv_call *call,
                 xvsa_error **error) XV_MUST_CHECK;
/* Bytes per second that were taken since the last call, or XV_RATE_UNLIMITED when somebody waited: more would
 * have been. */
uint64_t xv_rate_demand(struct xv_rate *rate);

/* xv_disk_stream no faster than the rate (NULL: no limit): piece by piece, so that no block is held
 * while waiting. Only for disks that can be read anywhere. */
int xv_rate_stream(struct xv_rate *rate, struct xv_disk *disk, const struct xv_extents *ranges,
                   struct xv_block_queue *queue, void *owner, const struct xv_call *call,
                   xvsa_error **error) XV_MUST_CHECK;

#endif
