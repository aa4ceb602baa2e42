/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Objects "w/<id>": the map of a disk of a work, or chunks that are done. Pure encoding; docs/format.md.
 */
#ifndef XV_REPO_PROGRESS_H
#define XV_REPO_PROGRESS_H

#include <stddef.h>

#include "base/error.h"
#include "repo/format.h"

#define XV_PROGRESS_MAP  1
#define XV_PROGRESS_DONE 2

/* Kinds of runs in a map are these bits. In what is done they are XV_KIND_*, or XV_PROGRESS_GAP. */
#define XV_PROGRESS_READ 1
#define XV_PROGRESS_KEEP 2
#define XV_PROGRESS_GAP  3

/* Chunks whose runs one object holds at most, so that objects stay within XV_PROGRESS_MAX. */
#define XV_PROGRESS_CHUNKS (1u << 18)
/* Bytes of runs that one map object holds at most. */
#define XV_PROGRESS_RUN_BYTES (16u << 20)

/* What is in front of the runs. Texts are not ended by a zero byte when decoded. */
struct xv_progress {
    uint8_t content;
    uint8_t session[XV_HANDLE_BYTES]; /* who wrote it */
    uint8_t base[XV_HANDLE_BYTES];    /* point; zeros: none */
    int64_t base_index;               /* disk of the base; -1: none */
    uint64_t size;                    /* of the disk, bytes */
    uint64_t first;                   /* chunks that the runs cover: [first, end) */
    uint64_t end;
    const char *key, *device, *facts;
    uint32_t key_length, device_length, facts_length;
    uint32_t pack_count;
    uint32_t ref_count;
    uint32_t run_bytes;
    const uint8_t *packs; /* handles */
    const uint8_t *refs;
    const uint8_t *runs;
};

/* A growing body. */
struct xv_progress_writer {
    uint8_t *packs, *refs, *runs;
    uint32_t pack_count, pack_capacity;
    uint32_t ref_count, ref_capacity;
    uint32_t run_bytes, run_capacity;
    uint8_t kind;    /* of the run that is open */
    uint64_t length; /* of the run that is open, chunks; 0: none */
};

void xv_progress_writer_free(struct xv_progress_writer *writer);
/* Appends chunks of one kind. */
int xv_progress_add_run(struct xv_progress_writer *writer, uint8_t kind, uint64_t count,
                        xvsa_error **error) XV_MUST_CHECK;
/* Appends the place of the next chunk of kind DATA. */
int xv_progress_add_ref(struct xv_progress_writer *writer, const struct xv_ref *ref,
                        xvsa_error **error) XV_MUST_CHECK;
/* Makes the body of an object of head and what was appended; counts and tables of head are ignored. */
int xv_progress_encode(const struct xv_progress *head, struct xv_progress_writer *writer,
                       uint8_t **ret, size_t *ret_length, xvsa_error **error) XV_MUST_CHECK;

/* Checks a whole body, its runs and references included; *ret points into it. */
int xv_progress_decode(const char *object, const uint8_t *body, size_t length, uint32_t chunk_size,
                       struct xv_progress *ret, xvsa_error **error) XV_MUST_CHECK;

/* Goes through the runs of a decoded body. */
struct xv_progress_run {
    const struct xv_progress *progress;
    uint32_t at;   /* bytes of runs dealt with */
    uint32_t ref;  /* references of runs dealt with */
    uint64_t next; /* chunk */
    uint64_t first;
    uint64_t count;
    uint8_t kind;
};

void xv_progress_begin(struct xv_progress_run *run, const struct xv_progress *progress);
/* False at the end. */
bool xv_progress_next(struct xv_progress_run *run);
/* Which of the packs listed has chunk number index of a run of kind DATA. */
uint32_t xv_progress_pack(const struct xv_progress_run *run, uint64_t index);
/* The place of chunk number index of a run of kind DATA. */
void xv_progress_ref(const struct xv_progress_run *run, uint64_t index, struct xv_ref *ret);

#endif
