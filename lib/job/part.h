/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Inside of an assistant: its part sessions, one for each work that it helps with, and its picture of the pool.
 */
#ifndef XV_JOB_PART_H
#define XV_JOB_PART_H

#include "job/assist.h"
#include "job/transfer.h"
#include "repo/work.h"

struct xv_part;

/* A disk of a work, as this process helps with it. Immutable once made. */
struct xv_part_disk {
    struct xv_part_disk *next;
    struct xv_work_map map;
    struct xv_disk_writer *writer;
};

struct xv_pool *xv_assistant_pool(const struct xv_assistant *assistant);
struct xv_repo *xv_assistant_repo(const struct xv_assistant *assistant);

/* The part of the unit's work, begun when there is none; it stays until it is given back. BUSY when there is no memory
 * for one more. */
int xv_part_take(struct xv_assistant *assistant, const struct xv_assist_unit *unit,
                 const struct xv_call *call, struct xv_part **ret,
                 xvsa_error **error) XV_MUST_CHECK;
/* part may be NULL. over: the session was ended by somebody else. */
void xv_part_give_back(struct xv_part *part, bool over);
/* The disk's map and writer; NOT_FOUND when the work has no such map. */
int xv_part_open_disk(struct xv_part *part, const struct xv_board_disk *disk,
                      const struct xv_call *call, struct xv_part_disk **ret,
                      xvsa_error **error) XV_MUST_CHECK;
struct xv_intake *xv_part_intake(const struct xv_part *part);
/* Fired when storing failed; the part is of no use any more then. */
xvsa_cancel *xv_part_cancel(const struct xv_part *part);
int xv_part_checkpoint(struct xv_part *part, const struct xv_call *call,
                       xvsa_error **error) XV_MUST_CHECK;

#endif
