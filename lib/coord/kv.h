/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The coordination store: keys with revisions, transactions, leases, and a watch that wakes. The
 * semantics are etcd's, over etcd (many machines) or one SQLite file (one machine, any number of
 * processes; or one process in memory). What is in it may be lost without losing stored data.
 * Thread-safe. Without a deadline a call gives up after 60 seconds.
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
    const struct xv_env *env; /* borrowed; outlives the store; may be NULL */
    /* "sqlite:/path", "sqlite:" (in memory), "etcd:https://a:2379,https://b:2379" */
    const char *url;
    const char *prefix; /* put before every key, "/xvsa/1/<site>/"; callers never see it */
    /* Of etcd; NULL where not needed. Copied; the password is wiped at the end. */
    const char *username;
    const char *password;
    const char *ca_file;          /* PEM; NULL: the system's CAs */
    const char *certificate_file; /* PEM, of the client */
    const char *key_file;
    bool
        allow_plain; /* http:// to other hosts than this one, with everything readable on the way */
};

/* Longest key and value, in bytes; and of all keys and values of one transaction. */
#define XV_KV_KEY_MAX   1024
#define XV_KV_VALUE_MAX (1u << 20)
#define XV_KV_BYTES_MAX (5u << 18)

/* Checks that the store answers. INVALID, FORMAT (a file of a newer version), BUSY (a file that a
 * process of an older version has open), AUTH, TLS, NETWORK, TIMEOUT... */
int xv_kv_open(const struct xv_kv_options *options, const struct xv_call *call, struct xv_kv **ret,
               xvsa_error **error) XV_MUST_CHECK;
/* No call may be under way and no watch open. Leases that were granted through a file's handle
 * end. */
void xv_kv_close(struct xv_kv *kv);

/* True for a file or memory: a lease then ends at once when the process that took it dies, however
 * long its time, and XV_KV_TTL_PROCESS may be used. */
bool xv_kv_is_local(const struct xv_kv *kv);

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
    int64_t total; /* keys that begin with the prefix, those included that were not asked for */
};

/* Every key that begins with prefix (without the store's own). Pages inside, at one revision. */
int xv_kv_range(struct xv_kv *kv, const char *prefix, const struct xv_call *call,
                struct xv_kv_list *ret, xvsa_error **error) XV_MUST_CHECK;
/* Those alone that were put at the revision since or later: what was read at the revision before is brought up to
 * date with them; when it then has other than ret->total keys, some were deleted. */
int xv_kv_range_since(struct xv_kv *kv, const char *prefix, int64_t since,
                      const struct xv_call *call, struct xv_kv_list *ret,
                      xvsa_error **error) XV_MUST_CHECK;
/* One key: count is 0 or 1. */
int xv_kv_get(struct xv_kv *kv, const char *key, const struct xv_call *call, struct xv_kv_list *ret,
              xvsa_error **error) XV_MUST_CHECK;
void xv_kv_list_free(struct xv_kv_list *list);

enum xv_kv_field { XV_KV_CREATE_REVISION, XV_KV_MOD_REVISION, XV_KV_VALUE };

/* True when the field of the key equals revision, where 0 means that the key is absent; and, when
 * value is not NULL, the key is there with this value. */
struct xv_kv_compare {
    const char *key;
    enum xv_kv_field field;
    int64_t revision;  /* not for XV_KV_VALUE */
    const char *value; /* may be NULL; required for XV_KV_VALUE */
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

/* All operations when all compares hold, else none: *ret_succeeded. *ret_revision (may be NULL):
 * of the store after it, which is the mod_revision of what it put. No two operations may touch
 * one key. Keys that begin with "n/" belong to the store. An outcome that was lost on the way is
 * found out by a nonce, so that UNKNOWN_OUTCOME comes only when the store stays out of reach.
 * NOT_FOUND: a lease that a put names is gone. SPACE: the store is full. */
int xv_kv_txn(struct xv_kv *kv, const struct xv_kv_compare *compares, size_t compare_count,
              const struct xv_kv_op *ops, size_t op_count, const struct xv_call *call,
              bool *ret_succeeded, int64_t *ret_revision, xvsa_error **error) XV_MUST_CHECK;

/* A count for those who keep what they read while a watch is silent: who changed keys that others keep, or tried,
 * adds to it, for the watch may tell it later than the answer does. */
void xv_kv_doubt(struct xv_kv *kv);
uint64_t xv_kv_doubts(struct xv_kv *kv);

/* Leases: keys put with one go when it ends. A hint of life, never a proof of ownership. */

/* A time to live that ends with the process or the handle alone; for local stores. */
#define XV_KV_TTL_PROCESS 0

/* At least 1000 ms; etcd rounds up to seconds and has a minimum of its own. */
int xv_kv_lease_grant(struct xv_kv *kv, int64_t ttl_ms, const struct xv_call *call, int64_t *ret,
                      xvsa_error **error) XV_MUST_CHECK;
/* *ret_ttl_ms: 0 when it is gone. Each try waits 2 s at most, so that another endpoint gets its
 * turn. */
int xv_kv_lease_renew(struct xv_kv *kv, int64_t lease, const struct xv_call *call,
                      int64_t *ret_ttl_ms, xvsa_error **error) XV_MUST_CHECK;
int xv_kv_lease_revoke(struct xv_kv *kv, int64_t lease, const struct xv_call *call,
                       xvsa_error **error);

/* Wakes when something under a prefix may have changed: level-triggered users read the prefix
 * again. Silence proves nothing; read again every 30 s all the same. */
struct xv_kv_watch;

/* Whether a change of a key (without the store's own prefix) wakes; NULL: any key may have changed. Called by the
 * thread that waits, once for each change at least. */
typedef bool (*xv_kv_wakes)(void *user, const char *key);

int xv_kv_watch_open(struct xv_kv *kv, const char *prefix, struct xv_kv_watch **ret,
                     xvsa_error **error) XV_MUST_CHECK;
/* Before the first wait; without it every change wakes. wakes and user live until the watch is closed. */
void xv_kv_watch_filter(struct xv_kv_watch *watch, xv_kv_wakes wakes, void *user);
/* Whether the watch stood when the last wait ended: changes since it was opened were told, but for those still on
 * their way. One that falls and is opened again tells that any key may have changed. */
bool xv_kv_watch_is_live(const struct xv_kv_watch *watch);
/* Waits up to timeout_ms; *ret_changed tells whether something may have changed since the last
 * wait that said so (or the opening). One thread at a time. Fails with CANCELLED, with AUTH or
 * DENIED when the store refuses, with MEMORY; a store out of reach is silence. */
int xv_kv_watch_wait(struct xv_kv_watch *watch, int64_t timeout_ms, const struct xv_call *call,
                     bool *ret_changed, xvsa_error **error) XV_MUST_CHECK;
void xv_kv_watch_close(struct xv_kv_watch *watch);

#endif
