/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Damage: whatever byte of whatever object is flipped, verifying tells it, and reading either fails
 * with an error that names object, point and disk, or still yields the right bytes.
 */
#include "repo_kit.h"

#define NAMES_MAX 256
#define DISK      (150 * KIT_CHUNK)

struct names {
    char list[NAMES_MAX][97];
    size_t count;
};

struct faults {
    uint64_t count;
    uint64_t placed; /* those that name a point and a disk */
    bool named;      /* one of them names the object looked for */
    const char *object;
};

static int32_t add_name(void *sink, const char *name, const xvsa_object_info *info)
{
    (void)info;
    struct names *names = sink;
    ck_assert_uint_lt(names->count, NAMES_MAX);
    snprintf(names->list[names->count++], 97, "%s", name);
    return 0;
}

static void add_fault(void *user, const struct xv_verify_fault *fault)
{
    struct faults *faults = user;
    faults->count++;
    faults->placed += fault->point != NULL && fault->disk != NULL;
    ck_assert_ptr_nonnull(fault->message);
    if (strcmp(fault->object, faults->object) == 0)
        faults->named = true;
}

static struct faults verify(struct kit *kit, const char *object, const char *point, bool quick)
{
    struct faults faults = {.object = object};
    struct xv_verify_options options = {
        .point = point, .quick = quick, .fault = add_fault, .user = &faults};
    struct xv_verify_result result;
    xvsa_error *error = NULL;
    ck_ok(xv_repo_verify(kit->repo, &options, NULL, &result, &error), error);
    ck_assert_uint_eq(result.faults, faults.count);
    return faults;
}

static uint8_t content[DISK];
static char first[XV_POINT_ID_LENGTH + 1];
static char second[XV_POINT_ID_LENGTH + 1];

/* Two points; the second keeps most of the first. */
static struct kit two_points(uint32_t flags)
{
    struct kit kit = kit_open(false);
    struct xv_repo_options repo_options = kit_options();
    xvsa_error *error = NULL;
    repo_options.flags = flags;
    if (flags != 0)
        repo_options.passphrase_size = 0;
    ck_ok(xv_repo_init(kit.target, &repo_options, NULL, &kit.repo, &error), error);
    kit_fill(content, DISK, 5);
    kit_store(&kit, "pool/vm-1", content, DISK, first);
    struct xv_point *base = kit_find(&kit, first);
    struct xv_session *session = kit_begin(&kit, "pool/vm-1", base);
    struct xv_disk_writer *writer = NULL;
    ck_ok(xv_session_add_disk(session, "vdi-1", "0", DISK, 0, NULL, &writer, &error), error);
    kit_fill(content + 3 * KIT_CHUNK, 4 * KIT_CHUNK, 6);
    kit_put(session, writer, 0, content, DISK);
    ck_ok(xv_disk_writer_finish(writer, "{}", NULL, &error), error);
    kit_commit(session, second);
    xv_session_free(session);
    xv_point_unref(base);
    return kit;
}

/* Reads the second point of a repository that is opened anew; true when the bytes are right. */
static bool read_back(struct kit *kit, uint32_t flags, xvsa_error **error)
{
    struct xv_repo_options options = kit_options();
    struct xv_repo *repo = NULL;
    struct xv_point *point = NULL;
    struct xv_disk *disk = NULL;
    uint8_t *back = malloc(DISK);
    if (flags != 0)
        options.passphrase_size = 0;
    options.flags = flags | XVSA_REPO_READ_ONLY;
    int rc = xv_repo_open(kit->target, &options, NULL, &repo, error);
    if (rc == 0)
        rc = xv_repo_find_point(repo, second, NULL, &point, error);
    if (rc == 0)
        rc = xv_point_open_disk(point, 0, NULL, &disk, error);
    if (rc == 0)
        rc = xv_disk_read(disk, 0, back, DISK, NULL, error);
    if (rc == 0)
        ck_assert(memcmp(back, content, DISK) == 0);
    xv_disk_close(disk);
    xv_point_unref(point);
    xv_repo_unref(repo);
    free(back);
    return rc == 0;
}

static void check_flip(struct kit *kit, uint32_t flags, const char *name, uint8_t *data,
                       uint64_t length, uint64_t at)
{
    xvsa_error *error = NULL;
    xvsa_buffer piece = {data, length};
    data[at] ^= (uint8_t)(1u << (at % 8));
    ck_ok(xv_target_put(kit->target, name, &piece, 1, 0, NULL, &error), error);
    struct faults faults = verify(kit, name, NULL, false);
    ck_assert_msg(faults.named, "byte %llu of '%s' is not found", (unsigned long long)at, name);
    if (!read_back(kit, flags, &error)) {
        const char *object = xvsa_error_detail(error, "object");
        ck_assert_msg(object != NULL && strcmp(object, name) == 0,
                      "byte %llu of '%s': blames '%s': %s", (unsigned long long)at, name,
                      object == NULL ? "nothing" : object, xvsa_error_message(error));
        ck_assert_ptr_nonnull(xvsa_error_detail(error, "point"));
        ck_assert_ptr_nonnull(xvsa_error_detail(error, "disk"));
        xv_error_clear(&error);
    }
    data[at] ^= (uint8_t)(1u << (at % 8));
    ck_ok(xv_target_put(kit->target, name, &piece, 1, 0, NULL, &error), error);
}

static void flip_everywhere(uint32_t flags)
{
    struct kit kit = two_points(flags);
    struct names names = {0};
    xvsa_error *error = NULL;
    ck_assert_uint_eq(verify(&kit, "", NULL, false).count, 0);
    ck_assert_uint_eq(verify(&kit, "", NULL, true).count, 0);
    ck_assert_uint_eq(verify(&kit, "", second, false).count, 0);
    ck_ok(xv_target_list(kit.target, "", add_name, &names, NULL, &error), error);
    uint64_t seed = 12345;
    bool kinds[256] = {false};
    for (size_t i = 0; i < names.count; i++) {
        uint8_t *data = NULL;
        uint64_t length = 0;
        ck_ok(xv_target_get_all(kit.target, names.list[i], XV_OBJECT_MAX, &data, &length, NULL,
                                &error),
              error);
        kinds[(uint8_t)names.list[i][0]] = true;
        /* Both ends, and a sample between. */
        uint64_t steps = 12;
        for (uint64_t s = 0; s < steps; s++) {
            seed = seed * 6364136223846793005ull + 1442695040888963407ull;
            uint64_t at = s == 0   ? 0
                          : s == 1 ? length - 1
                          : s < 5  ? s * 20 % length
                                   : (seed >> 20) % length;
            check_flip(&kit, flags, names.list[i], data, length, at);
        }
        free(data);
    }
    ck_assert(kinds['c'] && kinds['k'] && kinds['j'] && kinds['p'] && kinds['n'] && kinds['i'] &&
              kinds['r']);
    ck_assert_uint_eq(verify(&kit, "", NULL, false).count, 0);
    kit_free(&kit);
}

START_TEST(any_flipped_byte_is_found)
{
    flip_everywhere(0);
}
END_TEST

START_TEST(any_flipped_byte_is_found_without_encryption)
{
    flip_everywhere(XVSA_REPO_NO_ENCRYPTION);
}
END_TEST

START_TEST(missing_objects_are_found)
{
    struct kit kit = two_points(0);
    struct names names = {0};
    xvsa_error *error = NULL;
    ck_ok(xv_target_list(kit.target, "", add_name, &names, NULL, &error), error);
    for (size_t i = 0; i < names.count; i++) {
        uint8_t *data = NULL;
        uint64_t length = 0;
        const char *name = names.list[i];
        /* The end of the journal cannot be told from one that never was there. */
        if (strncmp(name, "key/", 4) == 0 || strcmp(name, "j/0000000000000006") == 0)
            continue;
        ck_ok(xv_target_get_all(kit.target, name, XV_OBJECT_MAX, &data, &length, NULL, &error),
              error);
        ck_ok(xv_target_remove(kit.target, name, NULL, &error), error);
        struct faults faults = verify(&kit, name, NULL, false);
        ck_assert_msg(faults.named, "'%s' is not missed", name);
        if (name[0] == 'p' || name[0] == 'n')
            ck_assert_uint_gt(faults.placed, 0);
        faults = verify(&kit, name, NULL, true);
        ck_assert_msg(faults.named, "'%s' is not missed quickly", name);
        xvsa_buffer piece = {data, length};
        ck_ok(xv_target_put(kit.target, name, &piece, 1, 0, NULL, &error), error);
        free(data);
    }
    kit_free(&kit);
}
END_TEST

static void fill(Suite *suite)
{
    TCase *tests = tcase_create("verify");
    tcase_set_timeout(tests, 200);
    tcase_add_test(tests, any_flipped_byte_is_found);
    tcase_add_test(tests, any_flipped_byte_is_found_without_encryption);
    tcase_add_test(tests, missing_objects_are_found);
    suite_add_tcase(suite, tests);
}

UNIT_MAIN("repo_verify")
