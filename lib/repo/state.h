/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the journal says, replayed under the rules of docs/format.md. Every reader of the same entries
 * computes the same state. Pure: no input or output.
 */
#ifndef XV_REPO_STATE_H
#define XV_REPO_STATE_H

#include <jansson.h>

#include "base/error.h"
#include "repo/format.h"

enum xv_record_type {
    XV_RECORD_FEATURES = 1, /* not written by this version */
    XV_RECORD_SESSION_BEGIN = 2,
    XV_RECORD_INDEX_ADD = 3,
    XV_RECORD_RP_COMMIT = 4,
    XV_RECORD_SESSION_END = 5,
    XV_RECORD_RP_DELETE = 6,
    /* 7 RP_LOCK, 8 PACK_CONDEMN, 9 PACK_AUTHORISE, 10 INDEX_REPLACE, 11 DAMAGED, 12 KEY and
     * 13 CHECKPOINT are reserved. */
};

/* Flags of a record: what a reader that does not know its type must not do. */
#define XV_RECORD_STOPS_WRITERS 1
#define XV_RECORD_STOPS_READERS 2

struct xv_handle {
    uint8_t bytes[XV_HANDLE_BYTES];
};

struct xv_active_session {
    struct xv_handle id;
    char *kind;
    char *key;
    uint64_t token;
    char *owner;
    struct xv_handle *pins;
    size_t pin_count;
    uint64_t begun; /* position in the journal */
};

struct xv_job_token {
    char *key;
    uint64_t token; /* the highest ever */
};

struct xv_point_summary {
    struct xv_handle id;
    uint8_t digest[32]; /* SHA-256 of the object rp/<id> */
    json_t *record;     /* the RP_COMMIT */
    int64_t committed_ms;
};

struct xv_segment_fact {
    struct xv_handle id;
    uint64_t length; /* of the object */
    uint32_t head;   /* bytes from its beginning to its first block */
    uint32_t entries;
};

struct xv_state {
    uint64_t tail;      /* position of the last entry; 0: none */
    uint8_t digest[32]; /* SHA-256 of the object that holds it; zeros for none */
    bool write_blocked; /* a record of a newer version forbids writing */
    bool read_blocked;
    struct xv_active_session *sessions;
    size_t session_count;
    struct xv_job_token *tokens;
    size_t token_count;
    struct xv_point_summary *points; /* live ones, in the order of their commits */
    size_t point_count;
    struct xv_segment_fact *segments;
    size_t segment_count;
};

void xv_state_init(struct xv_state *state);
void xv_state_free(struct xv_state *state);

/* Applies an entry (its decoded body). *ret_accepted receives a bit for each of the first 64 records
 * that was not void. Fails with CORRUPT when the entry is not one, MEMORY. */
int xv_state_apply(struct xv_state *state, const json_t *entry, const char *object,
                   uint64_t *ret_accepted, xvsa_error **error) XV_MUST_CHECK;

const struct xv_active_session *xv_state_session(const struct xv_state *state, const uint8_t *id);
const struct xv_point_summary *xv_state_point(const struct xv_state *state, const uint8_t *id);
/* An active session that pins the point, or NULL. */
const struct xv_active_session *xv_state_pinning(const struct xv_state *state,
                                                 const uint8_t *point);
uint64_t xv_state_token(const struct xv_state *state, const char *key);

/* Reads a member that holds 2 * length hex digits; -1 when it does not. */
int xv_json_hex(const json_t *object, const char *member, uint8_t *ret, size_t length);
/* A non-negative integer member; -1 when it is not one. */
int xv_json_u64(const json_t *object, const char *member, uint64_t *ret);
json_t *xv_json_handle(const uint8_t *id);

#endif
