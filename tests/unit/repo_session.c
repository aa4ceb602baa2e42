/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Sessions: what is written comes back, what is the same is not stored again.
 */
#include "repo_kit.h"

#include "diff/extents.h"

#define DISK (40 * KIT_CHUNK)

START_TEST(full_point_comes_back)
{
    struct kit kit = kit_new(true);
    size_t length = 300 * KIT_CHUNK + 5120;
    uint8_t *data = calloc(1, length);
    char id[XV_POINT_ID_LENGTH + 1];
    kit_fill(data, 20 * KIT_CHUNK, 1);
    kit_fill(data + 150 * KIT_CHUNK, 30 * KIT_CHUNK, 2);
    kit_fill(data + 290 * KIT_CHUNK, 10 * KIT_CHUNK + 5120, 3);
    kit_store(&kit, "pool/vm-1", data, length, id);
    kit_expect(&kit, id, 0, data, length);
    kit_reopen(&kit);
    kit_expect(&kit, id, 0, data, length);
    kit_expect(&kit, "latest:web", 0, data, length);
    free(data);
    kit_free(&kit);
}
END_TEST

START_TEST(increment_keeps_and_compares)
{
    struct kit kit = kit_new(false);
    uint8_t *data = malloc(DISK);
    char first[XV_POINT_ID_LENGTH + 1], second[XV_POINT_ID_LENGTH + 1];
    kit_fill(data, DISK, 7);
    kit_store(&kit, "pool/vm-1", data, DISK, first);
    struct xv_point *base = kit_find(&kit, first);
    struct xv_session *session = kit_begin(&kit, "pool/vm-1", base);
    ck_assert_ptr_eq(xv_session_base(session), base);
    xvsa_error *error = NULL;
    struct xv_disk_writer *writer = NULL;
    ck_ok(xv_session_add_disk(session, "vdi-1", "0", DISK, 0, NULL, &writer, &error), error);
    struct xv_extents kept;
    xv_extents_init(&kept);
    ck_ok(xv_extents_add(&kept, 0, 10 * KIT_CHUNK, &error), error);
    ck_ok(xv_extents_add(&kept, 12 * KIT_CHUNK, DISK - 12 * KIT_CHUNK, &error), error);
    ck_ok(xv_disk_writer_keep(writer, &kept, NULL, &error), error);
    kit_fill(data + 10 * KIT_CHUNK, KIT_CHUNK, 99);
    kit_put(session, writer, 10 * KIT_CHUNK, data + 10 * KIT_CHUNK, 2 * KIT_CHUNK);
    bool same = false;
    ck_ok(xv_disk_writer_matches_base(writer, 11 * KIT_CHUNK, data + 11 * KIT_CHUNK, KIT_CHUNK,
                                      NULL, &same, &error),
          error);
    ck_assert(same);
    ck_ok(xv_disk_writer_matches_base(writer, 10 * KIT_CHUNK, data + 10 * KIT_CHUNK, 2 * KIT_CHUNK,
                                      NULL, &same, &error),
          error);
    ck_assert(!same);
    ck_ok(xv_disk_writer_finish(writer, "{}", NULL, &error), error);
    struct xv_store_stats stats;
    xv_disk_writer_stats(writer, &stats);
    ck_assert_uint_eq(stats.bytes_kept, DISK - 2 * KIT_CHUNK);
    ck_assert_uint_eq(stats.bytes_same, KIT_CHUNK);
    ck_assert_uint_eq(stats.bytes_new, KIT_CHUNK);
    kit_commit(session, second);
    xv_session_free(session);
    xv_point_unref(base);
    xv_extents_free(&kept);
    kit_expect(&kit, second, 0, data, DISK);
    free(data);
    kit_free(&kit);
}
END_TEST

enum { THREADS = 4 };

struct part {
    struct xv_session *session;
    struct xv_disk_writer *writers[2];
    const uint8_t *data;
    int number;
};

/* Every fourth block of both disks. */
static void *put_part(void *argument)
{
    struct part *part = argument;
    struct xv_packer *packer = NULL;
    xvsa_error *error = NULL;
    ck_ok(xv_packer_new(part->session, &packer, &error), error);
    for (int block = part->number; block < 300 / 3; block += THREADS) {
        for (int disk = 0; disk < 2; disk++) {
            size_t at = (size_t)block * 3 * KIT_CHUNK;
            ck_ok(xv_packer_put(packer, part->writers[disk], at, part->data + at, 3 * KIT_CHUNK,
                                NULL, &error),
                  error);
        }
    }
    ck_ok(xv_packer_flush(packer, NULL, &error), error);
    xv_packer_free(packer);
    return NULL;
}

static void *drain(void *argument)
{
    struct part *part = argument;
    struct xv_block_queue *queue = (struct xv_block_queue *)part->session;
    struct xv_block *block;
    while ((block = xv_block_queue_pop(queue, NULL)) != NULL) {
        ck_assert(memcmp(block->data, part->data + block->offset, block->length) == 0);
        part->number += (int)(block->length / KIT_CHUNK);
        xv_block_queue_release(queue, block);
    }
    return NULL;
}

static void stream_back(struct kit *kit, const char *id, const uint8_t *data)
{
    struct xv_point *point = kit_find(kit, id);
    struct xv_disk *disk = NULL;
    struct xv_extents ranges;
    xvsa_error *error = NULL;
    struct part part = {.data = data};
    struct xv_block_queue *queue = NULL;
    pthread_t thread;
    ck_ok(xv_point_open_disk(point, 1, NULL, &disk, &error), error);
    ck_ok(xv_block_queue_new(4, 5 * KIT_CHUNK, &queue, &error), error);
    part.session = (struct xv_session *)queue;
    xv_extents_init(&ranges);
    /* Data, and some of the hole behind it. */
    ck_ok(xv_extents_add(&ranges, 0, 310 * KIT_CHUNK, &error), error);
    ck_assert_int_eq(pthread_create(&thread, NULL, drain, &part), 0);
    ck_ok(xv_disk_stream(disk, &ranges, queue, NULL, NULL, &error), error);
    xv_block_queue_close(queue);
    pthread_join(thread, NULL);
    ck_assert_int_eq(part.number, 310);
    xv_block_queue_free(queue);
    xv_extents_free(&ranges);
    xv_disk_close(disk);
    xv_point_unref(point);
}

START_TEST(threads_write_and_read)
{
    struct kit kit = kit_new(false);
    size_t size = 320 * KIT_CHUNK;
    uint8_t *data = calloc(1, size);
    struct part parts[THREADS];
    pthread_t threads[THREADS];
    struct xv_disk_writer *writers[2];
    char id[XV_POINT_ID_LENGTH + 1];
    xvsa_error *error = NULL;
    kit_fill(data, 300 * KIT_CHUNK, 9);
    struct xv_session *session = kit_begin(&kit, "k", NULL);
    for (int i = 0; i < 2; i++)
        ck_ok(xv_session_add_disk(session, i == 0 ? "a" : "b", "0", size, -1, NULL, &writers[i],
                                  &error),
              error);
    for (int i = 0; i < THREADS; i++) {
        parts[i] = (struct part){session, {writers[0], writers[1]}, data, i};
        ck_assert_int_eq(pthread_create(&threads[i], NULL, put_part, &parts[i]), 0);
    }
    ck_ok(xv_session_checkpoint(session, NULL, &error), error);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 2; i++)
        ck_ok(xv_disk_writer_finish(writers[i], "{}", NULL, &error), error);
    kit_commit(session, id);
    xv_session_free(session);
    kit_expect(&kit, id, 0, data, size);
    kit_expect(&kit, id, 1, data, size);
    stream_back(&kit, id, data);
    free(data);
    kit_free(&kit);
}
END_TEST

START_TEST(checkpoint_outlives_its_session)
{
    struct kit kit = kit_new(true);
    uint8_t *data = malloc(DISK);
    char id[XV_POINT_ID_LENGTH + 1];
    xvsa_error *error = NULL;
    struct xv_disk_writer *writer = NULL;
    struct xv_store_stats stats;
    kit_fill(data, DISK, 4);
    struct xv_session *session = kit_begin(&kit, "k", NULL);
    ck_ok(xv_session_add_disk(session, "a", "0", DISK, -1, NULL, &writer, &error), error);
    kit_put(session, writer, 0, data, DISK / 2);
    ck_ok(xv_session_checkpoint(session, NULL, &error), error);
    xv_session_free(session);
    kit_reopen(&kit);
    session = kit_begin(&kit, "k", NULL);
    ck_ok(xv_session_add_disk(session, "a", "0", DISK, -1, NULL, &writer, &error), error);
    kit_put(session, writer, 0, data, DISK);
    xv_disk_writer_stats(writer, &stats);
    ck_assert_uint_eq(stats.bytes_known, DISK / 2);
    ck_assert_uint_eq(stats.bytes_new, DISK / 2);
    ck_ok(xv_disk_writer_finish(writer, "{}", NULL, &error), error);
    kit_commit(session, id);
    xv_session_free(session);
    kit_expect(&kit, id, 0, data, DISK);
    free(data);
    kit_free(&kit);
}
END_TEST

static int32_t put_always(void *instance, const xvsa_target_call *call, const char *name,
                          const xvsa_buffer *pieces, uint32_t count, uint32_t flags,
                          xvsa_error **error)
{
    (void)flags;
    return xv_memory_ops.put(instance, call, name, pieces, count, 0, error);
}

START_TEST(point_never_lacks_a_finished_disk)
{
    struct kit kit = kit_new(false);
    struct xv_session *session = NULL;
    struct xv_disk_writer *writer = NULL;
    xvsa_error *error = NULL;
    const struct xv_session_options begin = {.job_key = "pool/vm"};
    const struct xv_point_facts facts = {
        .vm_uuid = "vm", .vm_name = "vm", .pool_uuid = "pool", .job_id = "job", .metadata = "{}"};
    char id[XV_POINT_ID_LENGTH + 1];
    ck_ok(xv_session_begin(kit.repo, &begin, NULL, &session, &error), error);
    ck_ok(xv_session_add_disk(session, "disk", "0", KIT_CHUNK, -1, NULL, &writer, &error), error);
    ck_ok(xv_disk_writer_finish(writer, "{}", NULL, &error), error);
    xv_disk_writer_free(writer);
    ck_fails(xv_session_commit(session, &facts, NULL, id, &error), XVSA_ERR_STATE, error);
    xv_session_free(session);
    kit_free(&kit);
}
END_TEST

/* Who could not begin leaves nothing active that keeps the base from being deleted. */
START_TEST(failed_beginning_pins_nothing)
{
    struct kit kit = kit_new(true);
    uint8_t *data = malloc(DISK);
    char id[XV_POINT_ID_LENGTH + 1];
    char command[512];
    kit_fill(data, DISK, 7);
    kit_store(&kit, "pool/vm-1", data, DISK, id);
    kit_reopen(&kit);
    struct xv_point *base = kit_find(&kit, id);
    struct xv_session_options options = {
        .job_key = "restore/1", .base = base, .kind = XV_SESSION_RESTORE};
    struct xv_session *session = NULL;
    xvsa_error *error = NULL;
    snprintf(command, sizeof command,
             "cd '%s' && mv ix kept && mkdir ix && for i in $(ls kept); do ln -s . ix/$i; done",
             kit.folder);
    ck_assert_int_eq(system(command), 0);
    ck_fails(xv_session_begin(kit.repo, &options, NULL, &session, &error), XVSA_ERR_IO, error);
    snprintf(command, sizeof command, "cd '%s' && rm -r ix && mv kept ix", kit.folder);
    ck_assert_int_eq(system(command), 0);
    ck_ok(xv_point_delete(base, NULL, &error), error);
    xv_point_unref(base);
    free(data);
    kit_free(&kit);
}
END_TEST

static bool is_of_job(void *user, const char *key)
{
    return strncmp(key, user, strlen(user)) == 0;
}

START_TEST(restores_that_are_over_release_their_points)
{
    struct kit kit = kit_new(false);
    uint8_t *data = malloc(DISK);
    char id[XV_POINT_ID_LENGTH + 1];
    size_t ended = 9;
    kit_fill(data, DISK, 7);
    kit_store(&kit, "pool/vm-1", data, DISK, id);
    struct xv_point *point = kit_find(&kit, id);
    struct xv_session_options options = {
        .job_key = "restore/1/p", .base = point, .kind = XV_SESSION_RESTORE};
    struct xv_session *one = NULL, *two = NULL;
    xvsa_error *error = NULL;
    ck_ok(xv_session_begin(kit.repo, &options, NULL, &one, &error), error);
    options.job_key = "restore/2/p";
    ck_ok(xv_session_begin(kit.repo, &options, NULL, &two, &error), error);
    ck_ok(xv_repo_end_restores(kit.repo, is_of_job, "restore/3/", NULL, &ended, &error), error);
    ck_assert_uint_eq(ended, 0);
    ck_ok(xv_repo_end_restores(kit.repo, is_of_job, "restore/1/", NULL, &ended, &error), error);
    ck_assert_uint_eq(ended, 1);
    ck_fails(xv_point_delete(point, NULL, &error), XVSA_ERR_BUSY, error);
    ck_ok(xv_session_abort(two, NULL, &error), error);
    ck_ok(xv_point_delete(point, NULL, &error), error);
    ck_ok(xv_session_abort(one, NULL, &error), error);
    xv_session_free(one);
    xv_session_free(two);
    xv_point_unref(point);
    free(data);
    kit_free(&kit);
}
END_TEST

START_TEST(target_without_conditional_writes_has_one_writer)
{
    struct kit kit = {0};
    xvsa_target_ops ops = xv_memory_ops;
    struct xv_repo_options options = kit_options();
    struct xv_repo *other = NULL;
    xvsa_error *error = NULL;
    char id[XV_POINT_ID_LENGTH + 1];
    uint8_t *data = malloc(DISK);
    char *json = NULL;
    ops.put = put_always;
    ck_ok(xv_target_registry_new(&kit.registry, &error), error);
    ck_ok(xv_target_registry_add(kit.registry, "lying", &ops, NULL, &error), error);
    ck_ok(xv_target_open(kit.registry, NULL, "lying:", 0, NULL, &kit.target, &error), error);
    ck_ok(xv_repo_init(kit.target, &options, NULL, &kit.repo, &error), error);
    ck_ok(xv_repo_describe(kit.repo, NULL, &json, &error), error);
    ck_assert_ptr_nonnull(strstr(json, "\"one-machine\""));
    free(json);
    ck_fails(xv_repo_open(kit.target, &options, NULL, &other, &error), XVSA_ERR_BUSY, error);
    kit_fill(data, DISK, 8);
    kit_store(&kit, "k", data, DISK, id);
    options.flags = XVSA_REPO_READ_ONLY;
    ck_ok(xv_repo_open(kit.target, &options, NULL, &other, &error), error);
    xv_repo_unref(other);
    kit_expect(&kit, id, 0, data, DISK);
    free(data);
    kit_free(&kit);
}
END_TEST

static void fill(Suite *suite)
{
    TCase *tests = tcase_create("session");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, full_point_comes_back);
    tcase_add_test(tests, increment_keeps_and_compares);
    tcase_add_test(tests, threads_write_and_read);
    tcase_add_test(tests, checkpoint_outlives_its_session);
    tcase_add_test(tests, point_never_lacks_a_finished_disk);
    tcase_add_test(tests, failed_beginning_pins_nothing);
    tcase_add_test(tests, restores_that_are_over_release_their_points);
    tcase_add_test(tests, target_without_conditional_writes_has_one_writer);
    suite_add_tcase(suite, tests);
}

UNIT_MAIN("repo_session")
