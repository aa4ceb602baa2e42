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
    XV_RECORD_PROGRESS = 14,
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
    uint64_t begun;        /* position in the journal */
    struct xv_handle work; /* zeros: none; only of kinds "backup" and "part" */
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

enum xv_work_content {
    XV_WORK_OTHER = 0, /* of a newer version: to be removed with the rest, otherwise ignored */
    XV_WORK_MAP = 1,
    XV_WORK_DONE = 2
};

/* An object w/<id> that tells of a work. */
struct xv_work_fact {
    struct xv_handle id;
    struct xv_handle session; /* who wrote it */
    uint8_t digest[32];
    uint64_t length;
    uint64_t record; /* number of its PROGRESS record among those of the work, from 1 */
    enum xv_work_content content;
    char *disk;
};

/* A work that is open: a backup session of it began, and none committed or gave up since. */
struct xv_work {
    struct xv_handle id;
    char *key;                  /* of its backup sessions */
    uint64_t opened;            /* position in the journal */
    uint64_t records;           /* PROGRESS records so far */
    struct xv_work_fact *facts; /* in the order of the journal; only grows while the work is open */
    size_t fact_count;
    size_t fact_capacity;
};

struct xv_state {
    uint64_t tail;      /* position of the last entry; 0: none */
    uint8_t digest[32]; /* SHA-256 of the object that holds it; zeros for none */
    bool write_blocked; /* a record of a newer version forbids writing */
    bool read_blocked;
    struct xv_active_session *sessions;
    size_t session_count;
    struct xv_job_token *tokens; /* one for each part of each work, too: many */
    size_t token_count;
    size_t *token_slots;     /* by key, open addressing: place in tokens plus one; 0: empty */
    size_t token_slot_count; /* a power of two, or 0 */
    struct xv_point_summary *points; /* live ones, in the order of their commits */
    size_t point_count;
    struct xv_handle *deleted; /* points, by id */
    size_t deleted_count;
    struct xv_segment_fact *segments;
    size_t segment_count;
    struct xv_work *works;
    size_t work_count;
};

void xv_state_init(struct xv_state *state);
void xv_state_free(struct xv_state *state);

/* Applies an entry (its decoded body). *ret_accepted receives a bit for each of the first 64 records
 * that was not void. Fails with CORRUPT when the entry is not one, MEMORY. */
int xv_state_apply(struct xv_state *state, const json_t *entry, const char *object,
                   uint64_t *ret_accepted, xvsa_error **error) XV_MUST_CHECK;

const struct xv_active_session *xv_state_session(const struct xv_state *state, const uint8_t *id);
const struct xv_point_summary *xv_state_point(const struct xv_state *state, const uint8_t *id);
/* Does the session pin the point? */
bool xv_state_pins(const struct xv_active_session *session, const uint8_t *point);
uint64_t xv_state_token(const struct xv_state *state, const char *key);
/* NULL when it is not open. */
const struct xv_work *xv_state_work(const struct xv_state *state, const uint8_t *id);
bool xv_state_has_work(const struct xv_active_session *session);

/* Rules of works (state_work.c), for xv_state_apply alone. open returns 0 or a negative code, apply 1
 * for accepted, 0 for void, or a negative code. */
int xv_state_open_work(struct xv_state *state, const struct xv_active_session *session);
void xv_state_close_work(struct xv_state *state, const struct xv_active_session *session);
int xv_state_apply_progress(struct xv_state *state, const json_t *record);
void xv_state_free_works(struct xv_state *state);

/* Reads a member that holds 2 * length hex digits; -1 when it does not. */
int xv_json_hex(const json_t *object, const char *member, uint8_t *ret, size_t length);
/* A non-negative integer member; -1 when it is not one. */
int xv_json_u64(const json_t *object, const char *member, uint64_t *ret);
json_t *xv_json_handle(const uint8_t *id);

#endif
