/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The range algebra against a naive model: one byte for each byte of a small disk.
 */
#include "unit.h"

#include <string.h>

#include "diff/extents.h"

#define SPACE  300
#define ROUNDS 3000

static uint32_t below(uint64_t *state, uint32_t bound)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*state >> 33) % bound;
}

static void check_invariants(const struct xv_extents *set)
{
    for (size_t i = 0; i < set->count; i++) {
        ck_assert_uint_gt(set->ranges[i].length, 0);
        if (i > 0)
            ck_assert_uint_gt(set->ranges[i].offset,
                              set->ranges[i - 1].offset + set->ranges[i - 1].length);
    }
}

static void check_model(const struct xv_extents *set, const char *model)
{
    char got[SPACE] = {0};
    uint64_t bytes = 0;
    check_invariants(set);
    for (size_t i = 0; i < set->count; i++) {
        ck_assert_uint_le(set->ranges[i].offset + set->ranges[i].length, SPACE);
        memset(got + set->ranges[i].offset, 1, set->ranges[i].length);
    }
    for (size_t i = 0; i < SPACE; i++)
        bytes += model[i] != 0;
    ck_assert_int_eq(memcmp(got, model, SPACE), 0);
    ck_assert_uint_eq(xv_extents_bytes(set), bytes);
}

static void make(uint64_t *state, struct xv_extents *set, char *model)
{
    xvsa_error *error = NULL;
    xv_extents_init(set);
    memset(model, 0, SPACE);
    uint32_t count = below(state, 20);
    uint32_t longest = 1 + below(state, 60);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t offset = below(state, SPACE);
        uint32_t length = below(state, longest);
        if (length > SPACE - offset)
            length = SPACE - offset;
        ck_ok(xv_extents_add(set, offset, length, &error), error);
        memset(model + offset, 1, length);
        check_model(set, model);
    }
}

typedef int (*operation)(const struct xv_extents *, const struct xv_extents *, struct xv_extents *,
                         xvsa_error **);

static void check_pair(operation run, char (*expect)(char, char), const struct xv_extents *a,
                       const char *model_a, const struct xv_extents *b, const char *model_b)
{
    struct xv_extents result;
    char model[SPACE];
    xvsa_error *error = NULL;
    xv_extents_init(&result);
    ck_ok(run(a, b, &result, &error), error);
    for (size_t i = 0; i < SPACE; i++)
        model[i] = expect(model_a[i], model_b[i]);
    check_model(&result, model);
    xv_extents_free(&result);
}

static char either(char a, char b)
{
    return a || b;
}

static char both(char a, char b)
{
    return a && b;
}

static char without(char a, char b)
{
    return a && !b;
}

START_TEST(algebra_equals_the_model)
{
    uint64_t state = 2024;
    for (int round = 0; round < ROUNDS; round++) {
        struct xv_extents a, b;
        char model_a[SPACE], model_b[SPACE];
        make(&state, &a, model_a);
        make(&state, &b, model_b);
        check_pair(xv_extents_union, either, &a, model_a, &b, model_b);
        check_pair(xv_extents_intersect, both, &a, model_a, &b, model_b);
        check_pair(xv_extents_subtract, without, &a, model_a, &b, model_b);
        xv_extents_free(&a);
        xv_extents_free(&b);
    }
}
END_TEST

START_TEST(align_equals_the_model)
{
    uint64_t state = 77;
    for (int round = 0; round < ROUNDS; round++) {
        struct xv_extents set, aligned;
        char model[SPACE], expected[SPACE] = {0};
        xvsa_error *error = NULL;
        make(&state, &set, model);
        uint32_t unit = 1u << below(&state, 7);
        uint32_t end = below(&state, SPACE + 1);
        for (uint32_t i = 0; i < end; i++) {
            for (uint32_t k = i / unit * unit; k < (i / unit + 1) * unit && k < SPACE; k++)
                expected[i] = expected[i] || (model[k] && k / unit == i / unit);
        }
        xv_extents_init(&aligned);
        ck_ok(xv_extents_align(&set, unit, end, &aligned, &error), error);
        check_model(&aligned, expected);
        xv_extents_free(&aligned);
        xv_extents_free(&set);
    }
}
END_TEST

START_TEST(limits_of_the_number_range)
{
    struct xv_extents set, aligned;
    xvsa_error *error = NULL;
    xv_extents_init(&set);
    xv_extents_init(&aligned);
    ck_fails(xv_extents_add(&set, UINT64_MAX - 9, 10 + 1, &error), XVSA_ERR_INVALID, error);
    ck_ok(xv_extents_add(&set, UINT64_MAX - 10, 10, &error), error);
    ck_ok(xv_extents_add(&set, UINT64_MAX, 0, &error), error);
    ck_assert_uint_eq(set.count, 1);
    ck_fails(xv_extents_align(&set, 3, 10, &aligned, &error), XVSA_ERR_INVALID, error);
    ck_fails(xv_extents_align(&set, 0, 10, &aligned, &error), XVSA_ERR_INVALID, error);
    ck_ok(xv_extents_align(&set, 65536, UINT64_MAX, &aligned, &error), error);
    ck_assert_uint_eq(aligned.count, 1);
    ck_assert_uint_eq(aligned.ranges[0].offset, UINT64_MAX - 65535);
    ck_assert_uint_eq(aligned.ranges[0].length, 65535);
    xv_extents_free(&set);
    xv_extents_free(&aligned);
}
END_TEST

static void fill(Suite *suite)
{
    TCase *tests = tcase_create("extents");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, algebra_equals_the_model);
    tcase_add_test(tests, align_equals_the_model);
    tcase_add_test(tests, limits_of_the_number_range);
    suite_add_tcase(suite, tests);
}

UNIT_MAIN("extents")
