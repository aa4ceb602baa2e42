/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * One work by several processes that are killed at any moment: the point equals the source, and only what
 * no checkpoint told of is moved twice.
 */
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "work_kit.h"

#define CHUNKS 160u
#define SIZE   ((CHUNKS - 1) * KIT_CHUNK + 5120u)
#define DISKS  2u
#define ROUNDS 8
/* Chunks between two checkpoints. */
#define STEP 6u

/* One process: what it has put, and what of that its checkpoints tell of. Shared with the parent. */
struct mover {
    atomic_uint moved;
    atomic_uint saved;
};

struct shared {
    struct mover movers[2 * ROUNDS + 2];
};

static void fill_disk(uint8_t *data, unsigned disk)
{
    for (unsigned chunk = 0; chunk < CHUNKS; chunk++) {
        size_t at = (size_t)chunk * KIT_CHUNK;
        size_t length = SIZE - at < KIT_CHUNK ? SIZE - at : KIT_CHUNK;
        /* Every seventh chunk is of zeros, and some are alike. */
        if (chunk % 7 == 3)
            memset(data + at, 0, length);
        else
            kit_fill(data + at, length, disk * 1000u + chunk / 2 * 2 + (chunk % 4 == 0));
    }
}

static struct kit open_again(const char *folder)
{
    struct kit kit = {0};
    struct xv_repo_options options = kit_options();
    xvsa_error *error = NULL;
    char url[128];
    snprintf(url, sizeof url, "file://%s", folder);
    ck_ok(xv_target_registry_new(&kit.registry, &error), error);
    ck_ok(xv_target_open(kit.registry, NULL, url, 0, NULL, &kit.target, &error), error);
    ck_ok(xv_repo_open(kit.target, &options, NULL, &kit.repo, &error), error);
    return kit;
}

static bool has(const struct xv_extents *set, uint64_t offset)
{
    for (size_t i = 0; i < set->count; i++) {
        if (offset >= set->ranges[i].offset &&
            offset < set->ranges[i].offset + set->ranges[i].length)
            return true;
    }
    return false;
}

static const char *const keys[DISKS] = {"vdi-1", "vdi-2"};

/* Moves chunks of a disk that are not in have: every one, or those of one half (0 or 1). */
static void move_disk(struct xv_session *session, struct xv_disk_writer *writer,
                      const uint8_t *data, const struct xv_extents *have, int half,
                      struct mover *mover)
{
    struct xv_packer *packer = NULL;
    xvsa_error *error = NULL;
    unsigned since = 0;
    ck_ok(xv_packer_new(session, &packer, &error), error);
    for (unsigned chunk = 0; chunk < CHUNKS; chunk++) {
        size_t at = (size_t)chunk * KIT_CHUNK;
        size_t length = SIZE - at < KIT_CHUNK ? SIZE - at : KIT_CHUNK;
        if (has(have, at) || (half >= 0 && (int)(chunk / 8 % 2) != half))
            continue;
        unsigned moved = atomic_fetch_add(&mover->moved, 1) + 1;
        ck_ok(xv_packer_put(packer, writer, at, data + at, length, NULL, &error), error);
        /* So that kills find it at work. */
        nanosleep(&(struct timespec){0, 300000}, NULL);
        if (++since < STEP)
            continue;
        since = 0;
        ck_ok(xv_packer_flush(packer, NULL, &error), error);
        ck_ok(xv_session_checkpoint(session, NULL, &error), error);
        atomic_store(&mover->saved, moved);
    }
    ck_ok(xv_packer_flush(packer, NULL, &error), error);
    ck_ok(xv_session_checkpoint(session, NULL, &error), error);
    atomic_store(&mover->saved, atomic_load(&mover->moved));
    xv_packer_free(packer);
}

static void run_part(const char *folder, uint8_t *const *data, struct mover *mover)
{
    struct kit kit = open_again(folder);
    struct xv_session *session = work_part(&kit, "helper");
    xvsa_error *error = NULL;
    for (unsigned i = 0; i < DISKS; i++) {
        struct xv_extents done;
        xv_extents_init(&done);
        ck_ok(xv_work_done(kit.repo, WORK_ID, keys[i], NULL, &done, &error), error);
        move_disk(session, work_disk(session, keys[i], SIZE, -1), data[i], &done, 0, mover);
        xv_extents_free(&done);
    }
    _exit(0);
}

/* half < 0: the last one, which moves whatever is missing and commits. */
static void run_owner(const char *folder, uint8_t *const *data, int half, struct mover *mover)
{
    struct kit kit = open_again(folder);
    struct xv_session *session = work_owner(&kit, 0);
    char id[XV_POINT_ID_LENGTH + 1];
    for (unsigned i = 0; i < DISKS; i++) {
        struct xv_disk_writer *writer = work_disk(session, keys[i], SIZE, -1);
        struct xv_extents have = work_adopt(writer);
        move_disk(session, writer, data[i], &have, half, mover);
        xv_extents_free(&have);
        if (half < 0) {
            ck_assert_uint_eq(work_adopted(writer), SIZE);
            work_finish(writer);
        }
    }
    if (half < 0)
        kit_commit(session, id);
    _exit(0);
}

static void kill_later(pid_t child, unsigned *seed)
{
    *seed = *seed * 1103515245u + 12345u;
    struct timespec pause = {0, 5000000L + (long)(*seed >> 2) % 60000000L};
    nanosleep(&pause, NULL);
    (void)kill(child, SIGKILL);
    int status = 0;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFSIGNALED(status) || WEXITSTATUS(status) == 0, "a mover ended with %d",
                  WEXITSTATUS(status));
}

START_TEST(killed_movers_lose_what_no_checkpoint_told)
{
    struct kit kit = kit_new(true);
    uint8_t *data[DISKS];
    unsigned seed = (unsigned)_i * 7919u + 5u;
    struct shared *shared =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(shared, MAP_FAILED);
    for (unsigned i = 0; i < DISKS; i++) {
        data[i] = malloc(SIZE);
        fill_disk(data[i], i);
    }
    /* The work is open from here on, so that a part may begin whenever. */
    xv_session_free(work_owner(&kit, 0));
    for (int round = 0; round <= ROUNDS; round++) {
        pid_t children[2];
        bool last = round == ROUNDS;
        for (int i = 0; i < 2; i++) {
            if (last && i == 0)
                continue;
            children[i] = unit_fork();
            struct mover *mover = &shared->movers[2 * round + i];
            if (children[i] == 0 && i == 0)
                run_part(kit.folder, data, mover);
            if (children[i] == 0)
                run_owner(kit.folder, data, last ? -1 : 1, mover);
        }
        int status = 0;
        if (last) {
            ck_assert_int_eq(waitpid(children[1], &status, 0), children[1]);
            ck_assert_int_eq(status, 0);
            continue;
        }
        kill_later(children[0], &seed);
        kill_later(children[1], &seed);
    }
    unsigned moved = 0, lost = 0;
    for (int i = 0; i < 2 * ROUNDS + 2; i++) {
        unsigned its = atomic_load(&shared->movers[i].moved);
        moved += its;
        lost += its - atomic_load(&shared->movers[i].saved);
    }
    ck_assert_uint_ge(moved, DISKS * CHUNKS);
    ck_assert_msg(moved <= DISKS * CHUNKS + lost, "%u chunks moved, of %u and %u lost", moved,
                  DISKS * CHUNKS, lost);
    kit_reopen(&kit);
    for (unsigned i = 0; i < DISKS; i++)
        kit_expect(&kit, "latest:web", i, data[i], SIZE);
    ck_assert_uint_eq(work_faults(&kit), 0);
    for (unsigned i = 0; i < DISKS; i++)
        free(data[i]);
    munmap(shared, sizeof *shared);
    kit_free(&kit);
}
END_TEST

/* A zombie that was stopped inside its work: its successor commits, and it can do nothing any more. */
START_TEST(stopped_owner_is_void)
{
    struct kit kit = kit_new(true);
    int pipes[2];
    char byte = 0;
    uint8_t *data = malloc(SIZE);
    fill_disk(data, 0);
    ck_assert_int_eq(pipe(pipes), 0);
    pid_t zombie = unit_fork();
    if (zombie == 0) {
        struct kit own = open_again(kit.folder);
        struct xv_session *session = work_owner(&own, 10);
        struct xv_disk_writer *writer = work_disk(session, keys[0], SIZE, -1);
        struct xv_point_facts facts = {.vm_uuid = "vm-1", .vm_name = "web", .taken_ms = 5};
        char id[XV_POINT_ID_LENGTH + 1];
        xvsa_error *error = NULL;
        kit_put(session, writer, 0, data, SIZE / KIT_CHUNK / 2 * KIT_CHUNK);
        work_checkpoint(session);
        kit_put(session, writer, 0, data, SIZE);
        work_finish(writer);
        if (write(pipes[1], "x", 1) != 1)
            _exit(2);
        raise(SIGSTOP);
        int first = xv_session_checkpoint(session, NULL, &error);
        xv_error_clear(&error);
        int second = xv_session_commit(session, &facts, NULL, id, &error);
        _exit(first == XVSA_ERR_FENCED && second == XVSA_ERR_FENCED ? 0 : 3);
    }
    ck_assert_int_eq(read(pipes[0], &byte, 1), 1);
    int status = 0;
    ck_assert_int_eq(waitpid(zombie, &status, WUNTRACED), zombie);
    ck_assert(WIFSTOPPED(status));
    struct xv_session *session = work_owner(&kit, 11);
    struct xv_disk_writer *writer = work_disk(session, keys[0], SIZE, -1);
    ck_assert_uint_eq(work_adopted(writer), SIZE / KIT_CHUNK / 2 * KIT_CHUNK);
    kit_put(session, writer, 0, data, SIZE);
    work_finish(writer);
    char id[XV_POINT_ID_LENGTH + 1];
    kit_commit(session, id);
    ck_assert_int_eq(kill(zombie, SIGCONT), 0);
    ck_assert_int_eq(waitpid(zombie, &status, 0), zombie);
    ck_assert_int_eq(status, 0);
    xv_session_free(session);
    kit_reopen(&kit);
    char *json = NULL;
    xvsa_error *error = NULL;
    ck_ok(xv_repo_list_points(kit.repo, NULL, NULL, &json, &error), error);
    char *first = strstr(json, "\"id\"");
    ck_assert_ptr_nonnull(first);
    ck_assert_ptr_null(strstr(first + 1, "\"id\""));
    free(json);
    kit_expect(&kit, id, 0, data, SIZE);
    ck_assert_uint_eq(work_faults(&kit), 0);
    close(pipes[0]);
    close(pipes[1]);
    free(data);
    kit_free(&kit);
}
END_TEST

static void fill(Suite *suite)
{
    TCase *tests = tcase_create("processes");
    tcase_set_timeout(tests, 200);
    tcase_add_loop_test(tests, killed_movers_lose_what_no_checkpoint_told, 0, 3);
    tcase_add_test(tests, stopped_owner_is_void);
    suite_add_tcase(suite, tests);
}

UNIT_MAIN("repo_work_processes")
