/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The bounded queue of a job's events with a descriptor to poll. Progress events are the first to be
 * lost; a place for the last event is kept. Thread-safe.
 */
#ifndef XV_JOB_EVENT_H
#define XV_JOB_EVENT_H

#include <jansson.h>

#include "base/error.h"

struct xv_events;

int xv_events_new(struct xv_events **ret, xvsa_error **error) XV_MUST_CHECK;
void xv_events_free(struct xv_events *events);

/* Adds an event of a type with the members of body (consumed; may be NULL). An event that memory is
 * lacking for is lost. */
void xv_events_add(struct xv_events *events, const char *type, json_t *body);
/* Replaces a waiting progress event when it is the newest. */
void xv_events_add_progress(struct xv_events *events, json_t *body);
/* The last one; what comes later is ignored. */
void xv_events_add_last(struct xv_events *events, const char *type, json_t *body);

int xv_events_fd(const struct xv_events *events);
/* See xvsa_job_next_event. */
int xv_events_next(struct xv_events *events, int64_t timeout_ms, char **ret,
                   xvsa_error **error) XV_MUST_CHECK;

#endif
