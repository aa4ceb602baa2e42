/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * XenAPI values. A string lives in the node itself; members and items are one growing array of pairs.
 */
#include "xenapi/value.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buffer.h"
#include "xenapi/value_internal.h"

struct pair {
    char *key; /* NULL in arrays */
    struct xv_value *value;
};

struct xv_value {
    enum xv_value_kind kind;
    bool truth;
    double number;
    size_t count;
    size_t capacity;
    struct pair *pairs;
    size_t length; /* of text */
    char text[];
};

static struct xv_value *make(enum xv_value_kind kind, const char *text)
{
    size_t length = text == NULL ? 0 : strlen(text);
    struct xv_value *value = malloc(sizeof *value + length + 1);
    if (value == NULL)
        return NULL;
    *value = (struct xv_value){.kind = kind, .length = length};
    if (length > 0)
        memcpy(value->text, text, length);
    value->text[length] = '\0';
    return value;
}

/* Text is wiped: parameters hold passwords and session references. */
void xv_value_free(struct xv_value *value)
{
    if (value == NULL)
        return;
    for (size_t i = 0; i < value->count; i++) {
        free(value->pairs[i].key);
        xv_value_free(value->pairs[i].value);
    }
    free(value->pairs);
    xv_wipe(value->text, value->length);
    free(value);
}

enum xv_value_kind xv_value_kind(const struct xv_value *value)
{
    return value == NULL ? XV_VALUE_NIL : value->kind;
}

const char *xv_value_string(const struct xv_value *value, const char *fallback)
{
    return value != NULL && (value->kind == XV_VALUE_STRING || value->kind == XV_VALUE_TIME)
               ? value->text
               : fallback;
}

int64_t xv_value_int(const struct xv_value *value, int64_t fallback)
{
    if (value == NULL || value->kind != XV_VALUE_STRING || value->length == 0)
        return fallback;
    char *end = NULL;
    errno = 0;
    long long number = strtoll(value->text, &end, 10);
    return errno != 0 || *end != '\0' ? fallback : (int64_t)number;
}

bool xv_value_bool(const struct xv_value *value, bool fallback)
{
    return value != NULL && value->kind == XV_VALUE_BOOL ? value->truth : fallback;
}

double xv_value_double(const struct xv_value *value, double fallback)
{
    return value != NULL && value->kind == XV_VALUE_DOUBLE ? value->number : fallback;
}

/* "20260821T10:11:12.5+02:00", the dashes, fraction and zone being optional. */
static bool parse_time(const char *text, struct tm *tm, int *offset_minutes)
{
    int used = 0;
    *tm = (struct tm){0};
    if (sscanf(text, "%4d%2d%2dT%2d:%2d:%2d%n", &tm->tm_year, &tm->tm_mon, &tm->tm_mday,
               &tm->tm_hour, &tm->tm_min, &tm->tm_sec, &used) != 6 &&
        sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d%n", &tm->tm_year, &tm->tm_mon, &tm->tm_mday,
               &tm->tm_hour, &tm->tm_min, &tm->tm_sec, &used) != 6)
        return false;
    if (tm->tm_year < 1 || tm->tm_mon < 1 || tm->tm_mon > 12 || tm->tm_mday < 1 ||
        tm->tm_mday > 31 || tm->tm_hour < 0 || tm->tm_hour > 24 || tm->tm_min < 0 ||
        tm->tm_min > 59 || tm->tm_sec < 0 || tm->tm_sec > 61)
        return false;
    tm->tm_year -= 1900;
    tm->tm_mon -= 1;
    const char *rest = text + used;
    if (*rest == '.')
        rest += 1 + strspn(rest + 1, "0123456789");
    int hours = 0;
    int minutes = 0;
    *offset_minutes = 0;
    if ((*rest == '+' || *rest == '-') &&
        (sscanf(rest + 1, "%2d:%2d", &hours, &minutes) == 2 ||
         sscanf(rest + 1, "%2d%2d", &hours, &minutes) == 2) &&
        hours <= 14 && minutes <= 59)
        *offset_minutes = (*rest == '-' ? -1 : 1) * (hours * 60 + minutes);
    return true;
}

int64_t xv_value_time_ms(const struct xv_value *value)
{
    struct tm tm;
    int offset = 0;
    const char *text = xv_value_string(value, NULL);
    if (text == NULL || !parse_time(text, &tm, &offset))
        return 0;
    return ((int64_t)timegm(&tm) - (int64_t)offset * 60) * 1000;
}

size_t xv_value_count(const struct xv_value *value)
{
    return value == NULL ? 0 : value->count;
}

const struct xv_value *xv_value_at(const struct xv_value *value, size_t index)
{
    return value == NULL || index >= value->count ? NULL : value->pairs[index].value;
}

const char *xv_value_key_at(const struct xv_value *value, size_t index)
{
    return value == NULL || index >= value->count ? NULL : value->pairs[index].key;
}

static size_t find(const struct xv_value *value, const char *key)
{
    for (size_t i = 0; value->kind == XV_VALUE_STRUCT && i < value->count; i++) {
        if (strcmp(value->pairs[i].key, key) == 0)
            return i;
    }
    return SIZE_MAX;
}

const struct xv_value *xv_value_get(const struct xv_value *value, const char *key)
{
    size_t index = value == NULL ? SIZE_MAX : find(value, key);
    return index == SIZE_MAX ? NULL : value->pairs[index].value;
}

const char *xv_value_get_string(const struct xv_value *value, const char *key, const char *fallback)
{
    return xv_value_string(xv_value_get(value, key), fallback);
}

int64_t xv_value_get_int(const struct xv_value *value, const char *key, int64_t fallback)
{
    return xv_value_int(xv_value_get(value, key), fallback);
}

bool xv_value_get_bool(const struct xv_value *value, const char *key, bool fallback)
{
    return xv_value_bool(xv_value_get(value, key), fallback);
}

struct xv_value *xv_value_new_string(const char *text)
{
    return text == NULL ? NULL : make(XV_VALUE_STRING, text);
}

struct xv_value *xv_value_new_int(int64_t number)
{
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)number);
    return make(XV_VALUE_STRING, text);
}

struct xv_value *xv_value_new_bool(bool truth)
{
    struct xv_value *value = make(XV_VALUE_BOOL, NULL);
    if (value != NULL)
        value->truth = truth;
    return value;
}

struct xv_value *xv_value_new_double(double number)
{
    struct xv_value *value = make(XV_VALUE_DOUBLE, NULL);
    if (value != NULL)
        value->number = number;
    return value;
}

struct xv_value *xv_value_new_time(const char *iso8601)
{
    return iso8601 == NULL ? NULL : make(XV_VALUE_TIME, iso8601);
}

struct xv_value *xv_value_new_array(void)
{
    return make(XV_VALUE_ARRAY, NULL);
}

struct xv_value *xv_value_new_struct(void)
{
    return make(XV_VALUE_STRUCT, NULL);
}

struct xv_value *xv_value_new_nil(void)
{
    return make(XV_VALUE_NIL, NULL);
}

static bool append(struct xv_value *value, char *key, struct xv_value *item)
{
    if (value->count == value->capacity) {
        size_t capacity = value->capacity == 0 ? 8 : value->capacity * 2;
        struct pair *pairs = realloc(value->pairs, capacity * sizeof *pairs);
        if (pairs == NULL)
            return false;
        value->pairs = pairs;
        value->capacity = capacity;
    }
    value->pairs[value->count++] = (struct pair){key, item};
    return true;
}

bool xv_value_add(struct xv_value *array, struct xv_value *item)
{
    if (array != NULL && item != NULL && array->kind == XV_VALUE_ARRAY && append(array, NULL, item))
        return true;
    xv_value_free(item);
    return false;
}

bool xv_value_set(struct xv_value *record, const char *key, struct xv_value *item)
{
    if (record == NULL || item == NULL || record->kind != XV_VALUE_STRUCT) {
        xv_value_free(item);
        return false;
    }
    size_t index = find(record, key);
    if (index != SIZE_MAX) {
        xv_value_free(record->pairs[index].value);
        record->pairs[index].value = item;
        return true;
    }
    char *copy = strdup(key);
    if (copy != NULL && append(record, copy, item))
        return true;
    free(copy);
    xv_value_free(item);
    return false;
}

bool xv_value_append_member(struct xv_value *record, char *key, struct xv_value *item)
{
    if (record != NULL && key != NULL && item != NULL && append(record, key, item))
        return true;
    free(key);
    xv_value_free(item);
    return false;
}

bool xv_value_set_string(struct xv_value *record, const char *key, const char *text)
{
    return xv_value_set(record, key, xv_value_new_string(text));
}

bool xv_value_set_int(struct xv_value *record, const char *key, int64_t number)
{
    return xv_value_set(record, key, xv_value_new_int(number));
}

bool xv_value_set_bool(struct xv_value *record, const char *key, bool truth)
{
    return xv_value_set(record, key, xv_value_new_bool(truth));
}

bool xv_value_remove(struct xv_value *record, const char *key)
{
    size_t index = record == NULL ? SIZE_MAX : find(record, key);
    if (index == SIZE_MAX)
        return false;
    free(record->pairs[index].key);
    xv_value_free(record->pairs[index].value);
    record->count--;
    memmove(&record->pairs[index], &record->pairs[index + 1],
            (record->count - index) * sizeof record->pairs[0]);
    return true;
}

struct xv_value *xv_value_copy(const struct xv_value *value)
{
    if (value == NULL)
        return NULL;
    struct xv_value *copy = make(value->kind, value->text);
    if (copy == NULL)
        return NULL;
    copy->truth = value->truth;
    copy->number = value->number;
    for (size_t i = 0; i < value->count; i++) {
        const struct pair *pair = &value->pairs[i];
        struct xv_value *item = xv_value_copy(pair->value);
        bool added =
            value->kind == XV_VALUE_ARRAY
                ? xv_value_add(copy, item)
                : xv_value_append_member(copy, item == NULL ? NULL : strdup(pair->key), item);
        if (!added) {
            xv_value_free(copy);
            return NULL;
        }
    }
    return copy;
}

/* Independent of the locale; always with a point, which old servers insist on. */
void xv_value_format_double(double number, char *text, size_t size)
{
    if (isnan(number)) {
        snprintf(text, size, "nan");
        return;
    }
    if (isinf(number)) {
        snprintf(text, size, number < 0 ? "-inf" : "inf");
        return;
    }
    snprintf(text, size, "%.17g", number);
    char *comma = strchr(text, ',');
    if (comma != NULL)
        *comma = '.';
    if (strpbrk(text, ".e") == NULL)
        strncat(text, ".0", size - strlen(text) - 1);
}

/* The point is swapped for the locale's, because strtod knows only that one. */
bool xv_value_parse_double(const char *text, double *ret)
{
    char copy[64];
    char sample[8];
    size_t length = strlen(text);
    if (length == 0 || length >= sizeof copy || text[strspn(text, "+-.0123456789eEinfatyINFATY")])
        return false;
    memcpy(copy, text, length + 1);
    snprintf(sample, sizeof sample, "%.1f", 0.5);
    char *point = strchr(copy, '.');
    if (point != NULL)
        *point = sample[1];
    char *end = NULL;
    *ret = strtod(copy, &end);
    return *end == '\0';
}
