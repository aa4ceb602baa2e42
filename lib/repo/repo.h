/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The repository on a target: sessions that write restore points, and points that are read. The
 * format is specified in docs/format.md. Knows nothing of pools: a point's metadata is JSON text that
 * it keeps and hands back. Functions on a xv_repo and a xv_session are thread-safe; a xv_packer
 * belongs to one thread.
 */
#ifndef XV_REPO_REPO_H
#define XV_REPO_REPO_H

#include "base/call.h"
#include "base/env.h"
#include "disk/disk.h"
#include "target/target.h"

#define XV_POINT_ID_LENGTH 32 /* hex digits */

struct xv_repo;

struct xv_repo_options {
    const struct xv_env *env;
    const void *passphrase;
    size_t passphrase_size;
    uint32_t flags; /* XVSA_REPO_* */
    uint32_t chunk_size;
    int32_t compression_level;
    uint32_t kdf_log_n;
};

/* Both keep a reference on target. */
int xv_repo_init(struct xv_target *target, const struct xv_repo_options *options,
                 const struct xv_call *call, struct xv_repo **ret,
                 xvsa_error **error) XV_MUST_CHECK;
int xv_repo_open(struct xv_target *target, const struct xv_repo_options *options,
                 const struct xv_call *call, struct xv_repo **ret,
                 xvsa_error **error) XV_MUST_CHECK;
struct xv_repo *xv_repo_ref(struct xv_repo *repo);
void xv_repo_unref(struct xv_repo *repo);
const char *xv_repo_id(const struct xv_repo *repo); /* 32 hex digits */
uint32_t xv_repo_chunk_size(const struct xv_repo *repo);
/* JSON document "repo"; the caller frees it. */
int xv_repo_describe(struct xv_repo *repo, const struct xv_call *call, char **ret,
                     xvsa_error **error) XV_MUST_CHECK;
/* Ends the sessions of kind "restore" that over tells of by their keys, whoever runs them: for who knows that nobody
 * goes on with them. over is asked with the journal held and must not use the repository. */
typedef bool (*xv_restore_over_fn)(void *user, const char *key);
int xv_repo_end_restores(struct xv_repo *repo, xv_restore_over_fn over, void *user,
                         const struct xv_call *call, size_t *ret_ended,
                         xvsa_error **error) XV_MUST_CHECK;
/* The highest token that any session of the repository ever had. */
int xv_repo_highest_token(struct xv_repo *repo, const struct xv_call *call, uint64_t *ret,
                          xvsa_error **error) XV_MUST_CHECK;

/* Restore points ------------------------------------------------------------------------------- */

struct xv_point;

/* What is kept of a disk in a point, for choosing a base. Text belongs to the point. */
struct xv_point_disk {
    const char *key;    /* identity of the disk over time: the VDI's uuid */
    const char *device; /* position in the VM, "0" */
    uint64_t size;
    const char *metadata; /* JSON text given to xv_session_add_disk */
};

/* Summaries of the committed points from the journal and the point objects, oldest first: the JSON
 * document "points". vm: uuid or name, NULL for all. The journal is read anew. */
int xv_repo_list_points(struct xv_repo *repo, const char *vm, const struct xv_call *call,
                        char **ret, xvsa_error **error) XV_MUST_CHECK;
/* By id, by a beginning of it of 6 digits or more, or "latest:<vm uuid or name>". */
int xv_repo_find_point(struct xv_repo *repo, const char *id, const struct xv_call *call,
                       struct xv_point **ret, xvsa_error **error) XV_MUST_CHECK;
/* The last point of each of many VMs, by the uuids, none of which is given twice: the journal is read once,
 * a point's object when it is asked for. */
struct xv_latest;
int xv_repo_latest(struct xv_repo *repo, const char *const *vms, size_t count,
                   const struct xv_call *call, struct xv_latest **ret,
                   xvsa_error **error) XV_MUST_CHECK;
void xv_latest_free(struct xv_latest *latest);
/* Of vms[index]; *ret is NULL when there is none. Thread-safe. */
int xv_latest_point(const struct xv_latest *latest, size_t index, const struct xv_call *call,
                    struct xv_point **ret, xvsa_error **error) XV_MUST_CHECK;
struct xv_point *xv_point_ref(struct xv_point *point);
void xv_point_unref(struct xv_point *point);
const char *xv_point_id(const struct xv_point *point);
const char *xv_point_vm_uuid(const struct xv_point *point);
const char *xv_point_vm_name(const struct xv_point *point);
const char *xv_point_pool_uuid(const struct xv_point *point);
int64_t xv_point_taken_ms(const struct xv_point *point);
const char *xv_point_metadata(const struct xv_point *point); /* JSON text */
size_t xv_point_disk_count(const struct xv_point *point);
const struct xv_point_disk *xv_point_disk(const struct xv_point *point, size_t index);
/* JSON document "point"; the caller frees it. */
int xv_point_describe(const struct xv_point *point, char **ret, xvsa_error **error) XV_MUST_CHECK;
/* Appends the deletion to the journal. */
int xv_point_delete(struct xv_point *point, const struct xv_call *call,
                    xvsa_error **error) XV_MUST_CHECK;

/* The bytes of a point's disk, each verified against its id. Its allocated member tells the data
 * ranges, its stream member reads pack-wise (each frame fetched and decoded once). Reads are
 * thread-safe. Keeps the point alive. */
int xv_point_open_disk(struct xv_point *point, size_t index, const struct xv_call *call,
                       struct xv_disk **ret, xvsa_error **error) XV_MUST_CHECK;
/* Runs of a disk opened by xv_point_open_disk with their kinds; see xvsa_disk_extents. */
int xv_point_disk_extents(struct xv_disk *disk, uint64_t offset, uint64_t length,
                          xvsa_extent *extents, uint32_t count, uint32_t *ret_count,
                          const struct xv_call *call, xvsa_error **error) XV_MUST_CHECK;

/* Writing --------------------------------------------------------------------------------------- */

struct xv_session;

struct xv_session_options {
    const char *job_key; /* what is fenced: sessions of one key never overlap ("<pool>/<vm>") */
    uint64_t token;      /* grows with every attempt; an older one's work is void. 0: one more than
                                the highest that the journal knows for the key */
    struct xv_point
        *base;           /* pinned: it cannot be deleted while the session is active; NULL: none */
    uint32_t kind;       /* XV_SESSION_* */
    const char *work_id; /* 32 hex digits: checkpoints write progress (repo/work.h); NULL: none */
};

#define XV_SESSION_BACKUP      0
#define XV_SESSION_RESTORE     1 /* only pins a point that is being read */
#define XV_SESSION_MAINTENANCE 2
#define XV_SESSION_COPY        3
#define XV_SESSION_VERIFY      4
#define XV_SESSION_PART        5 /* moves chunks for a work whose backup session is another one */

/* Appends SESSION_BEGIN and reads the journal up to it. When the base is gone by then, the session
 * begins without (xv_session_base answers NULL). */
int xv_session_begin(struct xv_repo *repo, const struct xv_session_options *options,
                     const struct xv_call *call, struct xv_session **ret,
                     xvsa_error **error) XV_MUST_CHECK;
struct xv_point *xv_session_base(const struct xv_session *session);
/* Bytes that a session's packs take in memory at most. */
uint64_t xv_session_memory(const struct xv_repo *repo);

struct xv_disk_writer;

struct xv_store_stats {
    uint64_t bytes_read;    /* given to xv_packer_put */
    uint64_t bytes_kept;    /* taken over from the base without reading */
    uint64_t bytes_zero;    /* of bytes_read, found to be zeros */
    uint64_t bytes_same;    /* of bytes_read, equal to the base at the same place */
    uint64_t bytes_known;   /* of bytes_read, found elsewhere in the repository */
    uint64_t bytes_new;     /* of bytes_read, stored */
    uint64_t bytes_stored;  /* after compression and sealing */
    uint64_t bytes_adopted; /* not among bytes_read: what others or earlier attempts had done */
};

/* Begins a disk of size bytes. base_index is the disk in the session's base point whose chunks serve
 * for comparison and keeping, or -1. Whatever is neither put nor kept becomes a hole. */
int xv_session_add_disk(struct xv_session *session, const char *key, const char *device,
                        uint64_t size, int base_index, const struct xv_call *call,
                        struct xv_disk_writer **ret, xvsa_error **error) XV_MUST_CHECK;
/* Takes ranges over from the base: whole chunks (or up to the end of the disk). Beyond the base's end
 * they become holes. Never reads data. */
int xv_disk_writer_keep(struct xv_disk_writer *writer, const struct xv_extents *ranges,
                        const struct xv_call *call, xvsa_error **error) XV_MUST_CHECK;
/* Compares data with the id that the base has for its chunks: *ret_same is false when any differs. */
int xv_disk_writer_matches_base(struct xv_disk_writer *writer, uint64_t offset, const void *data,
                                size_t length, const struct xv_call *call, bool *ret_same,
                                xvsa_error **error) XV_MUST_CHECK;
/* Completes the disk's tree after every packer that worked on it was flushed. metadata: JSON text that
 * goes into the point (snapshot's uuid for CBT, ...). */
int xv_disk_writer_finish(struct xv_disk_writer *writer, const char *metadata,
                          const struct xv_call *call, xvsa_error **error) XV_MUST_CHECK;
void xv_disk_writer_stats(const struct xv_disk_writer *writer, struct xv_store_stats *ret);
/* Abandons an unfinished one. A finished one must outlive the commit, which fails with STATE otherwise. */
void xv_disk_writer_free(struct xv_disk_writer *writer);

/* One thread's compressor and sealer. Chunks of several disks may go through it. */
struct xv_packer;

int xv_packer_new(struct xv_session *session, struct xv_packer **ret,
                  xvsa_error **error) XV_MUST_CHECK;
/* Deals with whole chunks (the last one may be short): zero test, id, comparison with the base, lookup,
 * and storing of what is new. offset is a multiple of the chunk size. data is not kept. */
int xv_packer_put(struct xv_packer *packer, struct xv_disk_writer *writer, uint64_t offset,
                  const void *data, size_t length, const struct xv_call *call,
                  xvsa_error **error) XV_MUST_CHECK;
/* Seals what is gathered. Must precede xv_disk_writer_finish of every disk that was put. */
int xv_packer_flush(struct xv_packer *packer, const struct xv_call *call,
                    xvsa_error **error) XV_MUST_CHECK;
void xv_packer_free(struct xv_packer *packer);

struct xv_point_facts {
    const char *vm_uuid;
    const char *vm_name;
    const char *pool_uuid;
    const char *job_id;
    int64_t taken_ms;     /* instant of the snapshot */
    const char *metadata; /* JSON text */
};

/* Makes what the session has stored durable and indexed, so that a later session finds it even if this
 * one never commits. To be called every some seconds in a long transfer. */
int xv_session_checkpoint(struct xv_session *session, const struct xv_call *call,
                          xvsa_error **error) XV_MUST_CHECK;
/* All disks finished: writes the point and appends the commit. On success the point is complete and
 * durable. FENCED when a newer session of the key began. id receives XV_POINT_ID_LENGTH digits + NUL. */
int xv_session_commit(struct xv_session *session, const struct xv_point_facts *facts,
                      const struct xv_call *call, char *id, xvsa_error **error) XV_MUST_CHECK;
/* Ends a session that did not commit; appends SESSION_END, failing which nothing is lost. */
int xv_session_abort(struct xv_session *session, const struct xv_call *call,
                     xvsa_error **error) XV_MUST_CHECK;
void xv_session_free(struct xv_session *session);

/* Verifying ------------------------------------------------------------------------------------- */

struct xv_verify_fault {
    const char *object; /* name on the target */
    const char *point;  /* id; NULL when the object belongs to none in particular */
    const char *disk;   /* key; NULL likewise */
    const char *message;
};

struct xv_verify_options {
    const char *point; /* as xv_repo_find_point takes it; NULL: the whole repository */
    bool quick; /* objects present and of the right size, trees and points readable; data unread */
    /* Called from the verifying thread. */
    void (*fault)(void *user, const struct xv_verify_fault *fault);
    void (*progress)(void *user, uint64_t bytes_done, uint64_t bytes_total);
    void *user;
};

struct xv_verify_result {
    uint64_t points;
    uint64_t objects;
    uint64_t chunks;
    uint64_t bytes; /* read from the target */
    uint64_t faults;
};

/* Reads everything that is asked for, goes on after faults; fails only when it cannot go on. */
int xv_repo_verify(struct xv_repo *repo, const struct xv_verify_options *options,
                   const struct xv_call *call, struct xv_verify_result *ret,
                   xvsa_error **error) XV_MUST_CHECK;

#endif
