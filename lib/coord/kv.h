/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The coordination store: keys with revisions, transactions, leases, and a watch that wakes. The semantics
 * are etcd's, over etcd (many machines) or one SQLite file (one machine, any number of processes; or
 * one process in memory). What is in it may be lost without losing stored data. Thread-safe.
 */
#ifndef XV_COORD_KV_H
#define XV_COORD_KV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/call.h"
#include "base/env.h"

struct xv_kv;

struct xv_kv_options {
    const struct xv_env *env;
    const char
        *url; /* "sqlite:/path", "sqlite:" (in memory), "etcd:https://a:2379,https://b:2379" */
    const char *prefix; /* put before every key, "/xvsa/1/<site>/"; callers never see it */
    /* etcd; NULL where not needed */
    const char *username;
    const char *password;
    const char *ca_file;
    const char *certificate_file;
    const char *key_file;
};

int xv_kv_open(const struct xv_kv_options *options, const struct xv_call *call, struct xv_kv **ret,
               xvsa_error **error) XV_MUST_CHECK;
void xv_kv_close(struct xv_kv *kv);

struct xv_kv_pair {
    char *key;
    char *value; /* text; NUL-terminated */
    size_t length;
    int64_t create_revision;
    int64_t mod_revision;
    int64_t lease; /* 0: none */
};

/* What a reading saw, all of one revision. Keys in byte order. */
struct xv_kv_list {
    struct xv_kv_pair *pairs;
    size_t count;
    int64_t revision;
};

/* Every key that begins with prefix (without the store's own). Pages inside, at one revision. */
int xv_kv_range(struct xv_kv *kv, const char *prefix, const struct xv_call *call,
                struct xv_kv_list *ret, xvsa_error **error) XV_MUST_CHECK;
/* One key: count is 0 or 1. */
int xv_kv_get(struct xv_kv *kv, const char *key, const struct xv_call *call, struct xv_kv_list *ret,
              xvsa_error **error) XV_MUST_CHECK;
void xv_kv_list_free(struct xv_kv_list *list);

enum xv_kv_field { XV_KV_CREATE_REVISION, XV_KV_MOD_REVISION };

/* True when the field of the key equals revision; 0 means that the key is absent. */
struct xv_kv_compare {
    const char *key;
    enum xv_kv_field field;
    int64_t revision;
};

enum xv_kv_verb { XV_KV_PUT, XV_KV_DELETE, XV_KV_DELETE_PREFIX };

struct xv_kv_op {
    enum xv_kv_verb verb;
    const char *key;
    const char *value; /* of a put */
    int64_t lease;     /* of a put; 0: none */
};

/* At most this many compares and operations each. */
#define XV_KV_TXN_MAX 100

/* All operations when all compares hold, else none: *ret_succeeded. *ret_revision (may be NULL): of the store after
 * it. An outcome that was lost on the way is found out by a nonce, so that UNKNOWN_OUTCOME comes only
 * when the store stays out of reach. NOT_FOUND: a lease that a put names is gone. SPACE: the store is full. */
int xv_kv_txn(struct xv_kv *kv, const struct xv_kv_compare *compares, size_t compare_count,
              const struct xv_kv_op *ops, size_t op_count, const struct xv_call *call,
              bool *ret_succeeded, int64_t *ret_revision, xvsa_error **error) XV_MUST_CHECK;

/* Leases: keys put with one go when it ends. A hint of life, never a proof of ownership. */
int xv_kv_lease_grant(struct xv_kv *kv, int64_t ttl_ms, const struct xv_call *call, int64_t *ret,
                      xvsa_error **error) XV_MUST_CHECK;
/* *ret_ttl_ms: 0 when it is gone. */
int xv_kv_lease_renew(struct xv_kv *kv, int64_t lease, const struct xv_call *call,
                      int64_t *ret_ttl_ms, xvsa_error **error) XV_MUST_CHECK;
int xv_kv_lease_revoke(struct xv_kv *kv, int64_t lease, const struct xv_call *call,
                       xvsa_error **error) XV_MUST_CHECK;

/* Wakes when something under a prefix may have changed: level-triggered users read the prefix again.
 * Silence proves nothing; read again every 30 s all the same. */
struct xv_kv_watch;

int xv_kv_watch_open(struct xv_kv *kv, const char *prefix, struct xv_kv_watch **ret,
                     xvsa_error **error) XV_MUST_CHECK;
/* Waits up to timeout_ms; *ret_changed tells whether something may have changed since the last wait that
 * said so (or the opening). Fails with CANCELLED only. */
int xv_kv_watch_wait(struct xv_kv_watch *watch, int64_t timeout_ms, const struct xv_call *call,
                     bool *ret_changed, xvsa_error **error) XV_MUST_CHECK;
void xv_kv_watch_close(struct xv_kv_watch *watch);

#endif
