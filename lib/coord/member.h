/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Members of a site: processes that live as long as their lease, the order in which they were
 * added, and the election of a pool's coordinator. Thread-safe.
 */
#ifndef XV_COORD_MEMBER_H
#define XV_COORD_MEMBER_H

#include "coord/epoch.h"

struct xv_member;

enum xv_member_state {
    XV_MEMBER_JOINED,
    XV_MEMBER_SUSPECT, /* the lease may be gone: begin nothing, touch nothing in the pool */
    XV_MEMBER_LOST,    /* it is gone; joining again */
    XV_MEMBER_LEFT,
};

struct xv_member_options {
    const struct xv_env *env;
    const char *name;  /* unique in the site; letters, digits and "-_.", at most 64 */
    const char *pool;  /* uuid of the pool it serves */
    const char *facts; /* JSON object for others; the value of "m/<name>", with "pool" and "boot" (a
                          random text of this process) added */
    int64_t ttl_ms;    /* 0: XV_MEMBER_TTL_MS; at least 2 s */
};

#define XV_MEMBER_NAME_MAX 64
#define XV_MEMBER_TTL_MS   15000

/* Grants a lease, writes "m/<name>" and, the first time, "order/<pool>/<name>", and renews the
 * lease from a thread of its own. That thread also writes these again, and the epoch with the
 * next generation, when they are gone because the store was lost. EXISTS when a member of that
 * name lives elsewhere; as that may be the process before this one, whose lease has not ended,
 * it waits first for up to one and a half times to live. kv must outlive the member. */
int xv_member_join(struct xv_kv *kv, const struct xv_member_options *options,
                   const struct xv_call *call, struct xv_member **ret,
                   xvsa_error **error) XV_MUST_CHECK;
/* Revokes the lease and frees. */
void xv_member_leave(struct xv_member *member);
enum xv_member_state xv_member_state(struct xv_member *member);
const char *xv_member_name(const struct xv_member *member);
/* 0 unless JOINED or SUSPECT. Changes when the member joins again: keys put with the old one are
 * gone. */
int64_t xv_member_lease(struct xv_member *member);
/* Counts how often it joined: who remembers an older number has to claim anew. */
uint32_t xv_member_generation(struct xv_member *member);
/* Replaces the facts. Succeeds without being JOINED, too: they are written with the next
 * joining. */
int xv_member_tell(struct xv_member *member, const char *facts, const struct xv_call *call,
                   xvsa_error **error) XV_MUST_CHECK;

/* The newest epoch that the member saw in the store; gen 0 when it saw none. */
void xv_member_epoch(struct xv_member *member, struct xv_epoch *ret);

/* Becomes or remains the coordinator of the member's pool when nobody else is: when the place is
 * free, the k-th in the order of addition among the living takes it k times half a second after
 * it saw that. Does not wait: meant to be called every second or when the watch wakes.
 * *ret_term: 0 when another one coordinates, nobody yet, or the member is not JOINED. */
int xv_member_elect(struct xv_member *member, const struct xv_call *call, int64_t *ret_term,
                    xvsa_error **error) XV_MUST_CHECK;
/* Whether the last call saw the place vacant: it must be called again though nothing changes. */
bool xv_member_sees_vacancy(struct xv_member *member);
/* Gives the place up, if the member has it. */
int xv_member_resign(struct xv_member *member, const struct xv_call *call,
                     xvsa_error **error) XV_MUST_CHECK;
/* The compare that guards a decision of this term: the member itself holds the place, since
 * then. It never holds for a term of 0. key_buffer must outlive the transaction, the member as
 * well. */
#define XV_COORDINATOR_KEY_MAX 64
struct xv_kv_compare xv_member_guard(struct xv_member *member, int64_t term,
                                     char key_buffer[XV_COORDINATOR_KEY_MAX]);

#endif
