/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "board.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define PATH_ROOM 1024
#define WAIT_MS   50

static void name_file(const struct board *board, const char *name, char path[PATH_ROOM])
{
    snprintf(path, PATH_ROOM, "%s/%s", board->folder, name);
}

bool board_has(const struct board *board, const char *name)
{
    char path[PATH_ROOM];
    name_file(board, name, path);
    return access(path, F_OK) == 0;
}

int board_write(const struct board *board, const char *name, const char *text, xvsa_error **error)
{
    char path[PATH_ROOM];
    char draft[PATH_ROOM + 32];
    name_file(board, name, path);
    snprintf(draft, sizeof draft, "%s.%ld", path, (long)getpid());
    FILE *file = fopen(draft, "we");
    bool good = file != NULL && fputs(text, file) >= 0;
    good = file != NULL && fclose(file) == 0 && good;
    if (!good || rename(draft, path) != 0)
        return xv_fail_errno(error, errno, "board", "cannot write %s", path);
    return 0;
}

char *board_read(const struct board *board, const char *name)
{
    char path[PATH_ROOM];
    name_file(board, name, path);
    FILE *file = fopen(path, "re");
    char *text = NULL;
    size_t room = 0;
    if (file != NULL && getdelim(&text, &room, '\0', file) < 0) {
        free(text);
        text = NULL;
    }
    if (file != NULL)
        fclose(file);
    return text;
}

static int lock_folder(const struct board *board, int *ret, xvsa_error **error)
{
    char path[PATH_ROOM];
    if (board_has(board, "down"))
        return xv_fail(error, XVSA_ERR_NETWORK, "board", "the folder is out of reach");
    name_file(board, "lock", path);
    *ret = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (*ret < 0 || flock(*ret, LOCK_EX) != 0)
        return xv_fail_errno(error, errno, "board", "cannot lock %s", path);
    return 0;
}

/* The latest owner's file tells its token. */
static int check_owner(const struct board *board, xvsa_error **error)
{
    char *text = board_read(board, "owner");
    uint64_t token = text == NULL ? 0 : strtoull(text, NULL, 10);
    free(text);
    if (board->token == 0 || token == 0 || token == board->token)
        return 0;
    return xv_fail(error, XVSA_ERR_FENCED, "board", "the task is token %llu's by now",
                   (unsigned long long)token);
}

static json_t *read_disk(const struct board *board, const char *key)
{
    char name[128];
    snprintf(name, sizeof name, "%s.board", key);
    char *text = board_read(board, name);
    json_t *disk = text == NULL ? NULL : json_loads(text, 0, NULL);
    free(text);
    return disk;
}

static int publish(void *user, const struct xv_board_disk *disk, const struct xv_call *call,
                   xvsa_error **error)
{
    const struct board *board = user;
    char name[128];
    int fd = -1;
    (void)call;
    int rc = lock_folder(board, &fd, error);
    if (rc == 0)
        rc = check_owner(board, error);
    json_t *object = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:b}", "work", disk->work_id, "key",
        disk->key, "device", disk->device, "sr", disk->sr_uuid, "snapshot", disk->snapshot_uuid,
        "size", (json_int_t)disk->size, "bytes", (json_int_t)disk->bytes, "unit_bytes",
        (json_int_t)disk->unit_bytes, "units", (json_int_t)disk->units, "nbd", disk->nbd);
    char *text = json_dumps(object, JSON_COMPACT);
    json_decref(object);
    snprintf(name, sizeof name, "%s.board", disk->key);
    if (rc == 0)
        rc = board_write(board, name, text, error);
    free(text);
    if (fd >= 0)
        close(fd);
    return rc;
}

/* True when the claim's process is gone. */
static bool is_stale(const struct board *board, const char *name)
{
    char *text = board_read(board, name);
    long pid = text == NULL ? 0 : strtol(text, NULL, 10);
    free(text);
    return pid <= 0 || (pid != getpid() && kill((pid_t)pid, 0) != 0 && errno == ESRCH);
}

static int claim(void *user, const char *key, uint32_t *ret_unit, uint32_t *ret_left,
                 const struct xv_call *call, xvsa_error **error)
{
    const struct board *board = user;
    char name[128];
    char text[64];
    int fd = -1;
    (void)call;
    *ret_unit = XV_UNIT_NONE;
    *ret_left = 0;
    int rc = lock_folder(board, &fd, error);
    if (rc == 0)
        rc = check_owner(board, error);
    json_t *disk = rc == 0 ? read_disk(board, key) : NULL;
    json_int_t units = json_integer_value(json_object_get(disk, "units"));
    json_decref(disk);
    for (json_int_t i = 0; rc == 0 && i < units; i++) {
        snprintf(name, sizeof name, "%s.d.%d", key, (int)i);
        if (board_has(board, name))
            continue;
        ++*ret_left;
        snprintf(name, sizeof name, "%s.c.%d", key, (int)i);
        if (*ret_unit != XV_UNIT_NONE || (board_has(board, name) && !is_stale(board, name)))
            continue;
        snprintf(text, sizeof text, "%ld", (long)getpid());
        rc = board_write(board, name, text, error);
        if (rc == 0)
            *ret_unit = (uint32_t)i;
    }
    if (fd >= 0)
        close(fd);
    return rc;
}

static int done(void *user, const char *key, uint32_t unit, uint64_t bytes,
                const struct xv_call *call, xvsa_error **error)
{
    const struct board *board = user;
    char name[128];
    char text[256];
    int fd = -1;
    (void)call;
    int rc = lock_folder(board, &fd, error);
    snprintf(name, sizeof name, "%s.d.%u", key, unit);
    snprintf(text, sizeof text, "%llu %s", (unsigned long long)bytes, board->member);
    if (rc == 0)
        rc = board_write(board, name, text, error);
    if (fd >= 0)
        close(fd);
    return rc;
}

static void release(void *user, const char *key, uint32_t unit)
{
    const struct board *board = user;
    char name[128];
    char path[PATH_ROOM];
    snprintf(name, sizeof name, "%s.c.%u", key, unit);
    name_file(board, name, path);
    unlink(path);
}

static int wait_a_while(void *user, int64_t timeout_ms, const struct xv_call *call,
                        xvsa_error **error)
{
    (void)user;
    return xv_call_sleep(call, timeout_ms < WAIT_MS ? timeout_ms : WAIT_MS, "board", "waiting",
                         error);
}

static int note(void *user, const char *facts, const struct xv_call *call, xvsa_error **error)
{
    const struct board *board = user;
    int fd = -1;
    (void)call;
    int rc = lock_folder(board, &fd, error);
    if (rc == 0)
        rc = check_owner(board, error);
    if (rc == 0)
        rc = board_write(board, "facts", facts, error);
    if (fd >= 0)
        close(fd);
    return rc;
}

static int account(void *user, const char *key, char **ret, const struct xv_call *call,
                   xvsa_error **error)
{
    const struct board *board = user;
    json_t *movers = json_array();
    json_t *disk = read_disk(board, key);
    (void)call;
    for (json_int_t i = 0; i < json_integer_value(json_object_get(disk, "units")); i++) {
        char name[128];
        snprintf(name, sizeof name, "%s.d.%d", key, (int)i);
        char *text = board_read(board, name);
        char *member = text == NULL ? NULL : strchr(text, ' ');
        if (member != NULL && strcmp(member + 1, board->member) != 0)
            json_array_append_new(movers,
                                  json_pack("{s:s, s:I, s:i}", "proxy", member + 1, "bytes",
                                            (json_int_t)strtoull(text, NULL, 10), "units", 1));
        free(text);
    }
    json_decref(disk);
    json_t *object = json_pack("{s:o}", "movers", movers);
    *ret = json_dumps(object, JSON_COMPACT);
    json_decref(object);
    return *ret == NULL ? xv_fail_memory(error) : 0;
}

static bool may_touch_pool(void *user)
{
    return !board_has(user, "hands-off");
}

const struct xv_share_ops board_ops = {
    .publish = publish,
    .claim = claim,
    .done = done,
    .release = release,
    .wait = wait_a_while,
    .note = note,
    .account = account,
    .may_touch_pool = may_touch_pool,
};
