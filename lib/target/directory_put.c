/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Writing files: a file gets its name only when its content is durable, and the name itself is durable
 * after the next barrier. A failed fdatasync condemns the unnamed file: the next try writes another.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "target/directory.h"

#define TEMP_NAME_BYTES (sizeof XV_TEMP_PREFIX + 32)
#define FOLDER_MAX      128
#define WRITE_MAX       (8u << 20)
#define DIRECT_MIN      (1u << 20)
#define DIRECT_ALIGN    4096u

bool xv_folder_set_has(const struct xv_folder_set *set, const char *name, size_t length)
{
    for (size_t i = 0; i < set->count; i++) {
        if (strncmp(set->names[i], name, length) == 0 && set->names[i][length] == '\0')
            return true;
    }
    return false;
}

bool xv_folder_set_add(struct xv_folder_set *set, const char *name, size_t length)
{
    if (xv_folder_set_has(set, name, length))
        return true;
    if (set->count == set->capacity) {
        size_t capacity = set->capacity == 0 ? 16 : set->capacity * 2;
        char **names = realloc(set->names, capacity * sizeof *names);
        if (names == NULL)
            return false;
        set->names = names;
        set->capacity = capacity;
    }
    char *copy = strndup(name, length);
    if (copy == NULL)
        return false;
    set->names[set->count++] = copy;
    return true;
}

void xv_folder_set_free(struct xv_folder_set *set)
{
    for (size_t i = 0; i < set->count; i++)
        free(set->names[i]);
    free(set->names);
    *set = (struct xv_folder_set){0};
}

static size_t folder_length(const char *name, size_t length)
{
    while (length > 0 && name[length] != '/')
        length--;
    return length;
}

static bool is_known(struct xv_directory *directory, const char *name, size_t length)
{
    pthread_mutex_lock(&directory->lock);
    bool known = xv_folder_set_has(&directory->known, name, length);
    pthread_mutex_unlock(&directory->lock);
    return known;
}

/* Makes the folder (the first length bytes of name) and those above it. Whoever made them, their
 * entries become durable with our next barrier: the maker may not have had one yet. */
static int ensure_folder(struct xv_directory *directory, const char *name, size_t length,
                         xvsa_error **error)
{
    if (length == 0 || is_known(directory, name, length))
        return 0;
    size_t parent = folder_length(name, length - 1);
    int rc = ensure_folder(directory, name, parent, error);
    if (rc != 0)
        return rc;
    char folder[FOLDER_MAX];
    snprintf(folder, sizeof folder, "%.*s", (int)length, name);
    if (mkdirat(directory->root, folder, 0700) != 0 && errno != EEXIST)
        return xv_fail_errno(error, errno, "target", "cannot make the folder '%s/%s'",
                             directory->path, folder);
    pthread_mutex_lock(&directory->lock);
    bool added = xv_folder_set_add(&directory->dirty, name, parent) &&
                 xv_folder_set_add(&directory->known, name, length);
    pthread_mutex_unlock(&directory->lock);
    return added ? 0 : xv_fail_memory(error);
}

static int open_folder(struct xv_directory *directory, const char *folder, xvsa_error **error)
{
    int fd = openat(directory->root, folder[0] == '\0' ? "." : folder,
                    O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return xv_fail_errno(error, errno, "target", "cannot open the folder '%s/%s'",
                             directory->path, folder);
    return fd;
}

/* A file under construction. temp is empty when it has no name at all. */
struct file {
    int folder;
    int fd;
    char temp[TEMP_NAME_BYTES + 1];
};

static int make_temp_name(char *name, xvsa_error **error)
{
    uint8_t dice[16];
    int rc = xv_random(dice, sizeof dice, error);
    if (rc == 0) {
        memcpy(name, XV_TEMP_PREFIX, sizeof XV_TEMP_PREFIX - 1);
        xv_hex_encode(dice, sizeof dice, name + sizeof XV_TEMP_PREFIX - 1);
    }
    return rc;
}

/* With a name from the beginning, for file systems without O_TMPFILE. The lock tells whoever cleans up
 * that the file is in use. */
static int open_named(struct xv_directory *directory, struct file *file, xvsa_error **error)
{
    int rc = make_temp_name(file->temp, error);
    if (rc != 0)
        return rc;
    file->fd = openat(file->folder, file->temp,
                      O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (file->fd < 0) {
        int saved = errno;
        file->temp[0] = '\0';
        return xv_fail_errno(error, saved, "target", "cannot make a file in '%s'", directory->path);
    }
    /* Without locks on this file system a cleaner cannot take it either. */
    (void)flock(file->fd, LOCK_EX | LOCK_NB);
    return 0;
}

static int open_unnamed(struct xv_directory *directory, struct file *file, xvsa_error **error)
{
    if (!directory->no_tmpfile) {
        file->fd = openat(file->folder, ".", O_WRONLY | O_TMPFILE | O_CLOEXEC, 0600);
        if (file->fd >= 0)
            return 0;
        if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL && errno != ENOENT)
            return xv_fail_errno(error, errno, "target", "cannot make a file in '%s'",
                                 directory->path);
    }
    return open_named(directory, file, error);
}

static int write_all(int fd, const void *data, uint64_t length)
{
    const char *at = data;
    while (length > 0) {
        ssize_t written = write(fd, at, length > WRITE_MAX ? WRITE_MAX : (size_t)length);
        if (written < 0 && errno != EINTR)
            return errno;
        if (written > 0) {
            at += written;
            length -= (uint64_t)written;
        }
    }
    return 0;
}

/* Writes the front of a large piece past the page cache: it would be copied there only to be flushed at
 * once. Returns how much was done; the caller writes the rest, or all of it where this is not possible. */
static uint64_t write_direct(struct xv_directory *directory, int fd, const void *data,
                             uint64_t length)
{
    uint64_t whole = length / DIRECT_ALIGN * DIRECT_ALIGN;
    uint64_t done = 0;
    int flags = fcntl(fd, F_GETFL);
    if (length < DIRECT_MIN || (uintptr_t)data % DIRECT_ALIGN != 0 || flags < 0 ||
        atomic_load(&directory->no_direct))
        return 0;
    bool direct = fcntl(fd, F_SETFL, flags | O_DIRECT) == 0;
    while (direct && done < whole) {
        uint64_t piece = whole - done < WRITE_MAX ? whole - done : WRITE_MAX;
        ssize_t written = write(fd, (const char *)data + done, (size_t)piece);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0 && errno == EINVAL)
            direct = false;
        /* Other errors come again, and are told, when the rest is written. */
        if (written < 0)
            break;
        done += (uint64_t)written;
    }
    if (!direct)
        atomic_store(&directory->no_direct, true);
    (void)fcntl(fd, F_SETFL, flags);
    return done;
}

static int fill(struct xv_directory *directory, struct file *file, const char *name,
                const xvsa_target_call *call, const xvsa_buffer *pieces, uint32_t count,
                xvsa_error **error)
{
    for (uint32_t i = 0; i < count; i++) {
        if (xvsa_cancel_is_fired(call->cancel))
            return xv_fail(error, XVSA_ERR_CANCELLED, "target", "cancelled while writing '%s'",
                           name);
        uint64_t done =
            i == 0 ? write_direct(directory, file->fd, pieces[i].data, pieces[i].length) : 0;
        int failed =
            write_all(file->fd, (const char *)pieces[i].data + done, pieces[i].length - done);
        if (failed != 0)
            return xv_fail_errno(error, failed, "target", "cannot write '%s/%s'", directory->path,
                                 name);
    }
    if (fdatasync(file->fd) != 0)
        return xv_fail_errno(error, errno, "target", "cannot make '%s/%s' durable", directory->path,
                             name);
    return 0;
}

/* Gives the file a further name; EEXIST when it is taken. Returns errno or 0. */
static int link_file(struct file *file, const char *leaf)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", file->fd);
    int rc = file->temp[0] == '\0' ? linkat(AT_FDCWD, path, file->folder, leaf, AT_SYMLINK_FOLLOW)
                                   : linkat(file->folder, file->temp, file->folder, leaf, 0);
    if (rc == 0)
        return 0;
    int failed = errno;
    /* NFS may report EEXIST for a link of ours whose first answer was lost. */
    struct stat ours, there;
    if (failed == EEXIST && file->temp[0] != '\0' && fstat(file->fd, &ours) == 0 &&
        fstatat(file->folder, leaf, &there, AT_SYMLINK_NOFOLLOW) == 0 &&
        ours.st_ino == there.st_ino && ours.st_dev == there.st_dev)
        return 0;
    return failed;
}

/* Puts the file in the place of one that has the name. */
static int replace(struct file *file, const char *leaf)
{
    if (file->temp[0] == '\0') {
        char temp[TEMP_NAME_BYTES + 1] = "";
        if (make_temp_name(temp, NULL) != 0)
            return EIO;
        int failed = link_file(file, temp);
        if (failed != 0)
            return failed;
        memcpy(file->temp, temp, sizeof temp);
    }
    if (renameat(file->folder, file->temp, file->folder, leaf) != 0)
        return errno;
    file->temp[0] = '\0';
    return 0;
}

static int name_file(struct xv_directory *directory, struct file *file, const char *name,
                     uint32_t flags, xvsa_error **error)
{
    const char *slash = strrchr(name, '/');
    const char *leaf = slash == NULL ? name : slash + 1;
    int failed = link_file(file, leaf);
    if (failed == EEXIST && (flags & XVSA_PUT_IF_ABSENT) == 0)
        failed = replace(file, leaf);
    if (failed != 0)
        return xv_fail_errno(error, failed, "target", "cannot name '%s/%s'", directory->path, name);
    return 0;
}

static void drop(struct file *file)
{
    if (file->temp[0] != '\0')
        (void)unlinkat(file->folder, file->temp, 0);
    if (file->fd >= 0)
        close(file->fd);
    close(file->folder);
}

int32_t xv_directory_put(void *instance, const xvsa_target_call *call, const char *name,
                         const xvsa_buffer *pieces, uint32_t count, uint32_t flags,
                         xvsa_error **error)
{
    struct xv_directory *directory = instance;
    size_t length = folder_length(name, strlen(name));
    char folder[FOLDER_MAX];
    snprintf(folder, sizeof folder, "%.*s", (int)length, name);
    int rc = ensure_folder(directory, name, length, error);
    if (rc != 0)
        return rc;
    struct file file = {.fd = -1, .folder = open_folder(directory, folder, error)};
    if (file.folder < 0)
        return file.folder;
    rc = open_unnamed(directory, &file, error);
    if (rc == 0)
        rc = fill(directory, &file, name, call, pieces, count, error);
    if (rc == 0) {
        /* Marked before it has its name: a barrier in between costs nothing, one too few would. */
        pthread_mutex_lock(&directory->lock);
        bool marked = xv_folder_set_add(&directory->dirty, folder, length);
        pthread_mutex_unlock(&directory->lock);
        rc = marked ? name_file(directory, &file, name, flags, error) : xv_fail_memory(error);
    }
    drop(&file);
    return rc;
}

static int sync_folder(struct xv_directory *directory, const char *folder, xvsa_error **error)
{
    int fd = open_folder(directory, folder, error);
    if (fd < 0)
        return fd;
    int rc = 0;
    if (fsync(fd) != 0)
        rc = xv_fail_errno(error, errno, "target", "cannot make the folder '%s/%s' durable",
                           directory->path, folder);
    close(fd);
    return rc;
}

int32_t xv_directory_barrier(void *instance, const xvsa_target_call *call, xvsa_error **error)
{
    (void)call;
    struct xv_directory *directory = instance;
    int rc = 0;
    pthread_mutex_lock(&directory->barrier);
    pthread_mutex_lock(&directory->lock);
    struct xv_folder_set dirty = directory->dirty;
    directory->dirty = (struct xv_folder_set){0};
    pthread_mutex_unlock(&directory->lock);
    /* After an error the kernel may report success for entries that were lost: nothing written
     * through this handle is vouched for any more. */
    if (directory->failed)
        rc = xv_fail(error, XVSA_ERR_IO, "target",
                     "'%s' failed to store a folder before; open the target anew", directory->path);
    for (size_t i = 0; rc == 0 && i < dirty.count; i++)
        rc = sync_folder(directory, dirty.names[i], error);
    if (rc != 0)
        directory->failed = true;
    pthread_mutex_unlock(&directory->barrier);
    xv_folder_set_free(&dirty);
    return rc;
}
