/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Works: progress that outlives its process and that several sessions share.
 */
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

#include "work_kit.h"

#define CHUNKS 64u
#define DISK   (CHUNKS * KIT_CHUNK)

static const struct xv_point_facts point_facts = {
    .vm_uuid = "vm-1", .vm_name = "web", .pool_uuid = "pool", .job_id = "job", .taken_ms = 1};

/* Fails with code, and the message has this text. */
#define ck_fails_saying(rc, code, text, error)                                                     \
    do {                                                                                           \
        int said_rc = (rc);                                                                        \
        ck_assert_msg(strstr(xvsa_error_message(error), text) != NULL, "it says: %s",              \
                      xvsa_error_message(error));                                                  \
        ck_fails(said_rc, code, error);                                                            \
    } while (0)

START_TEST(parts_do_what_the_owner_commits)
{
    struct kit kit = kit_new(true);
    uint8_t *data = malloc(DISK);
    char id[XV_POINT_ID_LENGTH + 1];
    kit_fill(data, DISK, 1);
    memset(data + 20 * KIT_CHUNK, 0, 10 * KIT_CHUNK);
    struct xv_session *owner = work_owner(&kit, 5);
    struct xv_session *parts[2] = {work_part(&kit, "a"), work_part(&kit, "b")};
    struct xv_disk_writer *writer = work_disk(owner, "vdi-1", DISK, -1);
    for (size_t i = 0; i < 2; i++) {
        struct xv_disk_writer *theirs = work_disk(parts[i], "vdi-1", DISK, -1);
        kit_put(parts[i], theirs, i * DISK / 4, data + i * DISK / 4, DISK / 4);
    }
    ck_assert_uint_eq(work_adopted(writer), 0);
    work_checkpoint(parts[0]);
    ck_assert_uint_eq(work_adopted(writer), DISK / 4);
    ck_assert_uint_eq(work_done(&kit, WORK_ID, "vdi-1"), DISK / 4);
    work_checkpoint(parts[1]);
    ck_assert_uint_eq(work_done(&kit, WORK_ID, "vdi-1"), DISK / 2);
    ck_assert_uint_eq(work_done(&kit, WORK_ID, "vdi-2"), 0);
    /* What both did is taken from either. */
    kit_put(owner, writer, DISK * 3 / 8, data + DISK * 3 / 8, DISK * 5 / 8);
    ck_assert_uint_eq(work_adopted(writer), DISK);
    work_finish(writer);
    struct xv_store_stats stats;
    xv_disk_writer_stats(writer, &stats);
    ck_assert_uint_eq(stats.bytes_adopted, DISK * 3 / 8);
    ck_assert_uint_gt(work_objects(&kit, "w/"), 0);
    kit_commit(owner, id);
    ck_assert_uint_eq(work_objects(&kit, "w/"), 0);
    ck_assert_uint_eq(work_done(&kit, WORK_ID, "vdi-1"), 0);
    for (int i = 0; i < 2; i++)
        xv_session_free(parts[i]);
    xv_session_free(owner);
    kit_reopen(&kit);
    kit_expect(&kit, id, 0, data, DISK);
    ck_assert_uint_eq(work_faults(&kit), 0);
    free(data);
    kit_free(&kit);
}
END_TEST

/* A later owner goes on; the one before can neither store nor commit any more, and hears who took over. */
START_TEST(successor_goes_on_and_fences)
{
    struct kit kit = kit_new(true);
    uint8_t *data = malloc(DISK);
    char id[XV_POINT_ID_LENGTH + 1];
    xvsa_error *error = NULL;
    kit_fill(data, DISK, 2);
    struct xv_session *older = work_owner(&kit, 3);
    struct xv_disk_writer *old_writer = work_disk(older, "vdi-1", DISK, -1);
    kit_put(older, old_writer, 0, data, DISK / 2);
    work_checkpoint(older);
    kit_put(older, old_writer, DISK / 2, data + DISK / 2, KIT_CHUNK);
    struct xv_session *newer = work_owner(&kit, 1ull << 62);
    struct xv_disk_writer *writer = work_disk(newer, "vdi-1", DISK, -1);
    const char *says = "session 3 of 'pool/vm-1' is void: session 4611686018427387904 took over";
    ck_fails_saying(xv_session_checkpoint(older, NULL, &error), XVSA_ERR_FENCED, says, error);
    struct xv_extents have;
    xv_extents_init(&have);
    ck_fails_saying(xv_work_adopt(old_writer, NULL, &have, &error), XVSA_ERR_FENCED, says, error);
    xv_extents_free(&have);
    work_finish(old_writer);
    ck_fails_saying(xv_session_commit(older, &point_facts, NULL, id, &error), XVSA_ERR_FENCED, says,
                    error);
    ck_fails(xv_session_park(older, NULL, &error), XVSA_ERR_FENCED, error);
    xv_session_free(older);
    ck_assert_uint_eq(work_adopted(writer), DISK / 2);
    kit_put(newer, writer, DISK / 2, data + DISK / 2, DISK / 2);
    work_finish(writer);
    kit_commit(newer, id);
    xv_session_free(newer);
    kit_reopen(&kit);
    kit_expect(&kit, id, 0, data, DISK);
    free(data);
    kit_free(&kit);
}
END_TEST

START_TEST(idle_zombie_hears_of_it)
{
    struct kit kit = kit_new(false);
    xvsa_error *error = NULL;
    struct xv_session *older = work_owner(&kit, 1);
    work_checkpoint(older);
    struct xv_session *newer = work_owner(&kit, 2);
    ck_fails(xv_session_checkpoint(older, NULL, &error), XVSA_ERR_FENCED, error);
    xv_session_free(older);
    xv_session_free(newer);
    kit_free(&kit);
}
END_TEST

START_TEST(parked_work_is_gone_on_with)
{
    struct kit kit = kit_new(true);
    uint8_t *data = malloc(DISK);
    char id[XV_POINT_ID_LENGTH + 1];
    xvsa_error *error = NULL;
    kit_fill(data, DISK, 3);
    struct xv_session *session = work_owner(&kit, 1);
    struct xv_session *part = work_part(&kit, "a");
    kit_put(session, work_disk(session, "vdi-1", DISK, -1), 0, data, DISK / 4);
    ck_ok(xv_session_park(session, NULL, &error), error);
    ck_ok(xv_session_abort(session, NULL, &error), error);
    xv_session_free(session);
    /* Who takes part goes on while nobody owns it. */
    kit_put(part, work_disk(part, "vdi-1", DISK, -1), DISK / 4, data + DISK / 4, DISK / 4);
    ck_ok(xv_session_park(part, NULL, &error), error);
    xv_session_free(part);
    kit_reopen(&kit);
    ck_assert_uint_eq(work_done(&kit, WORK_ID, "vdi-1"), DISK / 2);
    session = work_owner(&kit, 2);
    struct xv_disk_writer *writer = work_disk(session, "vdi-1", DISK, -1);
    ck_assert_uint_eq(work_adopted(writer), DISK / 2);
    kit_put(session, writer, DISK / 2, data + DISK / 2, DISK / 2);
    work_finish(writer);
    kit_commit(session, id);
    xv_session_free(session);
    kit_expect(&kit, id, 0, data, DISK);
    free(data);
    kit_free(&kit);
}
END_TEST

/* How a work ends, other than by its commit. */
START_TEST(work_ends_with_its_lineage)
{
    struct kit kit = kit_new(true);
    uint8_t *data = malloc(DISK);
    xvsa_error *error = NULL;
    struct xv_session_options options = {.job_key = WORK_KEY "#x", .kind = XV_SESSION_PART};
    struct xv_session *session = NULL;
    kit_fill(data, DISK, 4);
    for (int way = 0; way < 3; way++) {
        struct xv_session *owner = work_owner(&kit, 0);
        struct xv_session *part = work_part(&kit, "a");
        struct xv_disk_writer *writer = work_disk(part, "vdi-1", DISK, -1);
        kit_put(owner, work_disk(owner, "vdi-1", DISK, -1), 0, data, KIT_CHUNK);
        work_checkpoint(owner);
        ck_assert_uint_eq(work_objects(&kit, "w/"), 1);
        struct xv_session *next = NULL;
        if (way == 0)
            ck_ok(xv_session_abort(owner, NULL, &error), error);
        else
            next = work_begin(&kit, XV_SESSION_BACKUP, WORK_KEY, 0, way == 1 ? WORK_OTHER : NULL,
                              NULL);
        ck_assert_uint_eq(work_done(&kit, WORK_ID, "vdi-1"), 0);
        ck_assert_uint_eq(work_objects(&kit, "w/"), 0);
        /* Its parts cannot add to it, nor new ones begin. */
        kit_put(part, writer, KIT_CHUNK, data + KIT_CHUNK, KIT_CHUNK);
        ck_fails_saying(xv_session_checkpoint(part, NULL, &error), XVSA_ERR_FENCED,
                        "somebody else ended it", error);
        ck_assert_uint_eq(work_objects(&kit, "w/"), 0);
        ck_ok(xv_session_abort(part, NULL, &error), error);
        options.work_id = WORK_ID;
        ck_fails(xv_session_begin(kit.repo, &options, NULL, &session, &error), XVSA_ERR_FENCED,
                 error);
        xv_session_free(next);
        xv_session_free(part);
        xv_session_free(owner);
    }
    free(data);
    kit_free(&kit);
}
END_TEST

/* A part whose process died does not keep the base from being deleted once the work is over. */
START_TEST(dead_part_releases_base)
{
    struct kit kit = kit_new(true);
    uint8_t *data = malloc(DISK);
    xvsa_error *error = NULL;
    kit_fill(data, DISK, 6);
    for (int way = 0; way < 3; way++) {
        char id[XV_POINT_ID_LENGTH + 1];
        char other[XV_POINT_ID_LENGTH + 1];
        struct xv_point *base = NULL;
        struct xv_session *first = work_owner(&kit, 0);
        struct xv_disk_writer *writer = work_disk(first, "vdi-1", DISK, -1);
        kit_put(first, writer, 0, data, DISK);
        work_finish(writer);
        ck_ok(xv_session_commit(first, &point_facts, NULL, id, &error), error);
        xv_session_free(first);
        ck_ok(xv_repo_find_point(kit.repo, id, NULL, &base, &error), error);
        struct xv_session *owner = work_begin(&kit, XV_SESSION_BACKUP, WORK_KEY, 0, WORK_ID, base);
        struct xv_session *part =
            work_begin(&kit, XV_SESSION_PART, WORK_KEY "#a", 0, WORK_ID, base);
        struct xv_session *next = NULL;
        ck_fails(xv_point_delete(base, NULL, &error), XVSA_ERR_BUSY, error);
        if (way == 0) {
            writer = work_disk(owner, "vdi-1", DISK, -1);
            kit_put(owner, writer, 0, data, DISK);
            work_finish(writer);
            ck_ok(xv_session_commit(owner, &point_facts, NULL, other, &error), error);
        } else if (way == 1) {
            ck_ok(xv_session_abort(owner, NULL, &error), error);
        } else {
            next = work_begin(&kit, XV_SESSION_BACKUP, WORK_KEY, 0, WORK_OTHER, NULL);
        }
        ck_ok(xv_point_delete(base, NULL, &error), error);
        xv_session_free(next);
        xv_session_free(part);
        xv_session_free(owner);
        xv_point_unref(base);
    }
    free(data);
    kit_free(&kit);
}
END_TEST

/* A part ends alone: the work stays. */
START_TEST(part_ends_alone)
{
    struct kit kit = kit_new(false);
    uint8_t *data = malloc(DISK);
    xvsa_error *error = NULL;
    kit_fill(data, DISK, 5);
    struct xv_session *owner = work_owner(&kit, 1);
    struct xv_session *part = work_part(&kit, "a");
    kit_put(part, work_disk(part, "vdi-1", DISK, -1), 0, data, DISK);
    work_checkpoint(part);
    ck_ok(xv_session_abort(part, NULL, &error), error);
    xv_session_free(part);
    struct xv_disk_writer *writer = work_disk(owner, "vdi-1", DISK, -1);
    ck_assert_uint_eq(work_adopted(writer), DISK);
    xv_session_free(owner);
    free(data);
    kit_free(&kit);
}
END_TEST

START_TEST(part_makes_no_point)
{
    struct kit kit = kit_new(false);
    char id[XV_POINT_ID_LENGTH + 1];
    xvsa_error *error = NULL;
    struct xv_extents none;
    xv_extents_init(&none);
    struct xv_session *owner = work_owner(&kit, 1);
    struct xv_session *part = work_part(&kit, "a");
    struct xv_disk_writer *writer = work_disk(part, "vdi-1", DISK, -1);
    ck_fails(xv_disk_writer_finish(writer, "{}", NULL, &error), XVSA_ERR_INVALID, error);
    ck_fails(xv_disk_writer_keep(writer, &none, NULL, &error), XVSA_ERR_INVALID, error);
    ck_fails(xv_work_adopt(writer, NULL, &none, &error), XVSA_ERR_INVALID, error);
    struct xv_work_disk disk = {"vdi-1", "0", DISK, -1, &none, &none, NULL};
    ck_fails(xv_work_put_map(part, &disk, NULL, &error), XVSA_ERR_INVALID, error);
    ck_fails(xv_session_commit(part, &point_facts, NULL, id, &error), XVSA_ERR_INVALID, error);
    /* And a work has a name of the right form, and of backups and parts only. */
    const char *const bad[] = {"0011", "00112233445566778899aabbccddeefg",
                               "00000000000000000000000000000000"};
    struct xv_session *session = NULL;
    for (size_t i = 0; i < 3; i++) {
        struct xv_session_options options = {.job_key = "k", .work_id = bad[i]};
        ck_fails(xv_session_begin(kit.repo, &options, NULL, &session, &error), XVSA_ERR_INVALID,
                 error);
    }
    struct xv_session_options restore = {
        .job_key = "k", .kind = XV_SESSION_RESTORE, .work_id = WORK_ID};
    ck_fails(xv_session_begin(kit.repo, &restore, NULL, &session, &error), XVSA_ERR_INVALID, error);
    struct xv_session_options nameless = {.job_key = "k", .kind = XV_SESSION_PART};
    ck_fails(xv_session_begin(kit.repo, &nameless, NULL, &session, &error), XVSA_ERR_INVALID,
             error);
    xv_session_free(part);
    xv_session_free(owner);
    kit_free(&kit);
}
END_TEST

/* A chunk counts once its frame was sealed, not before. */
START_TEST(gathered_chunk_is_not_done)
{
    struct kit kit = kit_new(false);
    uint8_t *data = malloc(KIT_CHUNK);
    xvsa_error *error = NULL;
    struct xv_packer *packer = NULL;
    kit_fill(data, KIT_CHUNK, 6);
    struct xv_session *owner = work_owner(&kit, 1);
    struct xv_disk_writer *writer = work_disk(owner, "vdi-1", DISK, -1);
    ck_ok(xv_packer_new(owner, &packer, &error), error);
    ck_ok(xv_packer_put(packer, writer, 0, data, KIT_CHUNK, NULL, &error), error);
    work_checkpoint(owner);
    ck_assert_uint_eq(work_done(&kit, WORK_ID, "vdi-1"), 0);
    ck_ok(xv_packer_flush(packer, NULL, &error), error);
    work_checkpoint(owner);
    ck_assert_uint_eq(work_done(&kit, WORK_ID, "vdi-1"), KIT_CHUNK);
    xv_packer_free(packer);
    xv_session_free(owner);
    free(data);
    kit_free(&kit);
}
END_TEST

static int32_t first_name(void *sink, const char *name, const xvsa_object_info *info)
{
    (void)info;
    if (*(char *)sink == '\0')
        snprintf(sink, 256, "%s", name);
    return 0;
}

/* Path of an object, the first with this prefix. */
static void find_object(struct kit *kit, const char *prefix, char path[512])
{
    char name[256] = "";
    xvsa_error *error = NULL;
    ck_ok(xv_target_list(kit->target, prefix, first_name, name, NULL, &error), error);
    ck_assert(name[0] != '\0');
    snprintf(path, 512, "%s/%s", kit->folder, name);
}

static void flip(const char *path, off_t offset)
{
    uint8_t byte;
    ck_assert_int_eq(chmod(path, 0600), 0);
    int fd = open(path, O_RDWR);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(pread(fd, &byte, 1, offset), 1);
    byte ^= 0x10;
    ck_assert_int_eq(pwrite(fd, &byte, 1, offset), 1);
    close(fd);
}

/* Progress that cannot be read, or whose chunks the index does not have, costs time and nothing else. */
START_TEST(damaged_progress_is_moved_again)
{
    for (int way = 0; way < 3; way++) {
        struct kit kit = kit_new(true);
        uint8_t *data = malloc(DISK);
        char id[XV_POINT_ID_LENGTH + 1];
        char path[512];
        kit_fill(data, DISK, 7);
        struct xv_session *older = work_owner(&kit, 1);
        kit_put(older, work_disk(older, "vdi-1", DISK, -1), 0, data, DISK / 2);
        work_checkpoint(older);
        xv_session_free(older);
        find_object(&kit, way == 2 ? "ix/" : "w/", path);
        if (way == 0)
            ck_assert_int_eq(unlink(path), 0);
        else
            flip(path, 100);
        kit_reopen(&kit);
        struct xv_session *newer = work_owner(&kit, 2);
        struct xv_disk_writer *writer = work_disk(newer, "vdi-1", DISK, -1);
        ck_assert_uint_eq(work_adopted(writer), 0);
        kit_put(newer, writer, 0, data, DISK);
        ck_assert_uint_eq(work_adopted(writer), DISK);
        work_finish(writer);
        kit_commit(newer, id);
        xv_session_free(newer);
        kit_reopen(&kit);
        kit_expect(&kit, id, 0, data, DISK);
        free(data);
        kit_free(&kit);
    }
}
END_TEST

struct mover {
    struct xv_session *session;
    struct xv_disk_writer *writer;
    const uint8_t *data;
    size_t first;
};

static void *move_chunks(void *argument)
{
    struct mover *mover = argument;
    struct xv_packer *packer = NULL;
    xvsa_error *error = NULL;
    ck_ok(xv_packer_new(mover->session, &packer, &error), error);
    for (size_t chunk = mover->first; chunk < CHUNKS; chunk += 2)
        ck_ok(xv_packer_put(packer, mover->writer, chunk * KIT_CHUNK,
                            mover->data + chunk * KIT_CHUNK, KIT_CHUNK, NULL, &error),
              error);
    ck_ok(xv_packer_flush(packer, NULL, &error), error);
    xv_packer_free(packer);
    return NULL;
}

/* Threads put, another one makes checkpoints, the owner adopts, all at once. */
START_TEST(checkpoints_race_with_putting)
{
    struct kit kit = kit_new(false);
    uint8_t *data = malloc(DISK);
    char id[XV_POINT_ID_LENGTH + 1];
    pthread_t threads[2];
    struct mover movers[2];
    kit_fill(data, DISK, 8);
    struct xv_session *owner = work_owner(&kit, 1);
    struct xv_session *part = work_part(&kit, "a");
    struct xv_disk_writer *writer = work_disk(owner, "vdi-1", DISK, -1);
    struct xv_disk_writer *theirs = work_disk(part, "vdi-1", DISK, -1);
    for (size_t i = 0; i < 2; i++) {
        movers[i] = (struct mover){part, theirs, data, i};
        ck_assert_int_eq(pthread_create(&threads[i], NULL, move_chunks, &movers[i]), 0);
    }
    for (int i = 0; i < 20; i++) {
        work_checkpoint(part);
        (void)work_adopted(writer);
    }
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    work_checkpoint(part);
    ck_assert_uint_eq(work_adopted(writer), DISK);
    work_finish(writer);
    kit_commit(owner, id);
    xv_session_free(part);
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
    tcase_add_test(tests, dead_part_releases_base);
    tcase_add_test(tests, successor_goes_on_and_fences);
    tcase_add_test(tests, idle_zombie_hears_of_it);
    tcase_add_test(tests, parked_work_is_gone_on_with);
    tcase_add_test(tests, work_ends_with_its_lineage);
    tcase_add_test(tests, part_ends_alone);
    tcase_add_test(tests, part_makes_no_point);
    tcase_add_test(tests, gathered_chunk_is_not_done);
    tcase_add_test(tests, damaged_progress_is_moved_again);
    tcase_add_test(tests, checkpoints_race_with_putting);
    suite_add_tcase(suite, tests);
}

UNIT_MAIN("repo_work")
