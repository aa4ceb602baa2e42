/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the files of this module share.
 */
#ifndef XV_REPO_INTERNAL_H
#define XV_REPO_INTERNAL_H

#include <stdatomic.h>

#include "repo/baton.h"
#include "repo/config.h"
#include "repo/fault.h"
#include "repo/frame.h"
#include "repo/node.h"
#include "repo/repo.h"
#include "repo/segment.h"
#include "repo/state.h"

struct xv_index;
struct xv_done;

struct xv_repo {
    atomic_uint references;
    struct xv_target *target;
    const struct xv_env *env;
    struct xv_crypt *crypt;
    struct xv_config config;
    char id[2 * XV_HANDLE_BYTES + 1];
    uint32_t flags; /* XVSA_REPO_* of open */
    int32_t level;  /* of compression */
    bool if_absent; /* the target's conditional writes hold */
    char lock_path[64];
    int lock_fd;             /* guards single-writer mode; -1: not needed */
    struct xv_baton journal; /* held by who reads or changes state and damage */
    struct xv_state state;
    xvsa_error *damage; /* why the journal cannot be read to its end */
    struct xv_index *index;
    struct xv_baton doing; /* held by who reads progress; guards done */
    struct xv_done *done;  /* of works that are open */
};

/* Journal ---------------------------------------------------------------------------------------- */

/* Refreshing and looking want the journal's baton held. */

/* Reads new entries. Damage is kept in repo->damage and returned by xv_journal_usable, so that a
 * damaged repository can be looked at. */
int xv_journal_refresh(struct xv_repo *repo, const struct xv_call *call,
                       xvsa_error **error) XV_MUST_CHECK;
/* Fails when the journal is damaged or of a newer version. point may be NULL. */
int xv_journal_usable(struct xv_repo *repo, const char *point, xvsa_error **error) XV_MUST_CHECK;
/* Takes the baton, refreshes, and checks that the journal is usable. */
int xv_journal_enter(struct xv_repo *repo, const struct xv_call *call,
                     xvsa_error **error) XV_MUST_CHECK;

/* Makes the records of an entry from the state that it will follow. May be called several times for
 * one append. A failure ends the append. */
typedef int (*xv_records_fn)(void *user, const struct xv_state *state, json_t *records,
                             xvsa_error **error);

/* Appends an entry and makes it durable; *ret_accepted tells which of its records were not void.
 * On success the baton is held: the caller looks at the state and gives it. */
int xv_journal_append(struct xv_repo *repo, xv_records_fn make, void *user,
                      const struct xv_call *call, uint64_t *ret_accepted,
                      xvsa_error **error) XV_MUST_CHECK;

void xv_journal_name(uint64_t seq, char name[XV_NAME_BYTES]);
/* Opens an entry: checks its seal and that it is JSON. */
int xv_journal_decode(const struct xv_crypt *crypt, const char *name, const uint8_t *data,
                      size_t length, json_t **ret, xvsa_error **error) XV_MUST_CHECK;

/* Index ------------------------------------------------------------------------------------------ */

int xv_index_new(struct xv_repo *repo, struct xv_index **ret, xvsa_error **error) XV_MUST_CHECK;
void xv_index_free(struct xv_index *index);
/* Loads the segments that the journal names and that are not in memory yet. The journal's baton must
 * not be held. Damaged segments are left out and logged. */
int xv_index_sync(struct xv_index *index, const struct xv_call *call,
                  xvsa_error **error) XV_MUST_CHECK;
/* Looks an id up; *ret_found tells whether it is there. A block that cannot be read counts as not
 * there unless the target failed. */
int xv_index_find(struct xv_index *index, struct xv_crypt_tool *tool, const uint8_t *id,
                  bool *ret_found, struct xv_segment_entry *ret, const struct xv_call *call,
                  xvsa_error **error) XV_MUST_CHECK;
/* Is the pack of chunks in a segment that was loaded? */
bool xv_index_has_pack(struct xv_index *index, const uint8_t *pack);
/* How many segments were left out because they are damaged. */
uint32_t xv_index_damaged(struct xv_index *index);
/* Reads the head of a segment. */
int xv_index_load(struct xv_repo *repo, const struct xv_segment_fact *fact, struct xv_segment *ret,
                  const struct xv_call *call, xvsa_error **error) XV_MUST_CHECK;

/* Fetching --------------------------------------------------------------------------------------- */

/* A frame that was read and opened. Memory is kept from one frame to the next. */
struct xv_fetch {
    char object[XV_NAME_BYTES];
    struct xv_location at; /* of the frame; slot has no meaning */
    bool valid;
    struct xv_frame frame;
    uint8_t *data; /* header and stored bytes */
    uint8_t *raw;
    size_t data_capacity;
    size_t raw_capacity;
};

void xv_fetch_free(struct xv_fetch *fetch);
/* Reads and opens the frame at a location, unless it is the one at hand. Ids are not compared yet. */
int xv_fetch_frame(struct xv_repo *repo, struct xv_frame_opener *opener, bool node,
                   const struct xv_location *at, struct xv_fetch *fetch, const struct xv_call *call,
                   xvsa_error **error) XV_MUST_CHECK;
/* The verified bytes of a slot of the frame at hand, which must have this id. */
int xv_fetch_slot(struct xv_frame_opener *opener, bool node, const struct xv_fetch *fetch,
                  uint32_t slot, const uint8_t *id, const uint8_t **ret, uint32_t *ret_length,
                  xvsa_error **error) XV_MUST_CHECK;
/* The verified bytes of a chunk or node: where the hint says, or else where the index says. */
int xv_fetch_ref(struct xv_repo *repo, struct xv_frame_opener *opener, bool node,
                 const struct xv_ref *ref, struct xv_fetch *fetch, const uint8_t **ret,
                 uint32_t *ret_length, const struct xv_call *call,
                 xvsa_error **error) XV_MUST_CHECK;

/* Trees ------------------------------------------------------------------------------------------ */

struct xv_root {
    uint8_t kind; /* XV_KIND_*; ref counts for DATA */
    uint8_t level;
    struct xv_ref ref;
};

/* Reads a tree's nodes, some of which it keeps. Any number of threads. */
struct xv_tree;

int xv_tree_new(struct xv_repo *repo, const struct xv_root *root, struct xv_tree **ret,
                xvsa_error **error) XV_MUST_CHECK;
void xv_tree_free(struct xv_tree *tree);
/* Copies the node that covers chunk first at a level into *ret: an empty one of kind HOLE or ZERO
 * throughout where the tree has none. */
int xv_tree_node(struct xv_tree *tree, unsigned level, uint64_t index, struct xv_node *ret,
                 const struct xv_call *call, xvsa_error **error) XV_MUST_CHECK;
/* Kind and, for DATA, reference of the node itself at a level. */
int xv_tree_entry(struct xv_tree *tree, unsigned level, uint64_t index, uint8_t *ret_kind,
                  struct xv_ref *ret, const struct xv_call *call, xvsa_error **error) XV_MUST_CHECK;
/* Goes through a tree run by run: chunks of one kind that follow each other, DATA ones one by one. */
struct xv_run {
    struct xv_tree *tree;
    uint64_t chunks; /* of the disk */
    uint64_t next;   /* first chunk of the next run */
    uint64_t first;  /* the run at hand */
    uint64_t count;
    uint8_t kind;
    struct xv_ref ref; /* of a DATA chunk */
    struct xv_node leaf;
    uint64_t leaf_index;
    bool have_leaf;
};

void xv_run_begin(struct xv_run *run, struct xv_tree *tree, uint64_t chunks, uint64_t first);
/* The next run, ending before chunk end; *ret is false when there is none. */
int xv_run_next(struct xv_run *run, uint64_t end, bool *ret, const struct xv_call *call,
                xvsa_error **error) XV_MUST_CHECK;
/* Fills a node with one kind. */
void xv_node_fill(struct xv_node *node, unsigned level, uint8_t kind);

/* Points ----------------------------------------------------------------------------------------- */

struct xv_stored_disk {
    struct xv_point_disk facts;
    struct xv_root root;
    struct xv_store_stats stats;
};

struct xv_point {
    atomic_uint references;
    struct xv_repo *repo;
    char id[2 * XV_HANDLE_BYTES + 1];
    uint8_t id_bytes[XV_HANDLE_BYTES];
    json_t *body; /* the object's JSON, which the texts below belong to */
    int64_t committed_ms;
    struct xv_stored_disk *disks;
    size_t disk_count;
};

/* Decodes the body of a point's object. */
int xv_point_decode(const char *object, const uint8_t *body, size_t length, struct xv_point *ret,
                    xvsa_error **error) XV_MUST_CHECK;
void xv_point_clear(struct xv_point *point);
/* Which point a text stands for: NOT_FOUND, or CONFLICT when that is not clear. *ret belongs to state,
 * which is private to the caller or guarded by the journal's baton. */
int xv_point_choose(const struct xv_state *state, const char *id,
                    const struct xv_point_summary **ret, xvsa_error **error) XV_MUST_CHECK;
/* Reads a point that the journal knows; summary is copied from the state. */
int xv_point_read(struct xv_repo *repo, const uint8_t *id, const uint8_t *digest,
                  int64_t committed_ms, struct xv_point **ret, const struct xv_call *call,
                  xvsa_error **error) XV_MUST_CHECK;
/* What a stream needs to know of an open disk. */
struct xv_disk_source {
    struct xv_repo *repo;
    struct xv_tree *tree;
    const char *point;
    const char *disk;
    uint64_t size;
};

/* Reads ranges pack-wise with several threads (stream.c). */
int xv_stream_ranges(const struct xv_disk_source *source, const struct xv_extents *ranges,
                     struct xv_block_queue *queue, void *owner, const struct xv_call *call,
                     xvsa_error **error) XV_MUST_CHECK;

json_t *xv_point_document(const struct xv_point *point);
/* Members of the JSON documents; NULL without memory. */
json_t *xv_stats_json(const struct xv_store_stats *stats);
uint64_t xv_disk_chunks(uint64_t size, uint32_t chunk_size);

#endif
