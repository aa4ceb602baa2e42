/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "unit.h"

#include <sqlite3.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buffer.h"
#include "coord/coord.h"
#include "stores.h"

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
    pid_t child = unit_fork();
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

static void run_sql(const char *sql)
{
    sqlite3 *db = NULL;
    ck_assert_int_eq(sqlite3_open(path, &db), SQLITE_OK);
    char *message = NULL;
    int rc = sqlite3_exec(db, sql, NULL, NULL, &message);
    ck_assert_msg(rc == SQLITE_OK, "%s", message);
    sqlite3_close(db);
}

/* The layout before: a table for each kind of record. */
static void make_older_file(void)
{
    run_sql("CREATE TABLE jobs (id TEXT PRIMARY KEY, type TEXT NOT NULL, name TEXT NOT NULL,"
            " state TEXT NOT NULL, owner TEXT NOT NULL, pool_uuid TEXT NOT NULL,"
            " repo_id TEXT NOT NULL, spec TEXT NOT NULL, report TEXT, started_ms INTEGER NOT NULL,"
            " ended_ms INTEGER NOT NULL DEFAULT 0) STRICT;"
            "CREATE TABLE intents (id INTEGER PRIMARY KEY AUTOINCREMENT, job_id TEXT NOT NULL,"
            " owner TEXT NOT NULL, pool_uuid TEXT NOT NULL, kind TEXT NOT NULL, tag TEXT NOT NULL,"
            " vm_uuid TEXT NOT NULL, abandoned INTEGER NOT NULL DEFAULT 0) STRICT;"
            "CREATE TABLE outcomes (pool_uuid TEXT NOT NULL, vm_uuid TEXT NOT NULL,"
            " succeeded INTEGER NOT NULL, ended_ms INTEGER NOT NULL,"
            " PRIMARY KEY (pool_uuid, vm_uuid)) STRICT, WITHOUT ROWID;"
            "INSERT INTO jobs VALUES ('j1', 'backup', 'a \"b\"', 'succeeded', 'f0', 'pool',"
            " 'repo', '{\"s\":1}', '{\"r\":1}', 1000, 1500), ('j2', 'backup', 'n', 'running',"
            " 'f0', 'pool', 'repo', '{}', NULL, 2000, 0);"
            "INSERT INTO intents VALUES (7, 'j2', 'f0', 'pool', 'snapshot', 'xvsa:j2', 'vm', 0);"
            "INSERT INTO outcomes VALUES ('pool', 'vm', 0, 1500);"
            "PRAGMA user_version = 1");
}

static int see_older_job(void *user, const struct xv_coord_job *job, xvsa_error **error)
{
    (void)error;
    unsigned *count = user;
    if (++*count == 1) {
        ck_assert_str_eq(job->id, "j2");
        ck_assert_str_eq(job->state, "interrupted");
        ck_assert_ptr_null(job->report);
        return 0;
    }
    ck_assert_str_eq(job->id, "j1");
    ck_assert_str_eq(job->name, "a \"b\"");
    ck_assert_str_eq(job->state, "succeeded");
    ck_assert_str_eq(job->spec, "{\"s\":1}");
    ck_assert_str_eq(job->report, "{\"r\":1}");
    ck_assert_int_eq(job->ended_ms, 1500);
    return 0;
}

START_TEST(an_older_file_is_brought_up)
{
    xvsa_error *error = NULL;
    struct xv_coord *coord = NULL;
    struct seen seen = {0};
    unsigned count = 0;
    bool failed = false;
    make_older_file();
    for (int round = 0; round < 2; round++) {
        ck_ok(xv_coord_open(path, &coord, &error), error);
        count = 0;
        seen.count = 0;
        ck_ok(xv_coord_jobs(coord, 10, see_older_job, &count, &error), error);
        ck_assert_uint_eq(count, 2);
        ck_ok(xv_coord_intents_dead(coord, "pool", see_intent, &seen, &error), error);
        ck_assert_uint_eq(seen.count, 1);
        ck_assert_int_eq(seen.id, 7);
        ck_assert_str_eq(seen.tag, "xvsa:j2");
        ck_ok(xv_coord_outcome_get(coord, "pool", "vm", &failed, &error), error);
        ck_assert(failed);
        if (round == 1)
            ck_ok(xv_coord_intent_clear(coord, 7, &error), error);
        xv_coord_close(coord);
    }
}
END_TEST

START_TEST(an_older_file_in_use_is_left_alone)
{
    xvsa_error *error = NULL;
    struct xv_coord *coord = NULL;
    char name[200];
    make_older_file();
    snprintf(name, sizeof name, "mkdir '%s.owners'", path);
    ck_assert_int_eq(system(name), 0);
    snprintf(name, sizeof name, "%s.owners/f0123456789abcdef", path);
    int fd = open(name, O_RDWR | O_CREAT, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(flock(fd, LOCK_EX), 0);
    ck_fails(xv_coord_open(path, &coord, &error), XVSA_ERR_BUSY, error);
    close(fd);
    ck_ok(xv_coord_open(path, &coord, &error), error);
    xv_coord_close(coord);
}
END_TEST

START_TEST(a_file_of_another_program_is_refused)
{
    xvsa_error *error = NULL;
    struct xv_coord *coord = NULL;
    run_sql("CREATE TABLE theirs (a)");
    ck_fails(xv_coord_open(path, &coord, &error), XVSA_ERR_FORMAT, error);
}
END_TEST

static int see_large(void *user, const struct xv_coord_job *job, xvsa_error **error)
{
    (void)error;
    const char *const *texts = user;
    ck_assert_str_eq(job->spec, texts[0]);
    ck_assert_str_eq(job->report, texts[1]);
    return 0;
}

static char *make_large(size_t length, char letter)
{
    char *text = malloc(length + 1);
    ck_assert_ptr_nonnull(text);
    for (size_t i = 0; i < length; i++)
        text[i] = i % 1000 == 0 ? '.' : letter;
    text[length] = '\0';
    return text;
}

/* The same over each kind of store, which knows nothing of it. */
START_TEST(every_store_serves)
{
    xvsa_error *error = NULL;
    struct stores stores;
    struct xv_kv *kv = NULL;
    struct xv_coord *one = NULL;
    struct xv_coord *two = NULL;
    int64_t id = 0;
    stores_start(&stores);
    if (!stores_open(&stores, (enum store_kind)_i, &kv)) {
        stores_stop(&stores);
        return;
    }
    ck_ok(xv_coord_open_kv(kv, &one, &error), error);
    ck_ok(xv_coord_open_kv(kv, &two, &error), error);
    char *texts[2] = {make_large(1 << 19, 's'), make_large(3000000, 'r')};
    struct xv_coord_job job = some_job;
    job.spec = texts[0];
    ck_ok(xv_coord_job_add(one, &job, &error), error);
    ck_fails(xv_coord_job_add(two, &job, &error), XVSA_ERR_EXISTS, error);
    ck_ok(xv_coord_intent_add(one, &some_intent, &id, &error), error);
    ck_ok(xv_coord_job_end(one, "j1", "succeeded", texts[1], 5, &error), error);
    ck_fails(xv_coord_job_end(one, "j9", "succeeded", "{}", 5, &error), XVSA_ERR_NOT_FOUND, error);
    ck_ok(xv_coord_jobs(two, 10, see_large, texts, &error), error);
    struct seen seen = {0};
    ck_ok(xv_coord_intents_dead(two, "pool", see_intent, &seen, &error), error);
    ck_assert_uint_eq(seen.count, 0);
    xv_coord_close(one);
    ck_ok(xv_coord_intents_dead(two, "pool", see_intent, &seen, &error), error);
    ck_assert_uint_eq(seen.count, 1);
    ck_assert_int_eq(seen.id, id);
    xv_coord_close(two);
    xv_kv_close(kv);
    free(texts[0]);
    free(texts[1]);
    stores_stop(&stores);
}
END_TEST

static void fill(Suite *suite)
{
    TCase *tests = tcase_create("coord");
    tcase_set_timeout(tests, 60);
    tcase_add_unchecked_fixture(tests, stores_start_etcd, stores_stop_etcd);
    tcase_add_checked_fixture(tests, make_folder, remove_folder);
    tcase_add_test(tests, work_of_the_dead_is_found);
    tcase_add_test(tests, work_of_the_living_is_left_alone);
    tcase_add_test(tests, jobs_end_and_are_listed_newest_first);
    tcase_add_test(tests, files_of_dead_owners_go);
    tcase_add_test(tests, outcomes_are_kept);
    tcase_add_test(tests, a_newer_file_is_refused);
    tcase_add_test(tests, an_older_file_is_brought_up);
    tcase_add_test(tests, an_older_file_in_use_is_left_alone);
    tcase_add_test(tests, a_file_of_another_program_is_refused);
    tcase_add_loop_test(tests, every_store_serves, 0, STORE_KINDS);
    suite_add_tcase(suite, tests);
}

UNIT_MAIN("coord")
