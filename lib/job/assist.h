/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Moves units of disks for tasks that other processes own. Thread-safe: several units at once.
 */
#ifndef XV_JOB_ASSIST_H
#define XV_JOB_ASSIST_H

#include "job/share.h"

struct xv_assistant;

/* One for each repository that the process works with. pool: whose snapshots are read. */
int xv_assistant_new(struct xv_engine *engine, struct xv_pool *pool, struct xv_repo *repo,
                     struct xv_assistant **ret, xvsa_error **error) XV_MUST_CHECK;
void xv_assistant_free(struct xv_assistant *assistant);

struct xv_assist_unit {
    const char *key; /* of the owner's session: "<pool>/<vm>" */
    const char *work_id;
    const char *member;        /* who helps: part of the part session's key */
    const char *proxy_vm_uuid; /* VM that this process runs in: decides the host it reads from */
    const char *spec;          /* of the job: transports and policy */
    struct xv_board_disk disk;
    uint32_t unit;
    struct xv_rate *rate; /* how fast; NULL: no limit */
    uint32_t connections; /* NBD connections that it may open; 0: what a disk uses */
    /* Told once when everything has been read and its connections are closed: what is left is to make it durable.
     * May be NULL. */
    void (*moved)(void *user);
    void *user;
};

/* Moves what of the unit nobody did yet; its progress is in the journal when it returns 0. *ret_bytes: read by this
 * call. *ret_reasons: JSON array of reasons (docs/documents.md) that the owner's report is to tell, NULL for none; the
 * caller frees it. Fails with NOT_FOUND when the work has no map of the disk, CORRUPT when that is lost, and FENCED
 * when the part session was ended: the work is over. Ends part sessions of works that were not helped for a while. */
int xv_assist(struct xv_assistant *assistant, const struct xv_assist_unit *unit,
              const struct xv_call *call, uint64_t *ret_bytes, char **ret_reasons,
              xvsa_error **error) XV_MUST_CHECK;
/* Ends the part session of a work that is over. */
void xv_assistant_forget(struct xv_assistant *assistant, const char *work_id);

#endif
