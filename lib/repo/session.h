/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a session, its disk writers and its packers share.
 */
#ifndef XV_REPO_SESSION_H
#define XV_REPO_SESSION_H

#include <sys/types.h>

#include "repo/internal.h"
#include "repo/pack.h"

/* Entries kept before a session makes a checkpoint of its own accord, to bound its memory. */
#define XV_KNOWN_MAX (256u * 1024)

/* What a session has stored and not forgotten yet. Guarded by its own lock. */
struct xv_known {
    pthread_mutex_t lock;
    struct xv_segment_entry *entries;
    uint32_t count;
    uint32_t capacity;
    uint32_t indexed;    /* how many of them index segments have */
    uint32_t *slots;     /* open addressing by id: place in entries plus one; 0: empty */
    uint32_t slot_count; /* a power of two */
};

int xv_known_init(struct xv_known *known, xvsa_error **error) XV_MUST_CHECK;
void xv_known_free(struct xv_known *known);
int xv_known_add(struct xv_known *known, const struct xv_segment_entry *entries, uint32_t count,
                 xvsa_error **error) XV_MUST_CHECK;
bool xv_known_find(struct xv_known *known, const uint8_t *id, struct xv_ref *ret);
uint32_t xv_known_count(struct xv_known *known);
/* Copies entries that no segment has yet: at most limit, skip of them left out. */
int xv_known_unindexed(struct xv_known *known, uint32_t skip, uint32_t limit,
                       struct xv_segment_entry **ret, uint32_t *ret_count,
                       xvsa_error **error) XV_MUST_CHECK;
/* The next count entries are in a segment now. */
void xv_known_indexed(struct xv_known *known, uint32_t count);
/* Forgets what segments have. */
void xv_known_forget(struct xv_known *known);

/* A chunk's place in a disk, for the tree and for progress. */
struct xv_placement {
    uint64_t chunk;
    uint8_t kind;
    struct xv_ref ref;
};

/* Chunks of a disk that were placed and that no progress object tells of yet. Lives as long as the
 * session, also when its writer is freed. */
struct xv_placed_disk {
    struct xv_placed_disk *next;
    char *key;
    uint64_t size;
    struct xv_placement *chunks; /* in the order of placing */
    uint32_t count;
    uint32_t capacity;
};

/* Placements before a session makes a checkpoint of its own accord, to bound its memory. */
#define XV_PLACED_MAX (128u * 1024)

/* What a session with a work has placed since its last checkpoint (placed.c). */
struct xv_placed {
    pthread_mutex_t lock; /* guards what follows */
    struct xv_placed_disk *disks;
    uint32_t count; /* of all disks */
};

void xv_placed_init(struct xv_placed *placed);
void xv_placed_free(struct xv_placed *placed);
/* The record of a disk, made when there is none. */
int xv_placed_disk(struct xv_placed *placed, const char *key, uint64_t size,
                   struct xv_placed_disk **ret, xvsa_error **error) XV_MUST_CHECK;
int xv_placed_add(struct xv_placed *placed, struct xv_placed_disk *disk,
                  const struct xv_placement *chunks, uint32_t count,
                  xvsa_error **error) XV_MUST_CHECK;
uint32_t xv_placed_count(struct xv_placed *placed);
/* Moves everything into *ret, a list of disks that xv_placed_return or xv_placed_drop ends. */
int xv_placed_take(struct xv_placed *placed, struct xv_placed_disk **ret,
                   xvsa_error **error) XV_MUST_CHECK;
/* Puts back what was taken, since no progress tells of it. */
void xv_placed_return(struct xv_placed *placed, struct xv_placed_disk *taken);
void xv_placed_drop(struct xv_placed_disk *taken);

struct xv_session {
    struct xv_repo *repo;
    uint8_t id[XV_HANDLE_BYTES];
    bool has_work;
    uint8_t work[XV_HANDLE_BYTES];
    char *job_key;
    uint64_t token;
    uint32_t kind;         /* XV_SESSION_* */
    struct xv_point *base; /* NULL: none */
    struct xv_pack_writer *data;
    struct xv_pack_writer *nodes;
    struct xv_known known;
    struct xv_placed placed;
    struct xv_baton checkpoint;   /* held by who makes one */
    pthread_mutex_t lock;         /* guards what follows */
    struct xv_disk_writer *disks; /* in the order they were added, newest first */
    uint32_t disk_count;
    bool disk_lost; /* a finished disk was freed: a point would lack it */
    bool ended;
};

struct xv_slot;

struct xv_disk_writer {
    struct xv_disk_writer *next;
    struct xv_session *session;
    char *key;
    char *device;
    char *metadata; /* set when finished */
    uint64_t size;
    uint64_t chunks;
    unsigned root_level;
    struct xv_tree *base; /* NULL: none */
    struct xv_root base_root;
    uint64_t base_size;
    struct xv_baton tree; /* held by who changes the tree; guards what follows up to stats_lock */
    struct xv_root root;
    struct xv_slot **buckets;
    struct xv_slot *newest;
    struct xv_slot *oldest;
    uint32_t slot_count;
    struct xv_frame_opener *opener;
    struct xv_fetch fetch;
    void *zstd; /* ZSTD_CCtx for nodes */
    bool finished;
    uint8_t *have; /* a bit for each chunk that was put or adopted; NULL: the session has no work */
    struct xv_placed_disk *placed; /* NULL likewise */
    struct xv_baton adopting;      /* held by who adopts; guards adopted */
    size_t adopted;                /* facts of the work that were dealt with */
    pthread_mutex_t stats_lock;
    struct xv_store_stats stats;
};

/* Puts chunks into the tree. */
int xv_disk_writer_place(struct xv_disk_writer *writer, const struct xv_placement *placements,
                         uint32_t count, const struct xv_call *call,
                         xvsa_error **error) XV_MUST_CHECK;
/* Puts those of the chunks into the tree that were not put or adopted before. ret_bytes: how much. */
int xv_disk_writer_adopt(struct xv_disk_writer *writer, const struct xv_placement *placements,
                         uint32_t count, uint64_t *ret_bytes, const struct xv_call *call,
                         xvsa_error **error) XV_MUST_CHECK;
/* Ranges of what was put or adopted. */
int xv_disk_writer_have(struct xv_disk_writer *writer, struct xv_extents *ret,
                        const struct xv_call *call, xvsa_error **error) XV_MUST_CHECK;
void xv_disk_writer_count(struct xv_disk_writer *writer, const struct xv_store_stats *more);

/* The tree under construction (writer_tree.c); the tree's baton is held. */
int xv_grow_place(struct xv_disk_writer *writer, const struct xv_placement *placement,
                  const struct xv_call *call, xvsa_error **error) XV_MUST_CHECK;
int xv_grow_keep(struct xv_disk_writer *writer, uint64_t first, uint64_t end,
                 const struct xv_call *call, xvsa_error **error) XV_MUST_CHECK;
int xv_grow_finish(struct xv_disk_writer *writer, const struct xv_call *call,
                   xvsa_error **error) XV_MUST_CHECK;
int xv_grow_trim(struct xv_disk_writer *writer, const struct xv_call *call,
                 xvsa_error **error) XV_MUST_CHECK;
void xv_grow_free(struct xv_disk_writer *writer);

/* Fails with FENCED, saying who took over, unless the session is active and its work is open. */
int xv_session_check(const struct xv_session *session, const struct xv_state *state,
                     xvsa_error **error) XV_MUST_CHECK;
/* Makes a checkpoint, with progress or only of packs and segments (checkpoint.c). */
int xv_checkpoint_make(struct xv_session *session, bool progress, const struct xv_call *call,
                       xvsa_error **error) XV_MUST_CHECK;

/* Objects w/<id> of one PROGRESS record that are being written (checkpoint.c, work.c). */
struct xv_progress_batch {
    struct xv_session *session;
    json_t *segments; /* array; for INDEX_ADD in the same entry */
    json_t *objects;  /* array; as in the record */
};

/* Seals and puts one object and notes it in the batch. Takes over body. */
int xv_progress_put(struct xv_progress_batch *batch, const char *disk, uint8_t content,
                    uint8_t *body, size_t length, const struct xv_call *call,
                    xvsa_error **error) XV_MUST_CHECK;
/* Barrier and entry. What the journal did not take is removed. */
int xv_progress_append(struct xv_progress_batch *batch, const struct xv_call *call,
                       xvsa_error **error) XV_MUST_CHECK;

/* Names of a work's objects, for whoever ends it to remove afterwards. */
struct xv_remains {
    struct xv_handle *ids;
    size_t count;
};

/* Objects of a work, or of every open work of a key but the one with this id (NULL: every one).
 * Replace what is there. */
int xv_remains_collect(struct xv_remains *left, const struct xv_state *state, const uint8_t *id,
                       xvsa_error **error) XV_MUST_CHECK;
int xv_remains_collect_others(struct xv_remains *left, const struct xv_state *state,
                              const char *key, const uint8_t *id, xvsa_error **error) XV_MUST_CHECK;
/* Adds records that end the parts of a work, or of every open work of a key but the one with this id: what they still
 * did would be of no use, and those that died would keep their base from being deleted for ever. */
int xv_parts_end(const struct xv_state *state, const uint8_t *id, json_t *records,
                 xvsa_error **error) XV_MUST_CHECK;
int xv_parts_end_others(const struct xv_state *state, const char *key, const uint8_t *id,
                        json_t *records, xvsa_error **error) XV_MUST_CHECK;
/* Removes them as far as that goes, and frees the list. */
void xv_remains_remove(struct xv_remains *left, struct xv_repo *repo, const struct xv_call *call);

/* Who runs a session, as text for the journal (session.c). */
void xv_session_owner(char *text, size_t size);
/* True when the owner was a process of this machine that is certainly gone. */
bool xv_session_owner_dead(const char *owner);
/* The instant that a process began at, in ticks since the machine's start; 0 when there is none. */
uint64_t xv_process_start(pid_t pid);
json_t *xv_session_end_record(const uint8_t *session, const char *outcome);

#endif
