/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Inside of the module: what a member's thread and the election share.
 */
#ifndef XV_COORD_MEMBER_INTERNAL_H
#define XV_COORD_MEMBER_INTERNAL_H

#include <pthread.h>

#include "coord/member.h"

#define XV_MEMBER_COMPONENT "coord"
#define XV_MEMBER_KEY_MAX   (16 + 2 * XV_MEMBER_NAME_MAX)
#define XV_MEMBER_BOOT_MAX  16

/* What the place of the coordinator holds while this member has it. Kept to the end of the
 * member, for guards point to it; one more with each joining. */
struct xv_member_place {
    struct xv_member_place *next;
    char value[160];
};

struct xv_member {
    struct xv_kv *kv;
    const struct xv_env *env;
    char name[XV_MEMBER_NAME_MAX + 1];
    char pool[XV_EPOCH_UUID_MAX + 1];
    char boot[XV_MEMBER_BOOT_MAX + 1];
    int64_t ttl_ms;
    pthread_t thread;
    xvsa_cancel *stop;

    pthread_mutex_t writing; /* who writes "m/<name>"; taken before lock, held over I/O */

    pthread_mutex_t lock; /* everything below; never held over I/O */
    char *facts;
    int64_t lease;      /* 0: none */
    int64_t renewed_ms; /* boot time just before the last successful renewal was sent */
    uint32_t generation;
    bool left;
    int64_t added_ms; /* wall time; the store's order has the word */
    struct xv_epoch epoch;
    struct xv_member_place *places; /* newest first; of the present joining */
    int64_t vacant_ms;              /* since when the place was seen vacant; 0: it is not */
};

/* Writes "m/<name>" with a lease. EXISTS when somebody else has the name. */
int xv_member_write(struct xv_member *member, int64_t lease, const struct xv_call *call,
                    xvsa_error **error) XV_MUST_CHECK;
/* Writes "order/<pool>/<name>" when it is not there; reads what is. */
int xv_member_write_order(struct xv_member *member, const struct xv_call *call,
                          xvsa_error **error) XV_MUST_CHECK;

int64_t xv_member_added(struct xv_member *member);

#endif
