/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Records of a site in the coordination store, as they are read: jobs, the pools' parts of them, tasks, members.
 * Each keeps its JSON object, which its text members point into; whoever changes a record changes
 * the object and puts it back, guarded by the revision that was read. Keys and members are told in
 * docs/coordination.md.
 */
#ifndef XV_AGENT_RECORD_H
#define XV_AGENT_RECORD_H

#include "agent/txn.h"

#define XV_SITE_ID_LENGTH 32
#define XV_SUBJECT_MAX    64

enum xv_control { XV_CONTROL_RUN, XV_CONTROL_SUSPEND, XV_CONTROL_CANCEL, XV_CONTROL_CANCEL_NOW };
const char *xv_control_name(enum xv_control control);

/* "q/<job>"; "h/<job>" once it has ended. */
struct xv_queued_job {
    json_t *json;
    int64_t mod;
    const char *id, *type, *name, *repository;
    const json_t *spec;  /* document "job" for lib/job */
    const json_t *pools; /* uuids */
    enum xv_control control;
    int64_t priority, submitted_ms, started_ms, time_limit_ms;
};

enum xv_part_state {
    XV_PART_NONE,     /* not there yet */
    XV_PART_PLANNING, /* tasks are being written; none is assigned */
    XV_PART_WORKING,
    XV_PART_CLEANING, /* all tasks have ended */
    XV_PART_ENDED,
};

/* "jp/<job>/<pool>" */
struct xv_part {
    json_t *json;
    int64_t mod;
    const char *pool;
    enum xv_part_state state;
    const char *hold; /* why its tasks must not run now, "" */
};

enum xv_task_state {
    XV_TASK_PENDING,
    XV_TASK_ASSIGNED,
    XV_TASK_RUNNING,
    XV_TASK_PARKED,
    XV_TASK_SUCCEEDED,
    XV_TASK_FAILED,
    XV_TASK_REFUSED,
    XV_TASK_CANCELLED,
};
const char *xv_task_state_name(enum xv_task_state state);
bool xv_task_has_ended(enum xv_task_state state);

/* "v/<job>/<pool>/<subject>": subject is the VM, the restore point or "repository". */
struct xv_task_record {
    json_t *json;
    int64_t mod;
    char *key;
    const char *subject;
    const char *name, *owner, *work;
    const json_t *disks; /* {"vdi", "sr", "bytes"} */
    enum xv_task_state state;
    uint32_t attempt;
    uint64_t order;
};

/* "m/<member>" */
struct xv_site_member {
    json_t *json;
    int64_t create;
    const char *name, *pool, *pool_name, *vm_uuid;
    const json_t *repositories;
    uint32_t max_disks;
    bool draining, reaches_pool;
};

/* Each takes json over on success, and is FORMAT when it is none of ours. */
int xv_queued_job_read(const struct xv_kv_pair *pair, struct xv_queued_job *ret,
                       xvsa_error **error) XV_MUST_CHECK;
int xv_part_read(const struct xv_kv_pair *pair, struct xv_part *ret,
                 xvsa_error **error) XV_MUST_CHECK;
int xv_task_read(const struct xv_kv_pair *pair, struct xv_task_record *ret,
                 xvsa_error **error) XV_MUST_CHECK;
int xv_member_read(const struct xv_kv_pair *pair, struct xv_site_member *ret,
                   xvsa_error **error) XV_MUST_CHECK;
void xv_task_record_free(struct xv_task_record *task);

/* Last word of a key. */
const char *xv_key_end(const char *key);
/* "" when there is none. */
const char *xv_member_text(const json_t *object, const char *name);
int64_t xv_member_number(const json_t *object, const char *name);
void xv_set_text(json_t *object, const char *name, const char *text);
void xv_set_number(json_t *object, const char *name, int64_t number);

/* 32 random hex digits. */
int xv_make_id(char ret[XV_SITE_ID_LENGTH + 1], xvsa_error **error) XV_MUST_CHECK;
/* 1 to XV_SUBJECT_MAX of letters, digits, '.' and '-': may be part of a key. */
bool xv_is_word(const char *text);

#endif
