/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the journal says of a work, and the objects that it names. They are hints of what need not be moved
 * again: one that is missing or damaged costs time, nothing else.
 */
#ifndef XV_REPO_WORK_FACTS_H
#define XV_REPO_WORK_FACTS_H

#include "repo/internal.h"
#include "repo/progress.h"

/* Reads the name of a work, XV_HANDLE_BYTES. */
int xv_work_parse(const char *work_id, uint8_t *ret, xvsa_error **error) XV_MUST_CHECK;

/* Facts of one disk, copied out of the state. */
struct xv_facts {
    struct xv_work_fact *list; /* disk is the key that was asked for; freed by the caller */
    size_t count;
    size_t seen; /* facts of the work so far, of all disks */
};

/* Those of one content, from fact number from on. With the journal's baton. */
int xv_facts_copy(const struct xv_work *work, const char *key, enum xv_work_content content,
                  size_t from, struct xv_facts *ret, xvsa_error **error) XV_MUST_CHECK;

/* An object of a work as read. */
struct xv_told {
    struct xv_progress progress;
    uint8_t *body; /* what progress points into, freed by the caller; NULL: it cannot be read */
};

/* Reads an object. One that is missing or damaged is logged, and ret->body is NULL. */
int xv_told_read(struct xv_repo *repo, const struct xv_work_fact *fact, struct xv_told *ret,
                 const struct xv_call *call, xvsa_error **error) XV_MUST_CHECK;

/* Adds the bytes of a run; the last chunk of a disk may be short. */
int xv_told_add(struct xv_extents *set, const struct xv_progress *progress, uint32_t chunk_size,
                const struct xv_progress_run *run, xvsa_error **error) XV_MUST_CHECK;

/* What xv_work_done has read of a disk before. */
struct xv_done;
void xv_done_free(struct xv_done *done);

#endif
