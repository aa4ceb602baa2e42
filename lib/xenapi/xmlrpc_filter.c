/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "xenapi/xmlrpc_filter.h"

#include <stdbool.h>
#include <string.h>

#define COMPONENT "xenapi"

static const char open_tag[] = "<name>";
static const char close_tag[] = "</name>";

struct output {
    char *data;
    size_t length;
};

static void put(struct output *output, const char *data, size_t length)
{
    memcpy(output->data + output->length, data, length);
    output->length += length;
}

static void put_text(struct output *output, const char *text)
{
    put(output, text, strlen(text));
}

void xv_filter_init(struct xv_filter *filter, size_t run_max)
{
    *filter = (struct xv_filter){.state = XV_FILTER_TEXT, .run_max = run_max};
}

/* Tells whether hold may become (1), is (2) or cannot be (0) one of the five references. */
static int match_reference(const char *hold, size_t held)
{
    static const char *const references[] = {"&amp;", "&lt;", "&gt;", "&quot;", "&apos;"};
    for (size_t i = 0; i < sizeof references / sizeof references[0]; i++) {
        if (strncmp(references[i], hold, held) == 0)
            return references[i][held] == '\0' ? 2 : 1;
    }
    return 0;
}

static void put_name_byte(struct output *output, char c)
{
    if (c == '&')
        put_text(output, "&amp;");
    else if (c == '<')
        put_text(output, "&lt;");
    else if ((unsigned char)c >= 0x20 || c == '\t' || c == '\n' || c == '\r')
        put(output, &c, 1);
    /* XML has no other control characters; the server drops them from values, too. */
}

static void put_name_text(struct output *output, const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        put_name_byte(output, text[i]);
}

static void in_name(struct xv_filter *filter, char c, struct output *output)
{
    if (filter->held > 0) {
        filter->hold[filter->held++] = c;
        int match = match_reference(filter->hold, filter->held);
        if (match == 1)
            return;
        size_t held = filter->held;
        filter->held = 0;
        if (match == 2) {
            put(output, filter->hold, held);
            return;
        }
        put_name_text(output, filter->hold, held - 1);
    }
    if (filter->matched > 0 && c == close_tag[filter->matched]) {
        if (++filter->matched < sizeof close_tag - 1)
            return;
        put_text(output, close_tag);
        filter->matched = 0;
        filter->run = 0;
        filter->state = XV_FILTER_TEXT;
        return;
    }
    put_name_text(output, close_tag, filter->matched);
    filter->matched = 0;
    if (c == '<') {
        filter->matched = 1;
    } else if (c == '&') {
        filter->hold[0] = c;
        filter->held = 1;
    } else {
        put_name_byte(output, c);
    }
}

/* matched counts how much of "<name>" the present tag has; 0 when it is another one. */
static int in_tag(struct xv_filter *filter, char c, xvsa_error **error)
{
    if (filter->run == 2 && c == '!')
        filter->matched = SIZE_MAX;
    else if (filter->matched == SIZE_MAX && filter->run == 3 && (c == 'D' || c == 'E'))
        return xv_fail(error, XVSA_ERR_PROTOCOL, COMPONENT,
                       "the answer holds a document type declaration, which XML-RPC has not");
    else if (filter->matched > 0 && filter->matched < sizeof open_tag &&
             c == open_tag[filter->matched])
        filter->matched++;
    else
        filter->matched = 0;
    if (c == '>') {
        filter->state = filter->matched == sizeof open_tag - 1 ? XV_FILTER_NAME : XV_FILTER_TEXT;
        filter->matched = 0;
    }
    return 0;
}

static int step(struct xv_filter *filter, char c, struct output *output, xvsa_error **error)
{
    if (filter->run++ >= filter->run_max)
        return xv_fail(error, XVSA_ERR_LIMIT, COMPONENT,
                       "the answer holds a text or tag longer than %zu bytes", filter->run_max);
    if (filter->state == XV_FILTER_NAME) {
        in_name(filter, c, output);
        return 0;
    }
    put(output, &c, 1);
    if (filter->state == XV_FILTER_TAG)
        return in_tag(filter, c, error);
    if (c == '<') {
        filter->state = XV_FILTER_TAG;
        filter->run = 1;
        filter->matched = 1;
    }
    return 0;
}

/* What follows are the short ways for what answers mostly consist of; each returns how many bytes it
 * took, 0 when they have to be looked at one by one. */

/* Everything up to the next '<' goes through as it is. */
static size_t skip_text(struct xv_filter *filter, const char *data, size_t length,
                        struct output *output)
{
    if (filter->state != XV_FILTER_TEXT || filter->run + length > filter->run_max)
        return 0;
    const char *tag = memchr(data, '<', length);
    size_t plain = tag == NULL ? length : (size_t)(tag - data);
    put(output, data, plain);
    filter->run += plain;
    return plain;
}

/* A whole tag that is no declaration. */
static size_t skip_tag(struct xv_filter *filter, const char *data, size_t length,
                       struct output *output)
{
    if (filter->state != XV_FILTER_TEXT || length < sizeof open_tag || data[0] != '<' ||
        data[1] == '!')
        return 0;
    bool is_name = memcmp(data, open_tag, sizeof open_tag - 1) == 0;
    const char *end = memchr(data, '>', length);
    size_t size = end == NULL ? 0 : (size_t)(end - data) + 1;
    if (size == 0 || size > filter->run_max)
        return 0;
    put(output, data, size);
    filter->run = size;
    filter->state = is_name ? XV_FILTER_NAME : XV_FILTER_TEXT;
    filter->matched = 0;
    return size;
}

/* The bytes of a name that need no escape. */
static size_t skip_name(struct xv_filter *filter, const char *data, size_t length,
                        struct output *output)
{
    if (filter->state != XV_FILTER_NAME || filter->held > 0 || filter->matched > 0 ||
        filter->run + length > filter->run_max)
        return 0;
    size_t plain = 0;
    while (plain < length && (unsigned char)data[plain] >= 0x20 && data[plain] != '<' &&
           data[plain] != '&')
        plain++;
    put(output, data, plain);
    filter->run += plain;
    return plain;
}

int xv_filter_pass(struct xv_filter *filter, const char *data, size_t length, char *output,
                   size_t *ret_length, xvsa_error **error)
{
    struct output sink = {.data = output};
    size_t done = 0;
    while (done < length) {
        size_t before = done;
        done += skip_text(filter, data + done, length - done, &sink);
        if (done < length)
            done += skip_tag(filter, data + done, length - done, &sink);
        if (done < length)
            done += skip_name(filter, data + done, length - done, &sink);
        if (done > before)
            continue;
        int rc = step(filter, data[done++], &sink, error);
        if (rc != 0)
            return rc;
    }
    *ret_length = sink.length;
    return 0;
}
