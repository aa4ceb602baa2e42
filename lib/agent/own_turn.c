/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the disks of an own task may use at once.
 */
#include <stdlib.h>
#include <string.h>

#include "agent/own.h"
#include "base/thread.h"

#define WAIT_MS 500

struct xv_own_entry {
    struct xv_own_entry *next; /* task's lock */
    char *key;                 /* disk */
    struct xv_turn *turn;
};

int xv_own_connect(void *user, uint32_t wanted, uint32_t *ret, const struct xv_call *call,
                   xvsa_error **error)
{
    struct xv_own_task *task = user;
    return xv_budget_await(task->agent, &task->limits, wanted, ret, call, error);
}

void xv_own_disconnect(void *user, uint32_t connections)
{
    struct xv_own_task *task = user;
    xv_budget_disconnect(task->agent, connections);
}

int xv_own_turn(struct xv_own_task *task, const char *sr_uuid, struct xv_turn **turn,
                bool *ret_free, const struct xv_call *call, xvsa_error **error)
{
    *ret_free = true;
    if (task->limits.sr_transfers == 0 || *turn != NULL || !xv_is_word(sr_uuid))
        return 0;
    struct xv_call within = xv_call_within(call, XV_STORE_MS);
    int rc = xv_turn_take(task->agent, task->job_id, sr_uuid, task->limits.sr_transfers, &within,
                          turn, error);
    *ret_free = *turn != NULL;
    return rc;
}

/* A store that does not answer does not hold up a disk of a task that is owned. */
static int await_turn(struct xv_own_task *task, const char *sr_uuid, struct xv_turn **turn,
                      const struct xv_call *call, xvsa_error **error)
{
    bool is_free = false;
    int rc = 0;
    while (rc == 0 && !is_free) {
        xvsa_error *problem = NULL;
        int tried = xv_own_turn(task, sr_uuid, turn, &is_free, call, &problem);
        if (tried != 0) {
            xv_agent_note_store(task->agent, tried, &problem, "cannot take a turn at an SR");
            is_free = true;
        }
        if (!is_free)
            rc = xv_call_sleep(call, WAIT_MS, "agent", "waiting for a turn at the SR", error);
    }
    return rc;
}

int xv_own_enter(void *user, const char *key, const char *sr_uuid, const struct xv_call *call,
                 xvsa_error **error)
{
    struct xv_own_task *task = user;
    struct xv_own_entry *entry = calloc(1, sizeof *entry);
    char *copy = strdup(key);
    int rc = entry == NULL || copy == NULL ? xv_fail_memory(error)
                                           : await_turn(task, sr_uuid, &entry->turn, call, error);
    if (rc != 0) {
        free(copy);
        free(entry);
        return rc;
    }
    entry->key = copy;
    pthread_mutex_lock(&task->lock);
    entry->next = task->entries;
    task->entries = entry;
    pthread_mutex_unlock(&task->lock);
    return 0;
}

void xv_own_leave(void *user, const char *key)
{
    struct xv_own_task *task = user;
    pthread_mutex_lock(&task->lock);
    struct xv_own_entry **place = &task->entries;
    while (*place != NULL && strcmp((*place)->key, key) != 0)
        place = &(*place)->next;
    struct xv_own_entry *entry = *place;
    if (entry != NULL)
        *place = entry->next;
    pthread_mutex_unlock(&task->lock);
    if (entry == NULL)
        return;
    xv_turn_leave(entry->turn);
    free(entry->key);
    free(entry);
}
