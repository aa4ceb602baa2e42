/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Inside of a backup: one disk while it moves.
 */
#ifndef XV_JOB_PASSAGE_H
#define XV_JOB_PASSAGE_H

#include "job/backup.h"
#include "job/source.h"

struct xv_passage {
    struct xv_backup *backup;
    struct xv_disk_run *disk;
    struct xv_call call;
    uint32_t connections; /* of NBD, that it may open */
    uint32_t chunk;
    uint64_t size;
    int base_index; /* disk of the session's base; -1: none */
    struct xv_source source;
    struct xv_extents read; /* to be read */
    struct xv_extents keep; /* to be taken over from the base */
};

/* ranges.c: splits the disk into what is read and what is kept, and reads a sample of the latter to see whether
 * tracking told the truth. The writer has been begun. */
int xv_ranges_choose(struct xv_passage *passage, xvsa_error **error) XV_MUST_CHECK;
void xv_passage_set_mode(struct xv_passage *passage, enum xv_mode mode);
/* Notes in the report how the disk is read. */
void xv_passage_note_transport(struct xv_passage *passage);

/* board.c: moves the disk together with others. The map is known, what is kept is in the writer. */
int xv_passage_share(struct xv_passage *passage, xvsa_error **error) XV_MUST_CHECK;

#endif
