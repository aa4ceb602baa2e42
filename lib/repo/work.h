/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Work on one restore point that outlives its process and that several processes share: what was done is in
 * the repository, named by its journal, and whoever goes on adopts it. Rules in docs/format.md.
 */
#ifndef XV_REPO_WORK_H
#define XV_REPO_WORK_H

#include "diff/extents.h"
#include "repo/repo.h"

/* In struct xv_session_options: work_id (32 hex digits, NULL: none) makes checkpoints of the session write
 * progress. Kind XV_SESSION_PART: a session that only moves chunks for a work whose backup session is another
 * process's; it makes no tree, cannot keep or finish disks and never commits. It begins only while the work is
 * open (FENCED otherwise), with the base of the map, and its checkpoints fail with FENCED once the work is over.
 *
 * A checkpoint tells of the chunks that were placed when it began. A chunk that is put may wait in its packer
 * for others to fill a frame: a range is done once xv_packer_flush of every packer that it went through and,
 * after them, xv_session_checkpoint returned. */

/* What is to be done on one disk, the same for everybody. read and keep may overlap. */
struct xv_work_disk {
    const char *key; /* the VDI's uuid */
    const char *device;
    uint64_t size;
    int base_index;                /* disk of the session's base; -1: none */
    const struct xv_extents *read; /* to be read: whole chunks */
    const struct xv_extents *keep; /* to be taken over from the base: whole chunks */
    const char *facts; /* JSON text of the caller: snapshot's uuid, mode, ...; NULL: {} */
};

/* Puts the map of a disk where everybody finds it; durable when it returns. Replaces an earlier one of
 * the disk. Backup sessions with a work only. */
int xv_work_put_map(struct xv_session *session, const struct xv_work_disk *disk,
                    const struct xv_call *call, xvsa_error **error) XV_MUST_CHECK;

/* The map as read. */
struct xv_work_map {
    char *key, *device, *facts;
    uint64_t size;
    char
        base[XV_POINT_ID_LENGTH + 1]; /* the point that a part's session has as base; empty: none */
    int base_index;                   /* -1: none */
    struct xv_extents read, keep;
};
void xv_work_map_free(struct xv_work_map *map);
/* The latest map of a disk of a work. NOT_FOUND when there is none or the work is over; CORRUPT when there is one
 * whose objects are missing or damaged. Looks for new entries of the journal. */
int xv_work_get_map(struct xv_repo *repo, const char *work_id, const char *key,
                    const struct xv_call *call, struct xv_work_map *ret,
                    xvsa_error **error) XV_MUST_CHECK;

/* Adds to *ret (initialised) which ranges of a disk are done, by anybody, as far as the journal tells now.
 * Nothing when the work is over. */
int xv_work_done(struct xv_repo *repo, const char *work_id, const char *key,
                 const struct xv_call *call, struct xv_extents *ret,
                 xvsa_error **error) XV_MUST_CHECK;

/* Takes over into the writer's tree what anybody did on its disk and this writer does not have yet, attempts
 * before included; *ret (initialised and empty) receives what the writer has then, by putting or adopting. Chunks in packs
 * that the session may not refer to are left out (they count as not done here, although xv_work_done tells of
 * them). Backup sessions with a work only; keep ranges first, since what is kept later replaces what was
 * adopted. Objects are read once: cheap when called again and again until ret covers what is to be read. */
int xv_work_adopt(struct xv_disk_writer *writer, const struct xv_call *call, struct xv_extents *ret,
                  xvsa_error **error) XV_MUST_CHECK;

/* Ends a session and leaves its work to be gone on with; a checkpoint is made first. After a failure
 * other than FENCED it may be tried again. */
int xv_session_park(struct xv_session *session, const struct xv_call *call,
                    xvsa_error **error) XV_MUST_CHECK;

#endif
