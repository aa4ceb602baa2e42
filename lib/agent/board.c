/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What an owner shares of its task: the boards of its disks, whose units anybody may claim.
 */
#include "agent/board.h"

#include <stdlib.h>
#include <string.h>

#include "agent/own.h"

/* A board that this owner published. */
struct xv_own_board {
    struct xv_own_board *next; /* task's lock; never removed while the task runs */
    char *key;                 /* disk */
    char *sr_uuid;
    struct xv_turn *turn; /* of the disk's thread; held while it has claims */
    struct xv_claims claims;
};

void xv_own_boards_free(struct xv_own_task *task)
{
    while (task->boards != NULL) {
        struct xv_own_board *board = task->boards;
        task->boards = board->next;
        xv_claims_free(&board->claims);
        free(board->sr_uuid);
        free(board->key);
        free(board);
    }
}

void xv_own_boards_leave(struct xv_own_task *task)
{
    for (struct xv_own_board *board = task->boards; board != NULL; board = board->next) {
        xv_turn_leave(board->turn);
        board->turn = NULL;
    }
}

static struct xv_own_board *find(struct xv_own_task *task, const char *key)
{
    pthread_mutex_lock(&task->lock);
    struct xv_own_board *board = task->boards;
    while (board != NULL && strcmp(board->key, key) != 0)
        board = board->next;
    pthread_mutex_unlock(&task->lock);
    return board;
}

static int add(struct xv_own_task *task, const struct xv_board_disk *disk,
               struct xv_own_board **ret, xvsa_error **error)
{
    char place[XV_KEY_MAX];
    struct xv_own_board *board = find(task, disk->key);
    if (board == NULL) {
        snprintf(place, sizeof place, "%s/%s/%s", task->job_id, task->subject, disk->key);
        board = calloc(1, sizeof *board);
        if (board == NULL)
            return xv_fail_memory(error);
        board->key = strdup(disk->key);
        board->sr_uuid = strdup(disk->sr_uuid);
        int rc =
            board->key == NULL || board->sr_uuid == NULL
                ? xv_fail_memory(error)
                : xv_claims_init(&board->claims, task->agent, place, disk->units, false, error);
        if (rc != 0) {
            free(board->sr_uuid);
            free(board->key);
            free(board);
            return rc;
        }
        pthread_mutex_lock(&task->lock);
        board->next = task->boards;
        task->boards = board;
        pthread_mutex_unlock(&task->lock);
    }
    *ret = board;
    return 0;
}

/* Units that were done stay so when the work and its cut are the same as before. */
static bool is_same_cut(const json_t *before, const json_t *now)
{
    static const char *const names[] = {"work", "snapshot", "unit_bytes", "units", "bytes", NULL};
    for (size_t i = 0; names[i] != NULL; i++) {
        if (!json_equal(json_object_get(before, names[i]), json_object_get(now, names[i])))
            return false;
    }
    return true;
}

static int write_board(struct xv_own_task *task, const char *place, const json_t *json,
                       const struct xv_call *call, int64_t *ret_mod, xvsa_error **error)
{
    char key[XV_KEY_MAX];
    struct xv_kv_list list = {0};
    struct xv_txn txn;
    bool succeeded = false;
    snprintf(key, sizeof key, "b/%s", place);
    int rc = xv_kv_get(task->agent->kv, key, call, &list, error);
    if (rc != 0)
        return rc;
    json_t *before = list.count == 0 ? NULL : xv_pair_json(&list.pairs[0]);
    xv_txn_init(&txn);
    xv_own_guard(task, &txn);
    xv_txn_put(&txn, 0, json, "%s", key);
    xv_txn_delete_prefix(&txn, "c/%s/", place);
    if (before == NULL || !is_same_cut(before, json))
        xv_txn_delete_prefix(&txn, "d/%s/", place);
    json_decref(before);
    xv_kv_list_free(&list);
    rc = xv_txn_run(&txn, task->agent->kv, call, &succeeded, ret_mod, error);
    if (rc == 0 && !succeeded)
        rc = xv_fail(error, XVSA_ERR_FENCED, "agent", "%s is another member's by now", task->key);
    return rc;
}

static int publish(void *user, const struct xv_board_disk *disk, const struct xv_call *call,
                   xvsa_error **error)
{
    struct xv_own_task *task = user;
    struct xv_own_board *board = NULL;
    struct xv_call within = xv_call_within(call, XV_STORE_MS);
    int64_t mod = 0;
    int rc = xv_is_word(disk->key)
                 ? add(task, disk, &board, error)
                 : xv_fail(error, XVSA_ERR_INVALID, "agent", "VDI \"%s\": not a uuid", disk->key);
    if (rc != 0)
        return rc;
    json_t *json = xv_board_to_json(disk);
    if (json == NULL)
        return xv_fail_memory(error);
    rc = write_board(task, board->claims.place, json, &within, &mod, error);
    json_decref(json);
    if (rc == 0)
        xv_claims_renew(&board->claims, mod, disk->units);
    return rc;
}

static int find_board(struct xv_own_task *task, const char *key, struct xv_own_board **ret,
                      xvsa_error **error)
{
    *ret = find(task, key);
    if (*ret == NULL)
        return xv_fail(error, XVSA_ERR_STATE, "agent", "disk %s was not published", key);
    return 0;
}

/* Nothing is claimed without a turn at the SR. The turn is kept while there are claims, those included that wait
 * for their checkpoint. */
static int claim(void *user, const char *key, uint32_t *ret_unit, uint32_t *ret_left,
                 const struct xv_call *call, xvsa_error **error)
{
    struct xv_own_task *task = user;
    struct xv_own_board *board = NULL;
    bool is_free = true;
    struct xv_call within = xv_call_within(call, XV_STORE_MS);
    *ret_unit = XV_UNIT_NONE;
    int rc = find_board(task, key, &board, error);
    if (rc == 0)
        rc = xv_own_turn(task, board->sr_uuid, &board->turn, &is_free, &within, error);
    if (rc == 0 && !is_free)
        return xv_claims_left(&board->claims, ret_left, &within, error);
    if (rc == 0)
        rc = xv_claims_take(&board->claims, ret_unit, ret_left, &within, error);
    if (board != NULL && *ret_unit == XV_UNIT_NONE && !xv_claims_are_held(&board->claims)) {
        xv_turn_leave(board->turn);
        board->turn = NULL;
    }
    return rc;
}

static int done(void *user, const char *key, uint32_t unit, uint64_t bytes,
                const struct xv_call *call, xvsa_error **error)
{
    struct xv_own_board *board = NULL;
    struct xv_call within = xv_call_within(call, XV_STORE_MS);
    int rc = find_board(user, key, &board, error);
    return rc != 0 ? rc : xv_claims_finish(&board->claims, unit, bytes, NULL, &within, error);
}

static void release(void *user, const char *key, uint32_t unit)
{
    struct xv_own_board *board = find(user, key);
    if (board != NULL)
        xv_claims_release(&board->claims, unit);
}

/* One thread waits on the watch, the others for it. */
static int wait_board(void *user, int64_t timeout_ms, const struct xv_call *call,
                      xvsa_error **error)
{
    struct xv_own_task *task = user;
    char prefix[XV_KEY_MAX];
    bool changed = false;
    snprintf(prefix, sizeof prefix, "d/%s/%s/", task->job_id, task->subject);
    pthread_mutex_lock(&task->lock);
    bool mine = !task->watching;
    task->watching = true;
    pthread_mutex_unlock(&task->lock);
    if (!mine)
        return xv_call_sleep(call, timeout_ms < 200 ? timeout_ms : 200, "agent",
                             "waiting for others", error);
    int rc = 0;
    bool opened = task->watch == NULL;
    if (opened)
        rc = xv_kv_watch_open(task->agent->kv, prefix, &task->watch, error);
    /* What changed before the watch was there wakes nobody: the caller looks once more. */
    if (rc == 0 && !opened)
        rc = xv_kv_watch_wait(task->watch, timeout_ms, call, &changed, error);
    pthread_mutex_lock(&task->lock);
    task->watching = false;
    pthread_mutex_unlock(&task->lock);
    return rc;
}

static int note(void *user, const char *facts, const struct xv_call *call, xvsa_error **error)
{
    struct xv_own_task *task = user;
    struct xv_txn txn;
    struct xv_call within = xv_call_within(call, XV_STORE_MS);
    bool succeeded = false;
    json_t *json = json_loads(facts, 0, NULL);
    char *copy = strdup(facts);
    if (json == NULL || copy == NULL) {
        json_decref(json);
        free(copy);
        return xv_fail_memory(error);
    }
    xv_txn_init(&txn);
    xv_own_guard(task, &txn);
    xv_txn_put(&txn, 0, json, "vs/%s/%s", task->job_id, task->subject);
    json_decref(json);
    int rc = xv_txn_run(&txn, task->agent->kv, &within, &succeeded, NULL, error);
    if (rc == 0 && !succeeded)
        rc = xv_fail(error, XVSA_ERR_FENCED, "agent", "%s is another member's by now", task->key);
    pthread_mutex_lock(&task->lock);
    char *before = task->facts;
    task->facts = copy;
    pthread_mutex_unlock(&task->lock);
    free(before);
    return rc;
}

static int account(void *user, const char *key, char **ret, const struct xv_call *call,
                   xvsa_error **error)
{
    struct xv_own_board *board = NULL;
    struct xv_call within = xv_call_within(call, XV_STORE_MS);
    int rc = find_board(user, key, &board, error);
    return rc != 0 ? rc : xv_claims_account(&board->claims, ret, &within, error);
}

static bool may_touch_pool(void *user)
{
    struct xv_own_task *task = user;
    return !atomic_load(&task->lost) && xv_agent_is_joined(task->agent);
}

const struct xv_share_ops xv_own_ops = {
    .publish = publish,
    .claim = claim,
    .done = done,
    .release = release,
    .wait = wait_board,
    .note = note,
    .account = account,
    .connect = xv_own_connect,
    .disconnect = xv_own_disconnect,
    .enter = xv_own_enter,
    .leave = xv_own_leave,
    .may_touch_pool = may_touch_pool,
};
