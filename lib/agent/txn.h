/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A transaction of the coordination store that is put together piece by piece; keys and values are
 * copied. Running out of memory or room shows when it is run.
 */
#ifndef XV_AGENT_TXN_H
#define XV_AGENT_TXN_H

#include <jansson.h>

#include "coord/kv.h"

/* A key is a few words, uuids and digits. */
#define XV_KEY_MAX 256

struct xv_txn {
    struct xv_kv_compare compares[XV_KV_TXN_MAX];
    struct xv_kv_op ops[XV_KV_TXN_MAX];
    size_t compare_count, op_count;
    int fault; /* XVSA_ERR_* */
};

void xv_txn_init(struct xv_txn *txn);
void xv_txn_free(struct xv_txn *txn);

/* Holds when the key's revision is the one given; 0: when it is absent. */
void xv_txn_expect(struct xv_txn *txn, enum xv_kv_field field, int64_t revision, const char *format,
                   ...) XV_PRINTF(4, 5);
void xv_txn_expect_as(struct xv_txn *txn, const struct xv_kv_compare *compare);
/* value: borrowed. lease 0: none. */
void xv_txn_put(struct xv_txn *txn, int64_t lease, const json_t *value, const char *format, ...)
    XV_PRINTF(4, 5);
/* Of a key that must go with its member: running it fails with BUSY when lease is 0, for the member has none now. */
void xv_txn_put_leased(struct xv_txn *txn, int64_t lease, const json_t *value, const char *format,
                       ...) XV_PRINTF(4, 5);
void xv_txn_delete(struct xv_txn *txn, const char *format, ...) XV_PRINTF(2, 3);
void xv_txn_delete_prefix(struct xv_txn *txn, const char *format, ...) XV_PRINTF(2, 3);

/* Whether members read the key when they look at the site. */
bool xv_key_is_looked_at(const char *key);

/* Runs and frees it. *ret_revision may be NULL. Keys that members look at are read anew at the next look, whatever
 * became of it: what was made ready for it may have changed what they have read. */
int xv_txn_run(struct xv_txn *txn, struct xv_kv *kv, const struct xv_call *call,
               bool *ret_succeeded, int64_t *ret_revision, xvsa_error **error) XV_MUST_CHECK;

/* What an entry's value says; NULL for one that is no JSON object. */
json_t *xv_pair_json(const struct xv_kv_pair *pair);
/* Entry of a list by its key; NULL when there is none. */
const struct xv_kv_pair *xv_list_find(const struct xv_kv_list *list, const char *format, ...)
    XV_PRINTF(2, 3);
/* Reads a range whose prefix is put together. */
int xv_kv_read(struct xv_kv *kv, const struct xv_call *call, struct xv_kv_list *ret,
               xvsa_error **error, const char *format, ...) XV_PRINTF(5, 6) XV_MUST_CHECK;

#endif
