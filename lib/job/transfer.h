/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The pipeline of a backup job: readers of many disks fill blocks, one set of workers hashes, compares,
 * compresses and seals them into the sessions of their VMs. Memory is bounded by the number of blocks.
 */
#ifndef XV_JOB_TRANSFER_H
#define XV_JOB_TRANSFER_H

#include <stdatomic.h>

#include "job/rate.h"
#include "repo/repo.h"

struct xv_pipeline;

/* Where the time of the workers went, in nanoseconds. */
struct xv_shares {
    uint64_t source; /* waiting for data */
    uint64_t cpu;
    uint64_t target;  /* waiting for the storage target */
    uint64_t waiting; /* paused, or waiting for others and for its turn */
};

/* block_size: bytes, a multiple of the repository's chunk size. done (may be NULL) grows by what went
 * through. */
int xv_pipeline_new(uint32_t threads, uint64_t memory, uint32_t block_size,
                    atomic_uint_fast64_t *done, struct xv_pipeline **ret,
                    xvsa_error **error) XV_MUST_CHECK;
/* Every intake must have been freed. */
void xv_pipeline_free(struct xv_pipeline *pipeline);
/* A paused pipeline takes nothing more in; what it holds stays where it is. */
void xv_pipeline_pause(struct xv_pipeline *pipeline, bool paused);
void xv_pipeline_shares(const struct xv_pipeline *pipeline, struct xv_shares *ret);

/* One session's way into the pipeline. */
struct xv_intake;

/* cancel is fired when storing fails, to stop the readers; it must outlive the intake. */
int xv_intake_new(struct xv_pipeline *pipeline, struct xv_session *session, xvsa_cancel *cancel,
                  struct xv_intake **ret, xvsa_error **error) XV_MUST_CHECK;
/* Reads the ranges of a disk and puts them into the writer; moved (may be NULL) receives the ranges that went
 * through, also when it fails; rate (may be NULL) says how fast. Returns when all went through or at the
 * first error, after which no worker touches the writer. Called by several threads at once, for
 * different disks. */
int xv_intake_move(struct xv_intake *intake, struct xv_disk *disk, const struct xv_extents *ranges,
                   struct xv_disk_writer *writer, struct xv_extents *moved, struct xv_rate *rate,
                   const struct xv_call *call, xvsa_error **error) XV_MUST_CHECK;
/* Seals what went through so far; moves may be under way. */
int xv_intake_flush(struct xv_intake *intake, const struct xv_call *call,
                    xvsa_error **error) XV_MUST_CHECK;
void xv_intake_free(struct xv_intake *intake);

#endif
