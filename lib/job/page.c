/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/page.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_MAX    ((size_t)256 << 20)
#define REPLACEMENT 0xfffdu
/* Marks above one letter; more would grow into the lines around. */
#define MARKS_MAX 2

void xv_page_init(struct xv_page *page, xvsa_error **error)
{
    xv_buffer_init(&page->buffer, PAGE_MAX);
    page->error = error;
    page->rc = 0;
}

void xv_page_format(struct xv_page *page, const char *format, ...)
{
    if (page->rc != 0)
        return;
    char *text = NULL;
    va_list args;
    va_start(args, format);
    int length = vasprintf(&text, format, args);
    va_end(args);
    if (length < 0) {
        page->rc = xv_fail_memory(page->error);
        return;
    }
    page->rc = xv_buffer_add(&page->buffer, text, (size_t)length, page->error);
    free(text);
}

static void add(struct xv_page *page, const void *data, size_t length)
{
    if (page->rc == 0)
        page->rc = xv_buffer_add(&page->buffer, data, length, page->error);
}

/* Reads the character at *text, which moves behind it; a byte that is not UTF-8 is one replacement. */
static uint32_t next_character(const char **text)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const unsigned char *bytes = (const unsigned char *)*text;
    size_t length = bytes[0] < 0x80   ? 1
                    : bytes[0] < 0xc0 ? 0
                    : bytes[0] < 0xe0 ? 2
                    : bytes[0] < 0xf0 ? 3
                    : bytes[0] < 0xf8 ? 4
                                      : 0;
    uint32_t code = length <= 1 ? bytes[0] : bytes[0] & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        if ((bytes[i] & 0xc0) != 0x80) {
            length = 0;
            break;
        }
        code = code << 6 | (bytes[i] & 0x3f);
    }
    if (length == 0 || code < least[length] || code > 0x10ffff || (code & 0xfffff800) == 0xd800) {
        *text += 1;
        return REPLACEMENT;
    }
    *text += length;
    return code;
}

static bool is_between(uint32_t code, uint32_t first, uint32_t last)
{
    return code >= first && code <= last;
}

/* Controls, characters without width, turns of direction, and what XML does not allow. */
static bool is_hidden(uint32_t code)
{
    return code < 0x20 || is_between(code, 0x7f, 0x9f) || code == 0xad || code == 0x61c ||
           code == 0x115f || code == 0x1160 || code == 0x180e || is_between(code, 0x200b, 0x200f) ||
           is_between(code, 0x2028, 0x202e) || is_between(code, 0x2060, 0x206f) || code == 0x3164 ||
           code == 0xfeff || is_between(code, 0xfff0, 0xfffb) || (code & 0xfffe) == 0xfffe ||
           is_between(code, 0xe0000, 0xe0fff);
}

static bool is_mark(uint32_t code)
{
    return is_between(code, 0x300, 0x36f) || is_between(code, 0x483, 0x489) ||
           is_between(code, 0x1ab0, 0x1aff) || is_between(code, 0x1dc0, 0x1dff) ||
           is_between(code, 0x20d0, 0x20ff) || is_between(code, 0xfe00, 0xfe0f) ||
           is_between(code, 0xfe20, 0xfe2f);
}

static size_t columns_of(uint32_t code)
{
    bool wide = is_between(code, 0x1100, 0x115f) || is_between(code, 0x2e80, 0xa4cf) ||
                is_between(code, 0xac00, 0xd7a3) || is_between(code, 0xf900, 0xfdff) ||
                is_between(code, 0xfe30, 0xfe6f) || is_between(code, 0xff00, 0xff60) ||
                is_between(code, 0xffe0, 0xffe6) || code >= 0x1f000;
    return is_mark(code) ? 0 : wide ? 2 : 1;
}

static void add_character(struct xv_page *page, uint32_t code)
{
    static const struct {
        char character;
        const char *name;
    } names[] = {{'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'"', "&quot;"}, {'\'', "&#39;"}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (code == (unsigned char)names[i].character) {
            add(page, names[i].name, strlen(names[i].name));
            return;
        }
    }
    char bytes[4];
    size_t length = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = length - 1; i > 0; i--) {
        bytes[i] = (char)(0x80 | (code & 0x3f));
        code >>= 6;
    }
    static const unsigned char leads[] = {0, 0, 0xc0, 0xe0, 0xf0};
    bytes[0] = (char)(leads[length] | code);
    add(page, bytes, length);
}

/* The next character as it is shown; 0 for a mark too many. */
static uint32_t next_shown(const char **text, size_t *marks)
{
    uint32_t code = next_character(text);
    if (is_hidden(code))
        code = REPLACEMENT;
    *marks = is_mark(code) ? *marks + 1 : 0;
    return *marks > MARKS_MAX ? 0 : code;
}

void xv_page_text(struct xv_page *page, const char *text)
{
    size_t marks = 0;
    while (*text != '\0') {
        uint32_t code = next_shown(&text, &marks);
        if (code != 0)
            add_character(page, code);
    }
}

void xv_page_fit(struct xv_page *page, const char *text, size_t columns)
{
    bool cut = xv_text_columns(text) > columns;
    size_t room = cut && columns > 0 ? columns - 1 : columns;
    size_t used = 0, marks = 0;
    while (*text != '\0') {
        uint32_t code = next_shown(&text, &marks);
        if (code == 0)
            continue;
        used += columns_of(code);
        if (used > room)
            break;
        add_character(page, code);
    }
    if (cut && columns > 0)
        add_character(page, 0x2026);
}

int xv_page_end(struct xv_page *page, char **ret)
{
    int rc = page->rc;
    char *text = rc == 0 ? xv_buffer_steal(&page->buffer) : NULL;
    if (rc == 0 && text == NULL)
        rc = xv_fail_memory(page->error);
    xv_buffer_free(&page->buffer);
    if (rc == 0)
        *ret = text;
    return rc;
}

size_t xv_text_columns(const char *text)
{
    size_t columns = 0, marks = 0;
    while (*text != '\0') {
        uint32_t code = next_shown(&text, &marks);
        columns += code == 0 ? 0 : columns_of(code);
    }
    return columns;
}

bool xv_text_is_plain(const char *text)
{
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < 0x20 || (unsigned char)*text >= 0x7f)
            return false;
    }
    return true;
}
