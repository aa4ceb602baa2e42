/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * xvsa disk read: a disk of a restore point as a sparse file or a stream.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"

#define PIECE_SIZE      (4u * 1024 * 1024)
#define EXTENTS_AT_ONCE 256

/* A copy of a range of a disk. */
struct copy {
    struct session *session;
    xvsa_disk *disk;
    const char *output; /* for messages */
    int file;
    bool sparse; /* what reads as zeros is left out of the file */
    uint64_t begin, end;
    unsigned char *piece;
    struct progress *progress;
    int64_t started_ms;
};

static int64_t clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void show(struct copy *copy, uint64_t position)
{
    xvsa_progress state = XVSA_PROGRESS_INIT;
    state.bytes_done = position - copy->begin;
    state.bytes_total = copy->end - copy->begin;
    state.elapsed_ms = clock_ms() - copy->started_ms;
    state.remaining_ms = -1;
    if (state.bytes_done > 0 && state.elapsed_ms > 1000)
        state.remaining_ms = (int64_t)((double)state.elapsed_ms / (double)state.bytes_done *
                                       (double)(state.bytes_total - state.bytes_done));
    progress_update(copy->progress, &state);
}

static int write_all(const struct copy *copy, size_t length)
{
    size_t written = 0;
    while (written < length) {
        ssize_t put = write(copy->file, copy->piece + written, length - written);
        if (put < 0 && errno == EINTR && stop_level() == 0)
            continue;
        if (put < 0 && errno == EINTR)
            return EXIT_CANCELLED;
        if (put < 0) {
            complain("%s cannot be written: %s", copy->output, strerror(errno));
            return EXIT_FAILED;
        }
        written += (size_t)put;
    }
    return EXIT_OK;
}

/* Copies a run of the disk; zeros are read nowhere. */
static int copy_run(struct copy *copy, uint64_t offset, uint64_t length, bool is_data)
{
    if (!is_data && copy->sparse) {
        if (lseek(copy->file, (off_t)length, SEEK_CUR) < 0) {
            complain("%s: %s", copy->output, strerror(errno));
            return EXIT_FAILED;
        }
        show(copy, offset + length);
        return stop_level() > 0 ? EXIT_CANCELLED : EXIT_OK;
    }
    if (!is_data)
        memset(copy->piece, 0, PIECE_SIZE);
    for (uint64_t done = 0; done < length;) {
        size_t size = length - done < PIECE_SIZE ? (size_t)(length - done) : PIECE_SIZE;
        xvsa_error *error = NULL;
        if (is_data && xvsa_disk_read(copy->disk, offset + done, copy->piece, size,
                                      &copy->session->call, &error) != XVSA_OK)
            return fail(error, "the disk cannot be read");
        int code = stop_level() > 0 ? EXIT_CANCELLED : write_all(copy, size);
        if (code != EXIT_OK)
            return code;
        done += size;
        show(copy, offset + done);
    }
    return EXIT_OK;
}

static int copy_range(struct copy *copy)
{
    xvsa_extent extents[EXTENTS_AT_ONCE];
    int code = EXIT_OK;
    for (uint64_t offset = copy->begin; offset < copy->end && code == EXIT_OK;) {
        uint32_t count = 0;
        xvsa_error *error = NULL;
        if (xvsa_disk_extents(copy->disk, offset, copy->end - offset, extents, EXTENTS_AT_ONCE,
                              &count, &copy->session->call, &error) != XVSA_OK)
            return fail(error, "the disk's extents cannot be read");
        for (uint32_t i = 0; i < count && code == EXIT_OK; i++) {
            code = copy_run(copy, extents[i].offset, extents[i].length,
                            extents[i].kind == XVSA_EXTENT_DATA);
            offset = extents[i].offset + extents[i].length;
        }
    }
    return code;
}

static int open_output(struct copy *copy)
{
    const struct arguments *arguments = copy->session->arguments;
    if (arguments->output == NULL || strcmp(arguments->output, "-") == 0) {
        copy->output = "the standard output";
        copy->file = STDOUT_FILENO;
        if (isatty(copy->file) == 1)
            return usage_error("a disk is not written to a terminal; give --output FILE");
        return EXIT_OK;
    }
    copy->output = arguments->output;
    struct stat info;
    bool exists = stat(copy->output, &info) == 0;
    if (exists && S_ISREG(info.st_mode) && !arguments->force)
        return usage_error("%s exists; give --force to replace it", copy->output);
    copy->file = open(copy->output, O_WRONLY | O_CREAT | O_CLOEXEC | O_TRUNC, 0600);
    if (copy->file < 0 || fstat(copy->file, &info) != 0) {
        complain("%s cannot be opened: %s", copy->output, strerror(errno));
        return EXIT_FAILED;
    }
    copy->sparse = S_ISREG(info.st_mode);
    return EXIT_OK;
}

/* Gives a sparse file its length and makes it durable. */
static int finish_file(struct copy *copy)
{
    if (copy->sparse &&
        (ftruncate(copy->file, (off_t)(copy->end - copy->begin)) != 0 || fsync(copy->file) != 0)) {
        complain("%s cannot be finished: %s", copy->output, strerror(errno));
        return EXIT_FAILED;
    }
    return EXIT_OK;
}

static int choose_range(struct copy *copy)
{
    const struct arguments *arguments = copy->session->arguments;
    uint64_t size = xvsa_disk_size(copy->disk);
    if (arguments->offset < 0 || (uint64_t)arguments->offset > size)
        return usage_error("--offset: the disk has %llu bytes", (unsigned long long)size);
    copy->begin = (uint64_t)arguments->offset;
    copy->end = size;
    if (arguments->length >= 0) {
        if ((uint64_t)arguments->length > size - copy->begin)
            return usage_error("--length: the disk has %llu bytes", (unsigned long long)size);
        copy->end = copy->begin + (uint64_t)arguments->length;
    }
    return EXIT_OK;
}

static int copy_disk(struct session *session, xvsa_disk *disk)
{
    struct copy copy = {.session = session, .disk = disk, .file = -1};
    int code = choose_range(&copy);
    if (code == EXIT_OK)
        code = open_output(&copy);
    copy.piece = malloc(PIECE_SIZE);
    if (code == EXIT_OK && copy.piece == NULL) {
        complain("out of memory");
        code = EXIT_FAILED;
    }
    if (code == EXIT_OK) {
        copy.started_ms = clock_ms();
        copy.progress = progress_new(session->arguments, "reading");
        code = copy_range(&copy);
        progress_end(copy.progress);
    }
    if (code == EXIT_OK)
        code = finish_file(&copy);
    if (code == EXIT_CANCELLED)
        complain("cancelled; %s is not complete", copy.output);
    free(copy.piece);
    if (copy.file >= 0 && copy.file != STDOUT_FILENO && close(copy.file) != 0 && code == EXIT_OK) {
        complain("%s cannot be written: %s", copy.output, strerror(errno));
        code = EXIT_FAILED;
    }
    return code;
}

static int report_copy(const struct arguments *arguments, const xvsa_point *point,
                       const xvsa_disk *disk)
{
    if (!arguments->json || arguments->output == NULL || strcmp(arguments->output, "-") == 0)
        return EXIT_OK;
    json_t *document = json_pack("{s:s, s:s, s:I, s:s}", "point", xvsa_point_id(point), "disk",
                                 arguments->operands[1], "size", (json_int_t)xvsa_disk_size(disk),
                                 "output", arguments->output);
    char *text = json_dumps(document, JSON_INDENT(2));
    printf("%s\n", text != NULL ? text : "null");
    free(text);
    json_decref(document);
    return EXIT_OK;
}

int command_disk_read(const struct arguments *arguments)
{
    struct session session;
    xvsa_point *point = NULL;
    xvsa_disk *disk = NULL;
    xvsa_error *error = NULL;
    int code = session_open(&session, arguments);
    session.only_reads = true;
    if (code == EXIT_OK)
        code = session_open_repo(&session);
    if (code == EXIT_OK && xvsa_repo_find_point(session.repo, arguments->operands[0], &session.call,
                                                &point, &error) != XVSA_OK)
        code = fail(error, "cannot open the restore point");
    if (code == EXIT_OK && xvsa_point_open_disk(point, arguments->operands[1], &session.call, &disk,
                                                &error) != XVSA_OK)
        code = fail(error, "cannot open the disk");
    if (code == EXIT_OK)
        code = copy_disk(&session, disk);
    if (code == EXIT_OK)
        code = report_copy(arguments, point, disk);
    xvsa_disk_unref(disk);
    xvsa_point_unref(point);
    session_close(&session);
    return code;
}
