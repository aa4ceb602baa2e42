/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Operations on a target: repetition of what is worth it, with growing pauses and within the call's
 * deadline, and conditional writes whose outcome was lost are looked up by reading back.
 */
#include <stdlib.h>
#include <string.h>

#include "target/internal.h"

#define NAME_MAX_BYTES 96
#define PAUSE_FIRST_MS 100
#define PAUSE_MAX_MS   20000
/* Repetitions without a deadline: about a minute. */
#define ATTEMPTS_MAX 10
#define FIRST_READ   65536u

/* One operation with its repetitions. */
struct attempt {
    struct xv_target *target;
    const struct xv_call *call;
    const char *verb;
    const char *name;
    uint32_t number; /* of this try, from 1 */
    xvsa_target_call op;
    xvsa_error *error;
};

xvsa_target_call xv_target_call_of(const struct xv_call *call, uint32_t attempt)
{
    return (xvsa_target_call){.size = sizeof(xvsa_target_call),
                              .attempt = attempt,
                              .deadline_ms = call == NULL ? 0 : call->deadline_ms,
                              .cancel = call == NULL ? NULL : call->cancel};
}

bool xv_target_name_valid(const char *name)
{
    size_t length = 0;
    for (char before = '/'; name[length] != '\0'; before = name[length++]) {
        char c = name[length];
        if (length >= NAME_MAX_BYTES || (c == '/' && before == '/'))
            return false;
        if (c != '/' && c != '-' && (c < 'a' || c > 'z') && (c < '0' || c > '9'))
            return false;
    }
    return length > 0 && name[length - 1] != '/';
}

static struct attempt begin(struct xv_target *target, const struct xv_call *call, const char *verb,
                            const char *name)
{
    return (struct attempt){.target = target,
                            .call = call,
                            .verb = verb,
                            .name = name,
                            .number = 1,
                            .op = xv_target_call_of(call, 1)};
}

static int64_t pause_ms(uint32_t number)
{
    int64_t pause = PAUSE_FIRST_MS;
    for (uint32_t i = 1; i < number && pause < PAUSE_MAX_MS; i++)
        pause *= 2;
    if (pause > PAUSE_MAX_MS)
        pause = PAUSE_MAX_MS;
    uint16_t dice = 0;
    if (xv_random(&dice, sizeof dice, NULL) != 0)
        dice = 0;
    return pause / 2 + pause * dice / 131072;
}

/* Hands the last error out, with what was being done to which object. */
static int give_up(struct attempt *attempt, int rc, xvsa_error **error)
{
    xv_error_wrap(&attempt->error, rc, "target", "cannot %s '%s' on %s", attempt->verb,
                  attempt->name, attempt->target->url);
    xv_error_set_detail(attempt->error, "object", attempt->name);
    if (error != NULL)
        *error = attempt->error;
    else
        xv_error_clear(&attempt->error);
    return rc;
}

/* Decides after a failed try: true when it is to be repeated now. */
static bool again(struct attempt *attempt, int rc)
{
    if (attempt->error == NULL)
        xv_fail(&attempt->error, rc, "target", "the storage target gave no reason");
    bool worth = rc == XVSA_ERR_UNKNOWN_OUTCOME || xvsa_error_is_retryable(attempt->error);
    bool unlimited = attempt->call == NULL || attempt->call->deadline_ms == 0;
    if (!worth || (unlimited && attempt->number >= ATTEMPTS_MAX))
        return false;
    int64_t pause = pause_ms(attempt->number);
    if (!unlimited && xv_call_left(attempt->call, pause) < pause)
        return false;
    xv_log(attempt->target->env, XVSA_LOG_WARNING, "target", "%s '%s': %s; trying again",
           attempt->verb, attempt->name, xvsa_error_message(attempt->error));
    xvsa_error *stopped = NULL;
    if (xv_call_sleep(attempt->call, pause, "target", attempt->verb, &stopped) != 0) {
        xv_error_clear(&stopped);
        return false;
    }
    xv_error_clear(&attempt->error);
    attempt->number++;
    attempt->op = xv_target_call_of(attempt->call, attempt->number);
    return true;
}

static int check(struct attempt *attempt, xvsa_error **error)
{
    if (!xv_target_name_valid(attempt->name))
        return xv_fail(error, XVSA_ERR_INVALID, "target", "'%s' is not a name for an object",
                       attempt->name);
    return xv_call_check(attempt->call, "target", attempt->verb, error);
}

/* Does the object hold exactly these pieces? */
static int compare_stored(struct xv_target *target, const char *name, const xvsa_buffer *pieces,
                          uint32_t count, const struct xv_call *call, bool *ret_same,
                          xvsa_error **error)
{
    uint8_t *data = NULL;
    uint64_t length = 0;
    int rc = xv_target_get_all(target, name, XV_OBJECT_MAX, &data, &length, call, error);
    if (rc != 0)
        return rc;
    uint64_t at = 0;
    bool same = true;
    for (uint32_t i = 0; i < count && same; i++) {
        same = pieces[i].length <= length - at &&
               (pieces[i].length == 0 ||
                memcmp(data + at, pieces[i].data, (size_t)pieces[i].length) == 0);
        at += pieces[i].length;
    }
    free(data);
    *ret_same = same && at == length;
    return 0;
}

/* A conditional put that may have been done by an earlier try: finds out whose the object is. Returns
 * 0 when it is ours, EXISTS when it is not, NOT_FOUND when there is none. */
static int resolve(struct attempt *attempt, const xvsa_buffer *pieces, uint32_t count,
                   xvsa_error **error)
{
    bool same = false;
    int rc =
        compare_stored(attempt->target, attempt->name, pieces, count, attempt->call, &same, error);
    if (rc == 0 && !same)
        return xv_fail(error, XVSA_ERR_EXISTS, "target", "somebody else wrote '%s' first",
                       attempt->name);
    return rc;
}

static int put_absent(struct attempt *attempt, const xvsa_buffer *pieces, uint32_t count,
                      uint32_t flags, xvsa_error **error)
{
    for (bool in_doubt = false;;) {
        int rc = attempt->target->ops.put(attempt->target->instance, &attempt->op, attempt->name,
                                          pieces, count, flags, &attempt->error);
        if (rc == 0)
            return 0;
        /* A lost answer counts as doubt too: the try may have arrived. */
        bool lost = rc == XVSA_ERR_UNKNOWN_OUTCOME || xvsa_error_is_retryable(attempt->error);
        if (lost || (in_doubt && rc == XVSA_ERR_EXISTS)) {
            xvsa_error *why = NULL;
            int found = resolve(attempt, pieces, count, &why);
            if (found == 0 || found == XVSA_ERR_EXISTS) {
                xv_error_clear(&attempt->error);
                attempt->error = why;
                return found == 0 ? 0 : give_up(attempt, found, error);
            }
            xv_error_clear(&why);
            in_doubt = true;
        }
        if (!again(attempt, rc))
            return give_up(attempt, rc, error);
    }
}

int xv_target_put(struct xv_target *target, const char *name, const xvsa_buffer *pieces,
                  uint32_t count, uint32_t flags, const struct xv_call *call, xvsa_error **error)
{
    struct attempt attempt = begin(target, call, "write", name);
    int rc = check(&attempt, error);
    if (rc != 0)
        return rc;
    uint64_t total = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (pieces[i].length > XV_OBJECT_MAX || (total += pieces[i].length) > XV_OBJECT_MAX)
            return xv_fail(error, XVSA_ERR_LIMIT, "target", "object '%s' is longer than %u bytes",
                           name, XV_OBJECT_MAX);
    }
    if ((flags & XVSA_PUT_IF_ABSENT) != 0)
        return put_absent(&attempt, pieces, count, flags, error);
    do {
        rc = target->ops.put(target->instance, &attempt.op, name, pieces, count, flags,
                             &attempt.error);
        if (rc == 0)
            return 0;
    } while (again(&attempt, rc));
    return give_up(&attempt, rc, error);
}

/* Up to length bytes; *ret_length is smaller only at the end of the object. */
static int get_some(struct xv_target *target, const char *name, uint64_t offset, void *data,
                    uint64_t length, uint64_t *ret_length, const struct xv_call *call,
                    xvsa_error **error)
{
    struct attempt attempt = begin(target, call, "read", name);
    int rc = check(&attempt, error);
    if (rc != 0)
        return rc;
    do {
        *ret_length = 0;
        rc = target->ops.get(target->instance, &attempt.op, name, offset, data, length, ret_length,
                             &attempt.error);
        if (rc == 0 && *ret_length > length)
            rc = xv_fail(&attempt.error, XVSA_ERR_PROTOCOL, "target",
                         "the storage target returned more than was asked for");
        if (rc == 0)
            return 0;
    } while (again(&attempt, rc));
    return give_up(&attempt, rc, error);
}

static int fail_short(struct xv_target *target, const char *name, uint64_t wanted,
                      xvsa_error **error)
{
    xvsa_error *e = NULL;
    int rc = xv_fail(&e, XVSA_ERR_CORRUPT, "target", "object '%s' on %s ends before byte %llu",
                     name, target->url, (unsigned long long)wanted);
    xv_error_set_detail(e, "object", name);
    if (error != NULL)
        *error = e;
    else
        xv_error_clear(&e);
    return rc;
}

int xv_target_get(struct xv_target *target, const char *name, uint64_t offset, void *data,
                  uint64_t length, const struct xv_call *call, xvsa_error **error)
{
    uint64_t got = 0;
    int rc = get_some(target, name, offset, data, length, &got, call, error);
    if (rc == 0 && got != length)
        return fail_short(target, name, offset + length, error);
    return rc;
}

/* The rest of an object that is longer than the first read. */
static int get_rest(struct xv_target *target, const char *name, uint64_t limit, uint8_t **data,
                    uint64_t *length, const struct xv_call *call, xvsa_error **error)
{
    uint64_t whole = 0;
    int rc = xv_target_stat(target, name, &whole, call, error);
    if (rc != 0)
        return rc;
    if (whole > limit)
        return xv_fail(error, XVSA_ERR_LIMIT, "target",
                       "object '%s' has %llu bytes, more than %llu", name,
                       (unsigned long long)whole, (unsigned long long)limit);
    if (whole <= *length)
        return 0;
    uint8_t *grown = realloc(*data, (size_t)whole);
    if (grown == NULL)
        return xv_fail_memory(error);
    *data = grown;
    rc = xv_target_get(target, name, *length, grown + *length, whole - *length, call, error);
    if (rc == 0)
        *length = whole;
    return rc;
}

int xv_target_get_all(struct xv_target *target, const char *name, uint64_t limit, uint8_t **ret,
                      uint64_t *ret_length, const struct xv_call *call, xvsa_error **error)
{
    uint64_t length = 0;
    uint8_t *data = malloc(FIRST_READ);
    if (data == NULL)
        return xv_fail_memory(error);
    int rc = get_some(target, name, 0, data, FIRST_READ, &length, call, error);
    if (rc == 0 && length > limit)
        rc = xv_fail(error, XVSA_ERR_LIMIT, "target", "object '%s' is longer than %llu bytes", name,
                     (unsigned long long)limit);
    if (rc == 0 && length == FIRST_READ)
        rc = get_rest(target, name, limit, &data, &length, call, error);
    if (rc != 0) {
        free(data);
        return rc;
    }
    *ret = data;
    *ret_length = length;
    return 0;
}

int xv_target_stat(struct xv_target *target, const char *name, uint64_t *ret_length,
                   const struct xv_call *call, xvsa_error **error)
{
    struct attempt attempt = begin(target, call, "look at", name);
    int rc = check(&attempt, error);
    if (rc != 0)
        return rc;
    do {
        xvsa_object_info info = XVSA_OBJECT_INFO_INIT;
        rc = target->ops.stat(target->instance, &attempt.op, name, &info, &attempt.error);
        if (rc == 0) {
            *ret_length = info.length;
            return 0;
        }
    } while (again(&attempt, rc));
    return give_up(&attempt, rc, error);
}

/* Between the target and the caller: remembers where a listing was, so that a repetition goes on
 * there, and drops names that are none of ours. */
struct listing {
    const char *prefix;
    xvsa_list_fn fn;
    void *sink;
    int32_t stopped;
    char after[NAME_MAX_BYTES + 1];
};

static int32_t take_row(void *sink, const char *name, const xvsa_object_info *info)
{
    struct listing *listing = sink;
    if (name == NULL || !xv_target_name_valid(name) ||
        strncmp(name, listing->prefix, strlen(listing->prefix)) != 0)
        return 0;
    memcpy(listing->after, name, strlen(name) + 1);
    listing->stopped = listing->fn(listing->sink, name, info);
    return listing->stopped;
}

int xv_target_list(struct xv_target *target, const char *prefix, xvsa_list_fn fn, void *sink,
                   const struct xv_call *call, xvsa_error **error)
{
    struct listing listing = {.prefix = prefix, .fn = fn, .sink = sink};
    struct attempt attempt = begin(target, call, "list", prefix);
    int rc = xv_call_check(call, "target", "listing", error);
    if (rc != 0)
        return rc;
    do {
        rc = target->ops.list(target->instance, &attempt.op, prefix,
                              listing.after[0] == '\0' ? NULL : listing.after, take_row, &listing,
                              &attempt.error);
        if (rc == 0 || listing.stopped != 0) {
            xv_error_clear(&attempt.error);
            return listing.stopped;
        }
    } while (again(&attempt, rc));
    return give_up(&attempt, rc, error);
}

int xv_target_remove(struct xv_target *target, const char *name, const struct xv_call *call,
                     xvsa_error **error)
{
    struct attempt attempt = begin(target, call, "remove", name);
    int rc = check(&attempt, error);
    if (rc != 0)
        return rc;
    do {
        rc = target->ops.remove(target->instance, &attempt.op, name, &attempt.error);
        if (rc == 0)
            return 0;
    } while (again(&attempt, rc));
    return give_up(&attempt, rc, error);
}

int xv_target_barrier(struct xv_target *target, const struct xv_call *call, xvsa_error **error)
{
    if (target->ops.barrier == NULL)
        return 0;
    struct attempt attempt = begin(target, call, "make durable", "*");
    int rc;
    do {
        rc = target->ops.barrier(target->instance, &attempt.op, &attempt.error);
        if (rc == 0)
            return 0;
    } while (again(&attempt, rc));
    return give_up(&attempt, rc, error);
}

int xv_target_space(struct xv_target *target, uint64_t *ret_total, uint64_t *ret_free,
                    const struct xv_call *call, xvsa_error **error)
{
    if (target->ops.space == NULL)
        return xv_fail(error, XVSA_ERR_UNSUPPORTED, "target", "%s cannot tell its free space",
                       target->url);
    struct attempt attempt = begin(target, call, "measure", "*");
    int rc;
    do {
        rc = target->ops.space(target->instance, &attempt.op, ret_total, ret_free, &attempt.error);
        if (rc == 0)
            return 0;
    } while (again(&attempt, rc));
    return give_up(&attempt, rc, error);
}
