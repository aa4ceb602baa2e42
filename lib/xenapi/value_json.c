/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * JSON text of a value and back, through jansson. Times and numbers that JSON lacks become objects of
 * one member, {"$time": "..."} and {"$double": "inf"}; a struct whose own first key begins with '$' is
 * told apart by {"$struct": {...}}.
 */
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "xenapi/value_internal.h"

#define COMPONENT "xenapi"
#define DEPTH_MAX 64

static json_t *to_json(const struct xv_value *value);

static json_t *struct_to_json(const struct xv_value *value)
{
    json_t *object = json_object();
    bool escape = false;
    for (size_t i = 0; i < xv_value_count(value); i++) {
        const char *key = xv_value_key_at(value, i);
        escape = escape || key[0] == '$';
        if (json_object_set_new(object, key, to_json(xv_value_at(value, i))) != 0) {
            json_decref(object);
            return NULL;
        }
    }
    return escape ? json_pack("{s:o}", "$struct", object) : object;
}

static json_t *array_to_json(const struct xv_value *value)
{
    json_t *array = json_array();
    for (size_t i = 0; i < xv_value_count(value); i++) {
        if (json_array_append_new(array, to_json(xv_value_at(value, i))) != 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static json_t *double_to_json(double number)
{
    char text[64];
    if (isfinite(number))
        return json_real(number);
    xv_value_format_double(number, text, sizeof text);
    return json_pack("{s:s}", "$double", text);
}

static json_t *to_json(const struct xv_value *value)
{
    switch (xv_value_kind(value)) {
    case XV_VALUE_STRING:
        return json_string(xv_value_string(value, ""));
    case XV_VALUE_BOOL:
        return json_boolean(xv_value_bool(value, false));
    case XV_VALUE_DOUBLE:
        return double_to_json(xv_value_double(value, 0));
    case XV_VALUE_TIME:
        return json_pack("{s:s}", "$time", xv_value_string(value, ""));
    case XV_VALUE_ARRAY:
        return array_to_json(value);
    case XV_VALUE_STRUCT:
        return struct_to_json(value);
    case XV_VALUE_NIL:
        break;
    }
    return json_null();
}

char *xv_value_to_json(const struct xv_value *value)
{
    json_t *json = to_json(value);
    char *text = json == NULL ? NULL : json_dumps(json, JSON_COMPACT | JSON_ENCODE_ANY);
    json_decref(json);
    return text;
}

static struct xv_value *from_json(const json_t *json, int depth);

static struct xv_value *special_from_json(const json_t *json, int depth, bool *ret_special)
{
    const json_t *member;
    double number = 0;
    *ret_special = true;
    if (json_object_size(json) == 1) {
        if (json_is_string(member = json_object_get(json, "$time")))
            return xv_value_new_time(json_string_value(member));
        if (json_is_string(member = json_object_get(json, "$double")) &&
            xv_value_parse_double(json_string_value(member), &number))
            return xv_value_new_double(number);
        if (json_is_object(member = json_object_get(json, "$struct"))) {
            struct xv_value *record = xv_value_new_struct();
            const char *key;
            json_t *item;
            json_object_foreach((json_t *)(uintptr_t)member, key, item)
            {
                if (!xv_value_set(record, key, from_json(item, depth + 1))) {
                    xv_value_free(record);
                    return NULL;
                }
            }
            return record;
        }
    }
    *ret_special = false;
    return NULL;
}

static struct xv_value *object_from_json(const json_t *json, int depth)
{
    bool special = false;
    struct xv_value *record = special_from_json(json, depth, &special);
    if (special)
        return record;
    record = xv_value_new_struct();
    const char *key;
    json_t *item;
    json_object_foreach((json_t *)(uintptr_t)json, key, item)
    {
        if (!xv_value_set(record, key, from_json(item, depth + 1))) {
            xv_value_free(record);
            return NULL;
        }
    }
    return record;
}

static struct xv_value *array_from_json(const json_t *json, int depth)
{
    struct xv_value *array = xv_value_new_array();
    for (size_t i = 0; i < json_array_size(json); i++) {
        if (!xv_value_add(array, from_json(json_array_get(json, i), depth + 1))) {
            xv_value_free(array);
            return NULL;
        }
    }
    return array;
}

static struct xv_value *from_json(const json_t *json, int depth)
{
    if (depth > DEPTH_MAX)
        return NULL;
    switch (json_typeof(json)) {
    case JSON_OBJECT:
        return object_from_json(json, depth);
    case JSON_ARRAY:
        return array_from_json(json, depth);
    case JSON_STRING:
        return xv_value_new_string(json_string_value(json));
    case JSON_INTEGER:
        return xv_value_new_int(json_integer_value(json));
    case JSON_REAL:
        return xv_value_new_double(json_real_value(json));
    case JSON_TRUE:
    case JSON_FALSE:
        return xv_value_new_bool(json_is_true(json));
    case JSON_NULL:
        break;
    }
    return xv_value_new_nil();
}

int xv_value_from_json(const char *text, struct xv_value **ret, xvsa_error **error)
{
    json_error_t problem;
    json_t *json = json_loads(text, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &problem);
    if (json == NULL)
        return xv_fail(error, XVSA_ERR_FORMAT, COMPONENT, "a saved record is not JSON: line %d: %s",
                       problem.line, problem.text);
    *ret = from_json(json, 0);
    json_decref(json);
    if (*ret == NULL)
        return xv_fail(error, XVSA_ERR_FORMAT, COMPONENT,
                       "a saved record is nested too deeply or memory ran out");
    return 0;
}
