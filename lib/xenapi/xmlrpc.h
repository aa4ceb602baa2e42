/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * XML-RPC as XenAPI speaks it. The decoder reads a stream, bounded in every respect, and stands the
 * server's map keys that are not escaped.
 */
#ifndef XV_XENAPI_XMLRPC_H
#define XV_XENAPI_XMLRPC_H

#include "base/buffer.h"
#include "xenapi/value_internal.h"

#define XV_XMLRPC_REQUEST_MAX (300u << 10) /* what servers accept */

/* Appends a call to buffer. params: an ARRAY or NULL; session goes first unless NULL. Fails with INVALID
 * when a text is not UTF-8, holds a control character or is a key the server could not give back
 * (empty, '&' or '<'), with LIMIT above the buffer's ceiling. */
int xv_xmlrpc_encode(struct xv_buffer *buffer, const char *method, const char *session,
                     const struct xv_value *params, xvsa_error **error) XV_MUST_CHECK;

/* Gives the next bytes, *ret_length 0 at the end. */
typedef int (*xv_source_fn)(void *user, void *data, size_t room, size_t *ret_length,
                            xvsa_error **error);

/* Takes each member of the Value struct; owns value. Non-zero stops and is returned. */
typedef int (*xv_member_fn)(void *user, const char *key, struct xv_value *value,
                            xvsa_error **error);

struct xv_xmlrpc_input {
    xv_source_fn source;
    void *user;
    const char *what;          /* for messages: "VM.get_all_records" */
    size_t text_max;           /* bytes between two tags; 0: 64 MiB */
    size_t value_max;          /* values in a tree; 0: 4 million */
    xv_member_fn on_member;    /* NULL: the Value is made a tree */
    const char *const *wanted; /* with on_member: members of the records that are kept, NULL at the
                                  end; NULL: all */
    void *member_user;
    const char *secret; /* struck out of a fault's text; may be NULL */
};

/* What a pool answered. value: the Value of a success (NULL when it went to on_member), or the
 * ErrorDescription as an ARRAY of strings with at least one. The caller frees it. */
struct xv_answer {
    bool success;
    struct xv_value *value;
};

/* Errors: PROTOCOL (not well-formed or not XML-RPC; also a bare XML-RPC fault), LIMIT, MEMORY, and those
 * of source and on_member. */
int xv_xmlrpc_decode(const struct xv_xmlrpc_input *input, struct xv_answer *ret,
                     xvsa_error **error) XV_MUST_CHECK;

/* Reads a task's result: one <value>, or text that is not XML at all, which becomes a STRING. */
int xv_xmlrpc_decode_result(const char *text, struct xv_value **ret,
                            xvsa_error **error) XV_MUST_CHECK;

#endif
