/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the tests of the repository share: a target, a repository on it, disks with known content.
 */
#ifndef XV_TESTS_REPO_KIT_H
#define XV_TESTS_REPO_KIT_H

#include <string.h>
#include <unistd.h>

#include "repo/repo.h"
#include "unit.h"

#define KIT_CHUNK 65536u

struct kit {
    struct xv_target_registry *registry;
    struct xv_target *target;
    struct xv_repo *repo;
    char folder[64]; /* of a directory target; empty for memory */
};

static inline struct xv_repo_options kit_options(void)
{
    return (struct xv_repo_options){
        .passphrase = "secret", .passphrase_size = 6, .kdf_log_n = 10, .compression_level = 1};
}

static inline struct kit kit_open(bool directory)
{
    struct kit kit = {0};
    xvsa_error *error = NULL;
    char url[128] = "memory:";
    ck_ok(xv_target_registry_new(&kit.registry, &error), error);
    if (directory) {
        strcpy(kit.folder, "/tmp/xvsa-unit-XXXXXX");
        ck_assert_ptr_nonnull(mkdtemp(kit.folder));
        snprintf(url, sizeof url, "file://%s", kit.folder);
    }
    ck_ok(xv_target_open(kit.registry, NULL, url, 0, NULL, &kit.target, &error), error);
    return kit;
}

static inline struct kit kit_new(bool directory)
{
    struct kit kit = kit_open(directory);
    struct xv_repo_options options = kit_options();
    xvsa_error *error = NULL;
    ck_ok(xv_repo_init(kit.target, &options, NULL, &kit.repo, &error), error);
    return kit;
}

static inline void kit_free(struct kit *kit)
{
    xv_repo_unref(kit->repo);
    xv_target_unref(kit->target);
    xv_target_registry_free(kit->registry);
    if (kit->folder[0] != '\0') {
        char command[128];
        snprintf(command, sizeof command, "rm -rf '%s'", kit->folder);
        ck_assert_int_eq(system(command), 0);
    }
}

/* Another handle on the same target. */
static inline void kit_reopen(struct kit *kit)
{
    struct xv_repo_options options = kit_options();
    xvsa_error *error = NULL;
    xv_repo_unref(kit->repo);
    kit->repo = NULL;
    ck_ok(xv_repo_open(kit->target, &options, NULL, &kit->repo, &error), error);
}

/* Half compressible content that depends on seed. */
static inline void kit_fill(uint8_t *data, size_t length, uint64_t seed)
{
    uint64_t state = seed * 0x9e3779b97f4a7c15ull + 1;
    for (size_t i = 0; i < length; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data[i] = (i & 1) != 0 ? (uint8_t)(state >> 56) : (uint8_t)seed;
    }
}

static inline struct xv_session *kit_begin(struct kit *kit, const char *key, struct xv_point *base)
{
    struct xv_session_options options = {.job_key = key, .base = base};
    struct xv_session *session = NULL;
    xvsa_error *error = NULL;
    ck_ok(xv_session_begin(kit->repo, &options, NULL, &session, &error), error);
    return session;
}

static inline void kit_put(struct xv_session *session, struct xv_disk_writer *writer,
                           uint64_t offset, const void *data, size_t length)
{
    struct xv_packer *packer = NULL;
    xvsa_error *error = NULL;
    ck_ok(xv_packer_new(session, &packer, &error), error);
    ck_ok(xv_packer_put(packer, writer, offset, data, length, NULL, &error), error);
    ck_ok(xv_packer_flush(packer, NULL, &error), error);
    xv_packer_free(packer);
}

static inline void kit_commit(struct xv_session *session, char *id)
{
    struct xv_point_facts facts = {.vm_uuid = "vm-1",
                                   .vm_name = "web",
                                   .pool_uuid = "pool",
                                   .job_id = "job",
                                   .taken_ms = 1000,
                                   .metadata = "{\"a\":1}"};
    xvsa_error *error = NULL;
    ck_ok(xv_session_commit(session, &facts, NULL, id, &error), error);
}

/* A point of one disk, all of it put. */
static inline void kit_store(struct kit *kit, const char *key, const uint8_t *data, size_t length,
                             char *id)
{
    struct xv_session *session = kit_begin(kit, key, NULL);
    struct xv_disk_writer *writer = NULL;
    xvsa_error *error = NULL;
    ck_ok(xv_session_add_disk(session, "vdi-1", "0", length, -1, NULL, &writer, &error), error);
    kit_put(session, writer, 0, data, length);
    ck_ok(xv_disk_writer_finish(writer, "{}", NULL, &error), error);
    kit_commit(session, id);
    xv_session_free(session);
}

static inline struct xv_point *kit_find(struct kit *kit, const char *id)
{
    struct xv_point *point = NULL;
    xvsa_error *error = NULL;
    ck_ok(xv_repo_find_point(kit->repo, id, NULL, &point, &error), error);
    return point;
}

/* Checks that a point's disk holds exactly these bytes. */
static inline void kit_expect(struct kit *kit, const char *id, size_t index, const uint8_t *data,
                              size_t length)
{
    xvsa_error *error = NULL;
    struct xv_point *point = kit_find(kit, id);
    struct xv_disk *disk = NULL;
    ck_ok(xv_point_open_disk(point, index, NULL, &disk, &error), error);
    ck_assert_uint_eq(disk->size, length);
    uint8_t *back = malloc(length + 1);
    ck_assert_ptr_nonnull(back);
    ck_ok(xv_disk_read(disk, 0, back, length, NULL, &error), error);
    ck_assert(memcmp(data, back, length) == 0);
    free(back);
    xv_disk_close(disk);
    xv_point_unref(point);
}

#endif
