/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Inside of the module: the store in one SQLite file.
 */
#ifndef XV_COORD_KV_SQLITE_H
#define XV_COORD_KV_SQLITE_H

#include <pthread.h>

#include "coord/kv_backend.h"
#include "coord/owner.h"
#include "coord/sqlite.h"

#define XV_BOOT_MAX 63

struct xv_kv_sqlite {
    struct xv_kv kv;
    pthread_mutex_t lock; /* everything below; never held while waiting for a change */
    struct xv_sqlite sqlite;
    bool durable;               /* commits are known to wait for the disk */
    struct xv_owner owner;      /* of the leases granted through this handle */
    char boot[XV_BOOT_MAX + 1]; /* of the machine; deadlines of another one are past */
};

/* Takes the lock for a call. */
struct xv_kv_sqlite *xv_kv_sqlite_enter(struct xv_kv *kv, const struct xv_call *call);
void xv_kv_sqlite_leave(struct xv_kv_sqlite *self);

/* Brings the file to the present layout, in one transaction: kv_sqlite_layout.c */
int xv_kv_sqlite_layout(struct xv_kv_sqlite *self, xvsa_error **error) XV_MUST_CHECK;

/* The revision of the store. */
int xv_kv_sqlite_revision(struct xv_kv_sqlite *self, int64_t *ret,
                          xvsa_error **error) XV_MUST_CHECK;
/* Inside a transaction: makes revision the present one if it differs, and forgets old changes. */
int xv_kv_sqlite_advance(struct xv_kv_sqlite *self, int64_t revision,
                         xvsa_error **error) XV_MUST_CHECK;

/* Outside of transactions: whether a commit from here on survives a power failure. */
int xv_kv_sqlite_sync(struct xv_kv_sqlite *self, bool durable, xvsa_error **error) XV_MUST_CHECK;
/* Begins a write transaction, in which no lease is over; ends it, also by undoing it when rc is not
 * 0, and returns rc or the failure of the end. It does not begin when its changes cannot be made to
 * survive a power failure. */
int xv_kv_sqlite_begin(struct xv_kv_sqlite *self, xvsa_error **error) XV_MUST_CHECK;
int xv_kv_sqlite_end(struct xv_kv_sqlite *self, int rc, xvsa_error **error);
/* Begins one for leases alone: one that a power failure undoes was over with it, so the disk is not
 * waited for. */
int xv_kv_sqlite_begin_quick(struct xv_kv_sqlite *self, xvsa_error **error) XV_MUST_CHECK;

/* Ends leases that are over, with a transaction of its own when there are any. */
int xv_kv_sqlite_expire(struct xv_kv_sqlite *self, xvsa_error **error) XV_MUST_CHECK;
/* The same inside a transaction. */
int xv_kv_sqlite_expire_here(struct xv_kv_sqlite *self, xvsa_error **error) XV_MUST_CHECK;

int xv_kv_sqlite_grant(struct xv_kv *kv, int64_t ttl_ms, const struct xv_call *call, int64_t *ret,
                       xvsa_error **error) XV_MUST_CHECK;
int xv_kv_sqlite_renew(struct xv_kv *kv, int64_t lease, const struct xv_call *call,
                       int64_t *ret_ttl_ms, xvsa_error **error) XV_MUST_CHECK;
int xv_kv_sqlite_revoke(struct xv_kv *kv, int64_t lease, const struct xv_call *call,
                        xvsa_error **error) XV_MUST_CHECK;
/* Ends the leases of this handle, as far as that is possible. */
void xv_kv_sqlite_revoke_own(struct xv_kv_sqlite *self);

int xv_kv_sqlite_txn(struct xv_kv *kv, const struct xv_kv_compare *compares, size_t compare_count,
                     const struct xv_kv_op *ops, size_t op_count, const struct xv_call *call,
                     bool *ret_succeeded, int64_t *ret_revision, xvsa_error **error) XV_MUST_CHECK;

int xv_kv_sqlite_watch_open(struct xv_kv *kv, const char *prefix, struct xv_kv_watch **ret,
                            xvsa_error **error) XV_MUST_CHECK;
int xv_kv_sqlite_watch_wait(struct xv_kv_watch *watch, int64_t timeout_ms,
                            const struct xv_call *call, bool *ret_changed,
                            xvsa_error **error) XV_MUST_CHECK;
void xv_kv_sqlite_watch_close(struct xv_kv_watch *watch);

#endif
