/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Targets: the built-in ones against the conformance kit, the directory's manners, repetition of what
 * fails for a while, probing of conditional writes.
 */
#include "unit.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "target/target.h"

static struct xv_target_registry *registry;
static char folder[64];

static void set_up(void)
{
    xvsa_error *error = NULL;
    strcpy(folder, "/tmp/xvsa-unit-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    ck_ok(xv_target_registry_new(&registry, &error), error);
}

static void tear_down(void)
{
    char command[128];
    xv_target_registry_free(registry);
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    ck_assert_int_eq(system(command), 0);
}

static struct xv_target *open_url(const char *url)
{
    struct xv_target *target = NULL;
    xvsa_error *error = NULL;
    ck_ok(xv_target_open(registry, NULL, url, XVSA_TARGET_CREATE, NULL, &target, &error), error);
    return target;
}

static struct xv_target *open_folder(const char *below)
{
    char url[160];
    snprintf(url, sizeof url, "file://%s%s", folder, below);
    return open_url(url);
}

static int put(struct xv_target *target, const char *name, const char *text, uint32_t flags,
               xvsa_error **error)
{
    xvsa_buffer piece = {text, strlen(text)};
    return xv_target_put(target, name, &piece, 1, flags, NULL, error);
}

static void expect(struct xv_target *target, const char *name, const char *text)
{
    uint8_t *data = NULL;
    uint64_t length = 0;
    xvsa_error *error = NULL;
    ck_ok(xv_target_get_all(target, name, 1000, &data, &length, NULL, &error), error);
    ck_assert_uint_eq(length, strlen(text));
    ck_assert(memcmp(data, text, length) == 0);
    free(data);
}

static void check_conformance(struct xv_target *target)
{
    char *json = NULL;
    xvsa_error *error = NULL;
    ck_ok(xv_target_check(target, NULL, &json, &error), error);
    ck_assert_msg(strstr(json, "\"ok\": true") != NULL, "%s", json);
    free(json);
    xv_target_unref(target);
}

START_TEST(built_in_targets_conform)
{
    check_conformance(open_url("memory:"));
    check_conformance(open_folder("/new/deep%20er"));
    char path[128];
    snprintf(path, sizeof path, "%s/new/deep er", folder);
    ck_assert_int_eq(access(path, F_OK), 0);
}
END_TEST

START_TEST(names_and_urls_are_checked)
{
    static const char *const names[] = {"",    "/a",  "a/",  "a//b", "../a",  "a/../b", "A",
                                        "a.b", "a b", "a\n", "./a",  ".xvsa", "a/./b"};
    static const char *const urls[] = {"file:relative", "file://", "file:///a%00b", "file:///a%zz",
                                       "x"};
    struct xv_target *target = open_folder("");
    struct xv_target *none = NULL;
    xvsa_error *error = NULL;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        ck_fails(put(target, names[i], "x", 0, &error), XVSA_ERR_INVALID, error);
    char longest[98];
    memset(longest, 'a', sizeof longest);
    longest[97] = '\0';
    ck_fails(put(target, longest, "x", 0, &error), XVSA_ERR_INVALID, error);
    longest[96] = '\0';
    ck_ok(put(target, longest, "x", 0, &error), error);
    for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++)
        ck_fails(xv_target_open(registry, NULL, urls[i], 0, NULL, &none, &error), XVSA_ERR_INVALID,
                 error);
    ck_fails(xv_target_open(registry, NULL, "s9://x", 0, NULL, &none, &error), XVSA_ERR_UNSUPPORTED,
             error);
    ck_fails(xv_target_open(registry, NULL, "file:///nowhere/at/all", 0, NULL, &none, &error),
             XVSA_ERR_NOT_FOUND, error);
    xv_target_unref(target);
}
END_TEST

START_TEST(symbolic_links_are_not_followed)
{
    struct xv_target *target = open_folder("/t");
    char link[128], outside[128];
    xvsa_error *error = NULL;
    uint64_t length;
    snprintf(outside, sizeof outside, "%s/secret", folder);
    snprintf(link, sizeof link, "%s/t/link", folder);
    ck_assert_int_eq(close(open(outside, O_CREAT | O_WRONLY, 0600)), 0);
    ck_assert_int_eq(symlink(outside, link), 0);
    uint8_t byte;
    ck_assert_int_ne(xv_target_get(target, "link", 0, &byte, 0, NULL, &error), 0);
    xv_error_clear(&error);
    ck_fails(xv_target_stat(target, "link", &length, NULL, &error), XVSA_ERR_NOT_FOUND, error);
    xv_target_unref(target);
}
END_TEST

START_TEST(stale_files_are_removed_and_living_ones_kept)
{
    char path[256];
    snprintf(path, sizeof path, "%s/p", folder);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/p/.xvsa-tmp-00", folder);
    ck_assert_int_eq(close(open(path, O_CREAT | O_WRONLY, 0600)), 0);
    struct xv_target *target = open_folder("");
    ck_assert_int_ne(access(path, F_OK), 0);
    xvsa_error *error = NULL;
    ck_ok(put(target, "p/a", "text", 0, &error), error);
    ck_ok(xv_target_barrier(target, NULL, &error), error);
    /* Nothing but the object is left. */
    snprintf(path, sizeof path, "%s/p", folder);
    DIR *stream = opendir(path);
    for (struct dirent *entry; (entry = readdir(stream)) != NULL;)
        ck_assert(entry->d_name[0] == '.' ? strlen(entry->d_name) < 3
                                          : strcmp(entry->d_name, "a") == 0);
    closedir(stream);
    xv_target_unref(target);
}
END_TEST

START_TEST(object_is_never_seen_half_written)
{
    struct xv_target *target = open_folder("");
    xvsa_error *error = NULL;
    ck_ok(put(target, "a", "one", XVSA_PUT_IF_ABSENT, &error), error);
    ck_fails(put(target, "a", "two", XVSA_PUT_IF_ABSENT, &error), XVSA_ERR_EXISTS, error);
    expect(target, "a", "one");
    ck_ok(put(target, "a", "three", 0, &error), error);
    expect(target, "a", "three");
    uint64_t total = 0, available = 0;
    ck_ok(xv_target_space(target, &total, &available, NULL, &error), error);
    ck_assert_uint_ge(total, available);
    xv_target_unref(target);
}
END_TEST

START_TEST(large_objects_of_any_length_come_back)
{
    /* Page-aligned memory goes past the page cache where that is possible. */
    static const size_t lengths[] = {1u << 20, (3u << 20) + 123, (9u << 20) + 4096 + 1};
    struct xv_target *target = open_folder("");
    uint8_t *data = aligned_alloc(4096, 10u << 20);
    uint8_t *back = malloc(10u << 20);
    xvsa_error *error = NULL;
    for (size_t i = 0; i < 10u << 20; i++)
        data[i] = (uint8_t)(i * 2654435761u >> 11);
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        xvsa_buffer pieces[] = {{data, lengths[i]}, {"end", 3}};
        uint64_t length = 0;
        ck_ok(xv_target_put(target, "a", pieces, 2, 0, NULL, &error), error);
        ck_ok(xv_target_stat(target, "a", &length, NULL, &error), error);
        ck_assert_uint_eq(length, lengths[i] + 3);
        ck_ok(xv_target_get(target, "a", 0, back, length, NULL, &error), error);
        ck_assert(memcmp(data, back, lengths[i]) == 0);
        ck_assert(memcmp(back + lengths[i], "end", 3) == 0);
    }
    free(data);
    free(back);
    xv_target_unref(target);
}
END_TEST

START_TEST(full_file_system_is_told)
{
    /* /dev/full's kind of failure needs a file system of our own: the limit on file sizes will do. */
    struct xv_target *target = open_folder("");
    xvsa_error *error = NULL;
    uint64_t length;
    pid_t child = fork();
    if (child == 0) {
        signal(SIGXFSZ, SIG_IGN);
        struct rlimit limit = {65536, 65536};
        setrlimit(RLIMIT_FSIZE, &limit);
        static _Alignas(4096) const char big[1 << 20];
        xvsa_buffer piece = {big, sizeof big};
        int rc = xv_target_put(target, "big", &piece, 1, 0, NULL, &error);
        _exit(rc == XVSA_ERR_SPACE ? 0 : 1);
    }
    int status = 0;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    ck_fails(xv_target_stat(target, "big", &length, NULL, &error), XVSA_ERR_NOT_FOUND, error);
    xv_target_unref(target);
}
END_TEST

/* A target around the memory target whose puts misbehave. */
static atomic_int failures;       /* puts to fail before one works */
static atomic_int lost;           /* puts whose answer gets lost after they were done */
static atomic_bool unconditional; /* ignore XVSA_PUT_IF_ABSENT */

static int32_t moody_open(void *user, const xvsa_target_request *request, void **ret,
                          xvsa_error **error)
{
    return xv_memory_ops.open(user, request, ret, error);
}

static int32_t moody_put(void *instance, const xvsa_target_call *call, const char *name,
                         const xvsa_buffer *pieces, uint32_t count, uint32_t flags,
                         xvsa_error **error)
{
    if (atomic_fetch_sub(&failures, 1) > 0)
        return xvsa_error_new(XVSA_ERR_TARGET, "target", "try again", 0, XVSA_ERROR_RETRYABLE,
                              error);
    if (atomic_load(&unconditional))
        flags = 0;
    int32_t rc = xv_memory_ops.put(instance, call, name, pieces, count, flags, error);
    if (rc == 0 && atomic_fetch_sub(&lost, 1) > 0)
        return xvsa_error_new(XVSA_ERR_UNKNOWN_OUTCOME, "target", "who knows", 0, 0, error);
    return rc;
}

static struct xv_target *open_moody(void)
{
    xvsa_target_ops ops = xv_memory_ops;
    xvsa_error *error = NULL;
    ops.open = moody_open;
    ops.put = moody_put;
    ck_ok(xv_target_registry_add(registry, "moody", &ops, NULL, &error), error);
    return open_url("moody://user:password@host/x?key=secret");
}

START_TEST(failures_are_repeated_within_the_deadline)
{
    struct xv_target *target = open_moody();
    xvsa_error *error = NULL;
    ck_assert_str_eq(xv_target_url(target), "moody://host/x");
    atomic_store(&failures, 2);
    ck_ok(put(target, "a", "text", 0, &error), error);
    expect(target, "a", "text");
    atomic_store(&failures, 1000);
    struct xv_call call = xv_call_within(NULL, 300);
    xvsa_buffer piece = {"x", 1};
    ck_fails(xv_target_put(target, "b", &piece, 1, 0, &call, &error), XVSA_ERR_TARGET, error);
    atomic_store(&failures, 0);
    xv_target_unref(target);
}
END_TEST

START_TEST(lost_answers_are_looked_up)
{
    struct xv_target *target = open_moody();
    xvsa_error *error = NULL;
    atomic_store(&lost, 1);
    ck_ok(put(target, "a", "ours", XVSA_PUT_IF_ABSENT, &error), error);
    expect(target, "a", "ours");
    ck_fails(put(target, "a", "theirs", XVSA_PUT_IF_ABSENT, &error), XVSA_ERR_EXISTS, error);
    atomic_store(&lost, 1);
    ck_ok(put(target, "b", "plain", 0, &error), error);
    expect(target, "b", "plain");
    xv_target_unref(target);
}
END_TEST

START_TEST(lying_target_is_found_out)
{
    struct xv_target *target = open_moody();
    xvsa_error *error = NULL;
    bool holds = false;
    ck_ok(xv_target_probe(target, &holds, NULL, &error), error);
    ck_assert(holds);
    atomic_store(&unconditional, true);
    ck_ok(xv_target_probe(target, &holds, NULL, &error), error);
    ck_assert(!holds);
    char *json = NULL;
    ck_ok(xv_target_check(target, NULL, &json, &error), error);
    ck_assert_ptr_nonnull(strstr(json, "\"ok\": false"));
    free(json);
    atomic_store(&unconditional, false);
    xv_target_unref(target);
}
END_TEST

static void fill(Suite *suite)
{
    TCase *tests = tcase_create("target");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, built_in_targets_conform);
    tcase_add_test(tests, names_and_urls_are_checked);
    tcase_add_test(tests, symbolic_links_are_not_followed);
    tcase_add_test(tests, stale_files_are_removed_and_living_ones_kept);
    tcase_add_test(tests, object_is_never_seen_half_written);
    tcase_add_test(tests, large_objects_of_any_length_come_back);
    tcase_add_test(tests, full_file_system_is_told);
    tcase_add_test(tests, failures_are_repeated_within_the_deadline);
    tcase_add_test(tests, lost_answers_are_looked_up);
    tcase_add_test(tests, lying_target_is_found_out);
    suite_add_tcase(suite, tests);
}

UNIT_MAIN("target")
