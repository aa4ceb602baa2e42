/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Whether a process that once wrote to the state file still lives: it holds a lock on a file of its
 * own beside it, which the kernel releases when it dies. The lock is taken before any record names
 * the owner, and the file is only removed by whoever holds a lock on it: no file or no lock means
 * dead. Who asks takes a shared lock, so that two who ask do not take each other for the owner.
 */
#include "coord/owner.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/call.h"

#define COMPONENT      "coord"
#define OWNER_PATH_MAX 4096
#define SWEEP_SECONDS  60
#define LOCK_TRIES     1000

static bool owner_path(const struct xv_owner *owner, const char *id, char *path)
{
    int length = snprintf(path, OWNER_PATH_MAX, "%s.owners/%s", owner->state_path, id);
    return length > 0 && length < OWNER_PATH_MAX;
}

static bool is_owner_name(const char *id)
{
    return strlen(id) == XV_OWNER_MAX && strspn(id + 1, "0123456789abcdef") == XV_OWNER_MAX - 1;
}

static int lock_file(struct xv_owner *owner, xvsa_error **error)
{
    char path[OWNER_PATH_MAX];
    if (!owner_path(owner, "", path))
        return xv_fail(error, XVSA_ERR_INVALID, COMPONENT, "state path is too long");
    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return xv_fail_errno(error, errno, COMPONENT, "cannot make %s", path);
    if (!owner_path(owner, owner->id, path))
        return xv_fail(error, XVSA_ERR_INVALID, COMPONENT, "state path is too long");
    owner->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (owner->fd < 0)
        return xv_fail_errno(error, errno, COMPONENT, "cannot make %s", path);
    /* Whoever asks after us just now has it for a moment. */
    for (int i = 0; flock(owner->fd, LOCK_EX | LOCK_NB) != 0; i++) {
        if ((errno != EWOULDBLOCK && errno != EINTR) || i == LOCK_TRIES)
            return xv_fail_errno(error, errno, COMPONENT, "cannot lock %s", path);
        int rc = xv_call_sleep(NULL, 1, COMPONENT, "locking the owner's file", error);
        if (rc != 0)
            return rc;
    }
    return 0;
}

/* keep: leave the file alone, whose owner may not have its lock yet. */
static bool is_locked(const char *path, bool keep)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return errno != ENOENT; /* cannot tell: leave its things alone */
    bool locked = flock(fd, LOCK_SH | LOCK_NB) != 0;
    if (!locked && !keep)
        unlink(path);
    close(fd);
    return locked;
}

bool xv_owner_sweep(const struct xv_owner *self)
{
    char path[OWNER_PATH_MAX];
    DIR *folder = self->state_path != NULL && owner_path(self, "", path) ? opendir(path) : NULL;
    bool others = false;
    struct dirent *entry;
    while (folder != NULL && (entry = readdir(folder)) != NULL) {
        struct stat facts;
        if (!is_owner_name(entry->d_name) || strcmp(entry->d_name, self->id) == 0)
            continue;
        bool young = fstatat(dirfd(folder), entry->d_name, &facts, 0) == 0 &&
                     time(NULL) - facts.st_mtime <= SWEEP_SECONDS;
        if (owner_path(self, entry->d_name, path) && is_locked(path, young))
            others = true;
    }
    if (folder != NULL)
        closedir(folder);
    return others;
}

int xv_owner_name(bool in_memory, char id[XV_OWNER_MAX + 1], xvsa_error **error)
{
    unsigned char random[(XV_OWNER_MAX - 1) / 2];
    int rc = xv_random(random, sizeof random, error);
    if (rc != 0)
        return rc;
    id[0] = in_memory ? 'm' : 'f';
    xv_hex_encode(random, sizeof random, id + 1);
    return 0;
}

int xv_owner_claim(const char *state_path, struct xv_owner *ret, xvsa_error **error)
{
    *ret = (struct xv_owner){.fd = -1};
    int rc = xv_owner_name(state_path == NULL, ret->id, error);
    if (rc != 0 || state_path == NULL)
        return rc;
    ret->state_path = strdup(state_path);
    if (ret->state_path == NULL)
        return xv_fail_memory(error);
    rc = lock_file(ret, error);
    if (rc != 0)
        xv_owner_release(ret);
    return rc;
}

void xv_owner_release(struct xv_owner *owner)
{
    char path[OWNER_PATH_MAX];
    if (owner->fd >= 0) {
        if (owner_path(owner, owner->id, path))
            unlink(path);
        close(owner->fd);
    }
    free(owner->state_path);
    *owner = (struct xv_owner){.fd = -1};
}

bool xv_owner_is_alive(const struct xv_owner *self, const char *id)
{
    if (strcmp(id, self->id) == 0)
        return true;
    char path[OWNER_PATH_MAX];
    if (self->state_path == NULL || !is_owner_name(id) || !owner_path(self, id, path))
        return false;
    return is_locked(path, false);
}
