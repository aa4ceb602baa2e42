/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/json.h"

#include <stdlib.h>
#include <string.h>

#define DOCUMENT_MAX (4u << 20)

int xv_json_parse(const char *text, const char *what, json_t **ret, xvsa_error **error)
{
    size_t length = strnlen(text, DOCUMENT_MAX + 1);
    if (length > DOCUMENT_MAX)
        return xv_fail(error, XVSA_ERR_LIMIT, "job", "%s: longer than %u bytes", what,
                       DOCUMENT_MAX);
    json_error_t fault;
    json_t *document = json_loadb(text, length, JSON_REJECT_DUPLICATES, &fault);
    if (document == NULL)
        return xv_fail(error, XVSA_ERR_INVALID, "job", "%s: line %d, column %d: %s", what,
                       fault.line, fault.column, fault.text);
    if (!json_is_object(document)) {
        json_decref(document);
        return xv_fail(error, XVSA_ERR_INVALID, "job", "%s: must be a JSON object", what);
    }
    *ret = document;
    return 0;
}

int xv_json_check_members(const json_t *object, const char *path, const char *const *names,
                          xvsa_error **error)
{
    if (!json_is_object(object))
        return xv_fail(error, XVSA_ERR_INVALID, "job", "%s: must be an object", path);
    void *member = json_object_iter((json_t *)(uintptr_t)object);
    for (; member != NULL; member = json_object_iter_next((json_t *)(uintptr_t)object, member)) {
        const char *key = json_object_iter_key(member);
        size_t i = 0;
        while (names[i] != NULL && strcmp(names[i], key) != 0)
            i++;
        if (names[i] == NULL)
            return xv_fail(error, XVSA_ERR_INVALID, "job", "%s: unknown member \"%s\"", path, key);
    }
    return 0;
}

static int wrong(const char *path, const char *name, const char *expected, xvsa_error **error)
{
    return xv_fail(error, XVSA_ERR_INVALID, "job", "%s.%s: must be %s", path, name, expected);
}

int xv_json_read_text(const json_t *object, const char *path, const char *name, const char **ret,
                      xvsa_error **error)
{
    const json_t *value = json_object_get(object, name);
    if (value == NULL)
        return 0;
    if (!json_is_string(value) || json_string_length(value) == 0)
        return wrong(path, name, "a text that is not empty", error);
    *ret = json_string_value(value);
    return 0;
}

int xv_json_read_bool(const json_t *object, const char *path, const char *name, bool *ret,
                      xvsa_error **error)
{
    const json_t *value = json_object_get(object, name);
    if (value == NULL)
        return 0;
    if (!json_is_boolean(value))
        return wrong(path, name, "true or false", error);
    *ret = json_is_true(value);
    return 0;
}

int xv_json_read_int(const json_t *object, const char *path, const char *name, int64_t least,
                     int64_t most, int64_t *ret, xvsa_error **error)
{
    const json_t *value = json_object_get(object, name);
    if (value == NULL)
        return 0;
    if (!json_is_integer(value) || json_integer_value(value) < least ||
        json_integer_value(value) > most)
        return xv_fail(error, XVSA_ERR_INVALID, "job", "%s.%s: must be a number from %lld to %lld",
                       path, name, (long long)least, (long long)most);
    *ret = json_integer_value(value);
    return 0;
}

int xv_json_read_array(const json_t *object, const char *path, const char *name, const json_t **ret,
                       xvsa_error **error)
{
    const json_t *value = json_object_get(object, name);
    if (value != NULL && !json_is_array(value))
        return wrong(path, name, "an array", error);
    *ret = value;
    return 0;
}

int xv_json_read_object(const json_t *object, const char *path, const char *name,
                        const json_t **ret, xvsa_error **error)
{
    const json_t *value = json_object_get(object, name);
    if (value != NULL && !json_is_object(value))
        return wrong(path, name, "an object", error);
    *ret = value;
    return 0;
}

int xv_json_read_choice(const json_t *object, const char *path, const char *name,
                        const char *const *names, int *ret, xvsa_error **error)
{
    const char *text = NULL;
    int rc = xv_json_read_text(object, path, name, &text, error);
    if (rc != 0 || text == NULL)
        return rc;
    char known[128] = "";
    for (int i = 0; names[i] != NULL; i++) {
        if (strcmp(names[i], text) == 0) {
            *ret = i;
            return 0;
        }
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s\"%s\"", i == 0 ? "" : ", ", names[i]);
    }
    return xv_fail(error, XVSA_ERR_INVALID, "job", "%s.%s: \"%s\" is not one of %s", path, name,
                   text, known);
}

json_t *xv_json_text(const char *text)
{
    if (text == NULL)
        return json_null();
    json_t *value = json_string(text);
    if (value != NULL)
        return value;
    char *clean = strdup(text);
    if (clean == NULL)
        return NULL;
    for (char *c = clean; *c != '\0'; c++) {
        if ((unsigned char)*c >= 0x80)
            *c = '?';
    }
    value = json_string(clean);
    free(clean);
    return value;
}

json_t *xv_json_count(uint64_t number)
{
    return json_integer(number > INT64_MAX ? INT64_MAX : (json_int_t)number);
}

json_t *xv_json_named(const char *uuid, const char *name)
{
    return json_pack("{s:o, s:o}", "uuid", xv_json_text(uuid), "name", xv_json_text(name));
}

int xv_json_print(json_t *document, char **ret, xvsa_error **error)
{
    char *text = document == NULL ? NULL : json_dumps(document, JSON_COMPACT);
    json_decref(document);
    if (text == NULL)
        return xv_fail_memory(error);
    *ret = text;
    return 0;
}

static json_t *xenapi_of(const xvsa_error *e)
{
    json_t *params = json_array();
    for (uint32_t i = 0; i < xvsa_error_xenapi_param_count(e); i++)
        json_array_append_new(params, xv_json_text(xvsa_error_xenapi_param(e, i)));
    return json_pack("{s:o, s:o}", "code", xv_json_text(xvsa_error_xenapi_code(e)), "params",
                     params);
}

json_t *xv_json_error(const xvsa_error *e)
{
    if (e == NULL)
        return json_null();
    json_t *object = json_pack(
        "{s:s, s:o, s:s, s:s, s:b}", "code", xvsa_code_name(xvsa_error_code(e)), "message",
        xv_json_text(xvsa_error_message(e)), "component", xvsa_error_component(e), "advice",
        xvsa_error_advice(e), "retryable", xvsa_error_is_retryable(e));
    if (object == NULL)
        return NULL;
    if (xvsa_error_xenapi_code(e) != NULL)
        json_object_set_new(object, "xenapi", xenapi_of(e));
    if (xvsa_error_http_status(e) != 0)
        json_object_set_new(object, "http_status", json_integer(xvsa_error_http_status(e)));
    if (xvsa_error_cause(e) != NULL)
        json_object_set_new(object, "cause", xv_json_error(xvsa_error_cause(e)));
    return object;
}
