/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "unit.h"

#include <sqlite3.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buffer.h"
#include "coord/coord.h"

static char folder[64];
static char path[128];

static void make_folder(void)
{
    snprintf(folder, sizeof folder, "/tmp/xvsa-coord-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/state.db", folder);
}

static void remove_folder(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    ck_assert_int_eq(system(command), 0);
}

static const struct xv_intent some_intent = {0, "j1", "pool", "snapshot", "xvsa:j1.0:o", "vm"};
static const struct xv_coord_job some_job = {"j1",   "backup", "nightly", "running", "pool",
                                             "repo", "{}",     NULL,      1000,      0};

struct seen {
    unsigned count;
    int64_t id;
    char tag[64];
    char state[32];
};

static int see_intent(void *user, const struct xv_intent *intent, xvsa_error **error)
{
    (void)error;
    struct seen *seen = user;
    seen->count++;
    seen->id = intent->id;
    snprintf(seen->tag, sizeof seen->tag, "%s", intent->tag);
    return 0;
}

static int see_job(void *user, const struct xv_coord_job *job, xvsa_error **error)
{
    (void)error;
    struct seen *seen = user;
    seen->count++;
    snprintf(seen->state, sizeof seen->state, "%s", job->state);
    return 0;
}

/* Does some work in a child that ends without closing anything. */
static void die_working(void)
{
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        struct xv_coord *coord = NULL;
        int64_t id;
        if (xv_coord_open(path, &coord, NULL) != 0 ||
            xv_coord_job_add(coord, &some_job, NULL) != 0 ||
            xv_coord_intent_add(coord, &some_intent, &id, NULL) != 0)
            _exit(1);
        _exit(0);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
}

START_TEST(work_of_the_dead_is_found)
{
    xvsa_error *error = NULL;
    struct xv_coord *coord = NULL;
    die_working();
    ck_ok(xv_coord_open(path, &coord, &error), error);
    struct seen seen = {0};
    ck_ok(xv_coord_intents_dead(coord, "pool", see_intent, &seen, &error), error);
    ck_assert_uint_eq(seen.count, 1);
    ck_assert_str_eq(seen.tag, some_intent.tag);
    ck_ok(xv_coord_intents_dead(coord, "other", see_intent, &seen, &error), error);
    ck_assert_uint_eq(seen.count, 1);
    ck_ok(xv_coord_intent_clear(coord, seen.id, &error), error);
    ck_ok(xv_coord_intents_dead(coord, "pool", see_intent, &seen, &error), error);
    ck_assert_uint_eq(seen.count, 1);
    seen.count = 0;
    ck_ok(xv_coord_jobs(coord, 10, see_job, &seen, &error), error);
    ck_assert_uint_eq(seen.count, 1);
    ck_assert_str_eq(seen.state, "interrupted");
    xv_coord_close(coord);
}
END_TEST

START_TEST(work_of_the_living_is_left_alone)
{
    xvsa_error *error = NULL;
    struct xv_coord *one = NULL;
    struct xv_coord *two = NULL;
    int64_t id = 0;
    ck_ok(xv_coord_open(path, &one, &error), error);
    ck_ok(xv_coord_open(path, &two, &error), error);
    ck_assert_str_ne(xv_coord_owner(one), xv_coord_owner(two));
    ck_ok(xv_coord_job_add(one, &some_job, &error), error);
    ck_ok(xv_coord_intent_add(one, &some_intent, &id, &error), error);
    struct seen seen = {0};
    ck_ok(xv_coord_intents_dead(two, "pool", see_intent, &seen, &error), error);
    ck_assert_uint_eq(seen.count, 0);
    ck_ok(xv_coord_jobs(two, 10, see_job, &seen, &error), error);
    ck_assert_str_eq(seen.state, "running");
    seen.count = 0;
    ck_ok(xv_coord_intent_abandon(one, id, &error), error);
    ck_ok(xv_coord_intents_dead(two, "pool", see_intent, &seen, &error), error);
    ck_assert_uint_eq(seen.count, 1);
    xv_coord_close(one);
    ck_ok(xv_coord_jobs(two, 10, see_job, &seen, &error), error);
    ck_assert_str_eq(seen.state, "interrupted");
    xv_coord_close(two);
}
END_TEST

/* Counts the files of owners; ages them first. */
static unsigned count_owners(bool age)
{
    char command[256];
    snprintf(command, sizeof command, "touch -d '1 hour ago' '%s'.owners/* 2>/dev/null", path);
    if (age)
        ck_assert_int_ge(system(command), 0);
    snprintf(command, sizeof command, "exit $(ls '%s'.owners | wc -l)", path);
    return (unsigned)WEXITSTATUS(system(command));
}

START_TEST(files_of_dead_owners_go)
{
    xvsa_error *error = NULL;
    struct xv_coord *one = NULL;
    struct xv_coord *two = NULL;
    die_working();
    ck_ok(xv_coord_open(path, &one, &error), error);
    int64_t id = 0;
    ck_ok(xv_coord_intent_add(one, &some_intent, &id, &error), error);
    ck_assert_uint_ge(count_owners(true), 1);
    ck_ok(xv_coord_open(path, &two, &error), error);
    ck_assert_uint_eq(count_owners(false), 2);
    struct seen seen = {0};
    ck_ok(xv_coord_intents_dead(two, "pool", see_intent, &seen, &error), error);
    ck_assert_uint_eq(seen.count, 1);
    xv_coord_close(one);
    xv_coord_close(two);
    ck_assert_uint_eq(count_owners(false), 0);
}
END_TEST

START_TEST(jobs_end_and_are_listed_newest_first)
{
    xvsa_error *error = NULL;
    struct xv_coord *coord = NULL;
    ck_ok(xv_coord_open(NULL, &coord, &error), error);
    struct xv_coord_job job = some_job;
    ck_ok(xv_coord_job_add(coord, &job, &error), error);
    job.id = "j2";
    job.started_ms = 2000;
    ck_ok(xv_coord_job_add(coord, &job, &error), error);
    ck_ok(xv_coord_job_end(coord, "j2", "succeeded", "{}", 3000, &error), error);
    struct seen seen = {0};
    ck_ok(xv_coord_jobs(coord, 1, see_job, &seen, &error), error);
    ck_assert_uint_eq(seen.count, 1);
    ck_assert_str_eq(seen.state, "succeeded");
    int rc = xv_coord_job_add(coord, &job, &error);
    ck_assert_int_ne(rc, 0);
    xv_error_clear(&error);
    xv_coord_close(coord);
}
END_TEST

START_TEST(outcomes_are_kept)
{
    xvsa_error *error = NULL;
    struct xv_coord *coord = NULL;
    bool failed = true;
    ck_ok(xv_coord_open(NULL, &coord, &error), error);
    ck_ok(xv_coord_outcome_get(coord, "p", "v", &failed, &error), error);
    ck_assert(!failed);
    ck_ok(xv_coord_outcome_set(coord, "p", "v", false, 1, &error), error);
    ck_ok(xv_coord_outcome_get(coord, "p", "v", &failed, &error), error);
    ck_assert(failed);
    ck_ok(xv_coord_outcome_set(coord, "p", "v", true, 2, &error), error);
    ck_ok(xv_coord_outcome_get(coord, "p", "v", &failed, &error), error);
    ck_assert(!failed);
    xv_coord_close(coord);
}
END_TEST

START_TEST(a_newer_file_is_refused)
{
    xvsa_error *error = NULL;
    struct xv_coord *coord = NULL;
    ck_ok(xv_coord_open(path, &coord, &error), error);
    xv_coord_close(coord);
    sqlite3 *db = NULL;
    ck_assert_int_eq(sqlite3_open(path, &db), SQLITE_OK);
    ck_assert_int_eq(sqlite3_exec(db, "PRAGMA user_version = 999", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    ck_fails(xv_coord_open(path, &coord, &error), XVSA_ERR_FORMAT, error);
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    fputs("this is no database, it is only text of a certain length", file);
    fclose(file);
    ck_fails(xv_coord_open(path, &coord, &error), XVSA_ERR_FORMAT, error);
}
END_TEST

static void fill(Suite *suite)
{
    TCase *tests = tcase_create("coord");
    tcase_add_checked_fixture(tests, make_folder, remove_folder);
    tcase_add_test(tests, work_of_the_dead_is_found);
    tcase_add_test(tests, work_of_the_living_is_left_alone);
    tcase_add_test(tests, jobs_end_and_are_listed_newest_first);
    tcase_add_test(tests, files_of_dead_owners_go);
    tcase_add_test(tests, outcomes_are_kept);
    tcase_add_test(tests, a_newer_file_is_refused);
    suite_add_tcase(suite, tests);
}

UNIT_MAIN("coord")
