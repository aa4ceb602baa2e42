/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Listing a folder in the byte order of whole names, and removing what crashed writers left.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "target/directory.h"

#define PATH_BYTES 512
#define DEPTH_MAX  16

struct walk {
    const struct xv_directory *directory;
    const char *prefix;
    const char *after;
    xvsa_list_fn fn;
    void *sink;
    xvsa_error **error;
};

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void free_names(char **names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(names[i]);
    free(names);
}

static bool is_folder(int fd, const struct dirent *entry)
{
    if (entry->d_type != DT_UNKNOWN)
        return entry->d_type == DT_DIR;
    struct stat info;
    return fstatat(fd, entry->d_name, &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(info.st_mode);
}

static bool push(char ***names, size_t *count, const char *name, bool folder)
{
    if ((*count & (*count - 1)) == 0) {
        char **grown = realloc(*names, (*count == 0 ? 1 : *count * 2) * sizeof *grown);
        if (grown == NULL)
            return false;
        *names = grown;
    }
    char *copy = NULL;
    if (asprintf(&copy, "%s%s", name, folder ? "/" : "") < 0)
        return false;
    (*names)[(*count)++] = copy;
    return true;
}

/* The entries of a folder, folders with a slash at the end, so that sorting gives the order of whole
 * names. A folder that is gone is empty. */
static int read_folder(const struct walk *walk, const char *folder, char ***ret, size_t *ret_count)
{
    int fd = openat(walk->directory->root, folder[0] == '\0' ? "." : folder,
                    O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    if (stream == NULL) {
        int failed = errno;
        if (fd >= 0)
            close(fd);
        if (failed == ENOENT || failed == ENOTDIR)
            return 0;
        return xv_fail_errno(walk->error, failed, "target", "cannot list '%s/%s'",
                             walk->directory->path, folder);
    }
    int rc = 0;
    while (rc == 0) {
        errno = 0;
        struct dirent *entry = readdir(stream);
        if (entry == NULL) {
            if (errno != 0)
                rc = xv_fail_errno(walk->error, errno, "target", "cannot list '%s/%s'",
                                   walk->directory->path, folder);
            break;
        }
        if (xv_target_name_valid(entry->d_name) &&
            !push(ret, ret_count, entry->d_name, is_folder(fd, entry)))
            rc = xv_fail_memory(walk->error);
    }
    closedir(stream);
    return rc;
}

static bool begins(const char *text, const char *with, size_t at_most)
{
    size_t length = strlen(with);
    return strncmp(text, with, length < at_most ? length : at_most) == 0;
}

static int tell(const struct walk *walk, const char *name)
{
    struct stat facts;
    if (!begins(name, walk->prefix, SIZE_MAX) ||
        (walk->after != NULL && strcmp(name, walk->after) <= 0) ||
        fstatat(walk->directory->root, name, &facts, AT_SYMLINK_NOFOLLOW) != 0 ||
        !S_ISREG(facts.st_mode))
        return 0;
    xvsa_object_info info = XVSA_OBJECT_INFO_INIT;
    info.length = (uint64_t)facts.st_size;
    info.modified_ms = (int64_t)facts.st_mtim.tv_sec * 1000 + facts.st_mtim.tv_nsec / 1000000;
    return walk->fn(walk->sink, name, &info);
}

static int descend(const struct walk *walk, const char *folder, int depth)
{
    char **names = NULL;
    size_t count = 0;
    int rc = read_folder(walk, folder, &names, &count);
    if (count > 0)
        qsort(names, count, sizeof *names, compare);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        char path[PATH_BYTES];
        int length = snprintf(path, sizeof path, "%s%s", folder, names[i]);
        if (length < 0 || (size_t)length >= sizeof path)
            continue;
        bool is_dir = path[length - 1] == '/';
        if (!is_dir)
            rc = tell(walk, path);
        else if (depth < DEPTH_MAX && begins(path, walk->prefix, (size_t)length) &&
                 (walk->after == NULL || strncmp(path, walk->after, (size_t)length) >= 0))
            rc = descend(walk, path, depth + 1);
    }
    free_names(names, count);
    return rc;
}

int32_t xv_directory_list(void *instance, const xvsa_target_call *call, const char *prefix,
                          const char *after, xvsa_list_fn fn, void *sink, xvsa_error **error)
{
    (void)call;
    struct walk walk = {instance, prefix, after, fn, sink, error};
    /* Nothing outside the prefix's own folder can match. */
    char folder[PATH_BYTES] = "";
    const char *slash = strrchr(prefix, '/');
    if (slash != NULL)
        snprintf(folder, sizeof folder, "%.*s", (int)(slash - prefix + 1), prefix);
    return descend(&walk, folder, 0);
}

static void remove_stale(int folder, const char *name)
{
    int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        (void)unlinkat(folder, name, 0);
    close(fd);
}

static void clean_folder(int parent, const char *name, int depth)
{
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    if (stream == NULL) {
        if (fd >= 0)
            close(fd);
        return;
    }
    for (struct dirent *entry; (entry = readdir(stream)) != NULL;) {
        if (strncmp(entry->d_name, XV_TEMP_PREFIX, sizeof XV_TEMP_PREFIX - 1) == 0)
            remove_stale(fd, entry->d_name);
        else if (depth > 0 && xv_target_name_valid(entry->d_name) && is_folder(fd, entry))
            clean_folder(fd, entry->d_name, depth - 1);
    }
    closedir(stream);
}

void xv_directory_clean(const struct xv_directory *directory)
{
    clean_folder(directory->root, ".", 2);
}
