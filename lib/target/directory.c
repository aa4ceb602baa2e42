/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The target "file": objects are files below a folder. Names hold neither dots nor empty parts, so no
 * name leads out of it.
 */
#include "target/directory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* The path of a file URL with %XX decoded; NULL without memory, "" when it is not one. */
static char *path_of_url(const char *url)
{
    static const char scheme[] = "file:";
    const char *from = url + sizeof scheme - 1;
    if (strncmp(from, "//", 2) == 0)
        from += 2;
    char *path = calloc(1, strlen(from) + 1);
    if (path == NULL)
        return NULL;
    size_t length = 0;
    for (; *from != '\0'; from++) {
        unsigned char byte = (unsigned char)*from;
        char digits[3] = "";
        if (byte == '%') {
            digits[0] = from[1];
            digits[1] = from[1] == '\0' ? '\0' : from[2];
            if (xv_hex_decode(digits, &byte, 1) != 0 || byte == 0) {
                path[0] = '\0';
                return path;
            }
            from += 2;
        }
        path[length++] = (char)byte;
    }
    path[length] = '\0';
    if (path[0] != '/')
        path[0] = '\0';
    return path;
}

/* Makes the folder and those above it, and makes their entries durable. */
static int make_path(const char *path, xvsa_error **error)
{
    char *copy = strdup(path);
    if (copy == NULL)
        return xv_fail_memory(error);
    int rc = 0;
    for (char *at = copy + 1; rc == 0 && at != NULL;) {
        at = strchr(at, '/');
        if (at != NULL)
            *at = '\0';
        if (mkdir(copy, 0700) != 0 && errno != EEXIST)
            rc = xv_fail_errno(error, errno, "target", "cannot make the folder '%s'", copy);
        if (at != NULL)
            *at++ = '/';
    }
    free(copy);
    return rc;
}

static int sync_parent(const char *path, xvsa_error **error)
{
    char *copy = strdup(path);
    if (copy == NULL)
        return xv_fail_memory(error);
    char *slash = strrchr(copy, '/');
    if (slash != NULL)
        slash[slash == copy ? 1 : 0] = '\0';
    int rc = 0;
    int fd = open(copy, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    /* A parent that may not be opened was not made here. */
    if (fd >= 0) {
        if (fsync(fd) != 0)
            rc = xv_fail_errno(error, errno, "target", "cannot make the folder '%s' durable", copy);
        close(fd);
    }
    free(copy);
    return rc;
}

static int open_root(struct xv_directory *directory, uint32_t flags, xvsa_error **error)
{
    int rc = 0;
    if ((flags & XVSA_TARGET_CREATE) != 0) {
        rc = make_path(directory->path, error);
        if (rc == 0)
            rc = sync_parent(directory->path, error);
    }
    if (rc != 0)
        return rc;
    directory->root = open(directory->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory->root < 0)
        return xv_fail_errno(error, errno, "target", "cannot open the folder '%s'",
                             directory->path);
    xv_directory_clean(directory);
    return 0;
}

static void close_directory(void *instance)
{
    struct xv_directory *directory = instance;
    if (directory->root >= 0)
        close(directory->root);
    xv_folder_set_free(&directory->known);
    xv_folder_set_free(&directory->dirty);
    pthread_mutex_destroy(&directory->lock);
    pthread_mutex_destroy(&directory->barrier);
    free(directory->path);
    free(directory);
}

static int32_t open_directory(void *user, const xvsa_target_request *request, void **ret_instance,
                              xvsa_error **error)
{
    (void)user;
    if (request->options != NULL && strcmp(request->options, "{}") != 0)
        return xv_fail(error, XVSA_ERR_INVALID, "target", "a file target takes no options");
    struct xv_directory *directory = calloc(1, sizeof *directory);
    if (directory == NULL)
        return xv_fail_memory(error);
    directory->root = -1;
    pthread_mutex_init(&directory->lock, NULL);
    pthread_mutex_init(&directory->barrier, NULL);
    directory->path = path_of_url(request->url);
    int rc;
    if (directory->path == NULL)
        rc = xv_fail_memory(error);
    else if (directory->path[0] == '\0')
        rc = xv_fail(error, XVSA_ERR_INVALID, "target",
                     "'%s' does not name an absolute path; write file:///srv/backup", request->url);
    else
        rc = open_root(directory, request->flags, error);
    if (rc != 0) {
        close_directory(directory);
        return rc;
    }
    *ret_instance = directory;
    return 0;
}

static int open_object(struct xv_directory *directory, const char *name, int *ret,
                       xvsa_error **error)
{
    int fd = openat(directory->root, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct stat info;
    if (fd >= 0 && fstat(fd, &info) == 0 && !S_ISREG(info.st_mode)) {
        close(fd);
        fd = -1;
        errno = ENOENT;
    }
    if (fd < 0 && errno == ENOTDIR)
        errno = ENOENT;
    if (fd < 0)
        return xv_fail_errno(error, errno, "target", "cannot open '%s/%s'", directory->path, name);
    *ret = fd;
    return 0;
}

static int32_t get(void *instance, const xvsa_target_call *call, const char *name, uint64_t offset,
                   void *buffer, uint64_t length, uint64_t *ret_length, xvsa_error **error)
{
    (void)call;
    struct xv_directory *directory = instance;
    int fd = -1;
    int rc = open_object(directory, name, &fd, error);
    if (rc != 0)
        return rc;
    uint64_t done = 0;
    while (done < length) {
        ssize_t got =
            pread(fd, (char *)buffer + done, (size_t)(length - done), (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            rc =
                xv_fail_errno(error, errno, "target", "cannot read '%s/%s'", directory->path, name);
            break;
        }
        if (got == 0)
            break;
        done += (uint64_t)got;
    }
    close(fd);
    if (rc == 0)
        *ret_length = done;
    return rc;
}

static int32_t look(void *instance, const xvsa_target_call *call, const char *name,
                    xvsa_object_info *info, xvsa_error **error)
{
    (void)call;
    struct xv_directory *directory = instance;
    struct stat facts;
    int failed = fstatat(directory->root, name, &facts, AT_SYMLINK_NOFOLLOW) != 0 ? errno : 0;
    if (failed == 0 && !S_ISREG(facts.st_mode))
        failed = ENOENT;
    if (failed == ENOTDIR)
        failed = ENOENT;
    if (failed != 0)
        return xv_fail_errno(error, failed, "target", "cannot look at '%s/%s'", directory->path,
                             name);
    info->length = (uint64_t)facts.st_size;
    info->modified_ms = (int64_t)facts.st_mtim.tv_sec * 1000 + facts.st_mtim.tv_nsec / 1000000;
    return 0;
}

static int32_t remove_object(void *instance, const xvsa_target_call *call, const char *name,
                             xvsa_error **error)
{
    (void)call;
    struct xv_directory *directory = instance;
    if (unlinkat(directory->root, name, 0) == 0 || errno == ENOENT || errno == ENOTDIR)
        return 0;
    return xv_fail_errno(error, errno, "target", "cannot remove '%s/%s'", directory->path, name);
}

static int32_t space(void *instance, const xvsa_target_call *call, uint64_t *ret_total,
                     uint64_t *ret_free, xvsa_error **error)
{
    (void)call;
    struct xv_directory *directory = instance;
    struct statvfs facts;
    if (fstatvfs(directory->root, &facts) != 0)
        return xv_fail_errno(error, errno, "target", "cannot measure '%s'", directory->path);
    *ret_total = (uint64_t)facts.f_blocks * facts.f_frsize;
    *ret_free = (uint64_t)facts.f_bavail * facts.f_frsize;
    return 0;
}

const xvsa_target_ops xv_directory_ops = {
    .size = sizeof(xvsa_target_ops),
    .open = open_directory,
    .close = close_directory,
    .put = xv_directory_put,
    .get = get,
    .stat = look,
    .list = xv_directory_list,
    .remove = remove_object,
    .barrier = xv_directory_barrier,
    .space = space,
};
