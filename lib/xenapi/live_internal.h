/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What keeping an inventory and following the events have in common.
 */
#ifndef XV_XENAPI_LIVE_INTERNAL_H
#define XV_XENAPI_LIVE_INTERNAL_H

#include <pthread.h>

#include "xenapi/inventory_draft.h"
#include "xenapi/live.h"

struct xv_live_watch {
    struct xv_live *live;
    struct xv_live_watch *next;
    int fd; /* eventfd */
};

struct xv_live {
    struct xv_client *client;

    pthread_mutex_t lock; /* all up to the watches */
    pthread_cond_t idle;  /* busy ended */
    bool busy;            /* a thread reads or catches up, without the lock */
    bool fresh;           /* current, with the draft, is what the token stands for */
    bool mute;            /* the server has no event.from */
    struct xv_inventory *current;
    struct xv_draft *draft; /* ahead of current when dirty; NULL: nothing happened */
    bool dirty;
    char *token;       /* NULL: none */
    uint64_t position; /* grows with every new token */
    uint64_t epoch;    /* of the client, for the token */
    int64_t loaded_ms; /* when the last full reading began */
    int64_t heard_ms;  /* what is known was so then or later */
    struct xv_live_version version;
    struct xv_live_watch *watches;

    pthread_mutex_t running; /* the thread's beginning and end; taken before lock */
    bool has_thread;
    bool stopped;
    pthread_t thread;
    xvsa_cancel *cancel;
};

/* What a call to event.from needs, and what makes its answer usable. */
struct xv_live_place {
    char *token; /* NULL: a full reading is due */
    uint64_t position;
    uint64_t epoch;
};

/* The caller frees the token. */
int xv_live_place(struct xv_live *live, struct xv_live_place *ret,
                  xvsa_error **error) XV_MUST_CHECK;
/* The classes of the inventory, for event.from; NULL without memory. */
struct xv_value *xv_live_classes(void);
/* Takes the events of an answer over, unless others moved on from the place meanwhile. */
int xv_live_take(struct xv_live *live, const struct xv_live_place *place, int64_t began_ms,
                 const struct xv_value *answer, const struct xv_call *call,
                 xvsa_error **error) XV_MUST_CHECK;
void xv_live_signal(struct xv_live_watch *watch);
/* The next question is answered by a full reading. */
void xv_live_distrust(struct xv_live *live);

#endif
