/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * XenAPI values: what travels in XML-RPC calls and answers. Immutable trees once built; a tree is freed
 * as a whole by its root.
 */
#ifndef XV_XENAPI_VALUE_H
#define XV_XENAPI_VALUE_H

#include <stddef.h>

#include "base/error.h"

enum xv_value_kind {
    XV_VALUE_STRING, /* also integers, references, enums: the server sends all of them bare */
    XV_VALUE_BOOL,
    XV_VALUE_DOUBLE,
    XV_VALUE_TIME, /* dateTime.iso8601 as text */
    XV_VALUE_ARRAY,
    XV_VALUE_STRUCT, /* records and maps; order of members kept */
    XV_VALUE_NIL,
};

struct xv_value;

void xv_value_free(struct xv_value *value);
enum xv_value_kind xv_value_kind(const struct xv_value *value);

/* Readers accept NULL and a wrong kind and then answer the fallback. */
const char *xv_value_string(const struct xv_value *value, const char *fallback);
int64_t xv_value_int(const struct xv_value *value, int64_t fallback);
bool xv_value_bool(const struct xv_value *value, bool fallback);
double xv_value_double(const struct xv_value *value, double fallback);
/* Milliseconds since 1970 of a TIME; 0 for "never" (the epoch) and fallbacks. */
int64_t xv_value_time_ms(const struct xv_value *value);
size_t xv_value_count(const struct xv_value *value); /* items or members */
const struct xv_value *xv_value_at(const struct xv_value *value, size_t index);
const char *xv_value_key_at(const struct xv_value *value, size_t index);
const struct xv_value *xv_value_get(const struct xv_value *value, const char *key);
/* Shorthands for a member of a struct. */
const char *xv_value_get_string(const struct xv_value *value, const char *key,
                                const char *fallback);
int64_t xv_value_get_int(const struct xv_value *value, const char *key, int64_t fallback);
bool xv_value_get_bool(const struct xv_value *value, const char *key, bool fallback);

/* Builders. NULL without memory; setters and adders accept NULL for either side, take ownership of the
 * child in every case, and return false when the tree is incomplete as a result. */
struct xv_value *xv_value_new_string(const char *text);
struct xv_value *xv_value_new_int(int64_t number); /* a decimal string on the wire */
struct xv_value *xv_value_new_bool(bool truth);
struct xv_value *xv_value_new_double(double number);
struct xv_value *xv_value_new_time(const char *iso8601);
struct xv_value *xv_value_new_array(void);
struct xv_value *xv_value_new_struct(void);
bool xv_value_add(struct xv_value *array, struct xv_value *item);
bool xv_value_set(struct xv_value *record, const char *key, struct xv_value *item);
bool xv_value_set_string(struct xv_value *record, const char *key, const char *text);
bool xv_value_set_int(struct xv_value *record, const char *key, int64_t number);
bool xv_value_set_bool(struct xv_value *record, const char *key, bool truth);
bool xv_value_remove(struct xv_value *record, const char *key);
struct xv_value *xv_value_copy(const struct xv_value *value);

/* JSON text of a value and back: how VM records are kept in restore points. Kinds that JSON lacks are
 * objects of one member, {"$time": "..."}. The caller frees the text. */
char *xv_value_to_json(const struct xv_value *value);
int xv_value_from_json(const char *text, struct xv_value **ret, xvsa_error **error) XV_MUST_CHECK;

#endif
