/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A growing byte buffer with a ceiling: nothing a peer sends is collected without one.
 */
#ifndef XV_BASE_BUFFER_H
#define XV_BASE_BUFFER_H

#include <stddef.h>

#include "base/error.h"

/* The text is always followed by a zero byte that length does not count. data is NULL while empty. */
struct xv_buffer {
    char *data;
    size_t length;
    size_t capacity;
    size_t ceiling;
};

void xv_buffer_init(struct xv_buffer *buffer, size_t ceiling);
/* Fail with XVSA_ERR_LIMIT above the ceiling, XVSA_ERR_MEMORY otherwise; the buffer is unchanged then. */
int xv_buffer_add(struct xv_buffer *buffer, const void *data, size_t length,
                  xvsa_error **error) XV_MUST_CHECK;
int xv_buffer_add_text(struct xv_buffer *buffer, const char *text,
                       xvsa_error **error) XV_MUST_CHECK;
int xv_buffer_format(struct xv_buffer *buffer, xvsa_error **error, const char *format, ...)
    XV_PRINTF(3, 4) XV_MUST_CHECK;
/* Gives the memory away as a string that the caller frees ("" when empty); NULL without memory. */
char *xv_buffer_steal(struct xv_buffer *buffer);
/* Wipes the content, for buffers that held a secret, and releases it. */
void xv_buffer_wipe(struct xv_buffer *buffer);
void xv_buffer_free(struct xv_buffer *buffer);

/* Overwrites memory in a way the compiler keeps. memory may be NULL. */
void xv_wipe(void *memory, size_t length);
/* Wipes and frees a string; text may be NULL. */
void xv_free_secret(char *text);

/* Writes 2 * length lower-case hex digits and a zero byte. */
void xv_hex_encode(const void *data, size_t length, char *text);
/* Reads exactly 2 * length hex digits; returns -1 on anything else. */
int xv_hex_decode(const char *text, void *data, size_t length);

/* Fills with random bytes from the kernel. */
int xv_random(void *data, size_t length, xvsa_error **error) XV_MUST_CHECK;

#endif
