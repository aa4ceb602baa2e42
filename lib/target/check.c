/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The conformance kit: tries what a target promises, one property after the other, on objects under
 * "probe/". A property that does not hold is an outcome, not an error.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "target/internal.h"

#define LARGE (4u << 20)

struct trial {
    struct xv_target *target;
    const struct xv_call *call;
    char prefix[48];   /* "probe/<random>/" without the slash */
    char finding[256]; /* what is wrong; empty when the property holds */
};

static void name_of(const struct trial *trial, const char *leaf, char *name, size_t size)
{
    snprintf(name, size, "%s/%s", trial->prefix, leaf);
}

static int put_text(struct trial *trial, const char *leaf, const char *text, uint32_t flags,
                    xvsa_error **error)
{
    char name[96];
    name_of(trial, leaf, name, sizeof name);
    xvsa_buffer piece = {text, strlen(text)};
    return xv_target_put(trial->target, name, &piece, 1, flags, trial->call, error);
}

/* Notes a finding unless the object holds exactly this text. */
static int expect_text(struct trial *trial, const char *leaf, const char *text, xvsa_error **error)
{
    char name[96];
    name_of(trial, leaf, name, sizeof name);
    uint8_t *data = NULL;
    uint64_t length = 0;
    int rc = xv_target_get_all(trial->target, name, LARGE, &data, &length, trial->call, error);
    if (rc != 0)
        return rc;
    if (length != strlen(text) || memcmp(data, text, strlen(text)) != 0)
        snprintf(trial->finding, sizeof trial->finding, "'%s' does not hold what was written",
                 name);
    free(data);
    return 0;
}

/* A call that must fail with code: anything else is a finding. */
static int expect_code(struct trial *trial, const char *what, int rc, int code, xvsa_error *error)
{
    if (rc != code)
        snprintf(trial->finding, sizeof trial->finding, "%s answers %s instead of %s%s%s", what,
                 xvsa_code_name(rc), xvsa_code_name(code), rc == 0 ? "" : ": ",
                 rc == 0 ? "" : xvsa_error_message(error));
    xvsa_error_unref(error);
    return 0;
}

static int try_read_back(struct trial *trial, xvsa_error **error)
{
    int rc = put_text(trial, "a", "first", 0, error);
    if (rc == 0)
        rc = expect_text(trial, "a", "first", error);
    return rc;
}

static int try_replace(struct trial *trial, xvsa_error **error)
{
    int rc = put_text(trial, "a", "second content", 0, error);
    if (rc == 0)
        rc = expect_text(trial, "a", "second content", error);
    return rc;
}

static int try_empty(struct trial *trial, xvsa_error **error)
{
    int rc = put_text(trial, "empty", "", 0, error);
    if (rc == 0)
        rc = expect_text(trial, "empty", "", error);
    return rc;
}

static int try_large(struct trial *trial, xvsa_error **error)
{
    char name[96];
    name_of(trial, "large", name, sizeof name);
    uint8_t *data = malloc(LARGE);
    uint8_t *back = malloc(LARGE);
    int rc = data == NULL || back == NULL ? xv_fail_memory(error) : 0;
    for (size_t i = 0; rc == 0 && i < LARGE; i++)
        data[i] = (uint8_t)(i * 2654435761u >> 13);
    if (rc == 0) {
        xvsa_buffer pieces[] = {
            {data, 1}, {data + 1, LARGE / 2}, {data, 0}, {data + 1 + LARGE / 2, LARGE / 2 - 1}};
        rc = xv_target_put(trial->target, name, pieces, 4, 0, trial->call, error);
    }
    if (rc == 0)
        rc = xv_target_get(trial->target, name, 0, back, LARGE, trial->call, error);
    if (rc == 0 && memcmp(data, back, LARGE) != 0)
        snprintf(trial->finding, sizeof trial->finding, "4 MiB in four pieces came back changed");
    free(data);
    free(back);
    return rc;
}

static int try_range(struct trial *trial, xvsa_error **error)
{
    char name[96];
    char text[8] = "";
    name_of(trial, "a", name, sizeof name);
    int rc = xv_target_get(trial->target, name, 7, text, 7, trial->call, error);
    if (rc == 0 && strcmp(text, "content") != 0)
        snprintf(trial->finding, sizeof trial->finding, "a range holds the wrong bytes");
    if (rc != 0 || trial->finding[0] != '\0')
        return rc;
    xvsa_error *e = NULL;
    rc = xv_target_get(trial->target, name, 10, text, 7, trial->call, &e);
    return expect_code(trial, "reading beyond the end", rc, XVSA_ERR_CORRUPT, e);
}

static int try_stat(struct trial *trial, xvsa_error **error)
{
    char name[96];
    uint64_t length = 0;
    name_of(trial, "a", name, sizeof name);
    int rc = xv_target_stat(trial->target, name, &length, trial->call, error);
    if (rc == 0 && length != 14)
        snprintf(trial->finding, sizeof trial->finding, "stat says %llu bytes instead of 14",
                 (unsigned long long)length);
    return rc;
}

static int try_missing(struct trial *trial, xvsa_error **error)
{
    (void)error;
    char name[96];
    uint8_t byte;
    uint64_t length;
    name_of(trial, "none", name, sizeof name);
    xvsa_error *e = NULL;
    int rc = xv_target_get(trial->target, name, 0, &byte, 1, trial->call, &e);
    expect_code(trial, "reading a missing object", rc, XVSA_ERR_NOT_FOUND, e);
    e = NULL;
    rc = xv_target_stat(trial->target, name, &length, trial->call, &e);
    expect_code(trial, "stat of a missing object", rc, XVSA_ERR_NOT_FOUND, e);
    e = NULL;
    rc = xv_target_remove(trial->target, name, trial->call, &e);
    return expect_code(trial, "removing a missing object", rc, XVSA_OK, e);
}

static int try_if_absent(struct trial *trial, xvsa_error **error)
{
    bool holds = false;
    int rc = xv_target_probe(trial->target, &holds, trial->call, error);
    if (rc == 0 && !holds)
        snprintf(trial->finding, sizeof trial->finding,
                 "of several conditional writers of one name not exactly one wins");
    return rc;
}

struct order {
    char last[97];
    uint32_t count;
    bool wrong;
};

static int32_t note_order(void *sink, const char *name, const xvsa_object_info *info)
{
    (void)info;
    struct order *order = sink;
    if (strcmp(order->last, name) >= 0)
        order->wrong = true;
    snprintf(order->last, sizeof order->last, "%s", name);
    order->count++;
    return 0;
}

static int try_list(struct trial *trial, xvsa_error **error)
{
    static const char *const leaves[] = {"x-c", "x/b", "x/a/x", "x0"};
    char prefix[96];
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < sizeof leaves / sizeof leaves[0]; i++)
        rc = put_text(trial, leaves[i], leaves[i], 0, error);
    struct order order = {0};
    name_of(trial, "x", prefix, sizeof prefix);
    if (rc == 0)
        rc = xv_target_list(trial->target, prefix, note_order, &order, trial->call, error);
    if (rc == 0 && (order.count != 4 || order.wrong))
        snprintf(trial->finding, sizeof trial->finding, "listed %u of 4 names%s", order.count,
                 order.wrong ? ", not in byte order" : "");
    return rc;
}

static int try_barrier(struct trial *trial, xvsa_error **error)
{
    return xv_target_barrier(trial->target, trial->call, error);
}

static int try_remove(struct trial *trial, xvsa_error **error)
{
    char name[96];
    uint64_t length;
    name_of(trial, "a", name, sizeof name);
    int rc = xv_target_remove(trial->target, name, trial->call, error);
    if (rc != 0)
        return rc;
    xvsa_error *e = NULL;
    rc = xv_target_stat(trial->target, name, &length, trial->call, &e);
    return expect_code(trial, "stat of a removed object", rc, XVSA_ERR_NOT_FOUND, e);
}

static const struct {
    const char *name;
    int (*attempt)(struct trial *trial, xvsa_error **error);
} trials[] = {
    {"read-back", try_read_back}, {"replace", try_replace},     {"empty", try_empty},
    {"large", try_large},         {"range", try_range},         {"stat", try_stat},
    {"missing", try_missing},     {"if-absent", try_if_absent}, {"list", try_list},
    {"barrier", try_barrier},     {"remove", try_remove},
};

static int32_t collect(void *sink, const char *name, const xvsa_object_info *info)
{
    (void)info;
    json_t *text = json_string(name);
    return text == NULL || json_array_append_new(sink, text) != 0 ? XVSA_ERR_MEMORY : 0;
}

static void tidy(struct trial *trial)
{
    json_t *names = json_array();
    xvsa_error *error = NULL;
    if (names == NULL ||
        xv_target_list(trial->target, trial->prefix, collect, names, trial->call, &error) != 0)
        xv_error_clear(&error);
    size_t i;
    json_t *name;
    json_array_foreach(names, i, name)
    {
        if (xv_target_remove(trial->target, json_string_value(name), trial->call, &error) != 0)
            xv_error_clear(&error);
    }
    json_decref(names);
}

/* Errors of the caller's making end the check; others are findings. */
static bool stops(int rc)
{
    return rc == XVSA_ERR_CANCELLED || rc == XVSA_ERR_MEMORY;
}

static int run(struct trial *trial, json_t *outcomes, bool *ret_ok, xvsa_error **error)
{
    *ret_ok = true;
    for (size_t i = 0; i < sizeof trials / sizeof trials[0]; i++) {
        trial->finding[0] = '\0';
        xvsa_error *e = NULL;
        int rc = trials[i].attempt(trial, &e);
        if (rc != 0 && stops(rc)) {
            if (error != NULL)
                *error = e;
            else
                xv_error_clear(&e);
            return rc;
        }
        if (rc != 0)
            snprintf(trial->finding, sizeof trial->finding, "%s", xvsa_error_message(e));
        xv_error_clear(&e);
        bool holds = trial->finding[0] == '\0';
        json_t *row = json_pack("{s:s, s:b, s:s*}", "name", trials[i].name, "holds", holds,
                                "finding", holds ? NULL : trial->finding);
        if (row == NULL || json_array_append_new(outcomes, row) != 0)
            return xv_fail_memory(error);
        *ret_ok = *ret_ok && holds;
    }
    return 0;
}

int xv_target_check(struct xv_target *target, const struct xv_call *call, char **ret_json,
                    xvsa_error **error)
{
    struct trial trial = {.target = target, .call = call};
    uint8_t dice[8];
    char hex[17];
    int rc = xv_random(dice, sizeof dice, error);
    if (rc != 0)
        return rc;
    xv_hex_encode(dice, sizeof dice, hex);
    snprintf(trial.prefix, sizeof trial.prefix, "probe/%s", hex);
    json_t *outcomes = json_array();
    if (outcomes == NULL)
        return xv_fail_memory(error);
    bool ok = false;
    rc = run(&trial, outcomes, &ok, error);
    tidy(&trial);
    if (rc != 0) {
        json_decref(outcomes);
        return rc;
    }
    json_t *document =
        json_pack("{s:s, s:b, s:o}", "url", target->url, "ok", ok, "checks", outcomes);
    char *text = document == NULL ? NULL : json_dumps(document, JSON_INDENT(2));
    json_decref(document);
    if (text == NULL)
        return xv_fail_memory(error);
    *ret_json = text;
    return 0;
}
