/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * How far a job is: a bar that is drawn over on a terminal, a plain line from time to time elsewhere.
 * It goes to the standard error, so that the standard output holds results alone.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli.h"

#define BAR_WIDTH       24
#define BAR_WIDTH_LEAST 4
#define RATE_SPAN_MS    5000 /* the rate shown is that of about the last 5 seconds */
#define PLAIN_PERIOD_MS 5000 /* between plain lines */

struct progress {
    const char *verb;
    bool quiet, terminal, drawn;
    int64_t last_line_ms;            /* elapsed time of the last plain line */
    int64_t span_begin_ms;           /* where the measurement of the rate begins */
    uint64_t span_begin_bytes, rate; /* bytes a second */
    xvsa_progress state;
};

struct progress *progress_new(const struct arguments *arguments, const char *verb)
{
    struct progress *progress = calloc(1, sizeof *progress);
    if (progress == NULL)
        return NULL;
    progress->verb = verb;
    progress->quiet = arguments->quiet;
    progress->terminal = isatty(STDERR_FILENO) == 1;
    return progress;
}

static void measure_rate(struct progress *progress, const xvsa_progress *state)
{
    int64_t span = state->elapsed_ms - progress->span_begin_ms;
    if (state->bytes_done < progress->span_begin_bytes)
        progress->span_begin_bytes = state->bytes_done;
    if (span < 500)
        return;
    progress->rate = (uint64_t)((double)(state->bytes_done - progress->span_begin_bytes) * 1000.0 /
                                (double)span);
    if (span > RATE_SPAN_MS) {
        progress->span_begin_ms = state->elapsed_ms;
        progress->span_begin_bytes = state->bytes_done;
    }
}

static int share_of(const xvsa_progress *state, int whole)
{
    if (state->bytes_total == 0)
        return 0;
    return (int)((double)state->bytes_done / (double)state->bytes_total * whole);
}

/* "2/3 VMs  1.2 GiB of 4.0 GiB  310.0 MiB/s  0:09 left" */
static void describe(const struct progress *progress, char *text, size_t size)
{
    const xvsa_progress *state = &progress->state;
    char done[TEXT_SIZE], total[TEXT_SIZE], rate[TEXT_SIZE], left[TEXT_SIZE];
    char vms[TEXT_SIZE] = "";
    if (state->vms_total > 0)
        snprintf(vms, sizeof vms, "%u/%u VMs  ", state->vms_done, state->vms_total);
    int length = snprintf(text, size, "%s%s of %s  %s/s", vms, size_text(state->bytes_done, done),
                          size_text(state->bytes_total, total), size_text(progress->rate, rate));
    if (state->remaining_ms >= 0 && length > 0 && (size_t)length < size)
        snprintf(text + length, size - (size_t)length, "  %s left",
                 duration_text(state->remaining_ms, left));
}

static int terminal_width(void)
{
    struct winsize window;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &window) != 0 || window.ws_col < 40)
        return 80;
    return window.ws_col;
}

static void draw_bar(struct progress *progress)
{
    char facts[160], bar[BAR_WIDTH + 3] = "";
    describe(progress, facts, sizeof facts);
    /* The facts come first: the bar takes what a line has left. */
    int room = terminal_width() - (int)(strlen(progress->verb) + strlen(facts)) - 12;
    int width = room < BAR_WIDTH ? room : BAR_WIDTH;
    if (width >= BAR_WIDTH_LEAST) {
        int filled = share_of(&progress->state, width);
        bar[0] = '[';
        memset(bar + 1, '.', (size_t)width);
        memset(bar + 1, '#', (size_t)(filled < width ? filled : width));
        bar[width + 1] = ']';
    }
    fprintf(stderr, "\r\033[K%s %s %3d %%  %s", progress->verb, bar,
            share_of(&progress->state, 100), facts);
    fflush(stderr);
    progress->drawn = true;
}

static void print_plain(struct progress *progress)
{
    char facts[160];
    describe(progress, facts, sizeof facts);
    fprintf(stderr, "%s: %3d %%  %s\n", progress->verb, share_of(&progress->state, 100), facts);
    progress->last_line_ms = progress->state.elapsed_ms;
}

void progress_update(struct progress *progress, const xvsa_progress *state)
{
    if (progress == NULL || progress->quiet)
        return;
    progress->state = *state;
    measure_rate(progress, state);
    if (progress->terminal)
        draw_bar(progress);
    else if (state->elapsed_ms - progress->last_line_ms >= PLAIN_PERIOD_MS)
        print_plain(progress);
}

void progress_line(struct progress *progress, const char *text)
{
    if (progress == NULL || progress->quiet)
        return;
    if (progress->drawn)
        fprintf(stderr, "\r\033[K");
    complain("%s", text);
    if (progress->drawn)
        draw_bar(progress);
}

void progress_end(struct progress *progress)
{
    if (progress == NULL)
        return;
    if (progress->drawn)
        fprintf(stderr, "\n");
    free(progress);
}
