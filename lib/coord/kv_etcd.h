/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Inside of the module: the store in etcd, through its JSON gateway (POST /v3/..., HTTP/1.1).
 */
#ifndef XV_COORD_KV_ETCD_H
#define XV_COORD_KV_ETCD_H

#include <jansson.h>
#include <pthread.h>

#include "base/buffer.h"
#include "coord/kv_backend.h"
#include "net/http.h"

#define XV_ETCD_MESSAGE_MAX  200
#define XV_ETCD_TOKEN_MAX    4096
#define XV_ETCD_NONCE_MAX    16
#define XV_ETCD_ENDPOINT_MAX 32
/* Codes of gRPC in answers. */
#define XV_ETCD_NOT_FOUND    5
#define XV_ETCD_PRECONDITION 9
#define XV_ETCD_OUT_OF_RANGE 11

/* A chain of transactions, one after the other: each compares the revision at which the one before
 * put the chain's own key, so that none can be applied twice, nor after the next one. */
struct xv_etcd_slot {
    struct xv_etcd_slot *next;
    char *key;
    int64_t revision; /* mod_revision of the key; 0: not there */
    bool unsettled;   /* a transaction of it may still be on its way */
};

struct xv_kv_etcd {
    struct xv_kv kv;
    struct xv_trust *trust;
    struct xv_http *http;
    struct xv_url endpoints[XV_ETCD_ENDPOINT_MAX];
    size_t endpoint_count;
    char *username; /* NULL: none */
    char *password;
    char *certificate_file;
    char *key_file;
    char *own_prefix; /* whole key prefix of this handle's slots */

    pthread_mutex_t lock; /* everything below; never held over I/O */
    size_t current;       /* endpoint that answered last */
    char *token;          /* NULL: none yet */
    uint32_t token_serial;
    bool auth_off; /* the server said that it asks for none */
    struct xv_etcd_slot *idle;
    uint32_t slot_count;
};

/* What an answer of failure says. */
struct xv_etcd_failure {
    int status; /* of HTTP */
    int code;   /* of gRPC; -1: the body is not etcd's */
    char message[XV_ETCD_MESSAGE_MAX];
};

struct xv_etcd_request {
    const char *what;   /* for messages: "read keys" */
    const char *target; /* "/v3/kv/range" */
    json_t *body;       /* borrowed */
    int64_t try_ms;     /* one endpoint's time */
    uint64_t ceiling;   /* bytes of the answer */
};

struct xv_etcd_reply {
    json_t *body; /* on success; the caller drops the reference */
    struct xv_etcd_failure failure;
    bool uncertain; /* an earlier try, or on failure any, may have been executed */
    bool refused;   /* on failure: the server itself said no */
};

/* kv_etcd_call.c: sends a request until somebody answers definitely, turning from endpoint to
 * endpoint, authenticating as needed, until the call's end. Requests must be such that a repetition
 * does no harm. LIMIT: the answer is above the ceiling. reply is valid on failure, too. */
int xv_etcd_call(struct xv_kv_etcd *self, const struct xv_etcd_request *request,
                 const struct xv_call *call, struct xv_etcd_reply *reply,
                 xvsa_error **error) XV_MUST_CHECK;
/* The token of the moment, authenticating first when there has to be one; "" for none. */
int xv_etcd_token(struct xv_kv_etcd *self, const struct xv_url *endpoint,
                  const struct xv_call *call, char **ret, uint32_t *ret_serial,
                  xvsa_error **error) XV_MUST_CHECK;
/* Drops the token with that serial; false when there is no user to authenticate again. */
bool xv_etcd_forget_token(struct xv_kv_etcd *self, uint32_t serial);
size_t xv_etcd_current(struct xv_kv_etcd *self);
void xv_etcd_set_current(struct xv_kv_etcd *self, size_t index);
/* Sends one request to one endpoint; hasleader also asks to end when the endpoint has no leader. The
 * texts may go after it. */
int xv_etcd_begin(struct xv_kv_etcd *self, const struct xv_url *endpoint, const char *target,
                  const char *body, const char *token, bool hasleader, uint64_t ceiling,
                  const struct xv_call *call, struct xv_exchange **ret, bool *ret_sent,
                  xvsa_error **error) XV_MUST_CHECK;
/* Reads the body to its end. */
int xv_etcd_read_all(struct xv_exchange *exchange, struct xv_buffer *body,
                     xvsa_error **error) XV_MUST_CHECK;

/* kv_etcd_json.c */
/* Standard base64 with padding; NULL without memory. */
json_t *xv_etcd_encode(const void *data, size_t length);
json_t *xv_etcd_number(int64_t number);
int xv_etcd_parse(const char *text, size_t length, json_t **ret, xvsa_error **error) XV_MUST_CHECK;
/* A 64-bit number, written as number or text; 0 when absent. PROTOCOL on anything else. */
int xv_etcd_get_number(const json_t *object, const char *name, int64_t *ret,
                       xvsa_error **error) XV_MUST_CHECK;
int xv_etcd_get_revision(const json_t *answer, int64_t *ret, xvsa_error **error) XV_MUST_CHECK;
/* Adds the pairs of "kvs" to the list; *bytes counts those of keys and values and is bounded. */
int xv_etcd_read_pairs(const json_t *answer, struct xv_kv_list *list, size_t *bytes,
                       xvsa_error **error) XV_MUST_CHECK;
/* Understands the body of an answer of failure; never fails. */
void xv_etcd_read_failure(const char *text, size_t length, int status, struct xv_etcd_failure *ret);

/* What a transaction's answer says; value is "" when the slot's key is not there. */
struct xv_etcd_txn_answer {
    bool succeeded;
    int64_t revision;
    int64_t slot_revision; /* of a failed one */
    char nonce[XV_ETCD_NONCE_MAX + 1];
};
int xv_etcd_read_txn(const json_t *answer, struct xv_etcd_txn_answer *ret,
                     xvsa_error **error) XV_MUST_CHECK;
/* The transaction with the slot's compare and put; nonce marks it. NULL without memory. */
json_t *xv_etcd_make_txn(const struct xv_etcd_slot *slot, const char *nonce,
                         const struct xv_kv_compare *compares, size_t compare_count,
                         const struct xv_kv_op *ops, size_t op_count);

enum xv_etcd_event {
    XV_ETCD_NOTHING,
    XV_ETCD_CHANGED,
    XV_ETCD_ENDED,  /* open it again */
    XV_ETCD_DENIED, /* or the token has expired */
};
/* Understands one line of a watch. *ret_keys: of CHANGED, the keys that changed, an array of text that the caller
 * gives up; NULL: the watch has just begun, or what changed is not understood. */
enum xv_etcd_event xv_etcd_read_event(const char *line, size_t length, json_t **ret_keys,
                                      struct xv_etcd_failure *ret);

int xv_kv_etcd_txn(struct xv_kv *kv, const struct xv_kv_compare *compares, size_t compare_count,
                   const struct xv_kv_op *ops, size_t op_count, const struct xv_call *call,
                   bool *ret_succeeded, int64_t *ret_revision, xvsa_error **error) XV_MUST_CHECK;
int xv_kv_etcd_grant(struct xv_kv *kv, int64_t ttl_ms, const struct xv_call *call, int64_t *ret,
                     xvsa_error **error) XV_MUST_CHECK;
int xv_kv_etcd_renew(struct xv_kv *kv, int64_t lease, const struct xv_call *call,
                     int64_t *ret_ttl_ms, xvsa_error **error) XV_MUST_CHECK;
int xv_kv_etcd_revoke(struct xv_kv *kv, int64_t lease, const struct xv_call *call,
                      xvsa_error **error) XV_MUST_CHECK;
int xv_kv_etcd_watch_open(struct xv_kv *kv, const char *prefix, struct xv_kv_watch **ret,
                          xvsa_error **error) XV_MUST_CHECK;
int xv_kv_etcd_watch_wait(struct xv_kv_watch *watch, int64_t timeout_ms, const struct xv_call *call,
                          bool *ret_changed, xvsa_error **error) XV_MUST_CHECK;
void xv_kv_etcd_watch_close(struct xv_kv_watch *watch);

#define XV_ETCD_TRY_MS       4000
#define XV_ETCD_LEASE_TRY_MS 2000

#endif
