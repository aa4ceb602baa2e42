/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/event.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/call.h"
#include "base/thread.h"

#define EVENTS_MAX 256

struct event {
    struct event *next;
    bool is_progress;
    bool is_last;
    char *text;
};

struct xv_events {
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t added;
    struct event *first, *last;
    size_t count;
    bool ended;   /* the last event was added */
    bool drained; /* and taken */
    int fd;       /* an eventfd that is not zero while the queue is not empty */
};

int xv_events_new(struct xv_events **ret, xvsa_error **error)
{
    struct xv_events *events = calloc(1, sizeof *events);
    if (events == NULL)
        return xv_fail_memory(error);
    events->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (events->fd < 0) {
        int os_errno = errno;
        free(events);
        return xv_fail_errno(error, os_errno, "job", "cannot make a descriptor for events");
    }
    pthread_mutex_init(&events->lock, NULL);
    xv_condition_init(&events->added);
    *ret = events;
    return 0;
}

static void free_event(struct event *event)
{
    free(event->text);
    free(event);
}

void xv_events_free(struct xv_events *events)
{
    if (events == NULL)
        return;
    while (events->first != NULL) {
        struct event *next = events->first->next;
        free_event(events->first);
        events->first = next;
    }
    close(events->fd);
    pthread_cond_destroy(&events->added);
    pthread_mutex_destroy(&events->lock);
    free(events);
}

static struct event *make_event(const char *type, json_t *body)
{
    json_t *document = json_pack("{s:s, s:I}", "type", type, "time_ms", (json_int_t)xv_wall_ms());
    if (document != NULL && body != NULL)
        json_object_update_missing(document, body);
    json_decref(body);
    struct event *event = calloc(1, sizeof *event);
    char *text = document == NULL ? NULL : json_dumps(document, JSON_COMPACT);
    json_decref(document);
    if (event == NULL || text == NULL) {
        free(event);
        free(text);
        return NULL;
    }
    event->text = text;
    return event;
}

/* Takes the oldest progress event, else the oldest event, out. The caller holds the lock. */
static void drop_one(struct xv_events *events)
{
    struct event *before = NULL;
    struct event *victim = events->first;
    struct event *previous = NULL;
    for (struct event *e = events->first; e != NULL; previous = e, e = e->next) {
        if (e->is_progress) {
            victim = e;
            before = previous;
            break;
        }
    }
    if (before == NULL)
        events->first = victim->next;
    else
        before->next = victim->next;
    if (events->last == victim)
        events->last = before;
    events->count--;
    free_event(victim);
}

static void append(struct xv_events *events, struct event *event)
{
    if (event == NULL)
        return;
    pthread_mutex_lock(&events->lock);
    if (events->ended) {
        pthread_mutex_unlock(&events->lock);
        free_event(event);
        return;
    }
    if (event->is_progress && events->last != NULL && events->last->is_progress) {
        char *text = events->last->text;
        events->last->text = event->text;
        event->text = text;
        pthread_mutex_unlock(&events->lock);
        free_event(event);
        return;
    }
    if (events->count == EVENTS_MAX)
        drop_one(events);
    if (events->last == NULL)
        events->first = event;
    else
        events->last->next = event;
    events->last = event;
    events->ended = event->is_last;
    if (events->count++ == 0) {
        uint64_t one = 1;
        ssize_t written = write(events->fd, &one, sizeof one);
        (void)written; /* the counter is 0 whenever the queue is empty: there is room */
    }
    pthread_cond_broadcast(&events->added);
    pthread_mutex_unlock(&events->lock);
}

void xv_events_add(struct xv_events *events, const char *type, json_t *body)
{
    append(events, make_event(type, body));
}

void xv_events_add_progress(struct xv_events *events, json_t *body)
{
    struct event *event = make_event("progress", body);
    if (event != NULL)
        event->is_progress = true;
    append(events, event);
}

void xv_events_add_last(struct xv_events *events, const char *type, json_t *body)
{
    struct event *event = make_event(type, body);
    if (event != NULL) {
        event->is_last = true;
        append(events, event);
        return;
    }
    /* Without memory for its text the end is told all the same: by STATE. */
    pthread_mutex_lock(&events->lock);
    events->ended = true;
    pthread_cond_broadcast(&events->added);
    pthread_mutex_unlock(&events->lock);
}

int xv_events_fd(const struct xv_events *events)
{
    return events->fd;
}

/* The caller holds the lock. */
static struct event *take(struct xv_events *events)
{
    struct event *event = events->first;
    if (event == NULL)
        return NULL;
    events->first = event->next;
    if (events->first == NULL)
        events->last = NULL;
    events->drained = event->is_last;
    if (--events->count == 0) {
        uint64_t value;
        ssize_t got = read(events->fd, &value, sizeof value);
        (void)got; /* it was written when the queue became non-empty */
    }
    return event;
}

static bool is_over(const struct xv_events *events)
{
    return events->drained || (events->ended && events->first == NULL);
}

int xv_events_next(struct xv_events *events, int64_t timeout_ms, char **ret, xvsa_error **error)
{
    int64_t until = timeout_ms < 0 ? INT64_MAX : xv_clock_ms() + timeout_ms;
    pthread_mutex_lock(&events->lock);
    struct event *event = take(events);
    while (event == NULL && !is_over(events)) {
        int64_t left = until - xv_clock_ms();
        if (left <= 0)
            break;
        xv_condition_wait(&events->added, &events->lock, left > 60000 ? 60000 : left);
        event = take(events);
    }
    bool over = event == NULL && is_over(events);
    pthread_mutex_unlock(&events->lock);
    if (event == NULL && over)
        return xv_fail(error, XVSA_ERR_STATE, "job", "the last event of the job was taken");
    if (event == NULL)
        return xv_fail(error, XVSA_ERR_TIMEOUT, "job", "no event came in time");
    *ret = event->text;
    event->text = NULL;
    free_event(event);
    return 0;
}
