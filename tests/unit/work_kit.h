/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the tests of works share: sessions of a work, and chunks put one by one.
 */
#ifndef XV_TESTS_WORK_KIT_H
#define XV_TESTS_WORK_KIT_H

#include "repo/work.h"

#include "repo_kit.h"

#define WORK_ID    "00112233445566778899aabbccddeeff"
#define WORK_OTHER "ffeeddccbbaa99887766554433221100"
#define WORK_KEY   "pool/vm-1"

static inline struct xv_session *work_begin(struct kit *kit, uint32_t kind, const char *key,
                                            uint64_t token, const char *work, struct xv_point *base)
{
    struct xv_session_options options = {
        .job_key = key, .token = token, .base = base, .kind = kind, .work_id = work};
    struct xv_session *session = NULL;
    xvsa_error *error = NULL;
    ck_ok(xv_session_begin(kit->repo, &options, NULL, &session, &error), error);
    return session;
}

static inline struct xv_session *work_owner(struct kit *kit, uint64_t token)
{
    return work_begin(kit, XV_SESSION_BACKUP, WORK_KEY, token, WORK_ID, NULL);
}

static inline struct xv_session *work_part(struct kit *kit, const char *member)
{
    char key[128];
    snprintf(key, sizeof key, WORK_KEY "#" WORK_ID "#%s", member);
    return work_begin(kit, XV_SESSION_PART, key, 0, WORK_ID, NULL);
}

static inline struct xv_disk_writer *work_disk(struct xv_session *session, const char *key,
                                               uint64_t size, int base_index)
{
    struct xv_disk_writer *writer = NULL;
    xvsa_error *error = NULL;
    ck_ok(xv_session_add_disk(session, key, "0", size, base_index, NULL, &writer, &error), error);
    return writer;
}

static inline void work_checkpoint(struct xv_session *session)
{
    xvsa_error *error = NULL;
    ck_ok(xv_session_checkpoint(session, NULL, &error), error);
}

/* What the writer has after adopting; the caller frees it. */
static inline struct xv_extents work_adopt(struct xv_disk_writer *writer)
{
    struct xv_extents have;
    xvsa_error *error = NULL;
    xv_extents_init(&have);
    ck_ok(xv_work_adopt(writer, NULL, &have, &error), error);
    return have;
}

static inline uint64_t work_adopted(struct xv_disk_writer *writer)
{
    struct xv_extents have = work_adopt(writer);
    uint64_t bytes = xv_extents_bytes(&have);
    xv_extents_free(&have);
    return bytes;
}

static inline uint64_t work_done(struct kit *kit, const char *work, const char *key)
{
    struct xv_extents done;
    xvsa_error *error = NULL;
    xv_extents_init(&done);
    ck_ok(xv_work_done(kit->repo, work, key, NULL, &done, &error), error);
    uint64_t bytes = xv_extents_bytes(&done);
    xv_extents_free(&done);
    return bytes;
}

static inline void work_finish(struct xv_disk_writer *writer)
{
    xvsa_error *error = NULL;
    ck_ok(xv_disk_writer_finish(writer, "{}", NULL, &error), error);
}

static inline int32_t work_count_name(void *sink, const char *name, const xvsa_object_info *info)
{
    (void)name;
    (void)info;
    ++*(unsigned *)sink;
    return 0;
}

/* Objects whose names begin so. */
static inline unsigned work_objects(struct kit *kit, const char *prefix)
{
    unsigned count = 0;
    xvsa_error *error = NULL;
    ck_ok(xv_target_list(kit->target, prefix, work_count_name, &count, NULL, &error), error);
    return count;
}

static inline uint64_t work_faults(struct kit *kit)
{
    struct xv_verify_options options = {0};
    struct xv_verify_result result;
    xvsa_error *error = NULL;
    ck_ok(xv_repo_verify(kit->repo, &options, NULL, &result, &error), error);
    return result.faults;
}

#endif
