/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Where things of a pool stand in its drawing. Hosts that share the same SRs stand together, so that the
 * bars of SRs are as short as may be.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "job/drawing.h"

#define CHIP_SIZE     11 /* of text */
#define CHIP_PADDING  30 /* what a chip has besides its text */
#define CHIP_GAP      6
#define LINE_HEIGHT   (XV_DRAWN_CHIP_HEIGHT + 4)
#define ROW_PADDING   6
#define ROW_LEAST     40
#define GROUP_GAP     10
#define VMS_WIDTH     330
#define WORKERS_WIDTH 210
#define VMS_OF_HOST   6 /* chips of VMs, the last of which may stand for many */
#define VMS_OF_MANY   4 /* the same where there are many hosts */
#define MANY_HOSTS    16
#define VMS_NOWHERE   12
#define WIDE_COLUMNS  5
#define WIDE_WIDTH    124
#define NARROW_WIDTH  26

int xv_drawn_text_width(size_t columns, int size)
{
    return (int)columns * size * 61 / 100 + 1;
}

const char *xv_drawn_text(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text == NULL ? "" : text;
}

const char *xv_drawn_name(const json_t *named)
{
    const char *name = xv_drawn_text(named, "name");
    return name[0] != '\0' ? name : xv_drawn_text(named, "uuid");
}

/* Numbers in names count as numbers: host-2 stands before host-10. */
static int compare_names(const char *a, const char *b)
{
    while (*a != '\0' && *b != '\0') {
        if (isdigit((unsigned char)*a) && isdigit((unsigned char)*b)) {
            while (*a == '0')
                a++;
            while (*b == '0')
                b++;
            size_t left = strspn(a, "0123456789"), right = strspn(b, "0123456789");
            int order = left != right ? (left < right ? -1 : 1) : strncmp(a, b, left);
            if (order != 0)
                return order;
            a += left;
            b += right;
        } else if (*a != *b) {
            return (unsigned char)*a < (unsigned char)*b ? -1 : 1;
        } else {
            a++;
            b++;
        }
    }
    return *a == *b ? 0 : *a == '\0' ? -1 : 1;
}

static int compare_named(const json_t *a, const json_t *b)
{
    int order = compare_names(xv_drawn_text(a, "name"), xv_drawn_text(b, "name"));
    return order != 0 ? order : strcmp(xv_drawn_text(a, "uuid"), xv_drawn_text(b, "uuid"));
}

static int compare_columns(const void *left, const void *right)
{
    return compare_named(*(const json_t *const *)left, *(const json_t *const *)right);
}

static int compare_rows(const void *left, const void *right)
{
    const struct xv_drawn_row *a = left;
    const struct xv_drawn_row *b = right;
    int order = strcmp(b->signature, a->signature);
    return order != 0 ? order : compare_named(a->host, b->host);
}

static bool is_attached(const json_t *sr, const json_t *host)
{
    const json_t *hosts = json_object_get(sr, "hosts");
    for (size_t i = 0; host != NULL && i < json_array_size(hosts); i++) {
        if (strcmp(xv_drawn_text(json_array_get(hosts, i), "uuid"), xv_drawn_text(host, "uuid")) ==
            0)
            return true;
    }
    return false;
}

/* SRs of installation media and drives say nothing about what is protected. */
static bool is_shown(const json_t *sr)
{
    return json_integer_value(json_object_get(sr, "disks")) > 0 ||
           (strcmp(xv_drawn_text(sr, "content_type"), "iso") != 0 &&
            strcmp(xv_drawn_text(sr, "type"), "iso") != 0 &&
            strcmp(xv_drawn_text(sr, "type"), "udev") != 0);
}

static size_t host_count_of(const json_t *sr)
{
    return json_array_size(json_object_get(sr, "hosts"));
}

static int find_columns(struct xv_drawn_pool *pool, xvsa_error **error)
{
    const json_t *srs = json_object_get(pool->json, "srs");
    pool->columns = calloc(json_array_size(srs) + 1, sizeof *pool->columns);
    if (pool->columns == NULL)
        return xv_fail_memory(error);
    for (size_t i = 0; i < json_array_size(srs); i++) {
        const json_t *sr = json_array_get(srs, i);
        if (is_shown(sr) && host_count_of(sr) > 1)
            pool->columns[pool->column_count++] = sr;
    }
    qsort(pool->columns, pool->column_count, sizeof *pool->columns, compare_columns);
    return 0;
}

static void sign(const struct xv_drawn_pool *pool, struct xv_drawn_row *row)
{
    for (size_t i = 0; i < pool->column_count; i++)
        row->signature[i] = is_attached(pool->columns[i], row->host) ? '1' : '0';
}

/* One row for each host, and one for what runs on none. */
static int find_rows(struct xv_drawn_pool *pool, xvsa_error **error)
{
    const json_t *hosts = json_object_get(pool->json, "hosts");
    size_t count = json_array_size(hosts);
    pool->rows = calloc(count + 1, sizeof *pool->rows);
    if (pool->rows == NULL)
        return xv_fail_memory(error);
    pool->row_count = count + 1;
    for (size_t i = 0; i < pool->row_count; i++) {
        struct xv_drawn_row *row = &pool->rows[i];
        row->host = i < count ? json_array_get(hosts, i) : NULL;
        row->signature = calloc(pool->column_count + 1, 1);
        if (row->signature == NULL)
            return xv_fail_memory(error);
        sign(pool, row);
    }
    qsort(pool->rows, count, sizeof *pool->rows, compare_rows);
    return 0;
}

/* Columns in the order of the rows where they begin. */
static void order_columns(struct xv_drawn_pool *pool)
{
    size_t next = 0;
    for (size_t row = 0; row < pool->row_count; row++) {
        for (size_t i = next; i < pool->column_count; i++) {
            if (!is_attached(pool->columns[i], pool->rows[row].host))
                continue;
            const json_t *column = pool->columns[i];
            memmove(&pool->columns[next + 1], &pool->columns[next],
                    (i - next) * sizeof *pool->columns);
            pool->columns[next++] = column;
        }
    }
    for (size_t row = 0; row < pool->row_count; row++) {
        sign(pool, &pool->rows[row]);
        pool->rows[row].begins_group =
            row > 0 && (pool->rows[row].host == NULL ||
                        strcmp(pool->rows[row].signature, pool->rows[row - 1].signature) != 0);
    }
}

/* The row of a host; the last one for none. */
static struct xv_drawn_row *row_of(const struct xv_drawn_pool *pool, const json_t *host)
{
    const char *uuid = xv_drawn_text(host, "uuid");
    for (size_t i = 0; i + 1 < pool->row_count; i++) {
        if (strcmp(xv_drawn_text(pool->rows[i].host, "uuid"), uuid) == 0)
            return &pool->rows[i];
    }
    return &pool->rows[pool->row_count - 1];
}

static int add_chip(struct xv_drawn_cell *cell, struct xv_drawn_chip chip, xvsa_error **error)
{
    if ((cell->count & (cell->count + 1)) == 0) {
        struct xv_drawn_chip *chips =
            realloc(cell->chips, (2 * cell->count + 1) * sizeof *cell->chips);
        if (chips == NULL)
            return xv_fail_memory(error);
        cell->chips = chips;
    }
    cell->chips[cell->count++] = chip;
    return 0;
}

static int add_workers(struct xv_drawn_pool *pool, xvsa_error **error)
{
    const json_t *proxies = json_object_get(pool->json, "proxies");
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < json_array_size(proxies); i++) {
        const json_t *proxy = json_array_get(proxies, i);
        const json_t *host = json_object_get(proxy, "host");
        struct xv_drawn_row *row = row_of(pool, host);
        bool lives = row->host != NULL;
        const json_t *reason = json_array_get(json_object_get(proxy, "reasons"), 0);
        struct xv_drawn_chip chip = {
            .name = xv_drawn_text(proxy, "proxy"),
            .state = lives ? "proxy" : "unreached",
            .title = lives ? NULL : xv_drawn_text(reason, "text"),
            .first = json_is_true(json_object_get(proxy, "coordinator")),
        };
        row->proxies += lives ? 1 : 0;
        rc = add_chip(&row->workers, chip, error);
    }
    return rc;
}

static int add_locals(struct xv_drawn_pool *pool, xvsa_error **error)
{
    const json_t *srs = json_object_get(pool->json, "srs");
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < json_array_size(srs); i++) {
        const json_t *sr = json_array_get(srs, i);
        bool used = json_integer_value(json_object_get(sr, "disks")) > 0;
        if (!is_shown(sr) || host_count_of(sr) > 1 || (host_count_of(sr) == 0 && !used))
            continue;
        struct xv_drawn_chip chip = {
            .name = xv_drawn_name(sr),
            .state = used ? xv_drawn_text(sr, "state") : "none",
        };
        rc = add_chip(&row_of(pool, json_array_get(json_object_get(sr, "hosts"), 0))->locals, chip,
                      error);
    }
    return rc;
}

/* Worst first. */
static int severity(const char *state)
{
    static const char *const states[] = {"unreached", "one-proxy", "one-host"};
    int i = 0;
    while (i < 3 && strcmp(states[i], state) != 0)
        i++;
    return i;
}

static int compare_chips(const void *left, const void *right)
{
    const struct xv_drawn_chip *a = left;
    const struct xv_drawn_chip *b = right;
    int order = severity(a->state) - severity(b->state);
    return order != 0 ? order : compare_names(a->name, b->name);
}

static int add_vms(struct xv_drawn_pool *pool, xvsa_error **error)
{
    const json_t *vms = json_object_get(pool->json, "vms");
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < json_array_size(vms); i++) {
        const json_t *vm = json_array_get(vms, i);
        struct xv_drawn_chip chip = {
            .name = xv_drawn_name(vm),
            .state = xv_drawn_text(vm, "state"),
        };
        rc = add_chip(&row_of(pool, json_object_get(vm, "host"))->vms, chip, error);
    }
    for (size_t i = 0; rc == 0 && i < pool->row_count; i++) {
        struct xv_drawn_cell *cell = &pool->rows[i].vms;
        size_t most = pool->rows[i].host == NULL     ? VMS_NOWHERE
                      : pool->row_count > MANY_HOSTS ? VMS_OF_MANY
                                                     : VMS_OF_HOST;
        if (cell->count > 1)
            qsort(cell->chips, cell->count, sizeof *cell->chips, compare_chips);
        if (cell->count <= most)
            continue;
        cell->chips[most - 1].more = cell->count - most + 1;
        cell->count = most;
    }
    return rc;
}

const char *xv_drawn_chip_text(const struct xv_drawn_chip *chip, char buffer[XV_DRAWN_MORE_SIZE])
{
    if (chip->more == 0)
        return chip->name;
    snprintf(buffer, XV_DRAWN_MORE_SIZE, "%zu more", chip->more);
    return buffer;
}

static int chip_width(const struct xv_drawn_chip *chip)
{
    char more[XV_DRAWN_MORE_SIZE];
    size_t columns = xv_text_columns(xv_drawn_chip_text(chip, more));
    return xv_drawn_text_width(columns < XV_DRAWN_NAME_MAX ? columns : XV_DRAWN_NAME_MAX,
                               CHIP_SIZE) +
           CHIP_PADDING;
}

/* Width that the widest row would like, between its widest chip and most. */
static int cell_width(const struct xv_drawn_pool *pool, size_t offset, int most)
{
    int widest = 0;
    for (size_t i = 0; i < pool->row_count; i++) {
        const struct xv_drawn_cell *cell = (const void *)((const char *)&pool->rows[i] + offset);
        int width = 0;
        for (size_t j = 0; j < cell->count; j++) {
            int chip = chip_width(&cell->chips[j]);
            width = width > 0 && width + CHIP_GAP + chip <= most ? width + CHIP_GAP + chip
                    : width > chip                               ? width
                                                                 : chip;
        }
        widest = width > widest ? width : widest;
    }
    return widest;
}

/* Breaks the chips of a cell into lines; returns how many. */
static int flow(struct xv_drawn_cell *cell, int x, int width)
{
    int lines = cell->count > 0 ? 1 : 0;
    int at = 0;
    for (size_t i = 0; i < cell->count; i++) {
        struct xv_drawn_chip *chip = &cell->chips[i];
        chip->width = chip_width(chip);
        if (at > 0 && at + chip->width > width) {
            at = 0;
            lines++;
        }
        chip->x = x + at;
        chip->y = (lines - 1) * LINE_HEIGHT;
        at += chip->width + CHIP_GAP;
    }
    return lines;
}

/* Moves the lines of a cell to the middle of its row. */
static void settle(struct xv_drawn_cell *cell, int lines, const struct xv_drawn_row *row)
{
    int top = row->y + (row->height - lines * LINE_HEIGHT + LINE_HEIGHT - XV_DRAWN_CHIP_HEIGHT) / 2;
    for (size_t i = 0; i < cell->count; i++)
        cell->chips[i].y += top;
}

static void place_rows(struct xv_drawn_pool *pool)
{
    int y = pool->header_y + pool->header_height + GROUP_GAP;
    for (size_t i = 0; i < pool->row_count; i++) {
        struct xv_drawn_row *row = &pool->rows[i];
        int vms = flow(&row->vms, pool->vms_x, pool->vms_width);
        int workers = flow(&row->workers, pool->workers_x, pool->workers_width);
        int locals = flow(&row->locals, pool->locals_x, pool->locals_width);
        int lines = vms > workers ? vms : workers;
        lines = lines > locals ? lines : locals;
        if (row->host == NULL && lines == 0) {
            pool->row_count = i; /* nothing runs nowhere */
            free(row->signature);
            break;
        }
        row->y = y + (row->begins_group ? GROUP_GAP : 0);
        row->height = lines * LINE_HEIGHT + 2 * ROW_PADDING;
        row->height = row->height > ROW_LEAST ? row->height : ROW_LEAST;
        settle(&row->vms, vms, row);
        settle(&row->workers, workers, row);
        settle(&row->locals, locals, row);
        y = row->y + row->height;
    }
    pool->footer_y = pool->row_count > MANY_HOSTS ? y : 0;
    pool->height = y + XV_DRAWN_MARGIN + (pool->footer_y > 0 ? pool->header_height : 0);
}

/* Height of the names of columns. */
static int header_height(const struct xv_drawn_pool *pool)
{
    size_t longest = 0;
    for (size_t i = 0; i < pool->column_count; i++) {
        size_t columns = xv_text_columns(xv_drawn_name(pool->columns[i]));
        longest = columns > longest ? columns : longest;
    }
    longest = longest > XV_DRAWN_NAME_MAX ? XV_DRAWN_NAME_MAX : longest;
    return pool->narrow ? xv_drawn_text_width(longest, CHIP_SIZE) + 24 : 40;
}

static void place_columns(struct xv_drawn_pool *pool)
{
    const int gap = 18;
    pool->narrow = pool->column_count > WIDE_COLUMNS;
    pool->column_width = pool->narrow ? NARROW_WIDTH : WIDE_WIDTH;
    pool->vms_width = cell_width(pool, offsetof(struct xv_drawn_row, vms), VMS_WIDTH);
    pool->workers_width = cell_width(pool, offsetof(struct xv_drawn_row, workers), WORKERS_WIDTH);
    pool->locals_width = cell_width(pool, offsetof(struct xv_drawn_row, locals), WORKERS_WIDTH);
    const int least = 96; /* room for the column's title */
    pool->vms_width = pool->vms_width > least ? pool->vms_width : least;
    pool->workers_width = pool->workers_width > least ? pool->workers_width : least;
    if (pool->locals_width > 0 && pool->locals_width < least)
        pool->locals_width = least;
    pool->vms_x = XV_DRAWN_MARGIN + XV_DRAWN_HOST_WIDTH + gap;
    pool->workers_x = pool->vms_x + pool->vms_width + gap;
    pool->locals_x = pool->workers_x + pool->workers_width + gap;
    pool->columns_x = pool->locals_x + (pool->locals_width > 0 ? pool->locals_width + gap : 0);
    pool->width = pool->columns_x + (int)pool->column_count * pool->column_width + XV_DRAWN_MARGIN;
    pool->header_y = XV_DRAWN_TITLE;
    pool->header_height = header_height(pool);
}

int xv_drawn_pool_make(const json_t *json, struct xv_drawn_pool *ret, xvsa_error **error)
{
    *ret = (struct xv_drawn_pool){.json = json};
    int rc = find_columns(ret, error);
    if (rc == 0)
        rc = find_rows(ret, error);
    if (rc == 0)
        order_columns(ret);
    if (rc == 0)
        rc = add_workers(ret, error);
    if (rc == 0)
        rc = add_locals(ret, error);
    if (rc == 0)
        rc = add_vms(ret, error);
    if (rc != 0) {
        xv_drawn_pool_free(ret);
        return rc;
    }
    place_columns(ret);
    place_rows(ret);
    return 0;
}

void xv_drawn_pool_free(struct xv_drawn_pool *pool)
{
    for (size_t i = 0; i < pool->row_count; i++) {
        free(pool->rows[i].signature);
        free(pool->rows[i].vms.chips);
        free(pool->rows[i].workers.chips);
        free(pool->rows[i].locals.chips);
    }
    free(pool->rows);
    free(pool->columns);
    *pool = (struct xv_drawn_pool){0};
}
