/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Inside of the module: what a backend of the store provides. kv.c checks arguments and puts the
 * store's prefix before keys, so that backends see whole keys and take none off.
 */
#ifndef XV_COORD_KV_BACKEND_H
#define XV_COORD_KV_BACKEND_H

#include <stdatomic.h>

#include "coord/kv.h"

#define XV_KV_COMPONENT "coord"

/* Where none is given. */
#define XV_KV_LOCAL_PREFIX "/xvsa/1/local/"

struct xv_kv_ops {
    bool local;
    /* prefix: every key that begins with key; else the one key. since 0: whenever it was put. */
    int (*range)(struct xv_kv *kv, const char *key, bool prefix, int64_t since,
                 const struct xv_call *call, struct xv_kv_list *ret, xvsa_error **error);
    int (*txn)(struct xv_kv *kv, const struct xv_kv_compare *compares, size_t compare_count,
               const struct xv_kv_op *ops, size_t op_count, const struct xv_call *call,
               bool *ret_succeeded, int64_t *ret_revision, xvsa_error **error);
    int (*lease_grant)(struct xv_kv *kv, int64_t ttl_ms, const struct xv_call *call, int64_t *ret,
                       xvsa_error **error);
    int (*lease_renew)(struct xv_kv *kv, int64_t lease, const struct xv_call *call,
                       int64_t *ret_ttl_ms, xvsa_error **error);
    int (*lease_revoke)(struct xv_kv *kv, int64_t lease, const struct xv_call *call,
                        xvsa_error **error);
    int (*watch_open)(struct xv_kv *kv, const char *prefix, struct xv_kv_watch **ret,
                      xvsa_error **error);
    int (*watch_wait)(struct xv_kv_watch *watch, int64_t timeout_ms, const struct xv_call *call,
                      bool *ret_changed, xvsa_error **error);
    void (*watch_close)(struct xv_kv_watch *watch);
    void (*close)(struct xv_kv *kv);
};

/* First member of a backend's own structure; ops is set by the backend, the rest by kv.c. */
struct xv_kv {
    const struct xv_kv_ops *ops;
    const struct xv_env *env;
    char *prefix;
    atomic_uint_fast64_t doubts;
};

/* First member of a backend's watch, all zero but kv when it is opened. The backend keeps live. */
struct xv_kv_watch {
    struct xv_kv *kv;
    xv_kv_wakes wakes; /* NULL: everything does */
    void *user;
    bool live;
};

/* Whether a change of a whole key wakes whoever waits; NULL: any key. The backend asks for every change. */
bool xv_kv_watch_wakes(const struct xv_kv_watch *watch, const char *key);

/* Keys of the etcd backend's own, below the prefix; hidden from ranges. */
#define XV_KV_OWN "n/"

/* rest is what follows "sqlite:" or "etcd:". options->prefix is not NULL. */
int xv_kv_sqlite_open(const struct xv_kv_options *options, const char *rest,
                      const struct xv_call *call, struct xv_kv **ret,
                      xvsa_error **error) XV_MUST_CHECK;
int xv_kv_etcd_open(const struct xv_kv_options *options, const char *rest,
                    const struct xv_call *call, struct xv_kv **ret,
                    xvsa_error **error) XV_MUST_CHECK;

/* Adds a pair to a list, copying; key and value need not end with a zero byte. */
int xv_kv_list_add(struct xv_kv_list *list, const char *key, size_t key_length, const char *value,
                   size_t length, const struct xv_kv_pair *facts, xvsa_error **error) XV_MUST_CHECK;

/* The first key behind all that begin with prefix, as etcd's range_end: its last byte plus one. The
 * caller frees; NULL without memory. Prefixes are never empty. */
char *xv_kv_range_end(const char *prefix);

#endif
