/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk/file.h"

#define COMPONENT "disk"

/* Between two looks at the call: a slow device must not delay a cancellation by much more. */
#define PIECE ((size_t)4 << 20)

/* What offsets, lengths and buffers must be multiples of to go past the page cache. */
#define DIRECT_ALIGNMENT 4096u
#define IN_FLIGHT        4u
#define IN_FLIGHT_MOST   64u

static struct xv_file_disk *of(struct xv_disk *disk)
{
    return (struct xv_file_disk *)disk;
}

static bool is_aligned(uint64_t offset, const void *data, size_t length)
{
    return offset % DIRECT_ALIGNMENT == 0 && length % DIRECT_ALIGNMENT == 0 &&
           (uintptr_t)data % DIRECT_ALIGNMENT == 0;
}

/* One system call; what a device does not take directly goes through the page cache. */
static ssize_t move_piece(struct xv_file_disk *file, bool is_write, uint64_t offset, void *data,
                          size_t length)
{
    bool direct = atomic_load(&file->direct) && is_aligned(offset, data, length);
    int fd = direct ? file->direct_fd : file->fd;
    ssize_t moved =
        is_write ? pwrite(fd, data, length, (off_t)offset) : pread(fd, data, length, (off_t)offset);
    if (moved >= 0 || !direct || errno != EINVAL)
        return moved;
    atomic_store(&file->direct, false);
    return move_piece(file, is_write, offset, data, length);
}

int xv_file_move(struct xv_file_disk *file, bool is_write, uint64_t offset, void *data,
                 size_t length, const struct xv_call *call, xvsa_error **error)
{
    const char *verb = is_write ? "write" : "read";
    uint8_t *at = data;
    while (length > 0) {
        int rc =
            xv_call_check(call, COMPONENT, is_write ? "writing a file" : "reading a file", error);
        if (rc != 0)
            return rc;
        ssize_t got = move_piece(file, is_write, offset, at, length < PIECE ? length : PIECE);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return xv_fail_errno(error, errno, COMPONENT, "cannot %s %s at byte %llu", verb,
                                 file->label, (unsigned long long)offset);
        if (got == 0)
            return xv_fail(error, XVSA_ERR_IO, COMPONENT,
                           "%s ends at byte %llu: it became shorter meanwhile", file->label,
                           (unsigned long long)offset);
        at += got;
        offset += (uint64_t)got;
        length -= (size_t)got;
    }
    return 0;
}

static int file_read(struct xv_disk *disk, uint64_t offset, void *data, size_t length,
                     const struct xv_call *call, xvsa_error **error)
{
    return xv_file_move(of(disk), false, offset, data, length, call, error);
}

/* The place where lseek finds data or a hole, the disk's size when there is none, or -1 and errno.
 */
static int64_t seek(struct xv_file_disk *file, uint64_t from, int whence)
{
    off_t at = lseek(file->fd, (off_t)from, whence);
    if (at < 0)
        return errno == ENXIO ? (int64_t)file->disk.size : -1;
    return (uint64_t)at > file->disk.size ? (int64_t)file->disk.size : at;
}

static int file_allocated(struct xv_disk *disk, struct xv_extents *ret, const struct xv_call *call,
                          xvsa_error **error)
{
    struct xv_file_disk *file = of(disk);
    uint64_t at = 0;
    while (at < disk->size) {
        int rc = xv_call_check(call, COMPONENT, "looking for the data of a file", error);
        if (rc != 0)
            return rc;
        int64_t data = seek(file, at, SEEK_DATA);
        int64_t hole =
            data < 0 || (uint64_t)data == disk->size ? data : seek(file, (uint64_t)data, SEEK_HOLE);
        if (hole < 0 && errno == EINVAL)
            return xv_fail(error, XVSA_ERR_UNSUPPORTED, COMPONENT,
                           "%s does not tell which parts of it are allocated", file->label);
        if (hole < 0)
            return xv_fail_errno(error, errno, COMPONENT, "cannot look for the data of %s",
                                 file->label);
        rc = xv_extents_add(ret, (uint64_t)data, (uint64_t)(hole - data), error);
        if (rc != 0)
            return rc;
        at = (uint64_t)hole;
    }
    return 0;
}

static void file_close(struct xv_disk *disk)
{
    struct xv_file_disk *file = of(disk);
    if (file->fd >= 0)
        close(file->fd);
    if (file->direct_fd >= 0)
        close(file->direct_fd);
    free(file->label);
    free(file);
}

static const struct xv_disk_ops file_ops = {
    .transport = "file",
    .read = file_read,
    .allocated = file_allocated,
    .stream = xv_file_stream,
    .write = xv_file_write,
    .close = file_close,
};

static int check_size(struct xv_file_disk *file, uint64_t expected, xvsa_error **error)
{
    off_t size = lseek(file->fd, 0, SEEK_END);
    if (size < 0)
        return xv_fail_errno(error, errno, COMPONENT, "cannot tell the size of %s", file->label);
    file->disk.size = (uint64_t)size;
    if (expected == 0 || file->disk.size == expected)
        return 0;
    return xv_fail(error, XVSA_ERR_STATE, COMPONENT, "%s has %llu bytes instead of %llu",
                   file->label, (unsigned long long)size, (unsigned long long)expected);
}

static int open_file(struct xv_file_disk *file, const char *path,
                     const struct xv_file_options *options, xvsa_error **error)
{
    /* O_NONBLOCK: a FIFO that nobody writes to must not hang the open; it is refused below. */
    int flags = O_CLOEXEC | O_NOCTTY | O_NONBLOCK | (options->writable ? O_RDWR : O_RDONLY);
    /* For a block device without O_CREAT: fails while a file system or device mapper has it. */
    file->fd = open(path, options->exclusive ? flags | O_EXCL : flags);
    struct stat info;
    if (file->fd < 0 || fstat(file->fd, &info) != 0)
        return xv_fail_errno(error, errno, COMPONENT, "cannot open %s", file->label);
    if (!S_ISREG(info.st_mode) && !S_ISBLK(info.st_mode))
        return xv_fail(error, XVSA_ERR_INVALID, COMPONENT, "%s is neither file nor block device",
                       file->label);
    if (options->direct)
        file->direct_fd = open(path, flags | O_DIRECT);
    struct stat again;
    if (file->direct_fd >= 0 && (fstat(file->direct_fd, &again) != 0 ||
                                 again.st_dev != info.st_dev || again.st_ino != info.st_ino))
        return xv_fail(error, XVSA_ERR_CONFLICT, COMPONENT, "%s was replaced while it was opened",
                       file->label);
    atomic_init(&file->direct, file->direct_fd >= 0);
    return check_size(file, options->size, error);
}

int xv_file_disk_open(const char *path, const struct xv_file_options *options, struct xv_disk **ret,
                      xvsa_error **error)
{
    static const struct xv_file_options defaults = {0};
    if (path == NULL || *path == '\0')
        return xv_fail(error, XVSA_ERR_INVALID, COMPONENT, "the path of a disk is empty");
    if (options == NULL)
        options = &defaults;
    struct xv_file_disk *file = calloc(1, sizeof *file);
    if (file == NULL)
        return xv_fail_memory(error);
    uint32_t in_flight = options->in_flight == 0 ? IN_FLIGHT : options->in_flight;
    file->disk.ops = &file_ops;
    file->fd = -1;
    file->direct_fd = -1;
    file->writable = options->writable;
    file->in_flight = in_flight > IN_FLIGHT_MOST ? IN_FLIGHT_MOST : in_flight;
    int length = options->name == NULL ? asprintf(&file->label, "'%s'", path)
                                       : asprintf(&file->label, "'%s' (%s)", path, options->name);
    if (length < 0)
        file->label = NULL;
    int rc = length < 0 ? xv_fail_memory(error) : open_file(file, path, options, error);
    if (rc != 0) {
        file_close(&file->disk);
        return rc;
    }
    *ret = &file->disk;
    return 0;
}
