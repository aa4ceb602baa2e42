/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What one thread of an agent last read of the site, and whether it need be read again. While a watch stands and is
 * silent, and nobody of this process changed anything, it need not, but for now and then all the same. It
 * may be some moments old, as anything that is read: decisions are guarded by the revisions of what they rest on.
 */
#ifndef XV_AGENT_LOOKOUT_H
#define XV_AGENT_LOOKOUT_H

#include <stdatomic.h>

#include "agent/view.h"

struct xv_agent;

/* What a change of a key means to a thread. */
enum xv_matter {
    XV_MATTER_NONE,
    XV_MATTER_LOOK, /* look at once; what was read of the site stands */
    XV_MATTER_READ, /* look at once, and read again */
};
typedef enum xv_matter (*xv_matter_of)(struct xv_agent *agent, const char *key);

/* Of one thread. */
struct xv_lookout {
    struct xv_agent *agent;
    xv_matter_of matter_of;
    atomic_bool *nudge;        /* set by other threads: look at once; NULL: nobody does */
    struct xv_kv_watch *watch; /* NULL: there is none; everything is read at each look */
    struct xv_view view;       /* empty when the thread needs none */
    struct xv_view before;     /* while the view is read again */
    bool kept;                 /* something was read, and has not failed since */
    bool stale;                /* the watch told of changes */
    bool anew;                 /* it cannot tell which, or the store is another one */
    bool silent;               /* it should have, if there are any; while they are read */
    int64_t read_ms;           /* xv_clock_ms */
    uint64_t doubts;
    uint32_t generation; /* of the membership */
    uint64_t print;      /* of the view before */
};

/* A watch that cannot be opened is told in the log. */
void xv_lookout_open(struct xv_lookout *lookout, struct xv_agent *agent, xv_matter_of matter_of,
                     atomic_bool *nudge);
void xv_lookout_close(struct xv_lookout *lookout);

/* Whether what was read may be used as it is. */
bool xv_lookout_is_current(const struct xv_lookout *lookout);
/* Everything is about to be read again: there is no view until then. */
void xv_lookout_begin(struct xv_lookout *lookout);
/* Reads the view, after a begin. */
int xv_lookout_read(struct xv_lookout *lookout, const struct xv_call *call,
                    xvsa_error **error) XV_MUST_CHECK;
/* Reading failed: the next look reads. */
void xv_lookout_drop(struct xv_lookout *lookout);

/* Waits until something may have changed or the thread is nudged, a second at most after the least pause. took_ms: what the look took. */
void xv_lookout_wait(struct xv_lookout *lookout, int64_t took_ms);

#endif
