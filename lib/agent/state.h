/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Inside of an agent. Two threads look at the site again and again, each at a view of its own: one leads the pool
 * while the agent is its coordinator, the other one begins, watches and ends what the agent does itself.
 * Each task and each unit has a thread. agent->lock guards the lists and what is said to be guarded by it;
 * it is never held while anything may block.
 */
#ifndef XV_AGENT_STATE_H
#define XV_AGENT_STATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "agent/agent.h"
#include "agent/lookout.h"
#include "coord/member.h"
#include "job/assist.h"
#include "job/job.h"

/* Between two looks at the site when nothing happens, and at least. */
#define XV_LOOK_MS       1000
#define XV_LOOK_LEAST_MS 50
/* The pause after a look that took long. */
#define XV_LOOK_PAUSE_MOST_MS 5000
/* One question to the store, and one while work is being parked. */
#define XV_STORE_MS      10000
#define XV_STORE_LAST_MS 2000
/* Instants that a task's own figures are told at. */
#define XV_PROGRESS_MS 5000

struct xv_figures {
    atomic_uint_fast64_t tasks[XV_TASK_CANCELLED + 1]; /* that this process owned, by their end */
    atomic_uint_fast64_t tasks_lost, units, units_failed, bytes_helped;
    atomic_uint_fast64_t terms, plans, assignments, take_overs, store_failures;
};

struct xv_agent_named_repo {
    char *name;
    struct xv_repo *repo;
    struct xv_assistant *assistant; /* guarded by assist_lock; NULL until needed */
};

struct xv_contact;
struct xv_own_task;
struct xv_help_unit;
struct xv_lead;
struct xv_turn;
struct xv_job_rate;

struct xv_agent {
    atomic_uint references;
    struct xv_site *site;
    const struct xv_env *env;
    struct xv_kv *kv;
    struct xv_pool *pool;
    char *name, *pool_uuid, *pool_name, *vm_uuid, *address;
    struct xv_agent_named_repo *repos;
    size_t repo_count;
    uint32_t max_disks;
    bool hotadd;       /* disks are attached to the own VM */
    char *device_path; /* where its devices show up; NULL: the usual place */
    int64_t ttl_ms, checkpoint_ms;
    uint64_t unit_bytes;
    struct xv_member *member;
    xvsa_cancel *cancel; /* once everything has ended, or must */
    struct xv_figures figures;
    atomic_bool draining;          /* nothing new */
    atomic_bool parking;           /* and what is under way stops at a checkpoint */
    atomic_int_fast64_t parked_ms; /* since when, by xv_clock_ms */
    atomic_int_fast64_t term;      /* 0: another one coordinates */
    atomic_bool store_answers;     /* at the last look */
    atomic_bool reaches_pool;      /* contact.c: at the last question to it */
    atomic_bool yields;            /* contact.c: the office is for others */
    struct xv_contact *contact;    /* its thread; NULL: it does not run */
    atomic_uint_fast32_t disks_running;
    atomic_bool place_freed; /* by the end of a task or unit; until the thread that works looks */

    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct xv_own_task *tasks;
    struct xv_help_unit *units;
    uint32_t threads; /* of the agent, of tasks and of units */
    bool lead_ended;
    uint32_t connections;                /* NBD connections that it may have open */
    uint32_t disks_waiting;              /* of own tasks, for connections: before units of others */
    uint32_t neighbours, neighbour_rank; /* budget.c */
    struct xv_turn *turns;               /* turn.c */
    struct xv_job_rate *rates;           /* rates.c */
    bool left;                           /* the site */

    pthread_mutex_t telling; /* the member's facts; held while they are written */
    pthread_mutex_t assist_lock;
    int64_t neighbours_of, neighbours_ms; /* of the thread that works */
    struct xv_mirror *mirror;             /* of the thread that works; NULL: not yet */
    json_t *helped;                       /* works helped with, by id; likewise */
    struct xv_lead *lead;                 /* of the thread that leads; NULL: not its turn */
};

/* agent.c */
struct xv_call xv_agent_call(const struct xv_agent *agent);
struct xv_repo *xv_agent_repo(const struct xv_agent *agent, const char *name);
bool xv_agent_is_joined(const struct xv_agent *agent);
/* True for "the store does not answer": said once in the log until it answers again. Frees *error. */
void xv_agent_note_store(struct xv_agent *agent, int rc, xvsa_error **error, const char *what);
/* Tells the site anew what the others need to know of this member. A failure is in the log; it may be tried again. */
int xv_agent_tell(struct xv_agent *agent) XV_MUST_CHECK;
/* Starts a counted, detached thread. */
int xv_agent_thread(struct xv_agent *agent, const char *name, void *(*body)(void *), void *argument,
                    xvsa_error **error) XV_MUST_CHECK;
/* The last thing that such a thread does with the agent. */
void xv_agent_thread_end(struct xv_agent *agent);
/* Makes a transaction fail when the store is another one than the member last saw. */
void xv_agent_guard_epoch(struct xv_agent *agent, struct xv_txn *txn);

/* lead.c: one look as the pool's coordinator; what changes mean to the thread that leads. */
void xv_lead_look(struct xv_agent *agent, struct xv_lookout *lookout);
enum xv_matter xv_lead_matter(struct xv_agent *agent, const char *key);
void xv_lead_free(struct xv_lead *lead);

/* view NULL: the store does not answer. own.c: tasks of this member. */
void xv_own_look(struct xv_agent *agent, const struct xv_view *view);
/* help.c: units of others' tasks. */
void xv_help_look(struct xv_agent *agent, const struct xv_view *view);
/* Units under way; the caller holds the agent's lock. */
size_t xv_help_count(const struct xv_agent *agent);

#endif
