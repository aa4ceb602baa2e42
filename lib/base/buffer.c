/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/buffer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

void xv_buffer_init(struct xv_buffer *buffer, size_t ceiling)
{
    *buffer = (struct xv_buffer){.ceiling = ceiling};
}

static int reserve(struct xv_buffer *buffer, size_t extra, xvsa_error **error)
{
    if (extra > buffer->ceiling || buffer->length > buffer->ceiling - extra)
        return xv_fail(error, XVSA_ERR_LIMIT, "base", "more than the allowed %zu bytes",
                       buffer->ceiling);
    size_t needed = buffer->length + extra + 1;
    if (needed <= buffer->capacity)
        return 0;
    size_t capacity = buffer->capacity < 256 ? 256 : buffer->capacity;
    while (capacity < needed)
        capacity += capacity / 2;
    char *data = realloc(buffer->data, capacity);
    if (data == NULL)
        return xv_fail_memory(error);
    buffer->data = data;
    buffer->capacity = capacity;
    return 0;
}

int xv_buffer_add(struct xv_buffer *buffer, const void *data, size_t length, xvsa_error **error)
{
    int rc = reserve(buffer, length, error);
    if (rc != 0)
        return rc;
    if (length > 0)
        memcpy(buffer->data + buffer->length, data, length);
    buffer->length += length;
    buffer->data[buffer->length] = '\0';
    return 0;
}

int xv_buffer_add_text(struct xv_buffer *buffer, const char *text, xvsa_error **error)
{
    return xv_buffer_add(buffer, text, strlen(text), error);
}

int xv_buffer_format(struct xv_buffer *buffer, xvsa_error **error, const char *format, ...)
{
    char *text = NULL;
    va_list args;
    va_start(args, format);
    int length = vasprintf(&text, format, args);
    va_end(args);
    if (length < 0)
        return xv_fail_memory(error);
    int rc = xv_buffer_add(buffer, text, (size_t)length, error);
    free(text);
    return rc;
}

char *xv_buffer_steal(struct xv_buffer *buffer)
{
    char *data = buffer->data == NULL ? strdup("") : buffer->data;
    xv_buffer_init(buffer, buffer->ceiling);
    return data;
}

void xv_buffer_wipe(struct xv_buffer *buffer)
{
    xv_wipe(buffer->data, buffer->capacity);
    xv_buffer_free(buffer);
}

void xv_buffer_free(struct xv_buffer *buffer)
{
    free(buffer->data);
    xv_buffer_init(buffer, buffer->ceiling);
}

void xv_wipe(void *memory, size_t length)
{
    if (memory != NULL)
        explicit_bzero(memory, length);
}

void xv_free_secret(char *text)
{
    if (text != NULL) {
        xv_wipe(text, strlen(text));
        free(text);
    }
}

void xv_hex_encode(const void *data, size_t length, char *text)
{
    static const char digits[] = "0123456789abcdef";
    const unsigned char *bytes = data;
    for (size_t i = 0; i < length; i++) {
        text[2 * i] = digits[bytes[i] >> 4];
        text[2 * i + 1] = digits[bytes[i] & 15];
    }
    text[2 * length] = '\0';
}

static int digit_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

int xv_hex_decode(const char *text, void *data, size_t length)
{
    unsigned char *bytes = data;
    for (size_t i = 0; i < length; i++) {
        int high = digit_value(text[2 * i]);
        int low = high < 0 ? -1 : digit_value(text[2 * i + 1]);
        if (low < 0)
            return -1;
        bytes[i] = (unsigned char)(high << 4 | low);
    }
    return text[2 * length] == '\0' ? 0 : -1;
}

int xv_random(void *data, size_t length, xvsa_error **error)
{
    unsigned char *bytes = data;
    while (length > 0) {
        ssize_t got = getrandom(bytes, length, 0);
        if (got < 0 && errno != EINTR)
            return xv_fail_errno(error, errno, "base", "cannot get random bytes");
        if (got > 0) {
            bytes += got;
            length -= (size_t)got;
        }
    }
    return 0;
}
