/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Works on a base: maps that everybody reads, what is kept, compared and adopted; rules of replay.
 */
#include "work_kit.h"

#include "repo/state.h"

#define CHUNKS 300u
#define SIZE   ((CHUNKS - 1) * KIT_CHUNK + 4096u)

static struct xv_extents extents(const uint64_t (*chunks)[2], size_t count, uint64_t size)
{
    struct xv_extents set;
    xvsa_error *error = NULL;
    xv_extents_init(&set);
    for (size_t i = 0; i < count; i++) {
        uint64_t end = chunks[i][1] * KIT_CHUNK;
        uint64_t offset = chunks[i][0] * KIT_CHUNK;
        ck_ok(xv_extents_add(&set, offset, (end < size ? end : size) - offset, &error), error);
    }
    return set;
}

static void same_extents(const struct xv_extents *a, const struct xv_extents *b)
{
    ck_assert_uint_eq(a->count, b->count);
    ck_assert(memcmp(a->ranges, b->ranges, a->count * sizeof *a->ranges) == 0);
}

static void put_map(struct xv_session *session, const char *key, uint64_t size, int base_index,
                    const struct xv_extents *read, const struct xv_extents *keep, const char *facts)
{
    struct xv_work_disk disk = {key, "0", size, base_index, read, keep, facts};
    xvsa_error *error = NULL;
    ck_ok(xv_work_put_map(session, &disk, NULL, &error), error);
}

static struct xv_work_map get_map(struct kit *kit, const char *key)
{
    struct xv_work_map map;
    xvsa_error *error = NULL;
    ck_ok(xv_work_get_map(kit->repo, WORK_ID, key, NULL, &map, &error), error);
    return map;
}

/* An increment of which a part moves one half: the map tells it what, and on which base. */
START_TEST(increment_is_shared)
{
    static const uint64_t reads[][2] = {{10, 40}, {100, 101}, {200, 300}};
    static const uint64_t keeps[][2] = {{0, 10}, {30, 35}, {40, 100}, {101, 200}};
    struct kit kit = kit_new(true);
    uint8_t *data = malloc(SIZE);
    char id[XV_POINT_ID_LENGTH + 1];
    kit_fill(data, SIZE, 1);
    memset(data + 20 * KIT_CHUNK, 0, 5 * KIT_CHUNK);
    kit_store(&kit, WORK_KEY, data, SIZE, id);
    struct xv_point *base = kit_find(&kit, id);
    struct xv_extents read = extents(reads, 3, SIZE);
    struct xv_extents keep = extents(keeps, 4, SIZE);
    /* Changed, became zeros, and the short last chunk; the rest of what is read is as it was. */
    kit_fill(data + 12 * KIT_CHUNK, 8 * KIT_CHUNK, 2);
    memset(data + 220 * KIT_CHUNK, 0, 3 * KIT_CHUNK);
    kit_fill(data + 299 * KIT_CHUNK, 4096, 3);
    struct xv_session *owner = work_begin(&kit, XV_SESSION_BACKUP, WORK_KEY, 7, WORK_ID, base);
    put_map(owner, "vdi-1", SIZE, 0, &keep, &read, "{\"old\":1}");
    put_map(owner, "vdi-1", SIZE, 0, &read, &keep, "{\"mode\":\"cbt\"}");
    struct xv_disk_writer *writer = work_disk(owner, "vdi-1", SIZE, 0);
    struct xv_work_map map = get_map(&kit, "vdi-1");
    ck_assert_str_eq(map.key, "vdi-1");
    ck_assert_str_eq(map.device, "0");
    ck_assert_str_eq(map.facts, "{\"mode\":\"cbt\"}");
    ck_assert_str_eq(map.base, id);
    ck_assert_int_eq(map.base_index, 0);
    ck_assert_uint_eq(map.size, SIZE);
    same_extents(&map.read, &read);
    same_extents(&map.keep, &keep);
    struct xv_point *theirs = kit_find(&kit, map.base);
    struct xv_session *part = work_begin(&kit, XV_SESSION_PART, WORK_KEY "#p", 0, WORK_ID, theirs);
    ck_assert_ptr_nonnull(xv_session_base(part));
    struct xv_disk_writer *part_writer = work_disk(part, "vdi-1", map.size, map.base_index);
    kit_put(part, part_writer, 200 * KIT_CHUNK, data + 200 * KIT_CHUNK, SIZE - 200 * KIT_CHUNK);
    struct xv_store_stats stats;
    xv_disk_writer_stats(part_writer, &stats);
    ck_assert_uint_eq(stats.bytes_same, 96 * KIT_CHUNK);
    work_checkpoint(part);
    xvsa_error *error = NULL;
    ck_ok(xv_disk_writer_keep(writer, &map.keep, NULL, &error), error);
    kit_put(owner, writer, 10 * KIT_CHUNK, data + 10 * KIT_CHUNK, 30 * KIT_CHUNK);
    kit_put(owner, writer, 100 * KIT_CHUNK, data + 100 * KIT_CHUNK, KIT_CHUNK);
    struct xv_extents have = work_adopt(writer);
    same_extents(&have, &read);
    work_finish(writer);
    kit_commit(owner, id);
    xv_work_map_free(&map);
    ck_fails(xv_work_get_map(kit.repo, WORK_ID, "vdi-1", NULL, &map, &error), XVSA_ERR_NOT_FOUND,
             error);
    xv_session_free(part);
    xv_session_free(owner);
    kit_reopen(&kit);
    kit_expect(&kit, id, 0, data, SIZE);
    ck_assert_uint_eq(work_faults(&kit), 0);
    xv_extents_free(&have);
    xv_extents_free(&read);
    xv_extents_free(&keep);
    xv_point_unref(theirs);
    xv_point_unref(base);
    free(data);
    kit_free(&kit);
}
END_TEST

START_TEST(map_that_is_missing_or_damaged)
{
    struct kit kit = kit_new(true);
    struct xv_extents none;
    struct xv_work_map map;
    xvsa_error *error = NULL;
    char command[256];
    xv_extents_init(&none);
    ck_fails(xv_work_get_map(kit.repo, WORK_ID, "vdi-1", NULL, &map, &error), XVSA_ERR_NOT_FOUND,
             error);
    ck_fails(xv_work_get_map(kit.repo, "short", "vdi-1", NULL, &map, &error), XVSA_ERR_INVALID,
             error);
    struct xv_session *owner = work_owner(&kit, 1);
    /* An empty disk has a map, too. */
    put_map(owner, "vdi-0", 0, -1, &none, &none, NULL);
    map = get_map(&kit, "vdi-0");
    ck_assert_uint_eq(map.size, 0);
    ck_assert_str_eq(map.base, "");
    ck_assert_str_eq(map.facts, "{}");
    xv_work_map_free(&map);
    static const uint64_t odd[][2] = {{0, 1}};
    struct xv_extents read = extents(odd, 1, 100);
    struct xv_work_disk disk = {"vdi-1", "0", SIZE, -1, &read, &none, "{}"};
    ck_fails(xv_work_put_map(owner, &disk, NULL, &error), XVSA_ERR_INVALID, error);
    snprintf(command, sizeof command, "rm '%s'/w/*", kit.folder);
    ck_assert_int_eq(system(command), 0);
    /* One that is lost is told apart from none: progress may hang on it. */
    ck_fails(xv_work_get_map(kit.repo, WORK_ID, "vdi-0", NULL, &map, &error), XVSA_ERR_CORRUPT,
             error);
    ck_fails(xv_work_get_map(kit.repo, WORK_ID, "vdi-1", NULL, &map, &error), XVSA_ERR_NOT_FOUND,
             error);
    xv_extents_free(&read);
    xv_session_free(owner);
    kit_free(&kit);
}
END_TEST

/* So many ranges that one object does not hold them. */
START_TEST(map_of_several_objects)
{
    struct kit kit = kit_new(false);
    const uint64_t chunks = 17u << 20;
    struct xv_extents read, keep;
    xvsa_error *error = NULL;
    xv_extents_init(&read);
    xv_extents_init(&keep);
    int rc = 0;
    for (uint64_t chunk = 0; rc == 0 && chunk < chunks; chunk += 2) {
        rc = xv_extents_add(&read, chunk * KIT_CHUNK, KIT_CHUNK, &error);
        if (rc == 0)
            rc = xv_extents_add(&keep, (chunk + 1) * KIT_CHUNK, KIT_CHUNK, &error);
    }
    ck_ok(rc, error);
    struct xv_session *owner = work_owner(&kit, 1);
    put_map(owner, "vdi-1", chunks * KIT_CHUNK, -1, &read, &keep, "{}");
    ck_assert_uint_eq(work_objects(&kit, "w/"), 2);
    struct xv_work_map map = get_map(&kit, "vdi-1");
    same_extents(&map.read, &read);
    same_extents(&map.keep, &keep);
    xv_work_map_free(&map);
    xv_extents_free(&read);
    xv_extents_free(&keep);
    xv_session_free(owner);
    kit_free(&kit);
}
END_TEST

/* Replay ------------------------------------------------------------------------------------------ */

static json_t *handle(unsigned number)
{
    char hex[33];
    snprintf(hex, sizeof hex, "%032x", number);
    return json_string(hex);
}

static json_t *begin_record(unsigned session, const char *kind, const char *key, int token,
                            unsigned work)
{
    return json_pack("{s:i, s:i, s:o, s:s, s:s, s:i, s:s, s:[], s:o*}", "type", 2, "flags", 1,
                     "session", handle(session), "kind", kind, "key", key, "token", token, "owner",
                     "x", "pins", "work", work == 0 ? NULL : handle(work));
}

static json_t *progress_record(unsigned session, unsigned work, unsigned object)
{
    return json_pack("{s:i, s:i, s:o, s:o, s:[{s:o, s:i, s:s, s:s, s:s}]}", "type", 14, "flags", 0,
                     "session", handle(session), "work", handle(work), "objects", "id",
                     handle(object), "length", 10, "digest",
                     "0000000000000000000000000000000000000000000000000000000000000000", "content",
                     "done", "key", "vdi");
}

static json_t *end_record(unsigned session, const char *outcome)
{
    return json_pack("{s:i, s:i, s:o, s:s}", "type", 5, "flags", 1, "session", handle(session),
                     "outcome", outcome);
}

static json_t *commit_record(unsigned session, unsigned point)
{
    return json_pack("{s:i, s:i, s:o, s:o, s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:i}", "type", 4,
                     "flags", 1, "session", handle(session), "point", handle(point), "digest",
                     "0000000000000000000000000000000000000000000000000000000000000000", "vm_uuid",
                     "u", "vm_name", "n", "pool_uuid", "p", "taken", 1, "size", 1, "stored", 1,
                     "disks", 1);
}

/* Applies a record as an entry of its own; tells whether it was not void. */
static bool apply(struct xv_state *state, json_t *record)
{
    uint64_t accepted = 0;
    xvsa_error *error = NULL;
    json_t *entry = json_pack("{s:I, s:i, s:[o]}", "seq", (json_int_t)state->tail + 1, "written", 1,
                              "records", record);
    ck_assert_ptr_nonnull(entry);
    ck_ok(xv_state_apply(state, entry, "j/x", &accepted, &error), error);
    json_decref(entry);
    return accepted == 1;
}

static size_t facts_of(const struct xv_state *state, unsigned number)
{
    uint8_t id[16];
    json_t *text = handle(number);
    ck_assert_int_eq(xv_hex_decode(json_string_value(text), id, sizeof id), 0);
    json_decref(text);
    const struct xv_work *work = xv_state_work(state, id);
    return work == NULL ? SIZE_MAX : work->fact_count;
}

START_TEST(replay_keeps_and_drops_facts)
{
    struct xv_state state;
    xv_state_init(&state);
    ck_assert(apply(&state, begin_record(1, "backup", "k", 1, 100)));
    ck_assert(apply(&state, begin_record(2, "part", "k#a", 1, 100)));
    ck_assert(apply(&state, begin_record(3, "backup", "other", 1, 200)));
    ck_assert(apply(&state, progress_record(1, 100, 50)));
    ck_assert(apply(&state, progress_record(2, 100, 51)));
    /* Of another work, of a session without one, of nobody. */
    ck_assert(!apply(&state, progress_record(1, 200, 52)));
    ck_assert(!apply(&state, progress_record(9, 100, 52)));
    ck_assert_uint_eq(facts_of(&state, 100), 2);
    /* Fenced by the same work: kept. */
    ck_assert(apply(&state, begin_record(4, "backup", "k", 2, 100)));
    ck_assert(!apply(&state, progress_record(1, 100, 53)));
    ck_assert(apply(&state, progress_record(2, 100, 54)));
    ck_assert_uint_eq(facts_of(&state, 100), 3);
    /* Parked: kept, and parts go on. A session of another kind changes nothing. */
    ck_assert(apply(&state, end_record(4, "parked")));
    ck_assert(apply(&state, progress_record(2, 100, 55)));
    ck_assert(apply(&state, begin_record(5, "restore", "k", 3, 300)));
    ck_assert(!apply(&state, progress_record(5, 300, 56)));
    ck_assert_uint_eq(facts_of(&state, 100), 4);
    /* Committed: dropped, and its part's progress is void, its index is not. */
    ck_assert(apply(&state, begin_record(6, "backup", "k", 4, 100)));
    ck_assert(apply(&state, commit_record(6, 70)));
    ck_assert_uint_eq(facts_of(&state, 100), SIZE_MAX);
    ck_assert(!apply(&state, progress_record(2, 100, 57)));
    ck_assert(apply(&state, end_record(6, "ok")));
    /* A part's end ends no work, an aborted backup's does. */
    ck_assert(apply(&state, begin_record(7, "part", "other#a", 1, 200)));
    ck_assert(apply(&state, end_record(7, "aborted")));
    ck_assert_uint_eq(facts_of(&state, 200), 0);
    ck_assert(apply(&state, end_record(3, "aborted")));
    ck_assert_uint_eq(facts_of(&state, 200), SIZE_MAX);
    /* Another work of the key, or none. A work that was ended opens empty. */
    ck_assert(apply(&state, begin_record(8, "backup", "k", 5, 100)));
    ck_assert_uint_eq(facts_of(&state, 100), 0);
    ck_assert(apply(&state, begin_record(9, "backup", "k", 6, 101)));
    ck_assert_uint_eq(facts_of(&state, 100), SIZE_MAX);
    ck_assert_uint_eq(facts_of(&state, 101), 0);
    ck_assert(apply(&state, begin_record(10, "backup", "k", 7, 0)));
    ck_assert_uint_eq(state.work_count, 0);
    /* A void beginning changes nothing. */
    ck_assert(apply(&state, begin_record(11, "backup", "k", 8, 100)));
    ck_assert(!apply(&state, begin_record(12, "backup", "k", 8, 101)));
    ck_assert_uint_eq(facts_of(&state, 100), 0);
    xv_state_free(&state);
}
END_TEST

START_TEST(deleted_point_never_comes_back)
{
    struct xv_state state;
    xv_state_init(&state);
    ck_assert(apply(&state, begin_record(1, "backup", "k", 1, 0)));
    for (unsigned point = 1; point <= 20; point++)
        ck_assert(apply(&state, commit_record(1, point * 7 % 23)));
    for (unsigned point = 1; point <= 20; point += 2)
        ck_assert(apply(&state, json_pack("{s:i, s:i, s:o}", "type", 6, "flags", 1, "point",
                                          handle(point * 7 % 23))));
    ck_assert_uint_eq(state.point_count, 10);
    for (unsigned point = 1; point <= 20; point++)
        ck_assert(!apply(&state, commit_record(1, point * 7 % 23)));
    ck_assert_uint_eq(state.point_count, 10);
    ck_assert(apply(&state, commit_record(1, 1000)));
    xv_state_free(&state);
}
END_TEST

/* Parts have keys of their own, so that there come to be very many. */
START_TEST(tokens_of_many_keys)
{
    struct xv_state state;
    char key[32];
    xv_state_init(&state);
    for (unsigned i = 1; i <= 5000; i++) {
        snprintf(key, sizeof key, "k#%u", i * 7919);
        ck_assert(apply(&state, begin_record(i, "part", key, (int)i, 0)));
        ck_assert(apply(&state, end_record(i, "aborted")));
    }
    ck_assert_uint_eq(state.token_count, 5000);
    for (unsigned i = 1; i <= 5000; i += 7) {
        snprintf(key, sizeof key, "k#%u", i * 7919);
        ck_assert_uint_eq(xv_state_token(&state, key), i);
        ck_assert(!apply(&state, begin_record(6000, "part", key, (int)i, 0)));
    }
    ck_assert_uint_eq(xv_state_token(&state, "k#1"), 0);
    ck_assert_uint_eq(state.token_count, 5000);
    xv_state_free(&state);
}
END_TEST

static void fill(Suite *suite)
{
    TCase *tests = tcase_create("map");
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, increment_is_shared);
    tcase_add_test(tests, map_that_is_missing_or_damaged);
    tcase_add_test(tests, map_of_several_objects);
    tcase_add_test(tests, replay_keeps_and_drops_facts);
    tcase_add_test(tests, deleted_point_never_comes_back);
    tcase_add_test(tests, tokens_of_many_keys);
    suite_add_tcase(suite, tests);
}

UNIT_MAIN("repo_work_map")
