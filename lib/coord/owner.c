/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Whether a process that once wrote to the state file still lives: it holds a lock on a file of its own
 * beside it, which the kernel releases when it dies. The lock is taken before any record names the
 * owner, and the file is only removed by whoever holds the lock: no file or no lock means dead.
 */
#include "coord/state.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/buffer.h"

#define OWNER_PATH_MAX 4096
#define SWEEP_SECONDS  60

static bool owner_path(const struct xv_coord *coord, const char *owner, char *path)
{
    int length = snprintf(path, OWNER_PATH_MAX, "%s.owners/%s", coord->path, owner);
    return length > 0 && length < OWNER_PATH_MAX;
}

static bool is_owner_name(const char *owner)
{
    return strlen(owner) == XV_OWNER_MAX &&
           strspn(owner + 1, "0123456789abcdef") == XV_OWNER_MAX - 1;
}

static int lock_file(struct xv_coord *coord, xvsa_error **error)
{
    char path[OWNER_PATH_MAX];
    if (!owner_path(coord, "", path))
        return xv_fail(error, XVSA_ERR_INVALID, "coord", "state path is too long");
    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return xv_fail_errno(error, errno, "coord", "cannot make %s", path);
    if (!owner_path(coord, coord->owner, path))
        return xv_fail(error, XVSA_ERR_INVALID, "coord", "state path is too long");
    coord->owner_fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (coord->owner_fd < 0)
        return xv_fail_errno(error, errno, "coord", "cannot make %s", path);
    if (flock(coord->owner_fd, LOCK_EX | LOCK_NB) != 0)
        return xv_fail_errno(error, errno, "coord", "cannot lock %s", path);
    return 0;
}

/* Takes away the files of dead owners that no record names any more. Young ones are left alone: their
 * owner may not have its lock yet. */
static void sweep(struct xv_coord *coord)
{
    char path[OWNER_PATH_MAX];
    DIR *folder = owner_path(coord, "", path) ? opendir(path) : NULL;
    struct dirent *entry;
    while (folder != NULL && (entry = readdir(folder)) != NULL) {
        struct stat facts;
        if (is_owner_name(entry->d_name) && fstatat(dirfd(folder), entry->d_name, &facts, 0) == 0 &&
            time(NULL) - facts.st_mtime > SWEEP_SECONDS)
            (void)xv_owner_is_alive(coord, entry->d_name);
    }
    if (folder != NULL)
        closedir(folder);
}

int xv_owner_claim(struct xv_coord *coord, xvsa_error **error)
{
    unsigned char id[(XV_OWNER_MAX - 1) / 2];
    int rc = xv_random(id, sizeof id, error);
    if (rc != 0)
        return rc;
    coord->owner[0] = coord->path == NULL ? 'm' : 'f';
    xv_hex_encode(id, sizeof id, coord->owner + 1);
    if (coord->path == NULL)
        return 0;
    rc = lock_file(coord, error);
    if (rc == 0)
        sweep(coord);
    return rc;
}

void xv_owner_release(struct xv_coord *coord)
{
    if (coord->owner_fd < 0)
        return;
    char path[OWNER_PATH_MAX];
    if (owner_path(coord, coord->owner, path))
        unlink(path);
    close(coord->owner_fd);
    coord->owner_fd = -1;
}

bool xv_owner_is_alive(const struct xv_coord *coord, const char *owner)
{
    if (strcmp(owner, coord->owner) == 0)
        return true;
    char path[OWNER_PATH_MAX];
    if (coord->path == NULL || !is_owner_name(owner) || !owner_path(coord, owner, path))
        return false;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return errno != ENOENT; /* cannot tell: leave its things alone */
    bool alive = flock(fd, LOCK_EX | LOCK_NB) != 0;
    if (!alive)
        unlink(path);
    close(fd);
    return alive;
}
