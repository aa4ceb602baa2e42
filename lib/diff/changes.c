/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "diff/changes.h"

#include <limits.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#define COMPONENT "diff"

static const char ALPHABET[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static uint64_t blocks_of(uint64_t size, uint64_t unit)
{
    return size / unit + (size % unit != 0);
}

static uint64_t bitmap_length(uint64_t size)
{
    return blocks_of(blocks_of(size, XV_CBT_BLOCK), 8);
}

static int fail_broken(xvsa_error **error, const char *why)
{
    return xv_fail(error, XVSA_ERR_PROTOCOL, COMPONENT, "the changed-block bitmap is broken: %s",
                   why);
}

static int fail_length(xvsa_error **error, uint64_t size, const char *unit, uint64_t got,
                       uint64_t expected)
{
    return xv_fail(error, XVSA_ERR_PROTOCOL, COMPONENT,
                   "the changed-block bitmap of a disk of %llu bytes has %llu %s instead of %llu",
                   (unsigned long long)size, (unsigned long long)got, unit,
                   (unsigned long long)expected);
}

/* The first of the bits [from, count) that equals wanted, or count. Whole bytes are skipped at
 * once: a map is long and mostly of one value. */
static uint64_t seek_bit(const uint8_t *bits, uint64_t from, uint64_t count, bool wanted)
{
    const uint8_t boring = wanted ? 0x00 : 0xff;
    while (from < count) {
        if (from % 8 == 0 && bits[from / 8] == boring) {
            from += 8;
            continue;
        }
        if (((bits[from / 8] & (0x80u >> (from % 8))) != 0) == wanted)
            return from;
        from++;
    }
    return count;
}

int xv_changes_decode_bits(const uint8_t *bits, size_t length, uint64_t size,
                           struct xv_extents *ret, xvsa_error **error)
{
    uint64_t count = blocks_of(size, XV_CBT_BLOCK);
    if (length != bitmap_length(size))
        return fail_length(error, size, "bytes", length, bitmap_length(size));
    if (count % 8 != 0 && (bits[length - 1] & (0xffu >> (count % 8))) != 0)
        return fail_broken(error, "bits beyond the disk's end are set");
    int rc = 0;
    uint64_t at = seek_bit(bits, 0, count, true);
    while (rc == 0 && at < count) {
        uint64_t stop = seek_bit(bits, at, count, false);
        uint64_t end = stop == count ? size : stop * XV_CBT_BLOCK;
        rc = xv_extents_add(ret, at * XV_CBT_BLOCK, end - at * XV_CBT_BLOCK, error);
        at = seek_bit(bits, stop, count, true);
    }
    return rc;
}

/* libcrypto's decoder skips white space and takes '=' anywhere: the strict part is ours. */
static int check_base64(const char *base64, size_t digits, size_t length, xvsa_error **error)
{
    if (strspn(base64, ALPHABET) != digits)
        return fail_broken(error, "it is not base64");
    if (strspn(base64 + digits, "=") != length - digits)
        return fail_broken(error, "its base64 padding is wrong");
    return 0;
}

int xv_changes_decode(const char *base64, uint64_t size, struct xv_extents *ret, xvsa_error **error)
{
    if (base64 == NULL)
        return fail_broken(error, "it is missing");
    uint64_t bytes = bitmap_length(size);
    uint64_t expected = blocks_of(bytes, 3) * 4;
    if (expected > INT_MAX)
        return xv_fail(error, XVSA_ERR_LIMIT, COMPONENT,
                       "a disk of %llu bytes is too large for a changed-block bitmap",
                       (unsigned long long)size);
    size_t length = strlen(base64);
    if (length != expected)
        return fail_length(error, size, "base64 characters", length, expected);
    size_t digits = (size_t)((bytes * 8 + 5) / 6);
    int rc = check_base64(base64, digits, length, error);
    if (rc != 0)
        return rc;
    uint8_t *bits = calloc(length / 4 * 3 + 1, 1);
    if (bits == NULL)
        return xv_fail_memory(error);
    int decoded = EVP_DecodeBlock(bits, (const unsigned char *)base64, (int)length);
    if (decoded < 0 || (size_t)decoded != length / 4 * 3)
        rc = fail_broken(error, "it is not base64");
    else if (!xv_is_zero(bits + bytes, (size_t)decoded - (size_t)bytes))
        rc = fail_broken(error, "its last base64 character has stray bits");
    else
        rc = xv_changes_decode_bits(bits, (size_t)bytes, size, ret, error);
    free(bits);
    return rc;
}

/* SplitMix64: small, and the same sample on every machine for the same seed. */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* Uniform in [0, bound), bound > 0; values of the last, incomplete run are drawn again. */
static uint64_t random_below(uint64_t *state, uint64_t bound)
{
    uint64_t skip = (0 - bound) % bound;
    uint64_t value;
    do {
        value = next_random(state);
    } while (value < skip);
    return value % bound;
}

static uint64_t count_blocks(const struct xv_extents *set, uint32_t unit)
{
    uint64_t count = 0;
    for (size_t i = 0; i < set->count; i++)
        count += blocks_of(set->ranges[i].length, unit);
    return count;
}

/* Selection sampling (Knuth 3.4.2, algorithm S): walks over all candidates in order and takes each
 * with the probability wanted / left, which gives every subset of that size the same chance. */
static int select_blocks(const struct xv_extents *candidates, uint64_t size, uint32_t unit,
                         uint64_t wanted, uint64_t seed, struct xv_extents *ret, xvsa_error **error)
{
    uint64_t left = count_blocks(candidates, unit);
    int rc = 0;
    for (size_t i = 0; i < candidates->count && wanted > 0; i++) {
        uint64_t offset = candidates->ranges[i].offset;
        uint64_t blocks = blocks_of(candidates->ranges[i].length, unit);
        for (; rc == 0 && blocks > 0 && wanted > 0; blocks--, offset += unit) {
            if (random_below(&seed, left--) >= wanted)
                continue;
            wanted--;
            rc = xv_extents_add(ret, offset, size - offset < unit ? size - offset : unit, error);
        }
        if (rc != 0)
            return rc;
    }
    return 0;
}

static int unchanged_blocks(const struct xv_extents *changed, uint64_t size, uint32_t unit,
                            struct xv_extents *ret, xvsa_error **error)
{
    struct xv_extents whole, aligned;
    xv_extents_init(&whole);
    xv_extents_init(&aligned);
    int rc = xv_extents_add(&whole, 0, size, error);
    if (rc == 0)
        rc = xv_extents_align(changed, unit, size, &aligned, error);
    if (rc == 0)
        rc = xv_extents_subtract(&whole, &aligned, ret, error);
    xv_extents_free(&whole);
    xv_extents_free(&aligned);
    return rc;
}

int xv_changes_sample(const struct xv_extents *changed, uint64_t size, uint32_t unit,
                      uint32_t permille, uint32_t minimum, uint64_t seed, struct xv_extents *ret,
                      xvsa_error **error)
{
    if (permille > 1000)
        return xv_fail(error, XVSA_ERR_INVALID, COMPONENT, "a sample of %u permille is above 1000",
                       permille);
    struct xv_extents candidates;
    xv_extents_init(&candidates);
    int rc = unchanged_blocks(changed, size, unit, &candidates, error);
    if (rc == 0) {
        uint64_t count = count_blocks(&candidates, unit);
        uint64_t wanted = count / 1000 * permille + (count % 1000 * permille + 999) / 1000;
        if (wanted < minimum)
            wanted = minimum;
        if (wanted > count)
            wanted = count;
        rc = select_blocks(&candidates, size, unit, wanted, seed, ret, error);
    }
    xv_extents_free(&candidates);
    return rc;
}

bool xv_is_zero(const void *data, size_t length)
{
    /* When the first bytes are zero and the data equals itself shifted by them, all are zero; the
     * library's memcmp is faster than any loop of ours. */
    static const uint8_t zeros[64];
    const uint8_t *bytes = data;
    if (length <= sizeof zeros)
        return length == 0 || memcmp(bytes, zeros, length) == 0;
    return memcmp(bytes, zeros, sizeof zeros) == 0 &&
           memcmp(bytes, bytes + sizeof zeros, length - sizeof zeros) == 0;
}
