/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdio.h>
#include <string.h>

#include "xenapi/xmlrpc.h"

#define COMPONENT "xenapi"
#define DEPTH_MAX 32

/* Length of the UTF-8 sequence at text, 0 when it is not valid or not allowed in XML. */
static size_t sequence_length(const unsigned char *text)
{
    if (text[0] < 0x80)
        return text[0] >= 0x20 || text[0] == '\t' || text[0] == '\n' || text[0] == '\r' ? 1 : 0;
    size_t length = text[0] >= 0xf0 ? 4 : text[0] >= 0xe0 ? 3 : text[0] >= 0xc2 ? 2 : 0;
    if (length == 0 || text[0] > 0xf4)
        return 0;
    for (size_t i = 1; i < length; i++) {
        if ((text[i] & 0xc0) != 0x80)
            return 0;
    }
    if ((text[0] == 0xe0 && text[1] < 0xa0) || (text[0] == 0xed && text[1] > 0x9f) ||
        (text[0] == 0xf0 && text[1] < 0x90) || (text[0] == 0xf4 && text[1] > 0x8f))
        return 0;
    if (text[0] == 0xef && text[1] == 0xbf && text[2] >= 0xbe)
        return 0;
    return length;
}

static const char *escape_of(unsigned char c)
{
    switch (c) {
    case '&':
        return "&amp;";
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '"':
        return "&quot;";
    case '\r':
        return "&#13;"; /* a bare one would become a line feed */
    default:
        return NULL;
    }
}

static int add_escaped(struct xv_buffer *buffer, const char *text, xvsa_error **error)
{
    const unsigned char *rest = (const unsigned char *)text;
    int rc = 0;
    while (rc == 0 && *rest != '\0') {
        size_t plain = 0;
        while (rest[plain] != '\0' && escape_of(rest[plain]) == NULL) {
            size_t length = sequence_length(rest + plain);
            if (length == 0)
                return xv_fail(error, XVSA_ERR_INVALID, COMPONENT,
                               "a text holds a control character or is not UTF-8; the pool would "
                               "refuse it");
            plain += length;
        }
        rc = xv_buffer_add(buffer, rest, plain, error);
        rest += plain;
        if (rc == 0 && *rest != '\0')
            rc = xv_buffer_add_text(buffer, escape_of(*rest++), error);
    }
    return rc;
}

static int add_value(struct xv_buffer *buffer, const struct xv_value *value, int depth,
                     xvsa_error **error);

static int add_tagged(struct xv_buffer *buffer, const char *open, const char *text,
                      const char *close, xvsa_error **error)
{
    int rc = xv_buffer_add_text(buffer, open, error);
    if (rc == 0)
        rc = add_escaped(buffer, text, error);
    if (rc == 0)
        rc = xv_buffer_add_text(buffer, close, error);
    return rc;
}

static int add_array(struct xv_buffer *buffer, const struct xv_value *value, int depth,
                     xvsa_error **error)
{
    int rc = xv_buffer_add_text(buffer, "<array><data>", error);
    for (size_t i = 0; rc == 0 && i < xv_value_count(value); i++)
        rc = add_value(buffer, xv_value_at(value, i), depth + 1, error);
    return rc != 0 ? rc : xv_buffer_add_text(buffer, "</data></array>", error);
}

static int add_struct(struct xv_buffer *buffer, const struct xv_value *value, int depth,
                      xvsa_error **error)
{
    int rc = xv_buffer_add_text(buffer, "<struct>", error);
    for (size_t i = 0; rc == 0 && i < xv_value_count(value); i++) {
        const char *key = xv_value_key_at(value, i);
        if (key[0] == '\0' || strpbrk(key, "&<") != NULL)
            return xv_fail(error, XVSA_ERR_INVALID, COMPONENT,
                           "the map key \"%.100s\" is one that XenServer cannot give back", key);
        rc = add_tagged(buffer, "<member><name>", key, "</name>", error);
        if (rc == 0)
            rc = add_value(buffer, xv_value_at(value, i), depth + 1, error);
        if (rc == 0)
            rc = xv_buffer_add_text(buffer, "</member>", error);
    }
    return rc != 0 ? rc : xv_buffer_add_text(buffer, "</struct>", error);
}

static int add_content(struct xv_buffer *buffer, const struct xv_value *value, int depth,
                       xvsa_error **error)
{
    char text[64];
    switch (xv_value_kind(value)) {
    case XV_VALUE_STRING:
        return add_escaped(buffer, xv_value_string(value, ""), error);
    case XV_VALUE_BOOL:
        return xv_buffer_add_text(
            buffer, xv_value_bool(value, false) ? "<boolean>1</boolean>" : "<boolean>0</boolean>",
            error);
    case XV_VALUE_DOUBLE:
        xv_value_format_double(xv_value_double(value, 0), text, sizeof text);
        return add_tagged(buffer, "<double>", text, "</double>", error);
    case XV_VALUE_TIME:
        return add_tagged(buffer, "<dateTime.iso8601>", xv_value_string(value, ""),
                          "</dateTime.iso8601>", error);
    case XV_VALUE_ARRAY:
        return add_array(buffer, value, depth, error);
    case XV_VALUE_STRUCT:
        return add_struct(buffer, value, depth, error);
    case XV_VALUE_NIL:
        break;
    }
    return xv_buffer_add_text(buffer, "<nil/>", error);
}

static int add_value(struct xv_buffer *buffer, const struct xv_value *value, int depth,
                     xvsa_error **error)
{
    if (depth > DEPTH_MAX)
        return xv_fail(error, XVSA_ERR_INVALID, COMPONENT, "a parameter is nested too deeply");
    int rc = xv_buffer_add_text(buffer, "<value>", error);
    if (rc == 0)
        rc = add_content(buffer, value, depth, error);
    return rc != 0 ? rc : xv_buffer_add_text(buffer, "</value>", error);
}

static int add_param(struct xv_buffer *buffer, const struct xv_value *value, xvsa_error **error)
{
    int rc = xv_buffer_add_text(buffer, "<param>", error);
    if (rc == 0)
        rc = add_value(buffer, value, 0, error);
    return rc != 0 ? rc : xv_buffer_add_text(buffer, "</param>", error);
}

int xv_xmlrpc_encode(struct xv_buffer *buffer, const char *method, const char *session,
                     const struct xv_value *params, xvsa_error **error)
{
    int rc = add_tagged(buffer, "<?xml version=\"1.0\"?><methodCall><methodName>", method,
                        "</methodName><params>", error);
    if (rc == 0 && session != NULL)
        rc = add_tagged(buffer, "<param><value>", session, "</value></param>", error);
    for (size_t i = 0; rc == 0 && i < xv_value_count(params); i++)
        rc = add_param(buffer, xv_value_at(params, i), error);
    return rc != 0 ? rc : xv_buffer_add_text(buffer, "</params></methodCall>", error);
}
