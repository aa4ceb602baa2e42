/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk/disk.h"

#define COMPONENT "disk"

/* Between two looks at the call: a slow device must not delay a cancellation by much more. */
#define PIECE ((size_t)4 << 20)

struct file_disk {
    struct xv_disk disk;
    int fd;
    char *path;
};

static struct file_disk *of(struct xv_disk *disk)
{
    return (struct file_disk *)disk;
}

static int file_read(struct xv_disk *disk, uint64_t offset, void *data, size_t length,
                     const struct xv_call *call, xvsa_error **error)
{
    struct file_disk *file = of(disk);
    uint8_t *to = data;
    while (length > 0) {
        int rc = xv_call_check(call, COMPONENT, "reading a file", error);
        if (rc != 0)
            return rc;
        ssize_t got = pread(file->fd, to, length < PIECE ? length : PIECE, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return xv_fail_errno(error, errno, COMPONENT, "cannot read '%s' at byte %llu",
                                 file->path, (unsigned long long)offset);
        if (got == 0)
            return xv_fail(error, XVSA_ERR_IO, COMPONENT,
                           "'%s' ends at byte %llu: it became shorter while it was read",
                           file->path, (unsigned long long)offset);
        to += got;
        offset += (uint64_t)got;
        length -= (size_t)got;
    }
    return 0;
}

/* The place where lseek finds data or a hole, the disk's size when there is none, or -1 and errno.
 */
static int64_t seek(struct file_disk *file, uint64_t from, int whence)
{
    off_t at = lseek(file->fd, (off_t)from, whence);
    if (at < 0)
        return errno == ENXIO ? (int64_t)file->disk.size : -1;
    return (uint64_t)at > file->disk.size ? (int64_t)file->disk.size : at;
}

static int file_allocated(struct xv_disk *disk, struct xv_extents *ret, const struct xv_call *call,
                          xvsa_error **error)
{
    struct file_disk *file = of(disk);
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
                           "'%s' does not tell which parts of it are allocated", file->path);
        if (hole < 0)
            return xv_fail_errno(error, errno, COMPONENT, "cannot look for the data of '%s'",
                                 file->path);
        rc = xv_extents_add(ret, (uint64_t)data, (uint64_t)(hole - data), error);
        if (rc != 0)
            return rc;
        at = (uint64_t)hole;
    }
    return 0;
}

static void file_close(struct xv_disk *disk)
{
    struct file_disk *file = of(disk);
    if (file->fd >= 0)
        close(file->fd);
    free(file->path);
    free(file);
}

static const struct xv_disk_ops file_ops = {
    .transport = "file",
    .read = file_read,
    .allocated = file_allocated,
    .close = file_close,
};

static int open_file(struct file_disk *file, xvsa_error **error)
{
    /* O_NONBLOCK: a FIFO that nobody writes to must not hang the open; it is refused below. */
    file->fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    struct stat info;
    if (file->fd < 0 || fstat(file->fd, &info) != 0)
        return xv_fail_errno(error, errno, COMPONENT, "cannot open '%s'", file->path);
    if (!S_ISREG(info.st_mode) && !S_ISBLK(info.st_mode))
        return xv_fail(error, XVSA_ERR_INVALID, COMPONENT, "'%s' is neither file nor block device",
                       file->path);
    off_t size = lseek(file->fd, 0, SEEK_END);
    if (size < 0)
        return xv_fail_errno(error, errno, COMPONENT, "cannot tell the size of '%s'", file->path);
    file->disk.size = (uint64_t)size;
    return 0;
}

int xv_file_disk_open(const char *path, struct xv_disk **ret, xvsa_error **error)
{
    if (path == NULL || *path == '\0')
        return xv_fail(error, XVSA_ERR_INVALID, COMPONENT, "the path of a disk is empty");
    struct file_disk *file = calloc(1, sizeof *file);
    if (file == NULL)
        return xv_fail_memory(error);
    file->disk.ops = &file_ops;
    file->fd = -1;
    file->path = strdup(path);
    int rc = file->path == NULL ? xv_fail_memory(error) : open_file(file, error);
    if (rc != 0) {
        file_close(&file->disk);
        return rc;
    }
    *ret = &file->disk;
    return 0;
}
