/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Strict reading of the JSON documents that the embedder gives, with errors that name the member by its
 * path, and the writing of those the library gives back.
 */
#ifndef XV_JOB_JSON_H
#define XV_JOB_JSON_H

#include <jansson.h>
#include <stdbool.h>

#include "base/error.h"

/* Parses an object; duplicate members and anything behind it are refused. what names it in errors. */
int xv_json_parse(const char *text, const char *what, json_t **ret,
                  xvsa_error **error) XV_MUST_CHECK;

/* Fails when object is not an object or has a member that is not in names (NULL-terminated). */
int xv_json_check_members(const json_t *object, const char *path, const char *const *names,
                          xvsa_error **error) XV_MUST_CHECK;

/* Members of an object; absent ones leave *ret alone. Text is borrowed from the document and never
 * empty. */
int xv_json_read_text(const json_t *object, const char *path, const char *name, const char **ret,
                      xvsa_error **error) XV_MUST_CHECK;
int xv_json_read_bool(const json_t *object, const char *path, const char *name, bool *ret,
                      xvsa_error **error) XV_MUST_CHECK;
int xv_json_read_int(const json_t *object, const char *path, const char *name, int64_t least,
                     int64_t most, int64_t *ret, xvsa_error **error) XV_MUST_CHECK;
int xv_json_read_array(const json_t *object, const char *path, const char *name, const json_t **ret,
                       xvsa_error **error) XV_MUST_CHECK;
int xv_json_read_object(const json_t *object, const char *path, const char *name,
                        const json_t **ret, xvsa_error **error) XV_MUST_CHECK;
/* One of names (NULL-terminated); *ret is its index. */
int xv_json_read_choice(const json_t *object, const char *path, const char *name,
                        const char *const *names, int *ret, xvsa_error **error) XV_MUST_CHECK;

/* A string value; NULL gives null, and bytes that are not UTF-8 become question marks. */
json_t *xv_json_text(const char *text);
/* A count of bytes or things; JSON integers are signed. */
json_t *xv_json_count(uint64_t number);
/* {"uuid": ..., "name": ...} */
json_t *xv_json_named(const char *uuid, const char *name);

/* The document as text that is released with free; consumes document (NULL: out of memory). */
int xv_json_print(json_t *document, char **ret, xvsa_error **error) XV_MUST_CHECK;

/* An error with its chain of causes as {"code", "message", "component", "advice", "retryable", ...}. */
json_t *xv_json_error(const xvsa_error *e);

#endif
