/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Reading values out of a stream of XML: recursive descent over libxml2's pull reader. Everything
 * recursive counts its depth; everything that grows counts what it holds.
 */
#ifndef XV_XENAPI_XMLRPC_READER_H
#define XV_XENAPI_XMLRPC_READER_H

#include <libxml/xmlreader.h>

#include "xenapi/xmlrpc.h"
#include "xenapi/xmlrpc_filter.h"
#include "xenapi/xmlrpc_prune.h"

struct xv_decoder {
    const struct xv_xmlrpc_input *input;
    xmlTextReaderPtr reader;
    struct xv_prune *prune; /* NULL: nothing is taken out */
    struct xv_filter filter;
    struct xv_buffer text; /* of the value under way */
    size_t text_max;
    size_t value_max;
    size_t values;
    char *piece; /* as it comes, or pruned */
    char *ready; /* filtered bytes that libxml2 did not take yet */
    size_t ready_length;
    size_t ready_offset;
    bool ended;
    int failure_code;
    xvsa_error *failure; /* of the source or the filter */
    char problem[200];   /* libxml2's first complaint */
};

/* What is wrong with the answer; returns PROTOCOL. */
int xv_decoder_malformed(struct xv_decoder *decoder, const char *why, xvsa_error **error);
bool xv_decoder_is_named(struct xv_decoder *decoder, const char *name);
/* Goes to the next element or end tag, past white space, comments and the prolog: its type, 0 at the end
 * of the document, or a negative code. */
int xv_decoder_next_tag(struct xv_decoder *decoder, xvsa_error **error);
/* Goes to the start of the named element. */
int xv_decoder_expect(struct xv_decoder *decoder, const char *name, xvsa_error **error);
int xv_decoder_expect_end(struct xv_decoder *decoder, xvsa_error **error);
/* Collects the text of the present element up to its end tag, for xv_decoder_text. */
int xv_decoder_read_text(struct xv_decoder *decoder, xvsa_error **error);
const char *xv_decoder_text(const struct xv_decoder *decoder);
/* Reads from the start tag <value> up to its end tag. */
int xv_decoder_read_value(struct xv_decoder *decoder, int depth, struct xv_value **ret,
                          xvsa_error **error);
/* Reads name and value of a member up to its end tag. The caller frees both on success. */
int xv_decoder_read_member(struct xv_decoder *decoder, int depth, char **ret_key,
                           struct xv_value **ret, xvsa_error **error);
int xv_decoder_open(struct xv_decoder *decoder, const struct xv_xmlrpc_input *input,
                    xvsa_error **error);
void xv_decoder_close(struct xv_decoder *decoder);

#endif
