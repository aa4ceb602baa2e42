/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The document "deployment" as a page for people: each pool drawn, findings and advice as tables. Pure.
 */
#ifndef XV_JOB_DRAWING_H
#define XV_JOB_DRAWING_H

#include <jansson.h>

#include "job/page.h"

/* deployment: the document's text. The caller frees *ret. */
int xv_drawing_make(const char *deployment, char **ret, xvsa_error **error) XV_MUST_CHECK;

/* One name in a box. Positions are pixels of the pool's drawing. */
struct xv_drawn_chip {
    const char *name;
    const char *state; /* as in the document; "none": neither good nor bad */
    const char *title; /* shown on pointing at it; NULL: the name */
    bool first;        /* the proxy that coordinates */
    size_t more;       /* not a name, but so many further ones */
    int x, y, width;
};

/* Chips of one cell, broken into lines. */
struct xv_drawn_cell {
    struct xv_drawn_chip *chips;
    size_t count;
};

struct xv_drawn_row {
    const json_t *host; /* NULL: what runs on no host */
    char *signature;    /* for each column '1' where it is attached, else '0' */
    bool begins_group;  /* other SRs than the row above */
    size_t proxies;     /* that run here */
    struct xv_drawn_cell vms, workers, locals;
    int y, height;
};

/* Where everything of a pool stands: hosts are rows, SRs that several hosts share are columns. */
struct xv_drawn_pool {
    const json_t *json;
    struct xv_drawn_row *rows;
    size_t row_count;
    const json_t **columns;
    size_t column_count;
    int vms_x, vms_width, workers_x, workers_width, locals_x, locals_width, columns_x, column_width;
    int header_y, header_height, width, height;
    int footer_y; /* names of columns are repeated there; 0: not */
    bool narrow;  /* names of columns stand upright */
};

/* Pixels. */
#define XV_DRAWN_HOST_WIDTH  150
#define XV_DRAWN_CHIP_HEIGHT 20
#define XV_DRAWN_MARGIN      14
#define XV_DRAWN_TITLE       52
#define XV_DRAWN_NAME_MAX    22 /* columns of text in a chip */

/* What a chip says; buffer is for it. */
#define XV_DRAWN_MORE_SIZE 32
const char *xv_drawn_chip_text(const struct xv_drawn_chip *chip, char buffer[XV_DRAWN_MORE_SIZE]);

/* Pixels that columns of text take at a font size. */
int xv_drawn_text_width(size_t columns, int size);

int xv_drawn_pool_make(const json_t *pool, struct xv_drawn_pool *ret,
                       xvsa_error **error) XV_MUST_CHECK;
void xv_drawn_pool_free(struct xv_drawn_pool *pool);

/* The parts of the page. */
void xv_drawing_add_pool(struct xv_page *page, const struct xv_drawn_pool *pool);
/* A small shape that stands for a state. */
void xv_drawing_add_mark(struct xv_page *page, const char *state, int x, int y);
void xv_drawing_add_tables(struct xv_page *page, const json_t *pool);

/* Text of a member, "" when there is none. */
const char *xv_drawn_text(const json_t *object, const char *name);
/* The name of a pool, host or VM, or its uuid when the name is empty. */
const char *xv_drawn_name(const json_t *named);

#endif
