/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "unit.h"

#include <openssl/evp.h>
#include <string.h>

#include "diff/changes.h"

#define MIB (UINT64_C(1) << 20)

static int decode(const char *base64, uint64_t size, struct xv_extents *ret, xvsa_error **error)
{
    xv_extents_free(ret);
    return xv_changes_decode(base64, size, ret, error);
}

static void check_range(const struct xv_extents *set, size_t index, uint64_t offset,
                        uint64_t length)
{
    ck_assert_uint_lt(index, set->count);
    ck_assert_uint_eq(set->ranges[index].offset, offset);
    ck_assert_uint_eq(set->ranges[index].length, length);
}

START_TEST(most_significant_bit_is_first)
{
    struct xv_extents set;
    xvsa_error *error = NULL;
    xv_extents_init(&set);
    /* 80 01 00: blocks 0 and 15 of 24. */
    ck_ok(decode("gAEA", 24 * XV_CBT_BLOCK, &set, &error), error);
    ck_assert_uint_eq(set.count, 2);
    check_range(&set, 0, 0, XV_CBT_BLOCK);
    check_range(&set, 1, 15 * XV_CBT_BLOCK, XV_CBT_BLOCK);
    ck_ok(decode("////", 24 * XV_CBT_BLOCK, &set, &error), error);
    ck_assert_uint_eq(set.count, 1);
    check_range(&set, 0, 0, 24 * XV_CBT_BLOCK);
    ck_ok(decode("AAAA", 24 * XV_CBT_BLOCK, &set, &error), error);
    ck_assert_uint_eq(set.count, 0);
    ck_ok(decode("", 0, &set, &error), error);
    ck_assert_uint_eq(set.count, 0);
    xv_extents_free(&set);
}
END_TEST

START_TEST(odd_lengths_end_at_the_disk)
{
    struct xv_extents set;
    xvsa_error *error = NULL;
    xv_extents_init(&set);
    /* f0: four blocks, the last of 512 bytes. */
    ck_ok(decode("8A==", 3 * XV_CBT_BLOCK + 512, &set, &error), error);
    ck_assert_uint_eq(set.count, 1);
    check_range(&set, 0, 0, 3 * XV_CBT_BLOCK + 512);
    /* 00 80: nine blocks. */
    ck_ok(decode("AIA=", 9 * XV_CBT_BLOCK, &set, &error), error);
    check_range(&set, 0, 8 * XV_CBT_BLOCK, XV_CBT_BLOCK);
    ck_ok(decode("gA==", 1, &set, &error), error);
    check_range(&set, 0, 0, 1);
    xv_extents_free(&set);
}
END_TEST

START_TEST(damaged_maps_are_refused)
{
    static const struct {
        const char *base64;
        uint64_t blocks;
    } cases[] = {
        {"", 1},      {"gAEA", 16},     {"gAEA", 25},
        {"gAE", 24},  {"gAEA\n", 24},   {" gAE", 24},
        {"gA=A", 24}, {"g===", 8},      {"+A==", 4},
        {"8B==", 4},  {"gAE=", 24},     {"gAEAgAEA", 24},
        {"gA-_", 24}, {"AAAB", 23},     {"AA==AAAA", 48},
        {"====", 24}, {"gAEA====", 24}, {"\xff\xff\xff\xff", 24},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct xv_extents set;
        xvsa_error *error = NULL;
        xv_extents_init(&set);
        int rc = decode(cases[i].base64, cases[i].blocks * XV_CBT_BLOCK, &set, &error);
        ck_assert_msg(rc == XVSA_ERR_PROTOCOL, "case %zu '%s': %d", i, cases[i].base64, rc);
        xv_error_clear(&error);
        xv_extents_free(&set);
    }
    struct xv_extents set;
    xvsa_error *error = NULL;
    xv_extents_init(&set);
    ck_fails(xv_changes_decode(NULL, MIB, &set, &error), XVSA_ERR_PROTOCOL, error);
    ck_fails(xv_changes_decode("AAAA", UINT64_MAX, &set, &error), XVSA_ERR_LIMIT, error);
    uint8_t bits[3] = {0};
    ck_fails(xv_changes_decode_bits(bits, 2, 24 * XV_CBT_BLOCK, &set, &error), XVSA_ERR_PROTOCOL,
             error);
}
END_TEST

START_TEST(maps_equal_their_bits)
{
    srandom(5);
    for (int round = 0; round < 500; round++) {
        uint64_t count = 1 + (uint64_t)random() % 500;
        uint64_t size = (count - 1) * XV_CBT_BLOCK + 1 + (uint64_t)random() % XV_CBT_BLOCK;
        uint8_t bits[64] = {0};
        char base64[96];
        struct xv_extents set;
        xvsa_error *error = NULL;
        for (uint64_t i = 0; i < count; i++) {
            if (random() % 4 != 0)
                bits[i / 8] |= (uint8_t)(0x80u >> (i % 8));
        }
        EVP_EncodeBlock((unsigned char *)base64, bits, (int)((count + 7) / 8));
        xv_extents_init(&set);
        ck_ok(xv_changes_decode(base64, size, &set, &error), error);
        uint8_t back[64] = {0};
        for (size_t i = 0; i < set.count; i++) {
            uint64_t end = set.ranges[i].offset + set.ranges[i].length;
            ck_assert_uint_le(end, size);
            for (uint64_t at = set.ranges[i].offset; at < end; at += XV_CBT_BLOCK)
                back[at / XV_CBT_BLOCK / 8] |= (uint8_t)(0x80u >> (at / XV_CBT_BLOCK % 8));
        }
        ck_assert_mem_eq(bits, back, sizeof bits);
        xv_extents_free(&set);
    }
}
END_TEST

static void sample(const struct xv_extents *changed, uint64_t size, uint32_t permille,
                   uint32_t minimum, uint64_t seed, struct xv_extents *ret)
{
    xvsa_error *error = NULL;
    xv_extents_init(ret);
    ck_ok(xv_changes_sample(changed, size, 65536, permille, minimum, seed, ret, &error), error);
}

START_TEST(sample_takes_unchanged_blocks_only)
{
    struct xv_extents changed, chosen, common;
    xvsa_error *error = NULL;
    xv_extents_init(&changed);
    xv_extents_init(&common);
    for (uint64_t at = 0; at < 64 * MIB; at += 3 * 65536)
        ck_ok(xv_extents_add(&changed, at + 100, 5, &error), error);
    sample(&changed, 64 * MIB + 512, 500, 0, 9, &chosen);
    /* 1025 blocks, 342 changed, half of the other 683 rounded up. */
    struct xv_extents blocks;
    xv_extents_init(&blocks);
    ck_ok(xv_extents_align(&changed, 65536, 64 * MIB + 512, &blocks, &error), error);
    ck_ok(xv_extents_intersect(&chosen, &blocks, &common, &error), error);
    ck_assert_uint_eq(common.count, 0);
    uint64_t bytes = xv_extents_bytes(&chosen);
    ck_assert_uint_eq((bytes + 65535) / 65536, 342);
    struct xv_extents again, other;
    sample(&changed, 64 * MIB + 512, 500, 0, 9, &again);
    ck_assert_uint_eq(again.count, chosen.count);
    ck_assert_mem_eq(again.ranges, chosen.ranges, again.count * sizeof *again.ranges);
    sample(&changed, 64 * MIB + 512, 500, 0, 10, &other);
    ck_assert(other.count != chosen.count ||
              memcmp(other.ranges, chosen.ranges, other.count * sizeof *other.ranges) != 0);
    xv_extents_free(&again);
    xv_extents_free(&other);
    xv_extents_free(&blocks);
    xv_extents_free(&common);
    xv_extents_free(&chosen);
    xv_extents_free(&changed);
}
END_TEST

START_TEST(sample_size_is_exact)
{
    struct xv_extents none, chosen;
    xvsa_error *error = NULL;
    xv_extents_init(&none);
    static const struct {
        uint32_t permille, minimum;
        uint64_t blocks, expected;
    } cases[] = {{0, 0, 100, 0},  {1, 0, 100, 1},      {1, 16, 100, 16},    {0, 200, 100, 100},
                 {1000, 0, 7, 7}, {5, 1, 100000, 500}, {999, 0, 1001, 1000}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        sample(&none, cases[i].blocks * 65536, cases[i].permille, cases[i].minimum, i, &chosen);
        ck_assert_uint_eq(xv_extents_bytes(&chosen), cases[i].expected * 65536);
        xv_extents_free(&chosen);
    }
    xv_extents_init(&chosen);
    ck_fails(xv_changes_sample(&none, MIB, 65536, 1001, 0, 1, &chosen, &error), XVSA_ERR_INVALID,
             error);
    ck_fails(xv_changes_sample(&none, MIB, 65535, 1, 0, 1, &chosen, &error), XVSA_ERR_INVALID,
             error);
}
END_TEST

START_TEST(sample_is_uniform)
{
    /* 10 of 100 blocks, 20 000 times: each block is expected 2000 times with a deviation of 42. */
    struct xv_extents none, chosen;
    unsigned hits[100] = {0};
    xv_extents_init(&none);
    for (uint64_t seed = 0; seed < 20000; seed++) {
        sample(&none, 100 * 65536, 100, 0, seed, &chosen);
        for (size_t i = 0; i < chosen.count; i++) {
            for (uint64_t at = 0; at < chosen.ranges[i].length; at += 65536)
                hits[(chosen.ranges[i].offset + at) / 65536]++;
        }
        xv_extents_free(&chosen);
    }
    for (size_t i = 0; i < 100; i++)
        ck_assert_msg(hits[i] > 1780 && hits[i] < 2220, "block %zu: %u", i, hits[i]);
}
END_TEST

START_TEST(zero_test_sees_every_byte)
{
    static uint8_t data[400];
    for (size_t length = 0; length <= 300; length++) {
        ck_assert(xv_is_zero(data + 7, length));
        data[7 + length] = 1;
        ck_assert(xv_is_zero(data + 7, length));
        data[7 + length] = 0;
        for (size_t i = 0; i < length; i++) {
            data[7 + i] = 0x80;
            ck_assert(!xv_is_zero(data + 7, length));
            data[7 + i] = 0;
        }
    }
}
END_TEST

static void fill(Suite *suite)
{
    TCase *tests = tcase_create("changes");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, most_significant_bit_is_first);
    tcase_add_test(tests, odd_lengths_end_at_the_disk);
    tcase_add_test(tests, damaged_maps_are_refused);
    tcase_add_test(tests, maps_equal_their_bits);
    tcase_add_test(tests, sample_takes_unchanged_blocks_only);
    tcase_add_test(tests, sample_size_is_exact);
    tcase_add_test(tests, sample_is_uniform);
    tcase_add_test(tests, zero_test_sees_every_byte);
    suite_add_tcase(suite, tests);
}

UNIT_MAIN("changes")
