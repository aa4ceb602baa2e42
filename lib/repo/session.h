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

struct xv_session {
    struct xv_repo *repo;
    uint8_t id[XV_HANDLE_BYTES];
    char *job_key;
    uint64_t token;
    uint32_t kind;         /* XV_SESSION_* */
    struct xv_point *base; /* NULL: none */
    struct xv_pack_writer *data;
    struct xv_pack_writer *nodes;
    struct xv_known known;
    struct xv_baton checkpoint;   /* held by who makes one */
    pthread_mutex_t lock;         /* guards what follows */
    struct xv_disk_writer *disks; /* in the order they were added, newest first */
    uint32_t disk_count;
    bool disk_lost; /* a finished disk was freed: a point would lack it */
    bool ended;
};

/* A chunk's place in a disk, for the tree. */
struct xv_placement {
    uint64_t chunk;
    uint8_t kind;
    struct xv_ref ref;
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
    pthread_mutex_t stats_lock;
    struct xv_store_stats stats;
};

/* Puts chunks into the tree. */
int xv_disk_writer_place(struct xv_disk_writer *writer, const struct xv_placement *placements,
                         uint32_t count, const struct xv_call *call,
                         xvsa_error **error) XV_MUST_CHECK;
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

/* Who runs a session, as text for the journal (session.c). */
void xv_session_owner(char *text, size_t size);
/* True when the owner was a process of this machine that is certainly gone. */
bool xv_session_owner_dead(const char *owner);
/* The instant that a process began at, in ticks since the machine's start; 0 when there is none. */
uint64_t xv_process_start(pid_t pid);
json_t *xv_session_end_record(const uint8_t *session, const char *outcome);

#endif
