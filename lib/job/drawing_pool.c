/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A pool as SVG. Fonts are of fixed width, so that what a text takes is known; one that may need another
 * font is told its width.
 */
#include <stdlib.h>
#include <string.h>

#include "job/drawing.h"

#define NAME_SIZE  12
#define CHIP_SIZE  11
#define SMALL_SIZE 10

static void put_text(struct xv_page *page, const char *attributes, int size, const char *text,
                     size_t columns)
{
    size_t needed = xv_text_columns(text);
    xv_page_format(page, "<text font-size=\"%d\" %s", size, attributes);
    if (!xv_text_is_plain(text) || needed > columns)
        xv_page_format(page, " textLength=\"%d\" lengthAdjust=\"spacingAndGlyphs\"",
                       xv_drawn_text_width(needed < columns ? needed : columns, size) - 1);
    xv_page_format(page, ">");
    xv_page_fit(page, text, columns);
    xv_page_format(page, "</text>");
}

static void put_text_at(struct xv_page *page, int x, int y, const char *class, int size,
                        const char *text, size_t columns)
{
    char attributes[96];
    snprintf(attributes, sizeof attributes, "x=\"%d\" y=\"%d\" class=\"%s\"", x, y, class);
    put_text(page, attributes, size, text, columns);
}

static void put_title(struct xv_page *page, const char *text)
{
    xv_page_format(page, "<title>");
    xv_page_text(page, text);
    xv_page_format(page, "</title>");
}

void xv_drawing_add_mark(struct xv_page *page, const char *state, int x, int y)
{
    static const struct {
        const char *state, *path;
    } marks[] = {
        {"covered", "<circle cx=\"4\" cy=\"4\" r=\"4\"/>"},
        {"one-host", "<path d=\"M0.5 0.5h7v7h-7z\"/>"},
        {"one-proxy", "<path d=\"M4 0L8.4 8H-0.4z\"/>"},
        {"unreached",
         "<path d=\"M1.5 0L4 2.5L6.5 0L8 1.5L5.5 4L8 6.5L6.5 8L4 5.5L1.5 8L0 6.5L2.5 4L0 1.5z\"/>"},
        {"none", "<path d=\"M0 3h8v2h-8z\"/>"},
        {"proxy", "<path d=\"M0 1.5L4.5 4L0 6.5zM4.5 3h3.5v2h-3.5z\"/>"},
    };
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++) {
        if (strcmp(state, marks[i].state) == 0)
            xv_page_format(page, "<g class=\"mark\" transform=\"translate(%d %d)\">%s</g>", x, y,
                           marks[i].path);
    }
}

/* Only the document's own words become class names. */
static const char *class_of(const char *state)
{
    static const char *const states[] = {"covered", "one-host", "one-proxy", "unreached", "proxy"};
    for (size_t i = 0; i < sizeof states / sizeof states[0]; i++) {
        if (strcmp(states[i], state) == 0)
            return states[i];
    }
    return "none";
}

static void add_chip(struct xv_page *page, const struct xv_drawn_chip *chip)
{
    const char *state = class_of(chip->state);
    char more[XV_DRAWN_MORE_SIZE];
    const char *name = xv_drawn_chip_text(chip, more);
    xv_page_format(page,
                   "<g class=\"chip %s%s\"><rect class=\"under\" x=\"%d\" y=\"%d\" "
                   "width=\"%d\" height=\"%d\" rx=\"5\"/><rect x=\"%d\" y=\"%d\" "
                   "width=\"%d\" height=\"%d\" rx=\"5\"/>",
                   state, chip->first ? " first" : "", chip->x, chip->y, chip->width,
                   XV_DRAWN_CHIP_HEIGHT, chip->x, chip->y, chip->width, XV_DRAWN_CHIP_HEIGHT);
    put_title(page, chip->title != NULL ? chip->title : name);
    xv_drawing_add_mark(page, state, chip->x + 8, chip->y + 6);
    put_text_at(page, chip->x + 22, chip->y + 14, "", CHIP_SIZE, name, XV_DRAWN_NAME_MAX);
    xv_page_format(page, "</g>\n");
}

static void add_cell(struct xv_page *page, const struct xv_drawn_cell *cell)
{
    for (size_t i = 0; i < cell->count; i++)
        add_chip(page, &cell->chips[i]);
}

/* How many chips' VMs a cell stands for. */
static size_t vms_of(const struct xv_drawn_row *row)
{
    const struct xv_drawn_cell *cell = &row->vms;
    return cell->count == 0 ? 0
                            : cell->count + cell->chips[cell->count - 1].more -
                                  (cell->chips[cell->count - 1].more > 0 ? 1 : 0);
}

static void add_host(struct xv_page *page, const struct xv_drawn_row *row)
{
    const json_t *host = row->host;
    bool live = json_is_true(json_object_get(host, "live"));
    const char *name = host == NULL ? "on no host" : xv_drawn_name(host);
    char note[96];
    snprintf(note, sizeof note, "%zu VM%s%s%s", vms_of(row), vms_of(row) == 1 ? "" : "s",
             json_is_true(json_object_get(host, "coordinator")) ? ", coordinator" : "",
             host != NULL && !live ? ", not live" : "");
    int x = XV_DRAWN_MARGIN;
    int middle = row->y + row->height / 2;
    xv_page_format(page, "<g class=\"host%s\">", host != NULL && live ? "" : " away");
    put_title(page, name);
    xv_page_format(page, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"6\"/>", x,
                   row->y + 3, XV_DRAWN_HOST_WIDTH, row->height - 6);
    put_text_at(page, x + 10, middle - 2, "name", NAME_SIZE, name, 18);
    put_text_at(page, x + 10, middle + 12, "small", SMALL_SIZE, note, 22);
    xv_page_format(page, "</g>\n");
}

static int column_middle(const struct xv_drawn_pool *pool, size_t column)
{
    return pool->columns_x + (int)column * pool->column_width + pool->column_width / 2;
}

static bool has(const struct xv_drawn_pool *pool, size_t row, size_t column)
{
    return row < pool->row_count && pool->rows[row].signature[column] == '1';
}

static const char *state_of_sr(const json_t *sr)
{
    return json_integer_value(json_object_get(sr, "disks")) > 0
               ? class_of(xv_drawn_text(sr, "state"))
               : "none";
}

/* A column's bar: thick where it is attached, a line over the hosts between. */
static void add_bar(struct xv_page *page, const struct xv_drawn_pool *pool, size_t column)
{
    const json_t *sr = pool->columns[column];
    int middle = column_middle(pool, column);
    int width = pool->narrow ? pool->column_width - 8 : pool->column_width - 40;
    int reached = 0; /* lower end of the part above; 0: none yet */
    xv_page_format(page, "<g class=\"bar %s\">", state_of_sr(sr));
    put_title(page, xv_drawn_name(sr));
    for (size_t i = 0; i < pool->row_count; i++) {
        if (!has(pool, i, column))
            continue;
        int top = pool->rows[i].y + 3;
        while (has(pool, i + 1, column))
            i++;
        if (reached > 0)
            xv_page_format(page, "<path class=\"span\" d=\"M%d %dV%d\"/>", middle, reached, top);
        reached = pool->rows[i].y + pool->rows[i].height - 3;
        xv_page_format(page, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"6\"/>",
                       middle - width / 2, top, width, reached - top);
    }
    xv_page_format(page, "</g>\n");
}

/* Name of an SR and how many proxies reach it, above its bar or, repeated, below. */
static void add_column_name(struct xv_page *page, const struct xv_drawn_pool *pool, size_t column,
                            bool below)
{
    const json_t *sr = pool->columns[column];
    const char *state = state_of_sr(sr);
    size_t proxies = json_array_size(json_object_get(sr, "proxies"));
    int middle = column_middle(pool, column);
    int bottom = pool->header_y + pool->header_height;
    int name_y = bottom - 20, count_y = bottom - 5;
    if (below) {
        count_y = pool->footer_y + 14;
        name_y = pool->footer_y + (pool->narrow ? 22 : 30);
    }
    char attributes[160], count[48];
    snprintf(count, sizeof count, pool->narrow ? "%zu" : "%zu prox%s", proxies,
             proxies == 1 ? "y" : "ies");
    xv_page_format(page, "<g class=\"column %s\">", state);
    put_title(page, xv_drawn_name(sr));
    if (pool->narrow) {
        snprintf(attributes, sizeof attributes,
                 "x=\"%d\" y=\"%d\" class=\"name\" transform=\"rotate(-90 %d %d)\"%s", middle + 4,
                 name_y, middle + 4, name_y, below ? " text-anchor=\"end\"" : "");
        put_text(page, attributes, CHIP_SIZE, xv_drawn_name(sr), XV_DRAWN_NAME_MAX);
    } else {
        snprintf(attributes, sizeof attributes,
                 "x=\"%d\" y=\"%d\" class=\"name\" text-anchor=\"middle\"", middle, name_y);
        put_text(page, attributes, NAME_SIZE, xv_drawn_name(sr), 16);
    }
    snprintf(attributes, sizeof attributes,
             "x=\"%d\" y=\"%d\" class=\"count\" text-anchor=\"middle\"", middle, count_y);
    put_text(page, attributes, SMALL_SIZE, count, 12);
    xv_page_format(page, "</g>\n");
}

static int right_end(const struct xv_drawn_cell *cell, int least)
{
    int end = least;
    for (size_t i = 0; i < cell->count; i++) {
        int chip = cell->chips[i].x + cell->chips[i].width;
        end = chip > end ? chip : end;
    }
    return end;
}

/* From the proxies of a row to every SR that they reach; local ones stand on the way. */
static void add_reach(struct xv_page *page, const struct xv_drawn_pool *pool, size_t index)
{
    const struct xv_drawn_row *row = &pool->rows[index];
    const char *last = strrchr(row->signature, '1');
    if (row->proxies == 0 || (last == NULL && row->locals.count == 0))
        return;
    int y = row->y + row->height / 2;
    int end = last == NULL ? row->locals.chips[0].x
                           : column_middle(pool, (size_t)(last - row->signature));
    xv_page_format(page, "<g class=\"reach\"><path d=\"M%d %dH%d\"/>",
                   right_end(&row->workers, pool->workers_x), y, end);
    for (size_t i = 0; i < pool->column_count; i++) {
        if (!has(pool, index, i))
            continue;
        int middle = column_middle(pool, i);
        xv_page_format(page,
                       "<circle cx=\"%d\" cy=\"%d\" r=\"8\"/><text x=\"%d\" y=\"%d\" "
                       "font-size=\"%d\" text-anchor=\"middle\">%zu</text>",
                       middle, y, middle, y + 4, SMALL_SIZE, row->proxies);
    }
    xv_page_format(page, "</g>\n");
}

/* Hosts of one group stand on one ground. */
static void add_grounds(struct xv_page *page, const struct xv_drawn_pool *pool)
{
    for (size_t i = 0; i < pool->row_count; i++) {
        size_t end = i;
        while (end + 1 < pool->row_count && !pool->rows[end + 1].begins_group)
            end++;
        xv_page_format(page,
                       "<rect class=\"ground\" x=\"6\" y=\"%d\" width=\"%d\" height=\"%d\" "
                       "rx=\"8\"/>\n",
                       pool->rows[i].y, pool->width - 12,
                       pool->rows[end].y + pool->rows[end].height - pool->rows[i].y);
        i = end;
    }
}

static void add_head(struct xv_page *page, const struct xv_drawn_pool *pool)
{
    const json_t *json = pool->json;
    char note[160];
    snprintf(note, sizeof note, "%zu hosts, %zu storage repositories, %zu proxies, %zu VMs",
             json_array_size(json_object_get(json, "hosts")),
             json_array_size(json_object_get(json, "srs")),
             json_array_size(json_object_get(json, "proxies")),
             json_array_size(json_object_get(json, "vms")));
    int room = pool->width - 2 * XV_DRAWN_MARGIN;
    put_text_at(page, XV_DRAWN_MARGIN, 24, "pool", 15, xv_drawn_name(json),
                (size_t)(room / xv_drawn_text_width(1, 15)));
    put_text_at(page, XV_DRAWN_MARGIN, 42, "small", CHIP_SIZE, note,
                (size_t)(room / xv_drawn_text_width(1, CHIP_SIZE)));
    int y = pool->header_y + pool->header_height - 5;
    put_text_at(page, XV_DRAWN_MARGIN + 4, y, "small", SMALL_SIZE, "Host", 12);
    put_text_at(page, pool->vms_x, y, "small", SMALL_SIZE, "VMs", 12);
    put_text_at(page, pool->workers_x, y, "small", SMALL_SIZE, "Proxies", 12);
    if (pool->locals_width > 0)
        put_text_at(page, pool->locals_x, y, "small", SMALL_SIZE, "Local storage", 14);
}

void xv_drawing_add_pool(struct xv_page *page, const struct xv_drawn_pool *pool)
{
    xv_page_format(page,
                   "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"pool\" role=\"img\" "
                   "width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\">\n",
                   pool->width, pool->height, pool->width, pool->height);
    put_title(page, xv_drawn_name(pool->json));
    xv_page_format(page,
                   "<rect class=\"frame\" x=\"1\" y=\"1\" width=\"%d\" height=\"%d\" "
                   "rx=\"10\"/>\n",
                   pool->width - 2, pool->height - 2);
    add_head(page, pool);
    add_grounds(page, pool);
    for (size_t i = 0; i < pool->column_count; i++) {
        add_column_name(page, pool, i, false);
        if (pool->footer_y > 0)
            add_column_name(page, pool, i, true);
        add_bar(page, pool, i);
    }
    for (size_t i = 0; i < pool->row_count; i++) {
        add_reach(page, pool, i);
        add_host(page, &pool->rows[i]);
        add_cell(page, &pool->rows[i].vms);
        add_cell(page, &pool->rows[i].workers);
        add_cell(page, &pool->rows[i].locals);
    }
    xv_page_format(page, "</svg>\n");
}
