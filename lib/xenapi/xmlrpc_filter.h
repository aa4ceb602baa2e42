/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Stands between the network and the XML parser: escapes what the server leaves bare between <name> and
 * </name>, refuses document type declarations (and with them entities) before a parser sees them, and
 * bounds the length of texts and tags.
 */
#ifndef XV_XENAPI_XMLRPC_FILTER_H
#define XV_XENAPI_XMLRPC_FILTER_H

#include <stddef.h>

#include "base/error.h"

enum xv_filter_state { XV_FILTER_TEXT, XV_FILTER_TAG, XV_FILTER_NAME };

struct xv_filter {
    enum xv_filter_state state;
    size_t run; /* bytes since the last '<' outside of names */
    size_t run_max;
    size_t matched; /* of "<name>", or of "</name>" within a name */
    size_t held;    /* bytes of an entity reference within a name that wait in hold */
    char hold[8];
};

/* Output may be longer than the input: room for this many bytes for length ones is needed. */
#define XV_FILTER_ROOM(length) ((length)*5 + 64)

void xv_filter_init(struct xv_filter *filter, size_t run_max);
/* Fails with PROTOCOL or LIMIT. */
int xv_filter_pass(struct xv_filter *filter, const char *data, size_t length, char *output,
                   size_t *ret_length, xvsa_error **error) XV_MUST_CHECK;

#endif
