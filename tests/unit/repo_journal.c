/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The journal's rules: fencing, pins, deletion, appends by several processes, killed writers.
 */
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "repo_kit.h"

#define DISK (20 * KIT_CHUNK)

static struct xv_disk_writer *write_disk(struct xv_session *session, const uint8_t *data)
{
    xvsa_error *error = NULL;
    struct xv_disk_writer *writer = NULL;
    ck_ok(xv_session_add_disk(session, "vdi-1", "0", DISK, -1, NULL, &writer, &error), error);
    kit_put(session, writer, 0, data, DISK);
    ck_ok(xv_disk_writer_finish(writer, "{}", NULL, &error), error);
    return writer;
}

static uint64_t count_points(struct kit *kit)
{
    char *json = NULL;
    xvsa_error *error = NULL;
    ck_ok(xv_repo_list_points(kit->repo, NULL, NULL, &json, &error), error);
    uint64_t count = 0;
    for (const char *at = json; (at = strstr(at, "\"id\"")) != NULL; at++)
        count++;
    free(json);
    return count;
}

static uint64_t count_faults(struct kit *kit)
{
    struct xv_verify_options options = {0};
    struct xv_verify_result result;
    xvsa_error *error = NULL;
    ck_ok(xv_repo_verify(kit->repo, &options, NULL, &result, &error), error);
    return result.faults;
}

START_TEST(newer_session_fences_older)
{
    struct kit kit = kit_new(false);
    uint8_t *data = malloc(DISK);
    char id[XV_POINT_ID_LENGTH + 1];
    xvsa_error *error = NULL;
    struct xv_point_facts facts = {.vm_uuid = "vm-1", .vm_name = "web", .taken_ms = 1};
    kit_fill(data, DISK, 1);
    struct xv_session *older = kit_begin(&kit, "pool/vm-1", NULL);
    struct xv_session *other = kit_begin(&kit, "pool/vm-2", NULL);
    write_disk(older, data);
    write_disk(other, data);
    struct xv_session *newer = kit_begin(&kit, "pool/vm-1", NULL);
    ck_fails(xv_session_checkpoint(older, NULL, &error), XVSA_ERR_FENCED, error);
    ck_fails(xv_session_commit(older, &facts, NULL, id, &error), XVSA_ERR_FENCED, error);
    ck_assert_uint_eq(count_points(&kit), 0);
    kit_commit(other, id);
    write_disk(newer, data);
    kit_commit(newer, id);
    ck_assert_uint_eq(count_points(&kit), 2);
    ck_assert_uint_eq(count_faults(&kit), 0);
    /* A token that was passed already begins nothing. */
    struct xv_session_options stale = {.job_key = "pool/vm-1", .token = 1};
    struct xv_session *none = NULL;
    ck_fails(xv_session_begin(kit.repo, &stale, NULL, &none, &error), XVSA_ERR_FENCED, error);
    ck_ok(xv_session_abort(older, NULL, &error), error);
    xv_session_free(older);
    xv_session_free(newer);
    xv_session_free(other);
    free(data);
    kit_free(&kit);
}
END_TEST

START_TEST(pinned_point_is_not_deleted)
{
    struct kit kit = kit_new(false);
    uint8_t *data = malloc(DISK);
    char id[XV_POINT_ID_LENGTH + 1];
    xvsa_error *error = NULL;
    kit_fill(data, DISK, 1);
    kit_store(&kit, "pool/vm-1", data, DISK, id);
    struct xv_point *point = kit_find(&kit, id);
    struct xv_session *session = kit_begin(&kit, "pool/vm-1", point);
    ck_fails(xv_point_delete(point, NULL, &error), XVSA_ERR_BUSY, error);
    ck_ok(xv_session_abort(session, NULL, &error), error);
    xv_session_free(session);
    ck_ok(xv_point_delete(point, NULL, &error), error);
    ck_fails(xv_point_delete(point, NULL, &error), XVSA_ERR_NOT_FOUND, error);
    struct xv_point *gone = NULL;
    ck_fails(xv_repo_find_point(kit.repo, id, NULL, &gone, &error), XVSA_ERR_NOT_FOUND, error);
    /* A base that is gone by the time of the beginning is not one. */
    session = kit_begin(&kit, "pool/vm-1", point);
    ck_assert_ptr_null(xv_session_base(session));
    xv_session_free(session);
    xv_point_unref(point);
    ck_assert_uint_eq(count_points(&kit), 0);
    free(data);
    kit_free(&kit);
}
END_TEST

/* The child of a fork opens the folder anew and stores points; never returns. */
static void run_child(const char *folder, int number, int rounds)
{
    struct kit kit = {0};
    char url[128];
    xvsa_error *error = NULL;
    struct xv_repo_options options = kit_options();
    uint8_t *data = malloc(DISK);
    snprintf(url, sizeof url, "file://%s", folder);
    int rc = xv_target_registry_new(&kit.registry, &error);
    if (rc == 0)
        rc = xv_target_open(kit.registry, NULL, url, 0, NULL, &kit.target, &error);
    if (rc == 0)
        rc = xv_repo_open(kit.target, &options, NULL, &kit.repo, &error);
    if (rc != 0)
        _exit(3);
    for (int i = 0; i < rounds; i++) {
        char id[XV_POINT_ID_LENGTH + 1];
        char key[32];
        snprintf(key, sizeof key, "pool/vm-%d", number);
        kit_fill(data, DISK, (uint64_t)(number * 1000 + i));
        struct xv_session_options begin = {.job_key = key};
        struct xv_session *session = NULL;
        struct xv_disk_writer *writer = NULL;
        struct xv_packer *packer = NULL;
        struct xv_point_facts facts = {.vm_uuid = key, .vm_name = "n", .taken_ms = i};
        rc = xv_session_begin(kit.repo, &begin, NULL, &session, &error);
        if (rc == 0)
            rc = xv_session_add_disk(session, "vdi", "0", DISK, -1, NULL, &writer, &error);
        if (rc == 0)
            rc = xv_packer_new(session, &packer, &error);
        if (rc == 0)
            rc = xv_packer_put(packer, writer, 0, data, DISK, NULL, &error);
        if (rc == 0)
            rc = xv_packer_flush(packer, NULL, &error);
        if (rc == 0)
            rc = xv_disk_writer_finish(writer, "{}", NULL, &error);
        if (rc == 0)
            rc = xv_session_commit(session, &facts, NULL, id, &error);
        if (rc != 0)
            _exit(4);
        xv_packer_free(packer);
        xv_session_free(session);
    }
    free(data);
    xv_repo_unref(kit.repo);
    xv_target_unref(kit.target);
    xv_target_registry_free(kit.registry);
    _exit(0);
}

START_TEST(processes_append_at_once)
{
    enum { PROCESSES = 4, ROUNDS = 6 };
    struct kit kit = kit_new(true);
    pid_t children[PROCESSES];
    for (int i = 0; i < PROCESSES; i++) {
        children[i] = unit_fork();
        if (children[i] == 0)
            run_child(kit.folder, i, ROUNDS);
    }
    for (int i = 0; i < PROCESSES; i++) {
        int status = 0;
        ck_assert_int_eq(waitpid(children[i], &status, 0), children[i]);
        ck_assert_int_eq(status, 0);
    }
    kit_reopen(&kit);
    ck_assert_uint_eq(count_points(&kit), PROCESSES * ROUNDS);
    ck_assert_uint_eq(count_faults(&kit), 0);
    kit_free(&kit);
}
END_TEST

START_TEST(killed_writer_leaves_only_complete_points)
{
    struct kit kit = kit_new(true);
    unsigned seed = 4711;
    /* On a slow machine no writer may have come to an end in the first rounds. */
    for (int round = 0; round < 15 || (round < 200 && count_points(&kit) == 0); round++) {
        pid_t child = unit_fork();
        if (child == 0)
            run_child(kit.folder, 0, 1000);
        seed = seed * 1103515245u + 12345u;
        struct timespec pause = {0, 30000000L + (long)(seed >> 2) % 370000000L};
        nanosleep(&pause, NULL);
        ck_assert_int_eq(kill(child, SIGKILL), 0);
        int status = 0;
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        ck_assert_msg(WIFSIGNALED(status), "the writer ended by itself with %d",
                      WEXITSTATUS(status));
        kit_reopen(&kit);
        ck_assert_uint_eq(count_faults(&kit), 0);
    }
    ck_assert_uint_gt(count_points(&kit), 0);
    uint8_t *data = malloc(DISK);
    char id[XV_POINT_ID_LENGTH + 1];
    kit_fill(data, DISK, 77);
    kit_store(&kit, "pool/vm-0", data, DISK, id);
    kit_expect(&kit, id, 0, data, DISK);
    /* A dead session's pins keep nobody from deleting. */
    ck_assert_uint_eq(count_faults(&kit), 0);
    free(data);
    kit_free(&kit);
}
END_TEST

START_TEST(dead_owner_does_not_pin)
{
    struct kit kit = kit_new(true);
    uint8_t *data = malloc(DISK);
    char id[XV_POINT_ID_LENGTH + 1];
    xvsa_error *error = NULL;
    kit_fill(data, DISK, 1);
    kit_store(&kit, "pool/vm-1", data, DISK, id);
    pid_t child = fork();
    if (child == 0) {
        struct kit own = {0};
        char url[128];
        struct xv_repo_options options = kit_options();
        snprintf(url, sizeof url, "file://%s", kit.folder);
        if (xv_target_registry_new(&own.registry, NULL) != 0 ||
            xv_target_open(own.registry, NULL, url, 0, NULL, &own.target, NULL) != 0 ||
            xv_repo_open(own.target, &options, NULL, &own.repo, NULL) != 0)
            _exit(3);
        struct xv_point *base = NULL;
        struct xv_session *session = NULL;
        if (xv_repo_find_point(own.repo, id, NULL, &base, NULL) != 0)
            _exit(4);
        struct xv_session_options begin = {.job_key = "pool/vm-1", .base = base};
        _exit(xv_session_begin(own.repo, &begin, NULL, &session, NULL) == 0 ? 0 : 5);
    }
    int status = 0;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    struct xv_point *point = kit_find(&kit, id);
    ck_ok(xv_point_delete(point, NULL, &error), error);
    xv_point_unref(point);
    free(data);
    kit_free(&kit);
}
END_TEST

START_TEST(read_only_repository_writes_nothing)
{
    struct kit kit = kit_new(true);
    struct xv_repo_options options = kit_options();
    struct xv_session_options begin = {.job_key = "k"};
    struct xv_repo *repo = NULL;
    struct xv_session *session = NULL;
    xvsa_error *error = NULL;
    options.flags = XVSA_REPO_READ_ONLY;
    ck_ok(xv_repo_open(kit.target, &options, NULL, &repo, &error), error);
    ck_fails(xv_session_begin(repo, &begin, NULL, &session, &error), XVSA_ERR_STATE, error);
    xv_repo_unref(repo);
    kit_free(&kit);
}
END_TEST

START_TEST(passphrase_and_init_are_checked)
{
    struct kit kit = kit_new(false);
    struct xv_repo_options options = kit_options();
    struct xv_repo *repo = NULL;
    xvsa_error *error = NULL;
    ck_fails(xv_repo_init(kit.target, &options, NULL, &repo, &error), XVSA_ERR_EXISTS, error);
    options.passphrase = "secreT";
    ck_fails(xv_repo_open(kit.target, &options, NULL, &repo, &error), XVSA_ERR_AUTH, error);
    options.passphrase = NULL;
    options.passphrase_size = 0;
    ck_fails(xv_repo_open(kit.target, &options, NULL, &repo, &error), XVSA_ERR_AUTH, error);
    kit_free(&kit);
    kit = kit_open(false);
    ck_fails(xv_repo_open(kit.target, &options, NULL, &repo, &error), XVSA_ERR_NOT_FOUND, error);
    ck_fails(xv_repo_init(kit.target, &options, NULL, &repo, &error), XVSA_ERR_INVALID, error);
    options.flags = XVSA_REPO_NO_ENCRYPTION;
    ck_ok(xv_repo_init(kit.target, &options, NULL, &repo, &error), error);
    xv_repo_unref(repo);
    /* Who brings a passphrase does not get a repository without encryption. */
    options = kit_options();
    ck_fails(xv_repo_open(kit.target, &options, NULL, &repo, &error), XVSA_ERR_AUTH, error);
    kit_free(&kit);
}
END_TEST

static void fill(Suite *suite)
{
    TCase *tests = tcase_create("journal");
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, newer_session_fences_older);
    tcase_add_test(tests, pinned_point_is_not_deleted);
    tcase_add_test(tests, processes_append_at_once);
    tcase_add_test(tests, killed_writer_leaves_only_complete_points);
    tcase_add_test(tests, dead_owner_does_not_pin);
    tcase_add_test(tests, read_only_repository_writes_nothing);
    tcase_add_test(tests, passphrase_and_init_are_checked);
    suite_add_tcase(suite, tests);
}

UNIT_MAIN("repo_journal")
