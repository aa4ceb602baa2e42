/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Works: progress that outlives its process and that several sessions share.
 */
#include "repo/work.h"

#include "repo_kit.h"

#define CHUNKS 64u
#define DISK   (CHUNKS * KIT_CHUNK)
#define WORK   "00112233445566778899aabbccddeeff"
#define OTHER  "ffeeddccbbaa99887766554433221100"
#define KEY    "pool/vm-1"

static struct xv_session *begin(struct kit *kit, uint32_t kind, const char *key, uint64_t token,
                                const char *work, struct xv_point *base)
{
    struct xv_session_options options = {
        .job_key = key, .token = token, .base = base, .kind = kind, .work_id = work};
    struct xv_session *session = NULL;
    xvsa_error *error = NULL;
    ck_ok(xv_session_begin(kit->repo, &options, NULL, &session, &error), error);
    return session;
}

static struct xv_session *begin_owner(struct kit *kit, uint64_t token)
{
    return begin(kit, XV_SESSION_BACKUP, KEY, token, WORK, NULL);
}

static struct xv_session *begin_part(struct kit *kit, const char *member)
{
    char key[128];
    snprintf(key, sizeof key, KEY "#" WORK "#%s", member);
    return begin(kit, XV_SESSION_PART, key, 0, WORK, NULL);
}

static struct xv_disk_writer *add_disk(struct xv_session *session, const char *key, uint64_t size,
                                       int base_index)
{
    struct xv_disk_writer *writer = NULL;
    xvsa_error *error = NULL;
    ck_ok(xv_session_add_disk(session, key, "0", size, base_index, NULL, &writer, &error), error);
    return writer;
}

static void checkpoint(struct xv_session *session)
{
    xvsa_error *error = NULL;
    ck_ok(xv_session_checkpoint(session, NULL, &error), error);
}

/* What the writer has after adopting, in bytes. */
static uint64_t adopt(struct xv_disk_writer *writer)
{
    struct xv_extents have;
    xvsa_error *error = NULL;
    xv_extents_init(&have);
    ck_ok(xv_work_adopt(writer, NULL, &have, &error), error);
    uint64_t bytes = xv_extents_bytes(&have);
    xv_extents_free(&have);
    return bytes;
}

START_TEST(parts_do_what_the_owner_commits)
{
    struct kit kit = kit_new(true);
    uint8_t *data = malloc(DISK);
    char id[XV_POINT_ID_LENGTH + 1];
    xvsa_error *error = NULL;
    kit_fill(data, DISK, 1);
    memset(data + 20 * KIT_CHUNK, 0, 10 * KIT_CHUNK);
    struct xv_session *owner = begin_owner(&kit, 5);
    struct xv_session *parts[2] = {begin_part(&kit, "a"), begin_part(&kit, "b")};
    struct xv_disk_writer *writer = add_disk(owner, "vdi-1", DISK, -1);
    struct xv_disk_writer *theirs[2];
    for (int i = 0; i < 2; i++) {
        theirs[i] = add_disk(parts[i], "vdi-1", DISK, -1);
        kit_put(parts[i], theirs[i], (size_t)i * DISK / 4, data + (size_t)i * DISK / 4, DISK / 4);
    }
    ck_assert_uint_eq(adopt(writer), 0);
    checkpoint(parts[0]);
    ck_assert_uint_eq(adopt(writer), DISK / 4);
    checkpoint(parts[1]);
    kit_put(owner, writer, DISK / 2, data + DISK / 2, DISK / 2);
    ck_assert_uint_eq(adopt(writer), DISK);
    ck_ok(xv_disk_writer_finish(writer, "{}", NULL, &error), error);
    struct xv_store_stats stats;
    xv_disk_writer_stats(writer, &stats);
    ck_assert_uint_eq(stats.bytes_adopted, DISK / 2);
    ck_assert_uint_eq(stats.bytes_read, DISK / 2);
    kit_commit(owner, id);
    for (int i = 0; i < 2; i++)
        xv_session_free(parts[i]);
    xv_session_free(owner);
    kit_reopen(&kit);
    kit_expect(&kit, id, 0, data, DISK);
    free(data);
    kit_free(&kit);
}
END_TEST

static void fill(Suite *suite)
{
    TCase *tests = tcase_create("work");
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, parts_do_what_the_owner_commits);
    suite_add_tcase(suite, tests);
}

UNIT_MAIN("repo_work")
