/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Markup written piece by piece. Text goes through escaping and cannot become markup; what is passed to
 * xv_page_format is the author's own. The first failure stays: later calls do nothing.
 */
#ifndef XV_JOB_PAGE_H
#define XV_JOB_PAGE_H

#include <stdbool.h>

#include "base/buffer.h"

struct xv_page {
    struct xv_buffer buffer;
    xvsa_error **error;
    int rc;
};

void xv_page_init(struct xv_page *page, xvsa_error **error);
void xv_page_format(struct xv_page *page, const char *format, ...) XV_PRINTF(2, 3);
/* UTF-8 text, escaped for element content and attributes. Characters that are not visible or turn the
 * direction of others are replaced, so that a name cannot pretend to be another. */
void xv_page_text(struct xv_page *page, const char *text);
/* The same, cut to a number of columns of a fixed-width font, with an ellipsis where something is left
 * out. */
void xv_page_fit(struct xv_page *page, const char *text, size_t columns);
/* Gives the text away, or fails with the first failure. Releases the page either way. */
int xv_page_end(struct xv_page *page, char **ret) XV_MUST_CHECK;

/* Columns that a text takes in a fixed-width font, and whether some of its characters may come from
 * another one. */
size_t xv_text_columns(const char *text);
bool xv_text_is_plain(const char *text);

#endif
