/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "xenapi/xmlrpc_prune.h"

#include <stdbool.h>
#include <string.h>

#define RECORD_DEPTH 3
#define TAG_MAX      64 /* longer ones are of no interest */

static const char close_name[] = "</name>";

/* What is left of the bytes at hand, and what was written. */
struct cursor {
    const char *at;
    const char *end;
    char *output;
    size_t written;
    bool whole; /* nothing will follow */
};

static void put(struct cursor *cursor, size_t length)
{
    memcpy(cursor->output + cursor->written, cursor->at, length);
    cursor->written += length;
    cursor->at += length;
}

static size_t left(const struct cursor *cursor)
{
    return (size_t)(cursor->end - cursor->at);
}

/* Length of the text at the cursor, which a tag begins with; compared without its end. */
static bool is_tag(const char *tag, size_t length, const char *name)
{
    return strlen(name) == length && memcmp(tag, name, length) == 0;
}

/* Length of the tag at the cursor; 0: it is not all there yet; 1: none that matters. */
static size_t tag_length(const struct cursor *cursor)
{
    size_t room = left(cursor) < TAG_MAX ? left(cursor) : TAG_MAX;
    const char *end = memchr(cursor->at, '>', room);
    if (end != NULL)
        return (size_t)(end - cursor->at) + 1;
    return room < TAG_MAX && !cursor->whole ? 0 : 1;
}

/* Goes on to the end of a name. False when more bytes are needed. */
static bool end_name(struct xv_prune *prune, struct cursor *cursor, bool pass)
{
    size_t length = sizeof close_name - 1;
    const char *end = memmem(cursor->at, left(cursor), close_name, length);
    size_t size = end != NULL                                ? (size_t)(end - cursor->at) + length
                  : left(cursor) >= length && !cursor->whole ? left(cursor) - length + 1
                  : cursor->whole                            ? left(cursor)
                                                             : 0;
    if (pass)
        put(cursor, size);
    else
        cursor->at += size;
    if (end == NULL)
        return false;
    prune->state = pass ? XV_PRUNE_PASS : XV_PRUNE_SKIP;
    return true;
}

static bool is_wanted(const struct xv_prune *prune, const char *name, size_t length)
{
    for (const char *const *wanted = prune->wanted; *wanted != NULL; wanted++) {
        if (is_tag(name, length, *wanted))
            return true;
    }
    return false;
}

/* At the tag of a record's member: passes its head, or begins to skip. False when more bytes are needed. */
static bool judge_member(struct xv_prune *prune, struct cursor *cursor)
{
    static const char head[] = "<member><name>";
    size_t length = sizeof head - 1;
    size_t room = left(cursor) < XV_PRUNE_HELD ? left(cursor) : XV_PRUNE_HELD;
    size_t known = room < length ? room : length;
    const char *end = room < length ? NULL
                                    : memmem(cursor->at + length, room - length, close_name,
                                             sizeof close_name - 1);
    bool possible = memcmp(cursor->at, head, known) == 0;
    if (possible && end == NULL && room < XV_PRUNE_HELD && !cursor->whole)
        return false;
    if (!possible || end == NULL) {
        put(cursor, sizeof "<member>" - 1);
        return true;
    }
    size_t size = (size_t)(end - cursor->at) + sizeof close_name - 1;
    if (is_wanted(prune, cursor->at + length, (size_t)(end - cursor->at) - length)) {
        put(cursor, size);
        return true;
    }
    cursor->at += size;
    prune->state = XV_PRUNE_SKIP;
    prune->nested = 1;
    return true;
}

static bool pass(struct xv_prune *prune, struct cursor *cursor)
{
    const char *tag = memchr(cursor->at, '<', left(cursor));
    put(cursor, tag == NULL ? left(cursor) : (size_t)(tag - cursor->at));
    size_t length = tag == NULL ? 0 : tag_length(cursor);
    if (length == 0)
        return false;
    if (prune->depth == RECORD_DEPTH && is_tag(cursor->at, length, "<member>"))
        return judge_member(prune, cursor);
    if (is_tag(cursor->at, length, "<struct>"))
        prune->depth++;
    else if (is_tag(cursor->at, length, "</struct>"))
        prune->depth--;
    else if (is_tag(cursor->at, length, "<name>"))
        prune->state = XV_PRUNE_PASS_NAME;
    put(cursor, length);
    return true;
}

static bool skip(struct xv_prune *prune, struct cursor *cursor)
{
    const char *tag = memchr(cursor->at, '<', left(cursor));
    cursor->at = tag == NULL ? cursor->end : tag;
    size_t length = tag == NULL ? 0 : tag_length(cursor);
    if (length == 0)
        return false;
    if (is_tag(cursor->at, length, "<name>"))
        prune->state = XV_PRUNE_SKIP_NAME;
    else if (is_tag(cursor->at, length, "<member>"))
        prune->nested++;
    else if (is_tag(cursor->at, length, "</member>") && --prune->nested == 0)
        prune->state = XV_PRUNE_PASS;
    cursor->at += length;
    return true;
}

void xv_prune_init(struct xv_prune *prune, const char *const *wanted)
{
    prune->wanted = wanted;
    prune->state = XV_PRUNE_PASS;
    prune->depth = 0;
    prune->nested = 0;
    prune->length = 0;
}

char *xv_prune_room(struct xv_prune *prune)
{
    return prune->data + prune->length;
}

size_t xv_prune_pass(struct xv_prune *prune, size_t length, char *output)
{
    struct cursor cursor = {.at = prune->data,
                            .end = prune->data + prune->length + length,
                            .output = output,
                            .whole = length == 0};
    bool more = true;
    while (more && cursor.at < cursor.end) {
        if (prune->state == XV_PRUNE_PASS)
            more = pass(prune, &cursor);
        else if (prune->state == XV_PRUNE_SKIP)
            more = skip(prune, &cursor);
        else
            more = end_name(prune, &cursor, prune->state == XV_PRUNE_PASS_NAME);
    }
    prune->length = left(&cursor);
    memmove(prune->data, cursor.at, prune->length);
    return cursor.written;
}
