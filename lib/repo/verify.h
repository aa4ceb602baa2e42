/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the files of verifying share. The order of work: small objects, packs (by several threads),
 * trees; what is wrong with a pack is told when the trees have shown whom it concerns.
 */
#ifndef XV_REPO_VERIFY_H
#define XV_REPO_VERIFY_H

#include "repo/internal.h"
#include "repo/pack.h"

/* Something wrong with a pack. */
struct xv_bad_frame {
    uint8_t pack[XV_HANDLE_BYTES];
    bool nodes;
    uint32_t offset; /* of the frame; 0: the whole pack */
    bool told;       /* as the fault of some point's disk */
    char *message;
};

struct xv_pack_task {
    uint8_t pack[XV_HANDLE_BYTES];
    bool nodes;
};

/* A frame that a verification of one point wants. */
struct xv_wanted {
    uint8_t pack[XV_HANDLE_BYTES];
    uint32_t offset;
};

struct xv_cached_pack {
    struct xv_pack_index index;
    uint64_t used; /* 0: empty */
};

#define XV_CACHED_PACKS 64u

struct xv_verify {
    struct xv_repo *repo;
    const struct xv_verify_options *options;
    const struct xv_call *call;
    struct xv_verify_result result;
    struct xv_state state;                 /* replayed anew */
    const struct xv_point_summary *chosen; /* what options->point stands for; in state */
    struct xv_pack_task *packs;
    size_t pack_count;
    struct xv_wanted *wanted; /* sorted; only with options->point */
    size_t wanted_count;
    size_t wanted_capacity;
    uint64_t bytes_total;
    pthread_mutex_t lock; /* guards what follows while threads check packs */
    size_t next_pack;
    struct xv_bad_frame *bad;
    size_t bad_count;
    int failed; /* code of the first failure that is no fault */
    xvsa_error *failure;
    /* For the trees. */
    struct xv_frame_opener *opener;
    struct xv_fetch fetch;
    struct xv_cached_pack *cached; /* XV_CACHED_PACKS */
    uint64_t clock;
    uint64_t
        *clean; /* beginnings of ids of nodes whose subtrees are sound: open addressing, 0 empty */
    size_t clean_count;
    size_t clean_slots;
};

/* Calls the embedder. point and disk may be NULL. */
void xv_verify_tell(struct xv_verify *verify, const char *object, const char *point,
                    const char *disk, const char *message);
/* Turns an error that means damage into a fault and returns 0; hands others on. */
int xv_verify_note(struct xv_verify *verify, int rc, xvsa_error *e, const char *object,
                   const char *point, const char *disk, xvsa_error **error);

/* verify_packs.c */
int xv_verify_packs(struct xv_verify *verify, xvsa_error **error) XV_MUST_CHECK;
const struct xv_bad_frame *xv_verify_bad(struct xv_verify *verify, const uint8_t *pack,
                                         uint32_t offset);
void xv_verify_tell_rest(struct xv_verify *verify);

/* verify_tree.c */
/* Goes through a disk. collect: notes the frames that are wanted, and tells nothing. */
int xv_verify_disk(struct xv_verify *verify, const struct xv_point *point,
                   const struct xv_stored_disk *disk, bool collect,
                   xvsa_error **error) XV_MUST_CHECK;
void xv_verify_tree_free(struct xv_verify *verify);

#endif
