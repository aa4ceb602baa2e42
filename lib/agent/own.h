/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A task that this member owns: claimed, run by lib/job in a thread of its own, ended in the store. After that it
 * is remembered until its job is over, so that a store that was lost and made anew learns how it ended.
 */
#ifndef XV_AGENT_OWN_H
#define XV_AGENT_OWN_H

#include "agent/budget.h"
#include "job/share.h"

struct xv_own_task {
    struct xv_own_task *next; /* agent's lock */
    struct xv_agent *agent;
    char *key; /* "v/<job>/<pool>/<subject>" */
    char job_id[XV_SITE_ID_LENGTH + 1];
    const char *subject; /* in key */
    char *type, *name, *repository, *earlier;
    char *spec; /* of this one VM or point */
    json_t *
        record; /* value of key: owned by the task's thread until it has ended, then by the agent's lock */
    char work[XV_SITE_ID_LENGTH + 1];
    uint32_t attempt, disks, proxies;
    uint64_t outstanding;
    struct xv_limits limits;
    struct xv_rate *rate; /* NULL: none */
    int64_t token;
    int64_t assigned_revision;
    struct xv_epoch epoch;     /* that token and claim are of; of the agent's thread once claimed */
    atomic_int_fast64_t claim; /* create_revision of "r/<job>/<subject>"; 0: not claimed */
    atomic_bool lost;          /* somebody else's by now */

    pthread_mutex_t lock; /* guards what follows; boards, too */
    struct xv_job *job;   /* while it runs */
    bool parked, stopped; /* were asked for */
    const char *why_parked;
    struct xv_own_board *boards;
    struct xv_own_entry *entries; /* disks without units that move */
    struct xv_kv_watch *watch;    /* of one thread at a time */
    bool watching;
    char *facts;

    /* Set at the end, then constant. */
    bool ended;
    json_t *report; /* value of "vr/..." */
};

/* board.c: what the task's job shares over the store. user is the task. */
extern const struct xv_share_ops xv_own_ops;
void xv_own_boards_free(struct xv_own_task *task);
/* Gives back the turns of a task that has ended. */
void xv_own_boards_leave(struct xv_own_task *task);

/* own_turn.c: turns and connections of the task's disks, as struct xv_share_ops asks for them. */
int xv_own_connect(void *user, uint32_t wanted, uint32_t *ret, const struct xv_call *call,
                   xvsa_error **error) XV_MUST_CHECK;
void xv_own_disconnect(void *user, uint32_t connections);
int xv_own_enter(void *user, const char *key, const char *sr_uuid, const struct xv_call *call,
                 xvsa_error **error) XV_MUST_CHECK;
void xv_own_leave(void *user, const char *key);
/* Takes a turn at an SR, when the job limits them: *ret_free is false when there is none now. */
int xv_own_turn(struct xv_own_task *task, const char *sr_uuid, struct xv_turn **turn,
                bool *ret_free, const struct xv_call *call, xvsa_error **error) XV_MUST_CHECK;

/* own_end.c: what is to be written at a task's end, and writing it until the store took it or the task is lost. */
void xv_own_conclude(struct xv_own_task *task, int rc, xvsa_error *problem);
bool xv_own_write_end(struct xv_own_task *task, int64_t mod);
/* orphan.c: gives claims of this member back that nothing here stands behind. */
void xv_own_give_back(struct xv_agent *agent, const struct xv_view *view);
/* Compares that hold while the task is this member's. */
void xv_own_guard(struct xv_own_task *task, struct xv_txn *txn);

#endif
