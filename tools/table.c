/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Rows with aligned columns. A table that ran out of memory prints nothing but says so.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

#define COLUMNS_MAX 16

struct table {
    const char *const *titles;
    size_t columns;
    char **cells; /* row after row */
    size_t rows;
    bool broken;
};

struct table *table_new(const char *const *titles, size_t columns)
{
    struct table *table = calloc(1, sizeof *table);
    if (table != NULL)
        *table = (struct table){.titles = titles, .columns = columns};
    return table;
}

/* A copy without control characters, which names from a pool may hold. */
static char *clean_copy(const char *text)
{
    char *copy = strdup(text != NULL ? text : "");
    for (char *p = copy; p != NULL && *p != '\0'; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
    }
    return copy;
}

void table_add(struct table *table, const char *const *cells)
{
    if (table == NULL || table->broken)
        return;
    char **grown = realloc(table->cells, (table->rows + 1) * table->columns * sizeof *table->cells);
    table->broken = grown == NULL;
    if (table->broken)
        return;
    table->cells = grown;
    for (size_t i = 0; i < table->columns; i++) {
        grown[table->rows * table->columns + i] = clean_copy(cells[i]);
        table->broken = table->broken || grown[table->rows * table->columns + i] == NULL;
    }
    table->rows++;
}

/* Characters of UTF-8 text; close enough to columns for names. */
static int width_of(const char *text)
{
    int width = 0;
    for (; *text != '\0'; text++)
        width += ((unsigned char)*text & 0xc0) != 0x80;
    return width;
}

static void print_cell(const char *text, int width, bool right, bool last)
{
    int pad = width - width_of(text);
    if (right)
        printf("%*s%s", pad, "", text);
    else
        printf("%s%*s", text, last ? 0 : pad, "");
    printf("%s", last ? "\n" : "  ");
}

static void print_rows(const struct table *table)
{
    int widths[COLUMNS_MAX] = {0};
    for (size_t i = 0; i < table->columns; i++) {
        widths[i] = width_of(table->titles[i]) - (table->titles[i][0] == '>');
        for (size_t row = 0; row < table->rows; row++) {
            int width = width_of(table->cells[row * table->columns + i]);
            widths[i] = width > widths[i] ? width : widths[i];
        }
    }
    for (size_t i = 0; i < table->columns; i++) {
        bool right = table->titles[i][0] == '>';
        print_cell(table->titles[i] + right, widths[i], right, i + 1 == table->columns);
    }
    for (size_t row = 0; row < table->rows; row++) {
        for (size_t i = 0; i < table->columns; i++)
            print_cell(table->cells[row * table->columns + i], widths[i],
                       table->titles[i][0] == '>', i + 1 == table->columns);
    }
}

void table_print(struct table *table)
{
    if (table == NULL || table->broken || table->columns > COLUMNS_MAX)
        complain("a table cannot be printed: out of memory");
    else if (table->rows > 0)
        print_rows(table);
    if (table == NULL)
        return;
    for (size_t i = 0; i < table->rows * table->columns; i++)
        free(table->cells[i]);
    free(table->cells);
    free(table);
}
